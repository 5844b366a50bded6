"""What this process takes of the machine."""

import os
import sys
from pathlib import Path


def resident_bytes(process: int | None = None) -> int | None:
    """Resident memory of this process; on macOS its highest so far; None where it is not told.

    ``process``: the number of another one, of which only Linux tells.
    """
    if sys.platform == "linux":
        try:
            pages = int(Path(f"/proc/{process or 'self'}/statm").read_bytes().split()[1])
        except (OSError, ValueError, IndexError):  # no /proc here
            return None
        return pages * os.sysconf("SC_PAGE_SIZE")
    if sys.platform == "darwin" and process is None:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None
