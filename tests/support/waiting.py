"""Waiting for something that another process does, bounded in time."""

import time
from collections.abc import Callable

_STEP_SECONDS = 0.02


def wait_until(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    """Return as soon as `holds()` does. Raises `TimeoutError` if it never does."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"it did not hold within {seconds} s")
        time.sleep(_STEP_SECONDS)
