"""One word about the recordings that are clipped, however often a command decodes them."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Block:
    """What was found within a block, and what it need not tell again."""

    told: set[str]
    """Shared by the blocks that lie in one another."""
    found: set[str] = field(default_factory=set)


_block: ContextVar[_Block | None] = ContextVar("clipped", default=None)


@contextmanager
def clipped_told_once() -> Iterator[None]:
    """Tell at the end of a block, or of a function that this decorates, which of the recordings
    that it decoded are clipped.

    Blocks may lie in one another, as the loading of a recipe's data does in a command that trains
    several: what an inner one has told the outer one does not tell again, nor does another inner
    one. Nothing is remembered after the outermost block.
    """
    outer = _block.get()
    here = _Block(set() if outer is None else outer.told)
    before = _block.set(here)
    try:
        yield
    finally:
        _block.reset(before)
        _tell(here.found - here.told)
        here.told.update(here.found)


def found_clipped(names: Iterable[str]) -> None:
    """Have a word said about clipped recordings: at the end of the block, or at once in none."""
    here = _block.get()
    if here is None:
        _tell(set(names))
    else:
        here.found.update(names)


def _tell(names: set[str]) -> None:
    if names:
        # Takes all that lists a corpus: command lines are made without.
        from .roots import some_names

        _LOG.warning(
            "%d recordings are clipped (used all the same; record your own at a lower level): %s",
            *(len(names), some_names(names)),
        )
