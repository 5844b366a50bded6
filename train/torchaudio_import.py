"""The one place that imports torchaudio, so that it also works beside a CPU-only torch.

The torchaudio wheel on the package index links its C++ extension to one CUDA release. Beside a
torch built without CUDA, or for another release, plain ``import torchaudio`` fails, although
nothing that Earmark calls needs the extension: MFCC, filters, resampling, masking and the data sets
are written in torch. Import it as ``from .torchaudio_import import torchaudio``, and before any
library that imports torchaudio by itself (transformers does).
"""

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

_EXTENSION = "torchaudio._extension"


class _NoExtension(ModuleType):
    """What torchaudio's own loader is when it finds no extension library."""

    _IS_TORCHAUDIO_EXT_AVAILABLE = False
    _IS_ALIGN_AVAILABLE = False

    @staticmethod
    def fail_if_no_align(function: Callable[..., Any]) -> Callable[..., NoReturn]:
        def unavailable(*_args: object, **_kwargs: object) -> NoReturn:
            raise RuntimeError(
                f"torchaudio.functional.{function.__name__} needs torchaudio's C++ extension, "
                "which does not load beside this torch"
            )

        return unavailable


def _import_torchaudio() -> ModuleType:
    try:
        return importlib.import_module("torchaudio")
    except (OSError, RuntimeError):
        # The half-imported modules hold references to the loader that failed.
        for name in [n for n in sys.modules if n.partition(".")[0] == "torchaudio"]:
            del sys.modules[name]
        sys.modules[_EXTENSION] = _NoExtension(_EXTENSION)
        return importlib.import_module("torchaudio")


if TYPE_CHECKING:
    import torchaudio as torchaudio
else:
    torchaudio = _import_torchaudio()
