"""Training: the recipe's corpus in, a complete run directory out."""

import hashlib
import json
import logging
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..runtime.errors import EarmarkError
from ..runtime.manifest import SILENCE, UNKNOWN, Source
from . import run as runs
from .augment import Mixture, augment_audio, mask_bands, shapes_waveform
from .checkpoints import AtomicCheckpointIO, epochs_done
from .corpus import Corpus, data_fingerprint, read_sources, scan
from .dataset import SPEECH, Split, load_split, noise_pool, pieces, speech_pool
from .distill import Distillation
from .draws import Draws
from .ensemble import Ensemble
from .knn import knn_figures
from .metrics import watched
from .recipe import Recipe, TrainSettings
from .shared_norm import ShareBatchNorms
from .speech import surround
from .student import Student

with warnings.catch_warnings():
    # Deprecations between the trainer and what it builds on: nothing that a user can act on.
    warnings.simplefilter("ignore")
    import lightning.pytorch as pl
    from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar
    from lightning.pytorch.loggers import TensorBoardLogger

READOUT = 0.1
"""The loss is the mean over the logits of this last stretch of a clip, seconds."""
CALIBRATION_CLIPS = 256
UNLABELLED = -1
_NO_CLIPS = np.zeros((0, 0), np.int16)
_NO_SPEECH = np.zeros(0, np.int16)
_AROUND_DB = (-10.0, 5.0)
"""Level of the free speech around a word against the word."""
_BASELINE_TRAIN, _BASELINE_VALIDATION = 4000, 2000
"""At most so many clips are learned from and judged for the baselines of a run."""


def train(recipe: Recipe, run_dir: Path, command: str = "", progress: bool = True) -> Path:
    """Train the recipe's student and complete its run directory.

    An interrupted run goes on where its last complete epoch ended when called again; a complete one
    is left as it is. On one CPU the same recipe and seed give the same weights, interrupted or not.

    Args:
        recipe: all choices of the run.
        run_dir: directory to make or to go on with.
        command: the command line, kept for the record.
        progress: show a progress bar where there is a terminal.

    Returns:
        ``run_dir``.

    Raises:
        EarmarkError: the corpus is missing or too small, the directory holds another run, or the
            loss is no number.
    """
    run_dir = Path(run_dir)
    if recipe.teacher is not None:
        raise EarmarkError("recipe field teacher: is for earmark teach: a student has none")
    material = prepare(recipe, run_dir)
    first = runs.load_run(recipe.train.init) if recipe.train.init else None
    info = run_info(material, recipe, run_dir, command, first)
    ensemble = None
    if recipe.distill is not None:
        ensemble = Ensemble.load(recipe.distill.teachers, material.labels)
        info = ensemble.credit(info, recipe.distill.unlabelled)
    runs.start(run_dir, recipe, info)
    if runs.is_complete(run_dir):
        return run_dir
    lesson = StudentLesson(recipe, material, ensemble)
    if first:
        _start_from(lesson.student, material.labels, first)
    if fit(lesson, material, run_dir, progress):
        runs.save_weights(run_dir / runs.WEIGHTS, lesson.student)
    lesson.trainer.strategy.barrier()
    return run_dir


@dataclass(frozen=True)
class Material:
    """What is learned from."""

    labels: tuple[str, ...]
    corpus: Corpus
    splits: dict[str, Split]
    """``train`` and ``validation``."""
    pool: NDArray[np.int16]
    """Background noise for training, int16 [length]; empty where nothing draws from it."""
    unlabelled: NDArray[np.int16]
    """Clips that only teachers know the class of, int16 [clips, samples]."""
    speech: NDArray[np.int16]
    """Free speech without keywords, int16 [samples]; empty where there is none."""
    cache: Path
    """Folder for what is computed once."""


def prepare(recipe: Recipe, run_dir: Path) -> Material:
    """Find and decode the recordings of a recipe.

    Raises:
        EarmarkError: the corpus is missing or too small.
    """
    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    labels = recipe.labels
    corpus = _scan(recipe)
    cache = Path(recipe.data.cache) if recipe.data.cache else run_dir.parent / "cache"
    splits = {
        name: load_split(
            corpus,
            labels,
            name,
            recipe.data.clip,
            cache,
            noise_roots=recipe.data.noise,
            multilabel=recipe.multilabel,
            speech_roots=recipe.data.speech,
        )
        for name in ("train", "validation")
    }
    _check_readable(splits, recipe)
    pool = _background(corpus, recipe, splits, cache)
    speech = _free_speech(recipe, cache, splits["train"].pcm.shape[1])
    unlabelled = pieces(
        recipe.distill.unlabelled if recipe.distill else (), recipe.data.clip, cache
    )
    return Material(labels, corpus, splits, pool, unlabelled, speech, cache)


