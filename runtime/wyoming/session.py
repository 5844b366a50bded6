"""One client of a Wyoming server: what it asks, the audio that it sends, and what it is told."""

import asyncio
import math
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from wyoming.error import Error
from wyoming.event import Eventable, async_write_event
from wyoming.ping import Pong
from wyoming.wake import Detection as WakeDetection
from wyoming.wake import NotDetected

from ..detect import TAIL_SECONDS
from ..errors import EarmarkError, first_line
from ..events import DetectionEvent, timestamp
from ..stream import Detection
from .converter import MAX_PIECE_BYTES, Converter
from .events import ClientConnectedEvent, ClientDisconnectedEvent, ClientRefusedEvent
from .models import Model
from .wire import Message, integer, read_message, string

if TYPE_CHECKING:
    from .server import Server

MESSAGE_SECONDS = 10.0
"""A client may take so long to send the rest of a message, or to make room for one."""
HISTORY = 4096
"""Audio messages whose timestamps are remembered; a detection is of one of the last few."""


@dataclass
class _Clip:
    """The audio of a client from its ``audio-start`` to its ``audio-stop``."""

    format: tuple[int, int, int]
    """Rate in Hz, bytes of a sample, channels."""
    converter: Converter
    timestamp: int
    """Milliseconds at the start, in the client's own time."""
    samples: int = 0
    """Given to the models, at their rate."""
    base: float = 0.0
    """Seconds before the present format."""
    frames: int = 0
    """Taken in the present format."""
    detected: bool = False

    def __post_init__(self) -> None:
        self.messages: deque[tuple[float, int]] = deque(maxlen=HISTORY)

    @property
    def seconds(self) -> float:
        """Audio taken from the client."""
        return self.base + self.frames / self.format[0]

    def begin_message(self, data: dict[str, Any]) -> None:
        """An audio message begins. Without a timestamp it gets that of the audio so far."""
        now = self.timestamp + round(1000 * self.seconds)
        self.messages.append((self.seconds, integer(data, "timestamp", now)))

    def timestamp_at(self, seconds: float) -> int:
        """Timestamp of the audio message that ``seconds`` of audio end in."""
        for begin, at in reversed(self.messages):
            if begin < seconds:
                return at
        return self.messages[0][1] if self.messages else self.timestamp


