"""The loss of a student that is taught: soft targets, ensembles, embeddings."""

import pytest
import torch
import torch.nn.functional as F
from earmark.runtime.errors import EarmarkError
from earmark.train.teachers.distill import Distillation, DistillSettings, linear_cka, soft_loss
from earmark.train.teachers.teacher import Outputs
from hypothesis import given
from hypothesis import strategies as st


def outputs(logits: torch.Tensor) -> Outputs:
    return Outputs(torch.zeros(len(logits), 2), logits)


@given(temperature=st.floats(0.2, 8), weight=st.floats(0, 1), multilabel=st.booleans())
def test_the_soft_loss_is_least_where_student_and_teacher_agree(
    temperature: float, weight: float, multilabel: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 5, generator=generator)
    settings = DistillSettings(teachers=("x",), temperature=temperature, weight=weight)
    loss = Distillation(settings, 3, 2, multilabel)
    targets = loss.targets([outputs(logits)])
    agreed = soft_loss(logits[:, None], targets.probabilities, temperature, multilabel)
    assert agreed.abs() < 1e-4
    other = soft_loss(logits[:, None].flip(2), targets.probabilities, temperature, multilabel)
    assert other > agreed
    whole = loss(torch.tensor(2.0), logits[:, None].flip(2), None, targets)
    assert float(whole) == pytest.approx((1 - weight) * 2 + weight * float(other), abs=1e-4)


def test_an_ensemble_is_the_mean_of_its_teachers() -> None:
    a, b = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    for average, multilabel, expected in (
        ("probabilities", False, (a.softmax(1) + b.softmax(1)) / 2),
        ("logits", False, ((a + b) / 2).softmax(1)),
        ("probabilities", True, (a.sigmoid() + b.sigmoid()) / 2),
        ("logits", True, ((a + b) / 2).sigmoid()),
    ):
        settings = DistillSettings(teachers=("x", "y"), average=average)  # pyright: ignore[reportArgumentType]
        targets = Distillation(settings, 3, 4, multilabel).targets([outputs(a), outputs(b)])
        torch.testing.assert_close(targets.probabilities, expected)


def test_the_soft_loss_of_several_labels_has_the_gradient_of_their_binary_cross_entropy() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 2, 3, generator=generator).requires_grad_()
    wanted = torch.rand(4, 3, generator=generator)
    wanted[0] = torch.tensor([0.0, 1.0, 0.5])
    soft = soft_loss(logits, wanted, 2.0, multilabel=True)
    cross_entropy = F.binary_cross_entropy(
        (logits / 2).sigmoid(), wanted[:, None].expand(-1, 2, -1)
    )
    assert 0 < soft.item() < 4 * cross_entropy.item()
    [found], [expected] = (torch.autograd.grad(x, logits) for x in (soft, 4 * cross_entropy))
    torch.testing.assert_close(found, expected)


def test_cka_does_not_mind_rotation_scale_and_shift() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 6, generator=generator)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=generator))[0]
    assert float(linear_cka(x, 3 * x @ rotation + 1)) == pytest.approx(1, abs=1e-5)
    assert float(linear_cka(x, torch.randn(50, 9, generator=generator))) < 0.5


def test_components_keep_what_varies_most() -> None:
    generator = torch.Generator().manual_seed(0)
    signal = torch.randn(100, 1, generator=generator)
    embeddings = torch.cat([5 * signal, 0.01 * torch.randn(100, 3, generator=generator)], 1) + 7
    settings = DistillSettings(teachers=("x",), feature_weight=1.0, feature_components=1)
    loss = Distillation(settings, 3, 4)
    loss.reduce(embeddings)
    reduced = loss.targets([Outputs(embeddings, torch.zeros(100, 2))]).embedding
    assert reduced is not None and reduced.shape == (100, 1)
    correlation = torch.corrcoef(torch.cat([reduced, signal], 1).T)[0, 1]
    assert correlation.abs() > 0.999


def test_more_components_than_can_be_found_are_refused() -> None:
    field = r"distill\.feature_components: 4 are more than the 3"
    settings = DistillSettings(teachers=("x",), feature_weight=1.0, feature_components=4)
    with pytest.raises(EarmarkError, match=f"{field} numbers in .*: set it to at most 3, or to 0"):
        Distillation(settings, 3, 3)
    loss = Distillation(settings, 3, 5)
    with pytest.raises(EarmarkError, match=f"{field} clips to find them in"):
        loss.reduce(torch.eye(3, 5))
