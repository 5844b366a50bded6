"""What is released: the code, the shipped model with its licences, and nothing by accident."""

import re
import shutil
import sysconfig
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from conftest import ROOT
from earmark.runtime import Engine

STAGES = ("runtime", "train", "export", "benchmarks")
MAX_FILE_BYTES = 200_000
MAX_ARCHIVE_BYTES = 1_000_000
COMPILED = re.compile(r"earmark/runtime/backends/_native\.[\w.-]+")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    (found,) = built.glob("*.whl")
    return zipfile.ZipFile(found)


@pytest.fixture(scope="module")
def sdist(built: Path) -> dict[str, bytes]:
    """Files by name, without the folder that holds them all."""
    (found,) = built.glob("*.tar.gz")
    files = {}
    with tarfile.open(found) as archive:
        for member in archive:
            if not member.isdir():
                content = archive.extractfile(member)
                assert content is not None, member.name
                files[member.name.partition("/")[2]] = content.read()
    return files


@pytest.fixture(scope="module")
def package(tracked: frozenset[str]) -> set[str]:
    """The files of the four stages in the tree."""
    return {name for name in tracked if name.startswith(tuple(f"{stage}/" for stage in STAGES))}


def test_the_wheel_holds_the_stages_and_no_more(wheel: zipfile.ZipFile, package: set[str]) -> None:
    names = {name for name in wheel.namelist() if not name.endswith("/")}
    rest = names - {f"earmark/{name}" for name in package}
    compiled = {name for name in rest if COMPILED.fullmatch(name)}
    assert {f"earmark/{name}" for name in package} - names == set()
    dist_info, data = (f"earmark-{PROJECT['version']}.{kind}" for kind in ("dist-info", "data"))
    assert rest == {
        *(f"{dist_info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "top_level.txt")),
        f"{dist_info}/entry_points.txt",
        f"{dist_info}/licenses/LICENSE",
        f"{dist_info}/licenses/runtime/models/commands.md",
        f"{data}/data/share/doc/earmark/CHANGELOG.md",
        *compiled,
    }
    # Where there is a compiler, it has been used.
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    assert len(compiled) == (shutil.which(compiler) is not None)


def test_the_sdist_holds_the_sources_and_no_more(
    sdist: dict[str, bytes], package: set[str]
) -> None:
    assert package - set(sdist) == set()
    rest = {name for name in set(sdist) - package if not name.startswith("earmark.egg-info/")}
    tests = {name for name in rest if re.fullmatch(r"tests/test_\w+\.py", name)}
    assert rest - tests == {
        *("LICENSE", "README.md", "pyproject.toml", "PKG-INFO", "setup.cfg", "docs/CHANGELOG.md")
    }


def test_what_is_released_is_text_but_for_the_model_and_what_is_compiled(
    wheel: zipfile.ZipFile, sdist: dict[str, bytes]
) -> None:
    contents = {name: wheel.read(name) for name in wheel.namelist()} | sdist
    for name, content in contents.items():
        if not COMPILED.fullmatch(name) and not name.endswith("runtime/models/commands.onnx"):
            assert "\0" not in content.decode(), name
        assert len(content) < MAX_FILE_BYTES, name


def test_archives_are_small(built: Path) -> None:
    sizes = {path.name: path.stat().st_size for path in built.iterdir()}
    assert len(sizes) == 2
    assert max(sizes.values()) < MAX_ARCHIVE_BYTES, sizes


def test_licences_and_attributions_are_in_place(wheel: zipfile.ZipFile) -> None:
    (metadata_name,) = [name for name in wheel.namelist() if name.endswith("/METADATA")]
    metadata = message_from_bytes(wheel.read(metadata_name))
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE", "runtime/models/commands.md"]
    folder = metadata_name.rpartition("/")[0]
    assert b"Apache License" in wheel.read(f"{folder}/licenses/LICENSE")
    card = wheel.read(f"{folder}/licenses/runtime/models/commands.md").decode()
    manifest = Engine().manifest
    assert manifest.licence in card
    for source in manifest.sources:
        assert source.name in card and source.licence in card and source.attribution in card


def test_the_change_log_tells_of_this_version() -> None:
    text = (ROOT / "docs" / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## (\S+)$", text, re.MULTILINE)
    assert versions[0] == PROJECT["version"] and len(set(versions)) == len(versions)
