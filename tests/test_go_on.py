"""What is said where a run is stopped, and where its directory is given to another recipe."""

import dataclasses
from pathlib import Path

import pytest
from earmark.runtime.cli import main
from earmark.runtime.errors import EarmarkError
from earmark.train import fit, teach
from earmark.train.recipe import parse_recipe
from earmark.train.run import RunInfo, start


@pytest.mark.parametrize(("verb", "module"), [("train", fit), ("teach", teach)])
def test_ctrl_c_says_how_to_go_on(
    verb: str, module: object, tmp_path: Path, monkeypatch, capsys
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, verb, stopped)
    (tmp_path / "recipe.toml").write_text('name = "a"\nkeywords = ["yes"]\n')
    assert main([verb, str(tmp_path / "recipe.toml"), "-o", str(tmp_path / "run")]) == 130
    told = capsys.readouterr().err
    assert "the same command goes on" in told and told.endswith("earmark: interrupted\n")


def test_another_recipe_is_refused_by_the_fields_that_differ(tmp_path: Path) -> None:
    recipe = parse_recipe({"name": "a", "keywords": ["yes"]}, "test")
    info = RunInfo(recipe.labels, (), "", {}, (), {}, None, "")
    start(tmp_path, recipe, info)
    start(tmp_path, recipe, info)
    elsewhere = {"data": {"cache": "other"}, "train": {"threads": 2}}
    start(tmp_path, parse_recipe({"name": "a", "keywords": ["yes"]} | elsewhere, "test"), info)
    longer = dataclasses.replace(recipe, seed=5, train=dataclasses.replace(recipe.train, epochs=3))
    with pytest.raises(EarmarkError, match=r"which differs in seed, train\.epochs: choose another"):
        start(tmp_path, longer, info)
    teacher = parse_recipe({"name": "a", "keywords": ["yes"], "teacher": {"kind": "cnn2d"}}, "test")
    with pytest.raises(EarmarkError, match="which differs in teacher: choose"):
        start(tmp_path, teacher, info)
