"""What runs the graph of a model file: compiled code of Earmark's own, onnxruntime or numpy."""

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
BACKENDS = ("native", "onnxruntime", "numpy")
"""Where none is named, the first that is there."""

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
        name: one of ``BACKENDS``; None for what the environment variable says, or else the first
            of them that is there.
        data: the model file, which :func:`~earmark.runtime.graph_check.check_graph` accepts.
        file: what it holds.
        manifest: that of the file.

    Raises:
        EarmarkError: the backend cannot load the graph.
    """
    name = chosen(name)
    if name == "native":
        from .native_backend import NativeBackend

        return NativeBackend(file, manifest)
    if name == "numpy":
        from .numpy_backend import NumpyBackend

        return NumpyBackend(file, manifest)
    from .onnxruntime_backend import OnnxruntimeBackend

    return OnnxruntimeBackend(data, manifest)


def chosen(name: str | None = None) -> str:
    """The backend that :func:`load` takes, whose library is loaded here.

    Raises:
        EarmarkError: there is no backend of that name, or it was asked for and cannot be had.
    """
    asked, name = name, name or os.environ.get(VARIABLE)
    if not name:
        return _first()
    if name not in BACKENDS:
        where = "backend" if asked else f"environment variable {VARIABLE}"
        raise EarmarkError(f"{where} {name!r}: choose from {', '.join(BACKENDS)}")
    _import(name)
    return name


def available() -> list[str]:
    """Those of ``BACKENDS`` that are there."""

    def is_there(name: str) -> bool:
        try:
            _import(name)
        except EarmarkError:
            return False
        return True

    return [name for name in BACKENDS if is_there(name)]


@cache
def _first() -> str:
    """The first backend that is there. That neither of the fast ones is, is said once."""
    *fast, last = BACKENDS
    reasons = []
    for name in fast:
        try:
            _import(name)
        except EarmarkError as error:
            reasons.append(str(error))
        else:
            return name
    # For what most programs never say, an engine alone would hold 0.2 MB more.
    import logging

    logging.getLogger(__name__).warning(
        "earmark: %s: %s runs the model, which takes more of the processor",
        "; ".join(reasons),
        last,
    )
    return last


def _import(name: str) -> None:
    if name == "native":
        from .native_library import library

        library()
    elif name == "onnxruntime":
        try:
            from .onnxruntime_import import onnxruntime  # noqa: F401
        except ImportError as error:
            if was_interrupted(error):
                raise
            raise EarmarkError(f"onnxruntime cannot be imported ({first_line(error)})") from error
