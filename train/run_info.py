"""What a run notes of itself before it begins."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..runtime.manifest import Source
from . import run as runs
from .data.corpus import Corpus, data_fingerprint
from .data.dataset import Split
from .data.material import Material
from .data.sources import read_sources, unnamed
from .knn import knn_figures, long_enough
from .learned import learned_folders
from .recipe import Recipe
from .teachers.run import TeacherRun

CALIBRATION_CLIPS = 256
_BASELINE_TRAIN, _BASELINE_VALIDATION = 4000, 2000
"""At most so many clips are learned from and judged for the baselines of a run."""


def run_info(
    material: Material,
    recipe: Recipe,
    run_dir: Path,
    command: str,
    first: runs.Run | None = None,
    teachers: Sequence[TeacherRun] = (),
) -> runs.RunInfo:
    """What a run notes before it begins; ``first``: the run whose weights it starts from."""
    before = [*([first] if first else []), *teachers]
    unlabelled = recipe.distill.unlabelled if recipe.distill else ()
    labels, splits, corpus = material.labels, material.splits, material.corpus
    counts = {
        name: dict(zip(labels, split.counts.tolist(), strict=True))
        for name, split in splits.items()
    }
    random = np.random.default_rng((recipe.seed, len(splits["train"])))
    rows = random.permutation(len(splits["train"]))[:CALIBRATION_CLIPS]
    # A run that is there has noted them.
    fresh = not (run_dir / runs.RECIPE).exists()
    baselines = _baselines(splits, recipe) if fresh else {}
    figure_name = "map" if recipe.multilabel else "top-1"
    for name, figure in baselines.items():
        print(f"baseline {name}: {figure_name} {figure:.4f}", file=sys.stderr)
    return runs.RunInfo(
        labels=labels,
        sources=_sources(corpus, recipe, first),
        fingerprint=data_fingerprint(corpus, *recipe.data.noise, *recipe.data.speech),
        unlabelled_sha256=data_fingerprint(corpus, *unlabelled) if unlabelled else "",
        init_sha256=first.weights_sha256 if first else "",
        learned_folders=learned_folders(before),
        clips=counts,
        calibration=tuple(sorted(splits["train"].path[rows].tolist())),
        versions=runs.package_versions(),
        git_revision=runs.git_revision(),
        command=command,
        baselines=baselines,
    )


def _sources(corpus: Corpus, recipe: Recipe, first: runs.Run | None) -> tuple[Source, ...]:
    """All that shaped the weights: what the folders say, the recipe for those that say nothing, and
    what ``first`` had."""
    data = recipe.data
    sources = list(corpus.sources)
    silent = [unnamed(root) for root in corpus.roots]
    for role, folders in (("background noise", data.noise), ("free speech", data.speech)):
        for folder in map(Path, folders):
            sources += read_sources(folder, role)
            silent.append(unnamed(folder, role))
    if data.sources:
        sources = [*data.sources, *(source for source in sources if source not in silent)]
    if first:
        sources += first.info.sources
    return tuple(dict.fromkeys(sources))


def _baselines(splits: dict[str, Split], recipe: Recipe) -> dict[str, float]:
    """Figures on the validation clips of what needs no training, over at most some clips."""
    train, validation = splits["train"], splits["validation"]
    if not long_enough(train.pcm.shape[1], recipe.features):
        return {}
    found = knn_figures(
        _some(train, _BASELINE_TRAIN), _some(validation, _BASELINE_VALIDATION), recipe.features
    )
    return {name: round(figure, 4) for name, figure in found.items()}


def _some(split: Split, most: int) -> Split:
    """At most so many clips of a split, drawn evenly and always the same."""
    if len(split) <= most:
        return split
    rows = np.sort(np.random.default_rng(0).permutation(len(split))[:most])
    return replace(
        split,
        pcm=split.pcm[rows],
        label=split.label[rows],
        word=split.word[rows],
        speaker=split.speaker[rows],
        path=split.path[rows],
        several=None if split.several is None else split.several[rows],
        own=None if split.own is None else split.own[rows],
        part=None,
    )
