"""Where events go. What can block runs behind a bounded queue, so that no sink delays the audio."""

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from io import FileIO, UnsupportedOperation
from pathlib import Path
from typing import BinaryIO

from ..errors import EarmarkError, one_line
from ..events import Event, to_json

QUEUE_EVENTS = 1000
"""Events that a sink may be behind."""
CLOSE_SECONDS = 2.0
"""How long a sink is waited for at the end."""
POLL_SECONDS = 0.05
MQTT_PASSWORD = "EARMARK_MQTT_PASSWORD"
"""Environment variable that the MQTT sink reads and that no command is given."""

_AT_ONCE = getattr(os, "O_NONBLOCK", 0)
"""Else a pipe that nobody reads would be opened for ever. Windows has neither."""

Tell = Callable[[str], None]
"""Says one line to people."""


def tell(text: str) -> None:
    """Say a line on standard error, wherever that leads: a full disk there stops nothing."""
    with suppress(OSError, ValueError):
        print(f"earmark: {one_line(text)}", file=sys.stderr, flush=True)


class Sink:
    """Takes events. A sink of its own overrides ``send``, and the others where it needs to."""

    _undelivered: int = 0

    @property
    def undelivered(self) -> int:
        """Events that got lost so far."""
        return self._undelivered

    def send(self, event: Event) -> None:
        """Deliver one event. Failures that may pass are told to people and counted."""
        raise NotImplementedError

    def check(self) -> None:
        """Raise what made the sink unusable, if anything did."""

    def finish(self, stopped: Callable[[], bool]) -> None:
        """Deliver what waits, however long that takes, unless ``stopped``, which is asked now and
        then. Nothing but ``close`` may follow.
        """

    def close(self) -> None:
        """Deliver what can be delivered within about :data:`CLOSE_SECONDS` and end."""


class Trouble:
    """Tells people of a failure when it begins and when it ends, not each time."""

    def __init__(self, name: str, tell: Tell) -> None:
        self._name = name
        self._tell = tell
        self._now: str | None = None

    def begin(self, reason: str) -> None:
        """Something failed; said once as long as the reason is the same."""
        if reason != self._now:
            self._now = reason
            self._tell(f"{self._name}: {reason}")

    def end(self, note: str = "works again") -> None:
        """It worked."""
        if self._now is not None:
            self._now = None
            self._tell(f"{self._name}: {note}")


