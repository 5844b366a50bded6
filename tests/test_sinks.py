"""Where events go: queues, files and commands, and what happens when they cannot be reached."""

import json
import os
import shlex
import signal
import sys
import threading
from pathlib import Path

import pytest
from earmark.runtime import DetectionEvent, EarmarkError, Event, GapEvent
from earmark.runtime.sinks.exec import Exec
from earmark.runtime.sinks.sink import FanOut, JsonLines, LogFile, Queued, Sink, tell
from waiting import wait_until

GAP = GapEvent("mic", 1.0, 0.5, "lost")
posix = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX system")
full_device = pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="this system has no /dev/full"
)


def detection(keyword: str = "yes", at: float = 1.5) -> DetectionEvent:
    return DetectionEvent("mic", keyword, at, 0.9, "2030-01-01T00:00:00.000Z")


class Gate(Sink):
    """Lets nothing through until it is opened."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.entered = threading.Semaphore(0)
        self.got: list[Event] = []

    def send(self, event: Event) -> None:
        self.entered.release()
        self.open.wait(30)
        self.got.append(event)


def test_a_live_queue_never_waits_and_drops_its_oldest() -> None:
    gate = Gate()
    queued = Queued(gate, limit=3)
    queued.send(detection(at=0))
    assert gate.entered.acquire(timeout=10)  # the first is on its way, the queue is empty
    for at in range(1, 8):
        queued.send(detection(at=at))
    assert queued.undelivered == 4
    gate.open.set()
    queued.close()
    assert [event.time for event in gate.got] == [0, 5, 6, 7]


def test_a_stuck_sink_holds_up_the_end_for_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("earmark.runtime.sinks.sink.CLOSE_SECONDS", 0.05)
    gate = Gate()
    queued = Queued(gate)
    for _ in range(5):
        queued.send(GAP)
    assert gate.entered.acquire(timeout=10)
    queued.close()
    assert queued.undelivered == 4
    gate.open.set()


def test_a_queue_that_waits_loses_nothing() -> None:
    gate = Gate()
    queued = Queued(gate, waits=lambda: True, limit=2)
    events = [detection(at=at) for at in range(50)]
    sender = threading.Thread(target=lambda: [queued.send(event) for event in events])
    sender.start()
    gate.open.set()
    sender.join(10)
    queued.close()
    assert gate.got == events
    assert queued.undelivered == 0


def test_a_signal_ends_the_waiting_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("earmark.runtime.sinks.sink.CLOSE_SECONDS", 0.0)
    gate, stopped = Gate(), threading.Event()
    queued = Queued(gate, waits=lambda: not stopped.is_set(), limit=1)
    queued.send(detection(at=0))
    assert gate.entered.acquire(timeout=10)  # it is on its way, there is room for one more
    queued.send(detection(at=1))
    sender = threading.Thread(target=queued.send, args=[detection(at=2)])
    sender.start()
    sender.join(0.1)
    assert sender.is_alive()
    stopped.set()
    sender.join(10)
    assert not sender.is_alive()
    queued.close()
    assert queued.undelivered == 2
    gate.open.set()


def test_an_error_of_a_sink_is_raised_where_the_program_looks() -> None:
    class Broken(Sink):
        def send(self, event: Event) -> None:
            raise BrokenPipeError

    good = Gate()
    good.open.set()
    sinks = FanOut([Queued(Broken()), Queued(good)])
    sinks.check()
    sinks.send(GAP)

    def failed() -> bool:
        try:
            sinks.check()
        except BrokenPipeError:
            return True
        return False

    wait_until(failed)
    sinks.send(GAP)
    sinks.close()
    assert good.got == [GAP, GAP]


def test_all_sinks_are_closed_whatever_one_raises() -> None:
    class Closing(Sink):
        closed = False

        def close(self) -> None:
            self.closed = True
            raise OSError("in the way")

    sinks = [Closing(), Closing()]
    with pytest.raises(OSError, match="in the way"):
        FanOut(sinks).close()
    assert [sink.closed for sink in sinks] == [True, True]


def test_what_waits_is_delivered_unless_it_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("earmark.runtime.sinks.sink.CLOSE_SECONDS", 0.0)
    first, second = Gate(), Gate()
    sinks = [Queued(gate) for gate in (first, second)]
    for sink in sinks:
        for at in range(3):
            sink.send(detection(at=at))
    assert first.entered.acquire(timeout=10) and second.entered.acquire(timeout=10)

    def opened() -> bool:
        first.open.set()
        return False

    sinks[0].finish(opened)
    sinks[1].finish(lambda: True)
    FanOut(sinks).close()
    second.open.set()
    assert [event.time for event in first.got] == [0, 1, 2]
    assert [sink.undelivered for sink in sinks] == [0, 2]


def test_json_lines_survive_partial_writes(tmp_path: Path) -> None:
    class Chunky:
        def __init__(self) -> None:
            self.data = b""

        def write(self, data: memoryview) -> int:
            self.data += bytes(data[:7])
            return len(data[:7])

        def flush(self) -> None:
            pass

    file = Chunky()
    sink = JsonLines(file)  # type: ignore[arg-type]
    sink.send(detection())
    sink.send(GAP)
    assert [json.loads(line)["type"] for line in file.data.splitlines()] == ["detection", "gap"]


def test_a_log_is_appended_to_and_survives_rotation(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"type": "old"}\n')
    log = LogFile(path)
    log.send(GAP)
    path.rename(tmp_path / "events.1")
    log.send(detection())
    kinds = [json.loads(line)["type"] for line in (tmp_path / "events.1").open()]
    assert kinds == ["old", "gap"]
    assert json.loads(path.read_text())["keyword"] == "yes"


def test_a_line_cut_before_the_start_spoils_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"type": "detec')
    log = LogFile(path)
    log.send(GAP)
    log.send(detection())
    _, *lines = path.read_text().splitlines()
    assert [json.loads(line)["type"] for line in lines] == ["gap", "detection"]


@full_device
def test_a_full_disk_is_told_once_and_the_log_goes_on_when_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    told: list[str] = []
    log = LogFile(path, told.append)
    log.send(GAP)
    path.rename(tmp_path / "kept")
    path.symlink_to("/dev/full")
    for _ in range(3):
        log.send(GAP)
    assert len(told) == 1
    assert "No space left" in told[0]
    path.unlink()
    (tmp_path / "kept").rename(path)
    log.send(detection())
    assert told[1:] == [f"{path}: can be written again, 3 events are missing"]
    assert log.undelivered == 3
    assert [json.loads(line)["type"] for line in path.open()] == ["gap", "detection"]


@posix
def test_a_line_cut_by_a_full_disk_spoils_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events.jsonl"
    log = LogFile(path, lambda text: None)
    write, calls = os.write, []

    def short(handle: int, data: bytes) -> int:
        calls.append(data)
        if len(calls) == 1:
            return write(handle, data[:10])
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return write(handle, data)

    monkeypatch.setattr(os, "write", short)
    log.send(GAP)
    log.send(detection())
    monkeypatch.undo()
    lines = path.read_text().splitlines()
    assert len(lines) == 2
    assert json.loads(lines[1])["type"] == "detection"


@posix
def test_a_pipe_that_nobody_reads_is_as_a_full_disk(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    told: list[str] = []

    def write() -> None:
        with pytest.raises(EarmarkError, match=r"--log .*: cannot be written"):
            LogFile(pipe)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        log = LogFile(pipe, told.append)
        os.close(reader)
        log.send(GAP)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        log.send(detection())
        told.append(os.read(reader, 1000).decode())
        os.close(reader)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    writer.join(20)
    assert not writer.is_alive(), "it waits for a reader"
    missing, again, line = told
    assert missing.startswith(f"{pipe}: cannot be written") and "1 events are missing" in again
    assert json.loads(line)["type"] == "detection"


def test_lines_for_people_hold_nothing_that_a_terminal_obeys(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tell("microphone \x1b[2J is lost\nearmark: not so")
    assert capsys.readouterr().err == ("earmark: microphone \\x1b[2J is lost\\nearmark: not so\n")


def test_a_log_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EarmarkError, match=r"--log .*: cannot be written"):
        LogFile(tmp_path / "nosuch" / "events.jsonl")


SCRIPT = """
import json, os, sys
event = json.load(sys.stdin)
names = ("EARMARK_KEYWORD", "EARMARK_SCORE", "EARMARK_TIME")
with open(sys.argv[1], "a") as file:
    print(json.dumps([event, sys.argv[2:], [os.environ[name] for name in names]]), file=file)
