"""Fetching an archive over HTTP: resumption, checksum, safe unpacking. Loopback only."""

import errno
import hashlib
import http.client
import io
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from earmark.runtime.errors import EarmarkError
from earmark.runtime.manifest import Source
from earmark.train.collect import archive as archives
from earmark.train.collect import fetch
from earmark.train.collect.archive import download_archive
from earmark.train.collect.public import DATA_SETS, download_data_set
from earmark.train.data.corpus import scan

HERE = Source("Tiny", "CC0")


class Server(ThreadingHTTPServer):
    """Serves ``data``; ``drops`` times it closes the connection after ``limit`` bytes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.data = b""
        self.drops = 0
        self.limit = 1000
        self.ranges_supported = True
        self.seen: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/tiny.tar.gz"

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.seen.append(wanted)
        start = int(wanted[6:-1]) if wanted and self.server.ranges_supported else 0
        if start >= len(self.server.data):
            self.send_error(416)
            return
        body = self.server.data[start:]
        self.send_response(206 if start else 200)
        if start:
            end = len(self.server.data)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{end}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.server.drops:
            self.server.drops -= 1
            body = body[: self.server.limit]
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setattr(fetch.time, "sleep", lambda _seconds: None)
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        running.data = archive({"./yes/a_nohash_0.wav": bytes(range(256)) * 20, "LICENSE": b"CC0"})
        yield running
        running.shutdown()


def archive(files: dict[str, bytes], *others: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=0) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info in others:
            tar.addfile(info)
    return buffer.getvalue()


def download(server: Server, folder: Path, sha256: str | None = None) -> Path:
    return download_archive(server.url, sha256 or server.sha256, folder, HERE)


def error_of(server: Server, folder: Path, sha256: str | None = None) -> str:
    with pytest.raises(EarmarkError) as caught:
        download(server, folder, sha256)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_fetched_unpacked_and_named(server: Server, tmp_path: Path) -> None:
    folder = download(server, tmp_path / "new" / "sc")
    corpus = scan(folder)
    assert [c.path for c in corpus.clips] == [folder / "yes/a_nohash_0.wav"]
    assert corpus.clips[0].path.read_bytes() == bytes(range(256)) * 20
    assert corpus.sources == (HERE,)
    assert [p.name for p in folder.parent.iterdir()] == ["sc"]
    assert download(server, folder) == folder
    assert server.seen == [None]


def test_dropped_connections_are_resumed(server: Server, tmp_path: Path) -> None:
    server.drops = 3
    download(server, tmp_path / "sc")
    assert server.seen == [None, "bytes=1000-", "bytes=2000-", "bytes=3000-"]


@pytest.mark.parametrize("where", ["begin", "read"])
def test_a_network_that_is_away_is_tried_again_and_never_called_a_disk(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    whole = getattr(http.client.HTTPResponse, where)
    away = [OSError(errno.EHOSTUNREACH, "No route to host")] * 2

    def answer(response: http.client.HTTPResponse, *arguments: int) -> object:
        if away:
            raise away.pop()
        return whole(response, *arguments)

    monkeypatch.setattr(http.client.HTTPResponse, where, answer)
    download(server, tmp_path / "sc")
    assert len(server.seen) == 3
    away += [OSError(errno.EHOSTUNREACH, "No route to host")] * 9
    found = error_of(server, tmp_path / "other")
    assert "download failed" in found and "No route to host" in found


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk that is full")
def test_a_full_disk_is_not_taken_for_the_network(server: Server, tmp_path: Path) -> None:
    (tmp_path / "sc.partial").symlink_to("/dev/full")
    assert error_of(server, tmp_path / "sc").endswith("free space")
    assert len(server.seen) == 1


def test_a_later_run_goes_on_from_the_partial_file(server: Server, tmp_path: Path) -> None:
    server.limit, server.drops = 0, 1000
    (tmp_path / "sc.partial").write_bytes(server.data[:1234])
    assert "run it again to go on from 1234 bytes" in error_of(server, tmp_path / "sc")
    server.drops = 0
    server.seen.clear()
    download(server, tmp_path / "sc")
    assert server.seen == ["bytes=1234-"]


def test_a_complete_partial_file_needs_no_more_bytes(server: Server, tmp_path: Path) -> None:
    (tmp_path / "sc.partial").write_bytes(server.data)
    download(server, tmp_path / "sc")
    assert (tmp_path / "sc" / "LICENSE").read_bytes() == b"CC0"


def test_a_server_without_ranges_starts_again(server: Server, tmp_path: Path) -> None:
    server.ranges_supported = False
    server.drops = 2
    download(server, tmp_path / "sc")
    assert (tmp_path / "sc" / "LICENSE").exists()


def test_a_wrong_checksum_leaves_nothing(server: Server, tmp_path: Path) -> None:
    assert "wrong checksum" in error_of(server, tmp_path / "sc", "0" * 64)
    assert list(tmp_path.iterdir()) == []


def special(name: str, kind: bytes, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = target
    return info


@pytest.mark.parametrize(
    "data",
    [
        archive({"../escaped.wav": b"x"}),
        archive({"yes/../../escaped.wav": b"x"}),
        archive({}, special("yes", tarfile.SYMTYPE, "..")),
        archive({}, special("yes", tarfile.SYMTYPE, "/etc")),
        archive({"a": b"x"}, special("b", tarfile.LNKTYPE, "a")),
        archive({}, special("pipe", tarfile.FIFOTYPE, "")),
        archive({}, special("device", tarfile.CHRTYPE, "")),
        archive({"a": bytes(5000)})[:3000],
        b"no archive",
    ],
)
def test_hostile_and_damaged_archives_leave_nothing(server, tmp_path: Path, data: bytes) -> None:
    server.data = data
    folder = tmp_path / "inner" / "sc"
    assert "cannot be unpacked safely" in error_of(server, folder)
    assert [p.relative_to(tmp_path).as_posix() for p in sorted(tmp_path.rglob("*"))] == [
        "inner",
        "inner/sc.partial",
    ]


def test_an_absolute_path_stays_inside(server: Server, tmp_path: Path) -> None:
    outside = tmp_path / "outside.wav"
    server.data = archive({str(outside): b"x"})
    download(server, tmp_path / "sc")
    assert not outside.exists()


def test_sizes_are_bounded(server: Server, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(archives, "_MAX_UNPACKED", 5000)
    assert "more than 300000 files or 5000 bytes in it" in error_of(server, tmp_path / "sc")
    monkeypatch.setattr(fetch, "_MAX_BYTES", 100)
    assert "larger than 100 bytes" in error_of(server, tmp_path / "other")


def test_another_folder_is_not_touched(server: Server, tmp_path: Path) -> None:
    (tmp_path / "sc").mkdir()
    (tmp_path / "sc" / "mine.txt").write_text("keep")
    assert "is not Tiny" in error_of(server, tmp_path / "sc")
    assert (tmp_path / "sc" / "mine.txt").read_text() == "keep"
    assert server.seen == []


@pytest.mark.parametrize("name", DATA_SETS)
def test_a_data_set_is_fetched_from_where_it_lies(name: str, tmp_path: Path, monkeypatch) -> None:
    calls = []
    monkeypatch.setattr(archives, "download_archive", lambda *a: calls.append(a))
    download_data_set(name, tmp_path / "data")
    wanted = DATA_SETS[name]
    assert calls == [(wanted.url, wanted.sha256, tmp_path / "data", wanted.source)]


@pytest.mark.parametrize(
    ("name", "module"), [("speech-commands", "speechcommands"), ("librispeech", "librispeech")]
)
def test_addresses_and_checksums_are_those_of_torchaudio(name: str, module: str) -> None:
    from earmark.train.torchaudio_import import torchaudio

    wanted = DATA_SETS[name]
    known = getattr(torchaudio.datasets, module)._CHECKSUMS
    assert known[wanted.url] == wanted.sha256
