"""Mutated inputs for every reader: none may crash, hang, raise anything but EarmarkError, or take
memory without bound.

Cases run in worker processes with a limit on their memory, which the parent watches: a worker that
dies or stands still is a finding, and another takes its place. A case is a function of the seed,
the target and its number, so that any finding can be had again.
"""

import dataclasses
import json
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

from ...runtime.errors import EarmarkError
from ...train.progress import progress
from ..machine import machine
from .fuzz_targets import TARGETS, Target

MEMORY = 512 << 20
"""Bytes that a case may add to the largest size of its process."""
HEADROOM = 2 << 30
"""Bytes of address space that a worker has for all cases."""
CPU_SECONDS = 10.0
"""Processor time of one case."""
HANG_SECONDS = 60.0
"""Wall time after which a case is taken for one that never ends; the machine may be busy."""
MAX_DEATHS = 20
MAX_FINDINGS = 50
POLL_SECONDS = 0.2


@dataclass
class Outcome:
    """What came of one target."""

    cases: int = 0
    refused: int = 0
    """Cases that ended in an EarmarkError."""
    accepted: int = 0
    """Cases that were read to their end."""
    seconds: float = 0.0
    findings: list[dict[str, Any]] = field(default_factory=list)
    """``case``, ``kind`` (crash, hang, exception, message, memory or time) and ``what``; at most
    the first 50."""


def run(arguments: Namespace) -> int:
    """The verb ``fuzz``: exit status 1 where something was found."""
    names: list[str] = []
    for wanted in arguments.target or TARGETS:
        # `model` stands for `model by native` and so on.
        found = [name for name in TARGETS if name == wanted or name.startswith(f"{wanted} by ")]
        if not found:
            raise EarmarkError(f"--target {wanted}: choose from {', '.join(TARGETS)}")
        names += found
    if arguments.case is not None:
        failed = False
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                seeds = _seeds(TARGETS[name], Path(folder))
                failed |= _again(TARGETS[name], name, arguments.seed, arguments.case, seeds)
        return 1 if failed else 0
    if arguments.cases < 1 or arguments.jobs < 1:
        raise EarmarkError("--cases and --jobs: give 1 or more")
    found = machine()
    outcomes = {}
    with progress("Fuzzing", arguments.cases * len(names)) as done:
        for name in names:
            outcomes[name] = fuzz(
                name, TARGETS[name], arguments.cases, arguments.seed, arguments.jobs, done
            )
            _say(name, outcomes[name])
    report = {
        "machine": found,
        "seed": arguments.seed,
        "targets": {name: dataclasses.asdict(outcome) for name, outcome in outcomes.items()},
    }
    print(json.dumps(report))
    return 1 if any(outcome.findings for outcome in outcomes.values()) else 0


def fuzz(
    name: str,
    target: Target,
    cases: int,
    seed: int = 0,
    jobs: int = 1,
    done: Callable[[int], None] = lambda cases: None,
    hang_seconds: float = HANG_SECONDS,
) -> Outcome:
    """Run cases 0 to ``cases`` - 1 of a target.

    Args:
        name: of the target, a part of what each case is drawn from.
        target: the reader; its functions must be importable by a new process.
        cases: how many.
        seed: of all cases.
        jobs: processes at once.
        done: told of the cases that have ended.
        hang_seconds: wall time after which a case counts as one that never ends.
    """
    outcome = Outcome()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        (folder / "seeds").mkdir()
        seeds = _seeds(target, folder / "seeds")
        watched = [
            _Worker(folder / str(job), (target, name, seed, seeds), range(job, cases, jobs))
            for job in range(jobs)
        ]
        try:
            deaths, told = 0, 0
            while any(worker.running for worker in watched):
                time.sleep(POLL_SECONDS)
                for worker in watched:
                    finding = worker.check(hang_seconds)
                    outcome.findings += worker.findings()
                    if finding:
                        outcome.findings.append(finding)
                        deaths += 1
                        # A process that does not even begin would not do so the next time.
                        if finding["case"] >= 0 and deaths < MAX_DEATHS:
                            worker.resume()
                total = sum(worker.ended for worker in watched)
                done(total - told)
                told = total
        finally:
            for worker in watched:
                worker.stop()
        outcome.cases = told
        outcome.refused = sum(worker.shared[1] for worker in watched)
        outcome.accepted = sum(worker.shared[2] for worker in watched)
    outcome.findings = sorted(outcome.findings, key=lambda f: f["case"])[:MAX_FINDINGS]
    outcome.seconds = round(time.monotonic() - begin, 1)
    return outcome


def examine(
    target: Target, data: bytes, folder: Path, warn: bool = True
) -> tuple[bool, tuple[str, str] | None]:
    """Run one input in this process.

    Returns:
        Whether it was accepted, and what is wrong: kind and description.
    """
    spent, size = time.process_time(), _peak()
    finding, accepted = None, False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            target.run(data, folder)
        accepted = True
    except EarmarkError as error:
        finding = _message_fault(error)
    except Exception as error:
        finding = ("exception", _where(error))
    grown, spent = _peak() - size, time.process_time() - spent
    if finding is None and grown > MEMORY:
        finding = ("memory", f"{grown >> 20} MiB")
    if finding is None and spent > CPU_SECONDS:
        finding = ("time", f"{spent:.1f} s")
    return accepted, finding


def draw(target: Target, name: str, seed: int, case: int, seeds: list[bytes]) -> bytes:
    """The input of a case."""
    return target.mutate(Random(f"{seed} {name} {case}"), seeds)


