"""Options that several verbs share."""

import dataclasses
from argparse import ArgumentParser

from .errors import EarmarkError
from .manifest import Decision, Manifest


def add_model_options(parser: ArgumentParser) -> None:
    """``--model``, ``--operating-point`` and ``--threshold``."""
    parser.add_argument(
        "--model", metavar="FILE", help="model file (default: the one that is shipped)"
    )
    parser.add_argument(
        "--operating-point",
        metavar="NAME",
        help="named settings of the model file (see earmark info) in place of its default",
    )
    parser.add_argument(
        "--threshold",
        metavar="[KEYWORD=]T",
        action="append",
        default=[],
        help="smoothed posterior at which a keyword, or every keyword, fires; may be repeated",
    )


def chosen_decision(
    manifest: Manifest, operating_point: str | None, thresholds: list[str]
) -> Decision:
    """The settings of ``--operating-point``, None being the model's default, with ``--threshold``
    values applied in their order.

    Raises:
        EarmarkError: the model has no such point, a value is no number in (0, 1] or a keyword is
            not the model's.
    """
    decision = manifest.decision
    if operating_point is not None:
        points = manifest.operating_points
        if operating_point not in points:
            known = f"the model has {', '.join(points)}" if points else "the model has none"
            raise EarmarkError(f"--operating-point {operating_point}: {known} (see earmark tune)")
        decision = points[operating_point]
    chosen = dict(decision.thresholds)
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
    return dataclasses.replace(decision, thresholds=chosen)
