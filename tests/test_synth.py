"""The synthetic corpus: determinism, splits, levels, other words, errors."""

import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from earmark.runtime.errors import EarmarkError
from earmark.runtime.layout import hashed_split
from earmark.runtime.manifest import Source
from earmark.train.data.corpus import scan
from earmark.train.data.dataset import label_set, load_split
from earmark.train.data.stretches import noise_pool

pytest.importorskip("espeakng_loader")

from earmark.train.collect import espeak, synth
from earmark.train.collect.confusable import confusable_words
from earmark.train.collect.synth import SOURCE, speaker_id, synthesize

KEYWORDS = ["yes", "Hey computer"]


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Several blocks' worth of clips, so that several processes have work."""
    target = tmp_path_factory.mktemp("synth") / "words"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synth, "_BLOCK", 40)
        written = synthesize(KEYWORDS, target, clips=20, workers=2)
    assert (written.clips, written.kept, len(written.others)) == (120, 0, synth.AUTO_WORDS)
    return target


def again(target: Path, workers: int, **options) -> synth.Written:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synth, "_BLOCK", 40)
        return synthesize(KEYWORDS, target, clips=20, workers=workers, **options)


def test_the_same_from_any_number_of_processes(folder: Path, tmp_path: Path) -> None:
    again(tmp_path / "words", 1)
    assert digests(tmp_path / "words") == digests(folder)


