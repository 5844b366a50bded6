"""MQTT against a real broker: what arrives, and what outages cost."""

import io
import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import soundfile
import toy_model
from broker import PROGRAM, Broker, SlowBroker, Subscriber, free_port
from command import EARMARK
from earmark.runtime import (
    DetectionEvent,
    DeviceBackEvent,
    DeviceLostEvent,
    EarmarkError,
    Engine,
    HeartbeatEvent,
    RawSource,
    spot,
)
from earmark.runtime.sinks import mqtt as sink_mqtt
from earmark.runtime.sinks.mqtt import Broker as Address
from earmark.runtime.sinks.mqtt import Mqtt, Template
from earmark.runtime.sinks.sink import Queued
from hypothesis import given
from hypothesis import strategies as st
from waiting import wait_until

needs_broker = pytest.mark.skipif(PROGRAM is None, reason="mosquitto is not installed")


def detection(keyword: str = "yes", at: float = 1.5) -> DetectionEvent:
    return DetectionEvent("mic", keyword, at, 0.9, "2030-01-01T00:00:00.000Z")


def times(subscriber: Subscriber) -> list[float]:
    return [json.loads(payload)["time"] for topic, payload in subscriber.got if "hermes" in topic]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


@needs_broker
def test_a_detection_is_a_hermes_message(running: Broker) -> None:
    sink = Mqtt(Address("127.0.0.1", running.port), model="commands", site="kitchen")
    with Subscriber(running.port) as subscriber, closing(sink):
        sink.send(detection('sch"ön'))
        wait_until(lambda: len(subscriber.got) >= 2)
    messages = dict(subscriber.got)
    assert json.loads(messages['hermes/hotword/sch"ön/detected']) == {
        "modelId": "commands",
        "modelVersion": "",
        "modelType": "personal",
        "currentSensitivity": 1.0,
        "siteId": "kitchen",
        "sessionId": None,
        "keyword": 'sch"ön',
        "score": 0.9,
        "time": 1.5,
        "at": "2030-01-01T00:00:00.000Z",
    }
    assert sink.undelivered == 0


@needs_broker
def test_availability_follows_the_device_and_the_program(running: Broker) -> None:
    sink = Mqtt(Address("127.0.0.1", running.port), availability="room/ears")
    states = ["online", "offline", "online", "offline"]
    with Subscriber(running.port) as subscriber:
        with closing(sink):
            wait_until(lambda: subscriber.payloads("room/ears") == states[:1])
            sink.send(DeviceLostEvent("mic", 1.0, "unplugged"))
            wait_until(lambda: subscriber.payloads("room/ears") == states[:2])
            sink.send(DeviceBackEvent("mic", 1.0, 2.0))
            wait_until(lambda: subscriber.payloads("room/ears") == states[:3])
        wait_until(lambda: subscriber.payloads("room/ears") == states)
    with Subscriber(running.port) as late:
        wait_until(lambda: late.payloads("room/ears") == ["offline"])  # it is retained


@needs_broker
def test_the_broker_tells_when_the_program_died(running: Broker, model: str) -> None:
    url = f"mqtt://127.0.0.1:{running.port}"
    process = subprocess.Popen(
        [*EARMARK, "detect", "--model", model, "-", "--mqtt", url, "--mqtt-site", "cellar"],
        stdin=subprocess.PIPE,
    )
    topic = "earmark/cellar/availability"
    with Subscriber(running.port) as subscriber:
        wait_until(lambda: subscriber.payloads(topic) == ["online"])
        process.kill()
        wait_until(lambda: subscriber.payloads(topic) == ["online", "offline"])
    with Subscriber(running.port) as late:  # is told what is retained
        wait_until(lambda: late.payloads(topic) == ["offline"])
    process.communicate()


@needs_broker
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_broker_that_comes_late_gets_what_is_fresh(tmp_path: Path, qos: int) -> None:
    with Broker(tmp_path, started=False) as broker:
        told: list[str] = []
        sink = Mqtt(Address("127.0.0.1", broker.port), told.append, qos=qos)
        with closing(sink):
            sink.send(detection(at=1))
            sink.send(detection(at=2))
            wait_until(lambda: told)
            broker.start()
            with Subscriber(broker.port) as subscriber:
                wait_until(lambda: times(subscriber) == [1, 2])
                sink.send(detection(at=3))
                wait_until(lambda: times(subscriber) == [1, 2, 3])
        name = f"MQTT broker 127.0.0.1:{broker.port}"
        assert told == [
            f"{name}: cannot be reached (Connection refused): trying again",
            f"{name}: connected",
        ]
        assert sink.undelivered == 0


