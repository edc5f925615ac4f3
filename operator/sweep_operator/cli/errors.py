"""How a command ends: its exit status, and the one sentence of a refused input."""

from enum import IntEnum


class Exit(IntEnum):
    """Exit statuses of every command."""

    DONE = 0
    FAILED = 1
    """Something that should have worked did not."""
    BAD_INPUT = 2
    """The input or the call is wrong; nothing was written."""
    STOPPED_BY_RULE = 3
    """The ladder stopped by its own rules: inconsistent, held, over budget, target not worth it."""
    INTERRUPTED = 130


class InputError(Exception):
    """Bad input, told in one sentence: what, where, what would be right."""
