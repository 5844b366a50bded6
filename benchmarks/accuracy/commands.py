"""The command lines that records of ``evaluate`` and ``det`` are of, so that a page can give them.

Records of one table must be of one command: others are of other clips, and refused.
"""

import shlex
from collections.abc import Sequence
from typing import Any

from ...export.noisy import snr_name
from ...runtime.errors import EarmarkError
from .cli_det import SNRS, TARGETS

Record = dict[str, Any]
_EVALUATE = "earmark evaluate MODEL..."
_DET = "earmark det MODEL..."
_FOLDERS = ("data", "noise", "speech", "other")
_SPLIT = "validation"
"""What both take where none is named."""


def evaluate_command(records: Sequence[Record]) -> str:
    """The command line that records of clips are of, with the models left out.

    Raises:
        EarmarkError: they are not of the same clips and the same noise.
    """
    line = _only({evaluated_on(record) for record in records}, "clips") or _EVALUATE
    noises = {str(r["noise_seed"]) for r in records if r.get("noise_seed") is not None}
    seed = _only(noises, "noise") or "0"
    ratios = [*dict.fromkeys(snr_name(r["snr"]).removesuffix(" dB") for r in records)]
    options = ["--neighbours"] if any(r["kind"] == r["name"] for r in records) else []
    options += ["--snr", *ratios] if ratios not in ([], ["clean"]) else []
    options += ["--seed", seed] if seed != "0" else []
    return " ".join([line, *options, *(["--json"] if records else [])])


def det_command(reports: Sequence[Record]) -> str:
    """The command line that records of streams are of, with the models left out.

    Raises:
        EarmarkError: they are not of the same streams.
    """
    lines = set()
    for report in reports:
        ratios = [name.removesuffix(" dB") for name in report["conditions"]]
        targets = [point["target"] for point in report["points"]]
        given = ["--snr", *ratios] if ratios != [*SNRS] else []
        given += ["--target", *(f"{t:g}" for t in targets)] if targets != [*TARGETS] else []
        for name, usual in (("smoothing", None), ("seed", 0)):
            given += [f"--{name}", str(report[name])] if report.get(name, usual) != usual else []
        lines.add(" ".join([_command(_DET, report), *given]))
    return _only(lines, "streams") or _DET


def evaluated_on(record: Record) -> str:
    """The command of ``evaluate`` with the recordings that a record is of: what tells whether two
    are of the same clips."""
    return _command(_EVALUATE, record)


def _command(program: str, record: Record) -> str:
    """The program and the recordings that a record is of."""
    named = [x for name in _FOLDERS if record.get(name) for x in (f"--{name}", *record[name])]
    split = record.get("split", _SPLIT)
    named += ["--split", split] if split != _SPLIT else []
    return " ".join([program, *map(shlex.quote, named)])


def _only(values: set[str], what: str) -> str:
    """The one value of all records, empty where there are none.

    Raises:
        EarmarkError: there are several, which no table may mix.
    """
    if len(values) > 1:
        some = "; ".join(sorted(values))
        raise EarmarkError(f"records of other {what} than others ({some}): write a page for each")
    return "".join(values)
