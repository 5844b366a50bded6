"""Training of a teacher: the student's data and augmentation, another network, its own run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..runtime.errors import EarmarkError
from ..runtime.files import write_text
from . import run as runs
from .augment import Mixture
from .data.clips import Batch
from .data.material import Material, prepare
from .data.share import Share
from .fit import fit, make_trainer
from .gather import gathered
from .lesson import Lesson, label_loss
from .metrics import classification, multilabel
from .optimizers import by_decay, make_optimizer
from .recipe import Recipe
from .run_info import run_info
from .teachers import registry
from .teachers.run import SHAPE, WEIGHTS, teacher_posteriors
from .teachers.teacher import Teacher, parameter_groups

EVALUATION = "evaluation.json"
_CLIP_NORM = 5.0


def teach(recipe: Recipe, run_dir: Path, command: str = "", progress: bool = True) -> Path:
    """Train the recipe's teacher, or go on with an interrupted run.

    Returns:
        ``run_dir``, complete: a run directory as of :mod:`earmark.train.run` with the weights in
        ``teacher.pt``, the network's shape in ``teacher.json`` and its accuracy on the validation
        clips in ``evaluation.json``.

    Raises:
        EarmarkError: as :func:`earmark.train.fit.train`; or the recipe names no teacher.
    """
    run_dir = Path(run_dir)
    if recipe.teacher is None:
        raise EarmarkError("recipe field teacher: is missing: name its kind")
    # Frozen or skipped layers take no part in some steps.
    trainer = make_trainer(recipe.train, run_dir, progress, partly=True)
    material = prepare(recipe, run_dir, Share(trainer.global_rank, trainer.world_size))
    info = run_info(material, recipe, run_dir, command)
    # Before the directory is claimed, so that a recipe of which none can be made may be mended.
    lesson = None if runs.is_complete(run_dir, WEIGHTS) else TeacherLesson(recipe, material)
    if trainer.is_global_zero:
        runs.start(run_dir, recipe, info)
    if lesson is None:
        return run_dir
    fit(trainer, lesson, material, run_dir)
    # Where every process has all clips one of them measures; else each tells the others its own.
    divided = lesson.clips.share.ranks > 1
    measured = _evaluate(lesson, material) if divided or trainer.is_global_zero else {}
    if trainer.is_global_zero:
        write_text(run_dir / SHAPE, json.dumps(lesson.teacher.backbone.config, default=str))
        write_text(run_dir / EVALUATION, json.dumps(measured, indent=1))
        runs.save_weights(run_dir / WEIGHTS, lesson.teacher)
    trainer.strategy.barrier()
    return run_dir


class TeacherLesson(Lesson):
    """Teaches a teacher: first its head on a frozen network if the recipe says so, then all."""

    def __init__(self, recipe: Recipe, material: Material) -> None:
        super().__init__(recipe, material)
        assert recipe.teacher is not None
        self.settings = recipe.teacher
        backbone = registry.build(recipe.teacher, recipe.features, recipe.seed)
        self.teacher = Teacher(backbone, len(material.labels))

    @property
    def frozen(self) -> bool:
        """Whether the head alone is trained now."""
        return self.current_epoch < self.settings.head_epochs

    def judge(self, wav: Tensor) -> Tensor:
        return self.teacher(wav).logits

    def training_step(self, batch: Batch, _: int) -> Tensor:
        self.seed_step()
        backbone = self.teacher.backbone.train(not self.frozen)
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            wav, label = self.augmented(batch), batch.label
            features = backbone.features(wav)
            if features.ndim == 3:
                features = self.masked(features, batch)
            if self.recipe.multilabel:
                target = label.float()
            else:
                target = F.one_hot(label, len(self.split.labels)).float()
            if self.recipe.augment.mixup:
                mix = Mixture.draw(len(wav), self.recipe.augment.mixup, self.device)
                features, target = mix(features), mix(target)
        with torch.set_grad_enabled(not self.frozen):
            embedding = backbone.encode(features)
        logits, smoothing = self.teacher.head(embedding), self.recipe.train.label_smoothing
        if self.recipe.multilabel:
            known = torch.ones_like(batch.clip, dtype=torch.bool)
            loss = label_loss(logits[:, None], target, known, smoothing, multilabel=True)
        else:
            loss = F.cross_entropy(logits, target, label_smoothing=smoothing)
        return self.report(loss, len(wav))

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        # Attention trained from random numbers has rare, huge gradients.
        self.clip_gradients(optimizer, _CLIP_NORM, "norm")

    def configure_optimizers(self) -> Any:
        settings, teacher = self.recipe.train, self.settings
        groups = parameter_groups(
            self.teacher, settings.learning_rate, teacher.backbone_rate, teacher.layer_decay
        )
        groups = [part for group in groups for part in by_decay(group, settings.weight_decay)]
        optimizer = make_optimizer(settings.optimizer, groups, settings.learning_rate)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: warm_cosine(step, steps, settings.warmup)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def warm_cosine(step: int, steps: int, warmup: float) -> float:
    """Share of the learning rate at a step: a linear rise, then half a cosine down to 0."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + float(np.cos(np.pi * min(1.0, (step - rise) / max(1, steps - rise)))))


def _evaluate(lesson: TeacherLesson, material: Material) -> dict[str, Any]:
    """Accuracy on whole validation clips, those of all processes where each holds some; of a
    multi-label task the mean average precision and what goes with it."""
    split, share = material.splits["validation"], lesson.clips.share
    device = lesson.trainer.strategy.root_device
    # Lightning leaves the network on the CPU, where a large one takes hours for it.
    teacher = lesson.teacher.eval().to(device)
    measures, truth = (
        (classification, split.label) if split.several is None else (multilabel, split.several)
    )
    columns = (truth, teacher_posteriors(teacher, split), split.speaker)
    teacher.to("cpu")
    measured = measures(split.labels, *(gathered(share, column, device) for column in columns))
    parameters = sum(p.numel() for p in teacher.parameters())
    return {"split": "validation", "parameters": parameters} | measured
