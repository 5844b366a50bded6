"""Server-sent events by a plain HTTP client: what arrives, who is let in, who is dropped."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.client import HTTPConnection, HTTPResponse

import pytest
from earmark.runtime import DetectionEvent, EarmarkError
from earmark.runtime.sinks import http as sink_http
from earmark.runtime.sinks.http import EventServer, address


def detection(at: float = 1.5, keyword: str = "yes") -> DetectionEvent:
    return DetectionEvent("mic", keyword, at, 0.9)


class Client:
    """A client of ``/events``; a context manager."""

    def __init__(self, port: int, buffer: int | None = None, **headers: str) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=20)
        if buffer is not None:
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            connection.connect(("127.0.0.1", port))
            self._connection.sock = connection
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request("GET", "/events", headers=names)
        self.response: HTTPResponse = self._connection.getresponse()
        assert self.response.status == 200
        assert self.fields() == {"retry": "2000"}  # from now on it gets events

    def fields(self) -> dict[str, str]:
        """The next message, or comment under the name of nothing; empty at the end."""
        found = {}
        while (line := self.response.readline().decode()) not in ("\n", ""):
            name, _, value = line.rstrip("\n").partition(":")
            found[name] = value.removeprefix(" ")
        return found

    def times(self, count: int) -> list[float]:
        return [json.loads(self.fields()["data"])["time"] for _ in range(count)]

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()


@pytest.fixture
def server() -> Iterator[EventServer]:
    with closing(EventServer()) as running:
        yield running


def ask(port: int, path: str = "/", method: str = "GET", **headers: str) -> HTTPResponse:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, headers=names)
    response = connection.getresponse()
    if (path, response.status) != ("/events", 200):  # which has no end
        response.read()
    connection.close()
    return response


def raw(port: int, request: bytes) -> bytes:
    """Send bytes and return all that comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request)
        answer = b""
        while data := connection.recv(65536):
            answer += data
        return answer


def test_every_client_gets_every_event(server: EventServer) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(server.port)) for _ in range(10)]
        for at in range(5):
            server.send(detection(at))
        assert [client.times(5) for client in clients] == [list(range(5))] * 10
    message = clients[0].response.headers
    assert message["Content-Type"] == "text/event-stream"
    assert message["Cache-Control"] == "no-store"


def test_a_client_that_comes_back_gets_what_it_missed(server: EventServer) -> None:
    with Client(server.port) as client:
        server.send(detection(0))
        seen = client.fields()["id"]
    for at in range(1, 4):
        server.send(detection(at))
    with Client(server.port, Last_Event_ID=seen) as client:
        assert client.times(3) == [1, 2, 3]
        server.send(detection(4))
        assert client.times(1) == [4]
    with Client(server.port) as new:
        server.send(detection(5))
        assert new.times(1) == [5]


def test_what_is_replayed_is_bounded_and_of_this_run(
    server: EventServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_http, "HISTORY_EVENTS", 3)
    with closing(EventServer()) as small:
        for at in range(10):
            small.send(detection(at))
        for last in ("0123abcd-9", "nonsense", "-", "9" * 1000):
            with Client(small.port, Last_Event_ID=last) as client:
                assert client.times(3) == [7, 8, 9]


def test_a_stuck_client_is_dropped_and_delays_nobody(server: EventServer) -> None:
    with Client(server.port, buffer=4096) as stuck, Client(server.port) as lively:
        sent = 0
        while not server.undelivered:
            assert sent < 100_000, "the stuck client was not dropped"
            server.send(detection(sent, "k" * 2000))
            assert lively.times(1) == [sent]
            sent += 1
        with pytest.raises((OSError, KeyError, ValueError)):  # reset, or the end in a message
            stuck.times(sent)
        server.send(detection(-1))
        assert lively.times(1) == [-1]


def test_clients_beyond_the_limit_are_refused_until_one_leaves(
    server: EventServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_http, "MAX_CONNECTIONS", 2)
    with Client(server.port):
        with Client(server.port):
            assert ask(server.port).status == 503
        end = time.monotonic() + 20
        while ask(server.port).status != 200:
            assert time.monotonic() < end
    server.send(detection())


def test_a_comment_keeps_a_connection_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_http, "KEEPALIVE_SECONDS", 0.02)
    with closing(EventServer()) as server, Client(server.port) as client:
        assert client.fields() == {"": "still here"}
        server.send(detection())
        while "data" not in client.fields():
            pass


LONG = "k" * 2000
"""Of 250 such events the system keeps a part for a client that does not read."""


def test_where_audio_ends_a_slow_client_gets_all_events() -> None:
    with closing(EventServer()) as server, Client(server.port, buffer=4096) as client:
        for at in range(250):
            server.send(detection(at, LONG))
        got: list[float] = []
        reading = threading.Thread(target=lambda: got.extend(client.times(250)))

        def stopped() -> bool:
            if reading.ident is None:
                reading.start()  # it has not read anything before
            return False

        server.finish(stopped)
        assert reading.ident is not None, "nothing waited for the client"
        reading.join(20)
    assert got == list(range(250))
    assert server.undelivered == 0


