"""The spotter: one engine holds the model, each stream holds its own state."""

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime

from .audio import MAX_AMPLITUDE
from .decision import Decider
from .errors import EarmarkError
from .manifest import MAX_MANIFEST_BYTES, METADATA_KEY, Decision, Manifest

DEFAULT_MODEL = Path(__file__).parent / "models" / "commands.onnx"
"""The model that is shipped inside the package."""
MAX_MODEL_BYTES = 256 << 20
INT16_SCALE = np.float32(1 / 32768)


class Detection(NamedTuple):
    """A keyword that was detected."""

    keyword: str
    time: float
    """Seconds of audio consumed by the step that fired."""
    score: float
    """Smoothed posterior at that step."""


class Engine:
    """A loaded model. It has no state of its own and serves any number of streams, each of which
    may run in a thread of its own.

    onnxruntime runs on the calling thread alone, without spinning.
    """

    manifest: Manifest
    path: Path

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        """
        Args:
            path: an ONNX file that ``earmark export`` wrote; None for the shipped model.

        Raises:
            EarmarkError: there is no such file, it is no ONNX file, it has no manifest or a newer
                one, or the manifest does not describe the graph.
        """
        self.path = DEFAULT_MODEL if path is None else Path(path)
        self._session = _open(self.path)
        try:
            self.manifest = _manifest(self._session)
            _check_graph(self._session, self.manifest)
            self._try()
        except EarmarkError as error:
            raise EarmarkError(f"{self.path}: {error}") from error.__cause__

    def stream(self, decision: Decision | None = None) -> "Stream":
        """Start a stream.

        Args:
            decision: thresholds and times in place of those in the manifest.

        Raises:
            EarmarkError: a value of ``decision`` is out of range or a keyword is not the model's.
        """
        return Stream(self, decision)

    def scorer(self) -> "Scorer":
        """Start a stream that gives logits and decides nothing."""
        return Scorer(self)

    def _try(self) -> None:
        """One call on silence, so that a graph that cannot run is refused here."""
        try:
            logits = Scorer(self).feed(np.zeros(self.manifest.geometry.chunk, np.int16))
        except Exception as error:  # onnxruntime raises many types, also bare RuntimeError
            raise EarmarkError(f"the graph does not run ({_brief(error)})") from error
        if not np.isfinite(logits).all():
            raise EarmarkError("the graph gives NaN or infinity for silence: export it again")


class Scorer:
    """Audio in, logits out: the remainder of a chunk and the cache of one stream."""

    samples: int
    """Samples taken since the start or the last reset, those of an unfinished chunk included."""

    def __init__(self, engine: Engine) -> None:
        geometry = engine.manifest.geometry
        self._session = engine._session
        self._chunk = geometry.chunk
        self._pcm = np.zeros((1, geometry.chunk), np.float32)
        self._logits = np.zeros((1, geometry.steps, len(engine.manifest.labels)), np.float32)
        self._caches = [np.zeros((1, geometry.cache), np.float32) for _ in range(2)]
        # Two bindings over the same buffers whose caches swap roles. Numpy arrays back the values,
        # so that a call copies nothing and allocates nothing.
        value = onnxruntime.OrtValue.ortvalue_from_numpy
        pcm, logits = value(self._pcm), value(self._logits)
        caches = [value(cache) for cache in self._caches]
        self._bindings = []
        for source, target in (caches, caches[::-1]):
            binding = self._session.io_binding()
            binding.bind_ortvalue_input("pcm", pcm)
            binding.bind_ortvalue_input("cache", source)
            binding.bind_ortvalue_output("logits", logits)
            binding.bind_ortvalue_output("cache_out", target)
            self._bindings.append(binding)
        self._turn = 0
        self._filled = 0
        self.samples = 0

    def feed(self, pcm: np.ndarray) -> np.ndarray:
        """Take audio and return the logits of every chunk that it completes.

        Args:
            pcm: [samples] at the model's sample rate; int16, or float32/float64 in [-1, 1).

        Returns:
            float32 [steps, labels]; no rows while a chunk is unfinished. After a single chunk it is
            a view that the next call overwrites.

        Raises:
            EarmarkError: ``pcm`` has another type or shape, or holds NaN or no audio. The state is
                as before.
        """
        pcm = as_pcm(pcm)
        complete = (self._filled + len(pcm)) // self._chunk
        steps, labels = self._logits.shape[1:]
        if complete <= 1:
            for _ in self.chunks(pcm):
                pass
            return self._logits[0, : complete * steps]
        rows = np.empty((complete, steps, labels), np.float32)
        for index, logits in enumerate(self.chunks(pcm)):
            rows[index] = logits
        return rows.reshape(-1, labels)

    def chunks(self, pcm: np.ndarray) -> Iterator[np.ndarray]:
        """As :meth:`feed`, but yield the logits of each chunk, float32 [steps, labels], in turn.

        Each is valid until the next. ``pcm`` must have come from :func:`as_pcm`, and the iterator
        must be run to its end: samples are taken as it goes.
        """
        chunk, buffer = self._chunk, self._pcm[0]
        start, total = 0, len(pcm)
        self.samples += total
        integer = pcm.dtype == np.int16
        while start < total:
            filled = self._filled
            count = min(chunk - filled, total - start)
            part, target = pcm[start : start + count], buffer[filled : filled + count]
            if integer:
                np.multiply(part, INT16_SCALE, out=target)
            else:
                target[:] = part
            start += count
            if filled + count < chunk:
                self._filled = filled + count
                return
            self._session.run_with_iobinding(self._bindings[self._turn])
            self._turn = 1 - self._turn
            self._filled = 0
            yield self._logits[0]

    def flush(self) -> np.ndarray:
        """Finish the chunk with zeros and return its logits, float32 [steps, labels].

        The zeros count as audio. No rows where no chunk was begun.
        """
        return self.feed(np.zeros(-self._filled % self._chunk, np.int16))

    def reset(self) -> None:
        """Return to the start of a stream."""
        self._caches[0][:] = 0
        self._turn = 0
        self._filled = 0
        self.samples = 0


