"""Checkpoints that are whole or not there, for resuming a run."""

import io
import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from ..runtime.errors import EarmarkError
from ..runtime.files import write_bytes


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's own writer leaves half a file behind on a full disk."""

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any = None,
    ) -> None:
        """Write ``checkpoint`` under a temporary name and rename it.

        Raises:
            EarmarkError: the file cannot be written; an older one is still there.
        """
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_bytes(path, buffer.getvalue())


def epochs_done(checkpoint: Path) -> int:
    """Complete epochs in a checkpoint.

    Raises:
        EarmarkError: the file is damaged.
    """
    try:
        loaded = torch.load(checkpoint, map_location="cpu", weights_only=True)
        return int(loaded["epoch"]) + 1
    except Exception as error:  # torch raises many types for a damaged file
        raise EarmarkError(
            f"{checkpoint}: is damaged: remove it to train from the beginning"
        ) from error
