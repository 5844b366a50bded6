"""Training: the recipe's corpus in, a complete run directory out."""

import json
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch.utils.data import DataLoader

from ..runtime.errors import EarmarkError
from . import run as runs
from .checkpoints import AtomicCheckpointIO, epochs_done
from .data.clips import Clips, as_it_is
from .data.dataset import Split
from .data.material import Material, prepare
from .data.share import WHOLE, Share
from .learned import check_held_out
from .lesson import Lesson, StudentLesson
from .lightning_import import (
    Callback,
    DDPStrategy,
    MisconfigurationException,
    ModelCheckpoint,
    RichProgressBar,
    TensorBoardLogger,
    pl,
)
from .recipe import Recipe, TrainSettings
from .run_info import run_info
from .shared_norm import ShareBatchNorms
from .student import Student
from .teachers.ensemble import Ensemble

_PATIENCE = timedelta(days=2)
"""How long processes wait for one that decodes its clips or asks teachers; a dead one is noticed at
once."""


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
        EarmarkError: the corpus is missing or too small, the directory holds another run, a run to
            start from or to be taught by has learned from the fold held out, or the loss is no
            number.
    """
    run_dir = Path(run_dir)
    first, ensemble = begun_with(recipe)
    trainer = make_trainer(recipe.train, run_dir, progress)
    material = prepare(recipe, run_dir, Share(trainer.global_rank, trainer.world_size))
    taught_by = ensemble.runs if ensemble else ()
    info = run_info(material, recipe, run_dir, command, first, taught_by)
    if ensemble is not None and recipe.distill is not None:
        info = ensemble.credit(info, recipe.distill.unlabelled)
    lesson = None
    # Before the directory is claimed, so that a recipe of which none can be made may be mended.
    if not runs.is_complete(run_dir):
        lesson = StudentLesson(recipe, material, ensemble)
        if first:
            _start_from(lesson.student, material.labels, first)
    if trainer.is_global_zero:
        runs.start(run_dir, recipe, info)
    if lesson is None:
        return run_dir
    fit(trainer, lesson, material, run_dir)
    if trainer.is_global_zero:
        runs.save_weights(run_dir / runs.WEIGHTS, lesson.student)
    trainer.strategy.barrier()
    return run_dir


def begun_with(recipe: Recipe) -> tuple[runs.Run | None, Ensemble | None]:
    """The run that a recipe's student starts from and its teachers; None where it has none.

    Raises:
        EarmarkError: the recipe is a teacher's, a run is missing or of other classes, or one has
            learned from what is held out.
    """
    if recipe.teacher is not None:
        raise EarmarkError("recipe field teacher: is for earmark teach: a student has none")
    first = runs.load_run(recipe.train.init) if recipe.train.init else None
    ensemble = None
    if recipe.distill is not None:
        ensemble = Ensemble.load(recipe.distill.teachers, recipe.labels, recipe.task)
    for run in (*([first] if first else []), *(ensemble.runs if ensemble else ())):
        check_held_out(recipe, run)
    return first, ensemble


def fit(trainer: pl.Trainer, lesson: Lesson, material: Material, run_dir: Path) -> None:
    """Go through the recipe's epochs, from the last complete one on if there are any.

    Raises:
        EarmarkError: the loss is no number, a checkpoint is damaged, there are more processes than
            clips to validate with, or another program trains in this directory.
    """
    held_out = material.splits["validation"]
    if held_out.part is None and len(held_out) < trainer.world_size:
        raise EarmarkError(
            f"the validation split has {len(held_out)} clips for {trainer.world_size} processes: "
            "use fewer (train.devices, train.nodes), or add clips"
        )
    last = run_dir / runs.CHECKPOINTS / "last.ckpt"
    resume = last if last.exists() else None
    alone = _claimed(run_dir) if trainer.is_global_zero else nullcontext()
    try:
        with alone, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if trainer.is_global_zero:
                _forget_after(run_dir, resume)
            trainer.fit(
                lesson,
                val_dataloaders=_validation_loader(held_out, trainer),
                ckpt_path=resume,
                weights_only=True,
            )
    except SystemExit as stop:
        # The trainer takes Ctrl-C for itself and leaves the program.
        if trainer.interrupted:
            raise KeyboardInterrupt from stop
        raise


@contextmanager
def _claimed(run_dir: Path) -> Iterator[None]:
    """Keep a second program out of a run directory, in which both would write."""
    lock = FileLock(run_dir / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise EarmarkError(
            f"{run_dir}: is being trained by another program: wait for it, or choose another "
            "directory"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _validation_loader(split: Split, trainer: pl.Trainer) -> DataLoader[Any]:
    # Every process gets a share: one without a batch would not join the others' sums.
    divided = split.part is not None and split.part.share.ranks > 1
    share = WHOLE if divided else Share(trainer.global_rank, trainer.world_size)
    rows = [(row, 0) for row in share.dealt(len(split)).tolist()]
    return DataLoader(
        Clips(split, 0),
        batch_sampler=[rows[i : i + 256] for i in range(0, len(rows), 256)],
        collate_fn=as_it_is,
    )


def _start_from(student: Student, labels: tuple[str, ...], first: runs.Run) -> None:
    """Give a student the weights of another run, of its last layer those of labels in common."""
    if (first.recipe.student, first.recipe.features) != (student.settings, student.mfcc.settings):
        raise EarmarkError(
            f"recipe field train.init: {first.path} has a student of another shape: use its "
            "settings of student and features, or leave train.init out"
        )
    known = [first.info.labels.index(label) for label in labels if label in first.info.labels]
    new = [index for index, label in enumerate(labels) if label in first.info.labels]
    # Of no label in common a list is empty, and would be of floats.
    rows = torch.tensor(new, dtype=torch.int64)
    weights = first.student.state_dict()
    for name, value in student.head.state_dict().items():
        old = weights[f"head.{name}"]
        weights[f"head.{name}"] = value.index_copy(0, rows, old[known])
    student.load_state_dict(weights)


def make_trainer(
    settings: TrainSettings, run_dir: Path, progress: bool = True, *, partly: bool = False
) -> pl.Trainer:
    """The trainer of a run, which knows which of its processes this one is.

    ``partly``: some weights take no part in some steps.
    """
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
    ddp = DDPStrategy(find_unused_parameters=partly, timeout=_PATIENCE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = _trainer(
            accelerator=settings.accelerator,
            devices=settings.devices,
            num_nodes=settings.nodes,
            strategy=ddp if many else "auto",
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
    # Which Lightning would take for bf16-mixed.
    if settings.precision == "16-mixed" and trainer.strategy.root_device.type == "cpu":
        raise EarmarkError(
            "recipe field train.precision: 16-mixed is for a GPU, and this run is on the CPU: take "
            "bf16-mixed or 32-true"
        )
    return trainer


def _trainer(**settings: Any) -> pl.Trainer:
    try:
        return pl.Trainer(**settings)
    except MisconfigurationException as error:
        reason = str(error).strip().splitlines()[0]
        raise EarmarkError(
            f"recipe fields train.accelerator and train.devices: not on this machine ({reason})"
        ) from error


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
