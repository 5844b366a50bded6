"""``earmark listen``: the microphone to events and a live view."""

import sys
import time
from argparse import Namespace
from collections import deque
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import numpy as np

from .engine import Engine
from .events import DetectionEvent, DeviceBackEvent, DeviceLostEvent, Event, summary
from .handover import POLL_SECONDS, pieces_in_time
from .manifest import Decision, Manifest
from .microphone.microphone import Microphone
from .options import chosen_channel, chosen_decision, chosen_device, open_sinks
from .sinks.sink import FanOut, Sink, output, tell
from .sources import Piece
from .spotter import Spotter
from .stop import Stop
from .stream import Stream

if TYPE_CHECKING:
    from .view import View

REFRESH_SECONDS = 0.1
CPU_SECONDS = 1.0
MAX_NOTES = 20


def run(arguments: Namespace) -> int:
    """Listen until Ctrl-C, SIGTERM or ``--seconds``, each of which is a clean end."""
    engine = Engine(arguments.model)
    decision = chosen_decision(engine.manifest, arguments.operating_point, arguments.threshold)
    stream = engine.stream(decision, arguments.gate)
    channel = chosen_channel(arguments.channel)
    visible = not arguments.no_view and sys.stderr.isatty()
    notes = _Notes(hold=visible)
    with ExitStack() as stack:
        stack.callback(notes.release)
        stop = stack.enter_context(Stop())
        sinks = stack.enter_context(
            closing(_sinks(arguments, engine.manifest.name, notes, visible))
        )
        rate = engine.manifest.geometry.sample_rate
        microphone = stack.enter_context(Microphone(chosen_device(arguments.device), channel, rate))
        spotter = Spotter(
            stream,
            microphone,
            microphone.name,
            heartbeat=arguments.heartbeat,
            live=True,
            undelivered=lambda: sinks.undelivered,
        )
        stack.callback(lambda: notes.tell(summary(spotter.ended(), spotter.found)))
        display = None
        if visible:
            display = _Display(
                stack.enter_context(_view()), engine.manifest, decision, spotter, microphone, notes
            )
        else:
            notes.tell(f"listening on {microphone.name} at {microphone.device_rate:g} Hz")
        try:
            _listen(stream, microphone, spotter, arguments.seconds, sinks, display, stop, notes)
        finally:
            for event in [*spotter.finish(), spotter.ended()]:
                sinks.send(event)
    sinks.check()
    return 0


def _listen(
    stream: Stream,
    microphone: Microphone,
    spotter: Spotter,
    seconds: float | None,
    sinks: Sink,
    display: "_Display | None",
    stop: Stop,
    notes: "_Notes",
) -> None:
    """Take audio until ``seconds`` of it were heard or a signal came, and tell what happens."""
    patience = POLL_SECONDS if display is None else REFRESH_SECONDS
    with closing(pieces_in_time(microphone, patience)) as pieces:
        for piece in pieces:
            if stop.requested:
                return
            events = spotter.take(piece)
            for event in events:
                sinks.send(event)
                notes.mention(event)
            sinks.check()
            if display is not None:
                display.update(piece, events, stream.posteriors)
            if seconds is not None and spotter.seconds >= seconds:
                return


def _sinks(arguments: Namespace, model: str, notes: "_Notes", visible: bool) -> FanOut:
    """Standard output, unless the view is drawn on the same terminal, and what options ask for."""
    others = open_sinks(arguments, model, notes.tell, quiet=visible)
    if visible and sys.stdout.isatty():
        return FanOut(others)
    return FanOut([output(), *others])


class _Notes:
    """Lines for people: on standard error, or in the view while there is one and after it."""

    newest: str = ""

    def __init__(self, hold: bool) -> None:
        self._held: deque[str] | None = deque(maxlen=MAX_NOTES) if hold else None

    def tell(self, text: str) -> None:
        """Say a line; sinks do so from their threads."""
        self.newest = text
        held = self._held
        if held is None:
            tell(text)
        else:
            held.append(text)

    def mention(self, event: Event) -> None:
        """Say what people need to know of an event."""
        if isinstance(event, DeviceLostEvent):
            self.tell(f"microphone {event.source} is lost ({event.reason}): trying to reopen it")
        elif isinstance(event, DeviceBackEvent):
            self.tell(f"microphone {event.source} is back after {event.seconds:.1f} s")

    def release(self) -> None:
        """Say what was held."""
        held, self._held = self._held, None
        for text in held or ():
            tell(text)


class _Display:
    """Keeps what the view shows up to date and draws it a few times a second."""

    def __init__(
        self,
        view: "View",
        manifest: Manifest,
        decision: Decision,
        spotter: Spotter,
        microphone: Microphone,
        notes: _Notes,
    ) -> None:
        from .view import Status

        self._view = view
        self._spotter = spotter
        self._notes = notes
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

    def update(self, piece: Piece | None, events: list[Event], posteriors: np.ndarray) -> None:
        """Take the newest audio and what came of it."""
        status = self._status
        for event in events:
            if isinstance(event, DetectionEvent):
                status.recent.append(event)
            elif isinstance(event, DeviceLostEvent):
                status.lost = event.reason
            elif isinstance(event, DeviceBackEvent):
                status.lost, status.device = None, event.source
        if isinstance(piece, np.ndarray) and len(piece) and np.isfinite(piece).all():
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
        counters = self._spotter.counters
        status.scores = posteriors[self._columns].tolist()
        status.seconds = self._spotter.seconds
        status.overflows = counters.overflows
        status.dropped = counters.dropped
        status.note = self._notes.newest
        self._view.show(status)
        status.level = status.peak = 0.0


def _view() -> "View":
    from rich.console import Console

    from .view import View

    return View(Console(stderr=True))
