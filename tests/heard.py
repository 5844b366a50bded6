"""What the toy model hears in its scene, as the command line tells it."""

import json

import pytest

EXPECTED = [("low", 1.16), ("high", 2.66), ("low", 4.16)]


def events(text: str) -> list[tuple[str, float]]:
    found = [json.loads(line) for line in text.splitlines()]
    assert all(event["type"] == "detection" and 0.5 <= event["score"] <= 1 for event in found)
    return [(event["keyword"], pytest.approx(event["time"], abs=0.03)) for event in found]
