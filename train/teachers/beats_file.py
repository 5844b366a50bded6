"""What a BEATs checkpoint holds: settings, tensors and class names, read and checked."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from torch import Tensor

from ...runtime.errors import EarmarkError
from .kaldi import MELS

Count = Annotated[int, Field(ge=1, le=1 << 16)]
Rate = Annotated[float, Field(ge=0, lt=1)]


# A file may carry more keys, which concern the authors' training.
@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="ignore"))
class BeatsConfig:
    """The ``cfg`` of a checkpoint, under its own names; every field but the head's is required.

    The official code's defaults are not those of the released files, so there are none here.
    """

    encoder_layers: Annotated[int, Field(ge=1, le=256)]
    encoder_embed_dim: Count
    encoder_ffn_embed_dim: Count
    encoder_attention_heads: Count
    activation_fn: Literal["gelu"]
    dropout: Rate
    attention_dropout: Rate
    activation_dropout: Rate
    encoder_layerdrop: Rate
    """Chance that training skips a layer. Layers then lack gradients now and then, which
    ``DistributedDataParallel`` must be told."""
    dropout_input: Rate
    layer_norm_first: Literal[False]
    conv_bias: bool
    """Whether the patch embedding has a bias."""
    conv_pos: Annotated[int, Field(ge=1, le=4096)]
    """Kernel of the position convolution, tokens."""
    conv_pos_groups: Count
    relative_position_embedding: Literal[True]
    num_buckets: Annotated[int, Field(ge=4, le=1 << 16, multiple_of=2)]
    max_distance: Count
    gru_rel_pos: bool
    """Whether each query gates the position bias."""
    deep_norm: bool
    input_patch_size: Annotated[int, Field(ge=1, le=MELS)]
    embed_dim: Count
    """Width of the patch embedding."""
    finetuned_model: bool
    predictor_dropout: Rate | None = None
    predictor_class: Count | None = None
    """Classes of the head of a fine-tuned model."""

    def __post_init__(self) -> None:
        if self.finetuned_model and self.predictor_class is None:
            raise ValueError("finetuned_model needs 'predictor_class'")
        if self.finetuned_model and self.predictor_dropout is None:
            raise ValueError("finetuned_model needs 'predictor_dropout'")
        for name in ("encoder_attention_heads", "conv_pos_groups"):
            if self.encoder_embed_dim % getattr(self, name):
                raise ValueError(f"{name!r} does not divide 'encoder_embed_dim'")
        if self.max_distance <= self.num_buckets // 4:
            raise ValueError("'max_distance' is too small for 'num_buckets'")


RELEASED = BeatsConfig(
    encoder_layers=12,
    encoder_embed_dim=768,
    encoder_ffn_embed_dim=3072,
    encoder_attention_heads=12,
    activation_fn="gelu",
    dropout=0.0,
    attention_dropout=0.0,
    activation_dropout=0.0,
    encoder_layerdrop=0.05,
    dropout_input=0.0,
    layer_norm_first=False,
    conv_bias=False,
    conv_pos=128,
    conv_pos_groups=16,
    relative_position_embedding=True,
    num_buckets=320,
    max_distance=800,
    gru_rel_pos=True,
    deep_norm=True,
    input_patch_size=16,
    embed_dim=512,
    finetuned_model=False,
)
"""The shape of the released pre-trained models. Reading a file never uses it."""


@dataclass(frozen=True)
class BeatsFile:
    """The parts of a checkpoint; the tensors are as the file has them."""

    config: BeatsConfig
    labels: tuple[str, ...]
    """Names of the head's classes in their order; empty where the file names none."""
    tensors: dict[str, Any]


def read_file(path: str | os.PathLike[str]) -> BeatsFile:
    """Read a checkpoint, running no code in it.

    Raises:
        EarmarkError: no such file, no checkpoint of BEATs, or a setting that is missing or unknown
            here.
    """
    where = str(path)
    content = _load(where)
    config = _parse_config(content["cfg"], where)
    labels = _parse_labels(content.get("label_dict"), config, where)
    return BeatsFile(config, labels, content["model"])


def _load(path: str) -> dict[str, Any]:
    try:
        with Path(path).open("rb") as file:
            start = file.read(64).lstrip()
    except OSError as error:
        raise EarmarkError(f"{path}: cannot be read ({error.strerror or error})") from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises nearly anything on what is no checkpoint
        what = "not a PyTorch checkpoint, or one that would run code"
        if start.startswith(b"<"):
            what = "a web page, not a checkpoint"
        elif start.startswith(b"version https://git-lfs"):
            what = "a Git LFS pointer, not the checkpoint itself"
        raise EarmarkError(f"{path}: {what}: download it again") from error
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), dict) for key in ("cfg", "model")
    ):
        raise EarmarkError(
            f"{path}: not a BEATs checkpoint: it has no 'cfg' and 'model' (weights of another "
            "library?); expected an official file such as BEATs_iter3.pt"
        )
    return content


def _parse_config(cfg: dict[str, Any], path: str) -> BeatsConfig:
    try:
        return TypeAdapter(BeatsConfig).validate_python(cfg)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "missing":
            text = f"cfg has no {name!r}: is this a BEATs model?"
        elif name:
            text = f"cfg {name!r} is {repr(first['input'])[:40]}: {first['msg'].lower()}"
        else:
            text = f"cfg: {first['msg']}"
        raise EarmarkError(f"{path}: {' '.join(text.split())}") from error


def _parse_labels(labels: Any, config: BeatsConfig, path: str) -> tuple[str, ...]:
    if labels is None or not config.finetuned_model:
        return ()
    classes = config.predictor_class or 0
    if not isinstance(labels, dict) or set(labels) != set(range(classes)):
        raise EarmarkError(f"{path}: label_dict does not name classes 0 to {classes - 1}")
    return tuple(str(labels[index]) for index in range(classes))


def check_tensors(
    tensors: dict[str, Any], expected: dict[str, Tensor], path: str
) -> dict[str, Tensor]:
    """The tensors of a file, proved to have the names and shapes of ``expected``, in float32.

    Raises:
        EarmarkError: one is missing, unknown, of another shape, or no tensor; or the copies of the
            one table of position biases differ.
    """
    # Files hold the one table of position biases once, or a copy for every layer.
    tables = [name for name in expected if name.endswith("relative_attention_bias.weight")]
    stored = [name for name in tables if name in tensors]
    tensors = dict.fromkeys(tables, tensors[stored[0]]) | tensors if stored else tensors
    problems = {
        "has no": [name for name in expected if name not in tensors],
        "has unknown": [str(name) for name in tensors if name not in expected],
    }
    for verb, names in problems.items():
        if names:
            raise EarmarkError(f"{path}: {verb} tensor {_list(names)}: not these settings' weights")
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            raise EarmarkError(f"{path}: {name!r} is no floating-point tensor")
        if tensor.shape != expected[name].shape:
            raise EarmarkError(
                f"{path}: tensor {name!r} has shape {list(tensor.shape)}, the settings say "
                f"{list(expected[name].shape)}"
            )
    first = tensors[tables[0]]
    for name in tables:
        if not torch.equal(tensors[name], first):
            raise EarmarkError(f"{path}: tensor {name!r} differs from that of layer 0")
    # Copies of the table become the one parameter.
    return {n: (first if n in tables else t).float() for n, t in tensors.items()}


def _list(names: Iterable[str], most: int = 3) -> str:
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + more
