"""Detections to an MQTT broker, as Hermes messages unless templates say otherwise.

The Hermes protocol (Snips, Rhasspy) publishes ``hermes/hotword/<wake word>/detected`` with a JSON
object. An availability topic holds ``online``, or ``offline`` while the device is lost, after the
end, and, as the last will, when the connection breaks.
"""

import json
import os
import re
import secrets
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from ..errors import EarmarkError, first_line
from ..events import DetectionEvent, DeviceBackEvent, DeviceLostEvent, Event, timestamp
from ..files import read_text
from .sink import CLOSE_SECONDS, MQTT_PASSWORD, POLL_SECONDS, Sink, Tell, Trouble, tell

TOPIC = "hermes/hotword/{keyword}/detected"
# Hermes has a sensitivity, which a threshold is not: its default is sent.
PAYLOAD = (
    '{"modelId":"{model}","modelVersion":"","modelType":"personal","currentSensitivity":1.0,'
    '"siteId":"{site}","sessionId":null,"keyword":"{keyword}","score":{score},"time":{time},'
    '"at":"{at}"}'
)
FIELDS = ("keyword", "score", "time", "at", "source", "site", "model")
"""What templates may name, each as ``{name}``."""
KEEPALIVE_SECONDS = 30
MAX_RETRY_SECONDS = 60
MAX_PASSWORD_BYTES = 1 << 16  # MQTT has two bytes for its length
BACKLOG_EVENTS = 100
"""Detections kept while there is no connection, newest ones."""
FRESH_SECONDS = 10.0
"""With QoS 0, a detection that could not be sent for so long is given up: it would be acted upon
when nobody expects it any more."""
MAX_TOPIC_BYTES = 65535
_FIELD = re.compile(r"\{(\w+)\}")
_SPECIAL = re.compile(r"[%+#/\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Broker:
    """Where to connect to, and as whom."""

    host: str
    port: int
    tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    """PEM file of the authority that signed the broker's certificate, in place of the system's."""

    @classmethod
    def from_options(
        cls, url: str, password_file: str | None = None, ca_file: str | None = None
    ) -> "Broker":
        """Read ``mqtt[s]://[user@]host[:port]``.

        The password comes from a file or the environment variable ``EARMARK_MQTT_PASSWORD``, since
        every user of a machine can read its command lines.

        Raises:
            EarmarkError: the URL is not of this form or a file cannot be read.
        """
        try:
            parts = urlsplit(url if "://" in url else f"mqtt://{url}")
            host, port = parts.hostname, parts.port
            (host or "").encode("idna")
        except ValueError as error:
            raise EarmarkError(f"--mqtt {url}: {error}") from error
        if parts.password is not None:
            raise EarmarkError(
                "--mqtt: no password on the command line, where everybody can read it: "
                f"put it into {MQTT_PASSWORD} or use --mqtt-password-file"
            )
        if parts.scheme not in ("mqtt", "mqtts") or not host or parts.path.strip("/"):
            raise EarmarkError(f"--mqtt {url}: give mqtt://[USER@]HOST[:PORT], or mqtts:// for TLS")
        tls = parts.scheme == "mqtts"
        if ca_file and not tls:
            raise EarmarkError("--mqtt-ca: belongs to a broker with TLS: give mqtts://...")
        password = os.environ.get(MQTT_PASSWORD)
        if password_file:
            try:
                password = read_text(password_file, MAX_PASSWORD_BYTES).rstrip("\r\n")
            except EarmarkError as error:
                raise EarmarkError(f"--mqtt-password-file {error}") from error
        if password is not None and not parts.username:
            raise EarmarkError(f"--mqtt {url}: there is a password but no user: give USER@HOST")
        user = None if parts.username is None else unquote(parts.username)
        return cls(host, port or (8883 if tls else 1883), tls, user, password, ca_file)


class Template:
    """Text in which ``{name}`` stands for a field of the event, and all else for itself."""

    def __init__(self, text: str, option: str) -> None:
        """
        Raises:
            EarmarkError: it names a field that there is not.
        """
        for name in _FIELD.findall(text):
            if name not in FIELDS:
                known = ", ".join(f"{{{field}}}" for field in FIELDS)
                raise EarmarkError(f"{option}: there is no {{{name}}}: choose from {known}")
        self._text = text

    def topic(self, values: dict[str, str]) -> str:
        """As a topic: what has a meaning there, or in it, is percent-encoded in the values."""
        return self._fill({name: _SPECIAL.sub(_percent, value) for name, value in values.items()})

    def payload(self, values: dict[str, str]) -> str:
        """As a payload: values are escaped as within a JSON string."""
        return self._fill(
            {name: json.dumps(value, ensure_ascii=False)[1:-1] for name, value in values.items()}
        )

    def _fill(self, values: dict[str, str]) -> str:
        return _FIELD.sub(lambda match: values[match[1]], self._text)


class Mqtt(Sink):
    """Publishes detections; connects and reconnects in the background, with a growing delay."""

    def __init__(
        self,
        broker: Broker,
        tell: Tell = tell,
        *,
        topic: str = TOPIC,
        payload: str = PAYLOAD,
        site: str = "default",
        availability: str | None = None,
        qos: int = 0,
        model: str = "",
    ) -> None:
        """
        Args:
            broker: need not be there yet.
            tell: hears when the connection fails, and when it is there again.
            topic, payload: templates, see :data:`FIELDS`.
            site: the Hermes site id.
            availability: topic of ``online`` and ``offline``, retained; by default
                ``earmark/<site>/availability``.
            qos: 0, 1 or 2. With 1 and 2, detections made without a connection are sent
                later, the newest 100 of them.
            model: name of the model.

        Raises:
            EarmarkError: a topic or template is invalid, or the file of the authority is.
        """
        self._topic = Template(topic, "--mqtt-topic")
        self._payload = Template(payload, "--mqtt-payload")
        self._common = {"site": site, "model": model}
        if availability is None:
            availability = Template("earmark/{site}/availability", "").topic(self._common)
        for option, text in (("topic", topic), ("availability", availability)):
            size = len(_clean(text).encode())
            if not 0 < size <= MAX_TOPIC_BYTES or re.search(r"[+#\x00]", text):
                raise EarmarkError(f"--mqtt-{option} {text}: is no topic (+ and # select topics)")
        self._availability = _clean(availability)
        self._qos = qos
        self._available = True
        self._connected = False
        # Detections with the time after which they are given up.
        self._backlog: deque[tuple[float, DetectionEvent]] = deque()
        # With QoS 1 and 2, what the broker has not acknowledged yet.
        self._sent: list[paho.MQTTMessageInfo] = []
        self._closing = threading.Event()
        self._given_up = False
        self._lock = threading.Lock()
        self._trouble = Trouble(f"MQTT broker {broker.host}:{broker.port}", tell)
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=f"earmark-{secrets.token_hex(6)}"
        )
        self._start(broker)

    def send(self, event: Event) -> None:
        if isinstance(event, DeviceLostEvent | DeviceBackEvent):
            self._available = isinstance(event, DeviceBackEvent)
            self._announce()
        if not isinstance(event, DetectionEvent):
            return
        now = time.monotonic()
        expiry = now + FRESH_SECONDS if self._qos == 0 else float("inf")
        with self._lock:
            self._backlog.append((expiry, event))
            while self._backlog and (
                self._backlog[0][0] < now or len(self._backlog) > BACKLOG_EVENTS
            ):
                self._backlog.popleft()
                self._undelivered += 1
        self._publish()
        # Over a slow link the queue in front of this sink waits; without a connection nothing does.
        while self._backlog and self._connected and not self._closing.wait(POLL_SECONDS):
            self._publish()

    def finish(self, stopped: Callable[[], bool]) -> None:
        end = time.monotonic() + CLOSE_SECONDS  # to connect, for the first time or again
        while self._owed() and not stopped() and time.monotonic() < end:
            time.sleep(POLL_SECONDS)
            if self._connected:
                end = time.monotonic() + CLOSE_SECONDS
        self._given_up = not self._connected and time.monotonic() >= end

    def close(self) -> None:
        self._closing.set()
        end = time.monotonic() + (0.0 if self._given_up else CLOSE_SECONDS)
        while self._owed() and time.monotonic() < end:
            time.sleep(0.02)
            self._publish()
        self._available = False
        last = self._announce()
        if last is not None:
            with suppress(ValueError, RuntimeError):  # the connection broke meanwhile
                last.wait_for_publish(max(0.0, end - time.monotonic()))
        self._undelivered += self._owed()
        self._client.disconnect()
        # The thread may be within an attempt to connect, which takes its time.
        stopper = threading.Thread(target=self._client.loop_stop, daemon=True)
        stopper.start()
        stopper.join(CLOSE_SECONDS)

    def _start(self, broker: Broker) -> None:
        client = self._client
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        if self._qos:
            # An acknowledgement makes room for what waits.
            client.on_publish = lambda *_: self._publish()
        client.max_queued_messages_set(BACKLOG_EVENTS)
        client.reconnect_delay_set(1, MAX_RETRY_SECONDS)
        client.will_set(self._availability, "offline", qos=1, retain=True)
        if broker.username is not None:
            client.username_pw_set(broker.username, broker.password)
        if broker.tls:
            try:
                client.tls_set(ca_certs=broker.ca_file)
            except OSError as error:  # also ssl.SSLError
                raise EarmarkError(
                    f"--mqtt-ca {broker.ca_file}: cannot be used ({error.strerror or error})"
                ) from error
        client.connect_async(broker.host, broker.port, KEEPALIVE_SECONDS)
        client.loop_start()

    def _announce(self) -> paho.MQTTMessageInfo | None:
        """Say whether there are ears, if there is a connection."""
        if not self._connected:
            return None
        state = "online" if self._available else "offline"
        return self._client.publish(self._availability, state, qos=1, retain=True)

    def _publish(self) -> None:
        """Send what waits, as long as there is a connection."""
        while self._connected:
            with self._lock:
                if not self._backlog:
                    return
                expiry, event = self._backlog.popleft()
            if expiry < time.monotonic():
                self._lose()
                continue
            values = self._common | {
                "keyword": event.keyword,
                "score": f"{event.score:.4f}",
                "time": f"{event.time:.4f}",
                "at": event.at or timestamp(),
                "source": event.source,
            }
            topic = _clean(self._topic.topic(values))
            if not 0 < len(topic.encode()) <= MAX_TOPIC_BYTES:
                self._lose()
                continue
            payload = _clean(self._payload.payload(values))
            sent = self._client.publish(topic, payload, qos=self._qos)
            full = sent.rc == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE
            if full or (sent.rc != MQTTErrorCode.MQTT_ERR_SUCCESS and self._qos == 0):
                with self._lock:
                    self._backlog.appendleft((expiry, event))
                return
            if self._qos:
                # Without a connection the client keeps the message and sends it later.
                sent.rc = MQTTErrorCode.MQTT_ERR_SUCCESS
                with self._lock:
                    self._sent.append(sent)
                self._owed()

    def _owed(self) -> int:
        """Detections that are still to be sent, or to be acknowledged."""
        with self._lock:
            self._sent = [sent for sent in self._sent if not sent.is_published()]
            return len(self._backlog) + len(self._sent)

    def _lose(self) -> None:
        with self._lock:
            self._undelivered += 1

    def _on_connect(
        self, client: paho.Client, data: Any, flags: Any, reason: Any, properties: Any
    ) -> None:
        if reason.is_failure:
            self._trouble.begin(f"refuses the connection ({reason}): trying again")
            return
        self._connected = True
        self._trouble.end("connected")
        self._announce()
        self._publish()

    def _on_connect_fail(self, client: paho.Client, data: Any) -> None:
        # paho tells it within its handling of the error, and gives the error to nobody.
        error = sys.exc_info()[1]
        reason = getattr(error, "strerror", None) or (first_line(error) if error else "no reason")
        self._trouble.begin(f"cannot be reached ({reason}): trying again")

    def _on_disconnect(
        self, client: paho.Client, data: Any, flags: Any, reason: Any, properties: Any
    ) -> None:
        was, self._connected = self._connected, False
        if was and reason.is_failure:
            self._trouble.begin(f"the connection broke ({reason}): trying again")


def _percent(match: re.Match[str]) -> str:
    return f"%{ord(match[0]):02X}"


def _clean(text: str) -> str:
    """``text`` that UTF-8 can say: half a surrogate pair becomes a question mark."""
    return text.encode("utf-8", "replace").decode()
