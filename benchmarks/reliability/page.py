"""The page of what was measured of faults, soak, fuzz and streams."""

from argparse import Namespace
from collections.abc import Callable
from typing import Any

from ...runtime.errors import EarmarkError
from ...runtime.files import write_text
from ..latency import streams
from ..machine import machine_line
from ..spread import Spread
from ..tables import load_reports, markdown_table
from . import faults, soak_outcome

Report = dict[str, Any]

INTRODUCTION = """# Reliability

Every figure here was measured by the command above its table, on the machine named below it. The
page itself is written by `earmark reliability`."""
MISSING = "Not measured."


def run(arguments: Namespace) -> int:
    """The verb ``reliability``."""
    texts = {name: load_reports(getattr(arguments, name)) for name in SECTIONS}
    write_text(arguments.output, page(texts))
    return 0


def page(reports: dict[str, list[Report]]) -> str:
    """The page as Markdown.

    Args:
        reports: for each name of ``SECTIONS`` what its command printed, in any number of runs.

    Raises:
        EarmarkError: a report has not what its command prints.
    """
    parts = [INTRODUCTION]
    for name, (title, command, text, render) in SECTIONS.items():
        parts += [f"## {title}", text, f"```sh\n{command}\n```"]
        if not reports.get(name):
            parts.append(MISSING)
        for report in reports.get(name, []):
            try:
                parts += [render(report), f"Measured on: {machine_line(report['machine'])}."]
            except (KeyError, TypeError, AttributeError) as error:
                raise EarmarkError(
                    f"--{name}: is not what `{command}` prints ({error!r}): run it again"
                ) from error
    return "\n\n".join(parts) + "\n"


def _faults(report: Report) -> str:
    table = markdown_table(faults.HEADS, map(faults.cells, report["faults"]))
    return f"{report['model']} by {report['backend']}:\n\n{table}"


def _soak(report: Report) -> str:
    rows = [soak_outcome.row(path, outcome) for path, outcome in report["paths"].items()]
    of = f"{report['model']} by {report['backend']}, {report['audio']}"
    return f"{of}:\n\n{markdown_table(soak_outcome.HEADS, rows)}"


def _fuzz(report: Report) -> str:
    targets = report["targets"]
    rows = [
        [name, *(f"{o[key]:,}" for key in ("cases", "refused", "accepted")), _findings(o)]
        for name, o in targets.items()
    ]
    total = sum(outcome["cases"] for outcome in targets.values())
    heads = ("input", "cases", "refused", "accepted", "findings")
    return f"{total:,} cases from seed {report['seed']}:\n\n{markdown_table(heads, rows)}"


def _findings(outcome: Report) -> str:
    kinds = [f"{finding['kind']} (case {finding['case']})" for finding in outcome["findings"]]
    return ", ".join(kinds) or "0"


def _streams(report: Report) -> str:
    figures = ("cpu_ms", "p50_ms", "p99_ms")
    loads = [
        streams.Load(**load | {name: load[name] and Spread(**load[name]) for name in figures})
        for load in report["loads"]
    ]
    table = markdown_table(streams.LOAD_HEADS, map(streams.load_cells, loads))
    memory = report["memory_kib_per_stream"]
    taken = "" if memory is None else f"\n\n{streams.memory_text(memory)}."
    return f"Run by {report['backend']}.\n\n{table}{taken}"


SECTIONS: dict[str, tuple[str, str, str, Callable[[Report], str]]] = {
    "faults": (
        "Faults",
        "earmark faults --json >faults.json",
        "Each in the same 36 seconds of speech. Those of the source, ten seconds after the start, "
        "are played by one that tells what a microphone's would; clients, brokers, files and "
        "signals are real. Audio counts as lost as far as it was told: that of a gap of "
        "unknown length is not counted. Detections lost are those of words that the fault touches, "
        "new ones are of what is left of a word. Events are undelivered to the sink that failed; "
        "other sinks get them.",
        _faults,
    ),
    "soak": (
        "Soak",
        "earmark soak --hours N --state soak --json >soak.json",
        "Audio faster than real time through the loop of `detect` and through a connection to "
        "`earmark wyoming`. *Different* counts detections that one pass over the same audio does "
        "not have, has otherwise, or has and are missing: keyword, time and score are compared, "
        "by Wyoming keyword and timestamp, since it carries no score. Memory grows by the slope "
        "after the first tenth of the run; 4 MB over the rest of one of an hour or more are a "
        "failure. `detect` and the generator of the audio share a process, the Wyoming server has "
        "one of its own. Each path is one process from the first sample to the last: one that was "
        "interrupted begins anew.",
        _soak,
    ),
    "fuzz": (
        "Fuzz",
        "earmark fuzz --cases N --seed S >fuzz.json",
        "Mutated inputs to every reader. A finding is a crash, a hang, an exception that is no "
        "plain error line, a message that is no printable line, or too much memory or time.",
        _fuzz,
    ),
    "streams": (
        "Concurrent streams",
        "earmark bench-streams --json >streams.json",
        "Live streams on one engine and one thread; the median over rounds with its 95 % bootstrap "
        "interval. *Chunks per call* is how many streams the network runs together. Streams times "
        "CPU beyond 1,000 ms is more than the thread has: delays of seconds mean that it falls "
        "behind for as long as it runs.",
        _streams,
    ),
}
"""Name of the option: title, command, what it shows, and how a report becomes a table."""
