"""A starter recipe for a data set: each choice with its reason, as a comment beside it."""

import math
import re
import textwrap
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tomli_w

from ..runtime.errors import EarmarkError
from ..runtime.layout import LISTS, SPEAKER_MARK, folder_name
from ..runtime.manifest import SILENCE, UNKNOWN
from .data.audio_files import find_audio
from .data.corpus import Corpus, scan, wanted_name, with_fold_held_out, with_folds
from .data.decoded import SAMPLE_RATE
from .data.material import require_clips
from .data.survey import Survey
from .recipe import DataSettings, Recipe, parse_recipe
from .teachers.beats_checkpoints import DEFAULT as BEATS

Device = Literal["edge", "server", "gpu"]
FEW, MANY = 1_000, 100_000
"""Clips from which a pre-trained network is worth fine-tuning, and from which one can be trained
from scratch."""
UNEVEN = 3.0
"""Imbalance from which classes are drawn equally often."""
FOLD_PATTERN = r"(\d+)-"
"""How data sets after ESC-50 put the fold into a file name."""
_MAX_CLIP, _MAX_WINDOW, _MAX_FOLDS = 10.0, 9.5, 20
_STEPS = 6_000
_FINE_STEPS, _LARGE_STEPS = 6_000, 100_000
"""Of a pre-trained network, which soon knows a few thousand clips, and of one that starts from
random numbers on many."""
_LARGE_BATCH_SECONDS = 64.0
"""Audio in a batch of a large network: long clips take fewer at a time."""

Network = Literal["student", "beats", "convtransformer"]


@dataclass(frozen=True)
class Choice:
    """One field of the recipe and why it is so."""

    field: str
    value: Any
    reason: str = ""


@dataclass(frozen=True)
class _Lesson:
    """How long to train, and by how many clips at a time."""

    batch: int
    epochs: int
    steps: int


def find_folds(roots: Sequence[str]) -> tuple[Corpus, str]:
    """The corpus of ``roots``, and the pattern of ``data.folds`` that its file names need, empty
    where a table names the folds or there are none.

    Raises:
        EarmarkError: as :func:`earmark.train.data.corpus.scan`.
    """
    corpus = scan(*roots)
    if corpus.folds:
        return corpus, ""
    named = with_folds(corpus, FOLD_PATTERN)
    every = all(clip.fold for clip in named.clips)
    return (named, FOLD_PATTERN) if every and 2 <= len(named.folds) <= _MAX_FOLDS else (corpus, "")


def plan(
    roots: Sequence[str],
    corpus: Corpus,
    found: Survey,
    *,
    folds: str = "",
    device: Device = "edge",
    keywords: Sequence[str] = (),
    noise: Sequence[str] = (),
    speech: Sequence[str] = (),
    name: str = "",
) -> str:
    """Write a starter recipe: of a student, or, where there is room for a large network and there
    are clips enough for one, of that (a ``teacher`` section, for ``earmark teach``).

    Args:
        roots: the folders and tables, as the recipe will name them.
        corpus, folds: what :func:`find_folds` gave for them.
        found: the survey of ``corpus``.
        device: where the model will run: ``edge`` for a small processor in real time.
        keywords: words to be spotted among others; none to tell all classes apart.
        noise, speech: folders of background noise and of free speech, any layout.
        name: of the recipe; empty for one made of the first root's.

    Returns:
        TOML that loads as a recipe and trains.

    Raises:
        EarmarkError: there are too few classes or clips to train on.
    """
    if not keywords and len(found.classes) < 2:
        raise EarmarkError(
            f"{roots[0]}: one class only ({', '.join(found.classes)}): add clips of other classes, "
            "in folders of their own"
        )
    if keywords and found.multilabel:
        raise EarmarkError("--keywords: clips have several classes here: leave it out")
    if speech and not keywords:
        raise EarmarkError("--speech: goes with --keywords, beside which it is other words")
    more = sum(len(find_audio(Path(folder))) for folder in noise)
    found = replace(found, noise=found.noise + more)
    if found.folds:
        corpus = with_fold_held_out(corpus, found.folds[-1])
    words = [*keywords] or _told_apart(corpus)
    train = _counts(corpus, "train", words)
    network = _network(found, device)
    lesson = _lesson(found, train, network, bool(keywords))
    choices = [
        Choice("name", name or _name(corpus, network)),
        *_task(found, corpus, words, bool(keywords)),
        Choice("data.roots", list(roots)),
        *_folders(corpus, noise, speech, words),
        *_data(found, train, folds, bool(keywords)),
        *(_student(found, bool(keywords)) if network == "student" else _teacher(network, lesson)),
        *_augmentation(found, bool(keywords)),
        *_training(found, network, lesson),
    ]
    head = [*_head(found, network, device, bool(keywords))]
    lacking = [word for word in corpus.words if word not in (*words, UNKNOWN, SILENCE)]
    if lacking and not keywords:
        head.append(
            f"Left out, with no clip to train or none to validate on: {', '.join(lacking)}."
        )
    text = _toml(head, choices)
    _check_trainable(parse_recipe(tomllib.loads(text), "plan"), corpus, found.noise)
    return text


