"""A room being played, for the tests of its saver."""

from collections.abc import Callable
from typing import TypeAlias

from holdfast import CheckpointSaver


class Game:
    """A room being played: its state."""

    def __init__(self) -> None:
        self.state = b"0"
        self.taken = 0

    def snapshot(self) -> bytes:
        self.taken += 1
        return self.state

    def play(self) -> None:
        self.state = str(int(self.state) + 1).encode()


Make: TypeAlias = Callable[..., CheckpointSaver]
"""Makes a saver, by the options that are given."""
