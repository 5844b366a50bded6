"""The command ``earmark`` in a process of its own."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# The installed script and no `python -c`: training on several devices runs it again by its path.
EARMARK = (str(Path(sys.executable).with_name("earmark")),)


def launch(
    *arguments: str | Path, program: Sequence[str] = EARMARK, **options: Any
) -> subprocess.Popen[Any]:
    """Start it, or a ``program`` that stands for it, with pipes for what it writes.

    Further ``options`` are those of ``Popen``.
    """
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*program, *arguments], **(pipes | options))
