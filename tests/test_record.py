"""``earmark record``: the dialogue over made-up audio, the whole through a virtual microphone."""

import json
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import EARMARK
from earmark.runtime import EarmarkError, read_audio, record
from earmark.runtime.cli import main
from earmark.runtime.clips import noise_place, word_place
from earmark.runtime.sources import DeviceBack, DeviceLost, Gap, Piece
from earmark.train.data.corpus import scan
from toy_model import tone
from virtual_microphone import VirtualMicrophone, missing, virtual_microphone

RATE = 16000
QUIET = np.random.default_rng(0).normal(0, 0.001, RATE).astype(np.float32)
WORD = np.concatenate([QUIET, tone(440, 0.5).astype(np.float32) / 32768, QUIET])
LOUD = np.concatenate([QUIET, np.full(RATE // 2, 1.0, np.float32), QUIET])
SPEECH = np.tile(tone(440, 1.0).astype(np.float32) / 32768, 3)


def pieces(*parts: Piece) -> Iterator[Piece]:
    """Audio as a microphone delivers it, 25 ms at a time."""
    for part in parts:
        if isinstance(part, np.ndarray):
            yield from (part[i : i + 400] for i in range(0, len(part), 400))
        else:
            yield part


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_words_are_cut_out_and_numbered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = word_place(tmp_path, "hey robot", "me")
    record.record_word(pieces(WORD, WORD, WORD), place, "hey robot", 2)
    out, err = capsys.readouterr()
    found = events(out)
    assert [Path(clip["file"]).name for clip in found] == ["me_nohash_0.wav", "me_nohash_1.wav"]
    for clip in found:
        pcm = read_audio(clip["file"])
        assert len(pcm) / RATE == clip["seconds"] == pytest.approx(0.9, abs=0.021)
        assert clip["peak_db"] == pytest.approx(-10.5, abs=0.2)
        assert clip["level_db"] == pytest.approx(-13.5, abs=0.2)
    assert err.count("say: hey robot") == 2
    assert place.numbers() == [0, 1]


def test_a_bad_take_is_told_and_asked_for_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = word_place(tmp_path, "go", "me")
    away = [DeviceLost("USB", "unplugged"), DeviceBack("USB", 3.0), Gap(48000)]
    parts: list[Piece] = [np.tile(QUIET, 6), LOUD, QUIET, SPEECH, QUIET, WORD[:20000], *away, WORD]
    record.record_word(pieces(*parts), place, "go", 1)
    out, err = capsys.readouterr()
    assert len(events(out)) == len(place.numbers()) == 1
    reasons = [line for line in err.splitlines() if "not saved" in line]
    for reason, line in zip(["nothing heard", "clipped", "too long"], reasons, strict=False):
        assert reason in line
    assert "audio was lost" in reasons[-1]
    assert "USB is lost (unplugged)" in err
    assert "USB is back" in err


def test_a_device_s_name_is_printed_without_what_a_terminal_obeys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = word_place(tmp_path, "go", "me")
    record.record_word(pieces(DeviceLost("U\x1b[2J", "unplugged"), WORD), place, "go", 1)
    assert "microphone U\\x1b[2J is lost" in capsys.readouterr().err


def test_nobody_there_ends_with_an_error(tmp_path: Path) -> None:
    place = word_place(tmp_path, "go", "me")
    silence = np.tile(QUIET, 6 * record.TAKES_IN_VAIN)
    with pytest.raises(EarmarkError, match=r"10 takes in a row .* nothing heard"):
        record.record_word(pieces(silence, WORD), place, "go", 1)
    assert place.numbers() == []


def test_a_take_is_bounded() -> None:
    source = pieces(np.tile(QUIET, 7))
    pcm, trouble = record.take(source)
    assert pcm is not None
    assert len(pcm) == record.TAKE_SECONDS * RATE
    assert trouble == ""
    assert record.take(source) == (None, "")


def test_noise_is_saved_in_the_length_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = noise_place(tmp_path, "me")
    source = pieces(QUIET, Gap(100), DeviceLost("USB", "unplugged"), QUIET, QUIET)
    record.record_noise(source, place, 1.5)
    (event,) = events(capsys.readouterr().out)
    assert event["seconds"] == 1.5
    assert event["level_db"] == pytest.approx(-60, abs=0.5)
    assert len(read_audio(event["file"])) == 1.5 * RATE


def test_an_interrupt_keeps_the_noise_that_there_is(tmp_path: Path) -> None:
    def interrupted(*parts: np.ndarray) -> Iterator[Piece]:
        yield from parts
        raise KeyboardInterrupt

    place = noise_place(tmp_path, "me")
    with pytest.raises(KeyboardInterrupt):
        record.record_noise(interrupted(QUIET[:400]), place, 10)
    assert place.numbers() == []
    with pytest.raises(KeyboardInterrupt):
        record.record_noise(interrupted(QUIET, QUIET), place, 10)
    assert place.numbers() == [0]
    with pytest.raises(EarmarkError, match="only zeros"):
        record.record_noise(iter([np.zeros(2 * RATE, np.float32)]), place, 1)
    assert place.numbers() == [0]


def test_an_interrupt_ends_with_a_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted:
        name = "USB"

        def __init__(self, device: str | int | None, channel: int | str, rate: int) -> None:
            assert (device, channel, rate) == (3, "mix", RATE)

        def __enter__(self) -> "Interrupted":
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def __iter__(self) -> Iterator[Piece]:
            yield from pieces(DeviceLost("USB", "late"), QUIET, QUIET, WORD, QUIET)
            raise KeyboardInterrupt

    monkeypatch.setattr(record, "Microphone", Interrupted)
    options = ["--noise", "1.5", "--device", "3", "--channel", "mix", "--speaker", "ann"]
    assert main(["record", "go", "-o", str(tmp_path), *options]) == 0
    out, err = capsys.readouterr()
    assert [event["type"] for event in events(out)] == ["noise", "clip"]
    assert err.splitlines()[-2:] == [
        f"earmark: {tmp_path / '_background_noise_'}: 1 by ann now",
        f"earmark: {tmp_path / 'go'}: 1 by ann now",
    ]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ([], "nothing to record"),
        (["go", "--count", "0"], "--count 0"),
        (["go", "--speaker", "a/b"], "--speaker 'a/b'"),
        (["--noise", "0.5"], "--noise 0.5"),
        (["--noise", "5", "--count", "3"], "--count: is for clips of a word"),
        (["--noise", "5", "--split", "train"], "--split: is for clips of a word"),
        (["--noise", "1e9"], "--noise 1e"),
        (["../", "--count", "1"], "is no word"),
        (["go", "--channel", "x"], "--channel x"),
    ],
)
def test_wrong_options_are_told_before_a_microphone_is_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: Sequence[str], reason: str
) -> None:
    assert main(["record", "-o", str(tmp_path), *options]) == 1
    err = capsys.readouterr().err
    assert reason in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("options", [["--noise", "20"], ["go"]])
