"""What processes that hold clips of their own tell each other."""

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from .share import Share


def least(share: Share, number: int, device: torch.device) -> int:
    """The least of the numbers that the processes of a share give; each must call it."""
    if share.ranks == 1:
        return number
    found = torch.tensor(number, device=device)
    dist.all_reduce(found, dist.ReduceOp.MIN)
    return int(found)


def gathered(share: Share, rows: NDArray[Any]) -> NDArray[Any]:
    """The rows of all processes, one after the other; each must call it."""
    if share.ranks == 1:
        return rows
    parts: list[Any] = [None] * share.ranks
    dist.all_gather_object(parts, rows)
    return np.concatenate(parts)
