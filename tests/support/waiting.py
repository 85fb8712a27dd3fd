"""Waiting for something that another process does, bounded in time."""

import time
from collections.abc import Callable

_STEP_SECONDS = 0.02


def wait_until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    """Return as soon as `holds()` does. Raises `TimeoutError` if it never does, also not when the time is up."""
    end = time.monotonic() + seconds
    is_late = False
    while not holds():
        if is_late:
            raise TimeoutError(f"it did not hold within {seconds} s")
        time.sleep(_STEP_SECONDS)
        is_late = time.monotonic() > end
