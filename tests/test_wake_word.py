"""What training from a few recordings of one's own takes: shares, free speech, length in steps."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from earmark.export.export import export
from earmark.export.held_out import Trained, measured_corpus
from earmark.export.judge import open_judge
from earmark.runtime.engine import Engine
from earmark.runtime.errors import EarmarkError
from earmark.runtime.layout import hashed_split
from earmark.runtime.manifest import Source
from earmark.train import fit
from earmark.train.data.clips import Clips
from earmark.train.data.corpus import data_fingerprint, scan
from earmark.train.data.dataset import SPEECH, label_set, load_split
from earmark.train.data.epoch import epoch_batches
from earmark.train.data.material import prepare
from earmark.train.data.sources import write_source
from earmark.train.data.speech import word_bounds
from earmark.train.data.stretches import recording_origin, speech_pool
from earmark.train.fit import train
from earmark.train.recipe import Recipe, parse_recipe
from earmark.train.run import load_run, read_history
from earmark.train.run_info import run_info
from tiny_corpus import KEYWORDS, PITCH, RATE, tiny_recipe, word_pcm, write_corpus

LABELS = label_set(KEYWORDS)


def write_own(root: Path, voice: str, clips: int = 3, word: str = "low") -> Path:
    """Recordings of one word by one voice."""
    random = np.random.default_rng(7)
    (root / word).mkdir(parents=True)
    for number in range(clips):
        pcm = word_pcm(PITCH[word], random)
        soundfile.write(root / word / f"{voice}_nohash_{number}.wav", pcm, RATE)
    return root


def write_speech(root: Path, recordings: int = 40, seconds: float = 3.0) -> Path:
    """Recordings whose every sample names the recording that it is of."""
    root.mkdir()
    for number in range(recordings):
        pcm = np.full(round(seconds * RATE), 1000 + number, np.int16)
        soundfile.write(root / f"{number}.wav", pcm, RATE)
    return root


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_own(tmp_path_factory.mktemp("own") / "mine", "ann")


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speech(tmp_path_factory.mktemp("speech") / "talk")


@pytest.fixture(scope="module")
def recipe(
    corpus: Path, own: Path, speech: Path, tmp_path_factory: pytest.TempPathFactory
) -> Recipe:
    plain = tiny_recipe(corpus, steps_per_epoch=5, epochs=3, batch=16)
    cache = str(tmp_path_factory.mktemp("cache"))
    return with_data(plain, own=(str(own),), speech=(str(speech),), cache=cache)


@pytest.fixture(scope="module")
def run_dir(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(recipe, tmp_path_factory.mktemp("runs") / "word")


def with_data(recipe: Recipe, **fields: Any) -> Recipe:
    return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, **fields))


def same_weights(a: Path, b: Path) -> bool:
    first, second = load_run(a).student.state_dict(), load_run(b).student.state_dict()
    return all(torch.equal(first[key], second[key]) for key in first)


def test_training_takes_the_steps_asked_for(recipe: Recipe, run_dir: Path) -> None:
    checkpoint = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 15
    # The schedule ends where training does.
    schedule = checkpoint["lr_schedulers"][0]
    assert schedule["total_steps"] == 15
    assert [line["epoch"] for line in read_history(run_dir)] == [1, 2, 3]
    assert load_run(run_dir).history[-1]["loss"] < load_run(run_dir).history[0]["loss"]


def test_an_interrupted_run_of_steps_gives_the_same_weights(
    recipe: Recipe, run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "interrupted"
    with monkeypatch.context() as patch:
        write = fit._History.on_train_epoch_end

        def stop(self: Any, trainer: Any, module: Any) -> None:
            write(self, trainer, module)
            if trainer.current_epoch == 1:
                raise RuntimeError("power cut")

        patch.setattr(fit._History, "on_train_epoch_end", stop)
        with pytest.raises(RuntimeError, match="power cut"):
            train(recipe, target)
    assert not (target / "student.pt").exists()
    train(recipe, target)
    assert same_weights(run_dir, target)
    assert read_history(target) == read_history(run_dir)


def test_shares_of_own_recordings_and_of_free_speech(recipe: Recipe, corpus: Path, own: Path):
    split = load_split(scan(corpus, own=[own]), LABELS, "train")
    assert split.own is not None and split.own.sum() == 3
    long = dataclasses.replace(
        recipe, train=dataclasses.replace(recipe.train, steps_per_epoch=50, batch=20)
    )
    long = with_data(long, own_share=0.4, unknown=0.5, silence=0.1, speech_share=0.7)
    pool = np.zeros(split.pcm.shape[1] + 1000, np.int16)
    batches = epoch_batches(Clips(split, 3, speech=pool), long, 0, 1, unknown=2)
    assert len(batches) == 50 and {len(batch) for batch in batches} == {20}
    rows = np.concatenate(batches)[:, 0]
    clips = rows[(rows >= 0) & (rows < len(split))]
    low = clips[split.label[clips] == 0]
    assert len(low) == 200 and split.own[low].sum() == 80
    # The other keyword has no recordings of one's own.
    assert (split.label[clips] == 1).sum() == 200
    pieces = rows[rows >= len(split)] - len(split)
    assert len(pieces) == 350 and pieces.min() >= 0 and pieces.max() < 1000
    assert (split.label[clips] == 2).sum() == 150
    # Empty clips have numbers of their own, so that each is filled with other background.
    empty = np.sort(-1 - rows[rows < 0])
    assert len(empty) and (empty == np.arange(len(empty))).all()


def test_rare_words_are_drawn_more_often_the_more_balanced(recipe: Recipe, corpus: Path) -> None:
    split = load_split(scan(corpus), LABELS, "train")
    # One of two other words with a ninth of the other's clips.
    few = np.flatnonzero(split.label == 2)[::10]
    word = split.word.copy()
    word[split.label == 2] = "many"
    word[few] = "few"
    split = dataclasses.replace(split, word=word)
    clips = {name: int((word == name).sum()) for name in ("few", "many")}
    long = dataclasses.replace(
        recipe, train=dataclasses.replace(recipe.train, steps_per_epoch=300, batch=20)
    )
    for balance in (0.0, 0.5, 1.0):
        asked = with_data(long, unknown=0.6, unknown_balance=balance)
        rows = np.concatenate(epoch_batches(Clips(split, 3), asked, 0, 1, unknown=2))[:, 0]
        drawn = word[rows[rows >= 0]]
        wanted = (clips["few"] / clips["many"]) ** (1 - balance)
        assert (drawn == "few").sum() / (drawn == "many").sum() == pytest.approx(wanted, rel=0.1)
        assert (drawn == "few").sum() + (drawn == "many").sum() == 3600


def test_numbered_views_are_of_the_pieces_that_the_split_has(
    recipe: Recipe, corpus: Path, speech: Path
) -> None:
    split = load_split(scan(corpus), LABELS, "train", speech_roots=[speech])
    pool = speech_pool([speech], "train")
    clips = Clips(split, 3, speech=pool, around=1.0, views=2)
    rows = np.concatenate(epoch_batches(clips, recipe, 0, 1, unknown=2))[:, 0]
    spoken = np.flatnonzero(split.word == SPEECH)
    assert rows.max() < len(split) and np.isin(rows, spoken).any()
    # Words stand in speech, speech in no other speech; a view is the same in every use.
    word = int(np.flatnonzero(split.label < 2)[0])
    batch = clips.fetch([(int(spoken[0]), 0), (word, 5), (word, 7), (word, 8)])
    assert np.array_equal(batch.pcm[0].numpy(), split.pcm[spoken[0]])
    assert not np.array_equal(batch.pcm[1].numpy(), split.pcm[word])
    assert torch.equal(batch.pcm[1], batch.pcm[2]) and batch.view.tolist() == [0, 1, 1, 0]
    assert not torch.equal(batch.pcm[1], batch.pcm[3])


def test_pieces_of_free_speech_are_unknown_and_of_the_training_split(
    corpus: Path, speech: Path
) -> None:
    split = load_split(scan(corpus), LABELS, "train", speech_roots=[speech])
    pool = speech_pool([speech], "train")
    names = {n for n in range(40) if hashed_split(f"talk/{n}.wav") == "train"}
    assert set(np.unique(pool) - 1000) == names and len(names) < 40
    clips = Clips(split, 3, speech=pool)
    pcm, label, *_ = clips.__getitems__([(len(split) + 100, 0), (-1, 0), (0, 0)])
    assert label.tolist() == [2, 3, int(split.label[0])]
    assert np.array_equal(pcm[0].numpy(), pool[100 : 100 + RATE])
    assert not pcm[1].any()
    for name in ("train", "validation"):
        loaded = load_split(scan(corpus), LABELS, name, speech_roots=[speech])
        pieces = loaded.word == SPEECH
        assert pieces.sum() == (loaded.label < 2).sum()
        assert (loaded.label[pieces] == 2).all()
        sources = {int(row[0]) - 1000 for row in loaded.pcm[pieces]}
        assert {hashed_split(f"talk/{n}.wav") for n in sources} == {name}


def test_keywords_are_cut_as_often_as_asked_and_then_no_keyword(corpus: Path, speech: Path) -> None:
    split = load_split(scan(corpus), LABELS, "train")
    rows = np.flatnonzero(split.label < 2).tolist()
    uses = [(row, 7 * row) for row in rows]
    plain, alone = Clips(split, 3).fetch(uses).pcm, Clips(split, 3, cut=0.5).fetch(uses)
    other = alone.label == 2
    assert 0.3 < other.float().mean() < 0.7
    assert torch.equal((alone.pcm != plain).any(1), other)
    assert alone.label[~other].tolist() == split.label[rows][~other.numpy()].tolist()
    assert torch.equal(Clips(split, 3, cut=0.5).fetch(uses[::-1]).pcm.flip(0), alone.pcm)
    # Cut first: where a part is left away there is speech, as around the part that is kept.
    pool = speech_pool([speech], "train")
    within = Clips(split, 3, speech=pool, around=1.0, cut=1.0).fetch(uses)
    assert (within.label == 2).all()
    for pcm, full in zip(within.pcm.numpy(), plain.numpy(), strict=True):
        start, stop = word_bounds(full)
        quarter = (stop - start) // 4
        ends = pcm[start : start + quarter], pcm[stop - quarter : stop]
        whole = full[start : start + quarter], full[stop - quarter : stop]
        kept = [np.array_equal(*pair) for pair in zip(ends, whole, strict=True)]
        assert sum(kept) < 2
        assert all(end.any() for end in ends)
    # Of other words, of background, of speech and of what has no label nothing is cut.
    rest = [(row, row) for row in np.flatnonzero(split.label >= 2).tolist()]
    rest += [(len(split), 0), (len(split) + 1, 0), (-1, 0)]
    foreign = np.ones((1, split.pcm.shape[1]), np.int16)
    cut, as_it_is = (Clips(split, 3, foreign, pool, cut=share).fetch(rest) for share in (1.0, 0.0))
    assert torch.equal(cut.pcm, as_it_is.pcm) and torch.equal(cut.label, as_it_is.label)
    assert as_it_is.label[-3:].tolist() == [-1, 2, 3]


def test_words_stand_in_free_speech_as_often_as_asked(corpus: Path, speech: Path) -> None:
    split = load_split(scan(corpus), LABELS, "train")
    pool = speech_pool([speech], "train")
    rows = np.flatnonzero(split.label < 2).tolist()
    uses = [(row, 7 * row) for row in rows]
    plain = Clips(split, 3).__getitems__(uses).pcm
    clips = Clips(split, 3, speech=pool, around=0.5)
    mixed, label, *_ = clips.__getitems__(uses)
    changed = (plain != mixed).any(1).float().mean()
    assert 0.3 < changed < 0.7
    assert label.tolist() == split.label[rows].tolist()
    # What a use of a clip becomes does not depend on its batch; another use is another.
    assert torch.equal(clips.__getitems__(uses[::-1]).pcm.flip(0), mixed)
    assert not torch.equal(clips.__getitems__([(row, 7 * row + 1) for row in rows]).pcm, mixed)


@pytest.mark.parametrize("kind", ["noise", "speech"])
def test_the_fingerprint_covers_noise_and_speech(
    recipe: Recipe, corpus: Path, run_dir: Path, tmp_path: Path, kind: str
) -> None:
    folder = write_speech(tmp_path / "more", recordings=30)
    changed = with_data(recipe, **{kind: (*getattr(recipe.data, kind), str(folder))})
    target = train(changed, tmp_path / "run")
    info = json.loads((target / "run.json").read_text())
    assert info["fingerprint"] != load_run(run_dir).info.fingerprint
    assert {"noise": "background noise", "speech": "free speech"}[kind] in {
        source["role"] for source in info["sources"] if source["name"] == "more"
    }
    (target / "student.pt").unlink()
    soundfile.write(folder / "new.wav", np.ones(3 * RATE), RATE)
    with pytest.raises(EarmarkError, match="its data has changed"):
        train(changed, target)


def test_the_recipe_names_the_sources_of_folders_that_do_not(
    recipe: Recipe, corpus: Path, own: Path, speech: Path, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    shutil.copytree(speech, told)
    talk = Source("Talk", "CC-BY-NC-4.0", "free speech")
    write_source(told, talk)
    kept = {Path(folder).name for folder in (corpus, own)}
    mine = Source("my words", "CC0-1.0")
    for sources, expected in (((), kept | {"Talk"}), ((mine,), {"my words", "Talk"})):
        named = with_data(recipe, speech=(str(told),), sources=sources)
        found = run_info(prepare(named, tmp_path), named, tmp_path / "run", "").sources
        assert {source.name for source in found} == expected and talk in found


def test_no_folders_leave_the_fingerprint_of_the_corpus(corpus: Path) -> None:
    assert data_fingerprint(scan(corpus)) == scan(corpus).fingerprint


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_single_voice_trains_whatever_its_hash(split: str, corpus: Path, tmp_path: Path) -> None:
    voice = next(name for name in map(str, range(1000)) if hashed_split(name) == split)
    mine = write_own(tmp_path / "mine", voice)
    found = scan(corpus, own=[mine])
    assert {clip.split for clip in found.clips if clip.own} == {"train"}
    assert sum(clip.own for clip in found.clips) == 3


def test_lists_hold_in_a_folder_of_ones_own(corpus: Path, tmp_path: Path) -> None:
    mine = write_own(tmp_path / "mine", "ann")
    soundfile.write(mine / "low" / "ann-later_nohash_0.wav", np.ones(RATE), RATE)
    (mine / "validation_list.txt").write_text("low/ann-later_nohash_0.wav\n")
    splits = {clip.speaker: clip.split for clip in scan(corpus, own=[mine]).clips if clip.own}
    assert splits == {"ann": "train", "ann-later": "validation"}


def test_a_single_voice_without_own_is_told_the_fix(tmp_path: Path) -> None:
    recipe = tiny_recipe(write_own(tmp_path / "mine", "ann"))
    with pytest.raises(EarmarkError, match=r"data\.own .*earmark synth in data\.roots"):
        train(dataclasses.replace(recipe, keywords=("low",)), tmp_path / "run")
    recipe = with_data(recipe, own=recipe.data.roots, roots=())
    with pytest.raises(EarmarkError, match=r"data\.roots: .*no validation split"):
        train(recipe, tmp_path / "run")


def test_speech_that_is_all_of_other_splits_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    name = next(n for n in map(str, range(1000)) if hashed_split(f"talk/{n}.wav") != "train")
    (tmp_path / "talk").mkdir()
    soundfile.write(tmp_path / "talk" / f"{name}.wav", np.ones(9 * RATE), RATE)
    with pytest.raises(EarmarkError, match="without keywords of more than a clip's length"):
        train(with_data(recipe, speech=(str(tmp_path / "talk"),)), tmp_path / "run")


def test_takes_of_one_source_and_clips_of_one_speaker_have_one_origin() -> None:
    assert recording_origin("esc/dog/1-30226-A-0.wav") == recording_origin("x/1-30226-B.opus")
    assert recording_origin("esc/1-30226-A-0.wav") != recording_origin("esc/2-30226-A-0.wav")
    assert recording_origin("a/ann_nohash_0.wav") == recording_origin("b/ann_nohash_1.wav")
    assert recording_origin("a/rain.wav") != recording_origin("b/rain.wav")


def test_a_run_starts_from_another_and_keeps_the_rows_of_common_labels(
    run_dir: Path,
) -> None:
    first = load_run(run_dir)
    student = fit.Student(3, first.recipe.student, first.recipe.features)
    head = {name: value.clone() for name, value in student.head.state_dict().items()}
    fit._start_from(student, ("other", "_unknown_", "_silence_"), first)
    old, new = first.student.state_dict(), student.state_dict()
    assert all(torch.equal(new[k], old[k]) for k in old if not k.startswith("head."))
    assert torch.equal(new["head.weight"][1:], old["head.weight"][2:])
    assert torch.equal(new["head.weight"][0], head["weight"][0])


def test_the_run_that_was_started_from_is_on_record(
    recipe: Recipe, run_dir: Path, tmp_path: Path
) -> None:
    settings = dataclasses.replace(recipe.train, init=str(run_dir), epochs=1)
    target = train(dataclasses.replace(recipe, train=settings), tmp_path / "run")
    assert load_run(target).info.init_sha256 == load_run(run_dir).weights_sha256
    wide = dataclasses.replace(recipe.student, width=12)
    with pytest.raises(EarmarkError, match=r"train\.init: .* another shape"):
        train(dataclasses.replace(recipe, train=settings, student=wide), tmp_path / "wide")


def test_what_was_learned_before_is_known_to_whoever_measures(
    recipe: Recipe, run_dir: Path, own: Path, tmp_path: Path
) -> None:
    """A run that hears nothing but the corpus, of weights that started from a run's of one's own
    recordings: those are as little held out as if it had heard them itself."""
    plain, start = with_data(recipe, own=(), speech=()), run_dir
    for name in ("second", "third"):
        settings = dataclasses.replace(recipe.train, init=str(start), epochs=1)
        start = train(dataclasses.replace(plain, train=settings), tmp_path / name)
    exported = export(start, tmp_path / "model.onnx").model
    for name in (start, exported):
        [trained] = open_judge(str(name)).trained
        assert trained.own == {"mine"} and trained.speech == {"talk"}
        assert {clip.split for clip in measured_corpus([own], [trained]).clips} == {"train"}
    # Manifests of before have no such field.
    assert Trained.of("old", dataclasses.asdict(plain), ()).own == frozenset()


def test_words_that_are_left_out_train_nothing(recipe: Recipe, corpus: Path, tmp_path: Path):
    material = prepare(recipe, tmp_path)
    other = next(w for w in material.splits["train"].word if w not in (*LABELS, SPEECH))
    less = prepare(with_data(recipe, leave_out=[str(other)]), tmp_path)
    assert other not in less.splits["train"].word
    assert (less.splits["validation"].word == other).sum() == (
        material.splits["validation"].word == other
    ).sum()
    # What is exported is calibrated on what was trained on.
    run = train(with_data(recipe, leave_out=[str(other)]), tmp_path / "run")
    exported = export(run, tmp_path / "model.onnx")
    found = Engine(exported.model).manifest.metrics["int8_streaming"]["others"]
    assert found[str(other)]["support"] == (material.splits["validation"].word == other).sum()
    with pytest.raises(EarmarkError, match="has no class 'absent'"):
        prepare(with_data(recipe, leave_out=["absent"]), tmp_path)
    with pytest.raises(EarmarkError, match=r"data\.leave_out: expected no keyword"):
        parse_recipe({"name": "a", "keywords": ["b"], "data": {"leave_out": ["b"]}}, "x.toml")
