"""A starter recipe as TOML, with its reasons as comments."""

import re
import textwrap
from collections.abc import Sequence

import tomli_w

from .choices import Choice


def recipe_text(head: Sequence[str], choices: Sequence[Choice]) -> str:
    lines: list[str] = []
    for paragraph in head:
        lines += _comment(paragraph)
    table = ""
    for choice in choices:
        *place, field = choice.field.split(".")
        if place and place[0] != table:
            table = place[0]
            lines += ["", f"[{table}]"]
        lines += _comment(choice.reason)
        lines.append(tomli_w.dumps({field: choice.value}).rstrip())
    return "\n".join(lines) + "\n"


def _comment(text: str) -> list[str]:
    # A class name may hold anything; a comment must stay on its line.
    return [f"# {line}" for line in textwrap.wrap(re.sub(r"\s+", " ", text), 96)]
