"""Tables of clips: what is written reads back, folds are disjoint, what is wrong is named."""

import csv
import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile
from earmark.runtime.errors import EarmarkError
from earmark.train.data.corpus import scan
from earmark.train.data.dataset import load_split
from earmark.train.data.metadata import read_rows
from earmark.train.data.stretches import noise_pool
from hypothesis import given
from hypothesis import strategies as st

ESC = "filename,fold,target,category,esc10,src_file,take\n"


def write_table(path: Path, head: list[str], rows: list[list[str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    return path


def clip(path: Path, level: float = 0.1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, [level] * 1600, 16000)


@pytest.fixture
def esc(tmp_path: Path) -> Path:
    """The layout of ESC-50: five folds, two classes, two takes of each recording."""
    lines = [ESC]
    for fold in range(1, 6):
        for target, category in enumerate(["dog", "rain"]):
            for take in "AB":
                name = f"{fold}-{100 * fold + target}-{take}-{target}.wav"
                clip(tmp_path / "audio" / name)
                row = f"{name},{fold},{target},{category},True,{100 * fold + target},{take}\n"
                lines.append(row)
    table = tmp_path / "meta" / "esc50.csv"
    table.parent.mkdir()
    table.write_text("".join(lines))
    return table


name = st.text("abcdefghij klmno-é0123456789,\"'", min_size=1, max_size=12).map(str.strip)
word = st.text("abcdefg hij-é\"'0123456789", min_size=1, max_size=8).map(str.strip).filter(bool)


@given(
    rows=st.lists(
        st.tuples(
            name.filter(bool),
            st.lists(word, unique=True, max_size=4),
            st.integers(0, 20),
            st.sampled_from(["", "train", "validation", "test"]),
        ),
        unique_by=lambda row: row[0],
        max_size=8,
    ),
    separator=st.sampled_from(";|,"),
)
def test_rows_read_back(tmp_path_factory: pytest.TempPathFactory, rows, separator: str) -> None:
    path = write_table(
        tmp_path_factory.mktemp("table") / "clips.csv",
        ["filename", "labels", "fold", "split"],
        [[f, separator.join(words), str(fold or ""), split] for f, words, fold, split in rows],
    )
    found = [(row.file, list(row.words), row.fold, row.split) for row in read_rows(path)]
    assert found == rows


def test_the_layout_of_esc50(esc: Path) -> None:
    corpus = scan(esc)
    assert len(corpus.clips) == 20 and corpus.words == ("dog", "rain")
    assert corpus.folds == (1, 2, 3, 4, 5)
    assert corpus.roots == (esc.parent.parent,)
    # Both takes of a recording are on one side of the split, whatever it is.
    assert len({clip.speaker for clip in corpus.clips}) == 10


def test_each_fold_is_held_out_once_and_no_recording_is_on_both_sides(esc: Path) -> None:
    held_out: list[Path] = []
    for fold in range(1, 6):
        corpus = scan(esc, fold=fold)
        sides = {
            split: {clip.speaker for clip in corpus.clips if clip.split == split}
            for split in ("train", "validation")
        }
        assert not sides["train"] & sides["validation"]
        assert len(sides["train"]) == 8
        held_out += [clip.path for clip in corpus.clips if clip.split == "validation"]
    assert sorted(held_out) == sorted(clip.path for clip in scan(esc).clips)


def test_folds_in_file_names(tmp_path: Path) -> None:
    for fold in (1, 2, 4):
        clip(tmp_path / "dog" / f"{fold}-17-A.wav")
        clip(tmp_path / "rain" / f"{fold}-18-A.wav")
    corpus = scan(tmp_path, folds=r"(\d)-", fold=4)
    assert corpus.folds == (1, 2, 4)
    assert {clip.path.name for clip in corpus.clips if clip.split == "validation"} == {
        "4-17-A.wav",
        "4-18-A.wav",
    }
    assert corpus.fingerprint != scan(tmp_path, folds=r"(\d)-", fold=1).fingerprint
    with pytest.raises(EarmarkError, match=r"no clip in fold 3 \(there are folds 1, 2, 4\)"):
        scan(tmp_path, folds=r"(\d)-", fold=3)
    with pytest.raises(EarmarkError, match=r"1-17-A\.wav: in no fold: give data\.folds a pattern"):
        scan(tmp_path, folds="(x)", fold=1)


def test_a_recording_in_two_folds_is_refused(tmp_path: Path) -> None:
    for fold in (1, 2):
        clip(tmp_path / f"{fold}.wav")
    rows = [["1.wav", "dog", "1", "9"], ["2.wav", "dog", "2", "9"]]
    table = write_table(tmp_path / "clips.csv", ["file", "class", "fold", "src_file"], rows)
    with pytest.raises(EarmarkError, match="speaker 9 is in"):
        scan(table, fold=1)


def test_several_labels_and_none(tmp_path: Path) -> None:
    rows = [["a", "Dog bark, rain", "train"], ["b.wav", "", "val"], ["c", "rain", "val"]]
    for row in rows:
        clip(tmp_path / f"{row[0].removesuffix('.wav')}.wav")
    corpus = scan(write_table(tmp_path / "dev.csv", ["fname", "labels", "split"], rows))
    assert [(clip.words, clip.split) for clip in corpus.clips] == [
        (("Dog bark", "rain"), "train"),
        ((), "validation"),
        (("rain",), "validation"),
    ]
    assert corpus.words == ("Dog bark", "rain")
    everything = load_split(corpus, ["dog bark", "rain"], "all", 0.1, multilabel=True)
    assert everything.target.tolist() == [[True, True], [False, False], [False, True]]
    assert everything.label.tolist() == [0, -1, 1]
    with pytest.raises(EarmarkError, match=r"a\.wav: has 2 classes .*task = \"multilabel\""):
        load_split(corpus, ["dog bark", "rain"], "train", 0.1)


def test_two_tables_of_a_folder_have_its_noise_once(tmp_path: Path) -> None:
    hum = tmp_path / "_background_noise_" / "hum.wav"
    hum.parent.mkdir()
    soundfile.write(hum, np.full(30 * 16000, 0.1), 16000)
    tables = [tmp_path / "one.csv", tmp_path / "two.csv"]
    for table in tables:
        name = f"{table.stem}.wav"
        clip(tmp_path / name)
        write_table(table, ["filename", "label"], [[name, "dog"]])
    corpus = scan(*tables)
    assert corpus.noise == (hum,)
    assert len(noise_pool(corpus, "train")) == len(noise_pool(scan(tables[0]), "train")) == 1


def test_labels_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    clip(tmp_path / "a.wav")
    head = ["filename", "category"]
    first = scan(write_table(tmp_path / "clips.csv", head, [["a.wav", "dog"]])).fingerprint
    assert scan(write_table(tmp_path / "clips.csv", head, [["a.wav", "cat"]])).fingerprint != first


def test_classes_without_a_label_are_left_out(esc: Path, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        split = load_split(scan(esc), ["dog"], "all", 0.1)
    assert split.labels == ("dog",) and set(split.word) == {"dog"} and len(split) == 10
    assert "clips of classes that have no label, left out: 10" in caplog.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "no column filename"),
        ("filename,take\na.wav,A\n", "no column labels or category"),
        ("filename,category\n", "has no rows"),
        ("filename,category\na.wav,\n", "line 2: category: expected a class"),
        ("filename,category\n,dog\n", "line 2: filename"),
        ("filename,category\n../a.wav,dog\n", "line 2: filename: expected a file below"),
        ("filename,category\n/a.wav,dog\n", "line 2: filename: expected a file below"),
        ("filename,category\na.wav,dog\na.wav,cat\n", "line 3: filename: expected a.wav once"),
        ("filename,category\na.wav,_dog\n", "does not begin with _"),
        ("filename,category,fold\na.wav,dog,x\n", "line 2: fold: expected a number"),
        ("filename,category,fold\na.wav,dog,0\n", "line 2: fold: expected a number"),
        ("filename,category,split\na.wav,dog,dogs\n", "line 2: split: expected train"),
        ("filename,category\nb.wav,dog\n", "1 of 1 clips are neither in .*: b.wav"),
        ('filename,category\n"a.wav,dog\n', "not a CSV file"),
        ("filename,category\na.wav,\xff\n", "not a CSV file"),
    ],
)
def test_wrong_tables_are_refused_by_file_and_line(
    tmp_path: Path, text: str, expected: str
) -> None:
    clip(tmp_path / "a.wav")
    table = tmp_path / "clips.csv"
    table.write_bytes(text.encode("latin-1"))
    with pytest.raises(EarmarkError, match=expected) as error:
        scan(table)
    assert str(table) in str(error.value) and "\n" not in str(error.value)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(EarmarkError, match=r"gone\.csv: cannot be read"):
        scan(tmp_path / "gone.csv")


def test_a_table_of_ones_own_trains_but_for_what_it_holds_out(tmp_path: Path) -> None:
    rows = [[f"{i}.wav", "low", f"s{i}", "validation" if i == 3 else ""] for i in range(20)]
    for name, *_ in rows:
        clip(tmp_path / name)
    table = write_table(tmp_path / "mine.csv", ["filename", "word", "speaker", "split"], rows)
    assert {c.split for c in scan(table).clips} == {"train", "validation", "test"}
    mine = scan(own=[table]).clips
    assert all(c.own for c in mine)
    assert [c.path.name for c in mine if c.split != "train"] == ["3.wav"]
