"""The compiled code of the native backend."""

import ctypes
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from ..errors import EarmarkError


@cache
def library() -> ctypes.CDLL:
    """The compiled code.

    Raises:
        EarmarkError: it is not there, or cannot be loaded.
    """
    folder = Path(__file__).parent
    for suffix in EXTENSION_SUFFIXES:
        path = folder / f"_native{suffix}"
        if path.is_file():
            break
    else:
        raise EarmarkError(
            "the native backend was not built: it takes a C compiler (gcc or clang) when Earmark "
            "is installed"
        )
    try:
        found = ctypes.CDLL(str(path))
        found.earmark_native_vectors.argtypes = []
        found.earmark_native_run.argtypes = [ctypes.c_void_p, ctypes.c_int]
        found.earmark_native_run.restype = None
    except (OSError, AttributeError) as error:
        raise EarmarkError(f"{path}: cannot be loaded ({error})") from error
    return found
