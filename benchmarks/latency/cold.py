"""Cold start in a fresh process: import, first score, resident memory."""

import json
import os
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution

from packaging.requirements import InvalidRequirement, Requirement

from ...runtime.engine import Engine
from ..spread import spread
from .peers.peer import RATE, Peer
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


_Run = tuple[float, float, int | None]
"""Milliseconds to import and to the first score, and bytes of memory."""


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
    def peer(cls, point: EntryPoint, peer: Peer) -> "Start":
        """The peer that an entry point names."""
        steps = SECONDS * RATE // peer.block
        setting = {"module": point.module, "name": point.attr, "block": peer.block, "steps": steps}
        return cls(_PEER, setting, peer.distribution)


def cold_starts(starts: Sequence[Start], repeats: int = REPEATS) -> list[Cold | str]:
    """Start each so often, in turn, after a first time that does not count: it compiles what was
    not compiled when it was installed.

    Returns:
        Of each what it took; or why a process of it failed, after which it is not started again.
    """
    runs: list[list[_Run]] = [[] for _ in starts]
    failed: dict[int, str] = {}
    for _ in range(1 + repeats):
        for place, start in enumerate(starts):
            if place in failed:
                continue
            run = _once(start)
            if isinstance(run, str):
                failed[place] = run
            else:
                runs[place].append(run)
    return [
        failed[place] if place in failed else _cold(start, runs[place][1:])
        for place, start in enumerate(starts)
    ]


def _cold(start: Start, runs: Sequence[_Run]) -> Cold:
    imports, firsts, resident = zip(*runs, strict=True)
    size = installed_bytes(start.distribution, start.without)
    return Cold(
        spread(imports),
        spread(firsts),
        None if None in resident else spread([value / 1e6 for value in resident]),
        None if size is None else size / 1e6,
    )


def _once(start: Start) -> _Run | str:
    command = [sys.executable, "-c", start.code, json.dumps(start.setting)]
    # With this variable Python would compile at each start what is compiled when it is installed.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return f"did not end within {TIMEOUT} s"
    except OSError as error:
        return str(error)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        return said[-1] if said else f"exit status {done.returncode}"
    # What is started may print lines of its own before.
    line = done.stdout.rstrip().rpartition("\n")[2]
    try:
        imported, first, resident = json.loads(line)
    except (ValueError, TypeError):
        return f"printed {line[:80]!r} in place of its times"
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
