"""A Mosquitto broker on a free port of the loopback, and a client that notes what it publishes."""

import os
import shutil
import socket
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from waiting import WAIT_SECONDS, wait_until

# Debian puts it where the PATH of users does not look.
PROGRAM = shutil.which("mosquitto", path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Broker:
    """A context manager that can be started, killed and started again on its port."""

    def __init__(self, folder: Path, *settings: str, started: bool = True) -> None:
        """``settings``: further lines of its configuration."""
        self.port = free_port()
        self._configuration = folder / "mosquitto.conf"
        lines = [f"listener {self.port} 127.0.0.1", "persistence false", "log_dest none"]
        if os.name == "posix" and os.geteuid() == 0:
            lines.append("user root")  # else it could not read the files of this test
        lines += settings or ["allow_anonymous true"]
        self._configuration.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None
        if started:
            self.start()

    def start(self) -> None:
        assert PROGRAM
        self._process = subprocess.Popen([PROGRAM, "-c", self._configuration])
        wait_until(self._answers)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _answers(self) -> bool:
        assert self._process and self._process.poll() is None, "the broker does not start"
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class SlowBroker:
    """A context manager: takes one connection, and acknowledges QoS 1 once ``release`` is set."""

    def __init__(self) -> None:
        self.got: list[str] = []
        """Payloads outside of ``earmark/``, as they arrive."""
        self.release = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._held: list[bytes] = []
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection, connection.makefile("rb") as stream:
            releaser = threading.Thread(target=self._acknowledge, args=[connection], daemon=True)
            while head := stream.read(1):
                size = shift = 0
                while (byte := stream.read(1)[0]) & 0x80:
                    size, shift = size | (byte & 0x7F) << shift, shift + 7
                body = stream.read(size | byte << shift)
                if head[0] >> 4 == 1:  # CONNECT
                    connection.sendall(b"\x20\2\0\0")
                    releaser.start()
                elif head[0] >> 4 == 3:  # PUBLISH
                    self._take(body, connection)

    def _take(self, body: bytes, connection: socket.socket) -> None:
        end = 2 + int.from_bytes(body[:2])
        if not body[2:end].startswith(b"earmark/"):
            self.got.append(body[end + 2 :].decode())
        with self._lock:
            self._held.append(b"\x40\2" + body[end : end + 2])
            if self.release.is_set():
                self._flush(connection)

    def _acknowledge(self, connection: socket.socket) -> None:
        self.release.wait()
        with self._lock:
            self._flush(connection)

    def _flush(self, connection: socket.socket) -> None:
        with suppress(OSError):  # the client has gone
            connection.sendall(b"".join(self._held))
        self._held.clear()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()
        self._listener.close()


class Subscriber:
    """A context manager; ``got`` grows by (topic, payload) of every message."""

    def __init__(self, port: int, **login: str) -> None:
        self.got: list[tuple[str, str]] = []
        self._ready = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(1, 1)
        if login:
            self._client.username_pw_set(**login)
        self._client.connect("127.0.0.1", port)

    def payloads(self, topic: str) -> list[str]:
        return [payload for at, payload in self.got if at == topic]

    def _on_connect(self, client: paho.Client, *_: Any) -> None:
        client.subscribe("#", qos=2)

    def _on_message(self, client: paho.Client, data: Any, message: paho.MQTTMessage) -> None:
        self.got.append((message.topic, message.payload.decode()))

    def __enter__(self) -> Self:
        self._client.loop_start()
        assert self._ready.wait(WAIT_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()
