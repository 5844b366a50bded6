"""``earmark completion``: a script with which a shell completes verbs, options and paths."""

import re
from argparse import Action, ArgumentParser
from collections.abc import Iterator
from typing import cast

import shtab

from .cli import command_line, commands

# What an argument is called in the help says what it names.
_FILES = {"FILE", "MODEL", "RECIPE", "BEFORE", "AFTER", "TUNED"}
_FOLDERS = {"DIR", "RUN", "DATA"}


def script(shell: str) -> str:
    """The completion script of all verbs that are installed.

    Args:
        shell: one that :mod:`shtab` knows, such as ``bash``, ``zsh`` or ``fish``.
    """
    parser = command_line(commands())
    for action in _actions(parser):
        names = " ".join(
            [action.metavar] if isinstance(action.metavar, str) else action.metavar or ()
        )
        words = set(re.findall("[A-Z]+", names))
        path = shtab.FILE if words & _FILES else shtab.DIRECTORY if words & _FOLDERS else None
        if path is not None:
            action.complete = path  # type: ignore[attr-defined]
    return shtab.complete(parser, shell)


def _actions(parser: ArgumentParser) -> Iterator[Action]:
    """The arguments of a parser and of its verbs, as shtab reads them itself."""
    for action in parser._actions:
        yield action
        if isinstance(action.choices, dict):
            for sub in cast("dict[str, ArgumentParser]", action.choices).values():
                yield from _actions(sub)
