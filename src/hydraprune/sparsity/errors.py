"""What a caller got wrong, in one line that names the key, the value and the cure."""


class SparsityError(ValueError):
    """A pattern, criterion, schedule or selection that cannot work as asked."""
