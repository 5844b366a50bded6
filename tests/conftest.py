"""Fixtures that several test files share."""

import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import toy_model
from earmark.runtime import Engine
from fake_peers import FAKE_PEERS
from hypothesis import settings

if TYPE_CHECKING:
    from earmark.train.recipe import Recipe

ROOT = Path(__file__).parents[1]

# The same examples every time, however busy the machine; `--hypothesis-profile default` explores.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of recorded speech and reference outputs, where there is one."""
    given = os.environ.get("EARMARK_SHARED")
    folder = Path(given) if given else Path(__file__).parents[2] / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("no recorded speech here (set EARMARK_SHARED to its folder)")
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The file of the toy model, which no test changes."""
    return str(toy_model.save(tmp_path_factory.mktemp("model") / "toy.onnx"))


@pytest.fixture(scope="session")
def engine(model: str) -> Engine:
    """The toy model, loaded: it has no state, and any number of tests may run streams on it."""
    return Engine(model)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> "Recipe":
    """Of a student that is to be taught: tiny, with two views of each clip."""
    from taught import two_views  # with torch, which few tests need

    return two_views(tmp_path_factory.mktemp("taught"))


@pytest.fixture(scope="module")
def teachers(recipe: "Recipe", tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two that teach it."""
    from taught import two_teachers

    return two_teachers(recipe, tmp_path_factory.mktemp("teachers"))


@pytest.fixture(scope="session")
def tracked() -> frozenset[str]:
    """The files of the source tree, new ones included, ignored ones not."""
    command = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return frozenset(x for x in listed.stdout.split("\0") if x and (ROOT / x).is_file())


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, tracked: frozenset[str]) -> Path:
    """A folder with the sdist, and the wheel that was built from it.

    From a copy, so that no build folder is left in the tree.
    """
    source, target = tmp_path_factory.mktemp("source") / "earmark", tmp_path_factory.mktemp("dist")
    for name in tracked:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    command = (sys.executable, "-m", "build", "--no-isolation", "-o", target, source)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


@pytest.fixture(scope="session")
def tone_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of tones, which no test changes, and where it is from."""
    from earmark.train.data.sources import write_source
    from sharded import SOURCE
    from tiny_corpus import write_corpus

    root = write_corpus(tmp_path_factory.mktemp("folder") / "tones")
    write_source(root, SOURCE)
    return root


@pytest.fixture(scope="session")
def tone_shards(tone_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as shards, which no test changes: four of training clips."""
    from earmark.train.data.corpus import scan
    from earmark.train.data.shard_writer import write_shards

    target = tmp_path_factory.mktemp("shards") / "out"
    assert write_shards(scan(tone_folder), target, 1.0) == {"train": 4, "validation": 1, "noise": 1}
    return target


@pytest.fixture
def fake_peers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Peers of another package, of which one works, one fails in a process of its own, and the
    others do not start."""
    (tmp_path / "fake_peer.py").write_text(FAKE_PEERS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delitem(sys.modules, "fake_peer", raising=False)
    attributes = {"fake": "peer", "nowhere": "no_such_attribute"}
    points = [
        EntryPoint(name, f"fake_peer:{attributes.get(name, name)}", "earmark.peers")
        for name in ("fake", "missing", "damaged", "speechless", "brief", "nowhere")
    ]
    monkeypatch.setattr(
        "importlib.metadata.entry_points", lambda group: points if group == "earmark.peers" else []
    )
    return tmp_path


@pytest.fixture
def bench_verbs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The verbs without entry points, which the peers of these tests replace."""
    from earmark.benchmarks.latency import cold
    from earmark.benchmarks.latency.cli import bench as verb
    from earmark.benchmarks.latency.cli import latency

    found = {"bench": verb, "latency": latency}
    monkeypatch.setattr("earmark.runtime.cli.commands", lambda wanted: found)
    monkeypatch.setattr(cold, "REPEATS", 1)
    monkeypatch.setattr(cold.cold_starts, "__defaults__", (1,))


@pytest.fixture
def bench_models(tmp_path: Path) -> list[str]:
    """The toy in 8 bits and in float32."""
    metrics = {"int8_streaming": {"clips": 50, "top1": 0.9}}
    return [
        str(toy_model.save(tmp_path / f"{precision}.onnx", precision=precision, metrics=metrics))
        for precision in ("int8", "float32")
    ]


@pytest.fixture
def low_tones(tmp_path: Path) -> Path:
    """Recordings of one of the toy's two words: a tone of half a second in silence."""
    import soundfile

    folder = tmp_path / "tones" / "low"
    folder.mkdir(parents=True)
    pcm = np.zeros(16000, np.int16)
    pcm[4000:12000] = toy_model.tone(toy_model.LOW_HZ, 0.5)
    for number in range(3):
        soundfile.write(folder / f"{number}.wav", pcm, 16000)
    return folder.parent


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """WAV of the scene of the toy model."""
    import soundfile

    path = tmp_path_factory.mktemp("scene") / "scene.wav"
    soundfile.write(path, toy_model.scene(), 16000)
    return path
