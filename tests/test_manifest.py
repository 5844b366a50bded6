"""The manifest: it reads back, and what would mislead the runtime is refused by name."""

import dataclasses
import json
from typing import Any

import pytest
from earmark.runtime.errors import EarmarkError
from earmark.runtime.manifest import SCHEMA_VERSION, Decision, Geometry, Manifest, Source

MANIFEST = Manifest(
    name="test",
    labels=("yes", "hey robot", "_unknown_", "_silence_"),
    geometry=Geometry(sample_rate=16000, chunk=1280, step=320, receptive_field=24480, cache=4030),
    decision=Decision(thresholds={"yes": 0.5, "hey robot": 1.0}),
    precision="int8",
    features={"kind": "mfcc"},
    parameters=80_000,
    sources=(Source("a corpus", "CC0-1.0"),),
)


def changed(field: str, value: Any, schema: int = SCHEMA_VERSION) -> str:
    """The JSON of the manifest with one field, dotted, set to a value."""
    raw = json.loads(MANIFEST.to_json()) | {"schema": schema}
    table = raw
    *parents, last = field.split(".")
    for parent in parents:
        table = table[parent]
    table[last] = value
    return json.dumps(raw)


def test_reads_back() -> None:
    assert Manifest.from_json(MANIFEST.to_json()) == MANIFEST
    assert MANIFEST.keywords == ("yes", "hey robot") and MANIFEST.geometry.steps == 4


def test_other_decision_settings_are_checked_as_its_own() -> None:
    stricter = Decision(thresholds={"yes": 0.9, "hey robot": 0.8}, smoothing=0.5)
    assert MANIFEST.decided_by(stricter) == dataclasses.replace(MANIFEST, decision=stricter)
    assert MANIFEST.decided_by(None) is MANIFEST
    with pytest.raises(EarmarkError, match=r"decision\.thresholds"):
        MANIFEST.decided_by(Decision(thresholds={"no": 0.5}))


def test_one_that_no_reader_takes_is_not_written() -> None:
    with pytest.raises(EarmarkError, match="larger than"):
        dataclasses.replace(MANIFEST, metrics={"x": "y" * (1 << 20)}).to_json()


@pytest.mark.parametrize("field", ["name", "precision", "features", "parameters"])
def test_a_missing_field_is_named(field: str) -> None:
    raw = json.loads(MANIFEST.to_json())
    del raw[field]
    with pytest.raises(EarmarkError, match=f"manifest field {field}: is missing"):
        Manifest.from_json(json.dumps(raw))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "two\nlines"),
        ("name", 5),
        ("licence", None),
        ("labels", []),
        ("labels", ["yes", "yes"]),
        ("labels", "yes"),
        ("geometry", None),
        ("geometry.chunk", 1000),
        ("geometry.cache", 1 << 40),
        ("geometry.step", True),
        ("decision.thresholds", {"yes": 0.5}),
        ("decision.thresholds.yes", 0),
        ("decision.smoothing", 61),
        ("decision.release", -0.1),
        ("precision", "int4"),
        ("activation", "relu"),
        ("parameters", "many"),
        ("features", []),
        ("training", [1]),
        ("versions", None),
        ("teacher", {}),
        ("checkpoint_sha256", 5),
        ("sources", [{"name": 1, "licence": "MIT"}]),
        ("sources", [{"licence": "MIT"}]),
        ("schema", "1"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_field(field: str, value: Any) -> None:
    with pytest.raises(EarmarkError, match=f"field {field.partition('.')[0]}") as error:
        Manifest.from_json(changed(field, value))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("labels", ["x"] * 1001, "1 to 1000 names"),
        ("labels", ["yes", ""], "printable names of 1 to 100 characters"),
        ("labels", ["yes", "x" * 101], "printable names of 1 to 100 characters"),
        ("labels", ["yes", "\x1b[2J"], "printable names of 1 to 100 characters"),
        ("labels", ["yes", 5], "printable names of 1 to 100 characters"),
        ("labels", ["yes", "yes"], "names that differ"),
        ("licence", "a\x1b[2J", "printable text"),
        ("git_revision", "two\nlines", "printable text or null"),
        ("sources", {}, "a list"),
        ("metrics", [], "an object"),
        ("quantization", "static", "an object"),
        ("parameters", -1, "a count"),
        ("parameters", True, "a count"),
        ("precision", "int4", "float32 or int8"),
        ("activation", "relu", "softmax or sigmoid"),
        ("geometry.sample_rate", 0, "a number from 1 to 192000"),
        ("geometry.sample_rate", 192_001, "a number from 1 to 192000"),
        ("geometry.sample_rate", 16000.0, "a number from 1 to 192000"),
        ("geometry.receptive_field", (1 << 24) + 1, f"a number from 1 to {1 << 24}"),
        ("geometry.step", 321, "a multiple of geometry.step"),
        ("decision.thresholds", [], "an object"),
        ("decision.thresholds", {"yes": 0.5, "hey robot": 1, "no": 1}, "one entry for each"),
        ("decision.thresholds.yes", "0.5", "a number above 0 and at most 1"),
        ("decision.thresholds.yes", 1.01, "a number above 0 and at most 1"),
        ("decision.release", 1.1, "0 to 1"),
        ("decision.refractory", 3601, "0 to 3600 seconds"),
        ("decision.refractory", None, "0 to 3600 seconds"),
        ("schema", 0, "a version number"),
    ],
)
def test_each_rule_is_told(field: str, value: Any, expected: str) -> None:
    named = "geometry.chunk" if field == "geometry.step" else field
    with pytest.raises(EarmarkError, match=f"^manifest field {named}: expected {expected}"):
        Manifest.from_json(changed(field, value))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("geometry.sample_rate", 192_000),
        ("geometry.step", 1280),
        ("decision.thresholds.yes", 1),
        ("decision.smoothing", 0),
        ("decision.smoothing", 60),
        ("decision.release", 1),
        ("decision.refractory", 3600),
        ("parameters", 0),
        ("teacher", None),
    ],
)
def test_what_is_just_within_a_rule_is_taken(field: str, value: Any) -> None:
    found: Any = Manifest.from_json(changed(field, value))
    for name in field.split("."):
        found = found[name] if isinstance(found, dict) else getattr(found, name)
    assert found == value


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_of_json_is_refused(number: str) -> None:
    text = changed("metrics", {"x": 5}).replace('"x": 5', f'"x": {number}')
    with pytest.raises(EarmarkError, match=f"manifest is not JSON \\({number} is no number"):
        Manifest.from_json(text)


