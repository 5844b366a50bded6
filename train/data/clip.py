"""One recording of a corpus."""

from dataclasses import dataclass
from pathlib import Path

from .shards import Member, Recording


@dataclass(frozen=True)
class Clip:
    """One recording of one word, or of several sounds at once."""

    path: Path
    word: str
    """Its class: the name of its class folder, or what a table says; the first of several, empty
    for a clip of none."""
    speaker: str
    split: str
    """``train``, ``validation`` or ``test``."""
    fold: int = 0
    """Number of its fold, from 1; 0 where there are no folds."""
    others: tuple[str, ...] = ()
    """Its classes after the first."""

    @property
    def words(self) -> tuple[str, ...]:
        """All its classes."""
        return (self.word, *self.others) if self.word else ()

    own: bool = False
    """Whether it is from a folder of few speakers (see :func:`earmark.train.data.corpus.scan`)."""
    member: Member | None = None
    """Where it lies in a shard; ``path`` is then that of the shard and the name in it."""

    @property
    def recording(self) -> Recording:
        """What its audio is read from."""
        return self.member or self.path