class Stream:
    """Audio in, detections out. What it returns does not depend on how the audio is cut."""

    def __init__(self, engine: Engine, decision: Decision | None = None) -> None:
        """See :meth:`Engine.stream`."""
        manifest = engine.manifest
        if decision is not None:
            # The manifest checks its fields when it is made.
            manifest = dataclasses.replace(manifest, decision=decision)
        geometry = manifest.geometry
        self._labels = manifest.labels
        self._rate = geometry.sample_rate
        self._step = geometry.step
        self._scorer = Scorer(engine)
        self._decider = Decider(
            manifest.decision, manifest.labels, geometry.step / geometry.sample_rate
        )
        self._activate = activation(manifest)
        self._posteriors = np.empty((geometry.steps, len(manifest.labels)), np.float32)
        self._column = np.empty((geometry.steps, 1), np.float32)
        self._origin = 0
        self._scored = 0

    @property
    def posteriors(self) -> np.ndarray:
        """Smoothed posteriors of the last step: float64 [labels], zero at the start."""
        return self._decider.smoothed

    @property
    def seconds(self) -> float:
        """Audio time: seconds of audio taken, losses told to :meth:`gap` included."""
        return (self._origin + self._scorer.samples) / self._rate

    def push(self, pcm: np.ndarray) -> list[Detection]:
        """Take audio and return what it completes.

        Args:
            pcm: [samples] at the model's sample rate, any length; int16, or float32/float64 in
                [-1, 1).

        Raises:
            EarmarkError: ``pcm`` has another type or shape, or holds NaN or no audio. The state is
                as before.
        """
        detections = []
        posteriors = self._posteriors
        # Chunk by chunk, so that every array operation has one shape: results are bitwise the same
        # however the audio arrives, and a long push takes no more memory than a short one.
        for logits in self._scorer.chunks(as_pcm(pcm)):
            self._activate(logits, posteriors, self._column)
            for firing in self._decider.update(posteriors):
                end = self._origin + self._scored + (firing.row + 1) * self._step
                detections.append(
                    Detection(self._labels[firing.label], end / self._rate, firing.score)
                )
            self._scored += len(logits) * self._step
        return detections

    def flush(self, tail: float = 0.0) -> list[Detection]:
        """End the stream: decide what only silence was missing for.

        Args:
            tail: at least so many seconds of zeros follow the audio, then whatever finishes a
                chunk. No detection is given a time beyond the audio itself.

        The stream starts anew with the next push.
        """
        end = self.seconds
        padding = round(tail * self._rate)
        padding += -(self._scorer.samples + padding) % (len(self._posteriors) * self._step)
        detections = [
            detection._replace(time=min(detection.time, end))
            for detection in self.push(np.zeros(padding, np.int16))
        ]
        self.reset()
        return detections

    def reset(self) -> None:
        """Return to the state of a new stream, at audio time 0."""
        self._scorer.reset()
        self._decider.reset()
        self._origin = 0
        self._scored = 0

    def gap(self, samples: int = 0) -> None:
        """Audio was lost here: about ``samples`` samples, 0 where that is not known.

        The model and the smoothing restart as at the start of a stream, audio time goes on.
        """
        self._origin += self._scorer.samples + samples
        self._decider.gap((self._scorer.samples - self._scored + samples) // self._step)
        self._scorer.reset()
        self._scored = 0


def activation(manifest: Manifest) -> Callable[..., np.ndarray]:
    """The function that makes posteriors of the model's logits: :func:`softmax` or
    :func:`sigmoid`."""
    return {"softmax": softmax, "sigmoid": sigmoid}[manifest.activation]


def softmax(
    logits: np.ndarray, out: np.ndarray | None = None, column: np.ndarray | None = None
) -> np.ndarray:
    """Posteriors of logits, both float32 [rows, labels].

    ``out`` and ``column`` ([rows, 1]) are buffers to work in.
    """
    column = np.maximum.reduce(logits, axis=1, keepdims=True, out=column)
    out = np.subtract(logits, column, out=out)
    np.exp(out, out=out)
    np.add.reduce(out, axis=1, keepdims=True, out=column)
    return np.divide(out, column, out=out)


def sigmoid(
    logits: np.ndarray, out: np.ndarray | None = None, column: np.ndarray | None = None
) -> np.ndarray:
    """Posteriors of logits whose labels do not exclude one another, as :func:`softmax`.

    ``column`` is not needed.
    """
    # By the hyperbolic tangent, which does not overflow.
    out = np.multiply(logits, np.float32(0.5), out=out)
    np.tanh(out, out=out)
    np.add(out, 1, out=out)
    return np.multiply(out, np.float32(0.5), out=out)


def as_pcm(pcm: np.ndarray) -> np.ndarray:
    """``pcm`` if a model can take it: [samples], int16, float32 or float64.

    Raises:
        EarmarkError: it has another type or shape, or holds NaN, infinity or values far beyond
            [-1, 1).
    """
    pcm = np.asarray(pcm)
    if pcm.ndim != 1:
        raise EarmarkError(f"audio has shape {list(pcm.shape)}: give one channel, [samples]")
    if pcm.dtype == np.int16:
        return pcm
    if pcm.dtype != np.float32 and pcm.dtype != np.float64:
        raise EarmarkError(f"audio has type {pcm.dtype}: give int16, or float32 in [-1, 1)")
    # A comparison with NaN is false, so this refuses NaN and infinity as well.
    if len(pcm) and not (pcm.max() <= MAX_AMPLITUDE and pcm.min() >= -MAX_AMPLITUDE):
        if not np.isfinite(pcm).all():
            raise EarmarkError("audio holds NaN or infinity: repair it before it is pushed")
        raise EarmarkError(
            f"audio reaches {np.abs(pcm).max():g}: scale floats to [-1, 1), or give int16"
        )
    return pcm


def _open(path: Path) -> onnxruntime.InferenceSession:
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise EarmarkError(f"{path}: is a folder, not a model: name an .onnx file")
        if size > MAX_MODEL_BYTES:
            raise EarmarkError(
                f"{path}: has {size} bytes, more than the {MAX_MODEL_BYTES} of the largest model"
            )
        with path.open("rb") as file:
            data = file.read(MAX_MODEL_BYTES + 1)
    except FileNotFoundError as error:
        if path == DEFAULT_MODEL:
            raise EarmarkError(
                "no model is shipped with this installation: name a model file"
            ) from error
        raise EarmarkError(f"{path}: no such model file") from error
    except OSError as error:
        raise EarmarkError(f"{path}: cannot be read ({error.strerror or error})") from error
    if len(data) > MAX_MODEL_BYTES:
        raise EarmarkError(f"{path}: is larger than {MAX_MODEL_BYTES} bytes")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        # From bytes, so that a graph cannot name other files to be read.
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises many types, also bare RuntimeError
        raise EarmarkError(
            f"{path}: onnxruntime {onnxruntime.__version__} cannot load it as an ONNX model "
            f"({_brief(error)})"
        ) from error


def _brief(error: Exception) -> str:
    """The first line of a message, cut to a readable length."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def _manifest(session: onnxruntime.InferenceSession) -> Manifest:
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        raise EarmarkError(
            "is an ONNX model without Earmark's manifest: use a file that earmark export wrote"
        )
    if len(text) > MAX_MANIFEST_BYTES:
        raise EarmarkError(f"its manifest is larger than {MAX_MANIFEST_BYTES} bytes")
    return Manifest.from_json(text)


def _check_graph(session: onnxruntime.InferenceSession, manifest: Manifest) -> None:
    """Check the graph's inputs and outputs against the manifest."""
    geometry = manifest.geometry
    expected = (
        ("input", "pcm", "tensor(float)", (geometry.chunk,)),
        ("input", "cache", "tensor(float)", (geometry.cache,)),
        ("output", "logits", "tensor(float)", (geometry.steps, len(manifest.labels))),
        ("output", "cache_out", "tensor(float)", (geometry.cache,)),
    )
    found = {("input", node.name): node for node in session.get_inputs()}
    found |= {("output", node.name): node for node in session.get_outputs()}
    for side, name, kind, shape in expected:
        node = found.pop((side, name), None)
        if node is None:
            raise EarmarkError(f"the graph has no {side} {name}: export it again")
        if node.type != kind:
            raise EarmarkError(f"{side} {name} of the graph is {node.type}, expected {kind}")
        batch, *rest = node.shape or [0]
        if tuple(rest) != shape or not (isinstance(batch, str | None) or batch == 1):
            raise EarmarkError(
                f"{side} {name} of the graph has shape {node.shape}, the manifest says "
                f"{['batch', *shape]}: export it again"
            )
    if found:
        (side, name), _ = next(iter(found.items()))
        raise EarmarkError(f"the graph has an {side} {name} that the manifest does not describe")