class Queued(Sink):
    """Another sink behind a bounded queue, served by threads of its own."""

    def __init__(
        self,
        sink: Sink,
        *,
        waits: Callable[[], bool] | None = None,
        threads: int = 1,
        limit: int = QUEUE_EVENTS,
    ) -> None:
        """
        Args:
            sink: its ``send`` is called from the threads.
            waits: while it says so, ``send`` waits for room. Without it, as where audio is live, a
                full queue drops its oldest event, and ``send`` never waits.
            threads: events that are delivered at the same time.
            limit: most events that wait.
        """
        self._sink = sink
        self._waits = waits
        self._limit = limit
        self._waiting: deque[Event] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._dropped = 0
        self._error: Exception | None = None
        self._threads = [
            threading.Thread(target=self._work, name=f"earmark-{type(sink).__name__}", daemon=True)
            for _ in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def undelivered(self) -> int:
        return self._dropped + self._sink.undelivered

    def send(self, event: Event) -> None:
        with self._changed:
            while len(self._waiting) >= self._limit and not self._error:
                if self._waits is not None and self._waits():
                    self._changed.wait(POLL_SECONDS)
                else:
                    self._waiting.popleft()
                    self._dropped += 1
            if not self._closed and not self._error:
                self._waiting.append(event)
                self._changed.notify_all()

    def check(self) -> None:
        if self._error:
            raise self._error
        self._sink.check()

    def finish(self, stopped: Callable[[], bool]) -> None:
        self._take_no_more()
        for thread in self._threads:
            while thread.is_alive() and not stopped():
                thread.join(POLL_SECONDS)
        self._sink.finish(stopped)

    def close(self) -> None:
        end = time.monotonic() + CLOSE_SECONDS
        self._take_no_more()
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        with self._changed:
            self._dropped += len(self._waiting)
            self._waiting.clear()
        self._sink.close()

    def _take_no_more(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._closed:
                        return
                    self._changed.wait()
                event = self._waiting.popleft()
                self._changed.notify_all()
            try:
                self._sink.send(event)
            except Exception as error:  # raised where the program looks after its sinks
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                return


class FanOut(Sink):
    """Several sinks as one."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = sinks

    @property
    def undelivered(self) -> int:
        return sum(sink.undelivered for sink in self._sinks)

    def send(self, event: Event) -> None:
        for sink in self._sinks:
            sink.send(event)

    def check(self) -> None:
        for sink in self._sinks:
            sink.check()

    def finish(self, stopped: Callable[[], bool]) -> None:
        for sink in self._sinks:
            sink.finish(stopped)

    def close(self) -> None:
        with ExitStack() as stack:  # closes all, whatever one of them raises
            for sink in reversed(self._sinks):
                stack.callback(sink.close)


class JsonLines(Sink):
    """One JSON object per line into an open file, flushed as it happens.

    A full disk and a closed pipe raise OSError: there is nothing left to write for.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def send(self, event: Event) -> None:
        line = memoryview(to_json(event).encode() + b"\n")
        while line:  # an unbuffered file may take a part
            written = self._file.write(line)
            if written is None:  # it is one that does not wait, and full
                time.sleep(POLL_SECONDS)
            line = line[written or 0 :]
        self._file.flush()


def output(waits: Callable[[], bool] | None = None) -> Queued:
    """JSON lines on standard output, whose reader may hang; ``waits``: see :class:`Queued`."""
    sys.stdout.flush()
    try:
        # Without a buffer and its lock, which a thread that hangs in it would keep.
        file: BinaryIO = FileIO(sys.stdout.fileno(), "w", closefd=False)  # type: ignore[assignment]
    except UnsupportedOperation:  # no file, but what captures it
        file = sys.stdout.buffer
    return Queued(JsonLines(file), waits=waits)


class LogFile(Sink):
    """JSON lines appended to a file, which may be rotated, removed or on a disk that is full.

    The file is opened for each event: they are rare, and so every way of failing is one.
    """

    def __init__(self, path: str | os.PathLike[str], tell: Tell = tell) -> None:
        """
        Raises:
            EarmarkError: the file cannot be opened.
        """
        self._path = Path(path)
        self._trouble = Trouble(str(path), tell)
        self._torn = False
        try:
            self._append(b"")
            self._torn = _torn(self._path)
        except OSError as error:
            raise EarmarkError(
                f"--log {path}: cannot be written ({error.strerror or error})"
            ) from error

    def send(self, event: Event) -> None:
        try:
            self._append(to_json(event).encode() + b"\n")
        except OSError as error:
            self._undelivered += 1
            self._trouble.begin(
                f"cannot be written ({error.strerror or error}): events are missing from it"
            )
        else:
            self._trouble.end(f"can be written again, {self.undelivered} events are missing")

    def _append(self, line: bytes) -> None:
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | _AT_ONCE, 0o666)
        try:
            if _AT_ONCE:
                os.set_blocking(handle, True)  # what is opened may take its time
            if self._torn and line:
                line = b"\n" + line
            while line:
                written = os.write(handle, line)
                # A full disk may take a part of a line: what follows must begin a new one.
                line = line[written:]
                self._torn = bool(line)
        finally:
            os.close(handle)


def _torn(path: Path) -> bool:
    """Whether a file ends within a line, as it may after a power failure."""
    if not path.is_file():  # a pipe or a terminal has nothing to look at
        return False
    try:
        with path.open("rb") as file:
            if not file.seek(0, os.SEEK_END):
                return False
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except PermissionError:  # it may be written and not read
        return False
