"""What is wrong with a file of weights."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or does not fit: the text says which file, what is wrong, and what to do."""
