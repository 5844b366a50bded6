"""Which clips an epoch of training has, in which order, in which batches."""

from collections.abc import Callable

import numpy as np

from ..recipe import Recipe
from .clips import Clips
from .dataset import SPEECH, Split


def epoch_batches(
    clips: Clips,
    recipe: Recipe,
    epoch: int,
    ranks: int,
    unknown: int | None,
    least: Callable[[int], int] = lambda count: count,
) -> list[list[tuple[int, int]]]:
    """The clips of one epoch in batches, a multiple of ``ranks``, by their and the draws' numbers.

    They are drawn as the recipe's ``data.balance`` says: the rows of :func:`keyword_rows`, of
    :func:`balanced_rows`, or each once; clips without labels come on top. An epoch has
    ``train.steps_per_epoch`` steps where that is set.

    Args:
        clips: the clips.
        recipe: its shares, seed and lengths.
        epoch: the clips and their order follow from its number.
        ranks: processes that share the batches.
        unknown: the class of other words, which follows those of the keywords; None where there is
            none.
        least: of a number of clips, the least that a process has: where each holds clips of its
            own, all take so many, so that none waits for another. As they are drawn anew in every
            epoch, what one leaves out is heard in the next.
    """
    split = clips.split
    own = (clips.share.rank,) if clips.share.ranks > 1 else ()
    random = np.random.default_rng((recipe.seed, epoch, *own))
    settings = recipe.train
    wanted = settings.steps_per_epoch * settings.batch * ranks
    if recipe.data.balance == "natural":
        rows = np.arange(len(split))
    elif unknown is None or recipe.data.balance == "balanced":
        rows = balanced_rows(split, random)
    else:
        rows = keyword_rows(clips, recipe, unknown, random, labelled_clips(clips, recipe, ranks))
    if share := _unlabelled_share(clips, recipe):
        unlabelled = len(split) + np.arange(len(clips.unlabelled))
        count = round(share / (1 - share) * len(rows))
        rows = np.concatenate([rows, _draw(unlabelled, count, random)])
    order = random.permutation(rows)
    if wanted:
        # Rounding leaves a clip too many or too few; other balances have an epoch of their own.
        order = np.resize(order, wanted)
    order = order[: least(len(order))]
    size = min(settings.batch, len(order) // ranks)
    count = len(order) // (size * ranks) * ranks
    draws = random.integers(1 << 32, size=len(order))
    samples = list(zip(order.tolist(), draws.tolist(), strict=True))
    return [samples[i * size : (i + 1) * size] for i in range(count)]


def labelled_clips(clips: Clips, recipe: Recipe, ranks: int) -> int:
    """About how many clips with labels the recipe wants in an epoch; 0: it sets no number."""
    settings = recipe.train
    wanted = settings.steps_per_epoch * settings.batch * ranks
    return round(wanted * (1 - _unlabelled_share(clips, recipe)))


def background_clips(
    split: Split, recipe: Recipe, unknown: int, wanted: int = 0
) -> tuple[int, int]:
    """How much of an epoch of keywords is background: clips of the split, and empty clips to be
    filled. ``wanted``: as of :func:`keyword_rows`."""
    data = recipe.data
    keywords = int((split.label < unknown).sum())
    whole = wanted or keywords / max(1e-6, 1 - data.unknown - data.silence)
    count = round(data.silence * whole)
    # Half of it is what the corpus holds, the other half drawn from the pool.
    half = count // 2 if (split.label > unknown).any() else 0
    return half, count - half


def balanced_rows(split: Split, random: np.random.Generator) -> np.ndarray:
    """Clips of every class equally often, as many in all as the split has, up to rounding.

    Clips of no class, in a multi-label task, count as a class of their own. One that has too few
    clips repeats them.
    """
    target = split.target
    members = [np.flatnonzero(column) for column in (*target.T, ~target.any(axis=1))]
    members = [rows for rows in members if len(rows)]
    each = -(-len(split) // len(members))
    return np.concatenate([_draw(rows, each, random) for rows in members])


def keyword_rows(
    clips: Clips,
    recipe: Recipe,
    unknown: int,
    random: np.random.Generator,
    wanted: int = 0,
) -> np.ndarray:
    """Clips of all keywords equally often, and the shares of other words and of background that
    the recipe gives, by the numbers of :class:`Batch`.

    Within a class, the recordings of ``data.own`` have the share that the recipe gives them, and
    within the other words the pieces of free speech. A class with too few clips repeats them; where
    ``data.unknown_balance`` is set, each other word is drawn anew.
    ``wanted``: about how many rows; 0: as many as go once through the keywords' clips.
    """
    data, split = recipe.data, clips.split
    members = [np.flatnonzero(split.label == k) for k in range(unknown)]
    rest = max(1e-6, 1 - data.unknown - data.silence)
    total = round(wanted * rest) if wanted else sum(map(len, members))
    each = -(-total // unknown)
    whole = wanted or total / rest

    def mixed(pool: np.ndarray, count: int, balance: float = 0.0) -> np.ndarray:
        """So many of a class, ``data.own_share`` of them from the folders of ``data.own``."""
        own = np.zeros(len(pool), bool) if split.own is None else split.own[pool]
        if own.all() or not own.any():
            return _draw_words(split, pool, count, balance, random)
        few = round(data.own_share * count)
        parts = ((pool[own], few), (pool[~own], count - few))
        return np.concatenate([_draw_words(split, *part, balance, random) for part in parts])

    others, spoken = (
        np.flatnonzero((split.label == unknown) & ((split.word == SPEECH) == speech))
        for speech in (False, True)
    )
    chosen = [mixed(pool, each) for pool in members]
    count = round(data.unknown * whole)
    drawn_from = len(spoken) if clips.views else clips.places
    parts = round(data.speech_share * count) if drawn_from else 0
    if clips.views:
        # Numbered views are of the pieces that the split has, others of new ones.
        chosen.append(_draw(spoken, parts, random))
    else:
        chosen.append(len(clips) + random.integers(max(1, drawn_from), size=parts))
    if len(others):
        chosen.append(mixed(others, count - parts, data.unknown_balance))
    real, drawn = background_clips(split, recipe, unknown, wanted)
    if real:
        chosen.append(random.choice(np.flatnonzero(split.label > unknown), real))
    chosen.append(-1 - np.arange(drawn))
    return np.concatenate(chosen)


def _unlabelled_share(clips: Clips, recipe: Recipe) -> float:
    if recipe.distill is None or not len(clips.unlabelled):
        return 0.0
    return recipe.distill.unlabelled_share


def _draw_words(
    split: Split, pool: np.ndarray, count: int, balance: float, random: np.random.Generator
) -> np.ndarray:
    """``count`` of ``pool``, the words of the clips as evenly as ``data.unknown_balance`` says."""
    if not balance:
        return _draw(pool, count, random)
    _, word, clips = np.unique(split.word[pool], return_inverse=True, return_counts=True)
    weight = clips[word] ** -balance
    return random.choice(pool, count, p=weight / weight.sum())


def _draw(pool: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """``count`` of ``pool``, each once before any comes again."""
    rounds = -(-count // max(1, len(pool)))
    return np.concatenate([pool[:0], *(random.permutation(pool) for _ in range(rounds))])[:count]