def test_a_signal_ends_the_waiting_for_clients_and_the_rest_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sink_http, "CLOSE_SECONDS", 0.3)
    server = EventServer()
    with Client(server.port, buffer=4096) as client:
        for at in range(250):
            server.send(detection(at, LONG))
        server.finish(lambda: True)
        server.close()
        text = client.response.read().decode()
    whole = [part for part in text.split("\n\n")[:-1] if "data: " in part]
    assert 0 < server.undelivered == 250 - len(whole)


def test_a_client_that_takes_nothing_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sink_http, "WRITE_SECONDS", 0.05)
    with closing(EventServer()) as server, Client(server.port, buffer=4096):
        for at in range(250):
            server.send(detection(at, LONG))
        server.finish(lambda: False)
        assert server.undelivered > 0


def test_clients_see_the_end(caplog: pytest.LogCaptureFixture) -> None:
    server = EventServer()
    with (
        Client(server.port) as client,
        socket.create_connection(("127.0.0.1", server.port)),  # says nothing
    ):
        server.send(detection())
        server.close()
        assert client.times(1) == [1.5]
        assert client.fields() == {}
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", server.port), timeout=5)
    assert not caplog.records


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:8080", 200),
        ("LOCALHOST.", 200),
        ("127.0.0.1:1", 200),
        ("192.168.1.7", 200),
        ("[::1]", 200),
        ("[::1]:8080", 200),
        (socket.gethostname(), 200),
        ("evil.example", 421),
        ("evil.example:8080", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example", 421),
        ("", 421),
    ],
)
def test_other_hosts_names_are_refused(server: EventServer, host: str, status: int) -> None:
    assert ask(server.port, Host=host).status == status
    if status != 200:
        assert ask(server.port, "/events", Host=host).status == status


def test_pages_of_other_origins_are_refused_unless_named() -> None:
    own, other = "http://tablet:3000", "http://evil.example"
    with closing(EventServer()) as server:
        local = f"http://127.0.0.1:{server.port}"
        assert ask(server.port, Origin=local).status == 200
        assert ask(server.port, "/events", Origin=own).status == 403
        assert ask(server.port, "/events", Origin="null").status == 403
        assert ask(server.port).headers["Access-Control-Allow-Origin"] is None
    with closing(EventServer(origins=(own,))) as server:
        assert ask(server.port, "/events", Origin=other).status == 403
        with Client(server.port, Origin=own) as client:
            assert client.response.headers["Access-Control-Allow-Origin"] == own
            assert client.response.headers["Vary"] == "Origin"


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_page_elsewhere_cannot_load_the_events_as_a_script(site: str) -> None:
    """Browsers send no ``Origin`` then."""
    tablet = "http://tablet:3000"
    with closing(EventServer(origins=(tablet,))) as server:
        assert ask(server.port, "/events", Sec_Fetch_Site=site).status == 403
        page = ask(server.port, Sec_Fetch_Site=site)  # by a link
        assert page.status == 200
        assert page.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        with Client(server.port, Sec_Fetch_Site=site, Origin=tablet):
            pass
        with Client(server.port, Sec_Fetch_Site="same-origin"):
            pass


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("http://tablet:3000/", "http://tablet:3000"),
        ("HTTPS://Tablet.Local:443", "https://tablet.local"),
        ("http://[::1]:80", "http://[::1]"),
    ],
)
def test_an_origin_is_named_in_other_ways(given: str, sent: str) -> None:
    with (
        closing(EventServer(origins=(given,))) as server,
        Client(server.port, Origin=sent) as client,
    ):
        assert client.response.status == 200


@pytest.mark.parametrize("text", ["tablet", "http://", "http://tablet/page", "http://a:b", "null"])
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(EarmarkError, match=f"--http-origin {text}: give"):
        EventServer(origins=(text,))


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        (b"GET /?x=1 HTTP/1.0\r\nHost: localhost\r\n\r\n", 200),
        (b"GET /nosuch HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\n\r\n", 421),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n", 400),
        (b"GET / HTTP/2\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\xff\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000, 431),
    ],
)
def test_requests(server: EventServer, request_: bytes, status: int) -> None:
    try:
        answer = raw(server.port, request_)
    except ConnectionResetError:
        assert status == 431  # the rest of what was sent was not read
        return
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert (b"EventSource" in answer) == (status == 200)


def test_a_client_that_asks_for_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_http, "REQUEST_SECONDS", 0.05)
    with closing(EventServer()) as server:
        assert raw(server.port, b"GET / HTT") == b""


def test_the_page_can_load_nothing_from_elsewhere(server: EventServer) -> None:
    policy = ask(server.port).headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy


def test_a_taken_port_is_told(server: EventServer) -> None:
    with pytest.raises(EarmarkError, match=f"--http 127.0.0.1:{server.port}: cannot listen there"):
        EventServer(port=server.port)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8080", ("127.0.0.1", 8080)),
        (":8080", ("127.0.0.1", 8080)),
        ("0.0.0.0:80", ("0.0.0.0", 80)),
        ("[::1]:80", ("::1", 80)),
        ("pi.lan:80", ("pi.lan", 80)),
    ],
)
def test_address(text: str, expected: tuple[str, int]) -> None:
    assert address(text) == expected


@pytest.mark.parametrize("text", ["", "host", "1:2:x", "99999", "²", "-1"])
def test_a_wrong_address_is_refused(text: str) -> None:
    with pytest.raises(EarmarkError, match="give PORT or HOST:PORT"):
        address(text)
