"""Which kinds of processors the compiled code finds here."""

import pytest
from earmark.runtime import EarmarkError
from earmark.runtime.backends.native_library import kinds


def native_kinds() -> list[str]:
    """``native 0`` and so on; none where there is no compiled code."""
    try:
        return [f"native {kind}" for kind in kinds()]
    except EarmarkError:
        return []


NATIVE = native_kinds()
BUILT = bool(NATIVE)
native = pytest.mark.skipif(not BUILT, reason="no C compiler when Earmark was installed")