def _name(corpus: Corpus, network: Network) -> str:
    """After the folder, and another for a teacher, whose run is to stand beside its student's."""
    name = folder_name(corpus.roots[0].resolve().name) or "planned"
    return name if network == "student" else f"{name}-teacher"


def _told_apart(corpus: Corpus) -> list[str]:
    """The classes that have clips to train on and to validate on."""
    named = [word for word in corpus.words if word not in (UNKNOWN, SILENCE)]
    splits = [_counts(corpus, split, named) for split in ("train", "validation")]
    words = [word for word in named if all(counts[word] for counts in splits)]
    if len(words) < 2:
        lacking = ", ".join(word for word in named if word not in words)
        raise EarmarkError(
            f"{corpus.roots[0]}: fewer than two classes have clips in both the training and the "
            f"validation split (not: {lacking}): add clips by more speakers, or name some of them "
            f"in {LISTS['validation']} (lines word/stem; of a single speaker call those another, "
            f"as me-validation{SPEAKER_MARK}0)"
        )
    return words


def _counts(corpus: Corpus, split: str, words: Sequence[str]) -> Counter[str]:
    """Clips in a split of each of ``words``, by the name that the corpus has for it."""
    wanted = {folder_name(word) for word in words}
    return Counter(
        word
        for clip in corpus.clips
        if clip.split == split
        for word in clip.words
        if folder_name(word) in wanted
    )


def _network(found: Survey, device: Device) -> Network:
    """What to train: by how many clips there are, and by what the device can run."""
    if device == "edge" or found.clips < FEW:
        return "student"
    return "beats" if found.clips <= MANY else "convtransformer"


def _head(found: Survey, network: Network, device: Device, keywords: bool) -> Iterator[str]:
    low, middle, high = found.seconds
    smallest, largest = min(found.classes.values()), max(found.classes.values())
    rates = ", ".join(f"{rate} Hz ({count})" for rate, count in list(found.rates.items())[:4])
    kind = "any number of classes a clip" if found.multilabel else "one class a clip"
    yield (
        f"Planned from {found.clips} clips, {found.hours:.2f} h, {len(found.classes)} classes of "
        f"{smallest} to {largest} clips, {kind}; {low:.2f}, {middle:.2f} and {high:.2f} s long at "
        f"the 5th, 50th and 95th percentile; {rates}; {len(found.folds) or 'no'} folds; "
        f"{found.noise} noise recordings. Target device: {device}."
    )
    if not (keywords or found.multilabel or UNKNOWN in found.classes):
        yield (
            "For telling these classes apart, not for a stream: whatever is heard, noise and other "
            "speech too, is answered with one of them. To spot words in a stream, give --keywords."
        )
    yield _reason(found, network)
    yield _metric(found, keywords)
    if found.folds and network == "student":
        yield (
            "Folds are there: `earmark crossval` with this recipe trains on all but one in turn, "
            "with and without SpecAugment, and puts the k-NN baseline beside it."
        )


def _reason(found: Survey, network: Network) -> str:
    if found.clips < FEW:
        return (
            f"Architecture: fewer than {FEW:,} clips, too few to fine-tune a large network "
            "on. The bar to clear is the k-NN baseline on pooled MFCCs; the small network below "
            "lives on augmentation."
        )
    if found.clips <= MANY:
        choice = (
            f"Architecture: {FEW:,} to {MANY:,} clips are enough to fine-tune a pre-trained BEATs "
            '(`earmark download beats`) or AST (kind = "ast").'
        )
    else:
        choice = (
            f"Architecture: more than {MANY:,} clips are enough to train a large network from "
            'scratch; for speech the Whisper encoder (kind = "whisper") is the other way.'
        )
    if network == "student":
        return (
            f"{choice} Neither runs in real time on an edge device: it is the teacher there, and "
            "the CNN below what it teaches and what is deployed, in int8. `earmark plan --device "
            "gpu` writes the recipe of the teacher; with `augment.views = 16` and "
            '`distill.teachers = ["its run"]` here, it teaches.'
        )
    return (
        f"{choice} It is trained by `earmark teach` and judged by `earmark evaluate`. What `earmark"
        " export` makes is a student of it: `earmark plan --device edge` writes its recipe."
    )


