"""What a caller got wrong, in one line that names the key, the value and the cure."""


class SparsityError(ValueError):
    """A pattern, criterion, schedule or selection that cannot work as asked.

    `pruner` is the name of the pruner that was being made, if it was one of several.
    """

    pruner: str | None = None