"""


def python(code: str, *arguments: object) -> str:
    return shlex.join([sys.executable, "-c", code, *map(str, arguments)])


def test_a_command_gets_the_event(tmp_path: Path) -> None:
    out = tmp_path / "out"
    told: list[str] = []
    command = Exec(python(SCRIPT, out, "two words", "$HOME;ls"), told.append)
    command.send(GAP)
    command.send(detection("a'b; $(x)"))
    (line,) = out.read_text().splitlines()
    event, arguments, environment = json.loads(line)
    assert event["keyword"] == "a'b; $(x)"
    assert arguments == ["two words", "$HOME;ls"]
    assert environment == ["a'b; $(x)", "0.9000", "1.5000"]
    assert (command.undelivered, told) == (0, [])


def test_a_command_is_not_given_the_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EARMARK_MQTT_PASSWORD", "secret")
    out = tmp_path / "out"
    code = "import os, sys; open(sys.argv[1], 'w').write(repr(dict(os.environ)))"
    Exec(python(code, out)).send(detection())
    assert "EARMARK_KEYWORD" in out.read_text()
    assert "secret" not in out.read_text()


def test_a_failing_command_is_told_once_per_kind(tmp_path: Path) -> None:
    told: list[str] = []
    command = Exec(python("import sys; sys.exit(3)"), told.append)
    for _ in range(3):
        command.send(detection())
    command.send(detection("nul\0"))
    assert command.undelivered == 4
    assert len(told) == 2
    assert "exit status 3" in told[0]
    assert "cannot be run" in told[1]


@posix
def test_a_command_that_hangs_is_killed_with_what_it_started(tmp_path: Path) -> None:
    told: list[str] = []
    pid = tmp_path / "pid"
    script = "sleep 60 & echo $! > " + str(pid) + "; wait"
    command = Exec(f"sh -c '{script}'", told.append, timeout=0.5)
    command.send(detection())
    assert "ran longer than 0.5 s" in told[0]
    child = int(pid.read_text())
    wait_until(lambda: not _alive(child))


@posix
def test_commands_that_run_at_the_end_are_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("earmark.runtime.sinks.sink.CLOSE_SECONDS", 0.05)
    started = tmp_path / "started"
    command = Exec(f"sh -c 'echo $$ >> {started}; sleep 60'", lambda text: None)
    queued = Queued(command, threads=2)
    for _ in range(5):
        queued.send(detection())
    wait_until(lambda: started.exists() and len(started.read_text().splitlines()) == 2)
    queued.close()
    wait_until(lambda: not any(_alive(int(pid)) for pid in started.read_text().split()))
    assert queued.undelivered == 5


@posix
def test_a_command_that_became_another_user_is_left_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(group: int, number: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    told: list[str] = []
    pid = tmp_path / "pid"
    line = f"sh -c 'echo $$ >> {pid}; exec sleep 60'"
    with monkeypatch.context() as patch:
        patch.setattr(os, "killpg", refuse)
        command = Exec(line, told.append, timeout=0.5)
        command.send(detection())
        assert "ran longer than 0.5 s and cannot be killed (Operation not permitted)" in told[0]
        assert command.undelivered == 1
        command = Exec(line, told.append, timeout=60)
        sender = threading.Thread(target=command.send, args=[detection()])
        sender.start()
        wait_until(lambda: len(pid.read_text().split()) == 2)
        command.close()
        assert "still runs and cannot be killed (Operation not permitted)" in told[1]
        assert command.undelivered == 1
    for line in pid.read_text().split():
        os.kill(int(line), signal.SIGKILL)
    sender.join(20)
    assert command.undelivered == 1


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie that nobody waits for is as dead.
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nosuchcommand --now", "--exec nosuchcommand: there is no such command"),
        ("'unclosed", "check the quotes"),
        ("", "there is no such command"),
    ],
)
def test_a_wrong_command_is_refused_at_the_start(text: str, reason: str) -> None:
    with pytest.raises(EarmarkError, match=reason):
        Exec(text)
