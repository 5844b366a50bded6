"""The spotter: one engine holds the model, each stream holds its own state."""

import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .audio import MAX_AMPLITUDE, as_pcm, copy_pcm
from .backends import backend as backends
from .decision import Decider
from .errors import EarmarkError, first_line
from .files import read_bounded
from .gate import Gate
from .graph_check import check_graph
from .graph_ends import INPUT, OUTPUT
from .manifest import METADATA_KEY, Decision, Manifest
from .onnx_file import OnnxFile, read_onnx

DEFAULT_MODEL = Path(__file__).parent / "models" / "commands.onnx"
"""The model that is shipped inside the package."""
MAX_MODEL_BYTES = 256 << 20
MAX_TAIL = 3600.0
"""Most seconds of zeros at the end of a stream."""


class Detection(NamedTuple):
    """A keyword that was detected."""

    keyword: str
    time: float
    """Seconds of audio consumed by the step that fired."""
    score: float
    """Smoothed posterior at that step."""


class Engine:
    """A loaded model. It has no state of its own and serves any number of streams, each of which
    may run in a thread of its own. Nothing but the calling thread works on an answer."""

    manifest: Manifest
    path: Path
    size: int
    """Bytes of the file."""
    batches: bool
    """Whether the graph takes several streams in one call."""

    def __init__(
        self, path: str | os.PathLike[str] | None = None, backend: str | None = None
    ) -> None:
        """
        Args:
            path: an ONNX file that ``earmark export`` wrote; None for the shipped model.
            backend: ``native``, ``onnxruntime`` or ``numpy``; None for what the environment
                variable ``EARMARK_BACKEND`` says, or else the first of them that is there and takes
                the graph.

        Raises:
            EarmarkError: there is no such file, it is no ONNX file, it has no manifest or a newer
                one, the manifest does not describe the graph, the graph would take unreasonable
                memory or time, or there is no such backend.
        """
        backend = backends.asked(backend)
        self.path = DEFAULT_MODEL if path is None else Path(path)
        data = _read(self.path)
        self.size, self._checksum = len(data), zlib.crc32(data)
        try:
            # A backend sees the file only after all that it would do with it is known.
            file = read_onnx(data)
            self.manifest = _manifest(file)
            check_graph(file, self.manifest)
            self.batches = file.inputs["pcm"].shape[0] != 1
            self._backend = backends.load(backend, data, file, self.manifest)
            self._try()
        except EarmarkError as error:
            raise EarmarkError(f"{self.path}: {error}") from error.__cause__

    def stream(self, decision: Decision | None = None, gate: float | None = None) -> "Stream":
        """Start a stream.

        Args:
            decision: thresholds and times in place of those in the manifest.
            gate: level in dB of full scale below which the network is skipped, once all that a
                decision depends on is below it (see :mod:`earmark.runtime.gate`); None to run it
                always.

        Raises:
            EarmarkError: a value of ``decision`` is out of range, a keyword is not the model's, or
                ``gate`` is out of range.
        """
        return Stream(self, decision, gate)

    def read(self) -> bytes:
        """The file, for those who pass on what was loaded.

        Raises:
            EarmarkError: it cannot be read, or is another by now.
        """
        data = _read(self.path)
        if (len(data), zlib.crc32(data)) != (self.size, self._checksum):
            raise EarmarkError(f"{self.path}: is not what was loaded any more: start again")
        return data

    @property
    def backend(self) -> str:
        """What runs the graph: ``native``, ``onnxruntime`` or ``numpy``."""
        return self._backend.name

    def scorer(self) -> "Scorer":
        """Start a stream that gives logits and decides nothing."""
        return Scorer(self)

    def _try(self) -> None:
        """Calls on silence and on the loudest sound, to refuse here a graph that cannot run."""
        chunk = self.manifest.geometry.chunk
        pcm = np.full(3 * chunk, MAX_AMPLITUDE, np.float32)
        pcm[:chunk] = 0
        pcm[chunk::3] *= -1
        try:
            logits = Scorer(self).feed(pcm)
        except Exception as error:  # onnxruntime raises many types, also bare RuntimeError
            raise EarmarkError(f"the graph does not run ({first_line(error)})") from error
        if not np.isfinite(logits).all():
            raise EarmarkError("the graph gives NaN or infinity for sound: export it again")


