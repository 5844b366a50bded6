"""Fixtures that several test files share."""

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import toy_model
from earmark.runtime import Engine
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
