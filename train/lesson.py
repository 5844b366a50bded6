"""A step of training: what happens to a batch, and what is learned from it."""

import hashlib
import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from ..runtime.errors import EarmarkError
from ..runtime.manifest import SILENCE, UNKNOWN
from . import seen
from .augment import Mixture, augment_audio, mask_bands, shapes_waveform
from .data.clips import Batch, Clips, as_it_is
from .data.epoch import background_clips, epoch_batches, labelled_clips
from .data.material import Material
from .draws import Draws
from .gather import least, mean_over
from .lightning_import import pl
from .metrics import watched
from .optimizers import by_decay, make_optimizer
from .recipe import Recipe
from .seen import SeenViews
from .student import Student, whole_steps
from .teachers.distill import Distillation
from .teachers.ensemble import Ensemble

READOUT = 0.1
"""The loss is the mean over the logits of this last stretch of a clip, seconds."""


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
            recipe.augment.cut,
            recipe.view_seed,
            recipe.augment.views,
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
        batches = self._batches(self.trainer.current_epoch)
        mine = self.trainer.global_rank % self.together
        return DataLoader(
            self.clips, batch_sampler=batches[mine :: self.together], collate_fn=as_it_is
        )

    def _batches(self, epoch: int) -> list[list[tuple[int, int]]]:
        share = self.clips.share
        return epoch_batches(
            self.clips,
            self.recipe,
            epoch,
            self.together,
            self.unknown,
            lambda count: least(share, count, self.device),
        )

    @property
    def together(self) -> int:
        """How many processes hold the same clips, and share what is drawn from them."""
        return self.trainer.world_size // self.clips.share.ranks

    def augmented(self, batch: Batch) -> Tensor:
        """The waveforms, [batch, samples], of the views of a batch.

        They depend on the seed of the views, each clip and its view alone.
        """
        return augment_audio(
            batch.pcm.float() / 32768,
            batch.label,
            Draws.of(self.recipe.view_seed, batch.number, batch.view),
            self.pool,
            self.recipe.augment,
            self.rate,
            self.silence,
        )

    def masked(self, log_mel: Tensor, batch: Batch) -> Tensor:
        """SpecAugment on [batch, frames, mels], anew each time a clip is used."""
        draws = Draws.of(self.recipe.seed, batch.number, batch.draw)
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
                recipe.distill,
                recipe.student.width,
                ensemble.embedding_width,
                recipe.multilabel,
            )
        self.teachers_listen = recipe.distill is not None and recipe.distill.mode == "online"
        """Whether teachers hear the audio of every step."""
        self._has_unlabelled = recipe.distill is not None and bool(recipe.distill.unlabelled)
        self.seen: SeenViews | None = None
        self._embedding: Tensor | None = None
        if self.distillation is not None and self.distillation.matches:
            self.student.head.register_forward_pre_hook(self._keep_embedding)

    def _keep_embedding(self, _: Any, inputs: tuple[Tensor]) -> None:
        self._embedding = inputs[0].mean(2)

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self._keep_views()
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
                    # As they lie: of a memory map's hours no copy is made.
                    "noise": hashlib.sha256(self.pool.cpu().numpy().data).hexdigest(),
                    "speech": hashlib.sha256(self.clips.speech.data).hexdigest(),
                    "around": self.clips.around,
                    "seed": recipe.view_seed,
                    "classes": [self.unknown, self.silence],
                },
                embed=self.distillation.matches,
                device=self.device,
                rank=self.global_rank % self.together,
                ranks=self.together,
                barrier=self.trainer.strategy.barrier,
            )
        else:
            self.ensemble.to(self.device)
        if self.distillation.matches:
            # One process' clips show the components to all: the loss must be the same.
            sample = self.ensemble.embeddings(self.clips, self.render)
            self.distillation.reduce(self.trainer.strategy.broadcast(sample))

    def _keep_views(self) -> None:
        """Keep what views look like, where that is not too much and saves time: nearly all views
        are made then, whatever a run uses of them."""
        views, empty = self.recipe.augment.views, self._empty_clips()
        made = (len(self.clips) + empty) * views
        if not views or made > self.recipe.train.epochs * self._uses():
            return
        silence = torch.zeros(1, self.split.pcm.shape[1], device=self.device)
        shape = self.log_mel(silence).shape[1:]
        if made * math.prod(shape) * 2 <= seen.LIMIT:
            self.seen = SeenViews(len(self.clips), empty, views, shape, self._make_views)
            self.clips.named_only = not self.teachers_listen

    def _uses(self) -> int:
        """How many clips of an epoch are this process' own."""
        return sum(map(len, self._batches(0)[:: self.together]))

    def _make_views(self, clips: NDArray[np.int64], view: int) -> tuple[Tensor, Tensor]:
        batch = self._batch(clips, view)
        return self.log_mel(self.augmented(batch)), batch.label

    def log_mel(self, wav: Tensor) -> Tensor:
        """What the student sees of clips [batch, samples], [batch, frames, mels]."""
        return self.student.log_mel(whole_steps(wav, self.student.step))

    def _empty_clips(self) -> int:
        """How many empty clips an epoch has, of negative numbers."""
        if self.unknown is None or self.recipe.data.balance != "keywords":
            return 0
        wanted = labelled_clips(self.clips, self.recipe, self.together)
        return background_clips(self.split, self.recipe, self.unknown, wanted)[1]

    @torch.no_grad()
    def render(self, clips: NDArray[np.int64], view: int) -> Tensor:
        """The waveforms, [clips, samples], of a view of clips, numbered as in :class:`Batch`."""
        return self.augmented(self._batch(clips, view))

    def _batch(self, clips: NDArray[np.int64], view: int) -> Batch:
        batch = self.clips.fetch([(int(clip), view) for clip in clips])
        return Batch(*(part.to(self.device) for part in batch))

    def judge(self, wav: Tensor) -> Tensor:
        return self.student.classify(self.log_mel(wav))[:, -1]

    def training_step(self, batch: Batch, _: int) -> Tensor:
        self.seed_step()
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            if self.seen is not None and not self.teachers_listen:
                wav, (log_mel, label) = None, self.seen(batch.clip, batch.view)
            else:
                wav, label = self.augmented(batch), batch.label
                # What views look like is rounded, whoever else hears them.
                log_mel = self.seen(batch.clip, batch.view)[0] if self.seen else self.log_mel(wav)
            log_mel = self.masked(log_mel, batch)
            if self.recipe.multilabel:
                target, known = label.clamp_min(0).float(), label[:, 0] >= 0
            else:
                target = F.one_hot(label.clamp_min(0), self.student.labels).float()
                known = label >= 0
        taught = None
        if self.ensemble is not None and self.distillation is not None:
            with torch.no_grad():
                answers = self.ensemble(batch.clip, batch.view, wav)
            taught = self.distillation.targets(answers)
        if self.recipe.augment.mixup:
            mix = Mixture.draw(len(batch.clip), self.recipe.augment.mixup, self.device)
            log_mel, target = mix(log_mel), mix(target)
            # The label of what is mixed with a clip without one is not known either.
            known = known & known[mix.other]
            taught = None if taught is None else taught.mixed(mix)
        logits = self.student.classify(log_mel)[:, -self.readout :]
        settings = self.recipe.train
        loss = label_loss(
            logits,
            target,
            known,
            settings.label_smoothing,
            self.recipe.multilabel,
            # Where all clips have labels, processes have equally many.
            self.trainer.world_size if self._has_unlabelled else 1,
        )
        if self.distillation is not None and taught is not None:
            loss = self.distillation(loss, logits, self._embedding, taught)
        return self.report(loss, len(batch.clip))

    def configure_optimizers(self) -> Any:
        settings = self.recipe.train
        groups = by_decay({"params": list(self.parameters())}, settings.weight_decay)
        optimizer = make_optimizer(settings.optimizer, groups, settings.learning_rate)
        # The schedule divides by the length of each of its two phases.
        steps = max(3, int(self.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            settings.learning_rate,
            total_steps=steps,
            pct_start=min(max(settings.warmup, 2 / steps), 1 - 1 / steps),
            cycle_momentum=False,
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def label_loss(
    logits: Tensor,
    target: Tensor,
    known: Tensor,
    smoothing: float,
    multilabel: bool = False,
    processes: int = 1,
) -> Tensor:
    """Mean loss of ``logits`` [batch, steps, labels] over the clips whose ``target``
    [batch, labels] is ``known`` (bool [batch]): cross-entropy, or binary cross-entropy where a
    clip may have several labels.

    Of several ``processes``, each of which must call it, the mean of what they give is that over
    the clips of all of them.
    """
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
    count = mean_over(processes, known.sum()).clamp_min(1 / processes)
    return (loss.mean(1) * known).sum() / count