class Scorer:
    """Audio in, logits out: the remainder of a chunk and the cache of one stream."""

    samples: int
    """Samples taken since the start or the last reset, those of an unfinished chunk included."""
    chunk: np.ndarray
    """Float32 [samples] in units of an int16 step, overwritten by the next chunk."""

    def __init__(self, engine: Engine) -> None:
        geometry = engine.manifest.geometry
        self._length = geometry.chunk
        pcm = np.zeros((1, geometry.chunk), np.float32)
        self.chunk = pcm[0]
        shape = (1, geometry.steps, len(engine.manifest.labels))
        self._logits, self._posteriors = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self._caches = [np.zeros((1, geometry.cache), np.float32) for _ in range(2)]
        # Two calls over the same buffers whose caches swap roles.
        outputs = {"logits": self._logits, OUTPUT: self._posteriors}
        ends = [
            ({INPUT: pcm, "cache": source}, outputs | {"cache_out": target})
            for source, target in (self._caches, self._caches[::-1])
        ]
        self._runs = [run for (run,) in engine._backend.bind(*ends)]
        self._turn = 0
        self._filled = 0
        self.samples = 0

    @property
    def posteriors(self) -> np.ndarray:
        """Of the last chunk, float32 [steps, labels]: a view that the next call overwrites."""
        return self._posteriors[0]

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
        complete = (self._filled + len(pcm)) // self._length
        _, steps, labels = self._logits.shape
        alone = complete == 1
        rows = self._logits if alone else np.empty((complete, steps, labels), np.float32)
        taken = row = 0
        while taken < len(pcm) and (taken := self.take(pcm, taken)) >= 0:
            logits = self.score()
            if not alone:
                rows[row] = logits
                row += 1
        return rows.reshape(-1, labels)

    def take(self, pcm: np.ndarray, start: int) -> int:
        """Take audio up to the end of the chunk.

        Args:
            pcm: what :func:`~earmark.runtime.audio.as_pcm` gave.
            start: the first sample to take, before the end of ``pcm``.

        Returns:
            The sample to go on from where the chunk is complete, :meth:`score` is to run the model
            on it, and :attr:`chunk` holds it; -1 where ``pcm`` ended before.
        """
        # No generator, and the usual case by itself: code between two runs of the model has left
        # the processor's caches, and costs several times of what it costs alone.
        filled, total, length = self._filled, len(pcm), self._length
        if total == length and not start and not filled:
            copy_pcm(pcm, self.chunk)
            self.samples += length
            return length
        count = min(length - filled, total - start)
        copy_pcm(pcm[start : start + count], self.chunk[filled : filled + count])
        self.samples += count
        if filled + count < length:
            self._filled = filled + count
            return -1
        self._filled = 0
        return start + count

    def score(self) -> np.ndarray:
        """Run the model on :attr:`chunk`: its logits, float32 [steps, labels].

        A view that the next call overwrites.
        """
        self._runs[self._turn]()
        self._turn = 1 - self._turn
        return self._logits[0]

    def replay(self, chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Run the model on ``chunks``, each as :attr:`chunk` held it, from the start of a signal,
        and yield the logits of each. What :attr:`chunk` holds is kept."""
        current = self.chunk.copy()
        self._restart()
        for chunk in chunks:
            self.chunk[:] = chunk
            yield self.score()
        self.chunk[:] = current

    def flush(self) -> np.ndarray:
        """Finish the chunk with zeros and return its logits, float32 [steps, labels].

        The zeros count as audio. No rows where no chunk was begun.
        """
        return self.feed(np.zeros(-self._filled % self._length, np.int16))

    def reset(self) -> None:
        """Return to the start of a stream."""
        self._restart()
        self._filled = 0
        self.samples = 0

    def _restart(self) -> None:
        self._caches[0][:] = 0
        self._turn = 0


class Stream:
    """Audio in, detections out. What it returns does not depend on how the audio is cut."""

    skipped: int
    """Samples that the gate kept from the network since the start or the last reset."""

    def __init__(
        self, engine: Engine, decision: Decision | None = None, gate: float | None = None
    ) -> None:
        """See :meth:`Engine.stream`."""
        manifest = engine.manifest.decided_by(decision)
        geometry = manifest.geometry
        self._labels = manifest.labels
        self._rate = geometry.sample_rate
        self._step = geometry.step
        self._scorer = Scorer(engine)
        self._decider = Decider(
            manifest.decision, manifest.labels, geometry.step / geometry.sample_rate
        )
        self._posteriors = self._scorer.posteriors
        self._gate = None if gate is None else Gate(gate, geometry, self._decider.window)
        self._origin = 0
        self._scored = 0
        self._lost = 0
        self.skipped = 0

    @property
    def posteriors(self) -> np.ndarray:
        """Smoothed posteriors of the last step: float64 [labels], zero at the start and while the
        gate is closed."""
        return self._decider.smoothed

    @property
    def rate(self) -> int:
        """Samples per second of the audio to push."""
        return self._rate

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
        gate, scorer = self._gate, self._scorer
        pcm, taken = as_pcm(pcm), 0
        # Chunk by chunk, so that every array operation has one shape: results are bitwise the same
        # however the audio arrives, and a long push takes no more memory than a short one.
        while taken < len(pcm) and (taken := scorer.take(pcm, taken)) >= 0:
            if gate is not None:
                if gate.skips(scorer.chunk, self._decider.at_rest):
                    self._decider.gap(len(self._posteriors))
                    self._scored += len(scorer.chunk)
                    self.skipped += len(scorer.chunk)
                    continue
                if gate.closed:
                    self._open(gate)
            scorer.score()
            for firing in self._decider.update(self._posteriors):
                end = self._origin + self._scored + (firing.row + 1) * self._step
                time = end / self._rate
                detections.append(Detection(self._labels[firing.label], time, firing.score))
            self._scored += len(scorer.chunk)
        return detections

    def _open(self, gate: Gate) -> None:
        """Bring the network and the moving average to where they were without the gate."""
        for index, _ in enumerate(self._scorer.replay(gate.reopen())):
            if index >= gate.warm_up:
                self._decider.restore(self._posteriors)

    def flush(self, tail: float = 0.0) -> list[Detection]:
        """End the stream: decide what only silence was missing for.

        Args:
            tail: at least so many seconds of zeros follow the audio, then whatever finishes a
                chunk. No detection is given a time beyond the audio itself.

        The stream starts anew with the next push.

        Raises:
            EarmarkError: ``tail`` is not within 0 and :data:`MAX_TAIL`.
        """
        if not 0 <= tail <= MAX_TAIL:
            raise EarmarkError(f"a tail of {tail} s: give 0 to {MAX_TAIL:g}")
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
        if self._gate is not None:
            self._gate.reset()
        self._origin = 0
        self._scored = 0
        self._lost = 0
        self.skipped = 0

    def gap(self, samples: int = 0) -> None:
        """Audio was lost here: about ``samples`` samples, 0 where that is not known.

        The model and the smoothing restart as at the start of a stream, audio time goes on.

        Raises:
            EarmarkError: ``samples`` is below 0.
        """
        if samples < 0:
            raise EarmarkError(f"a gap of {samples} samples: give 0 or more")
        self._origin += self._scorer.samples + samples
        # A loss told in pieces shorter than a step is as long as one told at once.
        lost = self._lost + self._scorer.samples - self._scored + samples
        steps, self._lost = divmod(lost, self._step)
        self._decider.gap(steps)
        self._scorer.reset()
        if self._gate is not None:
            self._gate.reset()
        self._scored = 0


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise EarmarkError(f"{path}: is a folder, not a model: name an .onnx file")
        if size > MAX_MODEL_BYTES:
            raise EarmarkError(
                f"{path}: has {size} bytes, more than the {MAX_MODEL_BYTES} of the largest model"
            )
        with path.open("rb") as file:
            data = read_bounded(file, MAX_MODEL_BYTES)
    except FileNotFoundError as error:
        if path == DEFAULT_MODEL:
            raise EarmarkError(
                "no model is shipped with this installation: name a model file"
            ) from error
        raise EarmarkError(f"{path}: no such model file") from error
    except OSError as error:
        raise EarmarkError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not data:
        raise EarmarkError(f"{path}: is empty: copy or export it again")
    if len(data) > MAX_MODEL_BYTES:
        raise EarmarkError(f"{path}: is larger than {MAX_MODEL_BYTES} bytes")
    return data


def _manifest(file: OnnxFile) -> Manifest:
    text = file.metadata.get(METADATA_KEY)
    if text is None:
        raise EarmarkError(
            "is an ONNX model without Earmark's manifest: use a file that earmark export wrote"
        )
    return Manifest.from_json(text)
