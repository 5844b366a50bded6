"""Free speech in which keywords are said: what its transcripts leave of it."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from earmark.runtime.cli import main
from earmark.runtime.errors import EarmarkError
from earmark.train.collect.espeak import synthesizer
from earmark.train.data.corpus import data_fingerprint, scan
from earmark.train.data.dataset import load_split
from earmark.train.data.sources import read_sources
from earmark.train.data.stretches import speech_pool, speech_recordings
from earmark.train.data.transcripts import (
    LEAST,
    MARGIN,
    Said,
    Transcript,
    ctm,
    read_transcripts,
    without_keywords,
)
from hypothesis import given
from hypothesis import strategies as st
from tiny_corpus import write_corpus

RATE = 16000
INFINITE = float("inf")


def write_ramp(folder: Path, name: str, seconds: float) -> Path:
    """A recording whose samples tell how many 10 ms after its start they are."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pcm = np.repeat(np.arange(round(seconds * 100), dtype=np.int16) + 1, RATE // 100)
    soundfile.write(path, pcm, RATE)
    return path


def said(start: float, end: float, *words: str) -> Said:
    return Said(start, end, frozenset(words))


def test_stretches_end_before_a_keyword_and_go_on_after_it(tmp_path: Path) -> None:
    write_ramp(tmp_path, "talk/a b.wav", 10)
    transcript = Transcript((said(4.0, 4.5, "know", "no"), said(7.0, 7.5, "yes")))
    (tmp_path / "words.ctm").write_text(ctm({"talk/a b": transcript}))
    assert read_transcripts(tmp_path) == {"talk/a b": transcript}
    found = speech_recordings([tmp_path], "all", ["no", "_unknown_"], tmp_path / "cache")
    assert [name for name, _ in found] == [f"{tmp_path.name}/talk/a b.wav"] * 2
    before, after = (pcm for _, pcm in found)
    assert (before[0], before[-1]) == (1, round((4 - MARGIN) * 100))
    assert (after[0], after[-1]) == (round((4.5 + MARGIN) * 100) + 1, 1000)
    pool = speech_pool([tmp_path], "all", ["no"], tmp_path / "cache")
    assert np.array_equal(pool, np.concatenate([before, after]))
    # Other keywords leave other stretches, whatever is kept of earlier ones.
    [(_, whole)] = speech_recordings([tmp_path], "all", ["go"], tmp_path / "cache")
    assert len(whole) == 10 * RATE


def test_pieces_say_where_in_the_recording_they_are(tmp_path: Path) -> None:
    corpus = scan(write_corpus(tmp_path / "corpus"))
    for number in range(10):
        write_ramp(tmp_path / "talk", f"{number}.wav", 6)
    table = {str(n): Transcript((said(2.0, 2.5, "low"),)) for n in range(10)}
    (tmp_path / "talk" / "words.ctm").write_text(ctm(table))
    labels = ("low", "high", "_unknown_", "_silence_")
    split = load_split(corpus, labels, "train", speech_roots=[tmp_path / "talk"])
    rows = np.flatnonzero(split.word == "_speech_")
    assert len(rows)
    for pcm, path in zip(split.pcm[rows], split.path[rows], strict=True):
        second = float(path.rpartition("#t=")[2])
        assert abs(pcm[0] - 1 - 100 * second) <= 1
        assert second + 1 <= 2 - MARGIN + 1e-3 or second >= 2.5 + MARGIN - 1e-3


def test_the_fingerprint_covers_transcripts(tmp_path: Path) -> None:
    corpus = scan(write_corpus(tmp_path / "corpus"))
    write_ramp(tmp_path / "talk", "a.wav", 3)
    before = data_fingerprint(corpus, tmp_path / "talk")
    (tmp_path / "talk" / "words.ctm").write_text("a 1 0.5 0.2 no\n")
    assert data_fingerprint(corpus, tmp_path / "talk") != before


