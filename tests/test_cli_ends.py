"""What comes and goes by the standard streams of the command line, and what ends a run."""

import fcntl
import io
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import soundfile
import toy_model
from command import EARMARK, launch
from earmark.runtime import cli
from earmark.runtime.cli import main
from earmark.runtime.command import Command
from heard import EXPECTED, events
from waiting import wait_until

IMPATIENT = [
    sys.executable,
    "-c",
    "import sys; from earmark.runtime.cli import main; from earmark.runtime.sinks import sink\n"
    "sink.CLOSE_SECONDS = 0.1\n"
    "sys.exit(main())",
]
"""The command, but it waits a moment only for sinks at its end."""


def test_raw_audio_on_standard_input(model: str) -> None:
    process = launch("detect", "--model", model, "-", stdin=subprocess.PIPE)
    out, err = process.communicate(toy_model.scene().tobytes() + b"\0", timeout=60)
    assert (process.returncode, err) == (0, b"")
    assert events(out.decode()) == EXPECTED


@pytest.mark.skipif(sys.platform == "win32", reason="pipes have no such mode there")
def test_raw_audio_that_is_not_there_yet_is_waited_for(model: str, tmp_path: Path) -> None:
    """Where the parent left the pipe not to wait."""
    log = tmp_path / "log"
    inner, outer = os.pipe()
    os.set_blocking(inner, False)
    options = ("--log", str(log), "--heartbeat", "0.1")
    process = launch("detect", "--model", model, "-", *options, stdin=inner)
    os.close(inner)
    # What tells that nothing was heard so far: it has asked for audio.
    wait_until(lambda: log.exists() and log.read_text())
    with os.fdopen(outer, "wb") as pipe:
        pipe.write(toy_model.scene().tobytes())
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")
    heard = [line for line in out.decode().splitlines() if json.loads(line)["type"] == "detection"]
    assert events("\n".join(heard)) == EXPECTED


def test_a_closed_standard_input_is_told(model: str) -> None:
    words = [*EARMARK, "detect", "--model", model, "-"]
    done = subprocess.run(["sh", "-c", '"$0" "$@" <&-', *words], capture_output=True)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"earmark: standard input: is closed")


def test_what_a_closed_standard_error_would_get_is_not_put_out(model: str, scene: Path) -> None:
    words = [*EARMARK, "detect", "--model", model, "nosuch.wav", str(scene)]
    done = subprocess.run(["sh", "-c", '"$0" "$@" 2>&-', *words], stdout=subprocess.PIPE)
    assert done.returncode == 1
    assert events(done.stdout.decode()) == EXPECTED


