"""What a user got wrong, in one line: the key, its value and the cure."""


class UserError(Exception):
    """A mistake in the config, the data or a checkpoint. Shown without a traceback."""
