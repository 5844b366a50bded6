"""What machines read: one JSON object per line on standard output, flushed as it happens."""

import json
from typing import Any


def write_event(kind: str, **fields: Any) -> None:
    """Print ``{"type": kind, ...fields}``. Times are rounded to 0.1 ms, other floats likewise.

    Non-ASCII text is escaped, so that any file name passes through any locale.
    """
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in fields.items()}
    print(json.dumps({"type": kind, **rounded}), flush=True)
