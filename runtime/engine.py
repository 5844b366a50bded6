"""A model that is loaded and checked, which serves any number of streams."""

import os
import zlib
from pathlib import Path

import numpy as np

from .audio import MAX_AMPLITUDE
from .backends import backend as backends
from .errors import EarmarkError, first_line
from .files import read_bounded
from .graph_check import check_graph
from .manifest import METADATA_KEY, Decision, Manifest
from .onnx_file import OnnxFile, read_onnx
from .scorer import Scorer
from .stream import Stream

DEFAULT_MODEL = Path(__file__).parent / "models" / "commands.onnx"
"""The model that is shipped inside the package."""
MAX_MODEL_BYTES = 256 << 20


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

    def stream(self, decision: Decision | None = None, gate: float | None = None) -> Stream:
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
        return Stream(self.scorer(), self.manifest.decided_by(decision), gate)

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

    def scorer(self) -> Scorer:
        """Start a stream that gives logits and decides nothing."""
        return Scorer(self._backend, self.manifest)

    def _try(self) -> None:
        """Calls on silence and on the loudest sound, to refuse here a graph that cannot run."""
        chunk = self.manifest.geometry.chunk
        pcm = np.full(3 * chunk, MAX_AMPLITUDE, np.float32)
        pcm[:chunk] = 0
        pcm[chunk::3] *= -1
        try:
            logits = self.scorer().feed(pcm)
        except Exception as error:  # onnxruntime raises many types, also bare RuntimeError
            raise EarmarkError(f"the graph does not run ({first_line(error)})") from error
        if not np.isfinite(logits).all():
            raise EarmarkError("the graph gives NaN or infinity for sound: export it again")


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