def test_librispeech_has_no_times(tmp_path: Path) -> None:
    for number in range(2):
        write_ramp(tmp_path, f"84/121123/84-121123-000{number}.wav", 3)
    (tmp_path / "84/121123/84-121123.trans.txt").write_text(
        "84-121123-0000 GO DO YOU HEAR\n\n84-121123-0001 BUT IN LESS THAN FIVE MINUTES\n"
    )
    [(name, pcm)] = speech_recordings([tmp_path], "all", ["go", "no"])
    assert name.endswith("84-121123-0001.wav")
    assert len(pcm) == 3 * RATE


def test_a_recording_without_a_word_is_known(tmp_path: Path) -> None:
    (tmp_path / "words.ctm").write_text(ctm({"quiet": Transcript(())}))
    assert read_transcripts(tmp_path) == {"quiet": Transcript(())}


def test_a_table_goes_before_librispeech_recording_by_recording(tmp_path: Path) -> None:
    (tmp_path / "84-1.trans.txt").write_text("84-1-0000 GO ON\n84-1-0001 GO ON\n")
    (tmp_path / "words.ctm").write_text("84-1-0001.wav 1 0.5 0.2 go\n")
    found = read_transcripts(tmp_path)
    assert [found[f"84-1-000{n}"].timed for n in range(2)] == [False, True]


def test_a_folder_may_be_named_twice_or_lie_in_another(tmp_path: Path) -> None:
    for name in ("a/1", "b/1", "c"):
        write_ramp(tmp_path, f"{name}.wav", 2)
    folders = [tmp_path, tmp_path / "a", tmp_path / "a", tmp_path]
    assert len(speech_recordings(folders, "all", ["no"])) == 3 + 1 + 1 + 3


def test_recordings_without_a_transcript_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b"):
        write_ramp(tmp_path, f"{name}.wav", 2)
    (tmp_path / "words.ctm").write_text("a 1 0.5 0.2 go\nc 1 0.5 0.2 go\n")
    speech_pool([tmp_path], "all", ["no"])
    assert "1 of 2 recordings have no transcript, 1 transcripts no recording" in caplog.text
    caplog.clear()
    (tmp_path / "words.ctm").unlink()
    speech_pool([tmp_path], "all", ["no"])
    assert not caplog.text


@pytest.mark.parametrize(
    ("keyword", "words"),
    [("x-ray", "x ray"), ("x ray", "x-ray"), ("hey_robot", "hey robot"), ("Café", "cafe\u0301")],
)
def test_a_keyword_is_found_however_it_is_spelt(keyword: str, words: str) -> None:
    places = [said(i + 3, i + 3.5, word) for i, word in enumerate(words.split())]
    assert len(without_keywords(Transcript(tuple(places)), [keyword])) == 2


@pytest.mark.parametrize("keyword", ["straße", "STRASSE", "λόγος", "ΛΌΓΟΣ", "İzmir", "hey Straße"])
def test_a_keyword_is_found_whatever_its_case(tmp_path: Path, keyword: str) -> None:
    lines = "".join(f"a 1 {3 + i} 0.5 {word}\n" for i, word in enumerate(keyword.split()))
    (tmp_path / "words.ctm").write_text(lines, encoding="utf-8")
    (tmp_path / "1-2.trans.txt").write_text(f"1-2-0 {keyword}\n", encoding="utf-8")
    transcripts = read_transcripts(tmp_path)
    for spelt in (keyword, keyword.upper(), keyword.lower()):
        assert len(without_keywords(transcripts["a"], [spelt])) == 2
        assert without_keywords(transcripts["1-2-0"], [spelt]) == []
    assert len(without_keywords(transcripts["a"], ["other"])) == 1


def test_a_keyword_of_two_words_is_both_of_them_in_a_row() -> None:
    words = (said(1, 1.3, "hey"), said(3, 3.3, "hay", "hey"), said(3.4, 4, "computer"))
    found = without_keywords(Transcript(words), ["Hey Computer"])
    assert found == [(0.0, 3 - MARGIN), (4 + MARGIN, INFINITE)]