@pytest.mark.parametrize("output", ["text.wav", "text.wav/mine", "/proc/foo"])
def test_a_folder_that_cannot_be_written_is_told_before_a_microphone_is_opened(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    output: str,
) -> None:
    def opened(*arguments: object) -> None:
        raise AssertionError("the microphone was opened")

    monkeypatch.setattr(record, "Microphone", opened)
    (tmp_path / "text.wav").touch()
    if output == "/proc/foo" and not Path("/proc/self").exists():
        pytest.skip("this system has no /proc")
    assert main(["record", "-o", str(tmp_path / output), *options]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"earmark: {tmp_path / output}/") and "cannot be written" in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["text.wav"]


@contextmanager
def talking(microphone: VirtualMicrophone, pcm: np.ndarray) -> Iterator[None]:
    """Say the same again and again meanwhile."""
    done = threading.Event()

    def talk() -> None:
        while not done.is_set():
            microphone.play(pcm)

    talker = threading.Thread(target=talk)
    talker.start()
    try:
        yield
    finally:
        done.set()
        talker.join()


@pytest.mark.skipif(
    bool(missing()), reason=f"a virtual microphone needs programs not found here: {missing()}"
)
def test_from_a_microphone_to_a_corpus(tmp_path: Path) -> None:
    said = np.concatenate([(WORD * 32767).astype(np.int16), np.zeros(4000, np.int16)])
    command = (*EARMARK, "record", "hey robot", "-o", tmp_path / "mine", "--count", "1")
    (tmp_path / "sound").mkdir()
    with virtual_microphone(tmp_path / "sound") as microphone, talking(microphone, said):
        done = subprocess.run(
            command, env=microphone.environment, capture_output=True, text=True, timeout=120
        )
    assert done.returncode == 0, done.stderr
    (event,) = events(done.stdout)
    assert event["type"] == "clip"
    assert event["seconds"] == pytest.approx(0.9, abs=0.1)
    (clip,) = scan(tmp_path / "mine").clips
    assert (str(clip.path), clip.speaker, clip.split) == (event["file"], "me", "train")
    assert done.stderr.endswith("hey_robot: 1 by me now\n")
