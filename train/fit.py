"""Training: the recipe's corpus in, a complete run directory out."""

import json
import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..runtime.errors import EarmarkError
from ..runtime.manifest import SILENCE, UNKNOWN, Source
from . import run as runs
from .augment import augment_audio, mask_bands, mixup
from .checkpoints import AtomicCheckpointIO, epochs_done
from .corpus import Corpus, data_fingerprint, read_sources, scan
from .dataset import SPEECH, Split, load_split, noise_pool, speech_pool
from .metrics import watched
from .recipe import Recipe
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
_EMPTY = -1
_NO_SPEECH = np.zeros(0, np.int16)
_AROUND_DB = (-10.0, 5.0)
"""Level of the free speech around a word against the word."""


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
    first = runs.load_run(recipe.train.init) if recipe.train.init else None
    runs.start(run_dir, recipe, _info(corpus, splits, recipe, first, command))
    if runs.is_complete(run_dir):
        return run_dir
    background = _background(corpus, recipe, splits, cache)
    clip = splits["train"].pcm.shape[1]
    lesson = Lesson(recipe, labels, splits["train"], background, _free_speech(recipe, cache, clip))
    if first:
        _start_from(lesson.student, labels, first)
    trainer = _trainer(recipe, run_dir, progress)
    last = run_dir / runs.CHECKPOINTS / "last.ckpt"
    resume = last if last.exists() else None
    if trainer.is_global_zero:
        _forget_after(run_dir, resume)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.fit(
                lesson,
                val_dataloaders=_validation_loader(splits["validation"], trainer),
                ckpt_path=resume,
                weights_only=True,
            )
    except SystemExit as stop:
        # The trainer takes Ctrl-C for itself and leaves the program.
        if trainer.interrupted:
            raise KeyboardInterrupt from stop
        raise
    if trainer.is_global_zero:
        runs.save_weights(run_dir, lesson.student)
    trainer.strategy.barrier()
    return run_dir


