"""Options that several verbs share."""

import dataclasses
from argparse import ArgumentParser

from .errors import EarmarkError
from .manifest import Decision, Manifest


def add_model_options(parser: ArgumentParser) -> None:
    """``--model`` and ``--threshold``."""
    parser.add_argument(
        "--model", metavar="FILE", help="model file (default: the one that is shipped)"
    )
    parser.add_argument(
        "--threshold",
        metavar="[KEYWORD=]T",
        action="append",
        default=[],
        help="smoothed posterior at which a keyword, or every keyword, fires; may be repeated",
    )


def add_gate_option(parser: ArgumentParser) -> None:
    """``--gate``."""
    parser.add_argument(
        "--gate",
        type=float,
        metavar="DB",
        help="skip the network while the audio stays below this level, in dB of full scale: saves "
        "CPU, and words that are softer are not heard (default: off)",
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
