"""Distillation: what a student learns from teachers besides labels.

Soft targets at a temperature (Hinton et al. 2015), mixed with labels by weight, and optionally the
likeness of pooled embeddings, by cosine through a projection that is thrown away afterwards, or by
centred kernel alignment (CKA, Kornblith et al. 2019), which needs none. Several teachers count as
one: their mean. Where a clip may have several labels, each is a soft target of its own.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from ...runtime.errors import EarmarkError
from ..augment import Mixture
from ..posteriors import posteriors
from .teacher import Outputs

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class DistillSettings:
    """Who teaches a student, and how."""

    teachers: Annotated[tuple[str, ...], Field(min_length=1)]
    """Run directories that ``earmark teach`` completed; several are one teacher, their mean."""
    mode: Literal["cached", "online"] = "cached"
    """``cached``: what the teachers say of ``augment.views`` views of every clip is computed once
    and kept on disk; ``online``: in every step anew."""
    weight: Share = 0.9
    """Share of the soft targets in the loss; the labels have the rest."""
    temperature: Annotated[float, Field(gt=0, le=100)] = 1.0
    average: Literal["probabilities", "logits"] = "probabilities"
    """What the mean over several teachers is taken of."""
    features: Literal["cosine", "cka"] = "cosine"
    """Likeness of the student's embedding to the teachers'."""
    feature_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of one minus that likeness, added to the loss; 0: embeddings are not matched."""
    feature_components: Annotated[int, Field(ge=0, le=4096)] = 0
    """Principal components that the teachers' embeddings are reduced to; 0: all of it."""
    unlabelled: tuple[str, ...] = ()
    """Folders of recordings without labels, any layout; the soft loss alone hears them. None of
    ``data.roots``, ``data.own`` or ``data.speech``, which hold recordings out."""
    unlabelled_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each training epoch that is pieces of them."""


class Targets(NamedTuple):
    """What a student is to learn of a batch."""

    probabilities: Tensor
    """Of each class at the temperature, [batch, classes]."""
    embedding: Tensor | None
    """[batch, width]."""

    def mixed(self, mix: Mixture) -> "Targets":
        """The targets of examples that were mixed."""
        return Targets(
            mix(self.probabilities), None if self.embedding is None else mix(self.embedding)
        )


class Distillation(nn.Module):
    """The losses against teachers, and the parts that only they need."""

    mean: Tensor
    components: Tensor

    def __init__(
        self,
        settings: DistillSettings,
        student_width: int,
        teacher_width: int,
        multilabel: bool = False,
    ) -> None:
        """
        Args:
            settings: of the recipe.
            student_width: of the student's embedding.
            teacher_width: of the teachers' embeddings, one after the other.
            multilabel: whether a clip may have several classes.

        Raises:
            EarmarkError: more components are wanted than the teachers' embeddings have numbers.
        """
        super().__init__()
        self.settings = settings
        self.multilabel = multilabel
        # Constants of the teachers and the data, found again by every run: not in a checkpoint.
        self.register_buffer("mean", torch.zeros(teacher_width), persistent=False)
        self.register_buffer("components", torch.eye(teacher_width), persistent=False)
        self.projection: nn.Linear | None = None
        if self.matches:
            self._check_components(teacher_width, "numbers in the teachers' embeddings")
        if self.matches and settings.features == "cosine":
            width = settings.feature_components or teacher_width
            # Apart from the generator that makes the student, which is then the same without it.
            with torch.random.fork_rng(devices=[]):
                self.projection = nn.Linear(student_width, width)

    @property
    def matches(self) -> bool:
        """Whether embeddings are matched."""
        return self.settings.feature_weight > 0

    def reduce(self, embeddings: Tensor) -> None:
        """Find the principal components of the teachers' embeddings, [clips, width].

        Their signs and scale do not matter to either likeness.

        Raises:
            EarmarkError: more components are wanted than there are clips.
        """
        count = self.settings.feature_components
        self._check_components(len(embeddings), "clips to find them in")
        centred = embeddings.float()
        mean = centred.mean(0)
        self.mean.copy_(mean)
        if count:
            _, _, basis = torch.linalg.svd(centred - mean, full_matrices=False)
            self.components = basis[:count].T.contiguous().to(self.components.device)

    def _check_components(self, most: int, what: str) -> None:
        count = self.settings.feature_components
        if count > most:
            raise EarmarkError(
                f"field distill.feature_components: {count} are more than the {most} {what}: set "
                f"it to at most {most}, or to 0"
            )

    def targets(self, outputs: Sequence[Outputs]) -> Targets:
        """The targets of a batch from what each teacher says of it."""
        hot = self.settings.temperature
        logits = torch.stack([one.logits.float() for one in outputs]) / hot
        if self.settings.average == "logits":
            probabilities = posteriors(logits.mean(0), self.multilabel)
        else:
            probabilities = posteriors(logits, self.multilabel).mean(0)
        embedding = None
        if self.matches:
            whole = torch.cat([one.embedding.float() for one in outputs], 1)
            embedding = (whole - self.mean) @ self.components
        return Targets(probabilities, embedding)

    def forward(
        self, label_loss: Tensor, logits: Tensor, embedding: Tensor | None, targets: Targets
    ) -> Tensor:
        """The whole loss.

        Args:
            label_loss: of the labels, a number.
            logits: the student's, [batch, steps, classes].
            embedding: the student's, [batch, width]; None if embeddings are not matched.
            targets: of the batch.
        """
        settings = self.settings
        soft = soft_loss(logits, targets.probabilities, settings.temperature, self.multilabel)
        loss = (1 - settings.weight) * label_loss + settings.weight * soft
        if embedding is None or targets.embedding is None:
            return loss
        if self.projection is not None:
            likeness = F.cosine_similarity(self.projection(embedding), targets.embedding).mean()
        else:
            likeness = linear_cka(embedding.float(), targets.embedding)
        return loss + settings.feature_weight * (1 - likeness)


def soft_loss(
    logits: Tensor, probabilities: Tensor, temperature: float, multilabel: bool = False
) -> Tensor:
    """Kullback-Leibler divergence from ``probabilities`` [batch, classes] to the student's
    ``logits`` [batch, steps, classes] at a temperature, over all steps.

    Where a clip may have several classes it is the mean of each one's own: the binary cross-entropy
    less what it cannot fall below. Times the square of the temperature, so that its gradients keep
    their size (Hinton et al.).
    """
    hot = logits / temperature
    wanted = probabilities[:, None].expand_as(hot)
    if multilabel:
        cross_entropy = F.binary_cross_entropy_with_logits(hot, wanted, reduction="none")
        entropy = torch.special.entr(wanted) + torch.special.entr(1 - wanted)
        divergence = (cross_entropy - entropy).mean(2)
    else:
        divergence = F.kl_div(hot.log_softmax(2), wanted, reduction="none").sum(2)
    return divergence.mean() * temperature**2


def linear_cka(a: Tensor, b: Tensor) -> Tensor:
    """Linear centred kernel alignment of two sets of embeddings, [batch, any width], in [0, 1]."""
    a, b = a - a.mean(0), b - b.mean(0)
    shared = (a.T @ b).square().sum()
    return shared / ((a.T @ a).norm() * (b.T @ b).norm()).clamp_min(1e-12)
