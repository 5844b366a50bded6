"""Teachers whose networks and weights come through Hugging Face's transformers.

Their input features are computed here, in batches and on the device that trains, and equal those of
transformers' own extractors.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...runtime.errors import EarmarkError

# Before transformers, which imports torchaudio by itself.
from ..torchaudio_import import torchaudio as _torchaudio  # noqa: F401
from . import kaldi
from .teacher import SAMPLE_RATE, Backbone

try:
    import transformers
    from transformers.models.whisper.modeling_whisper import WhisperEncoder
except ModuleNotFoundError as error:
    raise EarmarkError(
        f'this teacher needs {error.name}, which is not installed: pip install "earmark[teachers]"'
    ) from error


class Ast(Backbone):
    """The Audio Spectrogram Transformer (Gong et al. 2021).

    Input is padded to the length that the model was made for, 10 s for those of AudioSet and 1.3 s
    for that of Speech Commands: shorter clips cost as much.
    """

    def __init__(self, model: Any, mean: float = -4.2677393, deviation: float = 4.5689974) -> None:
        """``mean`` and ``deviation``: of the log mel energies of what it was trained on, here of
        AudioSet."""
        super().__init__()
        self.model = model
        self.mean, self.deviation = mean, deviation
        self.config = {
            "kind": "ast",
            "mean": mean,
            "deviation": deviation,
            "model": model.config.to_dict(),
        }
        self.width = model.config.hidden_size

    def features(self, wav: Tensor) -> Tensor:
        # What is left over after the last hop makes no frame.
        _check_length("AST", wav, kaldi.WINDOW + self.model.config.max_length * kaldi.HOP - 1)
        return (kaldi.log_mel(wav, "hanning") - self.mean) / (2 * self.deviation)

    def encode(self, features: Tensor) -> Tensor:
        missing = self.model.config.max_length - features.shape[1]
        padding = -self.mean / (2 * self.deviation)
        features = F.pad(features, (0, 0, 0, missing), value=padding)
        return self.model(features).pooler_output

    def stages(self) -> Iterator[nn.Module]:
        yield self.model.embeddings
        yield from _layers(self.model)


class Whisper(Backbone):
    """The encoder of Whisper (Radford et al. 2023), averaged over the tokens of the clip.

    Input is padded to 30 s, as the model was trained: shorter clips cost as much.
    """

    _FFT, _HOP = 400, 160
    mel_filters: Tensor
    window: Tensor

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.config = {"kind": "whisper", "model": model.config.to_dict()}
        self.width = model.config.d_model
        bands = model.config.num_mel_bins
        filters = transformers.WhisperFeatureExtractor(feature_size=bands).mel_filters
        self.register_buffer("mel_filters", torch.as_tensor(filters).float(), persistent=False)
        self.register_buffer("window", torch.hann_window(self._FFT), persistent=False)

    def features(self, wav: Tensor) -> Tensor:
        # Silence after the clip reaches into the last of its frames.
        after = self._FFT // (2 * self._HOP) + 1
        length = 2 * self.model.config.max_source_positions
        _check_length("Whisper", wav, (length - after) * self._HOP)
        frames = math.ceil(wav.shape[1] / self._HOP) + after
        padded = F.pad(wav, (0, frames * self._HOP - wav.shape[1]))
        spectrum = torch.stft(padded, self._FFT, self._HOP, window=self.window, return_complex=True)
        power = spectrum[..., :frames].abs().square().transpose(1, 2)
        log_mel = (power @ self.mel_filters).clamp_min(1e-10).log10()
        return (log_mel.clamp_min(log_mel.amax((1, 2), keepdim=True) - 8) + 4) / 4

    def encode(self, features: Tensor) -> Tensor:
        clip = features.shape[1]
        length = 2 * self.model.config.max_source_positions
        # The energy of silence, floored as the rest of the clip is.
        silence = (features.amax((1, 2), keepdim=True) - 2).clamp_min(-1.5)
        padding = silence.expand(-1, length - clip, features.shape[2])
        tokens = self.model(torch.cat([features, padding], 1).transpose(1, 2)).last_hidden_state
        return tokens[:, : math.ceil(clip / 2)].mean(1)

    def stages(self) -> Iterator[nn.Module]:
        yield self.model.conv1
        yield self.model.conv2
        yield from _layers(self.model)
        yield self.model.layer_norm


class WavLm(Backbone):
    """WavLM (Chen et al. 2022) on raw audio, averaged over tokens."""

    def __init__(self, model: Any, normalise: bool) -> None:
        """``normalise``: give every clip a mean of 0 and a deviation of 1, as the large model was
        trained with."""
        super().__init__()
        # Its own masks come from NumPy's generator, so that no two runs would be the same.
        model.config.apply_spec_augment = False
        self.model = model
        self.normalise = normalise
        self.config = {"kind": "wavlm", "normalise": normalise, "model": model.config.to_dict()}
        self.width = model.config.hidden_size

    def features(self, wav: Tensor) -> Tensor:
        if not self.normalise:
            return wav
        variance, mean = torch.var_mean(wav, dim=1, keepdim=True, correction=0)
        return (wav - mean) / torch.sqrt(variance + 1e-7)

    def encode(self, features: Tensor) -> Tensor:
        return self.model(features).last_hidden_state.mean(1)

    def stages(self) -> Iterator[nn.Module]:
        yield self.model.feature_extractor
        yield self.model.feature_projection
        yield from _layers(self.model)


def _check_length(name: str, wav: Tensor, most: int) -> None:
    """Refuse clips of more than ``most`` samples, whose ends the model could not hear."""
    if wav.shape[1] > most:
        hundredths = math.floor(100 * most / SAMPLE_RATE)
        raise EarmarkError(
            f"clips of {wav.shape[1] / SAMPLE_RATE:g} s are too long for {name}: "
            f"set data.clip to at most {hundredths / 100:g}"
        )


def _layers(model: nn.Module) -> nn.ModuleList:
    """The transformer's layers, which releases of transformers keep under different names."""
    lists = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and name.rpartition(".")[2] in ("layer", "layers")
    ]
    return max(lists, key=len)


