"""BEATs (Chen et al. 2022): audio features from the released checkpoints, in torch alone.

A transformer on 16 x 16 patches of log mel energies, with the gated relative position bias of WavLM
(Chen et al. 2021) and DeepNorm residuals (Wang et al. 2022). It equals the official implementation
(microsoft/unilm, ``beats``) to rounding, and keeps its names of modules and tensors.

``layer_wise_gradient_decay_ratio`` of a checkpoint is not used: gradients here are the true ones,
and learning rates by layer are the optimizer's. Adam would not feel scaled gradients anyway.
"""

import math
import os

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import kaldi
from .beats_file import RELEASED, BeatsConfig, check_tensors, read_file

# Mean and standard deviation of the log mel energies of the authors' training data. Dividing by
# twice the deviation is their choice, after AST.
_MEAN, _DEVIATION = 15.41663, 6.55582


def load(path: str | os.PathLike[str]) -> "Beats":
    """Read a checkpoint in the released form, ``{"cfg", "model"[, "label_dict"]}``.

    Args:
        path: a ``.pt`` file, pre-trained or fine-tuned. No code in it is run.

    Returns:
        The model on the CPU in float32, in evaluation mode, with gradients enabled.

    Raises:
        EarmarkError: no such file, no checkpoint of BEATs, a setting that is missing or that this
            implementation does not know, or tensors that are not those of the settings.
    """
    file = read_file(path)
    with torch.device("meta"):
        model = Beats(file.config, file.labels)
    tensors = check_tensors(file.tensors, model.state_dict(), str(path))
    model.load_state_dict(tensors, assign=True)
    return model.eval()


