"""The Wyoming server, met by the clients of the protocol's own package."""

import asyncio
import fcntl
import json
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_model
from command import launch
from earmark.runtime.cli import main
from earmark.runtime.engine import Engine
from earmark.runtime.errors import EarmarkError
from earmark.runtime.events import DetectionEvent, Event, to_json
from earmark.runtime.manifest import Decision, Source
from earmark.runtime.pool import StreamPool
from earmark.runtime.sinks.sink import FanOut, Queued, Sink
from earmark.runtime.wyoming import models as wyoming_models
from earmark.runtime.wyoming import server as wyoming_server
from earmark.runtime.wyoming import session as wyoming_session
from earmark.runtime.wyoming.models import Model
from earmark.runtime.wyoming.server import Server
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient, AsyncUnixClient
from wyoming.error import Error
from wyoming.info import Describe, Info
from wyoming.ping import Ping
from wyoming.wake import Detect, Detection, NotDetected
from wyoming_talk import chunks, heard, listen_to

SECONDS = 60.0
"""For a whole conversation, so that a server that hangs fails its test."""


@pytest.fixture
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A short name, as sockets need."""
    yield tmp_path_factory.mktemp("s") / "s"


def models(*engines: Engine, clients: int = 32) -> list[Model]:
    return [Model(engine, engine.manifest.decision, clients) for engine in engines]


class Told(Sink):
    """What a server told, as people's programs read it."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def send(self, event: Event) -> None:
        self.events.append(json.loads(to_json(event)))


@asynccontextmanager
async def serving(
    path: Path,
    *engines: Engine,
    clients: int = 32,
    idle: float = 600.0,
    told: Sink = FanOut([]),  # noqa: B008 - it has no state
) -> AsyncIterator[Server]:
    """A server at a Unix socket, whose streams must all have been given back at its end."""
    server = Server(models(*engines, clients=clients), clients, idle, told)
    task = asyncio.create_task(server.serve(f"unix://{path}"))
    while not path.exists():
        await asyncio.sleep(0)
        assert not task.done(), task.exception()
    try:
        yield server
    finally:
        server.stop()
        await task
    assert not path.exists()
    assert server._places == clients
    assert all(len(model.pool._free) == clients for model in server.models)


def converse(conversation: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(SECONDS):
            await conversation

    asyncio.run(bounded())


def test_what_home_assistant_does(path: Path, tmp_path: Path) -> None:
    sources = (
        Source("Tones", "CC-BY-4.0", url="https://example.org", attribution="A. Tuner"),
        Source("Hiss", "CC0-1.0", role="background noise"),
    )
    engine = Engine(
        toy_model.save(
            tmp_path / "toy.onnx",
            labels=("hey_low", "high", "_unknown_", "_silence_"),
            decision=Decision({"hey_low": 0.7, "high": 0.7}),
            licence="Apache-2.0",
            sources=sources,
            checkpoint_sha256="0123456789abcdef",
        )
    )

    async def conversation() -> None:
        async with serving(path, engine):
            async with AsyncUnixClient(path) as client:
                await client.write_event(Describe().event())
                answer = await client.read_event()
                assert answer and Info.is_type(answer.type)
                (program,) = Info.from_event(answer).wake
                assert program.name == "earmark" and program.installed
                assert "toy (Apache-2.0)" in (program.description or "")
                low, high = program.models
                assert (low.name, low.phrase, low.description) == ("hey_low", "hey low", "hey low")
                assert (high.name, high.version, high.languages) == ("high", "0123456789ab", [])
                assert low.attribution.name == "A. Tuner (Tones, CC-BY-4.0); Hiss (Hiss, CC0-1.0)"
                assert low.attribution.url == "https://example.org"
            async with AsyncUnixClient(path) as client:
                # One wake word, audio until it is detected, and then the connection is closed.
                await client.write_event(Detect(names=["high"]).event())
                await client.write_event(AudioStart(16000, 2, 1).event())
                reading = asyncio.create_task(client.read_event())
                for chunk in chunks(toy_model.scene(), timestamp=123_000):
                    await client.write_event(chunk.event())
                answer = await reading
                assert answer
                found = Detection.from_event(answer)
                # The message of 10 ms in which the step ends that fires, at 2.66 s.
                assert (found.name, found.timestamp) == ("high", 123_000 + 2650)

    converse(conversation())


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (None, ["low", "high", "low"]),
        ([], ["low", "high", "low"]),
        (["low"], ["low", "low"]),
        (["high", "nosuch"], ["high"]),
        (["nosuch"], []),
    ],
)
def test_names(engine: Engine, path: Path, names: list[str] | None, expected: list[str]) -> None:
    async def conversation() -> None:
        async with serving(path, engine), AsyncUnixClient(path) as client:
            events = await listen_to(client, chunks(toy_model.scene()), names)
            assert [name for name, _ in heard(events)] == expected
            errors = [Error.from_event(event) for event in events if Error.is_type(event.type)]
            unknown = names is not None and "nosuch" in names
            assert [error.code for error in errors] == ["unknown-wake-word"] * unknown
            assert all("there are high, low" in error.text for error in errors)
            assert NotDetected.is_type(events[-1].type) == (not expected)

    converse(conversation())


