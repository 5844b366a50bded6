"""``earmark listen`` when things go wrong: the device, the output, the patience of its user."""

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command import launch
from waiting import wait_until

FAKE = [sys.executable, str(Path(__file__).parent / "fake_microphone.py")]


def listen(script: str, *options: str, **where: object) -> subprocess.Popen[str]:
    return launch(script, "listen", *options, program=FAKE, text=True, **where)


def events(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_device_that_is_lost_and_back_is_told(model: str) -> None:
    process = listen("replugged", "--model", model)
    out, err = process.communicate(timeout=60)
    found = events(out)
    kinds = ["detection", "device_lost", "device_back", "gap", "detection", "detection", "ended"]
    assert [event["type"] for event in found] == kinds
    assert {event["source"] for event in found} == {"fake"}
    assert all(event["at"].endswith("Z") for event in found)
    assert [event["at"] for event in found] == sorted(event["at"] for event in found)
    lost, back, gap, ended = (found[i] for i in (1, 2, 3, 6))
    assert (lost["reason"], back["seconds"], gap["seconds"]) == ("no audio for 1 s", 0.6, 0.6)
    assert found[4]["time"] == pytest.approx(2.66 + 0.6, abs=0.09)
    assert ended["time"] == pytest.approx(5.5 + 0.6)
    assert (ended["audio_seconds"], ended["detections"], ended["gaps"]) == (5.5, 3, 1)
    assert (ended["overflows"], ended["dropped_ms"]) == (2, 500)
    # The microphone gave up in the end: that is a failure, with a summary all the same.
    assert process.returncode == 1
    assert err.splitlines() == [
        "earmark: listening on fake at 48000 Hz",
        "earmark: microphone fake is lost (no audio for 1 s): trying to reopen it",
        "earmark: microphone fake is back after 0.6 s",
        err.splitlines()[3],
        "earmark: microphone fake: gave up",
    ]
    assert "3 detections (low 2, high 1), 1 gaps, 2 overflows" in err.splitlines()[3]


def test_the_view_says_that_the_device_is_lost(model: str) -> None:
    outer, inner = pty.openpty()
    process = listen("replugged", "--model", model, stderr=inner)
    os.close(inner)
    drawn = bytearray()
    try:
        while data := os.read(outer, 4096):
            drawn += data
    except OSError:  # how Linux tells that the other end was closed
        pass
    os.close(outer)
    out, _ = process.communicate(timeout=60)
    view, _, after = drawn.decode().rpartition("\x1b[?1049l")
    assert "device lost, reopening (no audio for 1 s)" in view
    assert "is back after 0.6 s" in view
    assert [line[9:32] for line in after.splitlines() if line.startswith("earmark: ")] == [
        "microphone fake is lost",
        "microphone fake is back",
        "listened for 5.5 s, 3 d",
        "microphone fake: gave u",
    ]
    assert events(out)[-1]["type"] == "ended"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("times", [1, 2])
def test_signals_end_cleanly_however_often(model: str, number: signal.Signals, times: int) -> None:
    process = listen("endless", "--model", model)
    assert process.stdout
    process.stdout.readline()
    for _ in range(times):
        process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert events(out)[-1]["type"] == "ended"
    assert "Traceback" not in err
    assert "listened for" in err.splitlines()[-1]


def test_seconds_are_of_audio(model: str) -> None:
    process = listen("endless", "--model", model, "--seconds", "11", "--heartbeat", "5")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    found = events(out)
    assert [event["time"] for event in found if event["type"] == "heartbeat"] == [5, 10]
    assert found[-1]["time"] == 11
    assert found[-1]["detections"] == 6


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_behind_the_output_ends_it_with_a_line(model: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Path("/dev/full").open("wb") as full:
        process = listen("endless", "--model", model, "--log", str(log), stdout=full)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "No space left" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert events(log.read_text())[-1]["type"] == "ended"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_behind_the_log_does_not(model: str) -> None:
    process = listen("endless", "--model", model, "--log", "/dev/full", "--seconds", "11")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert len(events(out)) == 7
    assert err.count("/dev/full: cannot be written") == 1
    assert "events not delivered" in err.splitlines()[-1]


def test_a_closed_pipe_ends_it_quietly(model: str) -> None:
    process = listen("endless", "--model", model)
    assert process.stdout and process.stderr
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=60) == 141
    assert "Traceback" not in process.stderr.read()


def test_a_reader_that_hangs_holds_up_neither_the_audio_nor_the_end(
    model: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    process = listen("endless", "--model", model, "--log", str(log), "--heartbeat", "0.1")
    # Nobody reads. A pipe holds 64 KiB, which is fewer than 400 of these events.
    wait_until(lambda: log.exists() and log.read_text().count("\n") > 1500)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    assert process.stderr and process.stdout
    assert "listened for" in process.stderr.read().splitlines()[-1]
    process.stdout.close()


def test_events_go_everywhere_at_once(model: str, tmp_path: Path) -> None:
    log, heard = tmp_path / "log", tmp_path / "heard"
    process = listen(
        *("endless", "--model", model, "--seconds", "11", "--log", str(log), "--http", "0"),
        *("--exec", f"sh -c 'echo $EARMARK_KEYWORD >> {heard}'"),
    )
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert log.read_text() == out
    words = [event["keyword"] for event in events(out) if event["type"] == "detection"]
    assert sorted(heard.read_text().split()) == sorted(words)
    assert "events are served at http://127.0.0.1:" in err


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--http", "nowhere"], "--http nowhere: give PORT or HOST:PORT"),
        (["--exec", "nosuchcommand"], "--exec nosuchcommand: there is no such command"),
        (["--log", "/nosuch/log"], "--log /nosuch/log: cannot be written"),
        (["--mqtt", "http://x"], "--mqtt http://x: give mqtt://"),
        (["--mqtt", "x", "--mqtt-topic", "{nosuch}"], "--mqtt-topic: there is no {nosuch}"),
    ],
)
def test_wrong_options_get_one_line(model: str, options: list[str], reason: str) -> None:
    process = listen("endless", "--model", model, *options)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert reason in err
    assert err.count("\n") == 1
