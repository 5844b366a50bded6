"""A whole run: rows of every kind that was asked for, on one machine, beside one reference."""

import dataclasses
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.backends.backend import available
from ...runtime.engine import Engine
from ...runtime.errors import EarmarkError
from ...train.progress import progress
from ..machine import machine
from ..spread import paired_ratio, spread
from . import watch
from .beside import peer_row, peer_work
from .capacity import WAYS, capacity
from .cold import REPEATS, Start, cold_starts
from .delay import Clip, clips, with_delay
from .edge import edge_row, edge_work
from .network import network_works
from .peers.peer import Peer, peers
from .results import Capacity, Network, Report, Row
from .timing import PACED, ROUNDS, TURN, WARM_UP_STEPS, Times, Work, check, count_turns, measure

FULL_ROUNDS = 7
"""Most rounds of whole models, whose steps take up to seconds."""


@dataclass(frozen=True)
class Plan:
    """What to run."""

    models: tuple[str, ...] = ()
    """Model files; the first is the reference, the shipped one where there is none."""
    peers: tuple[str, ...] | None = None
    """Names of peers, all that are registered where it is empty; None for none."""
    full: tuple[str, ...] | None = None
    """Names or runs of whole models, all names where it is empty; None for none."""
    scaling: bool = False
    precisions: tuple[str, ...] = ("float32",)
    modes: tuple[str, ...] = ("eager",)
    devices: tuple[str, ...] = ()
    """Of whole models; empty for the GPU where there is one and the CPU."""
    batch: int | None = None
    audio: str = ""
    """Folder of recordings of the keywords; empty to have them spoken."""
    rounds: int = ROUNDS
    turn: float = TURN
    paced: float = PACED


@dataclass
class _Found:
    """What a run has found so far."""

    rows: list[Row] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


def run(plan: Plan, command: str = "") -> Report:
    """Run it, with bars on a terminal.

    Raises:
        EarmarkError: a setting is out of range, a model cannot be read, or there is no such peer
            or whole model.
    """
    check(plan.rounds, plan.turn, plan.paced)
    host, before = machine(), watch.read()
    host["date"] = time.strftime("%Y-%m-%d", time.gmtime())
    edges = _edges(plan.models)
    for name, engine in edges:
        geometry = engine.manifest.geometry
        least = geometry.chunk / geometry.sample_rate
        if 0 < plan.paced < least:
            # No chunk would come in so short a time.
            raise EarmarkError(
                f"--paced {plan.paced:g}: expected at least {least:g}, a chunk of {name}, or 0"
            )
    chosen = {} if plan.peers is None else _chosen(plan.peers)
    if plan.full is not None:
        from . import full_models

        full_models.check(plan.full, plan.devices)
    found = _Found()
    _live(plan, edges, chosen, found)
    reference = found.rows[0]
    networks = _networks(plan, edges)
    capacities: list[Capacity] = []
    if plan.scaling:
        _scaling(plan, found)
        name, engine = edges[0]
        with progress("streams per core", len(WAYS)) as advance:
            for batch in WAYS:
                cost = reference.hot.cpu_ms_per_second.median
                carried = capacity(engine, name, batch, cost)
                if carried is None:
                    way = "one by one" if batch is None else f"up to {batch} in one call"
                    found.skipped[f"streams per core, {way}"] = "not even one is carried"
                else:
                    capacities.append(carried)
                advance(1)
    if plan.full is not None:
        host |= _full(plan, edges[0], found)
    after = watch.read()
    timings = {row.key: row.hot for row in found.rows}
    return Report(
        command=command,
        machine=host,
        settings=_settings(plan),
        reference=reference.key,
        rows=found.rows,
        disturbance=watch.judge(before, after, host["load"], host["cores"] or 1, timings),
        networks=networks,
        capacities=capacities,
        skipped=found.skipped,
        seconds=after.wall - before.wall,
    )


