"""Whole audio models at the spotter's job: BEATs, AST, Whisper's encoder, WavLM, or one's teacher.

A step takes int16 PCM in the host's memory to the label, also there: on a GPU the copies both ways
and the launch are in it. Every model has a linear head of ``CLASSES`` classes on its embedding.
"""

import gc
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...runtime.errors import EarmarkError
from ...runtime.files import read_text
from ...train.metrics import headline
from ...train.teach import EVALUATION
from ...train.teachers import registry
from ...train.teachers.run import load_teacher
from ...train.teachers.teacher import SAMPLE_RATE, Backbone, Teacher, seeded
from .audio import speech_like
from .results import Accuracy, Row
from .timing import Times, Work

CLASSES = 10
"""As many as the shipped model has: eight keywords, other words, silence."""
WINDOW, CLIP = 1.0, 10.0
"""Seconds that a decision is made on: at every step of a stream, and once for a recording."""
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
BATCH = {"cuda": 256, "cpu": 1}
"""Windows of the row that measures throughput, fewer where they do not fit; 1 for no such row."""

# Width, layers, heads, and width of the feed-forward part of each encoder.
_WHISPER = {
    "whisper-tiny": (384, 4, 6, 1536),
    "whisper-base": (512, 6, 8, 2048),
    "whisper-small": (768, 12, 12, 3072),
}
NAMES = ("beats", "ast", *_WHISPER, "wavlm-base")


@dataclass(frozen=True)
class Full:
    """A model in one setting, ready to be timed."""

    work: Work
    seconds: float
    """Audio that one decision is made on."""
    batch: int
    precision: str
    mode: str
    device: str
    weights: str
    parameters: int
    accuracy: Accuracy | None


@dataclass(frozen=True)
class Settings:
    """What is run of each model."""

    devices: tuple[str, ...]
    precisions: tuple[str, ...] = ("float32",)
    modes: tuple[str, ...] = ("eager",)
    batch: int | None = None
    """Windows of the row that measures throughput; None for those of :data:`BATCH`."""
    hop: float = 0.08
    """Seconds between two decisions on a window."""


def check(names: Sequence[str], devices: Sequence[str]) -> None:
    """Refuse what cannot be run, before anything is measured.

    Raises:
        EarmarkError: a name is neither one of ``NAMES`` nor a teacher's run that can be read, or
            there is no such device.
    """
    if "cuda" in devices and not torch.cuda.is_available():
        raise EarmarkError("--device cuda: torch finds no GPU that it can use: leave it out")
    for name in names:
        if name in NAMES:
            continue
        if not Path(name).is_dir():
            raise EarmarkError(
                f"--full {name}: choose from {', '.join(NAMES)}, or name a teacher's run"
            )
        # Whether all of it can be read shows when it is.
        load_teacher(name)


def devices() -> tuple[str, ...]:
    """The GPU where there is one, and the CPU."""
    return ("cuda", "cpu") if torch.cuda.is_available() else ("cpu",)


def device_name(device: str) -> str:
    """For tables."""
    return torch.cuda.get_device_name() if device == "cuda" else "cpu"


def accelerator() -> dict[str, str] | None:
    """The GPU and its software, None where there is none."""
    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "memory": f"{properties.total_memory / 1e9:.0f} GB",
        "capability": f"{properties.major}.{properties.minor}",
        "cuda": str(torch.version.cuda),
    }


@contextmanager
def one_thread() -> Iterator[None]:
    """torch on the calling thread alone, as all others run."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def variants(
    name: str, settings: Settings, skip: Callable[[str, str], None]
) -> Iterator[list[Full]]:
    """A model in all of its settings; those of one device and precision together, which fit in
    memory side by side.

    Args:
        name: one of ``NAMES``, or the run directory of a teacher (see :func:`check`).
        settings: what is run.
        skip: is told of each setting that cannot be run, and why.

    Raises:
        EarmarkError: it is no teacher's run, or a damaged one.
    """
    for device in settings.devices:
        for precision in settings.precisions:
            # Nothing here holds on to a group, so that its memory is free for the next.
            yield _group(name, settings, device, precision, skip)
            gc.collect()
            if device == "cuda":
                torch.cuda.empty_cache()


def _group(
    name: str, settings: Settings, device: str, precision: str, skip: Callable[[str, str], None]
) -> list[Full]:
    group = []
    for seconds in (WINDOW, CLIP):
        source = _source(name, seconds)
        network = _Decide(source.teacher, PRECISIONS[precision])
        for mode in settings.modes:
            for batch in _batches(settings, device, mode, seconds):
                full = _try(name, source, network, device, precision, mode, batch, settings)
                if isinstance(full, Full):
                    group.append(full)
                else:
                    setting = f"{name}, {seconds:g} s, {device}, {precision}, {mode}"
                    skip(setting if batch == 1 else f"{setting}, several at once", full)
    return group


@dataclass(frozen=True)
class _Source:
    """A model as it was found."""

    teacher: Teacher
    seconds: float
    weights: str
    accuracy: Accuracy | None


def _source(name: str, seconds: float) -> _Source:
    if name in NAMES:
        backbone = seeded(0, lambda: _random(name, seconds))
        teacher = seeded(0, lambda: Teacher(backbone, CLASSES))
        return _Source(teacher.eval().requires_grad_(False), seconds, "random weights", None)
    run = load_teacher(name)
    return _Source(run.teacher, seconds, "trained", _accuracy(run.path / EVALUATION))


def _accuracy(path: Path) -> Accuracy | None:
    """What training measured on held-out clips, where it came to that."""
    try:
        measured: dict[str, Any] = json.loads(read_text(path))
        figure = headline(measured)
        return Accuracy(figure, measured[figure], f"{measured['clips']:,} clips held out")
    except (EarmarkError, ValueError, KeyError, TypeError, StopIteration):
        return None


def _random(name: str, seconds: float) -> Backbone:
    """A network of the published shape. AST's is that for clips of this length."""
    if name == "beats":
        return registry.load("beats", random=True)
    from ...train.teachers import hub

    if name == "ast":
        return hub.from_config("ast", {"model": {"max_length": 128 if seconds < 1.3 else 1024}})
    if name == "wavlm-base":
        return hub.from_config("wavlm")
    fields = ("d_model", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim")
    shape = dict(zip(fields, _WHISPER[name], strict=True))
    return hub.from_config("whisper", {"model": shape})


class _Decide(nn.Module):
    """int16 [batch, samples] to labels, int64 [batch]. Features are computed in float32."""

    def __init__(self, teacher: Teacher, dtype: torch.dtype) -> None:
        super().__init__()
        self.teacher = teacher
        self.dtype = dtype
        for layer in teacher.modules():
            # Weights and statistics, once: casting them in every call costs more than the call.
            # What makes the features has no weights.
            if any(True for _ in layer.parameters(recurse=False)):
                for tensor in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)):
                    if tensor.is_floating_point():
                        tensor.data = tensor.data.to(dtype)

    def forward(self, pcm: Tensor) -> Tensor:
        wav = pcm.float() / 32768
        features = self.teacher.backbone.features(wav)
        with torch.autocast(pcm.device.type, self.dtype, enabled=self.dtype != torch.float32):
            embedding = self.teacher.backbone.encode(features.to(self.dtype))
            return self.teacher.head(embedding).argmax(1)


