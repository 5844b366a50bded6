"""Tables of clips: a CSV file with a row for each, as ESC-50 and its kin describe themselves.

Columns are found by their names; the first of each line below that the file has is read, others are
left alone::

    filename, fname, file, path                  the clip
    labels                                       its classes, any number of them (multi-label), or
    category, class, label, word                 its one class
    fold                                         number of its fold, from 1
    split                                        train, validation or test
    speaker, src_file, source                    who or what recording it is of

Classes in ``labels`` are separated by ``;``, ``|`` or ``,``. Clips of one speaker or recording stay
together in whatever divides the data.
"""

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from ...runtime.errors import EarmarkError

SUFFIX = ".csv"
_FILE = ("filename", "fname", "file", "path")
CLASSES = ("labels", "category", "class", "label", "word")
_ORIGIN = ("speaker", "src_file", "source")
_SEPARATOR = re.compile(r"[;|,]")
_SPLITS = {
    "train": ("train", "training", "dev"),
    "validation": ("validation", "valid", "val"),
    "test": ("test", "testing", "eval"),
}
_SPLIT_OF = {name: split for split, names in _SPLITS.items() for name in names}
MAX_ROWS = 10_000_000


@dataclass(frozen=True)
class Row:
    """What a table says of one clip."""

    file: str
    words: tuple[str, ...]
    """Its classes; none is possible where the table has a column ``labels``."""
    fold: int
    """From 1; 0 where the table does not say."""
    split: str
    """``train``, ``validation`` or ``test``; empty where the table does not say."""
    origin: str
    """The speaker or recording; empty where the table does not say."""


def read_rows(path: Path) -> list[Row]:
    """Read a table.

    Raises:
        EarmarkError: it cannot be read, has no column of files or of classes, names a file twice,
            or a cell is empty or out of range. The message names the file and the line.
    """
    try:
        # Spreadsheets write a byte order mark.
        with path.open(encoding="utf-8-sig", newline="") as file:
            return list(_rows(path, csv.DictReader(file, strict=True)))
    except OSError as error:
        raise EarmarkError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise EarmarkError(f"{path}: not a CSV file in UTF-8 ({error})") from error


def _rows(path: Path, table: "csv.DictReader[str]") -> Iterator[Row]:
    columns = table.fieldnames or ()
    file, label = _column(path, columns, _FILE), _column(path, columns, CLASSES)
    seen: set[str] = set()
    for count, cells in enumerate(table, 1):

        def refuse(column: str, expected: str) -> EarmarkError:
            return EarmarkError(f"{path}: line {table.line_num}: {column}: expected {expected}")

        if count > MAX_ROWS:
            raise EarmarkError(f"{path}: has more than {MAX_ROWS} rows")
        name = (cells[file] or "").strip()
        if not name or PurePath(name).is_absolute() or ".." in PurePath(name).parts:
            raise refuse(file, "a file below the table's folder")
        if name in seen:
            raise refuse(file, f"{name} once only")
        seen.add(name)
        text = cells[label] or ""
        found = _SEPARATOR.split(text) if label == "labels" else [text]
        words = tuple(dict.fromkeys(word.strip() for word in found if word.strip()))
        if not words and label != "labels":
            raise refuse(label, "a class")
        if any(word.startswith("_") for word in words):
            raise refuse(label, "a class whose name does not begin with _")
        yield Row(name, words, *membership(cells, refuse))


def membership(
    cells: Mapping[str, Any], refuse: Callable[[str, str], EarmarkError]
) -> tuple[int, str, str]:
    """Fold, split and origin of a clip, as of :class:`Row`, from the columns that there are.

    Args:
        cells: text, or for a fold a number, by column.
        refuse: makes the error, of a column and of what is expected there.
    """
    origin = next((name for name in _ORIGIN if name in cells), "")
    values = []
    for column in ("fold", "split", origin):
        value = cells.get(column)
        if not isinstance(value, str | int | None):
            raise refuse(column, "text")
        values.append("" if value is None else str(value).strip())
    fold, split, speaker = values
    if fold and not (fold.isascii() and fold.isdigit() and 1 <= int(fold) <= 1000):
        raise refuse("fold", "a number from 1")
    if split and split.lower() not in _SPLIT_OF:
        raise refuse("split", "train, validation or test")
    return int(fold or 0), _SPLIT_OF.get(split.lower(), ""), speaker


def _column(path: Path, columns: Sequence[str], names: tuple[str, ...]) -> str:
    for name in names:
        if name in columns:
            return name
    raise EarmarkError(f"{path}: has no column {' or '.join(names)}: name one so")
