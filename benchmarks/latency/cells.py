"""Reports as tables of text, for the terminal, for HTML and for Markdown alike."""

from collections.abc import Sequence
from dataclasses import dataclass

from ...train.metrics import HEADLINES
from ..machine import machine_line
from ..spread import Spread
from ..tables import spread_text
from .bound import BYTES, GPUS, least_us, weights_mb
from .results import Report, Row
from .timing import Timing

NOTHING = "-"
MANY_CORES = 1.2
"""Cores kept busy from which one thread is not what was measured."""


@dataclass(frozen=True)
class Table:
    """A table with what it shows."""

    title: str
    note: str
    heads: tuple[str, ...]
    rows: list[list[str]]


def tables(report: Report) -> list[Table]:
    """All tables of a report that have rows."""
    makers = (_cost, _network, _device, _full, _bound, _scaling, _capacity)
    made = [make(report) for make in makers]
    return [table for table in made if table.rows]


def summary(reports: Sequence[Report], titles: Sequence[str]) -> Table:
    """The first model of each report, with how many times the CPU time of it others take."""
    rows = []
    for report, title in zip(reports, titles, strict=True):
        for row in report.of("edge")[:1]:
            others = [
                f"{peer.name} {peer.cpu_ratio.median:.3g}"
                for peer in report.of("peer")
                if peer.cpu_ratio is not None
            ]
            rows.append(
                [
                    title,
                    f"{row.name}, {row.precision}",
                    spread_text(row.hot.cpu_ms_per_second, 2),
                    _pair(row.hot),
                    NOTHING if row.paced is None else _pair(row.paced),
                    *_cold(row)[1:3],
                    ", ".join(others) or NOTHING,
                ]
            )
    return Table(
        "In short",
        "The first model of each run below: milliseconds of CPU time per second of audio and the "
        "time of a chunk (p50 / p99) hot, one after the other, and paced, as live audio comes; how "
        "many times its CPU time other spotters take.",
        (
            *("run", "model", "CPU ms/s", "hot µs", "paced µs", "first score ms", "resident MB"),
            "others, times",
        ),
        rows,
    )


def _pair(timing: Timing) -> str:
    return f"{timing.p50_us.median:.0f} / {timing.p99_us.median:.0f}" if timing.p99_us else NOTHING


def caption(report: Report) -> list[str]:
    """What goes under the tables: settings, machine, and whether it was disturbed."""
    settings = report.settings
    full = ""
    if report.of("full"):
        full = f" ({settings['rounds_of_full_models']} rounds for whole models)"
    lines = [
        f"one thread{_more_threads(report)}, {settings['rounds']} interleaved rounds of "
        f"{settings['seconds_of_work_in_a_turn']:g} s of work and "
        f"{settings['seconds_of_audio_in_a_paced_turn']:g} s of paced audio for each row{full}; "
        f"median (95 % bootstrap interval); {report.seconds:.0f} s in all",
        _machine(report),
    ]
    lines += [f"disturbed: {reason}" for reason in report.disturbance.reasons]
    lines += [f"skipped: {name}: {reason}" for name, reason in report.skipped.items()]
    return lines


def _more_threads(report: Report) -> str:
    """Peers that start threads of their own all the same, with the cores that they keep busy."""
    cores = {
        row.name: row.hot.cpu_ms_per_second.median / (1e3 * row.hot.real_time_factor.median)
        for row in report.of("peer")
    }
    many = [f"{name} {busy:.1f}" for name, busy in cores.items() if busy > MANY_CORES]
    return f" (cores that others keep busy all the same: {', '.join(many)})" if many else ""


def _machine(report: Report) -> str:
    line = machine_line(report.machine)
    gpu = report.machine.get("accelerator")
    if report.machine.get("torch"):
        line += f", torch {report.machine['torch']}"
    if gpu:
        line += f"; {gpu['name']}, {gpu['memory']}, CUDA {gpu['cuda']}"
    return f"{line}; {report.machine['date']}"


def _cost(report: Report) -> Table:
    rows = [
        [
            *_identity(row),
            spread_text(row.hot.cpu_ms_per_second, 2),
            _times(row.cpu_ratio),
            f"{row.hot.real_time_factor.median:.5f}",
            *_percentiles(row, 1, 0),
            *_paced(row),
        ]
        for row in report.of("edge", "peer")
    ]
    return Table(
        "On the device",
        "int16 PCM to decisions. CPU ms/s: milliseconds of CPU time of the whole process per "
        "second of audio, hot; a step is what the row takes at a time. Ratios are of CPU time to "
        "that of the first row, round by round.",
        (
            *("name", "decides", "precision", "run by", "step ms", "CPU ms/s", "ratio"),
            *("real-time factor", "hot p50 µs", "p95", "p99", "max"),
            *("paced p50 µs", "p95", "p99", "max"),
        ),
        rows,
    )


