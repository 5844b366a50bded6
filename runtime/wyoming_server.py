"""``earmark wyoming``: models as a wake word service of the Wyoming protocol, for Home Assistant
and its satellites.

Everything runs on one thread, in turns that are short: a message, a piece of audio no longer than
the model's chunk, or one run of the chunks that wait. So a client that sends hours of audio at once
delays the others by a turn at a time, and one that does not read what it is sent delays nobody.
"""

import asyncio
import math
import signal
import sys
from argparse import Namespace
from collections import deque
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from wyoming.error import Error
from wyoming.event import Eventable, async_get_stdin, async_get_stdout, async_write_event
from wyoming.info import Attribution, Info, WakeModel, WakeProgram
from wyoming.ping import Pong
from wyoming.wake import Detection as WakeDetection
from wyoming.wake import NotDetected

from .converter import MAX_PIECE_BYTES, Converter
from .detect import TAIL_SECONDS
from .engine import Detection, Engine
from .errors import EarmarkError
from .events import write_event
from .manifest import Decision, Manifest
from .options import chosen_decision
from .pool import StreamPool
from .wyoming_wire import MAX_LINE, Message, integer, read_message

PORT = 10400
MESSAGE_SECONDS = 10.0
"""A client may take so long to send the rest of a message, or to make room for one."""
SWEEP_SECONDS = 1.0
HISTORY = 4096
"""Audio messages whose timestamps are remembered; a detection is of one of the last few."""


