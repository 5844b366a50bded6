"""The one exception that Earmark raises for what a user can put right."""

MAX_MESSAGE = 1000


class EarmarkError(Exception):
    """A problem with the input, the machine or the settings.

    The message is one line that names the file or field and the remedy; the command line prints it
    as it is and exits with a non-zero status. What a message quotes may come from a hostile file:
    see :func:`one_line`.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def one_line(text: str) -> str:
    """``text`` that is safe to print: on one line, of a readable length, and without characters
    that a terminal would obey; those are written as escapes."""
    if len(text) > MAX_MESSAGE:
        text = f"{text[: MAX_MESSAGE // 2]} ... {text[-MAX_MESSAGE // 2 :]}"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def first_line(error: BaseException) -> str:
    """What an exception of another package says, cut to a readable length."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def was_interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an error: extension modules tell it as a failed import."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None
