"""What the command's exit codes mean."""

import signal

from holdfast import errors

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_CONDITION = 4
EXIT_DAMAGED = 5
EXIT_OUTPUT_CLOSED = 128 + signal.SIGPIPE
"""As shells have it."""

_EXIT_CODES: tuple[tuple[type[errors.HoldfastError], int], ...] = (
    (errors.InvalidArgument, EXIT_USAGE),
    (errors.NotFound, 3),
    (errors.AlreadyExists, EXIT_CONDITION),
    (errors.PreconditionFailed, EXIT_CONDITION),
    (errors.EpochTooOld, EXIT_CONDITION),
    (errors.ConcurrentModification, EXIT_CONDITION),
    (errors.IntegrityFailed, EXIT_DAMAGED),
    (errors.Unavailable, 6),
    (errors.Overloaded, 6),
    (errors.DeadlineExceeded, 6),
)
"""A class stands for its subclasses too; all others are `EXIT_FAILURE`."""


def exit_code_of(error: errors.HoldfastError) -> int:
    """Return the exit code that an error comes with."""
    return next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), EXIT_FAILURE)
