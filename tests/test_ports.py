"""The examples in C++ and JavaScript give the detections of Earmark on golden vectors."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import earmark.runtime
import pytest
import toy_model
from earmark.export.golden import INDEX, check_port, write_golden
from earmark.runtime import Engine
from earmark.runtime.engine import DEFAULT_MODEL
from earmark.runtime.manifest import Decision

SOURCES = Path(earmark.runtime.__path__[0]) / "ports"
TOOLS = Path(
    os.environ.get("EARMARK_PORTS")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "earmark" / "ports"
)
MODELS = ("shipped", "multilabel")
PORTS = ("cpp", "node")


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str] | str]:
    """The command of each example, or why there is none."""
    folder = tmp_path_factory.mktemp("ports")
    return {"cpp": _cpp(folder), "node": _node(folder)}


def _cpp(folder: Path) -> list[str] | str:
    compiler, runtime = shutil.which("g++"), TOOLS / "onnxruntime"
    if compiler is None:
        return "no g++ here"
    if not (runtime / "include").is_dir() or not (runtime / "lib" / "libonnxruntime.so").exists():
        return f"no onnxruntime for C++ in {TOOLS}: run .ci/ports"
    found = subprocess.run(
        [compiler, "-fsyntax-only", "-x", "c++", "-"],
        input=b"#include <nlohmann/json.hpp>",
        capture_output=True,
    )
    if found.returncode:
        return "no nlohmann-json3-dev here"
    program = folder / "detect"
    command = [
        *(compiler, "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror"),
        *("-isystem", str(runtime / "include"), str(SOURCES / "cpp" / "detect.cpp")),
        *("-o", str(program), f"-L{runtime / 'lib'}", "-lonnxruntime"),
        f"-Wl,-rpath,{runtime / 'lib'}",
    ]
    subprocess.run(command, check=True)
    return [str(program)]


def _node(folder: Path) -> list[str] | str:
    node, packages = shutil.which("node"), TOOLS / "node" / "node_modules"
    if node is None:
        return "no Node here"
    if not (packages / "onnxruntime-node").is_dir():
        return f"no onnxruntime for Node in {TOOLS}: run .ci/ports"
    shutil.copytree(SOURCES / "node", folder / "node")
    (folder / "node" / "node_modules").symlink_to(packages)
    return [node, str(folder / "node" / "detect.js")]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Model files with golden vectors: one as shipped, one that differs in all that it says."""
    folder = tmp_path_factory.mktemp("golden")
    decision = Decision(
        # 2.5 steps of 40 ms, a time that no step ends at, and a name for JSON to escape.
        thresholds={'low "é"': 0.6, "high": 0.9},
        smoothing=0.1,
        release=0.9,
        refractory=0.33,
    )
    other = toy_model.save(
        folder / "toy.onnx",
        chunk=1920,
        step=640,
        labels=('low "é"', "high", "_unknown_", "_silence_"),
        decision=decision,
        activation="sigmoid",
    )
    found = {"shipped": (DEFAULT_MODEL, folder / "1"), "multilabel": (other, folder / "2")}
    for model, vectors in found.values():
        write_golden(Engine(model), vectors)
    return found


def command(ports: dict[str, list[str] | str], port: str) -> list[str]:
    found = ports[port]
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("name", MODELS)
def test_a_port_gives_the_detections_of_earmark(
    ports: dict[str, list[str] | str],
    models: dict[str, tuple[Path, Path]],
    port: str,
    name: str,
) -> None:
    program = command(ports, port)
    model, vectors = models[name]
    found = dict(check_port(vectors, [*program, str(model)]))
    assert {case: difference for case, difference in found.items() if difference} == {}
    assert any("--threshold" in case for case in found)


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("text", ["0", "-1", "nan", "2", "0.05abc", "abc", ""])
def test_a_threshold_that_cannot_be_is_refused(
    ports: dict[str, list[str] | str], models: dict[str, tuple[Path, Path]], port: str, text: str
) -> None:
    program = command(ports, port)
    model, _ = models[MODELS[0]]
    done = subprocess.run(
        [*program, str(model), "--threshold", text], stdin=subprocess.DEVNULL, capture_output=True
    )
    assert done.returncode == 1 and done.stdout == b""
    assert done.stderr.decode() == (
        f"detect: --threshold {text}: give a number above 0 and at most 1\n"
    )


@pytest.mark.parametrize("port", PORTS)
def test_lines_have_the_form_of_earmark_and_a_wav_header_is_refused(
    ports: dict[str, list[str] | str], models: dict[str, tuple[Path, Path]], port: str
) -> None:
    program = command(ports, port)
    model, vectors = models["multilabel"]
    (entry,) = [
        e for e in json.loads((vectors / INDEX).read_text())["recordings"] if e["name"] == "sweep"
    ]
    pcm = (vectors / entry["pcm"]).read_bytes()
    done = subprocess.run(
        [*program, str(model), "--threshold", "0.1"], input=pcm, capture_output=True
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines and (done.returncode, done.stderr) == (0, b"")
    for line in lines:
        assert list(line) == ["type", "source", "keyword", "time", "score"]
        assert all(line[name] == round(line[name], 4) for name in ("time", "score"))
    wav = b"RIFF" + bytes(40) + pcm
    done = subprocess.run([*program, str(model)], input=wav, capture_output=True)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"detect: standard input: is a WAV file")
    assert done.stderr.count(b"\n") == 1
    done = subprocess.run([*program, str(model)], stdin=subprocess.DEVNULL, capture_output=True)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"detect: standard input: ended before any audio came\n"


@pytest.mark.parametrize("port", PORTS)
def test_a_reader_that_leaves_ends_a_port_without_a_word(
    ports: dict[str, list[str] | str], models: dict[str, tuple[Path, Path]], port: str
) -> None:
    program = command(ports, port)
    model, vectors = models["multilabel"]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [*program, str(model), "--threshold", "0.1"],
            input=(vectors / "sweep.pcm").read_bytes(),
            stdout=writing,
            stderr=subprocess.PIPE,
        )
    finally:
        os.close(writing)
    # As a shell tells what SIGPIPE ends.
    assert (done.returncode % 128 if done.returncode > 0 else -done.returncode) == signal.SIGPIPE
    assert done.stderr == b""


@pytest.mark.parametrize("port", PORTS)
def test_a_file_that_is_no_model_is_one_line(
    ports: dict[str, list[str] | str], port: str, tmp_path: Path
) -> None:
    program = command(ports, port)
    (tmp_path / "noise.onnx").write_bytes(b"\x12\x05noise" * 3)
    done = subprocess.run(
        [*program, str(tmp_path / "noise.onnx")], stdin=subprocess.DEVNULL, capture_output=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith(b"detect: ") and done.stderr.count(b"\n") == 1
