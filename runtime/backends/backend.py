"""What runs the graph of a model file: compiled code of Earmark's own, onnxruntime or numpy."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Protocol

import numpy as np

from ..errors import EarmarkError, first_line, was_interrupted
from ..graph_ends import INPUT, OUTPUT
from ..manifest import Manifest
from ..onnx_file import OnnxFile
from .native_library import NotBuiltError, library

VARIABLE = "EARMARK_BACKEND"
"""The environment variable that chooses a backend where a program does not."""
BACKENDS = ("native", "onnxruntime", "numpy")
"""Where none is named, the first that is there."""

CANNOT_HOLD = (MemoryError, OverflowError, ValueError)
"""What numpy raises for an array that is larger than memory, or than it can count."""

Arrays = Mapping[str, np.ndarray]
"""Tensors by name, float32 [rows, ...], C order."""
Ends = tuple[Arrays, Arrays]
"""Inputs and outputs."""


class Backend(Protocol):
    """A graph that is ready to run on the calling thread. It holds no stream's state, and several
    threads may run what they have bound at once."""

    name: str
    """One of ``BACKENDS``."""

    def bind(self, *ends: Ends) -> Sequence[Sequence[Callable[[], None]]]:
        """For each pair of inputs and outputs the calls over these arrays, of which the n-th takes
        and gives the first n + 1 rows.

        All share what they compute in: one thread at a time may run them.

        Args:
            ends: pairs of the same names, in the same order, shapes and types. Inputs are ``s16``
                (see :mod:`earmark.runtime.graph_ends`) and ``cache``, outputs any of ``logits``,
                ``posteriors`` and ``cache_out``, of which none shares memory with an input of its
                pair.
        """
        ...


def load(name: str | None, data: bytes, file: OnnxFile, manifest: Manifest) -> Backend:
    """Make a graph ready.

    Args:
        name: of :func:`asked`; None for the first that is there and takes the graph.
        data: the model file, which :func:`~earmark.runtime.graph_check.check_graph` accepts.
        file: what it holds.
        manifest: that of the file.

    Raises:
        EarmarkError: the backend cannot be had, or cannot load the graph.
    """
    if name:
        prepare(name)
        return _load(name, data, file, manifest)
    errors = []
    _first()  # says what is missing
    for each in BACKENDS:
        try:
            # One after the other: what is not needed is not loaded.
            if _is_there(each):
                return _load(each, data, file, manifest)
        except EarmarkError as error:  # another one may take what this one does not
            errors.append(error)
    raise errors[0]


def _load(name: str, data: bytes, file: OnnxFile, manifest: Manifest) -> Backend:
    try:
        return _made(name, data, file, manifest)
    except CANNOT_HOLD as error:
        raise EarmarkError(f"{name} cannot hold the graph ({first_line(error)})") from error


def _made(name: str, data: bytes, file: OnnxFile, manifest: Manifest) -> Backend:
    if name == "native":
        from .native_backend import NativeBackend

        backend = NativeBackend(file, manifest)
        # What it has no instructions for is refused here, not when a stream starts.
        backend.bind(_ends(manifest))
        return backend
    if name == "numpy":
        from .numpy_backend import NumpyBackend

        return NumpyBackend(file, manifest)
    from .onnxruntime_backend import OnnxruntimeBackend

    return OnnxruntimeBackend(data, manifest)


def _ends(manifest: Manifest) -> Ends:
    """Those of a stream."""
    geometry = manifest.geometry
    pcm, kept, steps = (
        np.zeros((1, *sides), np.float32)
        for sides in (
            (geometry.chunk,),
            (geometry.cache,),
            (geometry.steps, len(manifest.labels)),
        )
    )
    return (
        {INPUT: pcm, "cache": kept},
        {"logits": steps, OUTPUT: steps.copy(), "cache_out": kept.copy()},
    )


def asked(name: str | None) -> str | None:
    """The backend that a program asks for by ``name``, or else the environment variable.

    Raises:
        EarmarkError: there is no backend of that name.
    """
    where = "backend" if name else f"environment variable {VARIABLE}"
    name = name or os.environ.get(VARIABLE) or None
    if name not in (None, *BACKENDS):
        raise EarmarkError(f"{where} {name!r}: choose from {', '.join(BACKENDS)}")
    return name


def available() -> list[str]:
    """Those of ``BACKENDS`` that are there."""
    return [name for name in BACKENDS if _is_there(name)]


def _is_there(name: str) -> bool:
    try:
        prepare(name)
    except EarmarkError:
        return False
    return True


@cache
def _first() -> None:
    """Load the first backend that is there. That it is numpy, or that the compiled code is broken,
    is said once."""
    *fast, last = BACKENDS
    errors = []
    for name in fast:
        try:
            prepare(name)
        except EarmarkError as error:
            errors.append(error)
        else:
            break
    else:
        name = last
    if name == last or not all(isinstance(error, NotBuiltError) for error in errors):
        # For what most programs never say, an engine alone would hold 0.2 MB more.
        import logging

        logging.getLogger(__name__).warning(
            "earmark: %s: %s runs the model, which takes more of the processor",
            "; ".join(map(str, errors)),
            name,
        )


def prepare(name: str) -> None:
    """Import what one of ``BACKENDS`` runs by.

    Raises:
        EarmarkError: it is not there.
    """
    if name == "native":
        library()
    elif name == "onnxruntime":
        try:
            from .onnxruntime_import import onnxruntime  # noqa: F401
        except ImportError as error:
            if was_interrupted(error):
                raise
            raise EarmarkError(f"onnxruntime cannot be imported ({first_line(error)})") from error
