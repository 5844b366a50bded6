"""The plain install on a device: the wheel with numpy and onnxruntime, and nothing else."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import toy_model

ROOT = Path(__file__).parents[1]
OTHERS = (
    *("torch", "torchaudio", "lightning", "onnx", "scipy", "sklearn", "matplotlib"),
    *("soundfile", "soxr", "sounddevice", "rich", "paho"),
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy so that no build folder is left in the tree."""
    source = tmp_path_factory.mktemp("source") / "earmark"
    source.mkdir()
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    if not (source / "README.md").exists():
        (source / "README.md").write_text("")
    target = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", target, source],
        check=True,
        capture_output=True,
    )
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """The Python of an empty environment in which the wheel alone was installed."""
    folder = tmp_path_factory.mktemp("device")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    done = subprocess.run(
        [
            *(scripts / "python", "-m", "pip", "install", "--quiet", "--prefer-binary"),
            *("--constraint", ROOT / "constraints.txt", wheel),
        ],
        capture_output=True,
        text=True,
        env=plain_environment(),
    )
    assert done.returncode == 0, done.stderr
    return scripts


def plain_environment() -> dict[str, str]:
    """This process's environment without what would show it the tree or other packages."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}


def run(device: Path, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [device / command[0], *command[1:]],
        cwd=folder,
        capture_output=True,
        text=True,
        env=plain_environment(),
    )


def test_the_wheel_holds_code_and_models_only(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "earmark/runtime/py.typed" in names
    assert not [name for name in names if name.startswith(("tests", "earmark/tests", "docs"))]


def test_nothing_but_the_runtime_is_installed(device: Path, tmp_path: Path) -> None:
    code = (
        "import importlib.util, json, sys\n"
        f"print(json.dumps([name for name in {OTHERS} if importlib.util.find_spec(name)]))"
    )
    assert json.loads(run(device, tmp_path, "python", "-c", code).stdout) == []


def test_detect_needs_no_more(device: Path, tmp_path: Path) -> None:
    import wave

    model = toy_model.save(tmp_path / "toy.onnx")
    with wave.open(str(tmp_path / "scene.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(toy_model.scene().astype("<i2").tobytes())
    done = run(device, tmp_path, "earmark", "detect", "--model", str(model), "scene.wav")
    assert (done.returncode, done.stderr) == (0, "")
    keywords = [json.loads(line)["keyword"] for line in done.stdout.splitlines()]
    assert keywords == ["low", "high", "low"]
    code = (
        "import json, sys\n"
        "from earmark.runtime.cli import main\n"
        f"assert main(['detect', '--model', {str(model)!r}, 'scene.wav']) == 0\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = run(device, tmp_path, "python", "-c", code)
    modules = set(json.loads(done.stdout.splitlines()[-1]))
    assert "onnxruntime" in modules
    assert not modules & set(OTHERS)
    stages = {"earmark.train", "earmark.export", "earmark.benchmarks"}
    assert not modules & stages


def test_the_public_names_import_no_other_stage(device: Path, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "import earmark.runtime as runtime\n"
        "assert all(getattr(runtime, name) for name in runtime.__all__)\n"
        "print(sorted(name for name in sys.modules if name.startswith('earmark.')\n"
        "             and not name.startswith('earmark.runtime')))"
    )
    assert run(device, tmp_path, "python", "-c", code).stdout == "[]\n"


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        (("detect", "--model", "toy.onnx", "song.mp3"), 'pip install "earmark[audio]"'),
        (
            ("detect", "--model", "toy.onnx", "--mqtt", "localhost", "x.wav"),
            'pip install "earmark[mqtt]"',
        ),
        (("listen", "--model", "toy.onnx"), 'pip install "earmark[mic]"'),
        (
            ("tune", "toy.onnx", "--positive", ".", "--background", ".", "-o", "tuned.onnx"),
            'pip install "earmark[tune]"',
        ),
    ],
)
def test_what_is_missing_is_named(
    device: Path, tmp_path: Path, command: tuple[str, ...], hint: str
) -> None:
    toy_model.save(tmp_path / "toy.onnx")
    (tmp_path / "song.mp3").write_bytes(b"ID3" + bytes(500))
    done = run(device, tmp_path, "earmark", *command)
    assert done.returncode == 1
    assert hint in done.stderr
    assert done.stderr.count("\n") == 1