def _network(report: Report) -> Table:
    rows = [
        [
            each.model,
            each.precision,
            spread_text(each.graph_us, 1),
            spread_text(each.front_end_us, 1),
            spread_text(each.network_us, 1),
            _times(each.ratio),
        ]
        for each in report.networks
    ]
    return Table(
        "The network without its front end",
        "The graph alone, hot, as the first model above is run, and its part up to the log mel "
        "energies, which is float32 in every file; the rest is the network. Microseconds of a "
        "chunk; ratios are of the network to that of the first row, round by round.",
        ("name", "precision", "graph µs", "front end µs", "network µs", "ratio"),
        rows,
    )


def _device(report: Report) -> Table:
    rows = [
        [
            row.name,
            row.precision,
            row.mode,
            *_cold(row),
            NOTHING if row.file_bytes is None else f"{row.file_bytes / 1000:.0f}",
            *_delays(row),
            _accuracy(row),
        ]
        for row in report.of("edge", "peer")
    ]
    return Table(
        "Start, size and delay",
        "A fresh process from its first line; memory of it after ten seconds of audio; size of "
        "what must be installed. Algorithmic: chunk + look-back + smoothing, the oldest audio "
        "that shapes a decision. Delay: from the end of a word to its detection, median and 95th "
        "percentile, of the words that were found.",
        (
            *(
                "name",
                "precision",
                "run by",
                "import ms",
                "first score ms",
                "resident MB",
                "install MB",
            ),
            *("file kB", "algorithmic ms", "delay ms", "found", "accuracy"),
        ),
        rows,
    )


def _full(report: Report) -> Table:
    rows = [
        [
            row.name,
            row.job,
            row.weights,
            f"{row.parameters / 1e6:.1f}" if row.parameters else NOTHING,
            row.device,
            row.precision,
            row.mode,
            str(row.batch),
            *_percentiles(row, 1e-3, 2, maximum=False)[:2],
            _times(row.decision_ratio),
            spread_text(row.hot.cpu_ms_per_second, 1),
            _times(row.cpu_ratio),
            _accuracy(row),
        ]
        for row in report.of("full")
    ]
    return Table(
        "Whole models at the same job",
        "A step from int16 PCM in the host's memory to labels there, copies and launches "
        "included. Ratios are to the first row of all, in the same rounds: of a step to its step, "
        "and of CPU time per second of audio. AST is padded to its own length and Whisper's "
        "encoder to 30 s, as they were made.",
        (
            *("name", "job", "weights", "M parameters", "device", "precision", "mode", "batch"),
            *("step p50 ms", "p95", "ratio", "CPU ms/s", "ratio", "accuracy"),
        ),
        rows,
    )


def _bound(report: Report) -> Table:
    weights: dict[tuple[str, str], int] = {}
    for row in report.of("full"):
        if row.batch == 1 and row.parameters and row.precision in BYTES:
            known = weights.setdefault((row.name, row.precision), row.parameters)
            weights[row.name, row.precision] = min(known, row.parameters)
    rows = []
    for (name, precision), parameters in weights.items():
        least = [least_us(parameters, precision, gpu) for gpu in GPUS]
        if any(least):
            cells = [NOTHING if us is None else f"{us:.0f}" for us in least]
            rows.append([name, precision, f"{weights_mb(parameters, precision):.0f}", *cells])
    first = "".join(
        f" The first row of all takes {row.hot.p50_us.median:.0f} µs, measured above."
        for row in report.of("edge")[:1]
    )
    return Table(
        "The least that a GPU takes",
        "Computed, not measured: microseconds in which a GPU reads the weights once, by the "
        "bandwidth that its maker publishes, all of its last cache filled with them beforehand "
        f"({', '.join(f'{gpu.name} {gpu.cache_bytes / 1e6:.0f} MB' for gpu in GPUS)}; - where it "
        "holds them all). A decision at batch 1 takes longer: arithmetic, launches and copies are "
        f"not counted.{first}",
        ("name", "precision", "weights MB", *(f"{gpu.name} µs" for gpu in GPUS)),
        rows,
    )


