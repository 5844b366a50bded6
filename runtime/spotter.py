"""A source run through a stream: pieces of audio in, events out.

:class:`Spotter` is the one place where that is done. Around it are three ways to use it: a plain
iterator (:func:`spot`), a callback in a thread (:func:`spotting`) and an asynchronous iterator
(:func:`spot_async`).
"""

import math
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import numpy as np

from .errors import EarmarkError
from .events import (
    DetectionEvent,
    DeviceBackEvent,
    DeviceLostEvent,
    EndedEvent,
    Event,
    GapEvent,
    HeartbeatEvent,
    timestamp,
)
from .handover import END_SECONDS, POLL_SECONDS, Until, hand_over, pieces_in_time
from .process import resident_bytes
from .sources import Counters, DeviceBack, DeviceLost, Gap, Piece, Source
from .stream import Detection, Stream

QUIET_SECONDS = 1.0
"""Without audio for so long, heartbeats go by the clock on the wall."""
PENDING_EVENTS = 256
"""Events that an asynchronous iteration may leave untaken before the source has to wait."""


class Spotter:
    """Takes the pieces of one source in their order and gives the events."""

    found: Counter[str]
    """Detections of each keyword so far."""

    def __init__(
        self,
        stream: Stream,
        source: Source,
        name: str = "",
        *,
        heartbeat: float | None = None,
        live: bool = False,
        undelivered: Callable[[], int] = lambda: 0,
    ) -> None:
        """
        Args:
            stream: at its start.
            source: asked for ``counters`` (:class:`earmark.runtime.sources.Counters`), where it has
                them. Its audio is given to :meth:`take`.
            name: what events call the source.
            heartbeat: seconds of audio, or of time where there is no audio, between heartbeats.
            live: events say when they were told.
            undelivered: how many events got lost on the way out so far.
        """
        self._stream = stream
        self._source = source
        self._name = name
        self._heartbeat = heartbeat
        self._live = live
        self._undelivered = undelivered
        self.found = Counter()
        self._samples = self._chunks = self._gaps = self._invalid = 0
        self._was_invalid = False
        self._listening = True
        self._start = (0.0, time.process_time())  # of audio heard, processor
        self._before = self._start
        self._beat = self._heard = time.monotonic()
        self._beat_seconds = 0.0
        self._end: float | None = None

    @property
    def seconds(self) -> float:
        """Audio time."""
        return self._stream.seconds if self._end is None else self._end

    @property
    def counters(self) -> Counters:
        """The source's, or zeros where it has none."""
        return getattr(self._source, "counters", None) or Counters(0, 0.0, 0.0)

    def take(self, piece: Piece | None) -> list[Event]:
        """Take what the source gave, None where it gave nothing for a while.

        Raises:
            EarmarkError: audio has a type or shape that no source may give.
        """
        events: list[Event] = []
        if isinstance(piece, np.ndarray):
            events += self._take_audio(piece)
        elif isinstance(piece, Gap):
            events.append(self._gap(piece.samples, "lost"))
        elif isinstance(piece, DeviceLost):
            self._listening = False
            self._name = piece.device
            events.append(DeviceLostEvent(piece.device, self.seconds, piece.reason, at=self._now()))
        elif isinstance(piece, DeviceBack):
            self._listening = True
            self._name = piece.device
            events.append(
                DeviceBackEvent(piece.device, self.seconds, piece.seconds, at=self._now())
            )
        if self._is_due():
            events.append(HeartbeatEvent(**self._counts(self._before)))
            self._before = self._marks()
            self._beat = time.monotonic()
            self._beat_seconds = self.seconds
        return events

    def finish(self, tail: float = 0.0) -> list[Event]:
        """The source ended: decide what is undecided, with ``tail`` seconds of silence after it.

        The stream starts anew with what it is given next; this spotter takes no more.
        """
        self._end = self.seconds
        return self._detected(self._stream.flush(tail))

    def ended(self) -> EndedEvent:
        """The summary."""
        return EndedEvent(**self._counts(self._start))

    def _take_audio(self, pcm: np.ndarray) -> list[Event]:
        if not len(pcm):
            return []
        self._heard = time.monotonic()
        if not self._chunks:
            # Before it, sound servers take processor time to start.
            self._start = self._before = self._marks()
        self._chunks += 1
        try:
            detections = self._stream.push(pcm)
        except EarmarkError:
            if pcm.ndim != 1 or pcm.dtype not in (np.float32, np.float64):
                raise
            # The values are the trouble. One event for a whole run of such pieces.
            self._invalid += 1
            first, self._was_invalid = not self._was_invalid, True
            if first:
                return [self._gap(len(pcm), "invalid")]
            self._stream.gap(len(pcm))
            return []
        self._was_invalid = False
        self._samples += len(pcm)
        return self._detected(detections)

    def _detected(self, detections: list[Detection]) -> list[Event]:
        self.found.update(detection.keyword for detection in detections)
        return [
            DetectionEvent(self._name, keyword, at, score, at=self._now())
            for keyword, at, score in detections
        ]

    def _gap(self, samples: int, reason: str) -> GapEvent:
        self._gaps += 1
        event = GapEvent(
            self._name, self.seconds, samples / self._stream.rate, reason, at=self._now()
        )
        self._stream.gap(samples)
        return event

    def _now(self) -> str | None:
        return timestamp() if self._live else None

    def _is_due(self) -> bool:
        if self._heartbeat is None:
            return False
        if self.seconds - self._beat_seconds >= self._heartbeat:
            return True
        now = time.monotonic()
        quiet = now - self._heard >= min(QUIET_SECONDS, self._heartbeat)
        return quiet and now - self._beat >= self._heartbeat

    def _marks(self) -> tuple[float, float]:
        return self._samples / self._stream.rate, time.process_time()

    def _counts(self, since: tuple[float, float]) -> dict[str, Any]:
        audio, busy = self._marks()
        heard = audio - since[0]
        counters = self.counters
        return {
            "source": self._name,
            "time": self.seconds,
            "audio_seconds": audio,
            "chunks": self._chunks,
            "detections": self.found.total(),
            "gaps": self._gaps,
            "invalid": self._invalid,
            "overflows": counters.overflows,
            "dropped_ms": 1000 * counters.dropped,
            "queued_ms": 1000 * counters.queued,
            "undelivered": self._undelivered(),
            "listening": self._listening,
            "cpu_ms": 1000 * (busy - since[1]) / heard if heard else None,
            "resident_bytes": resident_bytes(),
            "at": self._now(),
        }