def fit(lesson: "Lesson", material: Material, run_dir: Path, progress: bool = True) -> bool:
    """Go through the recipe's epochs, from the last complete one on if there are any.

    Returns:
        Whether this process is the one that writes the result.

    Raises:
        EarmarkError: the loss is no number, a checkpoint is damaged.
    """
    trainer = _trainer(lesson.recipe.train, run_dir, progress)
    last = run_dir / runs.CHECKPOINTS / "last.ckpt"
    resume = last if last.exists() else None
    if trainer.is_global_zero:
        _forget_after(run_dir, resume)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.fit(
                lesson,
                val_dataloaders=_validation_loader(material.splits["validation"], trainer),
                ckpt_path=resume,
                weights_only=True,
            )
    except SystemExit as stop:
        # The trainer takes Ctrl-C for itself and leaves the program.
        if trainer.interrupted:
            raise KeyboardInterrupt from stop
        raise
    return trainer.is_global_zero


class Batch(NamedTuple):
    """Clips as they are drawn for a step, row by row the same clip in every tensor."""

    pcm: Tensor
    """int16 [batch, samples]."""
    label: Tensor
    """int64 [batch], -1 for a clip without a label; in a multi-label task [batch, labels], 1 for
    each that the clip has."""
    clip: Tensor
    """int64 [batch]: the row in the split; from its end on, that of the clips without labels; from
    their end on, the sample of the free speech at which a piece begins; negative for an empty clip,
    to be filled with background."""
    draw: Tensor
    """int64 [batch], a random number of this one use of the clip."""