def random(config: BeatsConfig = RELEASED, seed: int = 0) -> "Beats":
    """A model with random weights, in evaluation mode: to time, or to train from scratch."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Beats(config).eval()


def fbank(wav: Tensor) -> Tensor:
    """Normalised log mel energies, float32 [batch, frames, 128], of ``wav`` [batch, samples].

    There are ``(samples - 400) // 160 + 1`` frames of 25 ms every 10 ms.
    """
    # The scale of 16-bit samples.
    return (kaldi.log_mel(wav.float() * 2**15, "povey") - _MEAN) / (2 * _DEVIATION)


def position_buckets(offsets: Tensor, buckets: int, max_distance: int) -> Tensor:
    """Bucket of each relative position (key - query), int64, shaped as ``offsets``.

    T5's scheme (Raffel et al. 2020): half of the buckets for each direction; in each, the first
    half holds one distance a bucket, the rest grow with the logarithm up to ``max_distance``.
    """
    half = buckets // 2
    exact = half // 2
    distance = offsets.abs()
    share = torch.log(distance.clamp(min=exact).float() / exact) / math.log(max_distance / exact)
    far = (exact + (share * (half - exact)).long()).clamp(max=half - 1)
    return torch.where(distance < exact, distance, far) + half * (offsets > 0)


class PositionConv(nn.Module):
    """Grouped convolution over tokens with weight normalisation along the kernel.

    [batch, channels, tokens] to the same shape. The norm of each tap over all channels is a
    parameter of its own, ``weight_g``.
    """

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        width, kernel = config.encoder_embed_dim, config.conv_pos
        self.groups = config.conv_pos_groups
        weight = torch.empty(width, width // self.groups, kernel)
        nn.init.normal_(weight, std=math.sqrt(4 / (kernel * width)))
        self.bias = nn.Parameter(torch.zeros(width))
        self.weight_g = nn.Parameter(self._norm(weight))
        self.weight_v = nn.Parameter(weight)

    @staticmethod
    def _norm(weight: Tensor) -> Tensor:
        return torch.linalg.vector_norm(weight, dim=(0, 1), keepdim=True)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight_v * (self.weight_g / self._norm(self.weight_v))
        y = F.conv1d(x, weight, self.bias, padding=weight.shape[2] // 2, groups=self.groups)
        # Padding both sides of an even kernel makes one token too many.
        return y[..., : x.shape[2]]


class Attention(nn.Module):
    """Self-attention with a position bias that every query gates."""

    def __init__(self, config: BeatsConfig, table: nn.Embedding) -> None:
        super().__init__()
        width = config.encoder_embed_dim
        self.heads = config.encoder_attention_heads
        self.dropout = config.attention_dropout
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        # Every layer holds the one table, as in the released files.
        self.relative_attention_bias = table
        self.gated = config.gru_rel_pos
        if self.gated:
            self.grep_linear = nn.Linear(width // self.heads, 8)
            self.grep_a = nn.Parameter(torch.ones(1, self.heads, 1, 1))

    def forward(self, x: Tensor, bias: Tensor, padding: Tensor | None) -> Tensor:
        query, key, value = (
            project(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        if self.gated:
            # The unscaled queries gate, not the hidden state as in transformers' WavLM.
            gates = self.grep_linear(query).unflatten(-1, (2, 4)).sum(-1).sigmoid()
            a, b = gates.chunk(2, dim=-1)
            bias = bias * (a * (b * self.grep_a - 1) + 2)
        if padding is not None:
            bias = bias.masked_fill(padding[:, None, None], -torch.inf)
        mixed = F.scaled_dot_product_attention(
            query, key, value, bias.to(query.dtype), self.dropout if self.training else 0.0
        )
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """A transformer layer with the normalisation after the sum."""

    def __init__(self, config: BeatsConfig, table: nn.Embedding) -> None:
        super().__init__()
        width, inner = config.encoder_embed_dim, config.encoder_ffn_embed_dim
        self.self_attn = Attention(config, table)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)
        self.final_layer_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)
        self.activation_dropout = nn.Dropout(config.activation_dropout)
        self.residual = (2 * config.encoder_layers) ** 0.25 if config.deep_norm else 1.0

    def forward(self, x: Tensor, bias: Tensor, padding: Tensor | None) -> Tensor:
        y = self.dropout(self.self_attn(x, bias, padding))
        x = self.self_attn_layer_norm(self.residual * x + y)
        y = self.dropout(self.fc2(self.activation_dropout(F.gelu(self.fc1(x)))))
        return self.final_layer_norm(self.residual * x + y)


class Encoder(nn.Module):
    """Position convolution and transformer layers: [batch, tokens, width] to the same shape."""

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        self.config = config
        self.pos_conv = nn.Sequential(PositionConv(config), nn.GELU())
        table = nn.Embedding(config.num_buckets, config.encoder_attention_heads)
        self.layers = nn.ModuleList(Layer(config, table) for _ in range(config.encoder_layers))
        self.layer_norm = nn.LayerNorm(config.encoder_embed_dim)
        self.dropout = nn.Dropout(config.dropout)
        self._initialise(table)

    def _initialise(self, table: nn.Embedding) -> None:
        """BERT's initialisation, and in DeepNorm's places DeepNorm's."""
        nn.init.normal_(table.weight, std=0.02)
        deep = ("k_proj", "q_proj", "v_proj", "out_proj", "fc1", "fc2")
        for name, module in self.layers.named_modules():
            if not isinstance(module, nn.Linear):
                continue
            kind = name.rpartition(".")[2]
            if self.config.deep_norm and kind in deep:
                beta = (8 * self.config.encoder_layers) ** -0.25
                nn.init.xavier_normal_(module.weight, 1.0 if kind in deep[:2] else beta)
            else:
                nn.init.normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)

    def position_bias(self, tokens: int) -> Tensor:
        """Bias of each key for each query before gating, [heads, query, key]."""
        layer = self.layers[0]
        assert isinstance(layer, Layer)
        table = layer.self_attn.relative_attention_bias.weight
        # On the CPU, since another device may round a logarithm into the next bucket.
        positions = torch.arange(tokens, device="cpu")
        offsets = torch.arange(1 - tokens, tokens, device="cpu")
        buckets = position_buckets(offsets, self.config.num_buckets, self.config.max_distance)
        rows = buckets[positions - positions[:, None] + (tokens - 1)]
        return F.embedding(rows.to(table.device), table).permute(2, 0, 1)

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        if padding is not None:
            x = x.masked_fill(padding[..., None], 0)
        x = x + self.pos_conv(x.transpose(1, 2)).transpose(1, 2)
        x = self.dropout(self.layer_norm(x))
        bias = self.position_bias(x.shape[1])
        for layer in self.layers:
            if self.training and torch.rand((), device="cpu") < self.config.encoder_layerdrop:
                continue
            x = layer(x, bias, padding)
        return x


