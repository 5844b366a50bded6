"""What teachers say of every view of every clip, computed once and kept on disk.

A file holds one view of a block of clips, as float16, under a name that is a hash of all that it
follows from: the teacher's weights, the clips, the noise, the free speech, the augmentation, the
seed and the view.
Clips of a shard make blocks of their own, which another number of processes finds again.
So nothing stale can be read, runs that differ in what comes after the teacher (temperature, weight,
student, masks) share the files, also while both compute them, more views or more data cost only
what is new, and an interrupted computation goes on with what is missing.
"""

import hashlib
import io
import itertools
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...runtime.errors import EarmarkError
from ...runtime.files import write_bytes
from ..data.share import BLOCK
from ..progress import progress
from .teacher import Outputs, Teacher

_BATCH = 128
_VERSION = 3
_LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Block:
    """Clips that are kept together."""

    clips: NDArray[np.int64]
    """int64 [clips], as in :class:`earmark.train.data.clips.Batch`."""
    digest: str
    """Hash of which clips these are, and of the recordings and labels behind them."""


@dataclass(frozen=True)
class Table:
    """One teacher's answers in memory."""

    logits: Tensor
    """float16 [clips, views, classes]."""
    embedding: Tensor
    """float16 [clips, views, width], or of width 0 where nobody asks for it."""

    def __call__(self, row: Tensor, view: Tensor) -> Outputs:
        """The answers, float32, for rows of the table and views, int64 [batch] each."""
        row, view = row.cpu(), view.cpu()
        return Outputs(self.embedding[row, view].float(), self.logits[row, view].float())


def blocks(
    clips: NDArray[np.int64], content: Callable[[NDArray[np.int64]], Iterator[bytes]]
) -> list[Block]:
    """Divide clips into blocks, of :data:`earmark.train.data.share.BLOCK` clips at most.

    Args:
        clips: int64 [clips], as in :class:`earmark.train.data.clips.Batch`.
        content: gives the bytes that stand for some of them.
    """
    found = []
    for start in range(0, len(clips), BLOCK):
        part = clips[start : start + BLOCK]
        digest = hashlib.sha256()
        for piece in content(part):
            digest.update(piece)
        found.append(Block(part, digest.hexdigest()))
    return found


def answers(
    folder: Path,
    teacher: Teacher,
    name: str,
    settings: dict[str, Any],
    blocks: Sequence[Block],
    views: int,
    render: Callable[[NDArray[np.int64], int], Tensor],
    *,
    embed: bool,
    rank: int = 0,
    ranks: int = 1,
    barrier: Callable[[], object] = lambda: None,
) -> Table:
    """A teacher's answers to all views of all blocks, from the cache as far as it has them.

    Args:
        folder: of the cache; processes that work together must see the same one.
        teacher: on the device that it shall run on, in evaluation mode.
        name: of the teacher, for people.
        settings: plain values that the answers follow from besides the blocks and the view: the
            hash of the teacher's weights, the augmentation, the seed.
        blocks: the clips.
        views: how many of each clip.
        render: gives the waveforms [clips, samples] of some clips in a view.
        embed: whether embeddings are wanted too.
        rank, ranks: which share of the missing files this process computes.
        barrier: waits for the other processes.

    Raises:
        EarmarkError: a file is damaged or cannot be written.
    """
    jobs = [
        (block, view, folder / f"{_key(settings, block, view)}.npy")
        for view, block in itertools.product(range(views), blocks)
    ]
    kinds = ("logits", "embedding") if embed else ("logits",)

    def known(path: Path) -> bool:
        return all(_file(path, kind).is_file() for kind in kinds)

    missing = [job for job in jobs[rank::ranks] if not known(job[2])]
    # In an order of its own, so that runs of several seeds that start together share the work.
    random.SystemRandom().shuffle(missing)
    with progress(f"Asking {name}", sum(len(block.clips) for block, _, _ in missing)) as advance:
        for block, view, path in missing:
            if known(path):
                advance(len(block.clips))
                continue
            outputs = ask(teacher, render, block.clips, view, advance)
            for kind in kinds:
                _write(_file(path, kind), getattr(outputs, kind))
    barrier()
    widths = {"logits": teacher.head.out_features, "embedding": teacher.backbone.width}
    tables = {
        kind: _read(jobs, views, kind, widths[kind])
        if kind in kinds
        else torch.zeros(sum(len(block.clips) for block in blocks), views, 0).half()
        for kind in widths
    }
    return Table(**tables)


def _key(settings: dict[str, Any], block: Block, view: int) -> str:
    parts = [_VERSION, settings, block.digest, view]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _file(path: Path, kind: str) -> Path:
    # Ten thousand files in one folder are slow to list.
    return path.parent / path.name[:2] / f"{path.stem}.{kind}.npy"


@torch.inference_mode()
def ask(
    teacher: Teacher,
    render: Callable[[NDArray[np.int64], int], Tensor],
    clips: NDArray[np.int64],
    view: int,
    advance: Callable[[int], None] = lambda _: None,
) -> Outputs:
    """A teacher's answers, float32 on the CPU, to one view of some clips."""
    parts = []
    for start in range(0, len(clips), _BATCH):
        some = clips[start : start + _BATCH]
        parts.append(teacher(render(some, view)))
        advance(len(some))
    return Outputs(*(torch.cat(tensors).float().cpu() for tensors in zip(*parts, strict=True)))


def _write(file: Path, values: Tensor) -> None:
    buffer = io.BytesIO()
    np.save(buffer, values.clamp(-_LARGEST, _LARGEST).half().numpy(), allow_pickle=False)
    write_bytes(file, buffer.getvalue())


def _read(jobs: Sequence[tuple[Block, int, Path]], views: int, kind: str, width: int) -> Tensor:
    by_view: list[list[Tensor]] = [[] for _ in range(views)]
    for block, view, path in jobs:
        file = _file(path, kind)
        try:
            values = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise EarmarkError(f"{file}: damaged ({error}): remove it") from error
        if values.shape != (len(block.clips), width) or values.dtype != np.float16:
            raise EarmarkError(f"{file}: damaged (shape {values.shape}): remove it")
        by_view[view].append(torch.from_numpy(values))
    return torch.stack([torch.cat(parts) for parts in by_view], 1)
