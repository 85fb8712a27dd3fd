"""What the command's exit codes mean."""

import signal

from holdfast import errors

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_OUTPUT_CLOSED = 128 + signal.SIGPIPE
"""As shells have it."""

_EXIT_CODES: tuple[tuple[type[errors.HoldfastError], int], ...] = (
    (errors.InvalidArgument, EXIT_USAGE),
    (errors.NotFound, 3),
    (errors.AlreadyExists, 4),
    (errors.PreconditionFailed, 4),
    (errors.EpochTooOld, 4),
    (errors.ConcurrentModification, 4),
    (errors.IntegrityFailed, 5),
    (errors.Unavailable, 6),
    (errors.Overloaded, 6),
    (errors.DeadlineExceeded, 6),
)
"""A class stands for its subclasses too; all others are `EXIT_FAILURE`."""


def exit_code_of(error: errors.HoldfastError) -> int:
    """Return the exit code that an error comes with."""
    return next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), EXIT_FAILURE)
