"""Which backend runs a file: what is there, what is asked for, and what each takes."""

import json
import os
import subprocess
import sys
import tomllib
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import toy_model
from earmark.runtime import EarmarkError, Engine
from earmark.runtime.backends import backend
from earmark.runtime.backends.native_library import library
from earmark.runtime.cli import main
from native_kinds import BUILT, NATIVE, native, native_kinds
from onnx import helper, numpy_helper
from packaging.requirements import Requirement


def without(folder: Path, code: str, *, native: bool = False) -> subprocess.CompletedProcess[str]:
    """A process in which onnxruntime cannot be imported, nor compiled code be found unless
    ``native``."""
    (folder / "onnxruntime.py").write_text('raise ImportError("no wheel\\nfor this machine")')
    hidden = "from earmark.runtime.backends import native_library as n; n.FOLDER = n.FOLDER / 'no'"
    return subprocess.run(
        [
            *(sys.executable, "-c"),
            f"{'' if native else hidden}\nfrom earmark.runtime.cli import main\n{code}",
        ],
        cwd=folder,
        env={key: x for key, x in os.environ.items() if key != backend.VARIABLE}
        | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )


def test_without_both_fast_ones_numpy_detects_and_says_so_once(model: str, tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "scene.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(toy_model.scene().astype("<i2").tobytes())
    detect = f"main(['detect', '--model', {model!r}, 'scene.wav'])"
    done = without(tmp_path, f"raise SystemExit({detect} or {detect})")
    assert done.returncode == 0
    keywords = [json.loads(line)["keyword"] for line in done.stdout.splitlines()]
    assert keywords == ["low", "high", "low"] * 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("earmark: the native backend was not built")
    assert "; onnxruntime cannot be imported (no wheel): numpy runs the model" in line
    show = f"main(['info', {model!r}, '--json'])"
    assert json.loads(without(tmp_path, show).stdout)["backend"] == "numpy"


@native
def test_compiled_code_needs_no_onnxruntime(model: str, tmp_path: Path) -> None:
    show = f"main(['info', {model!r}, '--json'])"
    done = without(tmp_path, show, native=True)
    assert json.loads(done.stdout)["backend"] == "native"
    assert not done.stderr


def test_the_environment_chooses_where_a_program_does_not(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Engine(model).backend == ("native" if BUILT else "onnxruntime")
    monkeypatch.setenv(backend.VARIABLE, "numpy")
    assert Engine(model).backend == "numpy"
    assert Engine(model, "onnxruntime").backend == "onnxruntime"
    assert main(["info", model]) == 0
    assert "run by numpy" in capsys.readouterr().out.splitlines()[0]
    monkeypatch.setenv(backend.VARIABLE, "tflite")
    # Which is no fault of the model, whose name would come first.
    wrong = (
        "^environment variable EARMARK_BACKEND 'tflite': choose from native, onnxruntime, numpy$"
    )
    with pytest.raises(EarmarkError, match=wrong):
        Engine(model)


def test_a_backend_that_is_asked_for_must_be_there(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "earmark.runtime.backends.onnxruntime_import", None)
    with pytest.raises(EarmarkError, match="onnxruntime cannot be imported"):
        Engine(model, "onnxruntime")
    with libraries(monkeypatch, tmp_path):
        with pytest.raises(EarmarkError, match="was not built: it takes a C compiler"):
            Engine(model, "native")
        (tmp_path / "_native.so").write_text("no library")
        library.cache_clear()
        with pytest.raises(EarmarkError, match=r"_native.so: cannot be loaded .*again"):
            Engine(model, "native")
    assert native_kinds() == NATIVE


@contextmanager
def libraries(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[None]:
    """Compiled code is looked for in another folder."""
    with monkeypatch.context() as patch:
        patch.setattr("earmark.runtime.backends.native_library.FOLDER", folder)
        library.cache_clear()
        yield
    library.cache_clear()


def test_a_broken_library_is_told_of_and_something_else_runs(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "_native.so").write_text("no library")
    with libraries(monkeypatch, tmp_path):
        backend._first.cache_clear()
        assert [Engine(model).backend for _ in range(2)] == ["onnxruntime"] * 2
    backend._first.cache_clear()
    (record,) = caplog.records
    assert "install Earmark again: onnxruntime runs the model" in record.message


@native
def test_a_library_of_other_sources_is_not_used(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("earmark.runtime.backends.native_library.FORMAT", -1)
    library.cache_clear()
    with pytest.raises(EarmarkError, match="was built from other sources"):
        Engine(model, "native")
    monkeypatch.undo()
    library.cache_clear()


@native
def test_what_only_others_compute_goes_to_them(tmp_path: Path) -> None:
    """Thousands of products at once, as no graph of ours has them."""
    path = toy_model.save(tmp_path / "toy.onnx")
    model = onnx.load(path)
    pcm = ["pcm", "pcm", "pcm", "pcm"]  # 5120 samples
    for place, (operator, inputs, more) in enumerate(
        [
            ("Concat", pcm, {"axis": 1}),
            ("Unsqueeze", ["new0", "at_two"], {}),
            ("Transpose", ["new1"], {"perm": [1, 0, 2]}),
            ("MatMul", ["new2", "new2"], {}),
        ]
    ):
        model.graph.node.append(helper.make_node(operator, inputs, [f"new{place}"], **more))
    model.graph.initializer.append(numpy_helper.from_array(np.array([2]), "at_two"))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(EarmarkError, match="computes no 5,120 products of matrices at once"):
        Engine(path, "native")
    assert Engine(path).backend == "onnxruntime"
    assert Engine(path, "numpy").backend == "numpy"


@native
def test_a_program_of_too_many_instructions_goes_to_others(tmp_path: Path) -> None:
    path = toy_model.save(tmp_path / "toy.onnx")
    model = onnx.load(path)
    # 2000 products each, of a single number.
    many = numpy_helper.from_array(np.ones((2000, 1, 1), np.float32), "many")
    model.graph.initializer.append(many)
    nodes = [
        ("Slice", ["pcm", "zero", "one", "one"]),
        *[("MatMul", ["new0", "many"])] * 3,
    ]
    for place, (operator, inputs) in enumerate(nodes):
        model.graph.node.append(helper.make_node(operator, inputs, [f"new{place}"]))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(EarmarkError, match=r"toy.onnx: .* no more than 2,048 instructions"):
        Engine(path, "native")
    assert Engine(path).backend == "onnxruntime"


MEAN = ("ReduceMean", ["cache"], {"axes": [0, 1], "keepdims": 0})


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([("Softmax", ["pcm"], {})], "'Softmax', is none that Earmark's graphs use"),
        ([("Gather", ["pcm", "beyond"], {"axis": 1})], "beyond the 1280 numbers"),
        ([("Gather", ["bias", "before"], {})], "beyond the 4 numbers"),
        ([("ReduceMean", ["bias"], {"axes": [0, 0], "keepdims": 0})], "the mean of an axis twice"),
        (
            [MEAN, ("Cast", ["new0"], {"to": 2}), ("QuantizeLinear", ["pcm", "half", "new1"], {})],
            "'QuantizeLinear', computes its weights from the audio",
        ),
    ],
)
@pytest.mark.parametrize("kind", ["numpy", pytest.param("native", marks=native)])
def test_what_ours_do_not_run_is_refused_on_one_line(
    tmp_path: Path, nodes: list[tuple[str, list[str], dict[str, Any]]], reason: str, kind: str
) -> None:
    path = toy_model.save(tmp_path / "toy.onnx")
    model = onnx.load(path)
    for name, value in {"beyond": 1280, "before": -5}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array([value]), name))
    for place, (operator, inputs, attributes) in enumerate(nodes):
        node = helper.make_node(operator, inputs, [f"new{place}"], **attributes)
        model.graph.node.append(node)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(EarmarkError, match=reason) as caught:
        Engine(path, kind)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("system", "machine", "python", "wanted"),
    [
        ("linux", "x86_64", "3.11", True),
        ("linux", "aarch64", "3.14", True),
        ("linux", "armv7l", "3.11", False),
        ("linux", "armv6l", "3.13", False),
        ("linux", "riscv64", "3.12", False),
        ("linux", "i686", "3.12", False),
        ("win32", "AMD64", "3.14", True),
        ("win32", "ARM64", "3.14", True),
        ("darwin", "arm64", "3.14", True),
        ("darwin", "x86_64", "3.13", True),
        ("darwin", "x86_64", "3.14", False),
        ("freebsd14", "amd64", "3.12", False),
    ],
)
def test_onnxruntime_is_required_where_it_has_a_wheel(
    system: str, machine: str, python: str, wanted: bool
) -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    there = {"sys_platform": system, "platform_machine": machine, "python_version": python}
    needed = [Requirement(text) for text in project["dependencies"]]
    names = {each.name for each in needed if each.marker is None or each.marker.evaluate(there)}
    assert names == {"numpy"} | ({"onnxruntime"} if wanted else set())
