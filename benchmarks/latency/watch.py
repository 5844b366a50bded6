"""Whether other work on the machine disturbed a measurement."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .timing import Timing

MAX_LOAD = 0.5
"""Load average of the last minute before the run, for each core."""
MAX_FOREIGN = 0.1
"""Cores that others kept busy during the run."""
MAX_STOLEN = 0.01
"""Share of the run in which a hypervisor ran something else."""
MAX_SWITCHES = 50.0
"""Times that another thread took the processor away, for each second of CPU time."""
MAX_DRIFT = 1.15
"""Typical step of the second half of the rounds against that of the first, or the reverse."""


@dataclass(frozen=True)
class Reading:
    """Counters of a moment, in seconds since any moment; None where the system does not tell."""

    wall: float
    own: float
    """CPU time of this process and of those that it started and that have ended."""
    switches: int | None
    """Involuntary context switches of the thread that measures: those of threads that a peer
    starts are its own doing."""
    busy: float | None
    """CPU time of all processes, over all cores."""
    stolen: float | None
    """Time that the hypervisor gave to others, over all cores."""


@dataclass(frozen=True)
class Disturbance:
    """What was seen during a run, and what of it is too much."""

    load_before: float | None
    """Load average of the last minute before the run."""
    foreign_cores: float | None
    """Cores that others kept busy, on average."""
    stolen_share: float | None
    switches_per_cpu_second: float | None
    drift: dict[str, float]
    """For each row, the typical step of the later rounds over that of the earlier ones."""
    reasons: tuple[str, ...]
    """Why the run counts as disturbed; none where it does not."""


def read(stat: Path = Path("/proc/stat")) -> Reading:
    """Read the counters. ``stat``: Linux' counters of the processors."""
    times = os.times()
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        switches = None
    else:
        who = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)  # Linux alone has it
        switches = resource.getrusage(who).ru_nivcsw
    busy = stolen = None
    if stat.is_file():
        ticks = os.sysconf("SC_CLK_TCK")
        fields = [int(field) / ticks for field in stat.read_text().split("\n", 1)[0].split()[1:9]]
        user, nice, system, _idle, _iowait, irq, softirq, stolen = fields
        busy = user + nice + system + irq + softirq
    return Reading(
        wall=time.monotonic(),
        own=times.user + times.system + times.children_user + times.children_system,
        switches=switches,
        busy=busy,
        stolen=stolen,
    )


def judge(
    before: Reading,
    after: Reading,
    load: float | None,
    cores: int,
    timings: Mapping[str, Timing],
) -> Disturbance:
    """Compare the counters before and after a run.

    Args:
        before: at its start.
        after: at its end.
        load: average of the last minute before it.
        cores: of the machine.
        timings: hot timings by row.
    """
    wall = max(after.wall - before.wall, 1e-9)
    own = after.own - before.own
    foreign = stolen = switches = None
    if before.busy is not None and after.busy is not None:
        foreign = max(0.0, after.busy - before.busy - own) / wall
    if before.stolen is not None and after.stolen is not None:
        stolen = (after.stolen - before.stolen) / wall / cores
    if before.switches is not None and after.switches is not None:
        switches = (after.switches - before.switches) / max(own, 1e-9)
    drift = {name: _drift(timing) for name, timing in timings.items()}
    reasons = []
    if load is not None and load > MAX_LOAD * cores:
        reasons.append(f"load average of {load:.2f} before the run")
    if foreign is not None and foreign > MAX_FOREIGN:
        reasons.append(f"other processes kept {foreign:.2f} cores busy")
    if stolen is not None and stolen > MAX_STOLEN:
        reasons.append(f"the hypervisor took {100 * stolen:.1f} % of the time")
    if switches is not None and switches > MAX_SWITCHES:
        reasons.append(f"the processor was taken away {switches:.0f} times per second of work")
    moved = {name: value for name, value in drift.items() if not 1 / MAX_DRIFT < value < MAX_DRIFT}
    if moved:
        worst = max(moved, key=lambda name: abs(np.log(moved[name])))
        reasons.append(
            f"{len(moved)} of {len(drift)} rows changed from the earlier to the later rounds, "
            f"{worst} by a factor of {moved[worst]:.2f}"
        )
    return Disturbance(load, foreign, stolen, switches, drift, tuple(reasons))


def _drift(timing: Timing) -> float:
    rounds = timing.p50_us.rounds
    half = len(rounds) // 2
    if not half or not all(rounds):
        return 1.0
    return float(np.median(rounds[-half:]) / np.median(rounds[:half]))
