"""The compiled code of the native backend."""

import ctypes
import itertools
from functools import cache
from pathlib import Path

from ..errors import EarmarkError, first_line

FORMAT = 3
"""Of the lists that :mod:`earmark.runtime.backends.native_program` writes, as in
``native/native.c``."""
FOLDER = Path(__file__).parent


class NotBuiltError(EarmarkError):
    """There is no compiled code."""


@cache
def library() -> ctypes.CDLL:
    """The compiled code.

    Raises:
        NotBuiltError: it is not there.
        EarmarkError: it cannot be loaded, or was built from other sources.
    """
    # Whatever Python it was built by: it uses nothing of Python.
    path = next(iter(sorted(FOLDER.glob("_native.*"))), None)
    if path is None:
        raise NotBuiltError(
            "the native backend was not built: it takes a C compiler (gcc or clang) when Earmark "
            "is installed"
        )
    try:
        found = ctypes.CDLL(str(path))
        found.earmark_native_format.argtypes = []
        found.earmark_native_layout.argtypes = [ctypes.c_int]
        found.earmark_native_run.argtypes = [ctypes.c_void_p, ctypes.c_int]
        found.earmark_native_run.restype = None
        version = found.earmark_native_format()
    except (OSError, AttributeError) as error:
        reason = first_line(error).removeprefix(f"{path}: ")
        raise EarmarkError(f"{path}: cannot be loaded ({reason}): install Earmark again") from error
    if version != FORMAT:
        raise EarmarkError(f"{path}: was built from other sources: install Earmark again")
    return found


def kinds() -> dict[int, int]:
    """The kinds of processors that this one is, the best last, each with the layout that it takes
    the weights of quantized layers in, an ``Instruction``.

    Raises:
        NotBuiltError, EarmarkError: see :func:`library`.
    """
    asked = map(library().earmark_native_layout, itertools.count())
    layouts = itertools.takewhile(lambda layout: layout >= 0, asked)
    return {kind: layout for kind, layout in enumerate(layouts) if layout}