class _Worker:
    """A process, and how far it is."""

    def __init__(self, folder: Path, work: tuple[Target, str, int, list[bytes]], cases: range):
        self._folder = folder
        self._work = work
        self._cases = cases
        self._lost = 0
        self._context = multiprocessing.get_context("spawn")
        # The case at hand, counts of refused and accepted ones: they outlive a crash.
        self.shared = self._context.Array("q", [-1, 0, 0], lock=False)
        self.ended = 0
        self._start()

    @property
    def running(self) -> bool:
        return self._process is not None

    def check(self, hang_seconds: float) -> dict[str, Any] | None:
        """See how far the process is: a finding if it has died or stands still."""
        if self._process is None:
            return None
        case, now = self.shared[0], time.monotonic()
        self.ended = self.shared[1] + self.shared[2] + self._lost
        if case != self._seen:
            self._seen, self._since = case, now
        if not self._process.is_alive():
            status = self._process.exitcode
            self._process = None
            if status == 0:
                return None
            return {"case": case, "kind": "crash", "what": f"exit status {status}"}
        if case >= 0 and now - self._since > hang_seconds:
            self._process.kill()
            self._process.join()
            self._process = None
            return {"case": case, "kind": "hang", "what": f"more than {hang_seconds:g} s"}
        return None

    def findings(self) -> Iterator[dict[str, Any]]:
        """What the process has reported since it was last asked."""
        with suppress(EOFError, OSError):
            while self._receiver.poll():
                yield self._receiver.recv()

    def resume(self) -> None:
        """Go on after the case that ended the process."""
        last = self.shared[0]
        self._lost += 1
        self._cases = range(last + self._cases.step, self._cases.stop, self._cases.step)
        self._start()

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None

    def _start(self) -> None:
        self._folder.mkdir(exist_ok=True)
        self.shared[0] = self._seen = -1
        self._since = time.monotonic()
        self._receiver, sender = self._context.Pipe(duplex=False)
        self._process = self._context.Process(
            target=_work, args=(*self._work, self._cases, self._folder, self.shared, sender)
        )
        self._process.start()
        sender.close()


def _work(
    target: Target,
    name: str,
    seed: int,
    seeds: list[bytes],
    cases: range,
    folder: Path,
    shared: Any,
    sender: Connection,
) -> None:
    """The worker's process."""
    # Imports and caches first, so that they do not count as what a case took.
    with suppress(EarmarkError):
        target.run(seeds[0], folder)
    _limit_memory()
    # libmpg123 and libsndfile's ALAC tell what they think of a damaged file: on 2, and even on 1.
    for descriptor in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    kinds: set[tuple[str, str]] = set()
    for case in cases:
        shared[0] = case
        accepted, finding = examine(target, draw(target, name, seed, case, seeds), folder)
        shared[2 if accepted else 1] += 1
        if finding is not None and finding not in kinds:
            kinds.add(finding)
            sender.send({"case": case, "kind": finding[0], "what": finding[1]})


def _seeds(target: Target, folder: Path) -> list[bytes]:
    seeds = target.seeds(folder)
    for seed in seeds:
        if not seed and len(seeds) == 1:
            raise ValueError("a target needs an input to start from")
    return seeds


def _again(target: Target, name: str, seed: int, case: int, seeds: list[bytes]) -> bool:
    """Run one case here, and show what it raises in full: whether it is a finding."""
    data = draw(target, name, seed, case, seeds)

    def run(data: bytes, folder: Path) -> None:
        try:
            target.run(data, folder)
        except Exception:
            print(f"{name} {case}: {len(data)} bytes: {data[:300]!r}", file=sys.stderr)
            traceback.print_exc()
            raise

    with tempfile.TemporaryDirectory() as folder:
        # As in a worker: imports and caches first.
        with suppress(Exception):
            target.run(seeds[0], Path(folder))
        accepted, finding = examine(dataclasses.replace(target, run=run), data, Path(folder))
    if accepted:
        print(f"{name} {case}: accepted, {len(data)} bytes", file=sys.stderr)
    if finding is not None:
        print(f"{name} {case}: {finding[0]}: {finding[1]}", file=sys.stderr)
    return finding is not None


def _message_fault(error: EarmarkError) -> tuple[str, str] | None:
    """What is wrong with a message, or behind it."""
    text = str(error)
    if not text or not text.isprintable():
        return "message", f"not one printable line: {text[:200]!r}"
    if len(text) > 2000:
        return "message", f"{len(text)} characters: {text[:100]}"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError) or "bad_alloc" in str(cause) or "allocate" in str(cause):
            return "memory", f"ran out of it: {str(cause)[:200]}"
        cause = cause.__cause__
    return None


def _where(error: Exception) -> str:
    """The type and message, and the innermost place in Earmark that it passed."""
    frames = traceback.extract_tb(error.__traceback__)
    home = str(Path(__file__).parents[2])
    ours = [f for f in frames if f.filename.startswith(home)] or frames[-1:]
    place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "?"
    return f"{type(error).__name__} at {place}: {str(error)[:120]}"


def _peak() -> int:
    """The largest resident size of this process so far, bytes; 0 where the system has none."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _limit_memory() -> None:
    """Let this process have no more than some address space beyond what it has."""
    status = Path("/proc/self/statm")
    if status.is_file():
        import resource

        pages = int(status.read_text(encoding="utf-8").split()[0])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + HEADROOM
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _say(name: str, outcome: Outcome) -> None:
    counts: Mapping[str, int] = {"refused": outcome.refused, "accepted": outcome.accepted}
    text = ", ".join(f"{count} {word}" for word, count in counts.items())
    print(
        f"{name}: {outcome.cases} cases ({text}) in {outcome.seconds:g} s, "
        f"{len(outcome.findings)} findings",
        file=sys.stderr,
    )
    for finding in outcome.findings:
        print(f"  case {finding['case']}: {finding['kind']}: {finding['what']}", file=sys.stderr)
