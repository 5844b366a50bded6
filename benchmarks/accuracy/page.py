"""The page of accuracy, from what ``evaluate``, ``det``, ``bench`` and ``sweep`` wrote."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...export.drawing import line_style, log_percent, picture
from ...runtime.errors import EarmarkError
from ...runtime.files import write_bytes, write_text
from ...train.metrics import spread
from ..tables import load_reports
from .commands import det_command, evaluate_command
from .det import det_figure
from .groups import Group, Record, group
from .page_tables import (
    Costs,
    clips_table,
    costs,
    gains_table,
    others_table,
    robustness_table,
    streams_table,
)
from .sweep import Row, command, markdown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MISSING = "Not measured here."
LOG = "accuracy-log.md"
INTRODUCTION = """# Accuracy

Every figure here was measured: those of clips by the command below, the others by the one beside
their table. `earmark accuracy` wrote the page. `±` is the standard deviation over seeds.
*streaming* is the exported file on the path that a microphone takes, *whole clips* a network that
is not exported, on the same clips."""


def run(arguments: Namespace) -> int:
    """The verb ``accuracy``."""
    # The cost alone is of nothing: it is a column of the table of clips.
    if not (arguments.clips or arguments.det or arguments.sweep):
        raise EarmarkError("nothing to show: name what was measured: --clips, --det or --sweep")
    sweeps = []
    for text in arguments.sweep:
        title, equals, file = text.partition("=")
        if not equals or not title or not file:
            raise EarmarkError(f"--sweep {text}: expected TITLE=FILE, as Views=sweep/table.jsonl")
        sweeps.append((title, load_reports([file])))
    output = Path(arguments.output)
    clips, streams = load_reports(arguments.clips), load_reports(arguments.det)
    if any("top1" not in record and "map" in record for record in clips):
        raise EarmarkError("--clips: multi-label models have no table here: leave them out")
    try:
        text, pictures = page(
            group(clips),
            costs(arguments.bench),
            streams,
            sweeps,
            output.stem,
            log=output.with_name(LOG).is_file(),
        )
    except (KeyError, TypeError, AttributeError) as error:
        files = [*arguments.clips, *arguments.det, *arguments.sweep]
        raise EarmarkError(
            f"{', '.join(files)}: one is not what its command prints ({error!r}): --clips is of "
            "earmark evaluate --json, --det of earmark det, --sweep a table.jsonl"
        ) from error
    for name, figure in pictures.items():
        write_bytes(output.with_name(name), picture(figure))
    write_text(output, text)
    return 0


def page(
    groups: Sequence[Group],
    cost: Costs,
    streams: Sequence[Record],
    sweeps: Sequence[tuple[str, Sequence[Record]]],
    stem: str = "accuracy",
    *,
    log: bool = False,
) -> tuple[str, dict[str, "Figure"]]:
    """The page as Markdown and its pictures by file name.

    Args:
        groups: what ``evaluate`` measured.
        cost: what ``bench`` did.
        streams: what ``det`` did.
        sweeps: tables of ``sweep``, with their titles.
        stem: how the names of the pictures begin.
        log: whether there is a log of what was tried, to name.

    Raises:
        EarmarkError: records of clips, or of streams, are not of the same ones.
        KeyError, TypeError, AttributeError: a record is not what its command prints.
    """
    pictures: dict[str, Figure] = {}
    noisy = [g for g in groups if len({r["snr"] for r in g.records}) > 1]
    if noisy:
        pictures[f"{stem}-snr.png"] = snr_figure(noisy)
    if streams:
        pictures[f"{stem}-det.png"] = det_figure(streams)
    parts = [
        INTRODUCTION,
        *([f"What else was tried is in [the log]({LOG})."] if log else []),
        "The tables of clips:",
        _shell(evaluate_command([record for group in groups for record in group.records])),
        *_section("Accuracy, size and cost", clips_table(groups, cost)),
        *_section("What distillation adds", gains_table(groups)),
        *_section("Robustness", robustness_table(noisy, f"{stem}-snr.png")),
        *_section("Other words and background", others_table(groups)),
        *_section(
            "Streams", streams_table(streams, f"{stem}-det.png"), _shell(det_command(streams))
        ),
        *(["## Sweeps and ablations"] if sweeps else []),
    ]
    for title, records in sweeps:
        rows = [Row(**{k: v for k, v in r.items() if k != "type"}) for r in records]
        parts += [f"### {title}", _shell(command(rows)), markdown(rows).rstrip()]
    return "\n\n".join(parts) + "\n", pictures


def snr_figure(groups: Sequence[Group]) -> "Figure":
    """Clips told wrongly against the signal-to-noise ratio, a line for each group, with the spread
    of seeds. The share is logarithmic, or good models could not be told apart; where no clip is, it
    is drawn at half of one."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.6 + 0.18 * len(groups)), layout="constrained")
    axes = figure.add_subplot()
    snrs = sorted({r["snr"] for one in groups for r in one.records} - {None})
    clean = (snrs[-1] if snrs else 0) + 5
    lowest = 1.0
    for place, one in enumerate(groups):
        size = one.first["parameters"]
        least = 0.5 / one.first["clips"]
        wrong = {
            clean if snr is None else snr: [max(1 - top1, least) for top1 in one.at(snr).values()]
            for snr in (*snrs, None)
            if one.at(snr)
        }
        lowest = min(lowest, *map(min, wrong.values()))
        found = [spread(of_seeds) for of_seeds in wrong.values()]
        axes.errorbar(
            [*wrong],
            [of_seeds["mean"] for of_seeds in found],
            yerr=[of_seeds["standard_deviation"] for of_seeds in found],
            **line_style(place),
            marker="o" if one.streamed else "s",
            markersize=4,
            linewidth=1.2,
            capsize=2,
            label=f"{one.title}, {f'{size:,} parameters, ' if size else ''}{one.first['judged']}",
        )
    axes.set_xticks([*snrs, clean], [*(f"{snr:g}" for snr in snrs), "clean"])
    axes.set_xlabel("speech over noise, dB")
    axes.set_ylabel("clips told wrongly")
    axes.set_ylim(0.8 * lowest, 1)
    log_percent(axes)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    # Below the axes: there are often more lines than room beside them.
    figure.legend(loc="outside lower left", frameon=False, fontsize=7, handlelength=4)
    return figure


def _shell(line: str) -> str:
    return f"```sh\n{line}\n```"


def _section(title: str, body: str, *block: str) -> list[str]:
    return [f"## {title}", *block, body or MISSING]