def _settings(plan: Plan) -> dict[str, Any]:
    return {
        "threads": 1,
        "interleaved": True,
        "rounds": plan.rounds,
        "rounds_of_full_models": min(plan.rounds, FULL_ROUNDS),
        "seconds_of_work_in_a_turn": plan.turn,
        "seconds_of_audio_in_a_paced_turn": plan.paced,
        "warm_up_steps": WARM_UP_STEPS,
        "cold_starts": REPEATS,
        "interval": "95 % bootstrap of the median over rounds",
        "audio": "noise that swells as speech does",
    }


def _edges(models: Sequence[str]) -> list[tuple[str, Engine]]:
    """Engines with a name that tells the files apart; the first model also by each other backend
    that is there."""
    engines = [Engine(path) for path in models] or [Engine()]
    stems = Counter(engine.path.stem for engine in engines)
    names = [e.path.stem if stems[e.path.stem] == 1 else str(e.path) for e in engines]
    if len(set(names)) < len(names):
        raise EarmarkError(f"{', '.join(names)}: a model is named twice")
    edges = list(zip(names, engines, strict=True))
    name, first = edges[0]
    others = [backend for backend in available() if backend != first.backend]
    return edges + [(name, Engine(first.path, backend)) for backend in others]


def _chosen(names: Sequence[str]) -> dict[str, EntryPoint]:
    known = peers()
    for name in names:
        if name not in known:
            raise EarmarkError(f"--peers {name}: choose from {', '.join(known)}")
    return {name: known[name] for name in names or known}


def _measure(text: str, works: Sequence[Work], rounds: int, turn: float, paced: float):
    with progress(text, count_turns(works, rounds, paced)) as advance:
        return measure(works, rounds=rounds, turn=turn, paced=paced, advance=advance)


def _beside(row: Row, times: Times, reference: Times) -> Row:
    """The row with its ratios to the reference, which took its turns in the same rounds."""
    hot, other = times.hot, reference.hot
    return dataclasses.replace(
        row,
        cpu_ratio=paired_ratio(hot.cpu_ms_per_second.rounds, other.cpu_ms_per_second.rounds),
        decision_ratio=paired_ratio(hot.p50_us.rounds, other.p50_us.rounds),
    )


def _live(
    plan: Plan,
    edges: list[tuple[str, Engine]],
    chosen: dict[str, EntryPoint],
    found: _Found,
) -> None:
    """Models and peers on the same audio, in turn; then each from a cold start."""
    works = [edge_work(engine, name) for name, engine in edges]
    starts = [Start.edge(engine) for _, engine in edges]
    present: list[Peer] = []
    for name, point in chosen.items():
        started = peer_work(point)
        if isinstance(started, str):
            found.skipped[name] = started
            continue
        peer, work = started
        works.append(work)
        present.append(peer)
        starts.append(Start.peer(point, peer))
    times = _measure("models and peers", works, plan.rounds, plan.turn, plan.paced)
    colds = cold_starts(starts)
    said = _said(plan, [engine for _, engine in edges], found)
    rows = [
        _with_delay(plan, engine, edge_row(engine, name, each), said, found)
        for (name, engine), each in zip(edges, times, strict=False)
    ]
    rows += [peer_row(peer, each) for peer, each in zip(present, times[len(edges) :], strict=True)]
    for place, (row, each, cold) in enumerate(zip(rows, times, colds, strict=True)):
        if isinstance(cold, str):
            found.skipped[f"cold start of {row.name}, {row.mode}"] = cold
        else:
            row = dataclasses.replace(row, cold=cold)
        found.rows.append(_beside(row, each, times[0]) if place else row)