class Client:
    """One connection."""

    deadline: float
    """When the client must have done what the server waits for, on the event loop's clock."""

    def __init__(
        self,
        server: "Server",
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        name: str,
    ) -> None:
        self.deadline = math.inf
        self._server = server
        self._reader = reader
        self._writer = writer
        # Drained means handed over to the system: nothing piles up here.
        writer.transport.set_write_buffer_limits(high=0)
        self.name = name
        self._loop = asyncio.get_running_loop()
        self._dropped = ""
        self._names = {x for model in server.models for x in model.manifest.keywords}
        self._streams: dict[Model, int] = {}
        self._clip: _Clip | None = None
        self._heard = 0.0
        geometry = server.models[0].manifest.geometry
        self._rate, self._chunk = geometry.sample_rate, geometry.chunk

    async def serve(self) -> None:
        """Answer messages until either side ends the connection."""
        self._server.tell(ClientConnectedEvent(self.name))
        reason = "the server stops"
        try:
            reason = await self._converse()
        except Exception as error:
            reason = f"failed: {first_line(error)}"
            raise
        finally:
            self._end()
            self._server.tell(ClientDisconnectedEvent(self.name, reason, self._heard))
            await self._hang_up()

    async def refuse(self, reason: str) -> None:
        """Say why this client is not served."""
        self._server.tell(ClientRefusedEvent(self.name, reason))
        try:
            with suppress(OSError):
                await self._send(Error(reason))
        finally:
            await self._hang_up()

    def drop(self) -> None:
        """End the connection at once, whatever is under way."""
        self._dropped = "kept the server waiting"
        self.deadline = math.inf
        self._writer.transport.abort()

    async def _hang_up(self) -> None:
        self._wait(MESSAGE_SECONDS)
        self._writer.close()
        try:
            with suppress(OSError, NotImplementedError):  # pipes cannot be waited for
                await self._writer.wait_closed()
        except asyncio.CancelledError:
            self._writer.transport.abort()
            raise

    async def _converse(self) -> str:
        """Returns why the conversation ended."""
        try:
            while True:
                self._wait(self._server.idle_seconds)
                message = await read_message(self._reader, lambda: self._wait(MESSAGE_SECONDS))
                self._wait(None)
                if message is None:
                    return self._dropped or "closed"
                await self._answer(message)
                await asyncio.sleep(0)  # data that is there already is read without a pause
        except (asyncio.IncompleteReadError, OSError):
            return self._dropped or "gone within a message"
        except EarmarkError as error:
            with suppress(OSError):
                await self._send(Error(str(error)))
            return self._dropped or str(error)

    async def _answer(self, message: Message) -> None:
        data, left = message.data, message.payload
        match message.type:
            case "describe":
                await self._send(self._server.info)
            case "ping":
                await self._send(Pong(string(data, "text")))
            case "detect":
                await self._detect(data.get("names"))
            case "audio-start":
                self._end()
                self._start(_format(data), integer(data, "timestamp", 0))
            case "audio-chunk":
                await self._take_message(data, left)
                return
            case "audio-stop":
                await self._finish()
        # Other types are not for a wake word service.
        while left:
            left -= len(await self._read(min(left, MAX_PIECE_BYTES)))

    async def _detect(self, names: object) -> None:
        """Choose the keywords; none means all."""
        known = {x for model in self._server.models for x in model.manifest.keywords}
        if names is not None and not (
            isinstance(names, list) and all(isinstance(name, str) for name in names)
        ):
            raise EarmarkError("a message whose names is no list of texts")
        unknown = [name for name in names or () if name not in known]
        self._names = known & set(names) if names else known
        if self._clip is not None:
            self._open(self._clip)
        if unknown:
            await self._send(
                Error(
                    f"no wake word {unknown[0][:100]!r} here: there are {', '.join(sorted(known))}",
                    "unknown-wake-word",
                )
            )

    def _start(self, form: tuple[int, int, int], timestamp: int) -> _Clip:
        clip = _Clip(form, Converter(*form, self._rate), timestamp)
        self._clip = clip
        self._open(clip)
        return clip

    def _open(self, clip: _Clip) -> None:
        """Have a stream through each model that has a keyword asked for, and no other."""
        for model in self._server.models:
            wanted = not self._names.isdisjoint(model.manifest.keywords)
            if wanted and model not in self._streams:
                stream = self._streams[model] = model.pool.open()
                model.pool.gap(stream, clip.samples)
            elif not wanted and model in self._streams:
                model.close(self._streams.pop(model))

    def _end(self) -> None:
        """Give the streams back."""
        if self._clip is not None:
            self._heard += self._clip.seconds
            self._clip = None
        while self._streams:
            model, stream = self._streams.popitem()
            model.close(stream)

    async def _take_message(self, data: dict[str, Any], left: int) -> None:
        """Take the audio of one message, piece by piece as it arrives."""
        form = _format(data)
        # Some clients begin without a word.
        clip = self._clip or self._start(form, integer(data, "timestamp", 0))
        if form != clip.format:
            await self._take(clip, clip.converter.finish())
            clip.converter = Converter(*form, self._rate)
            clip.base, clip.frames, clip.format = clip.seconds, 0, form
        frame = clip.converter.frame_bytes
        clip.begin_message(data)
        frames = min(MAX_PIECE_BYTES // frame, max(1, form[0] * self._chunk // self._rate))
        while left >= frame:
            count = min(frames, left // frame)
            piece = await self._read(count * frame)
            left -= len(piece)
            clip.frames += count
            await self._take(clip, clip.converter.convert(piece))
        if left:
            await self._read(left)  # part of a frame

    async def _take(self, clip: _Clip, pcm: np.ndarray) -> None:
        """Give audio to all models."""
        clip.samples += len(pcm)
        for model, stream in [*self._streams.items()]:
            await self._push(clip, model, stream, pcm)

    async def _finish(self) -> None:
        """The audio ends: decide what only silence was missing for."""
        clip = self._clip
        if clip is not None:
            await self._take(clip, clip.converter.finish())
            padding = round(TAIL_SECONDS * self._rate)
            for model, stream in [*self._streams.items()]:
                rest = (model.pool.room(stream) - padding) % model.manifest.geometry.chunk
                await self._push(clip, model, stream, np.zeros(padding + rest, np.int16))
        self._end()
        if clip is None or not clip.detected:
            await self._send(NotDetected())

    async def _push(self, clip: _Clip, model: Model, stream: int, pcm: np.ndarray) -> None:
        """Push audio into a stream and tell what is detected."""
        while len(pcm):
            pcm = pcm[model.pool.push(stream, pcm) :]
            if model.pool.waiting(stream):
                for detection in await model.score(stream):
                    await self._tell(clip, detection)

    async def _tell(self, clip: _Clip, detection: Detection) -> None:
        keyword, seconds, score = detection
        if keyword not in self._names:
            return
        clip.detected = True
        seconds = min(seconds, clip.samples / self._rate)  # less than the silence at the end
        self._server.detections += 1
        self._server.tell(DetectionEvent(self.name, keyword, seconds, score, timestamp()))
        await self._send(WakeDetection(name=keyword, timestamp=clip.timestamp_at(seconds)))

    async def _send(self, message: Eventable) -> None:
        self._wait(MESSAGE_SECONDS)
        await async_write_event(message.event(), self._writer)
        self._wait(None)

    async def _read(self, count: int) -> bytes:
        self._wait(MESSAGE_SECONDS)
        data = await self._reader.readexactly(count)
        self._wait(None)
        return data

    def _wait(self, seconds: float | None) -> None:
        """The server waits for the client, for so long or not at all."""
        self.deadline = math.inf if seconds is None else self._loop.time() + seconds


def _format(data: dict[str, Any]) -> tuple[int, int, int]:
    return integer(data, "rate"), integer(data, "width"), integer(data, "channels")