@given(
    st.lists(
        st.tuples(st.floats(0, 60), st.floats(0, 2), st.sampled_from(["no", "yes", "and"])),
        max_size=12,
    )
)
def test_what_is_left_holds_no_keyword_and_all_else(words: list[tuple[float, float, str]]) -> None:
    transcript = Transcript(tuple(said(at, at + length, word) for at, length, word in words))
    left = without_keywords(transcript, ["no", "yes"])
    bad = [(at, at + length) for at, length, word in words if word != "and"]
    assert left == sorted(left)
    assert all(stop - start >= LEAST for start, stop in left)
    assert not any(start < last and first < stop for start, stop in left for first, last in bad)
    for moment in np.arange(0, 70, 0.5).tolist():
        far = all(moment < a - MARGIN - LEAST or moment > b + MARGIN + LEAST for a, b in bad)
        inside = any(start <= moment <= stop for start, stop in left)
        assert inside or not far or moment < LEAST


@pytest.mark.parametrize("line", ["a 1 0.5\n", "a 1 x 0.2 no\n", "a 1 4 -1 no\n", "a 1 nan 1 no"])
def test_a_damaged_table_is_told_with_its_line(tmp_path: Path, line: str) -> None:
    write_ramp(tmp_path, "a.wav", 2)
    (tmp_path / "words.ctm").write_text(";; by hand\na 1 0.5 0.2 no\n" + line)
    with pytest.raises(EarmarkError, match=r"words\.ctm: line 3: expected recording"):
        speech_pool([tmp_path], "all", ["no"])


def test_transcribe_finds_a_word_and_what_sounds_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("pocketsphinx")
    engine = synthesizer()
    raw = engine.speak("right", "en-us", words_per_minute=140, pitch=40, pitch_range=50)
    pcm = np.pad(raw, (engine.rate // 2, engine.rate // 2))
    folder = tmp_path / "talk"
    folder.mkdir()
    soundfile.write(folder / "said.wav", pcm, engine.rate)
    soundfile.write(folder / "silent.wav", np.zeros(engine.rate, np.int16), engine.rate)
    (folder / "bad.wav").write_bytes(b"no audio")
    assert main(["transcribe", str(folder), "--workers", "1"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert [report[key] for key in ("recordings", "heard", "unreadable")] == [3, 2, 1]
    assert "bad.wav" in caplog.text
    # What is known is not heard again, a recording without a word among it.
    (folder / "bad.wav").unlink()
    [word] = [said for said in read_transcripts(folder)["said"].said if "right" in said.words]
    assert "write" in word.words
    named = {source.role: source.name for source in read_sources(folder)}
    assert (named["free speech"], named["transcripts"][:12]) == ("talk", "PocketSphinx")
    assert 0.4 < word.start < word.end < len(pcm) / engine.rate - 0.3
    assert main(["transcribe", str(folder), "--workers", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["heard"] == 0


def test_what_is_heard_does_not_depend_on_what_was_heard_before(tmp_path: Path) -> None:
    pytest.importorskip("pocketsphinx")
    engine = synthesizer()
    low, high = (
        engine.speak(text, "en-us", words_per_minute=speed, pitch=pitch, pitch_range=50)
        for text, speed, pitch in (
            ("now go to the right and stop there at once", 140, 20),
            ("she had your dark suit in greasy wash water all year", 190, 80),
        )
    )
    for folder in ("alone", "after"):
        (tmp_path / folder).mkdir()
        soundfile.write(tmp_path / folder / "b.wav", low, engine.rate)
    soundfile.write(tmp_path / "after" / "a.wav", high, engine.rate)
    alone, after = (tmp_path / folder for folder in ("alone", "after"))
    for folder in (alone, after):
        assert main(["transcribe", str(folder), "--workers", "1"]) == 0
    assert read_transcripts(alone)["b"] == read_transcripts(after)["b"]


def test_transcribe_names_a_folder_without_audio(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["transcribe", str(tmp_path)]) == 1
    assert f"{tmp_path}: no audio files" in capsys.readouterr().err