def _networks(plan: Plan, edges: list[tuple[str, Engine]]) -> list[Network]:
    """The graphs of the models that run as the first one does, and their front ends, in turn."""
    found: list[Network] = []
    named = [
        (name, engine.manifest.precision, works)
        for name, engine in edges
        if engine.backend == edges[0][1].backend and (works := network_works(engine, name))
    ]
    if not named:
        return found
    works = [work for _, _, pair in named for work in pair]
    times = [each.hot for each in _measure("networks", works, plan.rounds, plan.turn, 0)]
    for (name, precision, _), graph, front in zip(named, times[::2], times[1::2], strict=True):
        left = spread(np.subtract(graph.p50_us.rounds, front.p50_us.rounds))
        ratio = paired_ratio(left.rounds, found[0].network_us.rounds) if found else None
        found.append(Network(name, precision, graph.p50_us, front.p50_us, left, ratio))
    return found


def _said(plan: Plan, engines: Sequence[Engine], found: _Found) -> dict[int, list[Clip]]:
    """Words to measure the detection delay on, by sample rate: the same for all models, as eSpeak
    NG does not say a word twice in the same way."""
    words = list(dict.fromkeys(word for engine in engines for word in engine.manifest.keywords))
    rates = dict.fromkeys(engine.manifest.geometry.sample_rate for engine in engines)
    try:
        return {rate: clips(words, rate, plan.audio) for rate in rates}
    except (EarmarkError, ModuleNotFoundError) as error:
        found.skipped["detection delay"] = str(error)
        return {}


def _with_delay(
    plan: Plan, engine: Engine, row: Row, words: dict[int, list[Clip]], found: _Found
) -> Row:
    """The row with the detection delay measured, where there are words to measure it on."""
    manifest = engine.manifest
    spoken = words.get(manifest.geometry.sample_rate, ())
    said = [(keyword, clip) for keyword, clip in spoken if keyword in manifest.keywords]
    if not said:
        if spoken:
            found.skipped[f"detection delay of {row.name}"] = "none of its keywords is said"
        return row
    on = "recordings" if plan.audio else "synthesized words"
    assert row.delay is not None
    return dataclasses.replace(row, delay=with_delay(row.delay, engine, said, on))


def _scaling(plan: Plan, found: _Found) -> None:
    """Students with random weights of several widths, chunks and numbers of keywords."""
    from .students import shapes, write_students

    with tempfile.TemporaryDirectory() as folder:
        engines: list[tuple[str, Engine]] = []
        wanted = shapes()
        with progress("students with random weights", len(wanted)) as advance:
            for shape in wanted:
                files = write_students(shape, Path(folder))
                engines += [(shape.name, Engine(file)) for file in files]
                advance(1)
        works = [edge_work(engine, name) for name, engine in engines]
        times = _measure("size, chunk, keywords", works, plan.rounds, plan.turn, 0)
        for (name, engine), each in zip(engines, times, strict=True):
            found.rows.append(edge_row(engine, name, each, random=True))


def _full(plan: Plan, reference: tuple[str, Engine], found: _Found) -> dict[str, Any]:
    """Whole models, each beside the reference; returns what they ran on."""
    from . import full_models

    name, engine = reference
    geometry = engine.manifest.geometry
    settings = full_models.Settings(
        devices=plan.devices or full_models.devices(),
        precisions=plan.precisions,
        modes=plan.modes,
        batch=plan.batch,
        hop=geometry.chunk / geometry.sample_rate,
    )
    rounds = min(plan.rounds, FULL_ROUNDS)
    with full_models.one_thread():
        for model in plan.full or full_models.NAMES:
            try:
                for group in full_models.variants(model, settings, found.skipped.__setitem__):
                    works = [edge_work(engine, name), *(full.work for full in group)]
                    times = _measure(model, works, rounds, plan.turn, 0)
                    for full, each in zip(group, times[1:], strict=True):
                        row = full_models.full_row(model, full, each, settings.hop)
                        found.rows.append(_beside(row, each, times[0]))
            except EarmarkError as error:
                if model not in full_models.NAMES:
                    raise
                found.skipped[model] = str(error)
    import torch

    return {"accelerator": full_models.accelerator(), "torch": torch.__version__}
