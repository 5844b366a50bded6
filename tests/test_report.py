"""The report is one page that needs nothing else, and the timeline is a picture."""

import re
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import toy_model
from earmark.benchmarks.demo.report import Report, Result, comparison, page
from earmark.benchmarks.demo.timeline import timeline
from earmark.benchmarks.latency.timing import Timing
from earmark.benchmarks.page_parts import Picture
from earmark.benchmarks.scene import Heard, Scene
from earmark.benchmarks.spread import Spread
from earmark.export.drawing import picture
from earmark.export.matching import Matching, Word
from earmark.runtime.stream import Detection
from earmark.train.metrics import classification

PNG = b"\x89PNG\r\n\x1a\n not quite"
VOID = {"meta", "img", "br", "link", "hr"}


class Page(HTMLParser):
    """Tags, text, and a check that every tag is closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.cells: list[str] = []
        self.text = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += data


def result(precision: str, right: int, micros: float) -> Result:
    truth = np.arange(8) % 4
    predicted = np.where(np.arange(8) < right, truth, (truth + 1) % 4)
    accuracy = classification(
        toy_model.LABELS,
        truth,
        np.eye(4, dtype=np.float32)[predicted],
        np.array(list("aabbccdd")),
    )
    spread = Spread(micros, micros - 1, micros + 1)
    timing = Timing(100, Spread(1.234, 1.234, 1.234), spread, spread, spread, spread, micros, ())
    truths = (Word("low", 1, 2), Word("high", 3, 4))
    matching = Matching(((Detection("low", 2.25, 0.9), truths[0]),), truths[1:], ())
    return Result(
        toy_model.manifest(precision=precision, versions={"numpy": "9.9"}),
        accuracy,
        matching.summary(10),
        timing,
        45_678,
    )


def report(**changes) -> Report:
    fields = Report(
        title="Demo of <lights & more>",
        lead="A 'lead'.",
        done=("First <b>this</b>.", "Then that."),
        results=(result("float32", 8, 200), result("int8", 6, 100)),
        caution="Take care.",
        pictures=(
            Picture(PNG, "Timeline", 'What "was" said', wide=True),
            Picture(PNG + b"2", "Confusion", "Clips"),
        ),
        settings={"recipe": {"train": {"epochs": 3}, "keywords": ("low", "high")}},
        machine={
            "cpu": "Some <CPU>",
            "features": ["AVX2"],
            "cores": 2,
            "system": "Linux x86_64",
            "load": 0.5,
            "versions": {"python": "3.11"},
        },
        further=(("Try:", "earmark detect < audio.raw"),),
    )
    return replace(fields, **changes)


def test_the_page_needs_nothing_else() -> None:
    text = page(report())
    shown = Page(text)
    for tag, name, value in shown.attributes:
        assert tag not in ("script", "link", "iframe", "object", "base")
        if name in ("src", "href", "srcset", "poster", "action"):
            assert value is not None and value.startswith("data:image/png;base64,")
    assert "url(" not in text and "@import" not in text
    assert text.startswith("<!DOCTYPE html>")
    assert "prefers-color-scheme: dark" in text and 'name="viewport"' in text


def test_pictures_are_inside_and_described() -> None:
    shown = Page(page(report()))
    sources = [value for _, name, value in shown.attributes if name == "src"]
    assert [b64decode(str(value).partition(",")[2]) for value in sources] == [PNG, PNG + b"2"]
    assert [v for _, name, v in shown.attributes if name == "alt"] == ['What "was" said', "Clips"]


def test_text_is_shown_as_it_is() -> None:
    shown = Page(page(report()))
    for text in (
        "Demo of <lights & more>",
        "First <b>this</b>.",
        "Some <CPU> (AVX2), 2 cores",
        "earmark detect < audio.raw",
    ):
        assert text in shown.text
    assert ("recipe.train.epochs", "3") in zip(shown.cells, shown.cells[1:], strict=False)
    assert ("recipe.keywords", "low, high") in zip(shown.cells, shown.cells[1:], strict=False)
    assert ("numpy", "9.9") in zip(shown.cells, shown.cells[1:], strict=False)
    assert ("low", "2") in zip(shown.cells, shown.cells[1:], strict=False)


def test_comparison_has_a_column_for_each_model() -> None:
    heads, rows = comparison(report().results)
    assert heads == ["", "float32", "int8"]
    table = {name: values for name, *values in rows}
    assert table["Top-1 on clips"] == ["100.00\xa0%", "75.00\xa0%"]
    assert table["Keywords found in the scene"] == ["1 of 2", "1 of 2"]
    assert table["Delay from the word's end, median"] == ["0.25 s", "0.25 s"]
    assert table["File"] == ["46 kB", "46 kB"]
    assert table["CPU ms per second of audio"] == ["1.23", "1.23"]
    assert table["µs per chunk, p99"] == ["200 (199\xa0to\xa0201)", "100 (99\xa0to\xa0101)"]
    shown = Page(page(report()))
    assert all(value in shown.cells for row in rows for value in row)


def test_timeline() -> None:
    manifest = toy_model.manifest()
    truth = (Word("low", 1, 1.5), Word("high", 2.5, 3), Word("low", 4, 4.5))
    scene = Scene(toy_model.scene(), truth, (Word("hum", 3.2, 3.4),))
    times = np.arange(1, 69) * 0.08
    heard = Heard(times, np.full((68, 4), 0.25), ())
    matching = Matching(
        ((Detection("low", 1.2, 0.9), truth[0]),),
        truth[1:],
        (Detection("high", 5.0, 0.8), Detection("low", 5.2, 0.8)),
    )
    figure = timeline(scene, heard, matching, manifest)
    assert picture(figure).startswith(b"\x89PNG") and picture(figure, "svg").startswith(b"<?xml")
    sound, curves, marks = figure.axes
    assert [text.get_text() for text in sound.texts] == ["low", "high", "low", "hum"]
    assert [label.get_text() for label in marks.get_yticklabels()] == [
        *("missed 2", "false 2", "detected 1")
    ]
    assert curves.get_legend_handles_labels()[1] == ["low", "high"]
    colors = {line.get_label(): line.get_color() for line in curves.lines[:2]}
    assert len(set(colors.values())) == 2
    assert sound.texts[0].get_color() == colors["low"]


def test_pictures_of_1200_pixels_have_legible_text() -> None:
    manifest = toy_model.manifest()
    scene = Scene(toy_model.scene(), (Word("low", 1, 1.5),), ())
    heard = Heard(np.array([0.08]), np.zeros((1, 4)), ())
    figure = timeline(scene, heard, Matching((), scene.truth, ()), manifest)
    width = int.from_bytes(picture(figure)[16:20], "big")
    assert width == 2400
    sizes = [text.get_fontsize() for axes in figure.axes for text in axes.texts]
    # Points at 100 pixels an inch: 9 points are 12.5 pixels.
    assert min(sizes) >= 9
    assert re.fullmatch(r"#[0-9a-f]{6}", str(figure.axes[1].lines[0].get_color()))
