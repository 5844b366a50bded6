"""Options that several verbs share."""

import dataclasses
from argparse import ArgumentParser

from .errors import EarmarkError
from .manifest import Decision, Manifest


def add_model_options(parser: ArgumentParser, several: bool = False) -> None:
    """``--model`` and ``--threshold``. ``several``: ``--model`` may be repeated, and is a list."""
    repeated = "; may be repeated" if several else ""
    parser.add_argument(
        "--model",
        metavar="FILE",
        action="append" if several else "store",
        help=f"model file (default: the one that is shipped){repeated}",
    )
    parser.add_argument(
        "--threshold",
        metavar="[KEYWORD=]T",
        action="append",
        default=[],
        help="smoothed posterior at which a keyword, or every keyword, fires; may be repeated",
    )


def chosen_decision(manifest: Manifest, thresholds: list[str]) -> Decision:
    """The manifest's decision settings with ``--threshold`` values applied in their order.

    Raises:
        EarmarkError: a value is no number in (0, 1] or a keyword is not the model's.
    """
    chosen = dict(manifest.decision.thresholds)
    for text in thresholds:
        keyword, equals, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = 0.0
        if not 0 < value <= 1:
            raise EarmarkError(
                f"--threshold {text}: give a number above 0 and at most 1, or KEYWORD=number"
            )
        if not equals:
            chosen = dict.fromkeys(chosen, value)
        elif keyword in chosen:
            chosen[keyword] = value
        else:
            raise EarmarkError(
                f"--threshold {text}: the model's keywords are {', '.join(manifest.keywords)}"
            )
    return dataclasses.replace(manifest.decision, thresholds=chosen)
