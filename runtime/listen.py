"""``earmark listen``: the microphone to JSON lines and a live view."""

import signal
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from .engine import Detection, Engine, Stream
from .errors import EarmarkError
from .events import write_event
from .manifest import Decision, Manifest
from .microphone import Microphone
from .options import chosen_decision
from .sources import Gap

if TYPE_CHECKING:
    from .view import View

REFRESH_SECONDS = 0.1
CPU_SECONDS = 1.0


def run(arguments: Namespace) -> int:
    """Listen until Ctrl-C, SIGTERM or ``--seconds``, each of which is a clean end."""
    engine = Engine(arguments.model)
    decision = chosen_decision(engine.manifest, arguments.operating_point, arguments.threshold)
    rate = engine.manifest.geometry.sample_rate
    tally = _Tally()
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with ExitStack() as stack:
            microphone = stack.enter_context(
                Microphone(_device(arguments.device), _channel(arguments.channel), rate)
            )
            display = None
            if not arguments.no_view and sys.stderr.isatty():
                view = stack.enter_context(_view())
                display = _Display(view, engine.manifest, decision, microphone)
            else:
                print(
                    f"earmark: listening on {microphone.name} at {microphone.device_rate:g} Hz",
                    file=sys.stderr,
                )
            json_lines = display is None or not sys.stdout.isatty()
            with suppress(KeyboardInterrupt):
                _listen(
                    microphone,
                    engine.stream(decision),
                    arguments.seconds,
                    json_lines,
                    display,
                    tally,
                )
    finally:
        signal.signal(signal.SIGTERM, before)
    print(f"earmark: {tally.summary(microphone.overflows)}", file=sys.stderr)
    return 0


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _listen(
    microphone: Microphone,
    stream: Stream,
    seconds: float | None,
    json_lines: bool,
    display: "_Display | None",
    tally: "_Tally",
) -> None:
    """Take audio until ``seconds`` of it were heard, and tell what happens."""
    for piece in microphone:
        tally.begin()
        if isinstance(piece, Gap):
            if json_lines:
                write_event("gap", device=microphone.name, time=stream.seconds)
            stream.gap(piece.samples)
            continue
        detections = stream.push(piece)
        posteriors = stream.posteriors
        heard = stream.seconds
        ended = seconds is not None and heard >= seconds
        if ended:
            detections += stream.flush()
        tally.count(detections)
        if json_lines:
            for keyword, at, score in detections:
                write_event(
                    "detection", device=microphone.name, keyword=keyword, time=at, score=score
                )
        if display is not None:
            display.update(piece, detections, posteriors, heard)
        if ended:
            return


@dataclass
class _Tally:
    """What the last line tells."""

    found: Counter[str] = field(default_factory=Counter)
    start: tuple[float, float] | None = None
    """Wall and processor time at the first audio: before it, sound servers take both to start."""

    def begin(self) -> None:
        if self.start is None:
            self.start = time.monotonic(), time.process_time()

    def count(self, detections: Iterable[Detection]) -> None:
        self.found.update(detection.keyword for detection in detections)

    def summary(self, overflows: int) -> str:
        if self.start is None:
            return "no audio heard"
        wall = time.monotonic() - self.start[0]
        share = (time.process_time() - self.start[1]) / max(wall, 1e-9)
        each = ", ".join(f"{keyword} {count}" for keyword, count in self.found.most_common())
        return (
            f"listened for {wall:.1f} s, {self.found.total()} detections"
            f"{f' ({each})' if each else ''}, {overflows} overflows, {100 * share:.1f} % CPU"
        )


class _Display:
    """Keeps what the view shows up to date and draws it a few times a second."""

    def __init__(
        self, view: "View", manifest: Manifest, decision: Decision, microphone: Microphone
    ) -> None:
        from .view import Status

        self._view = view
        self._microphone = microphone
        self._columns = [manifest.labels.index(keyword) for keyword in manifest.keywords]
        self._status = Status(
            model=manifest.name,
            device=microphone.name,
            keywords=manifest.keywords,
            thresholds=[decision.thresholds[keyword] for keyword in manifest.keywords],
            scores=[0.0] * len(manifest.keywords),
        )
        self._drawn = self._measured = time.monotonic()
        self._busy = time.process_time()
        view.show(self._status)

    def update(
        self, piece: np.ndarray, detections: list[Detection], posteriors: np.ndarray, heard: float
    ) -> None:
        """Take the newest audio and what came of it."""
        status = self._status
        status.recent.extend(detections)
        status.peak = max(status.peak, float(np.abs(piece).max()))
        status.level = max(status.level, float(np.dot(piece, piece) / len(piece)) ** 0.5)
        now = time.monotonic()
        if now - self._measured >= CPU_SECONDS:
            busy = time.process_time()
            status.cpu = (busy - self._busy) / (now - self._measured)
            self._busy, self._measured = busy, now
        if now - self._drawn < REFRESH_SECONDS:
            return
        self._drawn = now
        status.scores = posteriors[self._columns].tolist()
        status.seconds = heard
        status.overflows = self._microphone.overflows
        status.lost = self._microphone.lost
        self._view.show(status)
        status.level = status.peak = 0.0


def _view() -> "View":
    from rich.console import Console

    from .view import View

    return View(Console(stderr=True))


def _device(text: str | None) -> str | int | None:
    """A device given by a number is meant by its index."""
    return int(text) if text is not None and text.isdecimal() else text


def _channel(text: str) -> int | str:
    if text == "mix":
        return text
    if not text.isdecimal():
        raise EarmarkError(f"--channel {text}: give a number from 0, or mix")
    return int(text)
