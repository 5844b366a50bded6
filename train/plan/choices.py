"""The fields of a starter recipe, each with its reason."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ...runtime.layout import folder_name
from ...runtime.manifest import SILENCE, UNKNOWN
from ..data.corpus import Corpus, wanted_name
from ..data.decoded import SAMPLE_RATE
from ..data.survey import Survey
from ..recipe import DataSettings
from ..teachers.beats_checkpoints import DEFAULT as BEATS
from .scale import Lesson, Network, clip_seconds, scale_of

UNEVEN = 3.0
"""Imbalance from which classes are drawn equally often."""
_MAX_WINDOW = 9.5


@dataclass(frozen=True)
class Choice:
    """One field of the recipe and why it is so."""

    field: str
    value: Any
    reason: str = ""


def task(found: Survey, corpus: Corpus, words: Sequence[str], keywords: bool) -> Iterator[Choice]:
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


def folders(
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


def data(found: Survey, train: Counter[str], folds: str, keywords: bool) -> Iterator[Choice]:
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
    clip = clip_seconds(found)
    cut = ", of longer ones the loudest window" if found.seconds[2] > clip else ""
    yield Choice("data.clip", clip, f"Holds 95 % of the clips{cut}.")
    least = min(train.values(), default=0)
    if 1 <= least < DataSettings.at_least:
        yield Choice("data.at_least", least, "The smallest class has no more: record some.")


def student(found: Survey, keywords: bool) -> Iterator[Choice]:
    rate = found.middle_rate
    if rate < SAMPLE_RATE:
        yield Choice(
            "features.f_max",
            float(0.475 * rate // 100 * 100),
            f"Most clips have {rate} Hz or less: there is nothing above half of that.",
        )
    if scale_of(found.clips) == "few":
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
    clip = clip_seconds(found)
    if clip > 2:
        reason = "Steps of 40 ms: sounds of seconds need no finer ones, and it halves the cost."
        yield Choice("student.stride", 4, reason)
    if not keywords:
        window = max(0.1, math.floor(9.5 * clip) / 10)
        reason = "A clip is judged by the whole of it, not by its end."
        yield Choice("student.window", min(_MAX_WINDOW, window), reason)


def teacher(network: Network, lesson: Lesson) -> Iterator[Choice]:
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


def augmentation(found: Survey, keywords: bool) -> Iterator[Choice]:
    clip = clip_seconds(found)
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


def training(found: Survey, network: Network, lesson: Lesson) -> Iterator[Choice]:
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
