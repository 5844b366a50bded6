"""A grid of runs: all combinations, once each, and their table."""

import dataclasses
import itertools
import json
import re
import shlex
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from earmark.benchmarks.accuracy import sweep as module
from earmark.benchmarks.accuracy.cli_sweep import sweep as verb
from earmark.benchmarks.accuracy.sweep import Row, command, markdown, sweep
from earmark.runtime.errors import EarmarkError
from earmark.train.metrics import multilabel
from earmark.train.recipe import Recipe, recipe_toml
from earmark.train.teachers.settings import TeacherSettings
from tiny_corpus import tiny_recipe, write_corpus

SPOKEN = np.array(["x", "y"])


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return tiny_recipe(
        write_corpus(tmp_path_factory.mktemp("sweep") / "corpus"), epochs=10, batch=8
    )


def write(folder: Path, recipe: Recipe) -> Path:
    file = folder / "recipe.toml"
    file.write_text(recipe_toml(recipe))
    return file


def test_a_sweep_keeps_its_table_and_goes_on(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, folder = write(tmp_path, recipe), tmp_path / "sweep"
    [first] = sweep(file, ["seed=0", "student.width=8"], folder)
    assert first.settings == {"seed": 0, "student.width": 8} and first.judged == "int8 streaming"
    assert first.recipe == str(file)
    assert (
        first.top1
        and first.top1 > 0.5
        and first.map is None
        and (Path(first.run) / "student.pt").exists()
    )
    exported = (Path(first.run) / "model.onnx").stat().st_mtime_ns
    rows = list(sweep(file, ["seed=0,1", "student.width=8"], folder))
    assert rows[0] == first and [row.settings["seed"] for row in rows] == [0, 1]
    assert (Path(first.run) / "model.onnx").stat().st_mtime_ns == exported
    lines = (folder / "table.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [dataclasses.asdict(row) for row in rows]
    assert (folder / "table.md").read_text() == markdown(rows)


def test_every_combination_has_a_folder_of_its_own(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def teach(recipe: Recipe, path: Path) -> None:
        path.mkdir(parents=True)
        measured = {"parameters": 5, "top1": 0.5, "macro_f1": 0.5}
        (path / "evaluation.json").write_text(json.dumps(measured))

    monkeypatch.setattr(module, "teach", teach)
    file = write(tmp_path, dataclasses.replace(recipe, teacher=TeacherSettings(kind="cnn2d")))

    def names(*grid: str) -> list[str]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        rows = list(sweep(file, grid, folder))
        found = [Path(row.run).name for row in rows]
        assert {path.name for path in folder.iterdir() if path.is_dir()} == set(found)
        assert len(set(found)) == len(found) and max(map(len, found)) < 256
        return found

    assert names('data.speech=["a/b"],["a b","c"]', "seed=0") == [
        "data.speech=-a-b-seed=0",
        "data.speech=-a-b-c-seed=0",
    ]
    plain, *alike = names('data.speech=["c"],["a/b"],["a-b"],["a b"],["a","b"]')
    assert plain == "data.speech=-c"
    assert all(re.fullmatch(r"data\.speech=-a-b-[0-9a-f]{8}", name) for name in alike)
    long = "x" * 300
    cut = names(f'data.speech=["{long}"],["{long}y"]', "seed=0,1")
    assert all(len(name) == 209 for name in cut)
    # The same settings have the same name, whatever else is in the grid.
    assert names(f'data.speech=["{long}y"]', "seed=1") == cut[-1:]


def test_teachers_are_judged_on_whole_clips(recipe: Recipe, tmp_path: Path) -> None:
    quick = dataclasses.replace(recipe.train, epochs=1)
    file = write(
        tmp_path,
        dataclasses.replace(recipe, teacher=TeacherSettings(kind="cnn2d"), train=quick),
    )
    rows = list(sweep(file, ["teacher.width=2,4"], tmp_path / "sweep"))
    assert [row.judged for row in rows] == ["whole clips"] * 2
    assert rows[0].parameters < rows[1].parameters


def test_seeds_are_one_row_with_a_spread() -> None:
    rows = [
        Row({"distill.weight": weight, "seed": seed}, "x", top1, 87_000, "int8 streaming", top1)
        for weight, seed, top1 in ((0.5, 0, 0.96), (0.5, 1, 0.97), (0.9, 0, 0.98))
    ]
    text = markdown(rows).splitlines()
    assert text[0].startswith("| distill.weight | runs | top-1, % |")
    assert text[2].startswith("| 0.5 | 2 | 96.50 ± 0.71 |") and "87,000" in text[2]
    assert text[3].startswith("| 0.9 | 1 | 98.00 |")


def test_several_labels_have_their_own_measure(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def teach(recipe: Recipe, path: Path) -> None:
        path.mkdir(parents=True)
        measured = multilabel(["a", "b"], np.eye(2, dtype=int), np.eye(2, dtype=np.float32), SPOKEN)
        (path / "evaluation.json").write_text(json.dumps(measured | {"parameters": 5}))

    monkeypatch.setattr(module, "teach", teach)
    file = write(tmp_path, dataclasses.replace(recipe, teacher=TeacherSettings(kind="cnn2d")))
    [row] = sweep(file, ["seed=0"], tmp_path / "sweep")
    assert row.map == 1 and row.top1 is None
    assert markdown([row]).startswith("| runs | mean average precision, % | macro F1, % |")


def test_the_command_of_a_table_gives_its_grid() -> None:
    grid: dict[str, list[Any]] = {
        "seed": [0, 1],
        "distill.weight": [0.5, 1.0],
        "distill.teachers": [["runs/a b"]],
        "train.precision": ["32", "ünd, 'so'"],
    }
    rows = [
        Row(dict(zip(grid, values, strict=True)), "x", 0.9, 5, "whole clips", recipe="r.toml")
        for values in itertools.product(*grid.values())
    ]
    program, name, *options = shlex.split(command(rows))
    parser = ArgumentParser()
    verb.configure(parser)
    arguments = parser.parse_args(options)
    assert (program, name, arguments.recipe) == ("earmark", "sweep", "r.toml")
    assert dict(module._axis(text) for text in arguments.set) == grid


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        (["seed"], "expected FIELD=VALUE,VALUE"),
        (["seed="], "expected FIELD=VALUE,VALUE"),
        (["seed=1", "seed=2"], "seed: given twice"),
        (["seed=0,1,0"], "setting 'seed=0,1,0': 0 is given twice: leave one out"),
        (["distill.weight=0.5,5e-1"], "0.5 is given twice"),
        (["name=a,b, a"], "'a' is given twice"),
        (["seed=1,2", "train.epoch=3"], "field train.epoch: no such setting"),
    ],
)
def test_wrong_grids_are_named_before_anything_is_trained(
    recipe: Recipe, tmp_path: Path, grid: list[str], expected: str
) -> None:
    with pytest.raises(EarmarkError, match=expected):
        next(sweep(write(tmp_path, recipe), grid, tmp_path / "sweep"))
    assert not (tmp_path / "sweep").exists()


def test_values_are_toml_or_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def note(_file: Path, given: list[str]) -> None:
        seen.append(given)
        raise EarmarkError("enough")

    monkeypatch.setattr(module, "load_recipe", note)
    for grid in (["a=1,2.5"], ["a=plain"], ['a=["x","y"]'], ["a=true"]):
        with pytest.raises(EarmarkError, match="enough"):
            next(sweep(tmp_path, grid, tmp_path))
    assert seen == [["a=1"], ['a="plain"'], ['a=["x", "y"]'], ["a=true"]]
