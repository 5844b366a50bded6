"""What a verb of the command line is made of."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """One verb. A stage offers it under the entry-point group ``earmark.commands``.

    The module that holds it must import fast: heavy imports belong inside ``run``.
    """

    summary: str
    """One line for ``earmark --help``."""
    configure: Callable[[ArgumentParser], None]
    """Adds the verb's arguments."""
    run: Callable[[Namespace], int]
    """Does the work and returns the exit status. The namespace also has ``command_line``."""
    extra: str = ""
    """The extra of the distribution that the verb needs, named when a module is missing."""
    examples: tuple[str, ...] = ()
    """Command lines shown at the end of the verb's help."""
