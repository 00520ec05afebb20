"""What a user got wrong, in one line: the key, its value and the cure."""

# What a shell reports of a program ended by Ctrl-C: 128 + SIGINT.
INTERRUPTED = 130


class UserError(Exception):
    """A mistake in the config, the data or a checkpoint. Shown without a traceback."""


def one_line(error: BaseException) -> str:
    """The kind of an error and what it says."""
    return " ".join(f"{type(error).__name__}: {error}".split())
