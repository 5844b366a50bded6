"""What processes tell each other beyond gradients."""

import io
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from .data.share import Share


def least(share: Share, number: int, device: torch.device) -> int:
    """The least of the numbers that the processes of a share give; each must call it."""
    if share.ranks == 1:
        return number
    found = torch.tensor(number, device=device)
    dist.all_reduce(found, dist.ReduceOp.MIN)
    return int(found)


def mean_over(processes: int, number: Tensor) -> Tensor:
    """The mean of the numbers that so many processes give; each must call it."""
    if processes == 1:
        return number
    found = number.float()
    dist.all_reduce(found)
    return found / processes


def gathered(share: Share, rows: NDArray[Any], device: torch.device) -> NDArray[Any]:
    """The rows of all processes, one after the other; each must call it.

    They travel as numpy's own files, of numbers or text: nothing is unpickled.
    """
    if share.ranks == 1:
        return rows
    buffer = io.BytesIO()
    np.save(buffer, rows, allow_pickle=False)
    sent = torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8).to(device)
    sizes = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(share.ranks)]
    dist.all_gather(sizes, torch.tensor([len(sent)], device=device))
    # What is gathered must be of one length.
    longest = int(max(sizes))
    parts = [sent.new_zeros(longest) for _ in range(share.ranks)]
    dist.all_gather(parts, torch.nn.functional.pad(sent, (0, longest - len(sent))))
    files = [io.BytesIO(part.cpu().numpy().tobytes()) for part in parts]
    return np.concatenate([np.load(file, allow_pickle=False) for file in files])
