"""Events to local pages and programs: server-sent events over HTTP.

``/events`` is the stream (WHATWG HTML, "Server-sent events"), ``/`` a page that shows it. A page
on the web must not listen in: requests for another host's name (DNS rebinding) and from pages of
another origin are refused, and no such page may take an answer as its script or picture.
"""

import asyncio
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

from ..errors import EarmarkError
from ..events import Event, to_json
from ..hosts import exposure, is_own, named, port_number, url
from .sink import CLOSE_SECONDS, POLL_SECONDS, Sink

MAX_CONNECTIONS = 32
MAX_HEADER_BYTES = 8192
REQUEST_SECONDS = 5.0
WRITE_SECONDS = 10.0
KEEPALIVE_SECONDS = 15.0
MOMENT_SECONDS = 0.1
"""How long connections may take to end."""
HISTORY_EVENTS = 256
"""Events that a client which comes back is given again."""
CLIENT_EVENTS = 256
"""Events that a client may be behind before it is dropped."""
SEND_BUFFER_BYTES = 65536
"""What the system keeps for a client that reads nothing."""
RETRY_MS = 2000
PAGE = b"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Earmark</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { color-scheme: light dark }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 50rem; margin: 0 auto; padding: 1rem }
h1 { font-size: 1.25rem; margin: 0 }
p { margin: .25rem 0 1rem; overflow-wrap: anywhere }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .35rem .75rem .35rem 0 }
tr { border-bottom: 1px solid color-mix(in srgb, currentColor 20%, transparent) }
td { white-space: nowrap; font-variant-numeric: tabular-nums }
td:last-child { width: 100%; white-space: normal; overflow-wrap: anywhere }
.detection { font-weight: bold }
</style>
<h1>Earmark</h1>
<p><span id="state" role="status">connecting</span><span id="beat"></span></p>
<table><thead><tr><th scope="col">At<th scope="col">Audio<th scope="col">Event</thead>
<tbody id="events" aria-live="polite"></tbody></table>
<script>
const state = document.getElementById("state"), beat = document.getElementById("beat");
const rows = document.getElementById("events");
const source = new EventSource("events");
source.onopen = () => { state.textContent = "connected"; };
source.onerror = () => { state.textContent = "no connection, trying again"; };
source.onmessage = (message) => {
  const {type, source: heard, at, time, keyword, score, ...rest} = JSON.parse(message.data);
  const told = at ? new Date(at).toLocaleTimeString() : "";
  if ("audio_seconds" in rest) {
    beat.textContent = `; heard ${rest.audio_seconds.toFixed(0)} s, ` +
      `${rest.detections} detections, ${rest.gaps} gaps`;
    if (type === "heartbeat") return;
  }
  const row = rows.insertRow(0);
  row.className = type;
  const more = Object.entries(rest).map(([name, value]) => `${name} ${value}`).join(", ");
  const what = type === "detection" ? `${keyword} ${score.toFixed(2)}` :
    type === "ended" ? type : `${type}: ${more}`;
  for (const text of [told, time.toFixed(2) + " s", what]) row.insertCell().textContent = text;
  while (rows.rows.length > 100) rows.deleteRow(-1);
};
</script></html>
"""


@dataclass(eq=False)
class _Client:
    """One that reads ``/events``."""

    task: asyncio.Task[None]
    """Serves it."""
    waiting: asyncio.Queue[bytes]
    owed: int
    """Events that it is to be given and that the system has not taken yet."""


class EventServer(Sink):
    """An HTTP server in a thread of its own. A client that falls behind is dropped."""

    port: int
    """Where it listens."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0, origins: tuple[str, ...] = ()):
        """
        Args:
            host: name or address to listen on; :func:`address` reads both from an option.
            port: 0 for any that is free.
            origins: of pages elsewhere that may read the events, such as ``http://tablet:3000``.

        Raises:
            EarmarkError: it cannot listen there.
        """
        self._host = named(host)
        self._origins = tuple(map(_origin, origins))
        # Names what is numbered: a client may come back to another run.
        self._run = secrets.token_hex(4)
        self._number = 0
        self._history: deque[tuple[int, bytes]] = deque(maxlen=HISTORY_EVENTS)
        self._clients: set[_Client] = set()
        self._connections: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="earmark-http", daemon=True
        )
        self._thread.start()
        opening = asyncio.start_server(
            self._serve, host, port, limit=MAX_HEADER_BYTES, backlog=MAX_CONNECTIONS
        )
        try:
            self._server = asyncio.run_coroutine_threadsafe(opening, self._loop).result()
        except (OSError, UnicodeError, OverflowError) as error:
            self._end_loop()
            raise EarmarkError(
                f"--http {host}:{port}: cannot listen there "
                f"({getattr(error, 'strerror', None) or error}): choose another port or host"
            ) from error
        self.port = self._server.sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        """Of the page."""
        return url(self._host, self.port)

    @property
    def exposure(self) -> str | None:
        """See :func:`earmark.runtime.hosts.exposure`."""
        addresses = (place.getsockname()[0] for place in self._server.sockets)
        return next(filter(None, (exposure(address, self.url) for address in addresses)), None)

    def send(self, event: Event) -> None:
        self._loop.call_soon_threadsafe(self._publish, to_json(event).encode())

    def finish(self, stopped: Callable[[], bool]) -> None:
        # What was sent before is published before this is answered.
        while not stopped() and asyncio.run_coroutine_threadsafe(self._owed(), self._loop).result():
            time.sleep(POLL_SECONDS)

    def close(self) -> None:
        with suppress(FutureTimeoutError):
            ending = asyncio.run_coroutine_threadsafe(self._end(), self._loop)
            ending.result(CLOSE_SECONDS + 10 * MOMENT_SECONDS)
        self._end_loop()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_SECONDS)
        if not self._thread.is_alive():
            self._loop.close()

    async def _owed(self) -> int:
        return sum(client.owed for client in self._clients)

    async def _end(self) -> None:
        self._server.close()
        await _while(lambda: any(client.owed for client in self._clients), CLOSE_SECONDS)
        self._undelivered += await self._owed()
        # The connections end by themselves then. Cancelling them instead would be logged as errors.
        for client in self._clients:
            client.task.cancel()
        await _while(lambda: bool(self._connections), MOMENT_SECONDS)
        for writer in self._connections:
            writer.transport.abort()
        await _while(lambda: bool(self._connections), MOMENT_SECONDS)

    def _publish(self, data: bytes) -> None:
        self._number += 1
        frame = b"id: %s-%d\ndata: %s\n\n" % (self._run.encode(), self._number, data)
        self._history.append((self._number, frame))
        for client in self._clients:
            try:
                client.waiting.put_nowait(frame)
                client.owed += 1
            except asyncio.QueueFull:
                self._undelivered += client.owed + 1
                client.owed = 0
                client.task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: one request."""
        full = len(self._connections) >= MAX_CONNECTIONS
        self._connections.add(writer)
        try:
            connection: socket.socket = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            # Drained means handed over to the system: nothing piles up here.
            writer.transport.set_write_buffer_limits(high=0)
            if full:
                await _answer(writer, HTTPStatus.SERVICE_UNAVAILABLE)
                return
            try:
                async with asyncio.timeout(REQUEST_SECONDS):
                    head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.LimitOverrunError:
                await _answer(writer, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
                return
            await self._respond(head, reader, writer)
        except (OSError, EOFError, TimeoutError):
            pass  # the client left, or is too slow
        finally:
            self._connections.discard(writer)
            if writer.transport.get_write_buffer_size():
                writer.transport.abort()  # it does not take what it was sent
            else:
                writer.close()

    async def _respond(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            method, path, headers = _parse(head)
        except ValueError:
            return await _answer(writer, HTTPStatus.BAD_REQUEST)
        host, origin = headers.get("host", ""), headers.get("origin")
        if not is_own(host, self._host):
            return await _answer(writer, HTTPStatus.MISDIRECTED_REQUEST)
        if origin is not None and origin not in (f"http://{host}", *self._origins):
            return await _answer(writer, HTTPStatus.FORBIDDEN)
        if method != "GET":
            return await _answer(writer, HTTPStatus.METHOD_NOT_ALLOWED, "Allow: GET\r\n")
        extra = ""
        if self._origins:
            extra = "Vary: Origin\r\n"
            if origin in self._origins:
                extra += f"Access-Control-Allow-Origin: {origin}\r\n"
        if path == "/":
            extra += (
                "Content-Type: text/html; charset=utf-8\r\n"
                "Content-Security-Policy: default-src 'none'; connect-src 'self'; "
                "script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
                "frame-ancestors 'none'\r\n"
            )
            return await _answer(writer, HTTPStatus.OK, extra, PAGE)
        if path != "/events":
            return await _answer(writer, HTTPStatus.NOT_FOUND)
        # What a page loads as a script or a picture names no origin.
        if origin is None and headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            return await _answer(writer, HTTPStatus.FORBIDDEN)
        extra += "Content-Type: text/event-stream\r\n"
        writer.write(_head(HTTPStatus.OK, extra))
        # A client has nothing more to say: data and its leaving both end the connection.
        gone = asyncio.create_task(reader.read(1))
        stream = asyncio.create_task(self._stream(writer, headers.get("last-event-id", "")))
        try:
            await asyncio.wait({gone, stream}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            stream.cancel()
            await asyncio.gather(gone, stream, return_exceptions=True)
        return None

    async def _stream(self, writer: asyncio.StreamWriter, last: str) -> None:
        missed = self._since(last)
        task = asyncio.current_task()
        assert task is not None  # there is one in every coroutine that runs
        client = _Client(task, asyncio.Queue(CLIENT_EVENTS), len(missed))
        self._clients.add(client)
        try:
            await _write(writer, b"retry: %d\n\n" % RETRY_MS + b"".join(missed))
            client.owed -= len(missed)
            while True:
                try:
                    async with asyncio.timeout(KEEPALIVE_SECONDS):
                        frame = await client.waiting.get()
                except TimeoutError:
                    await _write(writer, b": still here\n\n")
                    continue
                await _write(writer, frame)
                client.owed -= 1
        except TimeoutError:  # it takes nothing any more
            self._undelivered += client.owed
            raise
        finally:
            self._clients.remove(client)

    def _since(self, last: str) -> list[bytes]:
        """What a client missed that names the last event it had; nothing for a new client."""
        run, _, number = last.partition("-")
        if not last:
            return []
        seen = int(number) if run == self._run and number.isdecimal() and len(number) < 16 else 0
        return [frame for at, frame in self._history if at > seen]


def address(text: str) -> tuple[str, int]:
    """Read ``[HOST:]PORT``; without a host it is this machine's loopback.

    Raises:
        EarmarkError: it is not of this form.
    """
    host, _, number = text.rpartition(":")
    try:
        return host.strip("[]") or "127.0.0.1", port_number(number)
    except ValueError as error:
        raise EarmarkError(f"--http {text}: give PORT or HOST:PORT, such as 8080") from error


def _parse(head: bytes) -> tuple[str, str, dict[str, str]]:
    """Method, path without its query, and headers by lower-case name.

    Raises:
        ValueError: it is no HTTP request, or it has several hosts.
    """
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    method, target, version = first.split(" ")
    if not version.startswith("HTTP/1."):
        raise ValueError(version)
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name = name.lower()
        if not colon or not name or name != name.strip() or (name == "host" and name in headers):
            raise ValueError(line)
        headers[name] = value.strip()
    return method, target.partition("?")[0], headers


def _head(status: HTTPStatus, extra: str, length: int | None = None) -> bytes:
    size = "" if length is None else f"Content-Length: {length}\r\n"
    return (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n{extra}{size}Cache-Control: no-store\r\n"
        "Cross-Origin-Resource-Policy: same-origin\r\n"
        "X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
    ).encode("latin-1")


def _origin(text: str) -> str:
    """An origin as browsers send it: no path, nothing in capitals, no port where it goes without.

    Raises:
        EarmarkError: it is none.
    """
    try:
        address = urlsplit(text)
        port = address.port
    except ValueError:
        address, port = urlsplit(""), None
    rest = (address.path.rstrip("/"), address.query, address.fragment, address.username)
    if not (address.scheme and address.hostname) or any(rest):
        raise EarmarkError(
            f"--http-origin {text}: give scheme://host[:port], as http://tablet:3000"
        )
    host = f"[{address.hostname}]" if ":" in address.hostname else address.hostname
    usual = {"http": 80, "https": 443}.get(address.scheme)
    return f"{address.scheme}://{host}" + (f":{port}" if port not in (None, usual) else "")


async def _answer(
    writer: asyncio.StreamWriter, status: HTTPStatus, extra: str = "", body: bytes = b""
) -> None:
    await _write(writer, _head(status, extra, len(body)) + body)


async def _while(condition: Callable[[], bool], seconds: float) -> None:
    """Wait while ``condition`` holds, but no longer."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while condition():
                await asyncio.sleep(0.01)


async def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Raises TimeoutError where the client does not take it."""
    writer.write(data)
    async with asyncio.timeout(WRITE_SECONDS):
        await writer.drain()
