"""The one exception that Earmark raises for what a user can put right."""


class EarmarkError(Exception):
    """A problem with the input, the machine or the settings.

    The message is one line that names the file or field and the remedy; the command line prints it
    as it is and exits with a non-zero status.
    """
