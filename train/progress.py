"""A bar for people on a terminal, nothing elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(text: str, total: int, unit: str = "") -> Iterator[Callable[[int], None]]:
    """Show how far a task is, on stderr if that is a terminal.

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
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *amounts,
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task(text, total=total)
        yield lambda steps: bar.advance(task, steps)