def test_what_a_library_prints_comes_not_between_json_lines(
    model: str, scene: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.caf"
    try:
        soundfile.write(damaged, toy_model.scene(), 16000, format="CAF", subtype="ALAC_16")
    except soundfile.LibsndfileError:
        pytest.skip("this libsndfile writes no ALAC")
    data = bytearray(damaged.read_bytes())
    place = data.index(b"pakt")
    size = int.from_bytes(data[place + 4 : place + 12], "big")
    # A number in the table of packets goes on behind its end. Some say so by printf.
    data[place + 12 + size - 1] |= 0x80
    damaged.write_bytes(data)
    plain = f"import soundfile; soundfile.read({str(damaged)!r})"
    said = subprocess.run([sys.executable, "-c", plain], capture_output=True).stdout
    process = launch("detect", "--model", model, str(damaged), str(scene))
    out, err = process.communicate(timeout=60)
    found = [json.loads(line) for line in out.splitlines()]
    assert [event["keyword"] for event in found if event["source"] == str(scene)] == [
        *("low", "high", "low")
    ]
    assert said in err


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_standard_output_is_kept_for_the_program(unbuffered: str) -> None:
    code = (
        "import os, subprocess, sys\n"
        "from earmark.runtime import cli\n"
        "from earmark.runtime.command import Command\n"
        "def run(arguments):\n"
        "    print('said')\n"
        "    os.write(1, b'by a library ')\n"
        "    subprocess.run([sys.executable, '-c', 'print(\"by a child\")'])\n"
        "    return 0\n"
        "cli.commands = lambda wanted: {'x': Command('', lambda parser: None, run)}\n"
        "sys.argv = ['earmark', 'x']\n"
        "sys.exit(cli.main())"
    )
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert (done.stdout, done.stderr) == (b"said\n", b"by a library by a child\n")


def test_a_closed_standard_output_is_no_failure(model: str, scene: Path) -> None:
    words = [*EARMARK, "detect", "--model", model, str(scene)]
    done = subprocess.run(["sh", "-c", '"$0" "$@" >&-', *words], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_stream_that_goes_on_with_a_summary(
    model: str, number: signal.Signals, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    process = launch("detect", "--model", model, "-", "--log", str(log), stdin=subprocess.PIPE)
    assert process.stdin and process.stdout
    process.stdin.write(toy_model.scene()[: 2 * 16000].tobytes())
    process.stdin.flush()
    first = process.stdout.readline()
    assert json.loads(first)["keyword"] == "low"
    # Its pipe stays open and empty, so that the signal finds it waiting for audio.
    process.send_signal(number)
    rest = process.stdout.read()
    assert process.wait(timeout=60) == 0
    (ended,) = map(json.loads, rest.splitlines())
    assert (ended["type"], ended["source"], ended["detections"]) == ("ended", "-", 1)
    assert log.read_bytes() == first + rest
    assert process.stderr
    err = process.stderr.read().decode()
    assert err.startswith("earmark: listened for ")
    assert "1 detections (low 1)" in err
    assert err.count("\n") == 1
    process.stdin.close()


def test_a_signal_ends_a_file_whose_events_nobody_takes(model: str, scene: Path) -> None:
    process = launch("detect", "--model", model, *(200 * [str(scene)]), "--heartbeat", "0.08")
    assert process.stdout and process.stderr
    fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)
    with selectors.DefaultSelector() as ready:
        ready.register(process.stdout, selectors.EVENT_READ)
        assert ready.select(60)  # it has begun, and nobody reads

    def busy() -> list[str]:
        return Path(f"/proc/{process.pid}/stat").read_text().split()[13:15]

    def waits() -> bool:
        before = busy()
        time.sleep(0.2)
        return busy() == before

    wait_until(waits)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 130
    process.stdout.close()


@pytest.mark.parametrize("sent", [b"", b"\0"], ids=["nothing", "half a sample"])
def test_an_input_without_audio_is_a_failure(model: str, sent: bytes) -> None:
    process = launch("detect", "--model", model, "-", stdin=subprocess.PIPE)
    out, err = process.communicate(sent, timeout=60)
    assert (process.returncode, out) == (1, b"")
    assert err.startswith(b"earmark: standard input: ended before any audio came")
    assert err.count(b"\n") == 1


def test_files_beside_an_input_without_audio_are_heard(model: str, scene: Path) -> None:
    process = launch("detect", "--model", model, "-", str(scene), stdin=subprocess.DEVNULL)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert events(out.decode()) == EXPECTED
    assert err.splitlines()[-1] == b"earmark: 1 of 2 files could not be read"


def test_a_signal_before_any_audio_came_is_a_clean_end(model: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    options = ("--log", str(log), "--heartbeat", "0.1")
    process = launch("detect", "--model", model, "-", *options, stdin=subprocess.PIPE)
    assert process.stdin and process.stderr
    wait_until(lambda: log.exists() and log.read_text())
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 0
    assert process.stderr.read() == b"earmark: no audio heard\n"
    process.stdin.close()


def test_ctrl_c_that_ends_the_recorder_too_is_a_clean_end(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "recorder")
    log = tmp_path / "log"

    def both_end() -> None:
        with (tmp_path / "recorder").open("wb"):
            wait_until(lambda: log.exists() and log.read_text())
            os.kill(os.getpid(), signal.SIGINT)

    recorder = threading.Thread(target=both_end)
    recorder.start()
    with (tmp_path / "recorder").open() as pipe:
        monkeypatch.setattr(sys, "stdin", pipe)
        options = ["--log", str(log), "--heartbeat", "0.1"]
        assert main(["detect", "--model", model, "-", *options]) == 0
    recorder.join()
    assert "ended before" not in capsys.readouterr().err


def test_a_signal_leaves_files_undone(model: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    process = launch("detect", "--model", model, str(tmp_path / "pipe"), str(tmp_path / "never"))
    wav = io.BytesIO()
    soundfile.write(wav, toy_model.scene(), 16000, format="WAV")
    with (tmp_path / "pipe").open("wb") as pipe:
        pipe.write(wav.getvalue()[: 3 * 32000])
        pipe.flush()
        assert process.stdout and process.stderr
        assert json.loads(process.stdout.readline())["keyword"] == "low"
        process.send_signal(signal.SIGTERM)
        assert json.loads(process.stdout.read())["type"] == "ended"
        assert process.wait(timeout=60) == 130
    assert process.stderr.read().count(b"\n") == 1


def test_a_reader_that_hangs_holds_up_neither_live_audio_nor_the_end(
    model: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    options = ("--log", log, "--heartbeat", "0.1")
    process = launch(
        *("detect", "--model", model, "-", *options), program=IMPATIENT, stdin=subprocess.PIPE
    )
    assert process.stdin and process.stderr and process.stdout
    # Nobody reads. A pipe holds 64 KiB, which is fewer than 300 of these events.
    process.stdin.write(bytes(2 * 16000 * 100))
    process.stdin.flush()
    wait_until(lambda: log.exists() and log.read_text().count("\n") > 400)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    assert b"events not delivered" in process.stderr.read().splitlines()[-1]
    process.stdin.close()


def test_the_end_of_live_audio_waits_for_commands(
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("earmark.runtime.sinks.sink.CLOSE_SECONDS", 0.0)
    audio, heard = tmp_path / "audio", tmp_path / "heard"
    audio.write_bytes(toy_model.scene().tobytes())
    command = f"sh -c 'sleep 0.3; echo $EARMARK_KEYWORD >> {heard}'"
    with audio.open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert main(["detect", "--model", model, "-", "--exec", command]) == 0
    out, err = capfd.readouterr()
    assert len(out.splitlines()) == 3 and err == ""
    assert sorted(heard.read_text().split()) == ["high", "low", "low"]


def test_what_was_not_delivered_is_told(
    model: str, scene: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["detect", "--model", model, str(scene), "--exec", "false"]) == 1
    told, last = capsys.readouterr().err.splitlines()
    assert "exit status 1" in told
    assert last == "earmark: events not delivered: 3"


def test_a_signal_ends_files_whose_commands_still_wait(
    model: str, scene: Path, tmp_path: Path
) -> None:
    started = tmp_path / "started"
    command = f"sh -c 'echo >> {started}; exec sleep 60'"
    arguments = ("detect", "--model", model, *[scene] * 4, "--exec", command)
    process = launch(*arguments, program=IMPATIENT)
    assert process.stdout and process.stderr
    for _ in range(12):
        process.stdout.readline()
    wait_until(lambda: started.exists() and started.read_text().count("\n") == 4)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 130
    assert started.read_text().count("\n") == 4
    # With the summary, where the signal came before the last file was through.
    last = process.stderr.read().splitlines()[-1]
    assert last in (b"earmark: events not delivered: 12", b"earmark: events not delivered: 13")
    process.stdout.close()


def test_the_third_signal_ends_the_process() -> None:
    code = (
        "import signal\n"
        "from earmark.runtime.stop import Stop\n"
        "with Stop() as stop:\n"
        "    for number in range(3):\n"
        "        signal.raise_signal(signal.SIGTERM)\n"
        "        print(number, stop.requested, flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.stdout == b"0 True\n1 True\n"
    assert done.returncode == -signal.SIGTERM


def test_a_closed_pipe_ends_quietly(model: str, scene: Path) -> None:
    process = launch("detect", "--model", model, *[str(scene)] * 50)
    assert process.stdout and process.stderr
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=60) == 141
    assert process.stderr.read() == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_told(model: str, scene: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        process = launch("detect", "--model", model, str(scene), stdout=full)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.startswith(b"earmark: ")
    assert b"No space left" in err
    assert err.count(b"\n") == 1


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="this system has no terminals")
def test_a_terminal_as_raw_audio_is_refused(model: str) -> None:
    outer, inner = os.openpty()
    process = launch("detect", "--model", model, "-", stdin=inner)
    _, err = process.communicate(timeout=60)
    os.close(outer)
    os.close(inner)
    assert process.returncode == 1
    assert b"is a terminal" in err


def test_an_interrupt_within_an_import_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: object) -> int:
        # What a compiled module makes of Ctrl-C while it is being initialized.
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise ImportError("initialization failed") from error

    command = Command("", lambda parser: None, interrupted)
    monkeypatch.setattr(cli, "commands", lambda wanted: {"detect": command})
    assert main(["detect"]) == 130
    assert capsys.readouterr().err == "earmark: interrupted\n"
