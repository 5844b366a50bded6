"""The live terminal view of ``earmark listen``."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.cells import cell_len
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .events import DetectionEvent

RECENT = 5
"""Detections that the view lists."""
FLASH_SECONDS = 1.0
FLOOR_DB = -70.0
FIXED_LINES = RECENT + 7
"""Lines besides the score bars."""


@dataclass
class Status:
    """What the view shows."""

    model: str
    device: str
    keywords: Sequence[str]
    thresholds: Sequence[float]
    scores: Sequence[float]
    """Smoothed posterior per keyword."""
    seconds: float = 0.0
    """Audio time."""
    level: float = 0.0
    """Root mean square of the newest audio, full scale 1."""
    peak: float = 0.0
    cpu: float = 0.0
    """Processor time over wall time of this process."""
    overflows: int = 0
    dropped: float = 0.0
    """Seconds of audio that this process dropped."""
    lost: str | None = None
    """Why the device is lost, None while it is there."""
    note: str = ""
    """The newest line for people."""
    recent: deque[DetectionEvent] = field(default_factory=lambda: deque(maxlen=RECENT))
    """Newest last."""


class View:
    """A context manager that draws on the alternate screen of ``console``."""

    def __init__(self, console: Console) -> None:
        self._console = console
        # Standard output stays as it is: it is for machines, and may be a file or a pipe.
        self._live = Live(console=console, auto_refresh=False, screen=True, redirect_stdout=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def show(self, status: Status) -> None:
        """Draw once."""
        size = self._console.size
        fancy = self._console.encoding.startswith("utf")
        self._live.update(render(status, size.width, size.height, fancy), refresh=True)


def render(status: Status, width: int, height: int, fancy: bool = True) -> Table:
    """The view as lines of at most ``width`` columns, fewer than ``height`` of them.

    Where there are more keywords than lines, those with the highest scores are shown.
    ``fancy``: the terminal can show block characters.
    """
    width -= 1  # Some terminals wrap a line that fills them.
    grid = Table.grid()
    order = range(len(status.keywords))
    room = max(1, height - 1 - FIXED_LINES)
    if len(order) > room:
        best = sorted(order, key=lambda i: -status.scores[i])[:room]
        order = sorted(best)
    names = max((cell_len(status.keywords[i]) for i in order), default=0)
    names = min(max(names, len("level")), width // 3)
    bar = max(4, width - names - 2 - 14)

    title = f"earmark  {status.model}  {status.device}"
    clock = _clock(status.seconds)
    room_for_title = max(0, width - len(clock) - 1)
    grid.add_row(Text.assemble(_cut(title, room_for_title, "bold", pad=True), " ", (clock, "dim")))

    grid.add_row(_level(status, names, bar, width, fancy))
    grid.add_row(_cut(status.note, width, "yellow"))

    flashing = {d.keyword for d in status.recent if status.seconds - d.time < FLASH_SECONDS}
    for i in order:
        keyword, score = status.keywords[i], status.scores[i]
        fired = keyword in flashing
        line = _label(keyword, names, "bold green" if fired else "")
        style = "green" if fired or score >= status.thresholds[i] else "cyan"
        line.append_text(_bar(score, bar, style, fancy, status.thresholds[i]))
        line.append(f" {score:4.2f}", "bold" if fired else "")
        line.append(" detected" if fired and width > 60 else "", "bold green")
        line.truncate(width)
        grid.add_row(line)
    grid.add_row("")

    shown = list(status.recent)[::-1]
    for i in range(RECENT):
        text = ""
        if i < len(shown):
            text = f"{_clock(shown[i].time):>10}  {shown[i].score:.2f}  {shown[i].keyword}"
        elif i == 0:
            text = "no detections yet"
        grid.add_row(_cut(text, width, "dim" if i else ""))
    grid.add_row("")
    trouble = status.overflows > 0 or status.dropped > 0
    line = Text(f"CPU {100 * status.cpu:.1f} %   ")
    line.append(
        f"overflows {status.overflows} ({status.dropped:.1f} s lost)",
        "bold yellow" if trouble else "",
    )
    line.append("   Ctrl-C ends", "dim")
    line.truncate(width)
    grid.add_row(line)
    return grid


def _clock(seconds: float) -> str:
    return f"{int(seconds // 3600)}:{int(seconds // 60 % 60):02}:{int(seconds % 60):02}"


def _level(status: Status, names: int, bar: int, width: int, fancy: bool) -> Text:
    """How loud it is, or why nothing can be heard."""
    line = _label("level", names)
    if status.lost is not None:
        line.append(f"device lost, reopening ({status.lost})", "bold red")
        line.truncate(width)
        return line
    decibels = 20 * math.log10(max(status.level, 1e-9))
    clipped = status.peak >= 0.999
    line.append_text(
        _bar((decibels - FLOOR_DB) / -FLOOR_DB, bar, "red" if clipped else "blue", fancy)
    )
    line.append(f" {max(decibels, FLOOR_DB):4.0f} dB")
    line.append(" CLIP" if clipped else "", "bold red")
    return line


def _label(name: str, width: int, style: str = "") -> Text:
    return Text.assemble(_cut(name, width, style, pad=True), "  ")


def _cut(text: str, width: int, style: str, pad: bool = False) -> Text:
    """As many characters as ``width`` columns hold, of which one may take two."""
    cut = Text(text, style)
    cut.truncate(width, pad=pad)
    return cut


def _bar(value: float, width: int, style: str, fancy: bool, tick: float | None = None) -> Text:
    """A bar of ``width`` columns for 0 to 1, with a mark at ``tick``."""
    full, empty, mark = ("█", "·", "│") if fancy else ("#", ".", "|")
    filled = round(min(1.0, max(0.0, value)) * width)
    text = Text(full * filled, style).append(empty * (width - filled), "dim")
    if tick is None:
        return text
    at = min(width - 1, round(tick * width))
    return Text.assemble(text[:at], (mark, "bold"), text[at + 1 :])