def run(arguments: Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM, or until standard input ends where that is the client."""
    engines = [Engine(path) for path in arguments.model or [None]]
    models = _models(engines, arguments.operating_point, arguments.threshold, arguments.clients)
    server = Server(models, arguments.clients, arguments.idle)
    asyncio.run(server.serve(arguments.uri))
    print(
        f"earmark: served {server.served} clients, {server.detections} detections", file=sys.stderr
    )
    return 0


class Model:
    """A model, the streams of all clients through it, and the task that runs them."""

    def __init__(self, engine: Engine, decision: Decision, clients: int) -> None:
        self.manifest = engine.manifest
        self.pool = StreamPool(engine, decision, streams=clients)
        self._waiting: dict[int, asyncio.Future[list[Detection]]] = {}
        self._work = asyncio.Event()

    async def score(self, stream: int) -> list[Detection]:
        """Wait for the run of a stream's full chunk."""
        future = asyncio.get_running_loop().create_future()
        self._waiting[stream] = future
        self._work.set()
        return await future

    def close(self, stream: int) -> None:
        """End a stream, also one that is waited for."""
        self._waiting.pop(stream, None)
        self.pool.close(stream)

    async def run(self) -> None:
        """Run what waits, as much as there is together, and let others have a turn."""
        while True:
            await self._work.wait()
            await asyncio.sleep(self.pool.patience)
            while self.pool.pending:
                streams, detections = self.pool.run()
                for stream in streams:
                    future = self._waiting.pop(stream)
                    if not future.done():
                        future.set_result([found for place, found in detections if place == stream])
                await asyncio.sleep(0)
            self._work.clear()


class Server:
    """Accepts clients up to a limit and ends those that keep it waiting."""

    served: int
    """Clients so far."""
    detections: int
    """Detections told to clients so far."""

    def __init__(self, models: Sequence[Model], clients: int, idle_seconds: float) -> None:
        """
        Args:
            models: with keywords that differ and the same sample rate.
            clients: most at once.
            idle_seconds: a client may take so long to send its next message.
        """
        self.models = models
        self.idle_seconds = idle_seconds
        self.info = _info([model.manifest for model in models])
        self.served = self.detections = 0
        self._places = self._limit = clients
        self._clients: dict[asyncio.Task[None], _Client] = {}
        self._stop = asyncio.Event()
        self._failure: BaseException | None = None
        self._silent = False

    async def serve(self, uri: str) -> None:
        """Serve until :meth:`stop`, SIGINT or SIGTERM.

        Args:
            uri: ``tcp://HOST[:PORT]``, ``unix://PATH`` or ``stdio://``.

        Raises:
            EarmarkError: the address is none, or cannot be listened at.
            OSError: standard output takes no events any more.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(NotImplementedError):  # on Windows
                loop.add_signal_handler(number, self.stop)
        listener = await self._listen(uri)
        tasks = [loop.create_task(model.run()) for model in self.models]
        tasks += [loop.create_task(self._sweep()), loop.create_task(self._wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if listener is not None:
                listener.close()
            clients = [*self._clients]
            for task in (*clients, *tasks):
                task.cancel()
            await asyncio.gather(*clients, return_exceptions=True)
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            address = urlsplit(uri)
            if address.scheme == "unix":
                Path(address.path).unlink(missing_ok=True)
        for outcome in (self._failure, *ended):
            if isinstance(outcome, Exception):
                raise outcome

    def stop(self) -> None:
        """End :meth:`serve`."""
        self._stop.set()

    def tell(self, kind: str, **fields: Any) -> None:
        """Print an event, unless standard output belongs to the client."""
        if self._silent:
            return
        try:
            write_event(kind, **fields)
        except OSError as error:
            self._failure = error
            self.stop()

    async def _wait(self) -> None:
        await self._stop.wait()

    async def _listen(self, uri: str) -> asyncio.Server | None:
        address = urlsplit(uri)
        try:
            match address.scheme:
                case "stdio":
                    self._silent = True
                    reader = await async_get_stdin()
                    client = _Client(self, reader, await async_get_stdout(), "stdio")
                    self._begin(client).add_done_callback(lambda task: self.stop())
                    return None
                case "tcp" if address.hostname:
                    port = PORT if address.port is None else address.port
                    listener = await asyncio.start_server(
                        self._accept, address.hostname, port, limit=MAX_LINE
                    )
                case "unix" if address.path:
                    listener = await asyncio.start_unix_server(
                        self._accept, address.path, limit=MAX_LINE
                    )
                case _:
                    raise EarmarkError(
                        f"--uri {uri}: give tcp://HOST:PORT, unix:///PATH or stdio://"
                    )
        except (OSError, ValueError) as error:
            if address.scheme == "stdio":
                raise EarmarkError(
                    "--uri stdio://: standard input and output must be pipes"
                ) from error
            reason = getattr(error, "strerror", None) or error
            raise EarmarkError(
                f"--uri {uri}: cannot be listened at ({reason}): choose another"
            ) from error
        for socket in listener.sockets:
            name = socket.getsockname()
            if address.scheme == "unix":
                self.tell("listening", uri=uri)
                continue
            host = f"[{name[0]}]" if ":" in name[0] else name[0]
            at = f"tcp://{host}:{name[1]}"
            self.tell("listening", uri=at)
            if not ip_address(name[0]).is_loopback:
                print(
                    f"earmark: {at} can be reached from other machines, and asks nobody who they "
                    "are: keep it inside a network that you trust",
                    file=sys.stderr,
                )
        return listener

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        name = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else f"unix:{self.served + 1}"
        client = _Client(self, reader, writer, name)
        if not self._places:
            self._keep(client, client.refuse(f"all {self._limit} places are taken"))
            return
        self._begin(client)

    def _begin(self, client: "_Client") -> asyncio.Task[None]:
        self._places -= 1
        self.served += 1
        task = self._keep(client, client.serve())

        def leave(task: asyncio.Task[None]) -> None:
            self._places += 1

        task.add_done_callback(leave)
        return task

    def _keep(self, client: "_Client", work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task for a client and see to its end."""
        task = asyncio.get_running_loop().create_task(work)
        self._clients[task] = client

        def ended(task: asyncio.Task[None]) -> None:
            del self._clients[task]
            error = None if task.cancelled() else task.exception()
            if error is not None:  # one client's mishap must not end the others
                print(f"earmark: client {client.name}: {error!r}", file=sys.stderr)
                client.drop()

        task.add_done_callback(ended)
        return task

    async def _sweep(self) -> None:
        """Drop clients that have kept the server waiting for too long."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            for client in self._clients.values():
                if loop.time() > client.deadline:
                    client.drop()


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
        for begin, timestamp in reversed(self.messages):
            if begin < seconds:
                return timestamp
        return self.messages[0][1] if self.messages else self.timestamp


class _Client:
    """One connection."""

    deadline: float
    """When the client must have done what the server waits for, on the event loop's clock."""

    def __init__(
        self,
        server: Server,
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
        self._server.tell("client_connected", source=self.name)
        reason = "the server stops"
        try:
            reason = await self._converse()
        finally:
            self._end()
            self._server.tell(
                "client_disconnected", source=self.name, reason=reason, heard=self._heard
            )
            await self._hang_up()

    async def refuse(self, reason: str) -> None:
        """Say why this client is not served."""
        self._server.tell("client_refused", source=self.name, reason=reason)
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
                message = await read_message(self._reader)
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
                await self._send(Pong(data.get("text")))
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
                rest = -(clip.samples + padding) % model.manifest.geometry.chunk
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
        self._server.tell("detection", source=self.name, keyword=keyword, time=seconds, score=score)
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


def _models(
    engines: Sequence[Engine], operating_point: str | None, thresholds: list[str], clients: int
) -> list[Model]:
    """Raises EarmarkError: two models cannot be told apart, or take audio at different rates."""
    owners: dict[str, Engine] = {}
    for engine in engines:
        for keyword in engine.manifest.keywords:
            other = owners.setdefault(keyword, engine)
            if other is not engine:
                raise EarmarkError(
                    f"{engine.path}: has the keyword {keyword}, as {other.path} has: "
                    "serve one of them at another --uri"
                )
        rate = engine.manifest.geometry.sample_rate
        if rate != engines[0].manifest.geometry.sample_rate:
            raise EarmarkError(
                f"{engine.path}: takes audio at {rate} Hz, unlike {engines[0].path}: "
                "serve one of them at another --uri"
            )

    def own(engine: Engine) -> list[str]:
        """Without the thresholds of other models' keywords."""
        names = [(text.rpartition("=")[0], text) for text in thresholds]
        return [text for name, text in names if owners.get(name, engine) is engine]

    return [
        Model(engine, chosen_decision(engine.manifest, operating_point, own(engine)), clients)
        for engine in engines
    ]


def _info(manifests: Iterable[Manifest]) -> Info:
    """What the server says of itself: one program, and one model for each keyword."""
    manifests = list(manifests)
    return Info(
        wake=[
            WakeProgram(
                name="earmark",
                attribution=Attribution("Earmark", ""),
                installed=True,
                description="Keyword spotter with "
                + ", ".join(f"{m.name} ({m.licence or 'no licence given'})" for m in manifests),
                version=version("earmark"),
                models=[
                    _wake_model(manifest, keyword)
                    for manifest in manifests
                    for keyword in manifest.keywords
                ],
            )
        ]
    )


def _wake_model(manifest: Manifest, keyword: str) -> WakeModel:
    phrase = keyword.replace("_", " ")
    credits = [
        f"{source.attribution or source.name} ({source.name}, {source.licence})"
        for source in manifest.sources
    ]
    return WakeModel(
        name=keyword,
        attribution=Attribution(
            "; ".join(credits), next((source.url for source in manifest.sources if source.url), "")
        ),
        installed=True,
        # Home Assistant shows this as the wake word's name.
        description=phrase,
        # The weights are what makes one export of a model another.
        version=(manifest.checkpoint_sha256 or "")[:12] or None,
        languages=[],
        phrase=phrase,
    )
