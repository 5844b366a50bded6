"""The plain install on a device: the wheel with numpy and onnxruntime, and nothing else."""

import json
import os
import shutil
import subprocess
import sys
import wave
from pathlib import Path

import pytest
import toy_model

ROOT = Path(__file__).parents[1]
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
OTHERS = (
    *("torch", "torchaudio", "lightning", "onnx", "scipy", "sklearn", "matplotlib"),
    *("soundfile", "soxr", "sounddevice", "rich", "paho"),
)


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """The Python of an empty environment in which the wheel alone was installed."""
    return install(sys.executable, wheel, tmp_path_factory.mktemp("device"))


def install(python: str, wheel: Path, folder: Path) -> Path:
    """Install the wheel into a new environment; the folder of its programs."""
    environment = plain_environment()
    subprocess.run([python, "-m", "venv", folder], check=True, env=environment)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    done = subprocess.run(
        [
            *(scripts / "python", "-m", "pip", "install", "--quiet", "--prefer-binary"),
            *("--constraint", ROOT / "constraints.txt", wheel),
        ],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return scripts


def interpreter(version: str) -> str | None:
    """A Python of a version that can make environments: on the path, or one of pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = [shutil.which(f"python{version}"), *pyenv.glob(f"versions/{version}.*/bin/python")]
    code = "import sys, ensurepip, venv; print('%d.%d' % sys.version_info[:2])"
    for python in filter(None, found):
        done = subprocess.run(
            [python, "-c", code], capture_output=True, text=True, env=plain_environment()
        )
        if done.stdout.strip() == version:
            return str(python)
    return None


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


def test_nothing_but_the_runtime_is_installed(device: Path, tmp_path: Path) -> None:
    code = (
        "import importlib.util, json, sys\n"
        f"print(json.dumps([name for name in {OTHERS} if importlib.util.find_spec(name)]))"
    )
    assert json.loads(run(device, tmp_path, "python", "-c", code).stdout) == []


def detects(device: Path, folder: Path) -> None:
    """Ask the installed program for what is in a file."""
    toy_model.save(folder / "toy.onnx")
    with wave.open(str(folder / "scene.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(toy_model.scene().astype("<i2").tobytes())
    done = run(device, folder, "earmark", "detect", "--model", "toy.onnx", "scene.wav")
    assert (done.returncode, done.stderr) == (0, "")
    keywords = [json.loads(line)["keyword"] for line in done.stdout.splitlines()]
    assert keywords == ["low", "high", "low"]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_wheel_installs_and_detects(
    version: str, wheel: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        scripts = request.getfixturevalue("device")
    elif python := interpreter(version):
        scripts = install(python, wheel, tmp_path / "environment")
    else:
        pytest.skip(f"no Python {version} here")
    detects(scripts, tmp_path)
    done = run(scripts, tmp_path, "earmark", "--help")
    assert done.returncode == 0 and "detect" in done.stdout and done.stderr == ""


def test_detect_needs_no_more(device: Path, tmp_path: Path) -> None:
    detects(device, tmp_path)
    code = (
        "import json, sys\n"
        "from earmark.runtime.cli import main\n"
        "assert main(['detect', '--model', 'toy.onnx', 'scene.wav']) == 0\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = run(device, tmp_path, "python", "-c", code)
    modules = set(json.loads(done.stdout.splitlines()[-1]))
    # Compiled code ran it; where none was built, onnxruntime did.
    built = list((device.parent / "lib").glob("*/site-packages/earmark/runtime/backends/_native.*"))
    assert ("onnxruntime" in modules) is not bool(built)
    assert not modules & set(OTHERS)
    # Six megabytes that only other verbs need.
    assert not modules & {"asyncio", "ssl", "_hashlib"}
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
        (("completion", "bash"), 'pip install "earmark[completion]"'),
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
