"""The fuzzer finds what is there, and nothing in Earmark's readers."""

import json
import os
import time
from pathlib import Path
from random import Random

import pytest
from earmark.benchmarks.reliability import fuzz as fuzz_module
from earmark.benchmarks.reliability.fuzz import draw, examine, fuzz
from earmark.benchmarks.reliability.fuzz_targets import TARGETS, Target
from earmark.benchmarks.reliability.mutate import mutate_bytes, mutate_json, mutate_value
from earmark.runtime.backends.backend import available
from earmark.runtime.cli import main
from earmark.runtime.errors import EarmarkError
from earmark.runtime.manifest import Manifest

# Loading a damaged run costs ten times what the others do.
CASES = {"run": 60} | {f"model by {name}": 150 for name in available()}


@pytest.mark.parametrize("name", TARGETS)
def test_no_reader_fails(name: str, tmp_path: Path) -> None:
    (tmp_path / "seeds").mkdir()
    (tmp_path / "work").mkdir()
    seeds = TARGETS[name].seeds(tmp_path / "seeds")
    accepted = 0
    for case in range(CASES.get(name, 300)):
        data = draw(TARGETS[name], name, 1, case, seeds)
        good, finding = examine(TARGETS[name], data, tmp_path / "work")
        assert finding is None, (case, finding)
        accepted += good
    assert 0 < accepted < CASES.get(name, 300)


@pytest.mark.parametrize("name", TARGETS)
def test_readers_accept_what_the_fuzzer_starts_from(name: str, tmp_path: Path) -> None:
    (tmp_path / "seeds").mkdir()
    (tmp_path / "work").mkdir()
    good = 0
    for seed in TARGETS[name].seeds(tmp_path / "seeds"):
        accepted, finding = examine(TARGETS[name], seed, tmp_path / "work")
        assert finding is None
        good += accepted
    assert good


def some_seeds(folder: Path) -> list[bytes]:
    return [bytes(100), b"\1\2\3"]


def first_byte(random: Random, seeds: list[bytes]) -> bytes:
    return bytes([random.randrange(4)])


def hostile(data: bytes, folder: Path) -> None:
    """A reader with one fault for each first byte."""
    match data[0]:
        case 0:
            raise EarmarkError("refused as it should be")
        case 1:
            os.abort()
        case 2:
            time.sleep(600)
        case 3:
            bytearray(3 << 30)


def sound(data: bytes, folder: Path) -> None:
    if data[:1] == b"\1":
        raise EarmarkError("refused as it should be")


def test_crashes_hangs_and_greed_are_found_and_survived() -> None:
    target = Target(some_seeds, hostile, first_byte)
    # First bytes 0, 1, 2, 0, 0, 3.
    outcome = fuzz("hostile", target, 6, seed=87, hang_seconds=5.0)
    kinds = {finding["kind"] for finding in outcome.findings}
    assert kinds == {"crash", "hang", "exception"}
    assert any("MemoryError" in finding["what"] for finding in outcome.findings)
    assert outcome.cases == 6 and outcome.refused == 4


def test_counts_of_a_sound_reader() -> None:
    outcome = fuzz("sound", Target(some_seeds, sound), 200, jobs=2)
    assert outcome.cases == outcome.refused + outcome.accepted == 200
    assert outcome.refused > 0 and outcome.accepted > 0
    assert outcome.findings == []


def raises(error: Exception):
    def run(data: bytes, folder: Path) -> None:
        raise error

    return Target(some_seeds, run)


def test_a_target_stands_for_all_of_its_ways(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fuzz", "--target", "model", "--case", "1"]) == 0
    err = capsys.readouterr().err
    assert "model by native 1:" in err and "model by numpy 1:" in err


@pytest.mark.parametrize(
    ("error", "status"), [(KeyError("x"), 1), (EarmarkError(""), 1), (None, 0)]
)
def test_a_single_case_that_is_a_finding_fails(
    error: Exception | None, status: int, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    def run(data: bytes, folder: Path) -> None:
        if data != b"seed":
            raise error or EarmarkError("refused as it should be")

    target = Target(lambda folder: [b"seed"], run, lambda random, seeds: b"mutated")
    monkeypatch.setattr(fuzz_module, "TARGETS", {"toy": target})
    assert main(["fuzz", "--target", "toy", "--case", "7"]) == status
    err = capsys.readouterr().err
    assert "toy 7: 7 bytes: b'mutated'" in err and "Traceback" in err
    kind = "exception" if isinstance(error, KeyError) else "message"
    assert (f"toy 7: {kind}: " in err) == bool(status)


def test_what_counts_as_a_finding(tmp_path: Path) -> None:
    assert examine(raises(EarmarkError("fine")), b"", tmp_path) == (False, None)
    accepted, finding = examine(raises(KeyError("x")), b"", tmp_path)
    assert not accepted and finding and finding[0] == "exception" and "KeyError" in finding[1]
    hidden = EarmarkError("cannot be loaded")
    hidden.__cause__ = RuntimeError("std::bad_alloc")
    assert examine(raises(hidden), b"", tmp_path)[1] == ("memory", "ran out of it: std::bad_alloc")
    assert examine(raises(EarmarkError("")), b"", tmp_path)[1] is not None


def test_mutations_are_functions_of_the_seed() -> None:
    seeds = [bytes(range(200)), b"abc"]
    drawn = [mutate_bytes(Random(i), seeds) for i in range(50)]
    assert drawn == [mutate_bytes(Random(i), seeds) for i in range(50)]
    assert len(set(drawn)) > 40
    value = {"a": [1, {"b": None}], "c": "text"}
    before = json.dumps(value)
    texts = {repr(mutate_value(Random(i), value)) for i in range(50)}
    assert len(texts) > 30 and json.dumps(value) == before


def test_json_is_mutated_again_and_again() -> None:
    """Deeper than Python's encoder goes; what reads it refuses it as all else."""
    text = "[" * 990 + "]" * 990
    for number in range(5):
        text = mutate_json(Random(number), text)
    assert text.count("[") > 2000
    with pytest.raises(EarmarkError):
        Manifest.from_json(text)


def test_the_verb_reports_as_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["fuzz", "--cases", "20", "--target", "manifest"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["targets"]["manifest"]["cases"] == 20
    assert main(["fuzz", "--target", "nosuch"]) == 1
    assert main(["fuzz", "--target", "manifest", "--case", "3"]) == 0
    assert "manifest 3:" in capsys.readouterr().err
