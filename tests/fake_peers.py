"""A package of peers for ``earmark bench --peers``, of which few work."""

FAKE_PEERS = """
import sys
from earmark.benchmarks.latency.peers.peer import Peer
heard = []
alone = "pytest" not in sys.modules  # in a process of its own
def load():
    if alone:
        print("its greeting")
    def push(pcm):
        heard.append((type(pcm), len(pcm)))
        return any(pcm)
    return push
def light():
    def push(pcm):
        assert "numpy" not in sys.modules, "numpy is there"
    return push
def absent():
    import no_such_module
def broken():
    raise OSError("its library is damaged")
peer = Peer("fake", "loud or not", "numpy", "numpy", load, 160, precision="int16")
missing = Peer("missing", "nothing", "nosuch", "no_such_module", absent)
damaged = Peer("damaged", "nothing", "nosuch", "no_such_module", broken)
def deaf():
    def push(pcm):
        raise ValueError("no such block")
    return push
def fleeting():
    if alone:
        raise OSError("its library is gone")
    return bytes
speechless = Peer("speechless", "nothing", "packaging", "wave", deaf)
brief = Peer("brief", "nothing", "packaging", "wave", fleeting)
plain = Peer("plain", "nothing", "packaging", "wave", light, 160)
"""