def _metric(found: Survey, keywords: bool) -> str:
    if found.multilabel:
        return "Metric: mean average precision, since labels do not exclude one another."
    if keywords:
        return (
            "Metric: top-1 on clips; then false rejects against false accepts per hour on streams, "
            "since a spotter hears little but other sounds."
        )
    if found.imbalance >= UNEVEN:
        return (
            f"Metric: macro F1 and recall by class, since the largest class has "
            f"{found.imbalance:.1f} times the clips of the smallest and would decide the accuracy."
        )
    more = ", top-5 beside it" if len(found.classes) > 5 else ""
    return f"Metric: top-1{more}, since classes are of about equal size."


def _task(found: Survey, corpus: Corpus, words: Sequence[str], keywords: bool) -> Iterator[Choice]:
    if keywords:
        reason = "All other words are _unknown_; background noise is _silence_."
        yield Choice("keywords", list(words), reason)
        return
    special = [] if found.multilabel else [x for x in (UNKNOWN, SILENCE) if x in corpus.words]
    yield Choice("keywords", [*words, *special])
    if found.multilabel:
        reason = "Some clips have several classes, or none: binary cross-entropy for each label."
        yield Choice("task", "multilabel", reason)
    else:
        yield Choice("task", "exclusive", "Every clip has one class: cross-entropy.")


def _folders(
    corpus: Corpus, noise: Sequence[str], speech: Sequence[str], words: Sequence[str]
) -> Iterator[Choice]:
    if noise:
        yield Choice("data.noise", list(noise))
    if speech:
        yield Choice("data.speech", list(speech))
        wanted = {folder_name(word) for word in words}
        if all(wanted_name(word, wanted) != UNKNOWN for word in corpus.words):
            reason = "There are no other words: all of them are pieces of free speech."
            yield Choice("data.speech_share", 1.0, reason)


def _data(found: Survey, train: Counter[str], folds: str, keywords: bool) -> Iterator[Choice]:
    if folds:
        yield Choice("data.folds", folds, "File names begin with their fold.")
    if found.folds:
        yield Choice(
            "data.fold",
            found.folds[-1],
            "One fold is for validation. It keeps clips of one recording together, which the hash "
            "of the file name would not.",
        )
    if keywords:
        reason = "A spotter hears little but other words and background: they have shares of it."
        yield Choice("data.balance", "keywords", reason)
    elif found.imbalance >= UNEVEN:
        yield Choice(
            "data.balance",
            "balanced",
            f"The largest class has {found.imbalance:.1f} times the clips of the smallest: drawn "
            "as they come, it would be learnt at the cost of the others.",
        )
    else:
        reason = f"Classes are within a factor of {found.imbalance:.1f}: every clip once an epoch."
        yield Choice("data.balance", "natural", reason)
    clip = _clip(found)
    cut = ", of longer ones the loudest window" if found.seconds[2] > clip else ""
    yield Choice("data.clip", clip, f"Holds 95 % of the clips{cut}.")
    least = min(train.values(), default=0)
    if 1 <= least < DataSettings.at_least:
        yield Choice("data.at_least", least, "The smallest class has no more: record some.")


def _clip(found: Survey) -> float:
    """Clip length: whole tenths of a second."""
    return min(_MAX_CLIP, max(0.2, math.ceil(10 * found.seconds[2] - 0.05) / 10))


