"""Every teacher by name: with pre-trained weights, with random ones, or as a run saved it."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from ...runtime.errors import EarmarkError
from ..mfcc import MfccSettings
from . import beats, kaldi, speech_embedding
from .bcresnet import BcResNet
from .beats_file import BeatsConfig
from .cnn2d import Cnn2d
from .convtransformer import ConvTransformer
from .settings import PRETRAINED, TeacherSettings
from .speech_embedding import SpeechEmbedding
from .teacher import SAMPLE_RATE, Backbone, seeded

_OWN: dict[str, type[Cnn2d] | type[ConvTransformer] | type[BcResNet]] = {
    "cnn2d": Cnn2d,
    "convtransformer": ConvTransformer,
    "bcresnet": BcResNet,
}
KINDS = (*PRETRAINED, *_OWN)


class BeatsBackbone(Backbone):
    """BEATs, averaged over its tokens."""

    def __init__(self, model: beats.Beats) -> None:
        super().__init__()
        self.model = model
        self.config = {"kind": "beats", "model": asdict(model.config)}
        self.width = model.config.encoder_embed_dim

    def features(self, wav: Tensor) -> Tensor:
        least = kaldi.WINDOW + (self.model.config.input_patch_size - 1) * kaldi.HOP
        if wav.shape[1] < least:
            raise EarmarkError(
                f"clips of {wav.shape[1] / SAMPLE_RATE:g} s are too short for BEATs: set data.clip "
                f"to at least {least / SAMPLE_RATE:g}"
            )
        return beats.fbank(wav)

    def encode(self, features: Tensor) -> Tensor:
        return self.model.encode(features).mean(1)

    def stages(self) -> Iterator[nn.Module]:
        yield self.model.patch_embedding
        yield self.model.post_extract_proj
        yield from self.model.encoder.layers


def load(name: str, weights: str = "", *, random: bool = False, seed: int = 0) -> Backbone:
    """A teacher's network, in evaluation mode on the CPU.

    Args:
        name: one of ``KINDS``.
        weights: where a pre-trained kind is: see :attr:`TeacherSettings.weights`.
        random: random weights of the published shape, to time it or to train it from nothing.
        seed: of random weights.

    Raises:
        EarmarkError: no such kind, weights that are missing, not asked for or not those of the
            kind, or what reads them is not installed (transformers, onnx).
    """
    if name not in KINDS:
        raise EarmarkError(f"teacher {name!r}: expected one of {', '.join(KINDS)}")
    if name in _OWN:
        if weights:
            raise EarmarkError(f"teacher {name!r}: has no pre-trained weights")
        return seeded(seed, lambda: _OWN[name](MfccSettings())).eval()
    if random == bool(weights):
        raise EarmarkError(f"teacher {name!r}: name its weights, or ask for random ones")
    if name == "beats":
        model = beats.random(beats.RELEASED, seed) if random else beats.load(weights)
        return BeatsBackbone(model).eval()
    if name == "speech_embedding":
        return (seeded(seed, SpeechEmbedding) if random else speech_embedding.load(weights)).eval()
    from . import hub

    if random:
        return seeded(seed, lambda: hub.from_config(name)).eval()
    return hub.from_weights(name, weights).eval()


def build(settings: TeacherSettings, features: MfccSettings, seed: int) -> Backbone:
    """The network that a recipe asks for.

    Raises:
        EarmarkError: as :func:`load`.
    """
    if settings.kind in PRETRAINED:
        return load(settings.kind, settings.weights, random=settings.random, seed=seed)
    shape: dict[str, Any] = {"dropout": settings.dropout}
    shape |= {"width": settings.width} if settings.width else {}
    shape |= {"depth": settings.depth} if settings.depth else {}
    return seeded(seed, lambda: _OWN[settings.kind](features, **shape))


def rebuild(config: dict[str, Any]) -> Backbone:
    """A network of the shape that :attr:`Backbone.config` says, to load a run's weights into."""
    shape = dict(config)
    kind = shape.pop("kind")
    if kind == "beats":
        return BeatsBackbone(beats.Beats(BeatsConfig(**shape["model"])))
    if kind == "speech_embedding":
        return SpeechEmbedding()
    if kind in PRETRAINED:
        from . import hub

        return hub.from_config(kind, shape)
    return _OWN[kind](MfccSettings(**shape.pop("features")), **shape)