class Lesson(pl.LightningModule):
    """The data's way through a step of training, whoever learns."""

    def __init__(self, recipe: Recipe, material: Material) -> None:
        super().__init__()
        self.recipe = recipe
        labels = material.labels
        self.split = material.splits["train"]
        self.cache = material.cache
        self.unknown, self.silence = (
            labels.index(name) if name in labels else None for name in (UNKNOWN, SILENCE)
        )
        self.clips = Clips(
            self.split,
            self.silence,
            material.unlabelled,
            material.speech,
            recipe.data.speech_around,
            recipe.seed,
        )
        self.rate = recipe.features.sample_rate
        # No buffer: what a module registers is sent from one process to the others.
        self.pool = torch.from_numpy(material.pool)
        self.watched = watched(len(labels), recipe.multilabel)
        pl.seed_everything(recipe.seed, verbose=False)

    def judge(self, wav: Tensor) -> Tensor:
        """Logits, [batch, labels], of whole clips [batch, samples]."""
        raise NotImplementedError

    def on_fit_start(self) -> None:
        self.pool = self.pool.to(self.device)

    def train_dataloader(self) -> DataLoader[Any]:
        # Lightning asks anew for each epoch, so that the order follows from the epoch's number
        # alone and a resumed run sees the clips that it would have seen.
        trainer = self.trainer
        epoch = trainer.current_epoch
        batches = epoch_batches(self.clips, self.recipe, epoch, trainer.world_size, self.unknown)
        return DataLoader(
            self.clips,
            batch_sampler=batches[trainer.global_rank :: trainer.world_size],
            collate_fn=_as_it_is,
        )

    def view(self, batch: Batch) -> Tensor:
        """Which of its views each clip is shown in, int64 [batch]."""
        views = self.recipe.augment.views
        return batch.draw % views if views else batch.draw

    def augmented(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The waveforms [batch, samples] and labels [batch] of the views of a batch.

        They depend on the seed, each clip and its view alone.
        """
        return augment_audio(
            batch.pcm.float() / 32768,
            batch.label,
            Draws.of(self.recipe.seed, batch.clip, self.view(batch)),
            self.pool,
            self.recipe.augment,
            self.rate,
            self.unknown,
            self.silence,
        )

    def masked(self, log_mel: Tensor, batch: Batch) -> Tensor:
        """SpecAugment on [batch, frames, mels], anew each time a clip is used."""
        draws = Draws.of(self.recipe.seed, batch.clip, batch.draw)
        return mask_bands(log_mel, draws, self.recipe.augment)

    def seed_step(self) -> None:
        """Give what is drawn from torch's generator in this step a seed of its own.

        So what a resumed run draws does not depend on where it was interrupted.
        """
        torch.manual_seed(hash((self.recipe.seed, self.global_step, self.global_rank)) & 0x7FFFFFFF)

    def report(self, loss: Tensor, clips: int) -> Tensor:
        """Note the loss of a step of so many clips."""
        if not torch.isfinite(loss):
            raise EarmarkError("the loss is no number: lower train.learning_rate")
        self.log("loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=clips)
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        self.watched.update(self.judge(batch.pcm.float() / 32768), batch.label)
        self.log_dict(self.watched, on_step=False, on_epoch=True)


class StudentLesson(Lesson):
    """Teaches a student by labels, and by teachers where there are some."""

    def __init__(
        self, recipe: Recipe, material: Material, ensemble: Ensemble | None = None
    ) -> None:
        super().__init__(recipe, material)
        self.student = Student(len(material.labels), recipe.student, recipe.features)
        self.readout = max(1, round(READOUT * self.rate / self.student.step))
        self.ensemble = ensemble
        self.distillation: Distillation | None = None
        if ensemble is not None and recipe.distill is not None:
            self.distillation = Distillation(
                recipe.distill, recipe.student.width, ensemble.embedding_width
            )
        self._embedding: Tensor | None = None
        if self.distillation is not None and self.distillation.matches:
            self.student.head.register_forward_pre_hook(self._keep_embedding)

    def _keep_embedding(self, _: Any, inputs: tuple[Tensor]) -> None:
        self._embedding = inputs[0].mean(2)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if self.ensemble is None or self.distillation is None:
            return
        settings, recipe = self.distillation.settings, self.recipe
        if settings.mode == "cached":
            self.ensemble.answer_all(
                self.cache / "teachers",
                self.clips,
                self._empty_clips(),
                recipe.augment.views,
                self.render,
                {
                    "augment": shapes_waveform(recipe.augment),
                    "noise": hashlib.sha256(self.pool.cpu().numpy().tobytes()).hexdigest(),
                    "seed": recipe.seed,
                    "classes": [self.unknown, self.silence],
                },
                embed=self.distillation.matches,
                device=self.device,
                rank=self.global_rank,
                ranks=self.trainer.world_size,
                barrier=self.trainer.strategy.barrier,
            )
        else:
            self.ensemble.to(self.device)
        if self.distillation.matches:
            self.distillation.reduce(self.ensemble.embeddings(self.clips, self.render))

    def _empty_clips(self) -> int:
        """How many empty clips an epoch has, of negative numbers."""
        if self.unknown is None or self.recipe.data.balance != "keywords":
            return 0
        wanted = labelled_clips(self.clips, self.recipe, self.trainer.world_size)
        return background_clips(self.split, self.recipe, self.unknown, wanted)[1]

    @torch.no_grad()
    def render(self, clips: NDArray[np.int64], view: int) -> Tensor:
        """The waveforms, [clips, samples], of a view of clips, numbered as in :class:`Batch`."""
        batch = self.clips.__getitems__([(int(clip), view) for clip in clips])
        return self.augmented(Batch(*(part.to(self.device) for part in batch)))[0]

    def judge(self, wav: Tensor) -> Tensor:
        log_mel = self.student.log_mel(whole_steps(wav, self.student.step))
        return self.student.classify(log_mel)[:, -1]

    def training_step(self, batch: Batch, _: int) -> Tensor:
        self.seed_step()
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            wav, label = self.augmented(batch)
            log_mel = self.student.log_mel(whole_steps(wav, self.student.step))
            log_mel = self.masked(log_mel, batch)
            if self.recipe.multilabel:
                target, known = label.float(), torch.ones_like(batch.clip, dtype=torch.bool)
            else:
                target = F.one_hot(label.clamp_min(0), self.student.labels).float()
                known = label >= 0
        taught = None
        if self.ensemble is not None and self.distillation is not None:
            with torch.no_grad():
                answers = self.ensemble(batch.clip, self.view(batch), wav)
            taught = self.distillation.targets(answers)
        if self.recipe.augment.mixup:
            mix = Mixture.draw(len(wav), self.recipe.augment.mixup, self.device)
            log_mel, target = mix(log_mel), mix(target)
            # The label of what is mixed with a clip without one is not known either.
            known = known & known[mix.other]
            taught = None if taught is None else taught.mixed(mix)
        logits = self.student.classify(log_mel)[:, -self.readout :]
        settings = self.recipe.train
        loss = label_loss(logits, target, known, settings.label_smoothing, self.recipe.multilabel)
        if self.distillation is not None and taught is not None:
            loss = self.distillation(loss, logits, self._embedding, taught)
        return self.report(loss, len(wav))

    def configure_optimizers(self) -> Any:
        settings = self.recipe.train
        # Norms and biases are not decayed (Goyal et al. 2017).
        decayed = [p for p in self.parameters() if p.ndim > 1]
        others = [p for p in self.parameters() if p.ndim <= 1]
        optimizer = torch.optim.AdamW(
            [{"params": decayed}, {"params": others, "weight_decay": 0.0}],
            settings.learning_rate,
            weight_decay=settings.weight_decay,
        )
        # The schedule divides by the length of each of its two phases.
        steps = max(3, int(self.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            settings.learning_rate,
            total_steps=steps,
            pct_start=max(settings.warmup, 2 / steps),
            cycle_momentum=False,
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def label_loss(
    logits: Tensor, target: Tensor, known: Tensor, smoothing: float, multilabel: bool = False
) -> Tensor:
    """Mean loss of ``logits`` [batch, steps, labels] over the clips whose ``target``
    [batch, labels] is ``known`` (bool [batch]): cross-entropy, or binary cross-entropy where a
    clip may have several labels."""
    wanted = target[:, None].expand_as(logits)
    if multilabel:
        # Smoothed as the cross-entropy is, over the two values that each label has.
        wanted = wanted * (1 - smoothing) + smoothing / 2
        loss = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(2)
    else:
        loss = F.cross_entropy(
            logits.flatten(0, 1),
            wanted.flatten(0, 1),
            label_smoothing=smoothing,
            reduction="none",
        ).view(logits.shape[:2])
    return (loss.mean(1) * known).sum() / known.sum().clamp_min(1)


class Clips(Dataset[Any]):
    """Clips fetched a batch at a time, each by its number (see :class:`Batch`) and the draw's."""

    def __init__(
        self,
        split: Split,
        silence: int | None,
        unlabelled: NDArray[np.int16] = _NO_CLIPS,
        speech: NDArray[np.int16] = _NO_SPEECH,
        around: float = 0.0,
        seed: int = 0,
    ) -> None:
        """
        Args:
            split: the clips.
            silence: the class of an empty clip.
            unlabelled: clips without a label, int16 [clips, samples].
            speech: free speech, int16 [samples].
            around: share of the words to put between pieces of free speech.
            seed: which words and pieces these are follows from it, the clip and the draw.
        """
        self.split, self.silence, self.unlabelled = split, silence, unlabelled
        self.speech, self.around, self.seed = speech, around, seed
        self.unknown = split.labels.index(UNKNOWN) if UNKNOWN in split.labels else None
        self.places = max(0, len(speech) - split.pcm.shape[1])
        """Samples of free speech at which a piece can begin."""

    def __len__(self) -> int:
        return len(self.split) + len(self.unlabelled)

    def content(self, clips: NDArray[np.int64]) -> Iterator[bytes]:
        """What stands for clips in a hash: their samples and labels."""
        batch = self.__getitems__([(int(clip), 0) for clip in clips])
        yield batch.pcm.numpy().tobytes()
        yield batch.label.numpy().tobytes()

    def __getitems__(self, samples: list[tuple[int, int]]) -> Batch:
        clip, draw = np.array(samples, np.int64).reshape(-1, 2).T
        empty, piece = clip < 0, clip >= len(self)
        stored = ~empty & (clip < len(self.split))
        foreign = ~(empty | piece | stored)
        row = np.where(stored, clip, 0)
        pcm = np.asarray(self.split.pcm[row])
        pcm[empty] = 0
        if foreign.any():
            pcm[foreign] = self.unlabelled[clip[foreign] - len(self.split)]
        for place in np.flatnonzero(piece):
            pcm[place] = self._piece(int(clip[place]) - len(self))
        if self.split.several is not None:
            label = self.split.several[row].astype(np.int64)
        else:
            label = np.where(stored, self.split.label[row], UNLABELLED)
            label[empty] = UNLABELLED if self.silence is None else self.silence
            label[piece] = UNLABELLED if self.unknown is None else self.unknown
            if self.places and self.around:
                for place in np.flatnonzero(stored & (label != self.silence)):
                    use = (self.seed, int(clip[place]), int(draw[place]))
                    pcm[place] = self._within_speech(pcm[place], np.random.default_rng(use))
        # Copies: a transposed array is not whole in memory.
        return Batch(*(torch.from_numpy(np.ascontiguousarray(x)) for x in (pcm, label, clip, draw)))

    def _within_speech(
        self, pcm: NDArray[np.int16], random: np.random.Generator
    ) -> NDArray[np.int16]:
        """A word, put between pieces of free speech as often as is asked for."""
        if random.random() >= self.around:
            return pcm
        piece = self._piece(int(random.integers(self.places)))
        return surround(pcm, piece, random.uniform(*_AROUND_DB))

    def _piece(self, start: int) -> np.ndarray:
        return self.speech[start : start + self.split.pcm.shape[1]]


def whole_steps(wav: Tensor, step: int) -> Tensor:
    """Drop what exceeds whole steps from the beginning of ``wav`` [batch, samples].

    The end of a clip is where it is judged; a stream reaches it at the end of a step.
    """
    return wav[:, wav.shape[1] % step :]


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


def labelled_clips(clips: Clips, recipe: Recipe, ranks: int) -> int:
    """About how many clips with labels the recipe wants in an epoch; 0: it sets no number."""
    settings = recipe.train
    wanted = settings.steps_per_epoch * settings.batch * ranks
    return round(wanted * (1 - _unlabelled_share(clips, recipe)))


def _unlabelled_share(clips: Clips, recipe: Recipe) -> float:
    if recipe.distill is None or not len(clips.unlabelled):
        return 0.0
    return recipe.distill.unlabelled_share


def epoch_batches(
    clips: Clips, recipe: Recipe, epoch: int, ranks: int, unknown: int | None
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
    """
    split = clips.split
    random = np.random.default_rng((recipe.seed, epoch))
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
    size = min(settings.batch, len(order) // ranks)
    count = len(order) // (size * ranks) * ranks
    draws = random.integers(1 << 32, size=len(order))
    samples = list(zip(order.tolist(), draws.tolist(), strict=True))
    return [samples[i * size : (i + 1) * size] for i in range(count)]


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
    within the other words the pieces of free speech. A class with too few clips repeats them.
    ``wanted``: about how many rows; 0: as many as go once through the keywords' clips.
    """
    data, split = recipe.data, clips.split
    members = [np.flatnonzero(split.label == k) for k in range(unknown)]
    rest = max(1e-6, 1 - data.unknown - data.silence)
    total = round(wanted * rest) if wanted else sum(map(len, members))
    each = -(-total // unknown)
    whole = wanted or total / rest

    def mixed(pool: np.ndarray, count: int) -> np.ndarray:
        """So many of a class, ``data.own_share`` of them from the folders of ``data.own``."""
        own = np.zeros(len(pool), bool) if split.own is None else split.own[pool]
        if own.all() or not own.any():
            return _draw(pool, count, random)
        few = round(data.own_share * count)
        return np.concatenate(
            [_draw(pool[own], few, random), _draw(pool[~own], count - few, random)]
        )

    others = np.flatnonzero((split.label == unknown) & (split.word != SPEECH))
    chosen = [mixed(pool, each) for pool in members]
    count = round(data.unknown * whole)
    parts = round(data.speech_share * count) if clips.places else 0
    chosen.append(len(clips) + random.integers(max(1, clips.places), size=parts))
    if len(others):
        chosen.append(mixed(others, count - parts))
    real, drawn = background_clips(split, recipe, unknown, wanted)
    if real:
        chosen.append(random.choice(np.flatnonzero(split.label > unknown), real))
    chosen.append(-1 - np.arange(drawn))
    return np.concatenate(chosen)


def _draw(pool: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """``count`` of ``pool``, each once before any comes again."""
    rounds = -(-count // max(1, len(pool)))
    return np.concatenate([pool[:0], *(random.permutation(pool) for _ in range(rounds))])[:count]


def _as_it_is(batch: Any) -> Any:
    return batch


def _validation_loader(split: Split, trainer: pl.Trainer) -> DataLoader[Any]:
    # Every process gets a share: one without a batch would not join the others' sums.
    rows = [(row, 0) for row in range(trainer.global_rank, len(split), trainer.world_size)]
    return DataLoader(
        Clips(split, 0),
        batch_sampler=[rows[i : i + 256] for i in range(0, len(rows), 256)],
        collate_fn=_as_it_is,
    )


def _scan(recipe: Recipe) -> Corpus:
    if not recipe.data.roots:
        hint = ": data.own alone gives no validation split, name one from earmark synth"
        raise EarmarkError(
            "recipe field data.roots: names no corpus folder" + (hint if recipe.data.own else "")
        )
    data, labels = recipe.data, recipe.labels
    corpus = scan(*data.roots, own=data.own, folds=data.folds, fold=data.fold)
    classes, unknown = [x for x in labels if x not in (UNKNOWN, SILENCE)], UNKNOWN in labels
    corpus.require(classes, ("train",), data.at_least, unknown)
    corpus.require(classes, ("validation",), unknown=unknown)
    return corpus


def _background(
    corpus: Corpus, recipe: Recipe, splits: dict[str, Split], cache: Path
) -> np.ndarray:
    """The noise that training draws from, int16 [length]; empty where nothing draws from it."""
    train = splits["train"]
    if not recipe.augment.noise and SILENCE not in train.labels:
        return np.zeros(0, np.int16)
    pool = noise_pool(corpus, "train", recipe.data.noise, cache)
    if sum(map(len, pool)) <= train.pcm.shape[1]:
        optional = "" if SILENCE in train.labels else ", or set augment.noise to 0"
        raise EarmarkError(
            f"{', '.join((*recipe.data.roots, *recipe.data.noise))}: no background noise of more "
            "than a clip's length for training: add recordings of 10 s or more to the corpus' "
            f"folder _background_noise_, or name a folder of some in data.noise{optional}"
        )
    return np.concatenate(pool)


def _check_readable(splits: dict[str, Split], recipe: Recipe) -> None:
    """What the corpus lists was checked when it was scanned; this is what could be read of it."""
    for name, needed in (("train", recipe.data.at_least), ("validation", 1)):
        split = splits[name]
        for index, label in enumerate(split.labels):
            count = int(split.target[:, index].sum())
            if label != SILENCE and count < needed:
                raise EarmarkError(
                    f"{', '.join(recipe.data.roots)}: {count} readable clips of {label!r} in the "
                    f"{name} split, at least {needed} needed: replace those reported above"
                )


def _free_speech(recipe: Recipe, cache: Path, clip: int) -> np.ndarray:
    """The free speech to train on, int16 [samples]; empty where the recipe names none."""
    folders = recipe.data.speech
    if not folders:
        return _NO_SPEECH
    pool = speech_pool(folders, "train", cache)
    if len(pool) <= clip:
        raise EarmarkError(
            f"{', '.join(folders)}: no free speech of more than a clip's length for training: a "
            "recording is in one split only, so give some dozens of them"
        )
    return pool


def _start_from(student: Student, labels: tuple[str, ...], first: runs.Run) -> None:
    """Give a student the weights of another run, of its last layer those of labels in common."""
    if (first.recipe.student, first.recipe.features) != (student.settings, student.mfcc.settings):
        raise EarmarkError(
            f"recipe field train.init: {first.path} has a student of another shape: use its "
            "settings of student and features, or leave train.init out"
        )
    known = [first.info.labels.index(label) for label in labels if label in first.info.labels]
    new = [index for index, label in enumerate(labels) if label in first.info.labels]
    weights = first.student.state_dict()
    for name, value in student.head.state_dict().items():
        old = weights[f"head.{name}"]
        weights[f"head.{name}"] = value.index_copy(0, torch.tensor(new), old[known])
    student.load_state_dict(weights)


def _baselines(splits: dict[str, Split], recipe: Recipe) -> dict[str, float]:
    """Figures on the validation clips of what needs no training, over at most some clips."""
    train, validation = splits["train"], splits["validation"]
    if train.pcm.shape[1] < recipe.features.window:
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
    )


def run_info(
    material: Material,
    recipe: Recipe,
    run_dir: Path,
    command: str,
    first: runs.Run | None = None,
) -> runs.RunInfo:
    """What a run notes before it begins; ``first``: the run whose weights it starts from."""
    labels, splits, corpus = material.labels, material.splits, material.corpus
    counts = {
        name: dict(zip(labels, split.target.sum(axis=0).tolist(), strict=True))
        for name, split in splits.items()
    }
    random = np.random.default_rng((recipe.seed, len(splits["train"])))
    rows = random.permutation(len(splits["train"]))[:CALIBRATION_CLIPS]
    # A run that is there has noted them.
    fresh = not (run_dir / runs.INFO).exists()
    baselines = _baselines(splits, recipe) if fresh else {}
    figure_name = "map" if recipe.multilabel else "top-1"
    for name, figure in baselines.items():
        print(f"baseline {name}: {figure_name} {figure:.4f}", file=sys.stderr)
    return runs.RunInfo(
        labels=labels,
        sources=_sources(corpus, recipe, first),
        fingerprint=data_fingerprint(corpus, *recipe.data.noise, *recipe.data.speech),
        init_sha256=first.weights_sha256 if first else "",
        clips=counts,
        calibration=tuple(sorted(splits["train"].path[rows].tolist())),
        versions=runs.package_versions(),
        git_revision=runs.git_revision(),
        command=command,
        baselines=baselines,
    )


def _sources(corpus: Corpus, recipe: Recipe, first: runs.Run | None) -> tuple[Source, ...]:
    """All that shaped the weights: what the recipe says, or the folders; and what ``first`` had."""
    data = recipe.data
    sources = list(data.sources or corpus.sources)
    if not data.sources:
        for role, folders in (("background noise", data.noise), ("free speech", data.speech)):
            for folder in folders:
                sources += read_sources(Path(folder), role)
    if first:
        sources += first.info.sources
    return tuple(dict.fromkeys(sources))


def _trainer(settings: TrainSettings, run_dir: Path, progress: bool) -> pl.Trainer:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    checkpoints = ModelCheckpoint(
        run_dir / runs.CHECKPOINTS,
        filename="last",
        save_top_k=1,
        every_n_epochs=1,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    bar = [RichProgressBar()] if progress and sys.stderr.isatty() else []
    many = settings.devices * settings.nodes > 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pl.Trainer(
            accelerator=settings.accelerator,
            devices=settings.devices,
            num_nodes=settings.nodes,
            # Frozen or skipped layers take no part in some steps.
            strategy="ddp_find_unused_parameters_true" if many else "auto",
            precision=_precision(settings),
            max_epochs=settings.epochs,
            reload_dataloaders_every_n_epochs=1,
            check_val_every_n_epoch=_interval(settings.epochs, settings.validate_every),
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            logger=TensorBoardLogger(run_dir, name="", version=""),
            plugins=[AtomicCheckpointIO(), *([ShareBatchNorms()] if many else [])],
            callbacks=[checkpoints, _History(run_dir), *bar],
            enable_progress_bar=bool(bar),
            enable_model_summary=False,
            log_every_n_steps=10,
        )


def _precision(settings: TrainSettings) -> Any:
    if settings.precision != "auto":
        return settings.precision
    if settings.accelerator == "cpu" or not torch.cuda.is_available():
        return "32-true"
    return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"


def _interval(epochs: int, at_most: int) -> int:
    """The largest interval of looks that is not above ``at_most`` and ends on the last epoch."""
    return max(n for n in range(1, min(at_most, epochs) + 1) if epochs % n == 0)


class _History(Callback):
    """Writes metrics.jsonl, and a line a look for people."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        values = {key: float(value) for key, value in trainer.callback_metrics.items()}
        epoch = trainer.current_epoch + 1
        looked = epoch % trainer.check_val_every_n_epoch == 0  # pyright: ignore[reportOperatorIssue]
        if not looked:
            values = {key: value for key, value in values.items() if key == "loss"}
        line = {"epoch": epoch} | {key: round(value, 6) for key, value in values.items()}
        with (self.run_dir / runs.METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if looked:
            shown = "  ".join(f"{key} {value:.4f}" for key, value in values.items())
            print(f"epoch {epoch}/{trainer.max_epochs}  {shown}", file=sys.stderr)


def _forget_after(run_dir: Path, checkpoint: Path | None) -> None:
    """Drop the metrics of epochs that a resumed run will go through again."""
    file = run_dir / runs.METRICS
    if not file.exists():
        return
    done = 0 if checkpoint is None else epochs_done(checkpoint)
    lines = [json.dumps(line) for line in runs.read_history(run_dir) if line["epoch"] <= done]
    runs.write_text(file, "".join(line + "\n" for line in lines))
