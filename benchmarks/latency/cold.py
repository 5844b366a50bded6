"""Cold start in a fresh process: import, first score, resident memory."""

import json
import os
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import InvalidRequirement, Requirement

from ...runtime.engine import Engine
from ...runtime.errors import EarmarkError
from ..spread import spread
from .results import Cold

REPEATS = 5
TIMEOUT = 120
SECONDS = 10
"""Audio after which memory is read."""

# The clock runs from the first line: what the interpreter itself takes is the same for all. Nothing
# is imported here that what is measured may do without, since memory is read at the end.
_CHILD = """
import time
begin = time.perf_counter()
import json, sys
setting = json.loads(sys.argv[1])
{load}
imported = time.perf_counter()
{ready}
step()
first = time.perf_counter()
for _ in range(setting["steps"]):
    step()
from earmark.runtime.process import resident_bytes
print(json.dumps([1e3 * (imported - begin), 1e3 * (first - begin), resident_bytes()]))
"""
_EDGE = _CHILD.format(
    load="""from earmark.runtime.backends.backend import prepare
from earmark.runtime.engine import Engine
prepare(setting["backend"])""",
    ready="""import numpy
silence = numpy.zeros(setting["block"], numpy.int16)
stream = Engine(setting["model"], setting["backend"]).stream()
step = lambda: stream.push(silence)""",
)
_PEER = _CHILD.format(
    load="""from importlib import import_module
peer = getattr(import_module(setting["module"]), setting["name"])
import_module(peer.module)""",
    ready="""silence = bytes(2 * setting["block"])
push = peer.load()
step = lambda: push(silence)""",
)


@dataclass(frozen=True)
class Start:
    """How to start something in a process of its own."""

    code: str
    setting: dict[str, str | int]
    distribution: str
    """What it is installed from."""
    without: tuple[str, ...] = ()
    """Distributions that it does not need though its own requires them."""

    @classmethod
    def edge(cls, engine: Engine) -> "Start":
        """A model file of Earmark."""
        geometry = engine.manifest.geometry
        setting = {
            "model": str(engine.path),
            "backend": engine.backend,
            "block": geometry.chunk,
            "steps": SECONDS * geometry.sample_rate // geometry.chunk,
        }
        without = () if engine.backend == "onnxruntime" else ("onnxruntime",)
        return cls(_EDGE, setting, "earmark", without)

    @classmethod
    def peer(cls, module: str, name: str, block: int, rate: int, distribution: str) -> "Start":
        """The peer ``name`` of an adapter's ``module``."""
        setting = {"module": module, "name": name, "block": block, "steps": SECONDS * rate // block}
        return cls(_PEER, setting, distribution)


def cold_starts(starts: Sequence[Start], repeats: int = REPEATS) -> list[Cold]:
    """Start each so often, in turn, after a first time that does not count: it compiles what was
    not compiled when it was installed.

    Raises:
        EarmarkError: a process fails.
    """
    _, *found = [[_once(start) for start in starts] for _ in range(1 + repeats)]
    colds = []
    for start, runs in zip(starts, zip(*found, strict=True), strict=True):
        imports, firsts, resident = zip(*runs, strict=True)
        size = installed_bytes(start.distribution, start.without)
        colds.append(
            Cold(
                spread(imports),
                spread(firsts),
                None if None in resident else spread([value / 1e6 for value in resident]),
                None if size is None else size / 1e6,
            )
        )
    return colds


def _once(start: Start) -> tuple[float, float, int | None]:
    command = [sys.executable, "-c", start.code, json.dumps(start.setting)]
    # With this variable Python would compile at each start what is compiled when it is installed.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT, check=True, env=environment
        )
        imported, first, resident = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1:]
        raise EarmarkError(f"cold start of {start.distribution}: {' '.join(said)}") from error
    return imported, first, resident


def installed_bytes(name: str, without: Collection[str] = ()) -> int | None:
    """Bytes on disk of a distribution and of all that it requires without extras, by their records,
    those in ``without`` and what only they require left out.

    None where one of them is not installed or has no record.
    """
    found: dict[str, int] = {}
    waiting = [name]
    while waiting:
        current = waiting.pop().lower().replace("_", "-")
        if current in found or current in without:
            continue
        try:
            installed = distribution(current)
            requirements = [Requirement(text) for text in installed.requires or ()]
        except (PackageNotFoundError, InvalidRequirement):
            return None
        if installed.files is None:
            return None
        files = [file.locate() for file in installed.files]
        found[current] = sum(file.stat().st_size for file in files if file.is_file())  # pyright: ignore
        waiting += [
            requirement.name
            for requirement in requirements
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        ]
    return sum(found.values())