class Lesson(pl.LightningModule):
    """What one step of training is."""

    def __init__(
        self,
        recipe: Recipe,
        labels: tuple[str, ...],
        split: Split,
        pool: np.ndarray,
        speech: np.ndarray,
    ) -> None:
        """
        Args:
            recipe: all choices of the run.
            labels: as of :func:`earmark.train.dataset.label_set`.
            split: the clips to learn from.
            pool: background noise, int16 [samples].
            speech: free speech without keywords, int16 [samples]; empty where there is none.
        """
        super().__init__()
        self.recipe = recipe
        self.split = split
        self.speech = speech
        self.unknown, self.silence = (
            labels.index(name) if name in labels else None for name in (UNKNOWN, SILENCE)
        )
        pl.seed_everything(recipe.seed, verbose=False)
        self.student = Student(len(labels), recipe.student, recipe.features)
        # No buffer: what a module registers is sent from one process to the others.
        self.pool = torch.from_numpy(pool)
        self.watched = watched(len(labels), recipe.multilabel)
        self.rate = recipe.features.sample_rate
        self.readout = max(1, round(READOUT * self.rate / self.student.step))

    def on_fit_start(self) -> None:
        self.pool = self.pool.to(self.device)

    def train_dataloader(self) -> DataLoader[Any]:
        # Lightning asks anew for each epoch, so that the order follows from the epoch's number
        # alone and a resumed run sees the clips that it would have seen.
        trainer = self.trainer
        epoch = trainer.current_epoch
        batches = epoch_batches(
            self.split,
            self.recipe,
            epoch,
            trainer.world_size,
            self.unknown,
            max(0, len(self.speech) - self.split.pcm.shape[1]),
        )
        clips = Clips(
            self.split,
            self.silence,
            self.speech,
            self.recipe.data.speech_around,
            np.random.default_rng((self.recipe.seed, epoch, trainer.global_rank, 1)),
        )
        return DataLoader(
            clips,
            batch_sampler=batches[trainer.global_rank :: trainer.world_size],
            collate_fn=_as_it_is,
        )

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        settings = self.recipe.augment
        # Every step has a seed of its own: what a resumed run draws does not depend on where it
        # was interrupted.
        torch.manual_seed(hash((self.recipe.seed, self.global_step, self.global_rank)) & 0x7FFFFFFF)
        pcm, label = batch
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            wav, label = augment_audio(
                pcm.float() / 32768,
                label,
                self.pool,
                settings,
                self.rate,
                self.unknown,
                self.silence,
            )
            log_mel = mask_bands(
                self.student.log_mel(whole_steps(wav, self.student.step)), settings
            )
            target = label if label.ndim > 1 else F.one_hot(label, self.student.labels)
            target = target.float()
            if settings.mixup:
                log_mel, target = mixup(log_mel, target, settings.mixup)
        logits = self.student.classify(log_mel)[:, -self.readout :]
        loss = self.loss(logits.flatten(0, 1), target[:, None].expand_as(logits).flatten(0, 1))
        if not torch.isfinite(loss):
            raise EarmarkError("the loss is no number: lower train.learning_rate")
        self.log("loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(pcm))
        return loss

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of logits [rows, labels] against targets in [0, 1] of the same shape."""
        smoothing = self.recipe.train.label_smoothing
        if self.recipe.multilabel:
            # Smoothed as the cross-entropy is, over the two values that each label has.
            target = target * (1 - smoothing) + smoothing / 2
            return F.binary_cross_entropy_with_logits(logits, target)
        return F.cross_entropy(logits, target, label_smoothing=smoothing)

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        pcm, label = batch
        log_mel = self.student.log_mel(whole_steps(pcm.float() / 32768, self.student.step))
        logits = self.student.classify(log_mel)[:, -1]
        self.watched.update(logits, label)
        self.log_dict(self.watched, on_step=False, on_epoch=True)

    def configure_optimizers(self) -> Any:
        settings = self.recipe.train
        # Norms and biases are not decayed (Goyal et al. 2017).
        decayed = [p for p in self.student.parameters() if p.ndim > 1]
        others = [p for p in self.student.parameters() if p.ndim <= 1]
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


class Clips(Dataset[Any]):
    """Clips fetched a batch at a time.

    Index -1 is an empty clip, to be filled with background, and -2 - ``s`` the piece of free speech
    that begins at sample ``s``.
    """

    def __init__(
        self,
        split: Split,
        silence: int | None,
        speech: np.ndarray = _NO_SPEECH,
        around: float = 0.0,
        random: np.random.Generator | None = None,
    ) -> None:
        """
        Args:
            split: the clips.
            silence: the class of an empty clip.
            speech: free speech, int16 [samples].
            around: share of the words to put between pieces of free speech.
            random: draws those words and pieces.
        """
        self.split, self.silence = split, silence
        self.speech, self.around, self.random = speech, around, random
        self.unknown = split.labels.index(UNKNOWN) if UNKNOWN in split.labels else None
        self.places = len(speech) - split.pcm.shape[1]

    def __len__(self) -> int:
        return len(self.split)

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        index = np.asarray(indices)
        stored = index >= 0
        place = np.where(stored, index, 0)
        pcm = np.asarray(self.split.pcm[place])
        pcm[index == _EMPTY] = 0
        if self.split.several is not None:
            return torch.from_numpy(pcm), torch.from_numpy(
                self.split.several[place].astype(np.int64)
            )
        label = np.where(stored, self.split.label[place], self.silence or 0)
        for row in np.flatnonzero(index < _EMPTY):
            pcm[row] = self._piece(_EMPTY - 1 - int(index[row]))
            label[row] = self.unknown
        if self.random is not None and self.places > 0:
            drawn = self.random.random(len(index)) < self.around
            for row in np.flatnonzero(drawn & stored & (label != self.silence)):
                piece = self._piece(int(self.random.integers(self.places)))
                pcm[row] = surround(pcm[row], piece, self.random.uniform(*_AROUND_DB))
        return torch.from_numpy(pcm), torch.from_numpy(label)

    def _piece(self, start: int) -> np.ndarray:
        return self.speech[start : start + self.split.pcm.shape[1]]


def whole_steps(wav: Tensor, step: int) -> Tensor:
    """Drop what exceeds whole steps from the beginning of ``wav`` [batch, samples].

    The end of a clip is where it is judged; a stream reaches it at the end of a step.
    """
    return wav[:, wav.shape[1] % step :]


def epoch_batches(
    split: Split,
    recipe: Recipe,
    epoch: int,
    ranks: int,
    unknown: int | None,
    speech_places: int = 0,
) -> list[list[int]]:
    """The clips of one epoch in batches, a multiple of ``ranks``, as indices of :class:`Clips`.

    They are drawn as the recipe's ``data.balance`` says: the rows of :func:`keyword_rows`, of
    :func:`balanced_rows`, or each once. An epoch has ``train.steps_per_epoch`` steps where that is
    set.

    Args:
        split: the clips.
        recipe: its shares, seed and lengths.
        epoch: the clips and their order follow from its number.
        ranks: processes that share the batches.
        unknown: the class of other words, which follows those of the keywords; None where there is
            none.
        speech_places: samples of free speech at which a piece can begin.
    """
    random = np.random.default_rng((recipe.seed, epoch))
    settings = recipe.train
    wanted = settings.steps_per_epoch * settings.batch * ranks
    if recipe.data.balance == "natural":
        rows = np.arange(len(split))
    elif unknown is None or recipe.data.balance == "balanced":
        rows = balanced_rows(split, random)
    else:
        rows = keyword_rows(split, recipe, unknown, random, wanted, speech_places)
    order = random.permutation(rows)
    if wanted:
        # Rounding leaves a clip too many or too few; other balances have an epoch of their own.
        order = np.resize(order, wanted)
    size = min(settings.batch, len(order) // ranks)
    count = len(order) // (size * ranks) * ranks
    return [order[i * size : (i + 1) * size].tolist() for i in range(count)]


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
    split: Split,
    recipe: Recipe,
    unknown: int,
    random: np.random.Generator,
    wanted: int = 0,
    speech_places: int = 0,
) -> np.ndarray:
    """Clips of all keywords equally often, and the shares of other words and of background that
    the recipe gives, as indices of :class:`Clips`.

    Within a class, the recordings of ``data.own`` have the share that the recipe gives them, and
    within the other words the pieces of free speech. A class with too few clips repeats them.
    ``wanted``: about how many rows; 0: as many as go once through the keywords' clips.
    """
    data = recipe.data
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
    real_silence = np.flatnonzero(split.label > unknown)
    chosen = [mixed(pool, each) for pool in members]
    count = round(data.unknown * whole)
    pieces = round(data.speech_share * count) if speech_places else 0
    chosen.append(_EMPTY - 1 - random.integers(max(1, speech_places), size=pieces))
    if len(others):
        chosen.append(mixed(others, count - pieces))
    background = np.full(round(data.silence * whole), _EMPTY)
    # Half of the background is what the corpus holds of it, the other half drawn from the pool.
    half = len(background) // 2 if len(real_silence) else 0
    background[:half] = random.choice(real_silence, half) if half else _EMPTY
    return np.concatenate([*chosen, background])


def _draw(pool: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """``count`` of ``pool``, each once before any comes again."""
    rounds = -(-count // max(1, len(pool)))
    return np.concatenate([pool[:0], *(random.permutation(pool) for _ in range(rounds))])[:count]


def _as_it_is(batch: Any) -> Any:
    return batch


def _validation_loader(split: Split, trainer: pl.Trainer) -> DataLoader[Any]:
    # Every process gets a share: one without a batch would not join the others' sums.
    rows = list(range(trainer.global_rank, len(split), trainer.world_size))
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


def _info(
    corpus: Corpus,
    splits: dict[str, Split],
    recipe: Recipe,
    first: runs.Run | None,
    command: str,
) -> runs.RunInfo:
    labels = splits["train"].labels
    counts = {
        name: dict(zip(labels, split.target.sum(axis=0).tolist(), strict=True))
        for name, split in splits.items()
    }
    random = np.random.default_rng((recipe.seed, len(splits["train"])))
    rows = random.permutation(len(splits["train"]))[:CALIBRATION_CLIPS]
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


def _trainer(recipe: Recipe, run_dir: Path, progress: bool) -> pl.Trainer:
    settings = recipe.train
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
            strategy="ddp" if many else "auto",
            precision=settings.precision,
            max_epochs=settings.epochs,
            reload_dataloaders_every_n_epochs=1,
            check_val_every_n_epoch=_interval(settings.epochs, settings.validate_every),
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            logger=TensorBoardLogger(run_dir, name="", version=""),
            plugins=[AtomicCheckpointIO()],
            callbacks=[checkpoints, _History(run_dir), *bar],
            enable_progress_bar=bool(bar),
            enable_model_summary=False,
            log_every_n_steps=10,
        )


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
