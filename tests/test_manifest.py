"""The manifest: it reads back, and what would mislead the runtime is refused by name."""

import json
from typing import Any

import pytest
from earmark.runtime.errors import EarmarkError
from earmark.runtime.manifest import Decision, Geometry, Manifest, Source

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


def changed(field: str, value: Any) -> str:
    """The JSON of the manifest with one field, dotted, set to a value."""
    raw = json.loads(MANIFEST.to_json())
    table = raw
    *parents, last = field.split(".")
    for parent in parents:
        table = table[parent]
    table[last] = value
    return json.dumps(raw)


def test_reads_back() -> None:
    assert Manifest.from_json(MANIFEST.to_json()) == MANIFEST
    assert MANIFEST.keywords == ("yes", "hey robot") and MANIFEST.geometry.steps == 4


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


def test_newer_and_unknown() -> None:
    with pytest.raises(EarmarkError, match="has schema 2, this Earmark reads up to 1: upgrade"):
        Manifest.from_json(changed("schema", 2))
    with pytest.raises(EarmarkError, match="field colour: not known"):
        Manifest.from_json(changed("colour", 1))
    with pytest.raises(EarmarkError, match="not JSON"):
        Manifest.from_json("[" * 100_000)
