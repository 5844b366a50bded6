"""The ``earmark`` command: finds the verb, runs it, and turns errors into one line."""

import errno
import io
import os
import shlex
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from importlib.metadata import entry_points, version
from typing import Any

from .command import Command
from .errors import EarmarkError, was_interrupted

GROUP = "earmark.commands"
INTERRUPTED = 130
"""Exit status of a program that Ctrl-C ended."""


def main(argv: list[str] | None = None) -> int:
    """Run one command line and return its exit status.

    Args:
        argv: without it, this is the program: its arguments are used, and standard output is kept
            for what Python prints.

    Returns:
        0: done; 1: failed with a message on stderr; 2: wrong usage; 130: interrupted; 141: standard
        output was closed.
    """
    if argv is None:
        _claim_output()
    arguments = sys.argv[1:] if argv is None else argv
    try:
        status = _run(arguments)
        # Here rather than at exit, so that a full disk or a closed pipe is noticed.
        sys.stdout.flush()
    except EarmarkError as error:
        return _failed(str(error))
    except KeyboardInterrupt:
        _failed("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        return 141  # as a program that SIGPIPE ends
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        _discard_output()
        return _failed(f"{error.filename or 'output'}: {error.strerror}: free some space")
    except ImportError as error:
        if not was_interrupted(error):
            raise
        _failed("interrupted")
        return INTERRUPTED
    return status


def _claim_output() -> None:
    """Move standard output to a descriptor of its own and have the usual one lead to stderr.

    C libraries print there what they think of a file (libsndfile does of damaged ALAC), which must
    not come between JSON lines. A process that this one starts inherits the usual descriptor, too.
    """
    if sys.stderr is None:  # it was closed; print would take None for standard output
        sys.stderr = io.TextIOWrapper(io.FileIO(os.devnull, "w"))
    before = sys.stdout
    if before is None:  # it was closed; its descriptor must not become that of another file
        sys.stdout = io.TextIOWrapper(io.FileIO(os.devnull, "w"))
        return
    if not isinstance(before, io.TextIOWrapper):
        return
    before.flush()
    try:
        file = io.FileIO(os.dup(before.fileno()), "w")  # is not inherited
        os.dup2(2, before.fileno())
    except OSError:  # standard error is closed
        return
    sys.stdout = io.TextIOWrapper(
        file if before.write_through else io.BufferedWriter(file),  # type: ignore[arg-type]
        encoding=before.encoding,
        errors=before.errors,
        line_buffering=before.line_buffering,
        write_through=before.write_through,
    )


def _failed(message: str) -> int:
    print(f"earmark: {message}", file=sys.stderr)
    return 1


def _discard_output() -> None:
    """Keep the interpreter from flushing once more into an output that takes nothing."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _VerbParser(ArgumentParser):
    """Refuses what it does not know itself, where argparse leaves it to the parser of all verbs,
    which would show its own usage."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # type: ignore[override]
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown


def command_line(verbs: dict[str, Command]) -> ArgumentParser:
    """The parser of a command line with these verbs, by name."""
    parser = ArgumentParser(
        prog="earmark", description="Train, export and run keyword spotters in one ONNX file."
    )
    parser.add_argument("--version", action="version", version=f"earmark {version('earmark')}")
    subparsers = parser.add_subparsers(
        dest="verb", metavar="COMMAND", required=True, parser_class=_VerbParser
    )
    for name, verb in sorted(verbs.items()):
        sub = subparsers.add_parser(
            name,
            help=verb.summary,
            description=verb.summary,
            epilog="examples:\n  " + "\n  ".join(verb.examples) if verb.examples else None,
            formatter_class=RawDescriptionHelpFormatter,
        )
        verb.configure(sub)
        sub.set_defaults(run=verb.run)
    return parser


def commands(wanted: str = "") -> dict[str, Command]:
    """The verb asked for, or all of them where there is none of that name (for help and errors)."""
    found = entry_points(group=GROUP)
    chosen = [point for point in found if point.name == wanted] or list(found)
    return {point.name: point.load() for point in chosen}


def _run(arguments: list[str]) -> int:
    verbs = commands(arguments[0] if arguments else "")
    namespace = command_line(verbs).parse_args(arguments)
    namespace.command_line = shlex.join(["earmark", *arguments])
    try:
        return namespace.run(namespace)
    except ModuleNotFoundError as error:
        extra = verbs[namespace.verb].extra
        if not extra or (error.name or "").partition(".")[0] == "earmark":
            raise
        raise EarmarkError(
            f"{namespace.verb} needs {error.name}, which is not installed: "
            f'pip install "earmark[{extra}]"'
        ) from error
