"""Detections to a command: one process each, no shell."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading

from ..errors import EarmarkError
from ..events import DetectionEvent, Event, to_json
from .sink import MQTT_PASSWORD, Sink, Tell, tell

MAX_PROCESSES = 4
"""Commands that run at the same time; further detections wait for their turn."""
TIMEOUT_SECONDS = 10.0
KILL_SECONDS = 1.0
"""A command that was killed may take so long to end."""


class Exec(Sink):
    """Runs a command for each detection, with the event as JSON on its standard input and
    ``EARMARK_KEYWORD``, ``EARMARK_SCORE`` and ``EARMARK_TIME`` in its environment.

    ``send`` waits for the command and may be called from several threads.
    """

    def __init__(
        self,
        command: str,
        tell: Tell = tell,
        *,
        timeout: float = TIMEOUT_SECONDS,
        quiet: bool = False,
    ) -> None:
        """
        Args:
            command: split into words as a shell would, but nothing else that a shell does.
            tell: hears of each kind of failure once.
            timeout: seconds after which a command and what it started are killed.
            quiet: the command's standard error goes nowhere, not to this program's.

        Raises:
            EarmarkError: the command cannot be split, is empty or is not found.
        """
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise EarmarkError(f"--exec {command}: {error}: check the quotes") from error
        if not self._words or not shutil.which(self._words[0]):
            name = self._words[0] if self._words else command
            raise EarmarkError(f"--exec {name}: there is no such command: check name and path")
        self._tell = tell
        self._timeout = timeout
        self._errors = subprocess.DEVNULL if quiet else None
        self._lock = threading.Lock()
        self._told: set[str] = set()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    def send(self, event: Event) -> None:
        if not isinstance(event, DetectionEvent):
            return
        problem = self._run(event)
        if problem:
            with self._lock:
                self._undelivered += 1
                first = problem not in self._told
                self._told.add(problem)
            if first:
                self._tell(f"--exec {self._words[0]}: {problem} (told once)")

    def close(self) -> None:
        """Kill the commands that still run; their events count as undelivered."""
        with self._lock:
            self._closed = True
            running, self._running = self._running, set()
            self._undelivered += len(running)
        for process in running:
            problem = _kill(process)
            if problem:
                self._tell(f"--exec {self._words[0]}: still runs and cannot be killed ({problem})")

    def _run(self, event: DetectionEvent) -> str | None:
        """Run the command and say what went wrong, if anything."""
        inherited = {name: text for name, text in os.environ.items() if name != MQTT_PASSWORD}
        environment = inherited | {
            "EARMARK_KEYWORD": event.keyword,
            "EARMARK_SCORE": f"{event.score:.4f}",
            "EARMARK_TIME": f"{event.time:.4f}",
        }
        try:
            with self._lock:
                if self._closed:
                    return "was not run, as the program ended"
                process = subprocess.Popen(
                    self._words,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,  # ours is for machines
                    stderr=self._errors,
                    env=environment,
                    start_new_session=True,  # Ctrl-C is not meant for it, a time-out for all of it
                )
                self._running.add(process)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            return f"cannot be run ({reason})"
        problem = self._wait(process, event)
        with self._lock:
            if process not in self._running:
                return None  # close() ended it and counted it
            self._running.remove(process)
        return problem

    def _wait(self, process: subprocess.Popen[bytes], event: DetectionEvent) -> str | None:
        try:
            process.communicate(to_json(event).encode() + b"\n", timeout=self._timeout)
        except subprocess.TimeoutExpired:
            problem = _kill(process)
            end = f"cannot be killed ({problem})" if problem else "was killed"
            return f"ran longer than {self._timeout:g} s and {end}"
        return f"exit status {process.returncode}" if process.returncode else None


def _kill(process: subprocess.Popen[bytes]) -> str | None:
    """Kill a command and what it started, and say what is in the way, if anything."""
    try:
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)  # its own session, see start_new_session
    except ProcessLookupError:
        pass
    except PermissionError as error:  # it became another user, as with sudo
        return error.strerror or str(error)
    try:
        process.wait(KILL_SECONDS)
    except subprocess.TimeoutExpired:
        return "it does not end"
    return None