def _batches(settings: Settings, device: str, mode: str, seconds: float) -> Sequence[int]:
    throughput = BATCH[device] if settings.batch is None else settings.batch
    # Throughput is of windows, and in the plainest mode: what one call costs is in the others.
    return (1, throughput) if throughput > 1 and seconds == WINDOW and mode == "eager" else (1,)


def _try(
    name: str,
    source: _Source,
    network: nn.Module,
    device: str,
    precision: str,
    mode: str,
    batch: int,
    settings: Settings,
) -> Full | str:
    """The model made ready and run once, with fewer windows where they do not fit, of several no
    fewer than two, as there is a row of one; or the reason why not."""
    if mode == "graph" and device != "cuda":
        return "CUDA graphs need a GPU"
    while True:
        try:
            run = _runner(
                network.to(device), device, mode, batch, round(source.seconds * SAMPLE_RATE)
            )
            run(0)
            break
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            if batch < 4:
                return "does not fit in memory"
            batch //= 2
        except Exception as error:  # compilers and drivers raise many types
            said = str(error).strip() or type(error).__name__
            return said.splitlines()[0][:200]
    clip = source.seconds == CLIP
    return Full(
        work=Work(
            f"{name}, {source.seconds:g} s, {device}, {precision}, {mode}, batch {batch}",
            CLIP if clip else batch * settings.hop,
            run,
            live=False,
        ),
        seconds=source.seconds,
        batch=batch,
        precision=precision,
        mode=mode,
        device=device_name(device),
        weights=source.weights,
        parameters=sum(p.numel() for p in source.teacher.parameters()),
        accuracy=source.accuracy,
    )


def _runner(
    network: nn.Module, device: str, mode: str, batch: int, samples: int
) -> Callable[[int], NDArray[np.int64]]:
    """A function that takes PCM of the host to labels of the host."""
    audio = speech_like(SAMPLE_RATE)
    clips = torch.from_numpy(
        np.stack([np.resize(np.roll(audio, -1000 * i), samples) for i in range(batch)])
    )
    if device == "cuda":
        clips = clips.pin_memory()
    if mode == "graph":
        return _graph(network, clips)
    call = torch.compile(network, fullgraph=False) if mode == "compile" else network

    def run(_number: int) -> NDArray[np.int64]:
        with torch.inference_mode():
            return call(clips.to(device)).cpu().numpy()

    return run


def _graph(network: nn.Module, clips: Tensor) -> Callable[[int], NDArray[np.int64]]:
    """The kernels of one call recorded, and replayed by one launch."""
    pcm = clips.cuda()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.inference_mode():
        with torch.cuda.stream(side):
            for _ in range(3):
                network(pcm)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            labels = network(pcm)

    def run(_number: int) -> NDArray[np.int64]:
        with torch.inference_mode():
            pcm.copy_(clips)
            graph.replay()
            return labels.cpu().numpy()

    return run


def full_row(name: str, full: Full, times: Times, hop: float) -> Row:
    """The row of a model. ``hop``: seconds between two decisions on a window."""
    job = (
        f"{full.seconds:g} s clip"
        if full.seconds == CLIP
        else f"{full.seconds:g} s window each {1e3 * hop:g} ms"
    )
    return Row(
        kind="full",
        name=name,
        job=job,
        device=full.device,
        precision=full.precision,
        mode=full.mode,
        weights=full.weights,
        step_ms=1e3 * full.work.audio,
        decisions=full.batch,
        hot=times.hot,
        batch=full.batch,
        parameters=full.parameters,
        accuracy=full.accuracy,
    )