def _scaling(report: Report) -> Table:
    rows = [
        [
            str(row.width),
            f"{row.step_ms:g}",
            str(row.keywords),
            row.precision,
            f"{row.parameters:,}",
            f"{(row.file_bytes or 0) / 1000:.0f}",
            spread_text(row.hot.cpu_ms_per_second, 2),
            *_percentiles(row, 1, 0),
        ]
        for row in report.of("scaling")
    ]
    return Table(
        "Size, chunk and keywords",
        "Students with random weights that differ from the first in one thing.",
        (
            *("width", "chunk ms", "keywords", "precision", "parameters", "file kB"),
            *("CPU ms/s", "hot p50 µs", "p95", "p99", "max"),
        ),
        rows,
    )


def _capacity(report: Report) -> Table:
    rows = [
        [
            each.model,
            each.precision,
            "one by one" if each.batch is None else f"up to {each.batch}",
            f"{each.streams:,}",
            NOTHING if each.refused is None else f"{each.refused:,}",
            spread_text(each.p99_ms, 1),
            f"{each.chunk_ms:g}",
            spread_text(each.cpu_ms, 2),
        ]
        for each in report.capacities
    ]
    return Table(
        "Live streams on one core",
        "The most that were carried with a p99 from audio due to detections within a chunk, and "
        "the fewest that were not.",
        (
            *("model", "precision", "chunks per call", "carried", "not carried"),
            *("p99 ms", "chunk ms", "CPU ms/s"),
        ),
        rows,
    )


def _identity(row: Row) -> list[str]:
    return [row.name, row.job, row.precision, row.mode, f"{row.step_ms:g}"]


def _percentiles(row: Row, scale: float, digits: int, *, maximum: bool = True) -> list[str]:
    hot = row.hot
    cells = [_scaled(each, scale, digits) for each in (hot.p50_us, hot.p95_us, hot.p99_us)]
    return [*cells, f"{scale * hot.max_us:.{digits}f}"] if maximum else cells


def _paced(row: Row) -> list[str]:
    if row.paced is None:
        return [NOTHING] * 4
    paced = row.paced
    cells = [_scaled(each, 1, 0) for each in (paced.p50_us, paced.p95_us, paced.p99_us)]
    return [*cells, f"{paced.max_us:.0f}"]


def _cold(row: Row) -> list[str]:
    if row.cold is None:
        return [NOTHING] * 4
    cold = row.cold
    return [
        spread_text(cold.import_ms, 0),
        spread_text(cold.first_score_ms, 0),
        NOTHING if cold.resident_mb is None else f"{cold.resident_mb.median:.0f}",
        NOTHING if cold.install_mb is None else f"{cold.install_mb:.0f}",
    ]


def _delays(row: Row) -> list[str]:
    if row.delay is None:
        return [NOTHING] * 3
    delay = row.delay
    parts = (delay.chunk_ms, delay.look_back_ms, delay.smoothing_ms)
    algorithmic = f"{delay.algorithmic_ms:.0f} ({' + '.join(f'{part:.0f}' for part in parts)})"
    if delay.p50_ms is None or delay.p95_ms is None:
        return [algorithmic, NOTHING, NOTHING]
    measured = f"{delay.p50_ms:.0f} / {delay.p95_ms:.0f}"
    return [algorithmic, measured, f"{delay.found} of {delay.said} {delay.on}"]


def _accuracy(row: Row) -> str:
    if row.accuracy is None:
        return NOTHING
    name = HEADLINES.get(row.accuracy.measure, row.accuracy.measure)
    return f"{name} {100 * row.accuracy.value:.2f} % ({row.accuracy.on})"


def _scaled(figure: Spread | None, scale: float, digits: int) -> str:
    if figure is None:
        return NOTHING
    scaled = Spread(scale * figure.median, scale * figure.low, scale * figure.high)
    return spread_text(scaled, digits)


def _times(figure: Spread | None) -> str:
    if figure is None:
        return NOTHING
    # As many digits as a factor needs, be it a hundredth or ten thousand.
    middle, low, high = (f"{value:.3g}" for value in (figure.median, figure.low, figure.high))
    if "e" in middle + low + high:
        middle, low, high = (f"{value:.0f}" for value in (figure.median, figure.low, figure.high))
    return f"{middle} ({low}\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}{high})"
