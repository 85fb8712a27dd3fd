"""Bytes to store, the same in every run."""

import random

MIB = 1 << 20


def sample(size: int, seed: int = 0) -> bytes:
    """Return `size` bytes that look random, the same for the same seed."""
    return random.Random(seed).randbytes(size)
