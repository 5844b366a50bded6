"""A bar for people on a terminal, a line every few minutes elsewhere."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LINE_SECONDS = 180.0


@contextmanager
def progress(text: str, total: int, unit: str = "") -> Iterator[Callable[[int], None]]:
    """Show how far a task is, on stderr.

    Where that is no terminal, short tasks say nothing.

    Args:
        text: what is being done.
        total: steps of the whole task.
        unit: ``bytes`` shows sizes and speed in place of counts.

    Yields:
        A function that is told of every n steps done. It may be called from any thread.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    amounts = (
        (DownloadColumn(), TransferSpeedColumn()) if unit == "bytes" else (MofNCompleteColumn(),)
    )
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(text, total)
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *amounts,
        TimeRemainingColumn(),
        console=console,
    ) as bar:
        task = bar.add_task(text, total=total)
        yield lambda steps: bar.advance(task, steps)


def _lines(text: str, total: int) -> Callable[[int], None]:
    lock = threading.Lock()
    done, told = 0, time.monotonic()

    def advance(steps: int) -> None:
        nonlocal done, told
        with lock:
            done += steps
            now = time.monotonic()
            if now - told >= LINE_SECONDS:
                told = now
                print(f"{text}: {done:,} of {total:,}", file=sys.stderr, flush=True)

    return advance
