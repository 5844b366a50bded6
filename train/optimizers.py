"""The rules by which weights learn, by the recipe's names for them."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

OptimizerName = Literal["adamw", "muon", "sgd"]
_MOMENTUM = 0.9
_MUON_MOMENTUM = 0.95
# Steps of the iteration and the coefficients of its polynomial (Jordan et al. 2024). They bring
# singular values to about 1 in few steps, not to 1: that is enough.
_STEPS = 5
_QUINTIC = (3.4445, -4.7750, 2.0315)
# Root mean square of AdamW's updates (Liu et al. 2025).
_RMS = 0.2


def make_optimizer(
    name: OptimizerName, groups: list[dict[str, Any]], learning_rate: float
) -> torch.optim.Optimizer:
    """The optimizer of a recipe for groups of parameters, as torch takes them."""
    if name == "sgd":
        return torch.optim.SGD(groups, learning_rate, _MOMENTUM)
    return (Muon if name == "muon" else torch.optim.AdamW)(groups, learning_rate)


def by_decay(group: dict[str, Any], decay: float) -> list[dict[str, Any]]:
    """A group in two: norms and biases are not decayed (Goyal et al. 2017)."""
    shapes = {True: decay, False: 0.0}
    parts = [
        group | {"params": [p for p in group["params"] if (p.ndim > 1) == wide], "weight_decay": w}
        for wide, w in shapes.items()
    ]
    return [part for part in parts if part["params"]]


class Muon(torch.optim.AdamW):
    """Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) for the weights of 2-D
    convolutions, AdamW for all others.

    The moving average of a weight's gradient, a matrix with a row for each output channel, moves
    the weight as if all of its singular values were equal. Steps are as long as AdamW's (Liu et al.
    2025, "Muon is scalable for LLM training"), so that one learning rate and one weight decay serve
    both. ``torch.optim.Muon`` takes matrices alone, and would need a second optimizer beside it.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.ndim == 4 and weight.grad is not None:
                    self._move(weight, weight.grad, group["lr"], group["weight_decay"])
                    # AdamW passes over what has no gradient.
                    weight.grad = None
        super().step()
        return loss

    def _move(self, weight: Tensor, gradient: Tensor, rate: float, decay: float) -> None:
        state = self.state[weight]
        if not state:
            # AdamW's names, which it looks for when a state is loaded.
            state["step"] = torch.zeros(())
            state["exp_avg"] = torch.zeros_like(gradient)
        average = state["exp_avg"].lerp_(gradient, 1 - _MUON_MOMENTUM)
        update = orthogonal(gradient.lerp(average, _MUON_MOMENTUM).flatten(1))
        weight.mul_(1 - rate * decay)
        weight.sub_(update.view_as(weight), alpha=rate * _RMS * max(update.shape) ** 0.5)


def orthogonal(matrix: Tensor) -> Tensor:
    """``matrix`` [rows, columns] with singular values near 1 in place of its own, by a
    Newton-Schulz iteration."""
    a, b, c = _QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix) / matrix.norm().clamp_min(1e-7)
    for _ in range(_STEPS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if tall else x