def test_names_may_change_within_a_stream(engine: Engine, path: Path) -> None:
    pcm = toy_model.scene()

    async def conversation() -> None:
        async with serving(path, engine), AsyncUnixClient(path) as client:
            await client.write_event(Detect(["nosuch"]).event())
            for chunk in chunks(pcm[:32000]):
                await client.write_event(chunk.event())
            events = [await client.read_event()]
            await client.write_event(Detect().event())
            for chunk in chunks(pcm[32000:]):
                await client.write_event(chunk.event())
            events += [await client.read_event() for _ in range(2)]
            found = heard([event for event in events if event])
            # No audio-start and no timestamps: milliseconds since the first sample.
            assert found == [("high", 2650), ("low", 4150)]

    converse(conversation())


def test_a_word_at_the_end_of_a_stream_that_began_late_is_decided(
    engine: Engine, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The silence fills up the chunk of each stream, which is not that of the clip."""
    monkeypatch.setattr(wyoming_session, "TAIL_SECONDS", 0.0)
    word = np.concatenate([np.zeros(1000, np.int16), toy_model.tone(440, 0.155)])
    before = -len(word) % 1280

    async def conversation() -> None:
        async with serving(path, engine), AsyncUnixClient(path) as client:
            await client.write_event(Detect(["nosuch"]).event())
            await client.write_event(AudioChunk(16000, 2, 1, bytes(2 * before)).event())
            await client.write_event(Detect().event())
            await client.write_event(AudioChunk(16000, 2, 1, word.tobytes()).event())
            await client.write_event(AudioStop().event())
            await client.read_event()  # there is no such word
            answer = await client.read_event()
            assert answer and Detection.is_type(answer.type)

    converse(conversation())


def expected_of(engine: Engine, pcm: np.ndarray) -> list[tuple[str, float]]:
    stream = engine.stream()
    found = stream.push(pcm) + stream.flush(0.5)
    return [(detection.keyword, detection.time) for detection in found]


def test_many_clients_at_once_are_each_as_one_pass(engine: Engine, path: Path) -> None:
    told = Told()
    generator = np.random.default_rng(0)
    signals = []
    for number in range(20):
        pcm = np.roll(toy_model.scene(), 3001 * number)[: 80000 - 301 * number]
        signals.append(pcm + generator.integers(-3, 4, len(pcm)).astype(np.int16))

    async def client(number: int) -> None:
        wanted = expected_of(engine, signals[number])
        async with AsyncUnixClient(path) as connected:
            # A second stream of the same connection begins anew.
            for samples in (100 + 157 * number, 1600):
                audio = chunks(signals[number], samples, timestamp=0)
                found = heard(await listen_to(connected, audio))
                assert [name for name, _ in found] == [keyword for keyword, _ in wanted]
                for (_, timestamp), (_, time) in zip(found, wanted, strict=True):
                    assert timestamp is not None
                    assert timestamp <= 1000 * time <= timestamp + samples / 16 + 1

    async def conversation() -> None:
        async with serving(path, engine, told=told):
            await asyncio.gather(*(client(number) for number in range(20)))

    converse(conversation())
    events = told.events
    times: dict[str, list[tuple[str, float]]] = {}
    for event in events:
        if event["type"] == "detection":
            assert datetime.fromisoformat(event["at"]).utcoffset() == timedelta(0)
            times.setdefault(event["source"], []).append((event["keyword"], event["time"]))
    wanted = [
        2 * [(keyword, round(time, 4)) for keyword, time in expected_of(engine, pcm)]
        for pcm in signals
    ]
    assert sorted(times.values()) == sorted(wanted)
    assert sum(event["type"] == "client_connected" for event in events) == 20
    assert [e["reason"] for e in events if e["type"] == "client_disconnected"] == ["closed"] * 20


@pytest.mark.parametrize(
    ("rate", "width", "channels"), [(48000, 4, 2), (8000, 2, 1), (44100, 1, 1), (16000, 3, 6)]
)
def test_audio_of_any_format(
    engine: Engine, path: Path, rate: int, width: int, channels: int
) -> None:
    from earmark.runtime.audio import make_resampler
    from test_converter import encode

    # Without the high tone, which a low rate cannot carry.
    pcm = toy_model.scene()
    pcm[36000:60000] = 0
    other = make_resampler(16000, rate).resample_chunk(pcm.astype(np.float32), last=True)
    data = encode(np.clip(other, -32768, 32767).astype(np.int16), width, channels)
    size = 1023 * width * channels

    def audio() -> Iterator[AudioChunk]:
        for start in range(0, len(data), size):
            # Part of a frame more than there should be, which is left out.
            extra = b"\1" * (width * channels - 1)
            yield AudioChunk(rate, width, channels, data[start : start + size] + extra)

    async def conversation() -> None:
        async with serving(path, engine), AsyncUnixClient(path) as client:
            found = heard(await listen_to(client, audio()))
            assert [name for name, _ in found] == ["low", "low"]
            for (_, timestamp), time in zip(found, (1.16, 4.16), strict=True):
                assert timestamp == pytest.approx(1000 * time, abs=1000 * 1023 / rate + 40)

    converse(conversation())


def test_the_format_may_change_within_a_stream(engine: Engine, path: Path) -> None:
    pcm = toy_model.scene()
    slow = pcm[64000:].reshape(-1, 2)[:, 0]  # the low tone at half the rate

    def audio() -> Iterator[AudioChunk]:
        yield from chunks(pcm[:64000])
        yield AudioChunk(8000, 2, 1, slow.tobytes())

    async def conversation() -> None:
        async with serving(path, engine), AsyncUnixClient(path) as client:
            found = heard(await listen_to(client, audio()))
            assert found == [("low", 1150), ("high", 2650), ("low", 4000)]

    converse(conversation())


def test_several_models(engine: Engine, path: Path, tmp_path: Path) -> None:
    other = Engine(
        toy_model.save(
            tmp_path / "other.onnx",
            chunk=640,
            labels=("deep", "bright", "_unknown_", "_silence_"),
            decision=Decision({"deep": 0.7, "bright": 0.7}),
        )
    )

    async def conversation() -> None:
        async with serving(path, engine, other), AsyncUnixClient(path) as client:
            events = await listen_to(client, chunks(toy_model.scene()))
            names = sorted(str(name) for name, _ in heard(events))
            assert names == ["bright", "deep", "deep", "high", "low", "low"]
            events = await listen_to(client, chunks(toy_model.scene()), ["deep"])
            assert [name for name, _ in heard(events)] == ["deep", "deep"]

    converse(conversation())


def test_models_that_cannot_be_told_apart(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["wyoming", *(2 * ["--model", str(engine.path)])]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "has the keyword low, as" in err and err.count("\n") == 1


def test_a_flood_takes_turns_with_others(
    engine: Engine, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted in runs of the model, since time on a busy machine says nothing."""
    runs: list[list[int]] = []
    run = StreamPool.run

    def recorded(pool: StreamPool) -> Any:
        outcome = run(pool)
        runs.append(outcome[0])
        return outcome

    monkeypatch.setattr(StreamPool, "run", recorded)
    flood = b"".join(
        wire("audio-chunk", {"rate": 16000, "width": 2, "channels": 1}, bytes(size))
        for size in (1 << 20, *[32] * 20_000)
    )

    async def pour(stop: asyncio.Event) -> None:
        _, writer = await asyncio.open_unix_connection(path)
        while not stop.is_set():
            writer.write(flood)
            await writer.drain()
        writer.close()

    async def conversation() -> None:
        stop = asyncio.Event()
        async with serving(path, engine):
            floods = [asyncio.create_task(pour(stop)) for _ in range(3)]
            while len(runs) < 20:
                await asyncio.sleep(0)
            async with AsyncUnixClient(path) as client:
                before = len(runs)
                audio = AudioChunk(16000, 2, 1, toy_model.scene().tobytes())
                events = await listen_to(client, iter([audio]))
                assert [name for name, _ in heard(events)] == ["low", "high", "low"]
                stop.set()
            for task in floods:
                task.cancel()
            await asyncio.gather(*floods, return_exceptions=True)
        mine = [i for i, streams in enumerate(runs) if i >= before and 3 in streams]
        assert len(mine) == -(-(88000 + 8000) // 1280)
        assert max(np.diff(mine)) <= 4

    converse(conversation())


CHUNK = {"rate": 16000, "width": 2, "channels": 1}


def wire(kind: str, data: dict[str, Any] | None = None, payload: bytes = b"") -> bytes:
    header = {"type": kind, "data": data or {}, "payload_length": len(payload)}
    return json.dumps(header).encode() + b"\n" + payload


def test_a_client_that_does_not_read_is_dropped_and_delays_nobody(
    engine: Engine,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wyoming_session, "MESSAGE_SECONDS", 0.3)
    monkeypatch.setattr(wyoming_server, "SWEEP_SECONDS", 0.05)
    told = Told()

    async def conversation() -> None:
        async with serving(path, engine, told=told) as server:
            reader, writer = await asyncio.open_unix_connection(path, limit=1024)
            writer.transport.set_write_buffer_limits(high=0)

            async def ask() -> None:
                while True:
                    writer.write(100 * wire("describe"))
                    await writer.drain()

            asking = asyncio.create_task(ask())
            async with AsyncUnixClient(path) as client:
                events = await listen_to(client, chunks(toy_model.scene()))
                assert [name for name, _ in heard(events)] == ["low", "high", "low"]
            with pytest.raises(OSError):
                await asking
            while server._clients:
                await asyncio.sleep(0.01)
            assert len(reader._buffer) <= 4096  # type: ignore[attr-defined]
            writer.close()

    converse(conversation())
    assert "kept the server waiting" in [event.get("reason") for event in told.events]


def test_a_client_that_does_not_read_does_not_hold_up_the_end(engine: Engine, path: Path) -> None:
    async def conversation() -> None:
        async with serving(path, engine) as server:
            _, writer = await asyncio.open_unix_connection(path, limit=1024)
            writer.write(200 * wire("describe"))
            while not any(
                client._writer.transport.get_write_buffer_size()
                for client in server._clients.values()
            ):
                await asyncio.sleep(0)
        writer.close()

    converse(conversation())


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"{",
        b'{"type": "descr',
        wire("audio-chunk", {"rate": 16000})[:-9],
        b'{"type": "detect", "data_length": 9}\n{',
        wire("audio-chunk", CHUNK, b"1234")[:-1],
    ],
)
def test_a_client_that_says_no_more_is_dropped(
    engine: Engine, path: Path, monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    """One that says nothing by the limit for that, one within a message by the shorter one."""
    monkeypatch.setattr(wyoming_server, "SWEEP_SECONDS", 0.02)
    monkeypatch.setattr(wyoming_session, "MESSAGE_SECONDS", 0.1)

    async def conversation() -> None:
        async with serving(path, engine, idle=600.0 if start else 0.1):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(start)
            assert await reader.read() == b""
            writer.close()

    converse(conversation())


GARBAGE = {
    "no JSON": (b"GET / HTTP/1.1\r\n\r\n", "not JSON"),
    "no object": (b"[1]\n", "no JSON object"),
    "no type": (b"{}\n", "without a type"),
    "a long type": (wire(200 * "x"), "without a type"),
    "a long header": (b"{" + 70_000 * b" ", "more than 65536 bytes"),
    "deep": (50_000 * b"[" + b"\n", "not JSON"),
    "bytes": (b"\xff\xfe\x00\n", "not JSON"),
    "data": (b'{"type": "detect", "data": [1]}\n', "data is no object"),
    "much data": (b'{"type": "detect", "data_length": 100000000000}\n', "expected 0 to 65536"),
    "less data": (b'{"type": "detect", "data_length": -1}\n', "expected 0 to"),
    "no data": (b'{"type": "detect", "data_length": 3}\n[1]', "data that is no JSON object"),
    "a length": (b'{"type": "x", "payload_length": "9"}\n', "payload_length is no integer"),
    "a huge length": (b'{"type": "x", "payload_length": 1' + 99 * b"0" + b"}\n", "no integer"),
    "a large payload": (b'{"type": "x", "payload_length": 99999999}\n', "expected 0 to 16777216"),
    "names": (wire("detect", {"names": "low"}), "no list of texts"),
    "name": (wire("detect", {"names": [["low"]]}), "no list of texts"),
    "rate": (wire("audio-start", {**CHUNK, "rate": 0}), "rate 0"),
    "no rate": (wire("audio-chunk", {}, b"12"), "rate is no integer"),
    "a rate": (wire("audio-chunk", {**CHUNK, "rate": 16000.5}, b"12"), "rate is no integer"),
    "a truth": (wire("audio-chunk", {**CHUNK, "width": True}, b"12"), "width is no integer"),
    "width": (wire("audio-chunk", {**CHUNK, "width": 9}, b"12"), "width 9"),
    "channels": (wire("audio-start", {**CHUNK, "channels": -2}), "channels -2"),
    "a text": (wire("ping", {"text": 5}), "text is no text"),
    "half a text": (b'{"type": "ping", "data": {"text": "\\ud800"}}\n', "text is no text"),
    "a time": (wire("audio-chunk", {**CHUNK, "timestamp": "now"}, b"12"), "timestamp is no"),
}


def test_garbage_gets_an_error_and_harms_nobody(
    engine: Engine, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def conversation() -> None:
        async with serving(path, engine, clients=2), AsyncUnixClient(path) as other:
            for name, (data, reason) in GARBAGE.items():
                reader, writer = await asyncio.open_unix_connection(path)
                writer.write(data)
                client = AsyncUnixClient(path)
                client._reader = reader
                answer = await client.read_event()
                assert answer and reason in Error.from_event(answer).text, name
                assert await client.read_event() is None
                writer.close()
                await other.write_event(Ping(name).event())
                pong = await other.read_event()
                assert pong and pong.data["text"] == name

    converse(conversation())
    assert capsys.readouterr().err == ""


def test_a_mishap_is_not_told_as_the_end_of_the_server(
    engine: Engine,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def pong(text: str | None) -> None:
        raise ValueError("a bug\nof ours")

    monkeypatch.setattr(wyoming_session, "Pong", pong)
    told = Told()

    async def conversation() -> None:
        async with serving(path, engine, told=told):
            async with AsyncUnixClient(path) as client:
                await client.write_event(Ping("on").event())
                assert await client.read_event() is None
            while len(told.events) < 3:
                await asyncio.sleep(0)

    converse(conversation())
    assert told.events[-1]["type"] == "client_disconnected"
    assert told.events[-1]["reason"] == "failed: a bug"
    assert "a bug" in capsys.readouterr().err


def test_clients_that_go_within_a_message_leave_nothing(
    engine: Engine, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The fixture checks that all places and streams are free at the end."""
    whole = wire("audio-start", CHUNK) + wire("audio-chunk", CHUNK, bytes(9000)) + wire("describe")

    async def conversation() -> None:
        async with serving(path, engine, clients=4) as server:
            for place in range(1, len(whole), 397):
                _, writer = await asyncio.open_unix_connection(path)
                writer.write(whole[:place])
                await writer.drain()
                (writer.transport.abort if place % 2 else writer.close)()
                while len(server._clients) > 3:
                    await asyncio.sleep(0)

    converse(conversation())
    assert capsys.readouterr().err == ""


def test_no_more_clients_than_there_are_places(engine: Engine, path: Path) -> None:
    async def conversation() -> None:
        async with serving(path, engine, clients=1) as server:
            async with AsyncUnixClient(path) as first:
                await first.write_event(Ping().event())
                assert await first.read_event()
                async with AsyncUnixClient(path) as second:
                    answer = await second.read_event()
                    assert answer
                    assert Error.from_event(answer).text == "all 1 places are taken"
                    assert await second.read_event() is None
            while server._clients:
                await asyncio.sleep(0)
            async with AsyncUnixClient(path) as third:
                await third.write_event(Ping("in").event())
                answer = await third.read_event()
                assert answer and answer.data["text"] == "in"

    converse(conversation())


def serve(engine: Engine, uri: str, **options: Any) -> subprocess.Popen[bytes]:
    return launch("wyoming", "--model", engine.path, "--uri", uri, **options)


def test_over_standard_input_and_output(engine: Engine) -> None:
    audio = wire("audio-chunk", CHUNK, toy_model.scene().tobytes())
    process = serve(engine, "stdio://", stdin=subprocess.PIPE)
    out, err = process.communicate(
        wire("describe") + wire("detect", {"names": ["low"]}) + audio + wire("audio-stop"),
        timeout=60,
    )
    assert (process.returncode, err) == (0, b"earmark: served 1 clients, 2 detections\n")
    assert out.count(b'"type": "info"') == 1
    assert out.count(b'"type": "detection"') == 2
    assert b"not-detected" not in out and b"client_connected" not in out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_ends_cleanly_with_a_client_connected(
    engine: Engine, number: signal.Signals
) -> None:
    process = serve(engine, "tcp://127.0.0.1:0")
    assert process.stdout
    listening = json.loads(process.stdout.readline())
    assert listening["type"] == "listening"

    async def conversation() -> None:
        port = int(listening["uri"].rpartition(":")[2])
        async with AsyncTcpClient("127.0.0.1", port) as client:
            await client.write_event(AudioStart(16000, 2, 1).event())
            for chunk in chunks(toy_model.scene()[:24000]):
                await client.write_event(chunk.event())
            answer = await client.read_event()
            assert answer and Detection.from_event(answer).name == "low"
            process.send_signal(number)
            assert await client.read_event() is None

    converse(conversation())
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"earmark: served 1 clients, 1 detections\n")
    events = [json.loads(line) for line in out.splitlines()]
    kinds = ["client_connected", "detection", "client_disconnected"]
    assert [event["type"] for event in events] == kinds
    assert events[-1]["reason"] == "the server stops"


def test_an_address_for_all_networks_is_told(engine: Engine) -> None:
    process = serve(engine, "tcp://0.0.0.0:0")
    assert process.stdout
    process.stdout.readline()
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert b"can be reached from other machines" in err.splitlines()[0]


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("http://127.0.0.1:1", "give tcp://HOST:PORT"),
        ("tcp://", "give tcp://HOST:PORT"),
        ("tcp://[::1", "give tcp://HOST:PORT"),
        ("tcp://127.0.0.1:99999", "cannot be listened at (Port out of range"),
        ("unix:///nosuch/folder/socket", "cannot be listened at (No such file"),
        ("unix://run/socket", "unix:///PATH"),
        ("unix:///run/socket?x#y", "unix:///PATH"),
    ],
)
def test_addresses_that_cannot_be(
    engine: Engine, capfd: pytest.CaptureFixture[str], uri: str, reason: str
) -> None:
    assert main(["wyoming", "--model", str(engine.path), "--uri", uri]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert reason in err and err.count("\n") == 1


def test_options_reach_the_server(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    given, pools = [], []

    class Noted(Server):
        async def serve(self, uri: str) -> None:
            given.append((uri, self._limit, self.idle_seconds))

    def pool(engine: Engine, decision: Decision, streams: int) -> StreamPool:
        pools.append((decision.thresholds["low"], streams))
        return StreamPool(engine, decision, streams=streams)

    monkeypatch.setattr(wyoming_models, "StreamPool", pool)
    monkeypatch.setattr(wyoming_server, "Server", Noted)
    options = ["--clients", "3", "--idle", "5", "--threshold", "low=0.9", "--uri", "tcp://h:1"]
    assert main(["wyoming", "--model", str(engine.path), *options]) == 0
    assert given == [("tcp://h:1", 3, 5.0)] and pools == [(0.9, 3)]


def test_an_ending_server_leaves_its_successors_socket(engine: Engine, path: Path) -> None:
    async def conversation() -> None:
        first, second = (Server(models(engine), 32, 600.0, FanOut([])) for _ in range(2))
        ending = asyncio.create_task(first.serve(f"unix://{path}"))
        while not path.exists():
            await asyncio.sleep(0)
        path.rename(path.with_name("old"))  # so that nobody answers at it
        succeeding = asyncio.create_task(second.serve(f"unix://{path}"))
        while not path.exists():
            await asyncio.sleep(0)
        first.stop()
        await ending
        async with AsyncUnixClient(path) as client:
            await client.write_event(Ping("on").event())
            answer = await client.read_event()
            assert answer and answer.data["text"] == "on"
        second.stop()
        await succeeding
        assert not path.exists()

    converse(conversation())


def test_a_socket_that_somebody_answers_at_is_not_taken(engine: Engine, path: Path) -> None:
    async def conversation() -> None:
        async with serving(path, engine):
            second = Server(models(engine), 32, 600.0, FanOut([]))
            with pytest.raises(EarmarkError, match="another program answers there: end it"):
                await second.serve(f"unix://{path}")
            async with AsyncUnixClient(path) as client:
                await client.write_event(Ping("on").event())
                assert await client.read_event()

    converse(conversation())


def test_a_socket_that_a_killed_server_left_is_taken(engine: Engine, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))

    async def conversation() -> None:
        server = Server(models(engine), 32, 600.0, FanOut([]))
        task = asyncio.create_task(server.serve(f"unix://{path}"))
        while True:
            try:
                client = await asyncio.open_unix_connection(path)
            except ConnectionRefusedError:
                await asyncio.sleep(0)
                continue
            client[1].close()
            break
        server.stop()
        await task
        assert not path.exists()

    converse(conversation())


def test_events_that_cannot_be_written_end_the_server(
    engine: Engine, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wyoming_server, "SWEEP_SECONDS", 0.01)

    class Full(Sink):
        def send(self, event: Event) -> None:
            if isinstance(event, DetectionEvent):
                raise OSError(28, "No space left on device")

    async def conversation() -> None:
        server = Server(models(engine), 32, 600.0, Queued(Full()))
        task = asyncio.create_task(server.serve(f"unix://{path}"))
        while not path.exists():
            await asyncio.sleep(0)
        async with AsyncUnixClient(path) as client:
            await client.write_event(
                AudioChunk(16000, 2, 1, toy_model.scene()[:24000].tobytes()).event()
            )
            with pytest.raises(OSError, match="No space left"):
                await task

    converse(conversation())


def test_a_reader_of_events_that_hangs_delays_nobody(engine: Engine, path: Path) -> None:
    server = serve(engine, f"unix://{path}")
    assert server.stdout is not None  # nobody reads it
    fcntl.fcntl(server.stdout, fcntl.F_SETPIPE_SZ, 4096)

    async def conversation() -> None:
        while not path.exists():
            assert server.poll() is None
            await asyncio.sleep(0.01)
        for _ in range(50):  # each has two lines of 60 bytes
            async with AsyncUnixClient(path) as client:
                await client.write_event(Ping("on").event())
                assert await client.read_event()

    try:
        converse(conversation())
        server.send_signal(signal.SIGTERM)
        assert server.wait(SECONDS) == 0
    finally:
        server.kill()
        server.communicate()