@needs_broker
@pytest.mark.parametrize(("qos", "after"), [(0, [3]), (1, [2, 3])])
def test_a_broker_that_was_killed_and_restarted_gets_the_events_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, qos: int, after: list[int]
) -> None:
    with Broker(tmp_path) as broker:
        told: list[str] = []
        sink = Mqtt(Address("127.0.0.1", broker.port), told.append, qos=qos)
        with Subscriber(broker.port) as subscriber:
            sink.send(detection(at=1))
            wait_until(lambda: times(subscriber) == [1])
        broker.kill()
        wait_until(lambda: told)
        assert "the connection broke" in told[0]
        with monkeypatch.context() as patch:
            patch.setattr(sink_mqtt, "FRESH_SECONDS", -1.0)  # it is stale when there is a broker
            sink.send(detection(at=2))
        broker.start()
        with Subscriber(broker.port) as subscriber:
            wait_until(lambda: "connected" in told[-1])
            sink.send(detection(at=3))
            sink.close()
            wait_until(lambda: times(subscriber) == after)
        assert sink.undelivered == 2 - len(after)


def test_without_a_broker_nothing_waits_and_losses_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sink_mqtt, "CLOSE_SECONDS", 0.05)
    told: list[str] = []
    sink = Mqtt(Address("127.0.0.1", free_port()), told.append, qos=1)
    for at in range(130):
        sink.send(detection(at=at))
    assert sink.undelivered == 30
    wait_until(lambda: told)
    sink.close()
    assert sink.undelivered == 130
    assert len(told) == 1


def test_why_there_is_no_connection_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_mqtt, "CLOSE_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"no TLS is spoken here\r\n")

        threading.Thread(target=answer, daemon=True).start()
        told: list[str] = []
        with closing(Mqtt(Address("127.0.0.1", listener.getsockname()[1], tls=True), told.append)):
            wait_until(lambda: told)
    assert "cannot be reached ([SSL: WRONG_VERSION_NUMBER]" in told[0]
    assert told[0].endswith("): trying again")


def test_over_a_slow_link_files_wait_and_lose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_mqtt, "BACKLOG_EVENTS", 5)
    monkeypatch.setattr(sink_mqtt, "CLOSE_SECONDS", 20.0)
    with SlowBroker() as broker:
        mqtt = Mqtt(Address("127.0.0.1", broker.port), payload="{time}", qos=1)
        sink = Queued(mqtt, waits=lambda: True, limit=3)
        sink.send(detection(at=0))
        wait_until(lambda: broker.got)  # it is connected
        sender = threading.Thread(
            target=lambda: [sink.send(detection(at=at)) for at in range(1, 40)], daemon=True
        )
        sender.start()
        wait_until(lambda: len(broker.got) >= 4)
        broker.release.set()
        sender.join(20)
        sink.finish(lambda: False)
        assert broker.got == [f"{at:.4f}" for at in range(40)]
        sink.close()
    assert sink.undelivered == 0


@pytest.mark.parametrize("qos", [1, 2])
def test_what_was_never_acknowledged_is_not_delivered(
    monkeypatch: pytest.MonkeyPatch, qos: int
) -> None:
    monkeypatch.setattr(sink_mqtt, "CLOSE_SECONDS", 0.1)
    with SlowBroker() as broker:
        sink = Mqtt(Address("127.0.0.1", broker.port), payload="{time}", qos=qos)
        for at in range(3):
            sink.send(detection(at=at))
        wait_until(lambda: len(broker.got) == 3)
        assert sink.undelivered == 0
        sink.finish(lambda: True)
        sink.close()
    assert sink.undelivered == 3


def test_a_user_in_a_url_may_be_percent_encoded() -> None:
    assert Address.from_options("mqtt://me%40home@host").username == "me@home"


@needs_broker
def test_a_password_is_needed_and_comes_from_file_or_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-c", "-b", passwords, "me", "secret"], check=True)
    (tmp_path / "secret").write_text("secret\n")
    (tmp_path / "wrong").write_text("guess\n")
    with Broker(tmp_path, "allow_anonymous false", f"password_file {passwords}") as broker:
        url = f"mqtt://me@127.0.0.1:{broker.port}"
        told: list[str] = []
        with closing(Mqtt(Address.from_options(url, str(tmp_path / "wrong")), told.append)):
            wait_until(lambda: told)
        assert "refuses the connection" in told[0]
        monkeypatch.setenv("EARMARK_MQTT_PASSWORD", "secret")
        for address in (
            Address.from_options(url),
            Address.from_options(url, str(tmp_path / "secret")),
        ):
            with (
                closing(Mqtt(address)) as sink,
                Subscriber(broker.port, username="me", password="secret") as subscriber,
            ):
                sink.send(detection(at=7))
                wait_until(lambda: times(subscriber) == [7])


