"""Starts in processes of their own, and what is installed for them."""

from importlib.metadata import EntryPoint
from pathlib import Path

from earmark.benchmarks.latency.cold import Start, cold_starts, installed_bytes
from earmark.benchmarks.latency.results import Cold
from earmark.runtime.engine import Engine


def test_a_start_that_fails_says_why(bench_models: list[str]) -> None:
    start = Start.edge(Engine(bench_models[0]))
    Path(bench_models[0]).unlink()
    [reason] = cold_starts([start], 1)
    assert isinstance(reason, str) and "int8.onnx" in reason


def test_memory_of_a_peer_without_numpy_holds_none(fake_peers: Path) -> None:
    point = EntryPoint("plain", "fake_peer:plain", "earmark.peers")
    [found] = cold_starts([Start.peer(point, point.load())], 1)
    assert isinstance(found, Cold)
    assert found.first_score_ms.median > found.import_ms.median


def test_of_starts_in_turn_the_first_of_each_does_not_count(tmp_path: Path) -> None:
    """It takes long, those after it as many milliseconds as there were before."""
    log = tmp_path / "log"
    code = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "setting = json.loads(sys.argv[1])\n"
        "log = Path(setting['log'])\n"
        "names = log.read_text() if log.exists() else ''\n"
        "log.write_text(names + setting['name'])\n"
        "before = names.count(setting['name'])\n"
        "spent = setting['each'] * (before or 1000)\n"
        "print(json.dumps([spent, spent + 1, 2000000]))\n"
    )
    starts = [
        Start(code, {"log": str(log), "name": name, "each": each}, distribution)
        for name, each, distribution in (("a", 1, "numpy"), ("b", 10, "packaging"))
    ]
    a, b = cold_starts(starts, 3)
    assert isinstance(a, Cold) and isinstance(b, Cold)
    assert log.read_text() == "abababab"
    assert a.import_ms.rounds == (1, 2, 3) and b.import_ms.rounds == (10, 20, 30)
    assert a.first_score_ms.rounds == (2, 3, 4)
    assert a.resident_mb is not None and a.resident_mb.rounds == (2, 2, 2)
    assert a.install_mb is not None and b.install_mb is not None and a.install_mb > b.install_mb
    log.unlink()
    [a] = cold_starts(starts[:1])
    assert isinstance(a, Cold)
    assert a.import_ms.rounds == (1, 2, 3, 4, 5) and log.read_text() == "aaaaaa"


def test_sizes_of_distributions() -> None:
    own, nothing = installed_bytes("numpy"), installed_bytes("no-such-distribution")
    assert own is not None and own > 1e6 and nothing is None
    # Requirements are counted.
    assert (installed_bytes("scipy") or 0) > own
