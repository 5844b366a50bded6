"""The verbs ``page`` and ``serve`` without a browser: what is written, fetched and let in."""

import base64
import hashlib
import io
import os
import re
import signal
import socket
import tarfile
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest
import toy_model
from command import launch
from earmark.export.page import onnxruntime_web, serve
from earmark.export.page.onnxruntime_web import FILES, INTEGRITY, PACKAGE, Vendored
from earmark.export.page.page import ASSETS, MODEL
from earmark.export.page.serve import POLICY, PageServer
from earmark.runtime import EarmarkError
from earmark.runtime.cli import main
from page_browser import serving

CONTENT = {"ort.js": b"export {};", "ort.wasm": b"\0asm"}


def tarball(path: Path, content: dict[str, bytes]) -> Path:
    """A package like that of npm, with more in it than is wanted."""
    members = {FILES[name].member: data for name, data in content.items()}
    with tarfile.open(path, "w:gz") as archive:
        for name, data in {
            "../../escaped": b"no",
            "package/package.json": b"{}",
            **members,
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small package in the place of the pinned one, an empty cache, and no npm."""
    path = tarball(tmp_path / "package.tgz", CONTENT)
    for name, data in CONTENT.items():
        pin = Vendored(FILES[name].member, len(data), hashlib.sha256(data).hexdigest())
        monkeypatch.setitem(FILES, name, pin)
    digest = hashlib.sha512(path.read_bytes()).digest()
    monkeypatch.setattr(onnxruntime_web, "INTEGRITY", integrity(digest))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return path


def integrity(digest: bytes) -> str:
    return "sha512-" + base64.b64encode(digest).decode()


def npm(package: Path, script: str) -> None:
    """An npm that does as it is told, in a shell."""
    program = package.parent / "bin" / "npm"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_a_page_has_all_that_it_loads(package: Path, tmp_path: Path) -> None:
    model = toy_model.save(tmp_path / "toy.onnx")
    site = tmp_path / "site"
    assert main(["page", str(model), "-o", str(site), "--onnxruntime-web", str(package)]) == 0
    assert (site / MODEL).read_bytes() == model.read_bytes()
    assert (site / "ort" / "ort.js").read_bytes() == CONTENT["ort.js"]
    assert "Copyright (c) Microsoft" in (site / "ort" / "LICENSE.txt").read_text()
    assert not (site / "package.json").exists() and not (tmp_path / "escaped").exists()
    for source in [*site.glob("*.js"), site / "index.html"]:
        for name in re.findall(
            r"""(?:from |import |src=|href=|new URL\()"([\w./-]+\.\w+)\"""", source.read_text()
        ):
            assert (site / name).is_file(), (source, name)
    # Again over the same page, as with another model.
    assert main(["page", str(model), "-o", str(site), "--onnxruntime-web", str(package)]) == 0


def test_a_folder_with_other_things_is_left_alone(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text("mine")
    assert main(["page", "-o", str(tmp_path / "mine"), "--onnxruntime-web", str(package)]) == 1
    assert "holds something else" in capsys.readouterr().err
    assert (tmp_path / "mine" / "index.html").read_text() == "mine"


def test_npm_is_asked_once(package: Path) -> None:
    npm(package, f'test "$1 $2" = "pack {PACKAGE}" && /bin/cp {package} .')
    assert onnxruntime_web.onnxruntime_web() == CONTENT
    npm(package, "exit 1")
    assert onnxruntime_web.onnxruntime_web() == CONTENT


def test_a_damaged_cache_is_fetched_again(package: Path, tmp_path: Path) -> None:
    npm(package, f"/bin/cp {package} .")
    onnxruntime_web.onnxruntime_web()
    (cached,) = (tmp_path / "cache").rglob("ort.wasm")
    cached.write_bytes(b"\0asx")
    assert onnxruntime_web.onnxruntime_web() == CONTENT
    assert cached.read_bytes() == CONTENT["ort.wasm"]


def test_without_npm_or_network_one_line_says_so(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = str(tmp_path / "site")
    assert main(["page", "-o", site]) == 1
    assert "npm is not installed" in capsys.readouterr().err
    npm(package, "echo npm error network ENOTFOUND >&2; exit 1")
    assert main(["page", "-o", site]) == 1
    *_, last = capsys.readouterr().err.splitlines()
    assert "ENOTFOUND" in last and "--onnxruntime-web" in last
    assert not Path(site).exists()


def test_another_package_is_refused(package: Path, tmp_path: Path) -> None:
    other = tarball(tmp_path / "other.tgz", CONTENT | {"ort.js": b"evil"})
    with pytest.raises(EarmarkError, match=r"other.tgz: is not the tarball of onnxruntime-web"):
        onnxruntime_web.onnxruntime_web(other)
    with pytest.raises(EarmarkError, match="cannot be read"):
        onnxruntime_web.onnxruntime_web(tmp_path / "none.tgz")
    npm(package, f"/bin/cp {other} .")
    with pytest.raises(EarmarkError, match="is not the tarball"):
        onnxruntime_web.onnxruntime_web()


def test_a_member_that_is_larger_than_pinned_is_refused(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = tarball(tmp_path / "bomb.tgz", CONTENT | {"ort.wasm": bytes(1 << 20)})
    digest = hashlib.sha512(bomb.read_bytes()).digest()
    monkeypatch.setattr(onnxruntime_web, "INTEGRITY", integrity(digest))
    with pytest.raises(EarmarkError, match="another than the pinned one"):
        onnxruntime_web.onnxruntime_web(bomb)


def test_the_pin_is_of_the_form_of_npm() -> None:
    assert re.fullmatch(r"sha512-[\w+/]{86}==", INTEGRITY)


@pytest.fixture
def server() -> Iterator[PageServer]:
    page = {"index.html": b"<html>", "app.js": b"//", "ort/ort.wasm": b"\0asm"}
    with serving(page) as running:
        yield running


def ask(
    server: PageServer, path: str = "/", method: str = "GET", host: str | None = None
) -> tuple[int, dict[str, str], bytes]:
    connection = HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
    connection.request(method, path, headers={} if host is None else {"Host": host})
    response = connection.getresponse()
    answer = response.status, dict(response.headers), response.read()
    connection.close()
    return answer


@pytest.mark.parametrize(
    ("path", "kind", "body"),
    [
        ("/", "text/html; charset=utf-8", b"<html>"),
        ("/index.html?x=1", "text/html; charset=utf-8", b"<html>"),
        ("/app.js", "text/javascript; charset=utf-8", b"//"),
        ("/ort/ort.wasm", "application/wasm", b"\0asm"),
    ],
)
def test_files_have_their_types(server: PageServer, path: str, kind: str, body: bytes) -> None:
    status, headers, found = ask(server, path)
    assert (status, headers["Content-Type"], found) == (200, kind, body)
    assert headers["Content-Security-Policy"].startswith(POLICY)
    assert headers["X-Content-Type-Options"] == "nosniff"
    status, headers, found = ask(server, path, "HEAD")
    assert (status, headers["Content-Length"], found) == (200, str(len(body)), b"")


def test_a_client_that_never_ends_its_request_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serve, "REQUEST_SECONDS", 0.3)
    with serving({"index.html": b""}) as server, socket.socket() as client:
        client.settimeout(20)
        client.connect(("127.0.0.1", server.server_address[1]))
        dropped = False
        for _ in range(200):  # a byte at a time, each well before the timeout of a read
            try:
                client.sendall(b"X")
                client.settimeout(0.1)
                dropped = client.recv(1) == b""
            except TimeoutError:
                continue
            except OSError:
                dropped = True
            if dropped:
                break
        assert dropped


def test_a_place_is_given_back_where_no_thread_can_start(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving({"index.html": b"<html>"}) as server:
        with monkeypatch.context() as patch:
            patch.setattr(serve.ThreadingMixIn, "process_request", lambda *_: 1 / 0)
            for _ in range(serve.MAX_CONNECTIONS + 1):
                with pytest.raises((OSError, HTTPException)):
                    ask(server)
        assert ask(server)[2] == b"<html>"


def test_an_empty_host_is_not_all_networks() -> None:
    with pytest.raises(EarmarkError, match="host to listen at is empty"):
        PageServer({}, host="")


def test_a_slow_client_gets_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole takes longer than a client may take for a piece of it."""
    monkeypatch.setattr(serve._Handler, "timeout", 0.5)
    large = bytes(8 << 20)
    with serving({"index.html": b"", "large.wasm": large}) as server, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        client.settimeout(20)
        client.connect(("127.0.0.1", server.server_address[1]))
        client.sendall(b"GET /large.wasm HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        got = 0
        while data := client.recv(1 << 16):
            got += len(data)
            time.sleep(0.005)
    assert got > len(large)


@pytest.mark.parametrize("path", ["/none", "/../etc/passwd", "//etc/passwd", "/ort", "/ort/"])
def test_other_paths_are_not_found(server: PageServer, path: str) -> None:
    assert ask(server, path)[0] == 404


def test_other_methods_are_not_taken(server: PageServer) -> None:
    assert ask(server, method="POST")[0] == 501


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:8000", 200),
        ("192.168.1.7:8000", 200),
        ("[::1]:8000", 200),
        (socket.gethostname(), 200),
        ("evil.example", 421),
        ("evil.example:8000", 421),
        ("localhost.evil.example", 421),
        ("", 421),
    ],
)
def test_a_foreign_name_is_refused(server: PageServer, host: str, status: int) -> None:
    assert ask(server, host=host)[0] == status


def test_a_port_that_is_taken_is_an_error(server: PageServer) -> None:
    with pytest.raises(EarmarkError, match="cannot listen there"):
        PageServer({}, port=server.server_address[1])


@pytest.mark.parametrize("port", ["abc", "65536", "-1", "1.5", "", "9" * 5000])
def test_what_is_no_port_is_said_to_be_none(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", f"--port={port}"])
    assert "a number from 0 to 65535 is needed" in capsys.readouterr().err


def test_the_policy_of_the_page_is_that_of_the_server() -> None:
    assert f'content="{POLICY}"' in (ASSETS / "index.html").read_text()


def test_a_folder_without_a_page_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(tmp_path)]) == 1
    assert "holds no page" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_says_where_and_ends_with_a_signal(
    package: Path, tmp_path: Path, number: signal.Signals
) -> None:
    site = tmp_path / "site"
    assert main(["page", "-o", str(site), "--onnxruntime-web", str(package)]) == 0
    environment = os.environ | {"PATH": os.defpath}
    process = launch("serve", site, "--port", "0", text=True, env=environment)
    assert process.stderr is not None
    line = process.stderr.readline()
    found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
    assert found, line
    connection = HTTPConnection("127.0.0.1", int(found[1]), timeout=20)
    connection.request("GET", "/model.onnx")
    assert connection.getresponse().read() == (site / MODEL).read_bytes()
    connection.close()
    process.send_signal(number)
    assert process.communicate(timeout=60)[1] == "" and process.returncode == 0


def test_text_has_contrast_in_light_and_dark() -> None:
    style = (ASSETS / "style.css").read_text()
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#\w{6})", part))
        for part in re.split(r"prefers-color-scheme: dark", style)[:2]
    )
    for colours in (light, dark):
        for ink, ground in (
            ("ink", "card"),
            ("ink", "ground"),
            ("soft", "card"),
            ("soft", "ground"),
            ("accent", "card"),
            ("accent", "wash"),
            ("accent-ink", "accent"),
            ("alarm", "alarm-wash"),
        ):
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
        assert contrast(colours["mark"], colours["card"]) >= 3
        assert contrast(colours["threshold"], colours["card"]) >= 3


def contrast(one: str, other: str) -> float:
    """Of two colours (WCAG 2.2, "contrast ratio")."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