class Beats(nn.Module):
    """BEATs on raw audio; see :func:`load` and :func:`random`."""

    def __init__(self, config: BeatsConfig, labels: tuple[str, ...] = ()) -> None:
        """
        Args:
            config: shape of the network.
            labels: class names in the order of the logits, as far as they are known.
        """
        super().__init__()
        self.config = config
        self.labels = labels
        width, patch = config.encoder_embed_dim, config.input_patch_size
        self.patch_embedding = nn.Conv2d(1, config.embed_dim, patch, patch, bias=config.conv_bias)
        self.layer_norm = nn.LayerNorm(config.embed_dim)
        self.post_extract_proj = (
            nn.Identity() if config.embed_dim == width else nn.Linear(config.embed_dim, width)
        )
        self.dropout_input = nn.Dropout(config.dropout_input)
        self.encoder = Encoder(config)
        self.predictor: nn.Linear | None = None
        if config.finetuned_model:
            assert config.predictor_class is not None and config.predictor_dropout is not None
            self.predictor_dropout = nn.Dropout(config.predictor_dropout)
            self.predictor = nn.Linear(width, config.predictor_class)

    def forward(self, wav: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """:meth:`extract_features`."""
        return self.extract_features(wav, padding_mask)

    def extract_features(self, wav: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Output of the last layer.

        Args:
            wav: floating [batch, samples] at 16 kHz in [-1, 1), at least 2800 samples with the
                released patch of 16 frames.
            padding_mask: bool [batch, samples], True where a clip is over; every clip has some
                audio.

        Returns:
            [batch, tokens, width]: for every patch of 16 frames the 8 patches of 16 mel bands,
            lowest first. Features of padding mean nothing; :meth:`token_mask` tells which they are.

        Raises:
            ValueError: wrong shape or type, too short, or a clip of padding alone.
        """
        return self._features(wav, padding_mask)[0]

    def logits(self, wav: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Logits of a fine-tuned model, [batch, classes]; their sigmoid is its probability.

        Arguments are those of :meth:`extract_features`. The mean is over tokens of audio only.

        Raises:
            ValueError: as :meth:`extract_features`; or the model has no head.
        """
        if self.predictor is None:
            raise ValueError("this BEATs is pre-trained only and has no classes: use a fine-tuned")
        features, padding = self._features(wav, padding_mask)
        logits = self.predictor(self.predictor_dropout(features))
        if padding is None:
            return logits.mean(1)
        audio = ~padding[..., None]
        return (logits * audio).sum(1) / audio.sum(1)

    def token_mask(self, padding_mask: Tensor) -> Tensor:
        """Which tokens hold padding alone, bool [batch, tokens], from that of the samples.

        The official code's two steps, samples to frames to tokens, each of which cuts the end off
        and calls a group padding if all of it is. Near a clip's end the mask thus tells the bands
        of one time step apart.
        """
        frames = (padding_mask.shape[1] - kaldi.WINDOW) // kaldi.HOP + 1
        patch = self.config.input_patch_size
        return _shrink(_shrink(padding_mask, frames), (frames // patch) * (kaldi.MELS // patch))

    def _features(self, wav: Tensor, padding_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        least = kaldi.WINDOW + (self.config.input_patch_size - 1) * kaldi.HOP
        if wav.dim() != 2 or wav.shape[1] < least or not wav.is_floating_point():
            raise ValueError(
                f"audio is {wav.dtype} {list(wav.shape)}: expected floating [batch, samples] of at "
                f"least {least} samples"
            )
        padding = None
        if padding_mask is not None:
            if padding_mask.shape != wav.shape or padding_mask.dtype != torch.bool:
                raise ValueError(
                    f"padding mask is {padding_mask.dtype} {list(padding_mask.shape)}: expected "
                    f"bool {list(wav.shape)}"
                )
            padding = self.token_mask(padding_mask)
            if bool(padding.all(1).any()):
                # Its attention would be over nothing: NaN.
                raise ValueError("a clip of the batch is padding alone: leave it out")
        return self.encode(fbank(wav), padding), padding

    def encode(self, energies: Tensor, padding: Tensor | None = None) -> Tensor:
        """Output of the last layer, [batch, tokens, width], for what :func:`fbank` gives.

        Args:
            energies: float32 [batch, frames, 128].
            padding: :meth:`token_mask` of the clips.
        """
        patches = self.patch_embedding(energies.to(self.patch_embedding.weight.dtype)[:, None])
        x = self.layer_norm(patches.flatten(2).transpose(1, 2))
        return self.encoder(self.dropout_input(self.post_extract_proj(x)), padding)


def _shrink(mask: Tensor, length: int) -> Tensor:
    group = mask.shape[1] // length
    return mask[:, : length * group].unflatten(1, (length, group)).all(-1)
