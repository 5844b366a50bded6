"""Recipes: what is written reads back, what is wrong is named."""

from pathlib import Path

import pytest
from earmark.runtime.errors import EarmarkError
from earmark.train.recipe import Recipe, load_recipe, parse_recipe, recipe_toml

GOOD = 'name = "a"\nkeywords = ["yes"]\n'
TWO = 'name = "a"\nkeywords = ["a", "b"]\ndata.balance = "natural"\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def test_defaults_are_filled_in_and_read_back(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, GOOD))
    text = recipe_toml(recipe)
    assert "epochs = 100" in text and "reverb" in text
    assert load_recipe(write(tmp_path, text)) == recipe


@pytest.mark.parametrize(
    "overrides",
    [
        ["data.noise=['x']", "augment.noise=0.1"],
        ["data.noise=['x']", "augment.noise=0", 'keywords=["a", "_silence_"]'],
        ["distill.teachers=['x']", "augment.views=1", "distill.weight=0.0"],
        ["teacher.kind=cnn2d", "teacher.dropout=0.2"],
    ],
)
def test_what_has_an_effect_is_read_back(tmp_path: Path, overrides: list[str]) -> None:
    recipe = load_recipe(write(tmp_path, TWO), overrides)
    assert load_recipe(write(tmp_path, recipe_toml(recipe))) == recipe


def test_shipped_recipe_is_valid() -> None:
    folder = Path(__file__).parents[1] / "train" / "recipes"
    for path in folder.glob("*.toml"):
        assert isinstance(load_recipe(path), Recipe)


def test_overrides_go_before_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + "[train]\nepochs = 7\n")
    recipe = load_recipe(
        path, ["train.epochs=3", 'keywords=["a","b"]', "name=plain text", "data.roots=['x']"]
    )
    assert recipe.train.epochs == 3 and recipe.keywords == ("a", "b")
    assert recipe.name == "plain text" and recipe.data.roots == ("x",)


@pytest.mark.parametrize(
    ("text", "overrides", "expected"),
    [
        (GOOD + "colour = 1", [], "recipe.toml: field colour: no such setting"),
        (GOOD + "[train]\nepoch = 1", [], "field train.epoch: no such setting"),
        ('name = "a"\nkeywrods = ["b"]', [], "field keywrods: no such setting"),
        (GOOD, ["student.size=3"], "field student.size: no such setting"),
        (GOOD, ["features.colour=3"], "field features.colour: no such setting"),
        (GOOD, ["train.epochs=0"], "field train.epochs: .*greater than or equal to 1"),
        (GOOD, ["train.epochs=many"], "recipe.toml with train.epochs=many: field train.epochs"),
        (GOOD, ["train.epochs=true"], "field train.epochs: expected a number"),
        (GOOD, ["augment.snr=[true, 3.0]"], "field augment.snr: expected a number"),
        (GOOD, ["train.epochs"], "expected FIELD=VALUE"),
        (GOOD, ["name.x=1"], "name has no fields"),
        ('name = "a"', [], "field keywords: is missing"),
        (GOOD, ['keywords="yes"'], r"field keywords: expected a list, as \["),
        (GOOD, ["data=3"], "field data: expected a section of settings"),
        (GOOD, ['keywords=["yes", "YES"]'], "field keywords: .*same class folder"),
        (GOOD, [r'name="a\nb"'], "field name: expected printable text"),
        (
            GOOD,
            [f'keywords=["{101 * "x"}"]'],
            "field keywords: expected printable",
        ),
        (GOOD, ["decision.smoothing=100"], "field decision.smoothing: .*less than or equal to 60"),
        (GOOD, ["decision.refractory=1e9"], "field decision.refractory: .*less than"),
        ("name = ", [], "recipe.toml: not a TOML file"),
        (GOOD, ["keywords=[]"], "field keywords"),
        (GOOD, ["seed=-1"], "field seed: .*greater than or equal to 0"),
        (GOOD, ["seed=4294967296"], "field seed: .*less than 4294967296"),
        (
            GOOD,
            ["task=multilabel", "data.balance=natural"],
            "field keywords: expected at least two classes in a multi-label task: name another",
        ),
        (GOOD, ["features.sample_rate=8000"], "field features.sample_rate: expected 16000"),
        (GOOD, ["features.hop=0"], "field features.hop"),
        (GOOD, ["features.window=160"], "field features.window: expected even, longer"),
        (GOOD, ["features.coefficients=60"], "field features.coefficients"),
        (GOOD, ["features.f_max=9000"], "field features.f_max"),
        (GOOD, ["data.clip=0.01"], "field data.clip"),
        (
            GOOD,
            ["teacher.kind=cnn2d", "data.clip=0.15"],
            r"field data.clip: .*0\.16 s, for a cnn2d",
        ),
        (
            GOOD,
            ["teacher.kind=cnn2d", "features.mels=15", "features.coefficients=15"],
            "field features.mels: expected at least 16 for a cnn2d",
        ),
        (GOOD, ["data.unknown=0.6", "data.silence=0.5"], "field data.silence: expected at most"),
        (TWO, ["data.unknown=0.2"], r"field data.unknown: expected 0\.3, its default, where data"),
        (TWO, ["data.silence=0"], r"field data.silence: expected 0\.1, its default, where data"),
        (TWO, ["data.unknown_balance=0.5"], "field data.unknown_balance: .* where data.balance is"),
        (TWO, ["data.noise=['x']", "augment.noise=0"], "field data.noise: expected none where no"),
        (
            GOOD,
            ["distill.teachers=['x']", "augment.views=1", "distill.features=cka"],
            "field distill.features: expected 'cosine', its default, where distill.feature_weight",
        ),
        (
            GOOD,
            ["distill.teachers=['x']", "augment.views=1", "distill.feature_components=4"],
            "field distill.feature_components: expected 0, its default, where distill.feature_we",
        ),
        (
            GOOD,
            ["teacher.kind=beats", "teacher.random=true", "teacher.dropout=0.2"],
            r"field teacher.dropout: expected 0\.1, its default, where teacher.kind is beats",
        ),
        (GOOD, ["student.width=1024", "student.kernel=64", "student.dilations=[1, 1]"], "width"),
        (GOOD, ["augment.gain=[-inf, 0.0]"], "field augment.gain"),
        (GOOD, ["train.learning_rate=nan"], "field train.learning_rate"),
        (f"a = {'[' * 100_000}", [], "not a TOML file"),
        (f"a = {'9' * 5000}", [], "not a TOML file"),
        (GOOD + "#" * (1 << 20), [], "larger than"),
        (GOOD + '"a\\n\\u001b" = 1', [], r"field a\\n\\x1b: no such"),
        (
            GOOD,
            [r'data.sources=[{name="a", licence="CC0", attribution="Ann\nBob"}]'],
            "field data.sources: expected printable texts",
        ),
        (GOOD, ["augment.snr=[30, 0]"], "field augment.snr: expected the lower number first"),
        (GOOD, ["augment.reverb_time=[0, 1]"], "field augment.reverb_time: expected more than 0"),
    ],
)
def test_wrong_recipes_are_refused_by_name(
    tmp_path: Path, text: str, overrides: list[str], expected: str
) -> None:
    with pytest.raises(EarmarkError, match=expected) as error:
        load_recipe(write(tmp_path, text), overrides)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(EarmarkError, match=r"nosuch\.toml: cannot be read"):
        load_recipe(tmp_path / "nosuch.toml")


def test_parse_names_its_origin() -> None:
    with pytest.raises(EarmarkError, match="here: field name"):
        parse_recipe({"keywords": ["a"]}, "here")