@needs_broker
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_tls_with_an_authority_of_ones_own(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", key, "-out", certificate, "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost"),
        ],
        check=True,
        capture_output=True,
    )
    plain = free_port()
    settings = (
        *("allow_anonymous true", f"certfile {certificate}", f"keyfile {key}"),
        f"listener {plain} 127.0.0.1",
    )
    with Broker(tmp_path, *settings) as broker:
        url = f"mqtts://localhost:{broker.port}"
        told: list[str] = []
        with closing(Mqtt(Address.from_options(url), told.append)):
            wait_until(lambda: told)  # the system's authorities do not know it
        assert "cannot be reached ([SSL: CERTIFICATE_VERIFY_FAILED]" in told[0]
        address = Address.from_options(url, ca_file=str(certificate))
        with closing(Mqtt(address)) as sink, Subscriber(plain) as subscriber:
            sink.send(detection(at=7))
            wait_until(lambda: times(subscriber) == [7])


@needs_broker
def test_detect_publishes_before_it_ends(running: Broker, model: str, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "scene.wav", toy_model.scene(), 16000)
    with Subscriber(running.port) as subscriber:
        done = subprocess.run(
            [
                *(*EARMARK, "detect", "--model", model, tmp_path / "scene.wav"),
                *("--mqtt", f"127.0.0.1:{running.port}", "--mqtt-site", "hall"),
                *("--mqtt-topic", "home/{site}/{keyword}", "--mqtt-payload", "{score} {keyword}"),
            ],
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "")
        topic = "earmark/hall/availability"
        wait_until(lambda: subscriber.payloads(topic) == ["online", "offline"])
    found = [(topic, text[7:]) for topic, text in subscriber.got if topic.startswith("home")]
    assert found == [(f"home/hall/{keyword}", keyword) for keyword in ("low", "high", "low")]


@needs_broker
def test_the_audio_goes_on_without_a_broker(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The spotter's own loop, with a sink whose broker dies within it."""
    monkeypatch.setattr(sink_mqtt, "CLOSE_SECONDS", 0.1)
    with Broker(tmp_path) as broker:
        sink = Mqtt(Address("127.0.0.1", broker.port), lambda text: None)
        source = RawSource(io.BytesIO(toy_model.scene().tobytes()))
        seen = 0
        for event in spot(engine.stream(), source, heartbeat=1.0):
            sink.send(event)
            seen += isinstance(event, HeartbeatEvent)
            if seen == 2:
                broker.kill()
        sink.close()
    assert seen == 5


@given(st.text(min_size=1), st.text())
def test_no_value_changes_the_structure(keyword: str, source: str) -> None:
    values = {"keyword": keyword, "source": source}
    topic = Template("a/{keyword}/b", "").topic(values)
    assert topic.count("/") == 2
    assert not set("+#\0") & set(topic)
    payload = Template('{"k": "{keyword}", "s": ["{source}"]}', "").payload(values)
    assert json.loads(payload, strict=True) == {"k": keyword, "s": [source]}


def test_templates_know_fields_and_nothing_else() -> None:
    values = {"keyword": "{source}", "source": "secret"}
    assert Template("{keyword}", "").topic(values) == "{source}"  # values are not templates
    text = "{keyword.__class__} {0.a} {} {keyword!r} {{x"
    assert Template(text, "").payload(values) == text
    with pytest.raises(EarmarkError, match=r"--mqtt-topic: there is no \{password\}: choose from"):
        Template("x/{password}", "--mqtt-topic")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("mqtt://me:secret@host", "no password on the command line"),
        ("http://host", "give mqtt://"),
        ("mqtt://", "give mqtt://"),
        ("mqtt://host/path", "give mqtt://"),
        ("mqtt://host:99999", "Port out of range"),
        ("mqtt://" + "a" * 70, "label"),
    ],
)
def test_a_wrong_url_gets_one_line(url: str, reason: str) -> None:
    with pytest.raises(EarmarkError, match=reason) as error:
        Address.from_options(url)
    assert "secret" not in str(error.value)


def test_passwords_need_a_user_and_files_must_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EarmarkError, match="--mqtt-password-file"):
        Address.from_options("mqtt://me@host", str(tmp_path / "nosuch"))
    with pytest.raises(EarmarkError, match="--mqtt-ca: belongs to a broker with TLS"):
        Address.from_options("mqtt://host", ca_file="ca.pem")
    monkeypatch.setenv("EARMARK_MQTT_PASSWORD", "x")
    with pytest.raises(EarmarkError, match="there is a password but no user"):
        Address.from_options("mqtt://host")


@pytest.mark.parametrize("options", [{"topic": "a/+/b"}, {"topic": ""}, {"availability": "a/#"}])
def test_topics_that_select_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(EarmarkError, match="is no topic"):
        Mqtt(Address("127.0.0.1", 1), **options)
