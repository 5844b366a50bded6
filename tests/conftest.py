"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

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
