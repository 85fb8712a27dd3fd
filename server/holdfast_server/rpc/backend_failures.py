"""The line in the log for what a backend refused: one a call, with the object's key, and the system's own words."""

import errno
import logging

from holdfast_server.errors import HoldfastError, Reason

_FAULTS_OF_OURS = {errno.EBADF, errno.EFAULT, errno.EINVAL}
"""What no disk says by itself: where it came from is the question then."""

_log = logging.getLogger(__name__)


def is_backend_failure(error: HoldfastError) -> bool:
    """Tell whether a backend has failed here and now.

    Without a cause it is a refusal, by an open breaker for one, that each caller is told of and the log was once.
    """
    return error.reason is Reason.BACKEND_UNAVAILABLE and error.__cause__ is not None


def log_backend_failure(error: HoldfastError, method: str = "") -> None:
    """Write the line; behind it a traceback, unless it is one of the refusals that every disk may come to."""
    cause = error.__cause__
    is_refusal = isinstance(cause, OSError) and cause.errno not in _FAULTS_OF_OURS
    fields = {"method": method} if method else {}
    fields |= {"error": error.message, "cause": str(cause)}
    _log.error("Backend failed", exc_info=None if is_refusal else error, extra={"fields": fields})
