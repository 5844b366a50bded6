"""The page of the documentation that shows reports of ``earmark bench``."""

from argparse import Namespace
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from ...export.drawing import picture
from ...runtime.files import atomic_path
from ..tables import markdown_table
from .cells import caption, summary, tables
from .plots import plots
from .results import Report, load

INTRODUCTION = """# Latency and cost

Every figure here was measured by the command above its tables, on the machine named below it. The
page itself is written by `earmark latency`."""
LOG = "latency-log.md"


def run(arguments: Namespace) -> int:
    """The verb ``latency``: the page, and its pictures beside it."""
    target = Path(arguments.output)
    reports = [load(file) for file in arguments.reports]
    pictures: dict[str, bytes] = {}
    text = page(reports, target.stem, pictures, log=target.with_name(LOG).is_file())
    files = {target.with_name(name): data for name, data in pictures.items()}
    files[target] = text.encode()
    # The page and all of its pictures or, on a full disk, none.
    with ExitStack() as stack:
        for path, content in files.items():
            stack.enter_context(atomic_path(path)).write_bytes(content)
    return 0


def page(
    reports: Sequence[Report], stem: str, pictures: dict[str, bytes], *, log: bool = False
) -> str:
    """The page as Markdown.

    Args:
        reports: what it shows, in this order.
        stem: how the names of the pictures begin.
        pictures: is filled with PNGs by the names under which they belong beside the page.
        log: whether there is a log of what was tried, to name.
    """
    parts = [INTRODUCTION]
    if log:
        parts.append(f"What was tried to get there is in [the log]({LOG}).")
    kinds = [_title(report) for report in reports]
    runs = [kinds[: place + 1].count(kind) for place, kind in enumerate(kinds)]
    titles = [
        f"{kind}, run {run}" if kinds.count(kind) > 1 else kind
        for kind, run in zip(kinds, runs, strict=True)
    ]
    overview = summary(reports, titles)
    parts += [f"## {overview.title}", overview.note, markdown_table(overview.heads, overview.rows)]
    for number, report in enumerate(reports):
        parts.append(f"## {titles[number]}")
        parts.append(f"```sh\n{report.command}\n```")
        parts += [f"{line[0].upper()}{line[1:]}." for line in caption(report)]
        for table in tables(report):
            parts += [f"### {table.title}", table.note, markdown_table(table.heads, table.rows)]
        if runs[number] > 1:
            continue  # it looks like the first
        for name, (text, figure) in plots(report).items():
            file = f"{stem}-{name}{f'-{number + 1}' if number else ''}.png"
            pictures[file] = picture(figure)
            parts += [f"![{text}]({file})", f"*{text}*"]
    return "\n\n".join(parts) + "\n"


_KINDS = {
    "peer": "other spotters",
    "full": "whole models",
    "scaling": "sizes, chunks and keywords",
}
"""What a report has beside models of Earmark."""


def _title(report: Report) -> str:
    gpu = report.machine.get("accelerator")
    features = f" ({', '.join(report.machine['features'])})" if report.machine["features"] else ""
    machine = report.machine["cpu"] + features + (f" and {gpu['name']}" if gpu else "")
    kinds = {row.kind for row in report.rows}
    beside = [name for kind, name in _KINDS.items() if kind in kinds]
    by = f", by {models[0].mode}" if (models := report.of("edge")) else ""
    return f"{machine}: {' and '.join(beside) or 'the model'}{by}"