def test_operating_points_read_back_and_raise_the_schema() -> None:
    quiet = Decision({"yes": 0.9, "hey robot": 0.95}, smoothing=0.3)
    tuned = dataclasses.replace(MANIFEST, operating_points={"quiet": quiet})
    assert (MANIFEST.schema, tuned.schema) == (1, 2)
    assert "operating_points" not in json.loads(MANIFEST.to_json())
    assert json.loads(tuned.to_json())["schema"] == 2
    back = Manifest.from_json(tuned.to_json())
    assert back == tuned and back.operating_points["quiet"] == quiet


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        ([], "operating_points: expected an object"),
        ({"a": 1}, "operating_points.'a': expected an object"),
        ({"a": {}}, "thresholds"),
        ({"a": {"thresholds": {"yes": 0.5}}}, r"operating_points.a.thresholds: expected one entry"),
        ({"a": {"thresholds": {"yes": 0.5, "hey robot": 2}}}, "operating_points.a.thresholds.hey"),
        ({"a": {"thresholds": {"yes": 0.5, "hey robot": 1}, "colour": 1}}, "colour: not known"),
        ({"": {"thresholds": {"yes": 0.5, "hey robot": 1}}}, "printable names"),
        ({"two\nlines": {"thresholds": {"yes": 0.5, "hey robot": 1}}}, "printable names"),
        (
            {f"p{i}": {"thresholds": {"yes": 0.5, "hey robot": 1}} for i in range(33)},
            "operating_points: expected at most 32",
        ),
    ],
)
def test_wrong_operating_points_are_refused(points: Any, reason: str) -> None:
    raw = json.loads(MANIFEST.to_json()) | {"schema": 2, "operating_points": points}
    with pytest.raises(EarmarkError, match=reason) as error:
        Manifest.from_json(json.dumps(raw))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("value", "reason"), [("1e999", "too large a number"), (r'"\ud800"', "half a character")]
)
def test_what_could_not_be_written_again_is_refused(value: str, reason: str) -> None:
    text = changed("metrics", {"x": 5}).replace('"x": 5', f'"x": {value}')
    with pytest.raises(EarmarkError, match=reason) as error:
        Manifest.from_json(text)
    assert str(error.value).isprintable()


def test_newer_and_unknown() -> None:
    newer = SCHEMA_VERSION + 1
    with pytest.raises(EarmarkError, match=f"has schema {newer}, this Earmark reads up to"):
        Manifest.from_json(changed("schema", newer))
    with pytest.raises(EarmarkError, match="operating_points: not known to schema 1"):
        Manifest.from_json(changed("operating_points", {}, schema=1))
    with pytest.raises(EarmarkError, match="field colour: not known"):
        Manifest.from_json(changed("colour", 1))
    with pytest.raises(EarmarkError, match="not JSON"):
        Manifest.from_json("[" * 100_000)
