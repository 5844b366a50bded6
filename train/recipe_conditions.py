"""What the fields of a recipe must be to each other, beyond what each must be by itself."""

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..runtime.layout import folder_name
from ..runtime.manifest import SILENCE, UNKNOWN
from .data.decoded import SAMPLE_RATE
from .teachers.settings import CNN2D_BLOCKS, PRETRAINED, TeacherSettings

if TYPE_CHECKING:
    from .recipe import Recipe

Condition = tuple[str, str, bool]
"""A field, what is expected of it, and whether it holds."""
MAX_NAME = 100
"""Characters of a name or keyword that a model file takes."""
MAX_WEIGHTS = 1 << 26
"""Most weights in the temporal blocks."""


def conditions(recipe: "Recipe") -> Iterator[Condition]:
    """All that is expected of a recipe whose fields are right by themselves."""
    yield from _classes(recipe)
    yield from _features(recipe)
    yield from _data(recipe)
    yield from _augment(recipe)
    yield from _student(recipe)
    if recipe.teacher is not None:
        yield from _teacher(recipe, recipe.teacher)


def _classes(recipe: "Recipe") -> Iterator[Condition]:
    for field, texts in (("name", (recipe.name,)), ("keywords", recipe.keywords)):
        yield (
            field,
            f"printable text of 1 to {MAX_NAME} characters",
            all(text.isprintable() and 0 < len(text) <= MAX_NAME for text in texts),
        )
    balance, several = recipe.data.balance, len(recipe.keywords) > 1
    if recipe.multilabel:
        yield (
            "keywords",
            "names that do not begin with _ in a multi-label task",
            not {UNKNOWN, SILENCE} & set(recipe.keywords),
        )
        yield (
            "data.balance",
            "balanced or natural in a multi-label task",
            balance != "keywords",
        )
        yield (
            "keywords",
            "at least two classes in a multi-label task: name another, or leave task out",
            several,
        )
    yield (
        "keywords",
        "at least two classes, or data.balance = keywords",
        balance == "keywords" or several,
    )


def _features(recipe: "Recipe") -> Iterator[Condition]:
    f = recipe.features
    yield (
        "features.sample_rate",
        f"{SAMPLE_RATE}, the rate that clips are read at",
        f.sample_rate == SAMPLE_RATE,
    )
    yield "features.hop", "at least 1 sample", f.hop >= 1
    yield (
        "features.window",
        "even, longer than features.hop, and at most a second",
        f.hop < f.window <= f.sample_rate and f.window % 2 == 0,
    )
    yield "features.mels", "1 to 256", 1 <= f.mels <= 256
    yield "features.coefficients", "1 to features.mels", 1 <= f.coefficients <= f.mels
    yield (
        "features.f_max",
        "more than features.f_min, at most half the sample rate",
        0 <= f.f_min < f.f_max <= f.sample_rate / 2,
    )
    yield "features.floor", "a number above 0", f.floor > 0


def _data(recipe: "Recipe") -> Iterator[Condition]:
    data, f = recipe.data, recipe.features
    yield (
        "data.leave_out",
        "no keyword",
        not {folder_name(w) for w in data.leave_out} & {folder_name(k) for k in recipe.keywords},
    )
    if data.balance != "keywords":
        yield "data.speech", "none where data.balance is not keywords", not data.speech
        yield "data.own", "none where data.balance is not keywords", not data.own
        shares = ("unknown", "silence", "unknown_balance")
        yield from _unused("data", data, shares, "data.balance is not keywords")
        yield (
            "data.noise",
            "none where no class is background and augment.noise is 0",
            not data.noise or recipe.augment.noise > 0 or SILENCE in recipe.keywords,
        )
    yield "data.folds", "a regular expression with a group", _is_pattern(data.folds)
    yield (
        "data.sources",
        "printable texts, which a model file takes",
        all(text.isprintable() for source in data.sources for text in vars(source).values()),
    )
    step = f.hop * recipe.student.stride / f.sample_rate
    yield "data.clip", f"at least a step of the student, {step:g} s", data.clip >= step
    yield (
        "data.silence",
        "at most 0.9 together with data.unknown",
        data.unknown + data.silence <= 0.9,
    )


def _augment(recipe: "Recipe") -> Iterator[Condition]:
    for name in ("gain", "reverb_time", "snr", "silence_level"):
        low, high = getattr(recipe.augment, name)
        yield f"augment.{name}", "the lower number first", low <= high
    yield "augment.reverb_time", "more than 0 s", recipe.augment.reverb_time[0] > 0


def _student(recipe: "Recipe") -> Iterator[Condition]:
    s, distill = recipe.student, recipe.distill
    yield (
        "student.width",
        f"at most {MAX_WEIGHTS} weights in the blocks: less width, kernel or dilations",
        s.width**2 * s.kernel * len(s.dilations) <= MAX_WEIGHTS,
    )
    if distill is not None:
        yield (
            "augment.views",
            "at least 1, for the teachers' answers to be cached",
            recipe.augment.views > 0 or distill.mode == "online",
        )
        yield (
            "distill.unlabelled_share",
            "more than 0 with distill.unlabelled, and 0 without",
            bool(distill.unlabelled) == (distill.unlabelled_share > 0),
        )
        if not distill.feature_weight:
            matched = ("features", "feature_components")
            yield from _unused("distill", distill, matched, "distill.feature_weight is 0")


def _teacher(recipe: "Recipe", teacher: TeacherSettings) -> Iterator[Condition]:
    f, kind = recipe.features, teacher.kind
    yield "distill", "nothing beside teacher", recipe.distill is None
    yield "train.init", "none beside teacher", not recipe.train.init
    if kind in PRETRAINED:
        yield (
            "teacher.weights",
            f"where {kind} is, or teacher.random = true",
            bool(teacher.weights) != teacher.random,
        )
        yield "teacher.width", f"0 for {kind}, whose width is given", not teacher.width
        yield from _unused("teacher", teacher, ("dropout",), f"teacher.kind is {kind}")
    else:
        yield "teacher.weights", f"none for {kind}", not teacher.weights
        yield "teacher.random", f"false for {kind}, which always is", not teacher.random
    if kind == "convtransformer":
        yield "teacher.width", "a multiple of 32", teacher.width % 32 == 0
    else:
        yield "teacher.depth", "0 but for convtransformer", not teacher.depth
    if kind == "bcresnet":
        yield "features.mels", "40, which BC-ResNet reads", f.mels == 40
    if kind == "cnn2d":
        least = 2**CNN2D_BLOCKS
        yield "features.mels", f"at least {least} for a cnn2d", f.mels >= least
        yield (
            "data.clip",
            f"at least {least} hops, {least * f.hop / f.sample_rate:g} s, for a cnn2d",
            round(recipe.data.clip * f.sample_rate) >= least * f.hop,
        )


def _unused(section: str, settings: Any, names: Sequence[str], where: str) -> Iterator[Condition]:
    """That settings which do nothing are left alone: a resolved recipe has their defaults."""
    for name in names:
        default = getattr(type(settings), name)
        yield (
            f"{section}.{name}",
            f"{default!r}, its default, where {where}",
            getattr(settings, name) == default,
        )


def _is_pattern(text: str) -> bool:
    try:
        return not text or re.compile(text).groups > 0
    except re.error:
        return False
