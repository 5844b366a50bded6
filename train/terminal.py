"""Where tables for people go."""

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_WIDE = 200
"""Columns where nobody says how many there are: a file, or what another program reads."""


def stderr_console() -> "Console":
    """The console for tables and plain text on stderr.

    They are as wide as the terminal, or as the environment's ``COLUMNS``; elsewhere, where nothing
    is gained by breaking cells, as wide as they need.
    """
    from rich.console import Console

    told = sys.stderr.isatty() or "COLUMNS" in os.environ
    return Console(stderr=True, markup=False, highlight=False, width=None if told else _WIDE)
