"""A room's saver: what saves it, where to, and by which clock. Time is given, not slept."""

from collections.abc import Callable
from typing import Any

import pytest

from holdfast import CheckpointSaver
from tests.support.played_room import Game, Make
from tests.support.room_store import FakeClock, RoomStore

_ROOM = "duel-7"


@pytest.fixture
def store() -> RoomStore:
    """Where it is saved."""
    return RoomStore()


@pytest.fixture
def clock() -> FakeClock:
    """A clock that waiting moves."""
    return FakeClock()


@pytest.fixture
def game() -> Game:
    """What is saved."""
    return Game()


@pytest.fixture
def make(store: RoomStore, clock: FakeClock, game: Game) -> Make:
    """What makes a saver without a thread."""

    def make(snapshot: Callable[[], bytes] = game.snapshot, **options: Any) -> CheckpointSaver:
        given: dict[str, Any] = {"start_epoch": 0, "clock": clock, "random": lambda: 0.5, **options}
        return CheckpointSaver(store, _ROOM, snapshot, **given)

    return make
