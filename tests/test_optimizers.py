"""Which weights Muon moves, and how far."""

import copy
from pathlib import Path

import pytest
import torch
from earmark.train.optimizers import OptimizerName, by_decay, make_optimizer, orthogonal
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

RATE, DECAY = 0.01, 0.1


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 6, (1, 3)), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(150, 4))


def optimizer_of(
    network: nn.Module, name: OptimizerName, decay: float = DECAY
) -> torch.optim.Optimizer:
    return make_optimizer(name, by_decay({"params": list(network.parameters())}, decay), RATE)


def learn(network: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for step in range(steps):
        x = torch.randn(5, 1, 7, 9, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        network(x).square().mean().backward()
        optimizer.step()


@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
    seed=st.integers(0, 9),
)
@settings(max_examples=50, deadline=None)
def test_singular_values_come_near_one(rows: int, columns: int, scale: float, seed: int) -> None:
    # Of known singular values: what is a thousandth of the largest may stay small.
    generator = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(n, n, generator=generator) for n in (rows, columns))
    few = min(rows, columns)
    values = torch.linspace(0.2, 1, few)
    left, right = torch.linalg.qr(left).Q[:, :few], torch.linalg.qr(right).Q[:, :few]
    made = orthogonal(scale * left * values @ right.T)
    assert made.shape == (rows, columns)
    # The same singular vectors, with other values.
    values = left.T @ made @ right
    assert ((values.diagonal() > 0.6) & (values.diagonal() < 1.3)).all()
    assert (values - values.diagonal().diag()).abs().max() < 1e-3


def test_nothing_turns_what_is_zero() -> None:
    assert not orthogonal(torch.zeros(3, 4)).any()


def test_only_convolutions_leave_the_rule_of_adamw() -> None:
    start = network()
    by_adamw, by_muon = copy.deepcopy(start), copy.deepcopy(start)
    learn(by_adamw, optimizer_of(by_adamw, "adamw"), 1)
    learn(by_muon, optimizer_of(by_muon, "muon"), 1)
    adamw, muon = dict(by_adamw.named_parameters()), dict(by_muon.named_parameters())
    for name, before in start.named_parameters():
        assert torch.equal(adamw[name], muon[name]) == (before.ndim != 4), name
        if before.ndim == 4:
            moved = muon[name] - before * (1 - RATE * DECAY)
            # A fifth of the rate, give or take the singular values.
            assert 0.1 * RATE < moved.square().mean().sqrt() < 0.3 * RATE


def test_a_state_that_was_saved_goes_on(tmp_path: Path) -> None:
    whole = network()
    optimizer = optimizer_of(whole, "muon")
    learn(whole, optimizer, 3)
    torch.save([whole.state_dict(), optimizer.state_dict()], tmp_path / "state.pt")
    learn(whole, optimizer, 2)
    resumed = network()
    optimizer = optimizer_of(resumed, "muon")
    network_state, state = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed.load_state_dict(network_state)
    optimizer.load_state_dict(state)
    learn(resumed, optimizer, 2)
    for ours, theirs in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", ["adamw", "muon", "sgd"])
def test_losses_fall(name: OptimizerName) -> None:
    made = network()
    x = torch.randn(5, 1, 7, 9)
    before = made(x).square().mean().item()
    learn(made, optimizer_of(made, name, decay=0.0), 30)
    assert made(x).square().mean().item() < before


@pytest.mark.parametrize("name", ["adamw", "muon", "sgd"])
def test_weights_decay_but_norms_and_biases_do_not(name: OptimizerName) -> None:
    made = network()
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(1.0)
            weight.grad = torch.zeros_like(weight)
    before = copy.deepcopy(made)
    optimizer_of(made, name).step()
    for after, weight in zip(made.parameters(), before.parameters(), strict=True):
        kept = 1 - RATE * DECAY if weight.ndim > 1 else 1
        torch.testing.assert_close(after, kept * weight, rtol=1e-6, atol=0)


def test_sgd_keeps_nine_tenths_of_its_pace() -> None:
    weight = nn.Parameter(torch.zeros(3))
    optimizer = make_optimizer("sgd", [{"params": [weight]}], RATE)
    for gradient, expected in ((1.0, -RATE), (0.0, -RATE * 1.9), (0.0, -RATE * 2.71)):
        weight.grad = torch.full((3,), gradient)
        optimizer.step()
        torch.testing.assert_close(weight, torch.full((3,), expected))
