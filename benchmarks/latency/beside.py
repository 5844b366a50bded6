"""A peer as work to time: bytes of int16 PCM to its decisions."""

from importlib.metadata import EntryPoint

from .audio import blocks, speech_like
from .peers.peer import RATE, Peer
from .results import Row
from .timing import Times, Work


def peer_work(point: EntryPoint) -> tuple[Peer, Work] | str:
    """The peer that an entry point names, which has taken its first block; or why it cannot be run:
    it is of another project, and no reason to lose what the others took."""
    install = ""
    try:
        peer: Peer = point.load()
        install = f': pip install "{peer.distribution}"'
        push = peer.load()
        pieces = [piece.tobytes() for piece in blocks(speech_like(RATE), peer.block)]
        push(pieces[0])
    except ImportError as error:
        return f"{error}{install}"
    except Exception as error:  # of any type
        return f"cannot be started: {type(error).__name__}: {error}"
    seconds = peer.block / RATE
    return peer, Work(peer.name, seconds, lambda number: push(pieces[number % len(pieces)]))


def peer_row(peer: Peer, times: Times) -> Row:
    """What a peer says of itself, and its timings."""
    return Row(
        kind="peer",
        name=peer.name,
        job=peer.job,
        device="cpu",
        precision=peer.precision,
        mode=peer.mode,
        weights="as released",
        step_ms=1e3 * peer.block / RATE,
        decisions=peer.decisions,
        hot=times.hot,
        paced=times.paced,
    )