def test_a_rerun_writes_what_is_missing(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "words"
    shutil.copytree(folder, target)
    lost = sorted(target.rglob("*.wav"))[::7]
    for path in lost:
        path.unlink()
    assert again(target, 2).kept == 120 - sum("_background_noise_" not in str(p) for p in lost)
    assert digests(target) == digests(folder)


def test_another_seed_is_another_corpus(folder: Path, tmp_path: Path) -> None:
    again(tmp_path / "words", 2, seed=1, other=["no", "maybe"])
    one, two = digests(folder), digests(tmp_path / "words")
    same = [name for name in one if name.endswith(".wav") and one[name] == two.get(name)]
    assert same == []


def test_it_is_a_corpus_with_all_splits(folder: Path, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        corpus = scan(folder)
        corpus.require(KEYWORDS, ("train", "validation", "test"), at_least=2)
        split = load_split(corpus, label_set(KEYWORDS), "all")
    assert caplog.text == ""
    assert split.skipped == 0
    assert np.bincount(split.label).tolist() == [20, 20, 80, 4]
    assert corpus.sources == (SOURCE,)
    assert Source(**json.loads((folder / "sources.json").read_text())[0]) == SOURCE
    assert (folder / "hey_computer").is_dir()
    assert len(corpus.noise) == 8


def test_clips_are_whole_words_at_sane_levels(folder: Path) -> None:
    peaks = []
    for clip in scan(folder).clips:
        data = clip.path.read_bytes()
        assert data[:4] == b"RIFF"
        pcm = np.frombuffer(data, "<i2", offset=44) / 32768
        assert 1.0 <= len(pcm) / 16000 < 3
        peak = np.abs(pcm).max()
        peaks.append(peak)
        assert 10 ** (-24.5 / 20) < peak < 10 ** (-2.5 / 20)
        # The word does not touch an end of the clip.
        assert not pcm[:100].any() and not pcm[-100:].any()
        assert np.count_nonzero(np.abs(pcm) > 0.05 * peak) > 0.04 * 16000
    assert np.std(20 * np.log10(peaks)) > 3


def test_speakers_sound_different(folder: Path) -> None:
    """Mean spectrum of each clip of one word; no two are alike."""
    spectra = []
    for path in sorted((folder / "yes").glob("*.wav")):
        pcm = np.frombuffer(path.read_bytes(), "<i2", offset=44).astype(float)
        power = np.abs(np.fft.rfft(pcm / np.abs(pcm).max(), 32768)) ** 2
        bands = np.log(np.add.reduceat(power, np.arange(0, 16000, 400)) + 1e-3)
        spectra.append(bands - bands.mean())
    distance = [np.abs(a - b).mean() for i, a in enumerate(spectra) for b in spectra[:i]]
    assert len(spectra) == 20 and min(distance) > 0.2


def test_noise_is_loud_long_and_not_clipped(folder: Path) -> None:
    for pcm in noise_pool(scan(folder), "all"):
        assert len(pcm) == synth.NOISE_SECONDS * 16000
        level = pcm / 32768
        assert 0.4 < np.abs(level).max() < 0.51
        assert np.sqrt(np.mean(level**2)) > 0.005
        # There is sound in every split, not only at the begin.
        assert all(part.std() > 0.001 for part in np.array_split(level, 10))


def test_speakers_of_voices_fall_into_all_splits() -> None:
    splits = [hashed_split(speaker_id(v)) for v in espeak.synthesizer().variants]
    assert len(splits) > 90
    assert splits.count("validation") >= 5 and splits.count("test") >= 5
    for seed in range(5):
        order = synth._speaker_order(espeak.synthesizer().variants, seed)
        assert sorted(order) == sorted(espeak.synthesizer().variants)
        first = {hashed_split(speaker_id(v)) for v in order[:10]}
        assert first == {"train", "validation", "test"}


def test_confusable_words() -> None:
    words = confusable_words(["right", "no"], 60)
    assert len(words) == len(set(words)) == 60
    assert words == confusable_words(["right", "no"], 60)
    assert not {"right", "write", "no", "know"} & set(words)
    assert {"bright", "light"} & set(words[:30]) and "note" in words[:30]
    assert set(words[30:]) != set(confusable_words(["right", "no"], 60, seed=1)[30:])
    assert confusable_words(["hey computer"], 10)[:2] == ("hey", "computer")


def test_too_long_a_word_gets_a_longer_clip(tmp_path: Path) -> None:
    word = "incomprehensibilities and internationalization"
    synthesize([word], tmp_path / "w", other=["no"], clips=1, workers=1)
    [clip] = [c for c in scan(tmp_path / "w").clips if c.word != "no"]
    pcm = np.frombuffer(clip.path.read_bytes(), "<i2", offset=44)
    assert len(pcm) > 1.5 * 16000
    assert not pcm[:100].any() and not pcm[-100:].any()


def test_another_language(tmp_path: Path) -> None:
    written = synthesize(["ja"], tmp_path / "w", other=["jahr"], clips=2, language="de", workers=1)
    assert written.clips == 4
    with pytest.raises(EarmarkError, match="list of other words is English"):
        synthesize(["ja"], tmp_path / "v", language="de")


@pytest.mark.parametrize(
    ("words", "options", "message"),
    [
        ([], {}, "no keywords"),
        ([""], {}, "no letter"),
        (["..."], {}, "no letter"),
        (["yes"], {"language": "xx"}, "'xx': not known"),
        (["yes"], {"clips": 0}, "0 clips"),
        (["yes"], {"clip_seconds": 99}, "99 s"),
        (["right"], {"other": ["write"]}, "'write': sounds like a keyword"),
        (["yes"], {"other": ["Yes"]}, "sounds like a keyword"),
        (["yes"], {"other": [""]}, "word ''"),
        (["y" * 101], {}, "nothing in it"),
    ],
)
def test_errors_are_one_line(tmp_path: Path, words, options, message) -> None:
    with pytest.raises(EarmarkError, match=message) as caught:
        synthesize(words, tmp_path / "w", **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "w").exists()


def test_a_folder_of_something_else_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(EarmarkError, match="holds other files"):
        synthesize(["yes"], tmp_path)
    with pytest.raises(EarmarkError, match=r'made with .*"seed": 0'):
        synthesize(KEYWORDS, folder, seed=5)


def test_a_word_of_an_earlier_call_that_sounds_like_a_keyword_is_refused(tmp_path: Path) -> None:
    synthesize(["yes"], tmp_path, other=["write", "no"], clips=1, workers=1)
    synthesize(["stop"], tmp_path, other=["no"], clips=1, workers=1)
    with pytest.raises(EarmarkError, match=f"^{tmp_path / 'write'}: sounds like a keyword"):
        synthesize(["right"], tmp_path, other=["no"], clips=1, workers=1)
    synthesize(["write"], tmp_path, other=["no"], clips=1, workers=1)


def test_other_folders_beside_those_of_earlier_calls_are_left_alone(tmp_path: Path) -> None:
    synthesize(["yes"], tmp_path, other=["no"], clips=1, workers=1)
    for name in ("Yes", "Write", "write (2)"):
        shutil.copytree(tmp_path / "no", tmp_path / name)
    (tmp_path / "write").mkdir()
    (tmp_path / os.fsdecode(b"caf\xe9")).mkdir()
    synthesize(["yes", "right"], tmp_path, other=["no"], clips=1, workers=1)


def test_missing_voice_data_is_one_line(tmp_path: Path) -> None:
    code = f"""
import espeakng_loader
espeakng_loader.get_data_path = lambda: {str(tmp_path)!r}
from earmark.runtime.errors import EarmarkError
from earmark.train.collect.espeak import synthesizer
try:
    synthesizer()
except EarmarkError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "finds no voice data there" in done.stdout and "espeakng-loader" in done.stdout


def test_an_error_in_a_process_reaches_the_caller(tmp_path: Path) -> None:
    """A file where the folder of a class should be."""
    target = tmp_path / "w"
    synthesize(["yes"], target, other=["no"], clips=1, workers=1)
    (target / "up").write_text("in the way")
    with pytest.raises(EarmarkError, match="up"):
        synthesize(["yes", "up"], target, other=["no"], clips=1, workers=1)


@pytest.mark.skipif(os.name != "posix", reason="signals a process group")
def test_an_interrupt_leaves_whole_clips_and_a_rerun_goes_on(tmp_path: Path) -> None:
    target = tmp_path / "w"
    code = """
import signal, sys
from earmark.train import cli_data
if __name__ == "__main__":
    from argparse import ArgumentParser
    # A shell that runs the tests in the background has it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    parser = ArgumentParser()
    cli_data.synth.configure(parser)
    try:
        sys.exit(cli_data.synth.run(parser.parse_args()))
    except KeyboardInterrupt:
        sys.exit(130)
"""
    script = tmp_path / "run.py"
    script.write_text(code)
    command = [sys.executable, str(script), "yes", "-o", str(target), "--other", "no"]
    command += ["--clips", "4000", "--workers", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and len(list(target.glob("yes/*.wav"))) < 20:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr.decode()
    assert stderr == b""
    files = [path for path in target.rglob("*") if path.is_file()]
    assert 20 <= len(files) < 4000
    assert not any(path.name.startswith(".") for path in files)
    split = load_split(scan(target), label_set(["yes"]), "all")
    assert split.skipped == 0
    # What is there is not made again.
    made = synthesize(["yes"], target, other=["no"], clips=10, workers=1)
    assert made.kept > 0 and made.clips + made.kept == 20
