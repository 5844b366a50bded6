"""Golden vectors: what is in them, and that they tell a right implementation from a wrong one."""

import json
import shutil
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import toy_model
from command import EARMARK
from earmark.export.golden import INDEX, check_port, write_golden
from earmark.runtime import EarmarkError, Engine
from earmark.runtime.cli import main


@pytest.fixture(scope="module")
def vectors(model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    tones = folder / "Two tones.wav"
    save_wav(tones, toy_model.scene())
    write_golden(Engine(model), folder, [tones])
    tones.unlink()
    return folder


@pytest.fixture(scope="module")
def few(vectors: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with fewer recordings, as each case starts a process."""
    folder = tmp_path_factory.mktemp("few")
    shutil.copytree(vectors, folder, dirs_exist_ok=True)
    content = index(folder)
    content["recordings"] = [
        entry for entry in content["recordings"] if entry["name"] in ("empty", "two_tones")
    ]
    (folder / INDEX).write_text(json.dumps(content))
    return folder


def save_wav(path: Path, pcm: np.ndarray) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(pcm.astype("<i2").tobytes())


def index(folder: Path) -> dict:
    return json.loads((folder / INDEX).read_text())


def test_the_folder_holds_what_its_index_says_and_no_more(vectors: Path) -> None:
    names = {INDEX, "README.txt"}
    for entry in index(vectors)["recordings"]:
        assert (vectors / entry["pcm"]).stat().st_size == 2 * entry["samples"]
        assert (vectors / entry["posteriors"]).stat().st_size == 4 * 4 * entry["rows"]
        names |= {entry["pcm"], entry["posteriors"]}
    assert {path.name for path in vectors.iterdir()} == names
    assert sum(path.stat().st_size for path in vectors.iterdir()) < 1_500_000


def test_the_awkward_cases_are_in(vectors: Path) -> None:
    found = {entry["name"]: entry for entry in index(vectors)["recordings"]}
    chunk = 1280
    assert found["empty"]["samples"] == 0 and found["empty"]["rows"] == 28
    lengths = {entry["samples"] % chunk for entry in found.values()}
    assert 0 in lengths and len(lengths) > 3
    clipped = np.fromfile(vectors / "clipping.pcm", "<i2")
    assert np.mean(clipped == 32767) > 0.2 and np.mean(clipped == -32768) > 0.2
    assert not np.fromfile(vectors / "silence.pcm", "<i2").any()
    assert [d["keyword"] for d in found["two_tones"]["cases"][0]["detections"]] == [
        *("low", "high", "low")
    ]
    ended = [
        (detection["time"], entry["samples"] / 16000)
        for entry in found.values()
        for case in entry["cases"]
        for detection in case["detections"]
    ]
    assert all(time <= round(seconds, 4) for time, seconds in ended)


def test_posteriors_are_those_of_the_engine(vectors: Path, model: str) -> None:
    (entry,) = [e for e in index(vectors)["recordings"] if e["name"] == "two_tones"]
    rows = np.fromfile(vectors / entry["posteriors"], "<f4").reshape(entry["rows"], 4)
    logits = Engine(model).scorer().feed(np.fromfile(vectors / entry["pcm"], "<i2"))
    powers = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(
        rows[: len(logits)], powers / powers.sum(1, keepdims=True), atol=1e-6
    )


def test_written_again_they_are_the_same(vectors: Path, model: str, tmp_path: Path) -> None:
    tones, again = tmp_path / "two tones.wav", tmp_path / "again"
    save_wav(tones, toy_model.scene())
    for _ in range(2):
        assert main(["golden", model, "-o", str(again), "--audio", str(tones)]) == 0
    for path in vectors.iterdir():
        # What a synthesizer says depends on what it said before, in this process.
        if not path.name.startswith("words") and path.name != INDEX:
            assert path.read_bytes() == (again / path.name).read_bytes(), path.name


def test_earmark_itself_agrees(few: Path, model: str) -> None:
    found = dict(check_port(few, [*EARMARK, "detect", "-", "--model", model]))
    assert len(found) > len(index(few)["recordings"])  # some have a low threshold, too
    assert set(found.values()) == {""}


@pytest.mark.parametrize(
    ("program", "difference"),
    [
        ("", "0 detections, expected"),
        ("print('no JSON')", "is not a JSON line"),
        ("print('[1]')", "is not a JSON line"),
        ("raise SystemExit('no model')", "exit status 1: no model"),
        (
            'print(\'{"keyword": "low", "time": 1.5, "score": 0.9}\')',
            "expected low at",
        ),
    ],
)
def test_a_wrong_implementation_is_told(few: Path, program: str, difference: str) -> None:
    found = dict(check_port(few, [sys.executable, "-c", program]))
    assert difference in found["two_tones"]


def test_scores_are_compared(few: Path) -> None:
    (entry,) = [e for e in index(few)["recordings"] if e["name"] == "two_tones"]
    lines = [json.dumps(d | {"score": d["score"] - 0.002}) for d in entry["cases"][0]["detections"]]
    found = dict(check_port(few, [sys.executable, "-c", f"print({chr(10).join(lines)!r})"]))
    assert found["two_tones"].startswith("detection 0 has score")


def test_without_audio_a_port_may_refuse_but_not_crash(few: Path) -> None:
    for program, difference in (
        ("raise SystemExit('no audio')", ""),
        ("raise SystemExit(1)", "exit status 1: no message"),
        ("print('{}'); raise SystemExit('late')", "exit status 1: late"),
        ("import os; os.abort()", "exit status -6: "),
    ):
        found = dict(check_port(few, [sys.executable, "-c", program]))
        assert found["empty"].startswith(difference) and bool(found["empty"]) == bool(difference)


def test_the_verb_fails_where_a_case_differs(few: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-port", str(few), sys.executable, "-c", "pass"]) == 1
    captured = capsys.readouterr()
    assert "differs in" in captured.err and "two_tones: 0 detections" in captured.out


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", '{"format": 1, "recordings": [1]}', '{"format": 1, "recordings": []}'),
        '{"format": 1, "recordings": [{"name": "a", "pcm": "a.pcm", "cases": [{}]}]}',
        '{"format": 1, "recordings": [{"name": "a", "pcm": "/a.pcm", "cases": '
        '[{"threshold": null, "detections": []}]}]}',
    ],
)
def test_another_folder_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(EarmarkError, match="is no index of golden vectors"):
        list(check_port(tmp_path, ["true"]))


def test_recordings_are_named_once_and_short(model: str, tmp_path: Path) -> None:
    path = tmp_path / "silence.wav"
    save_wav(path, np.zeros(16000))
    with pytest.raises(EarmarkError, match="there is a recording silence already"):
        write_golden(Engine(model), tmp_path / "golden", [path])
    save_wav(path.with_name("long.wav"), np.zeros(61 * 16000))
    with pytest.raises(EarmarkError, match="lasts 61 s"):
        write_golden(Engine(model), tmp_path / "golden", [path.with_name("long.wav")])
    assert not (tmp_path / "golden").exists()