def spot(
    stream: Stream,
    source: Source,
    name: str = "",
    *,
    tail: float = 0.0,
    heartbeat: float | None = None,
    live: bool = False,
    undelivered: Callable[[], int] = lambda: 0,
    stopped: Callable[[], bool] | None = None,
) -> Iterator[Event]:
    """Run a source through a stream to the source's end and yield what happens.

    Args:
        stream, source, name, heartbeat, live, undelivered: see :class:`Spotter`.
        tail: seconds of silence that follow the audio, for a word that ends with it.
        stopped: asked a few times a second, also while the source gives nothing. Once it is true,
            the source is left and an :class:`earmark.runtime.events.EndedEvent` is the last event.

    Raises:
        EarmarkError: the source cannot go on.
    """
    spotter = Spotter(stream, source, name, heartbeat=heartbeat, live=live, undelivered=undelivered)
    if heartbeat is None and stopped is None:
        for piece in source:
            yield from spotter.take(piece)
    else:
        with closing(pieces_in_time(source, min(POLL_SECONDS, heartbeat or math.inf))) as pieces:
            for piece in pieces:
                if stopped is not None and stopped():
                    yield from spotter.finish()
                    yield spotter.ended()
                    return
                yield from spotter.take(piece)
    yield from spotter.finish(tail)


@contextmanager
def spotting(
    stream: Stream,
    source: Source,
    callback: Callable[[Event], None],
    name: str = "",
    *,
    heartbeat: float | None = None,
    live: bool = True,
) -> Iterator[threading.Thread]:
    """Call ``callback`` with every event, from a thread of its own, while the block runs. What is
    decided after it is not told.

    Leaving the block ends the thread as soon as the source gives its next piece. An error of the
    source or of ``callback`` ends the thread and is raised at the end of the block. The thread is
    what the block gets: ``join`` it to wait for the end of a file.

    Args: see :func:`spot`.
    """
    stop = threading.Event()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            until = Until(source, stop)
            for event in spot(stream, until, name, heartbeat=heartbeat, live=live):
                # Heartbeats come without the source.
                if stop.is_set():
                    return
                callback(event)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, name="earmark-spotting", daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        thread.join(END_SECONDS)
    if errors:
        raise errors[0]


async def spot_async(
    stream: Stream,
    source: Source,
    name: str = "",
    *,
    tail: float = 0.0,
    heartbeat: float | None = None,
    live: bool = False,
) -> AsyncIterator[Event]:
    """As :func:`spot`, for ``async for``. The source is read in a thread of its own.

    A reader that falls behind by many events makes the source wait; a microphone then drops
    audio and tells of the gap. When the iteration ends early or its task is cancelled, the thread
    ends as soon as the source gives its next piece.
    """
    # Only who uses it has it in memory: it brings TLS with it, 6 MB.
    import asyncio

    loop = asyncio.get_running_loop()
    stop = threading.Event()
    room = threading.Semaphore(PENDING_EVENTS)
    inbox: asyncio.Queue[Event | BaseException | None] = asyncio.Queue()
    thread = hand_over(
        spot(stream, Until(source, stop), name, tail=tail, heartbeat=heartbeat, live=live),
        lambda item: loop.call_soon_threadsafe(inbox.put_nowait, item),
        room,
        stop,
        "earmark-spot-async",
    )
    try:
        while (item := await inbox.get()) is not None:
            room.release()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        await asyncio.to_thread(thread.join, END_SECONDS)
