"""What a model's training held out, so that a model is measured on that and on nothing else."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from ..runtime.errors import EarmarkError
from ..runtime.layout import place_name
from ..runtime.manifest import Manifest, Source
from ..train.data import metadata
from ..train.data.audio_files import audio_stem
from ..train.data.clip import Clip
from ..train.data.corpus import Corpus, scan
from ..train.data.sources import read_sources
from ..train.data.transcripts import TRANSCRIPTS

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """What a training had, as far as it decides what was held out; of folders those too that its
    teachers, and the weights it started from, had learned from."""

    model: str
    """Path, for errors."""
    fold: tuple[str, int]
    """``data.folds`` and ``data.fold`` of the recipe; ("", 0) where it has none."""
    roots: frozenset[str]
    """Names of the folders of ``data.roots``."""
    noise: frozenset[str]
    """Names of the folders of noise, whose recordings are divided by time."""
    speech: frozenset[str]
    """Names of the folders of free speech, whose recordings are divided one by one."""
    own: frozenset[str]
    """Names of the folders of ``data.own``: what their lists do not hold out was trained on."""
    unlabelled: frozenset[str]
    """Names of the folders of ``distill.unlabelled``: all of it was trained on."""
    sources: frozenset[str]
    """Names of the works that recordings came from."""

    @classmethod
    def of(
        cls, model: str, recipe: Any, sources: Iterable[Source], learned_folders: Any = None
    ) -> Self:
        """
        Args:
            model: its path.
            recipe: plain values, as a manifest has it.
            sources: those of the manifest or of the run.
            learned_folders: likewise (see :class:`earmark.train.run.RunInfo`); None where it says
                nothing of them.
        """
        data, distill = _table(recipe, "data"), _table(recipe, "distill")
        before = learned_folders if isinstance(learned_folders, dict) else {}
        folds, number = data.get("folds"), data.get("fold")
        fold = ("", 0)
        if isinstance(folds, str) and isinstance(number, int) and number:
            fold = (folds, number)
        return cls(
            model,
            fold,
            _names(data, "roots") | _names(before, *filter(_is_roots, before)),
            _names(data, "noise") | _names(before, "noise"),
            _names(data, "speech") | _names(before, "speech"),
            _names(data, "own") | _names(before, "own"),
            _names(distill, "unlabelled") | _names(before, "unlabelled"),
            # Who wrote down what is said is named too, and has no recordings.
            frozenset(source.name for source in sources if source.role != TRANSCRIPTS),
        )

    @classmethod
    def of_file(cls, model: str, manifest: Manifest) -> Self:
        """Of a model file, from its manifest."""
        training = manifest.training
        # The second is what it was called before.
        folders = training.get("learned_folders", training.get("init_folders"))
        return cls.of(model, training.get("recipe"), manifest.sources, folders)

    def knows(self, folder: str) -> set[str]:
        """The works that recordings of a folder come from and that trained the model too.

        Raises:
            EarmarkError: the folder's ``sources.json`` is damaged.
        """
        return {source.name for source in read_sources(Path(folder))} & self.sources


def check_folders(trained: Iterable[Trained], option: str, folders: Sequence[str]) -> None:
    """Refuse folders of noise or free speech that were something else in training or had another
    name, from which follows what was held out of them, and those of which nothing was held out.

    Args:
        trained: of each model.
        option: that names the folders: ``--noise`` or ``--speech``.
        folders: of which a split is to be measured.

    Raises:
        EarmarkError: a folder was something else or had another name, or was
            ``distill.unlabelled``; or as :meth:`Trained.knows`.
    """
    for model in trained:
        here, other = model.noise, model.speech
        if option == "--speech":
            here, other = other, here
        for folder in folders:
            known, name = model.knows(folder), place_name(folder)
            what = " and ".join(sorted(known))
            if known and name in model.unlabelled:
                raise EarmarkError(
                    f"{option} {folder}: {model.model} was trained on all of {name} "
                    f"(distill.unlabelled: {what}): name a folder of other recordings"
                )
            if known and name not in here:
                names = " or ".join(sorted(here | other | model.unlabelled)) or "something else"
                way = " and as the other of noise and free speech" if name in other else ""
                raise EarmarkError(
                    f"{option} {folder}: {model.model} was trained on {what} as {names}{way}, and "
                    "which of it is held out follows from that: name the folder as it was"
                )


def measured_corpus(roots: Sequence[str | Path], trained: Iterable[Trained]) -> Corpus:
    """The clips of some data, the fold that training held out being the validation split, those
    of ``data.own`` being for training unless lists say otherwise, and all of
    ``distill.unlabelled``.

    Args:
        roots: as of :func:`earmark.train.data.corpus.scan`.
        trained: of each model. A root without clips of that fold, and with another name than those
            folders, keeps its split: it is not what the model was trained on.

    Raises:
        EarmarkError: the models held out other clips of these data; a table has another name than
            in training, and what was held out follows from it; or as
            :func:`earmark.train.data.corpus.scan`.
    """
    trained = list(trained)
    ways: list[tuple[tuple[str, int], list[bool], list[bool]]] = []
    for model in trained:
        names = [place_name(root) for root in roots]
        own, heard = ([n in those for n in names] for those in (model.own, model.unlabelled))
        if (model.fold, own, heard) not in ways:
            ways.append((model.fold, own, heard))
    corpus, *others = (_split_by(roots, own, heard, *fold) for fold, own, heard in ways)
    # In the order in which they are scanned.
    ordered = sorted(zip(ways[0][1], roots, strict=True), key=lambda each: each[0])
    for model in trained:
        for (_, root), place in zip(ordered, corpus.roots, strict=True):
            _check_names(model, root, place, corpus)
    if any(other.clips != corpus.clips for other in others):
        raise EarmarkError(
            "the models' trainings held out other clips of --data: measure each by itself"
        )
    _, own, heard = ways[0]
    for root, is_own, is_heard in zip(roots, own, heard, strict=True):
        if is_heard:
            _LOG.warning("%s: was distill.unlabelled of the training, which had all of it", root)
        elif is_own:
            _LOG.warning(
                "%s: was data.own of the training, which had all of it but what lists hold out",
                root,
            )
    return corpus


def _split_by(
    roots: Sequence[str | Path],
    is_own: Sequence[bool],
    is_heard: Sequence[bool],
    pattern: str,
    number: int,
) -> Corpus:
    heard = {Path(root) for root, one in zip(roots, is_heard, strict=True) if one}
    own = [root for root, one in zip(roots, is_own, strict=True) if one]
    roots = [root for root, one in zip(roots, is_own, strict=True) if not one]
    corpus = scan(*roots, own=own, folds=pattern if number else "")
    if number:
        corpus = replace(corpus, clips=tuple(_by_fold(corpus, number)))
    if not heard:
        return corpus
    clips = (
        replace(clip, split="train") if corpus.root_of(clip.path) in heard else clip
        for clip in corpus.clips
    )
    return replace(corpus, clips=tuple(clips))


def _by_fold(corpus: Corpus, number: int) -> Iterator[Clip]:
    """The clips, those of roots that have the fold divided by it."""
    folded = {corpus.root_of(clip.path) for clip in corpus.clips if clip.fold == number}
    strays = 0
    for clip in corpus.clips:
        if corpus.root_of(clip.path) in folded:
            # What has no fold was not there when training held one out.
            strays += not clip.fold
            yield replace(clip, split="validation" if clip.fold == number else "train")
        else:
            yield clip
    if strays:
        _LOG.warning("%d clips beside those of fold %d are in none: not held out", strays, number)


def _check_names(model: Trained, root: str | Path, place: Path, corpus: Corpus) -> None:
    """Refuse a table that training knew by another name, from which follows what was held out of
    clips without a speaker; say so of a folder that may have been one of those trained on whole."""
    known, names = model.knows(str(place)), model.roots | model.own | model.unlabelled
    if not known or place_name(root) in names:
        return
    what = f"{model.model} was trained on {' and '.join(sorted(known))} as "
    what += " or ".join(sorted(names)) or "something else"
    if Path(root).suffix.lower() == metadata.SUFFIX and any(
        clip.speaker.endswith(f"/{audio_stem(clip.path.name)}")
        for clip in corpus.clips
        if corpus.root_of(clip.path) == place
    ):
        raise EarmarkError(
            f"--data {root}: {what}, and which of it is held out follows from that name: name it "
            "as it was"
        )
    if model.own or model.unlabelled:
        _LOG.warning(
            "%s: %s: if this folder was %s, all of it was trained on",
            *(root, what, " or ".join(sorted(model.own | model.unlabelled))),
        )


def _is_roots(field: str) -> bool:
    """Whether a field of ``learned_folders`` names folders of ``data.roots`` (see
    :mod:`earmark.train.learned`)."""
    return field.startswith("roots")


def _table(recipe: Any, name: str) -> dict[str, Any]:
    table = recipe.get(name) if isinstance(recipe, dict) else None
    return table if isinstance(table, dict) else {}


def _names(table: dict[str, Any], *fields: str) -> frozenset[str]:
    """The names of the folders that fields list."""
    return frozenset(place_name(folder) for field in fields for folder in _texts(table.get(field)))


def _texts(values: Any) -> list[str]:
    values = values if isinstance(values, (list, tuple)) else []
    return [value for value in values if isinstance(value, str)]