def from_weights(kind: str, name: str) -> Backbone:
    """The pre-trained network of a folder that transformers saved, or of a name on its hub.

    Raises:
        EarmarkError: there is no such folder or name, no connection, or another kind of model.
    """
    return _read(name, lambda: _PRETRAINED[kind](name))


def from_config(kind: str, config: dict[str, Any] | None = None) -> Backbone:
    """A network with random weights of a shape that :attr:`Backbone.config` holds; None: that of
    the published base model."""
    config = config or {}
    return _RANDOM[kind](config.get("model", {}), config)


def _read(name: str, read: Callable[[], Backbone]) -> Backbone:
    try:
        return read()
    except (OSError, ValueError, KeyError) as error:
        brief = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise EarmarkError(
            f"{name}: no model that transformers can read ({brief[:200]}): name a folder that it "
            "saved, or a model on its hub with a connection to it"
        ) from error


def _of_type(name: str, kind: str) -> None:
    found = transformers.AutoConfig.from_pretrained(name).model_type
    if found != kind:
        raise ValueError(f"a model of type {found}, not {kind}")


def _loaded(model: Any, name: str) -> Any:
    # Files in half precision are common; what is trained and heard is float32.
    return model.from_pretrained(name, dtype=torch.float32)


def _extractor(name: str) -> Any | None:
    """The settings of the input beside the weights; None where there are none."""
    try:
        return transformers.AutoFeatureExtractor.from_pretrained(name)
    except OSError:
        return None


def _ast(name: str) -> Backbone:
    _of_type(name, "audio-spectrogram-transformer")
    model = _loaded(transformers.ASTModel, name)
    extractor = _extractor(name)
    if extractor is None:
        return Ast(model)
    if not extractor.do_normalize:
        raise ValueError("its input is not normalised, as that of no released model is")
    return Ast(model, extractor.mean, extractor.std)


def _whisper(name: str) -> Backbone:
    _of_type(name, "whisper")
    return Whisper(_loaded(transformers.WhisperModel, name).encoder)


def _wavlm(name: str) -> Backbone:
    _of_type(name, "wavlm")
    extractor = _extractor(name)
    # Without, as the base model's.
    normalise = extractor is not None and bool(extractor.do_normalize)
    return WavLm(_loaded(transformers.WavLMModel, name), normalise)


_PRETRAINED: dict[str, Callable[[str], Backbone]] = {
    "ast": _ast,
    "whisper": _whisper,
    "wavlm": _wavlm,
}
_RANDOM: dict[str, Callable[[dict[str, Any], dict[str, Any]], Backbone]] = {
    "ast": lambda model, config: Ast(
        transformers.ASTModel(transformers.ASTConfig(**model)),
        **{name: config[name] for name in ("mean", "deviation") if name in config},
    ),
    "whisper": lambda model, _: Whisper(WhisperEncoder(transformers.WhisperConfig(**model))),
    "wavlm": lambda model, config: WavLm(
        transformers.WavLMModel(transformers.WavLMConfig(**model)), config.get("normalise", False)
    ),
}
