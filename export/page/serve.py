"""Pages to browsers on this machine, over HTTP.

What is served is a fixed set of paths, read once. Requests that come by another host's name (DNS
rebinding) are refused.
"""

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

from ...runtime.errors import EarmarkError
from ...runtime.hosts import exposure, is_own, named, url
from .page import is_page

MAX_CONNECTIONS = 32
REQUEST_SECONDS = 10.0
PIECE = 1 << 16
"""Bytes that a client must take within ``REQUEST_SECONDS``."""
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".onnx": "application/octet-stream",
}
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; "
    "connect-src 'self'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'"
)
"""The page's own Content-Security-Policy. As a header it binds the worker, too."""
HEADERS = {
    "Content-Security-Policy": f"{POLICY}; frame-ancestors 'none'",
    "Permissions-Policy": "microphone=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
    # A page apart from all others is given a clock of 5 us, which the time of a chunk needs.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def read_page(folder: Path) -> dict[str, bytes]:
    """The files of a page that ``earmark page`` wrote, by their path in it.

    Raises:
        EarmarkError: there is none.
    """
    if not is_page(folder):
        raise EarmarkError(f"{folder}: holds no page: make one with earmark page, or name a model")
    try:
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.suffix in TYPES and path.is_file()
        }
    except OSError as error:
        raise EarmarkError(f"{folder}: cannot be read ({error.strerror or error})") from error


class PageServer(ThreadingMixIn, TCPServer):
    """Serves the files of a page; a context manager that listens from the start."""

    daemon_threads = True
    allow_reuse_address = os.name == "posix"
    """So that the next run has the port at once; on Windows it would share the port instead."""

    def __init__(self, files: dict[str, bytes], host: str = "127.0.0.1", port: int = 0) -> None:
        """
        Args:
            files: by path, as :func:`read_page` gives them.
            host: name or address to listen at.
            port: 0 for any that is free.

        Raises:
            EarmarkError: it cannot listen there.
        """
        self.files = files
        self.host = named(host)
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        if ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((host, port), _Handler)
        except (OSError, UnicodeError, OverflowError) as error:
            raise EarmarkError(
                f"{host}:{port}: cannot listen there "
                f"({getattr(error, 'strerror', None) or error}): choose another --port or --host"
            ) from error

    @property
    def url(self) -> str:
        """Of the page."""
        return url(self.host, self.server_address[1])

    @property
    def exposure(self) -> str | None:
        """See :func:`earmark.runtime.hosts.exposure`."""
        return exposure(str(self.server_address[0]), self.url)

    def serve(self, stopped: Callable[[], bool]) -> None:
        """Serve until ``stopped`` gives true, which is asked a few times a second."""
        self.timeout = 0.2
        while not stopped():
            self.handle_request()

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # there is no thread that would give the place back
            self._places.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may leave when they like."""


class _Handler(BaseHTTPRequestHandler):
    timeout = REQUEST_SECONDS
    server_version = "earmark"
    sys_version = ""

    def setup(self) -> None:
        super().setup()
        # The timeout is of a read: a client that sends a byte now and then would keep its place.
        self._deadline = threading.Timer(REQUEST_SECONDS, self._give_up)
        self._deadline.daemon = True
        self._deadline.start()

    def _give_up(self) -> None:
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def parse_request(self) -> bool:
        try:
            return super().parse_request()
        finally:
            self._deadline.cancel()

    def finish(self) -> None:
        self._deadline.cancel()
        super().finish()

    def do_GET(self) -> None:
        self._answer(True)

    def do_HEAD(self) -> None:
        self._answer(False)

    def _answer(self, with_body: bool) -> None:
        server = self.server
        assert isinstance(server, PageServer)
        if not is_own(self.headers.get("Host", ""), server.host):
            return self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
        name = self.path.partition("?")[0].removeprefix("/") or "index.html"
        data = server.files.get(name)
        if data is None:
            return self.send_error(HTTPStatus.NOT_FOUND)
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", TYPES[Path(name).suffix])
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if with_body:
            # The timeout is of a write: in pieces, a slow client is waited for while it reads.
            for start in range(0, len(data), PIECE):
                self.wfile.write(data[start : start + PIECE])
        return None

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass
