"""Sources that are read in a thread of their own, for readers who cannot wait for them."""

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TypeVar

from .sources import Counters, Piece, Source

POLL_SECONDS = 0.25
"""How long a source may give nothing before its reader looks after other things."""
END_SECONDS = 0.5
"""How long a thread that reads a source is waited for."""

Item = TypeVar("Item")


class Until:
    """A source that ends once ``stop`` is set, and its next piece has come."""

    def __init__(self, source: Source, stop: threading.Event) -> None:
        self._source = source
        self._stop = stop

    @property
    def counters(self) -> Counters | None:
        return getattr(self._source, "counters", None)

    def __iter__(self) -> Iterator[Piece]:
        for piece in self._source:
            if self._stop.is_set():
                return
            yield piece


def hand_over(
    items: Iterable[Item],
    put: Callable[[Item | BaseException | None], object],
    room: "threading.Lock | threading.Semaphore",  # Lock is no class before Python 3.13
    stop: threading.Event,
    name: str,
) -> threading.Thread:
    """Start a thread that gives items to ``put``, then what ended them: None or an error.

    Args:
        items: iterated over in the thread.
        put: called from the thread.
        room: taken before each call; whoever takes an item in releases it.
        stop: once it is set, the thread no longer waits for room.
        name: of the thread.
    """

    def give(item: Item | BaseException | None) -> None:
        while not room.acquire(timeout=POLL_SECONDS):
            if stop.is_set():
                return
        if not stop.is_set():
            put(item)

    def work() -> None:
        try:
            for item in items:
                give(item)
                # Items may come without the source, which then would not notice.
                if stop.is_set():
                    return
            give(None)
        except BaseException as error:
            give(error)

    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    return thread


def pieces_in_time(source: Source, seconds: float) -> Generator[Piece | None]:
    """Read a source in a thread of its own; yield None whenever it gave nothing for ``seconds``.

    Closing the iterator ends the thread as soon as the source gives its next piece.
    """
    stop = threading.Event()
    # One piece alone, so that audio waits where the source counts it. A SimpleQueue and a Lock cost
    # half of what a bounded Queue does.
    inbox: queue.SimpleQueue[Piece | BaseException | None] = queue.SimpleQueue()
    room = threading.Lock()
    thread = hand_over(Until(source, stop), inbox.put, room, stop, "earmark-source")
    try:
        while True:
            try:
                item = inbox.get(timeout=seconds)
            except queue.Empty:
                yield None
                continue
            room.release()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join(END_SECONDS)
