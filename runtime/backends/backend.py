"""What runs the graph of a model file: onnxruntime, or numpy where there is no onnxruntime."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Protocol

import numpy as np

from ..errors import EarmarkError, first_line, was_interrupted
from ..manifest import Manifest
from ..onnx_file import OnnxFile

VARIABLE = "EARMARK_BACKEND"
"""The environment variable that chooses a backend where a program does not."""
BACKENDS = ("onnxruntime", "numpy")

Arrays = Mapping[str, np.ndarray]
"""Tensors by name, float32 [rows, ...], C order."""


class Backend(Protocol):
    """A graph that is ready to run on the calling thread. It holds no stream's state, and several
    threads may run what they have bound at once."""

    name: str
    """One of ``BACKENDS``."""

    def bind(self, inputs: Arrays, outputs: Arrays) -> Sequence[Callable[[], None]]:
        """Calls over these arrays, of which the n-th takes and gives the first n + 1 rows.

        One thread at a time may run them.

        Args:
            inputs: ``s16`` (see :mod:`earmark.runtime.graph_ends`) and ``cache``.
            outputs: any of ``logits``, ``posteriors`` and ``cache_out``; none shares memory with an
                input.
        """
        ...


def load(name: str | None, data: bytes, file: OnnxFile, manifest: Manifest) -> Backend:
    """Make a graph ready.

    Args:
        name: one of ``BACKENDS``; None for what the environment variable says, or else onnxruntime
            where it can be imported.
        data: the model file, which :func:`~earmark.runtime.graph_check.check_graph` accepts.
        file: what it holds.
        manifest: that of the file.

    Raises:
        EarmarkError: the backend cannot load the graph.
    """
    if chosen(name) == "numpy":
        from .numpy_backend import NumpyBackend

        return NumpyBackend(file, manifest)
    from .onnxruntime_backend import OnnxruntimeBackend

    return OnnxruntimeBackend(data, manifest)


def chosen(name: str | None = None) -> str:
    """The backend that :func:`load` takes, which is imported here if it is onnxruntime.

    Raises:
        EarmarkError: there is no backend of that name, or it was asked for and cannot be imported.
    """
    asked, name = name, name or os.environ.get(VARIABLE)
    if not name:
        return "numpy" if _missing() else "onnxruntime"
    if name not in BACKENDS:
        where = "backend" if asked else f"environment variable {VARIABLE}"
        raise EarmarkError(f"{where} {name!r}: choose from {', '.join(BACKENDS)}")
    if name == "onnxruntime":
        _import()
    return name


@cache
def _missing() -> bool:
    """Whether onnxruntime cannot be imported, which is said once."""
    try:
        _import()
    except EarmarkError as error:
        # For what most programs never say, an engine alone would hold 0.2 MB more.
        import logging

        logging.getLogger(__name__).warning(
            "earmark: %s: numpy runs the model, which takes more of the processor", error
        )
        return True
    return False


def _import() -> None:
    try:
        from .onnxruntime_import import onnxruntime  # noqa: F401
    except ImportError as error:
        if was_interrupted(error):
            raise
        raise EarmarkError(f"onnxruntime cannot be imported ({first_line(error)})") from error
