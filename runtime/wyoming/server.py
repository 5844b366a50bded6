"""``earmark wyoming``: models as a wake word service of the Wyoming protocol, for Home Assistant
and its satellites.

Everything runs on one thread, in turns that are short: a message, a piece of audio no longer than
the model's chunk, or one run of the chunks that wait. So a client that sends hours of audio at once
delays the others by a turn at a time, and one that does not read what it is sent delays nobody.
"""

import asyncio
import signal
import socket
from argparse import Namespace
from collections.abc import Coroutine, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from wyoming.event import async_get_stdin, async_get_stdout

from ..engine import Engine
from ..errors import EarmarkError
from ..events import Event
from ..hosts import exposure
from ..sinks.sink import FanOut, Sink, output, tell
from .events import ListeningEvent
from .models import Model, describe, open_models
from .session import Client
from .wire import MAX_LINE

PORT = 10400
SWEEP_SECONDS = 1.0


def run(arguments: Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM, or until standard input ends where that is the client."""
    engines = [Engine(path) for path in arguments.model or [None]]
    models = open_models(engines, arguments.operating_point, arguments.threshold, arguments.clients)
    # Standard output is the client's where that is asked for.
    with closing(FanOut([] if arguments.uri.startswith("stdio:") else [output()])) as sink:
        server = Server(models, arguments.clients, arguments.idle, sink)
        asyncio.run(server.serve(arguments.uri))
    sink.check()
    if sink.undelivered:
        tell(f"{sink.undelivered} events not delivered")
    tell(f"served {server.served} clients, {server.detections} detections")
    return 0


class Server:
    """Accepts clients up to a limit and ends those that keep it waiting."""

    served: int
    """Clients so far."""
    detections: int
    """Detections told to clients so far."""

    def __init__(
        self, models: Sequence[Model], clients: int, idle_seconds: float, sink: Sink
    ) -> None:
        """
        Args:
            models: with keywords that differ and the same sample rate.
            clients: most at once.
            idle_seconds: a client may take so long to send its next message.
            sink: takes events without waiting.
        """
        self.models = models
        self.idle_seconds = idle_seconds
        self.info = describe([model.manifest for model in models])
        self.served = self.detections = 0
        self._places = self._limit = clients
        self._clients: dict[asyncio.Task[None], Client] = {}
        self._stop = asyncio.Event()
        self._sink = sink
        self._socket: tuple[int, int] | None = None

    async def serve(self, uri: str) -> None:
        """Serve until :meth:`stop`, SIGINT or SIGTERM.

        Args:
            uri: ``tcp://HOST[:PORT]``, ``unix://PATH`` or ``stdio://``.

        Raises:
            EarmarkError: the address is none, or cannot be listened at.
            OSError: the sink takes no events any more.
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
                self._remove_socket(uri)
                listener.close()
            clients = [*self._clients]
            for task in (*clients, *tasks):
                task.cancel()
            if clients:
                # One that reads nothing would keep its end from being sent for as long as it likes.
                _, late = await asyncio.wait(clients, timeout=SWEEP_SECONDS)
                for task in late:
                    self._clients[task].drop()
            await asyncio.gather(*clients, return_exceptions=True)
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        for outcome in ended:
            if isinstance(outcome, Exception):
                raise outcome

    def stop(self) -> None:
        """End :meth:`serve`."""
        self._stop.set()

    def tell(self, event: Event) -> None:
        """Give an event to the sink."""
        self._sink.send(event)

    async def _wait(self) -> None:
        await self._stop.wait()

    async def _listen(self, uri: str) -> asyncio.Server | None:
        try:
            address = urlsplit(uri)
        except ValueError as error:
            raise EarmarkError(f"--uri {uri}: {error}: give tcp://HOST:PORT") from error
        try:
            match address.scheme:
                case "stdio":
                    reader = await async_get_stdin()
                    client = Client(self, reader, await async_get_stdout(), "stdio")
                    self._begin(client).add_done_callback(lambda task: self.stop())
                    return None
                case "tcp" if address.hostname:
                    port = PORT if address.port is None else address.port
                    listener = await asyncio.start_server(
                        self._accept, address.hostname, port, limit=MAX_LINE
                    )
                # unix://run/x would be a path of a host named run.
                case "unix" if address.path and f"unix://{address.path}" == uri:
                    if _answers(address.path):
                        raise EarmarkError(
                            f"--uri {uri}: another program answers there: end it or choose another"
                        )
                    listener = await asyncio.start_unix_server(
                        self._accept, address.path, limit=MAX_LINE
                    )
                    self._socket = _identity(address.path)
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
        for place in listener.sockets:
            name = place.getsockname()
            if address.scheme == "unix":
                self.tell(ListeningEvent(uri))
                continue
            host = f"[{name[0]}]" if ":" in name[0] else name[0]
            at = f"tcp://{host}:{name[1]}"
            self.tell(ListeningEvent(at))
            if warning := exposure(name[0], at):
                tell(warning)
        return listener

    def _remove_socket(self, uri: str) -> None:
        """Remove the file of a Unix socket, unless a successor has put its own there.

        To be called while it is listened at: nobody else's file can have its number then.
        """
        path = urlsplit(uri).path
        if self._socket is not None and _identity(path) == self._socket:
            Path(path).unlink(missing_ok=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        name = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else f"unix:{self.served + 1}"
        client = Client(self, reader, writer, name)
        if not self._places:
            self._keep(client, client.refuse(f"all {self._limit} places are taken"))
            return
        self._begin(client)

    def _begin(self, client: Client) -> asyncio.Task[None]:
        self._places -= 1
        self.served += 1
        task = self._keep(client, client.serve())

        def leave(task: asyncio.Task[None]) -> None:
            self._places += 1

        task.add_done_callback(leave)
        return task

    def _keep(self, client: Client, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task for a client and see to its end."""
        task = asyncio.get_running_loop().create_task(work)
        self._clients[task] = client

        def ended(task: asyncio.Task[None]) -> None:
            del self._clients[task]
            error = None if task.cancelled() else task.exception()
            if error is not None:  # one client's mishap must not end the others
                tell(f"client {client.name}: {error!r}")
                client.drop()

        task.add_done_callback(ended)
        return task

    async def _sweep(self) -> None:
        """Drop clients that have kept the server waiting for too long; raise what the sink has."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            self._sink.check()
            for client in self._clients.values():
                if loop.time() > client.deadline:
                    client.drop()


def _answers(path: str) -> bool:
    """Whether somebody listens at a Unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except BlockingIOError:  # there are too many who wait for it already
            return True
        except OSError:
            return False
    return True


def _identity(path: str) -> tuple[int, int] | None:
    """Device and number of a file; None where there is none."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
