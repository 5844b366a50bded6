"""The live view fits a terminal and shows what it should."""

import io
from collections import deque

import pytest
from earmark.runtime import DetectionEvent
from earmark.runtime.view import Status, render
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console


def status(keywords: int = 8) -> Status:
    return Status(
        model="commands",
        device="Built-in microphone with a long name, by a maker with another one",
        keywords=[f"word{i}" for i in range(keywords)],
        thresholds=[0.8] * keywords,
        scores=[i / keywords for i in range(keywords)],
        seconds=3661.2,
        level=0.1,
        recent=deque(
            [
                DetectionEvent("mic", "word1", 3000.0, 0.5),
                DetectionEvent("mic", "word3", 3661.0, 0.91),
            ]
        ),
    )


def lines(state: Status, width: int, height: int, fancy: bool = True) -> list[str]:
    console = Console(width=width, height=height, file=io.StringIO(), force_terminal=False)
    with console.capture() as capture:
        console.print(render(state, width, height, fancy))
    return capture.get().splitlines()


@given(st.integers(30, 200), st.integers(14, 60), st.integers(1, 40), st.booleans())
def test_fits_the_terminal(width: int, height: int, keywords: int, fancy: bool) -> None:
    shown = lines(status(keywords), width, height, fancy)
    assert len(shown) < height
    assert all(len(line) < width for line in shown)
    assert fancy or all(line.isascii() for line in shown)


@pytest.mark.parametrize("width", [40, 80])
def test_characters_of_two_columns_fit_as_well(width: int) -> None:
    state = status(2)
    state.keywords = ["你好小智", "はい"]
    state.device = state.note = "マイク" * 20
    shown = lines(state, width, 24)
    assert len(shown) == len(lines(status(2), width, 24))
    assert all(cell_len(line) < width for line in shown)
    assert any(line.startswith("你好小智  ") for line in shown)


def test_80_columns_and_24_lines_show_eight_keywords() -> None:
    text = "\n".join(lines(status(), 80, 24))
    assert all(f"word{i}" in text for i in range(8))
    assert "1:01:01" in text
    assert "-20 dB" in text
    assert "   1:01:01  0.91  word3" in text
    assert "0 overflows" not in text
    assert "overflows 0" in text


def test_a_lost_device_takes_the_place_of_the_level() -> None:
    state = status()
    state.lost = "no audio for 1 s"
    state.note = "microphone x is lost (no audio for 1 s): trying to reopen it"
    shown = lines(state, 80, 24)
    assert "device lost, reopening (no audio for 1 s)" in shown[1]
    assert "dB" not in "\n".join(shown)
    assert shown[2].startswith("microphone x is lost")
    state.lost = state.note = "a long reason " * 20
    assert all(len(line) < 80 for line in lines(state, 80, 24))


def test_a_new_detection_is_marked_for_a_moment() -> None:
    marked = [line for line in lines(status(), 80, 24) if line.endswith("detected")]
    assert [line.split()[0] for line in marked] == ["word3"]


def test_the_best_keywords_are_shown_where_there_are_too_many() -> None:
    text = "\n".join(lines(status(40), 80, 24))
    assert "word39" in text
    assert "word0 " not in text


@pytest.mark.parametrize(("score", "filled"), [(0.0, 0), (0.5, 0.5), (1.0, 1), (1.5, 1)])
def test_bar_length(score: float, filled: float) -> None:
    state = status(1)
    state.scores, state.thresholds = [score], [1.0]
    (line,) = (line for line in lines(state, 80, 24, fancy=False) if line.startswith("word0"))
    bar = line.split()[1]
    assert bar.count("#") == pytest.approx(filled * len(bar), abs=1)