def _student(found: Survey, keywords: bool) -> Iterator[Choice]:
    rate = found.middle_rate
    if rate < SAMPLE_RATE:
        yield Choice(
            "features.f_max",
            float(0.475 * rate // 100 * 100),
            f"Most clips have {rate} Hz or less: there is nothing above half of that.",
        )
    if found.clips < FEW:
        yield Choice(
            "student.width",
            32,
            "A causal CNN on 40 MFCCs, int8 in real time on a small processor. Few clips: a wider "
            "one would learn them by heart.",
        )
    else:
        yield Choice(
            "student.width",
            64,
            "A causal CNN on 40 MFCCs, about 87 k parameters: int8 in real time on one core of a "
            "small processor.",
        )
    clip = _clip(found)
    if clip > 2:
        reason = "Steps of 40 ms: sounds of seconds need no finer ones, and it halves the cost."
        yield Choice("student.stride", 4, reason)
    if not keywords:
        window = max(0.1, math.floor(9.5 * clip) / 10)
        reason = "A clip is judged by the whole of it, not by its end."
        yield Choice("student.window", min(_MAX_WINDOW, window), reason)


def _teacher(network: Network, lesson: _Lesson) -> Iterator[Choice]:
    if network == "convtransformer":
        reason = "Convolutions, then a transformer, from random numbers."
        yield Choice("teacher.kind", network, reason)
        yield Choice("teacher.width", 384)
        yield Choice("teacher.depth", 8)
        return
    yield Choice("teacher.kind", network)
    yield Choice("teacher.weights", f"data/beats/{BEATS}.pt", "From `earmark download beats`.")
    yield Choice(
        "teacher.head_epochs",
        max(1, lesson.epochs // 5),
        "The head first: its first gradients, of random weights, would spoil what is pre-trained.",
    )
    yield Choice(
        "teacher.backbone_rate",
        0.1,
        "Layers near the audio fit all sounds already: the nearer, the slower they learn.",
    )
    yield Choice("teacher.layer_decay", 0.75)


def _augmentation(found: Survey, keywords: bool) -> Iterator[Choice]:
    clip = _clip(found)
    if not keywords:
        shift = round(0.1 * clip, 2)
        yield Choice(
            "augment.shift", shift, "A tenth of a clip: where in it a sound is says nothing."
        )
    if found.noise:
        yield Choice("augment.noise", 0.8, "Noise recordings are there: most clips get some.")
    elif not keywords:
        yield Choice("augment.noise", 0.0, "No noise recordings (_background_noise_) to mix in.")
    if not keywords:
        reason = "SpecAugment: one mask over time and one over frequency."
        yield Choice("augment.time_masks", 1, reason)
        frames = max(1, min(20, int(100 * clip) // 5))
        yield Choice("augment.time_mask", frames)
        yield Choice("augment.frequency_masks", 1)
        yield Choice("augment.frequency_mask", 10)
    if found.multilabel:
        reason = "Two clips at once have the labels of both: mixup is what tagging gains most from."
        yield Choice("augment.mixup", 0.3, reason)


def _training(found: Survey, network: Network, lesson: _Lesson) -> Iterator[Choice]:
    yield Choice("train.epochs", lesson.epochs, f"About {lesson.steps} steps.")
    yield Choice("train.batch", lesson.batch)
    if network != "student":
        yield Choice("train.learning_rate", 1e-3 if network == "beats" else 5e-4)
        yield Choice("train.weight_decay", 0.01 if network == "beats" else 0.05)
        reason = "Attention that starts at the full rate may not recover."
        yield Choice("train.warmup", 0.1, reason)
    if found.multilabel:
        reason = "Most labels of a clip are absent, and known to be: no smoothing."
        yield Choice("train.label_smoothing", 0.0, reason)


def _lesson(found: Survey, train: Counter[str], network: Network, keywords: bool) -> _Lesson:
    # What an epoch draws: beside keywords, the shares of other words and of background.
    share = DataSettings.unknown + DataSettings.silence if keywords else 0.0
    clips = round(sum(train.values()) / (1 - share)) or 1
    if network == "student":
        batch = 16 if clips < FEW else 64 if clips < 10 * FEW else 128
    else:
        batch = max(4, min(128, 2 ** int(math.log2(_LARGE_BATCH_SECONDS / _clip(found)))))
    steps, least, most = {
        "student": (_STEPS, 20, 200),
        "beats": (_FINE_STEPS, 5, 50),
        "convtransformer": (_LARGE_STEPS, 10, 100),
    }[network]
    epochs = max(least, min(most, round(steps * batch / clips)))
    return _Lesson(batch, epochs, epochs * clips // batch)


def _toml(head: Sequence[str], choices: Sequence[Choice]) -> str:
    lines: list[str] = []
    for paragraph in head:
        lines += _comment(paragraph)
    table = ""
    for choice in choices:
        *place, field = choice.field.split(".")
        if place and place[0] != table:
            table = place[0]
            lines += ["", f"[{table}]"]
        lines += _comment(choice.reason)
        lines.append(tomli_w.dumps({field: choice.value}).rstrip())
    return "\n".join(lines) + "\n"


def _comment(text: str) -> list[str]:
    # A class name may hold anything; a comment must stay on its line.
    return [f"# {line}" for line in textwrap.wrap(re.sub(r"\s+", " ", text), 96)]


def _check_trainable(recipe: Recipe, corpus: Corpus, noise: int) -> None:
    require_clips(corpus, recipe)
    if recipe.data.balance == "keywords" and not noise:
        raise EarmarkError(
            f"{corpus.roots[0]}: no background noise: name a folder of recordings of 10 s or more "
            "by --noise, or add some in _background_noise_, which a spotter needs for _silence_"
        )
