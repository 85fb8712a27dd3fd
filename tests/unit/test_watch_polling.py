"""Looking for others' saves: a pointer that cannot be read keeps no other one from being read."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from holdfast_server import calls
from holdfast_server.checkpoints.key_ring import FixedKeys, KeyRing
from holdfast_server.checkpoints.names import RoomId
from holdfast_server.checkpoints.pointers import Pointers, Target
from holdfast_server.checkpoints.watching import Seen, Watches
from holdfast_server.errors import BackendRefused, DeadlineExceeded, Overloaded, Reason, Unavailable
from holdfast_server.objects.memory import MemoryStore
from holdfast_server.workers import Workers
from tests.support.meddled_store import MeddledStore

ROOMS = [RoomId(name) for name in ("a", "b", "c")]
TAG = b"t" * 32
SECONDS = 60
SOON = 0.01

ERRORS: dict[str, Callable[[], Exception]] = {
    "away": lambda: Unavailable(Reason.BACKEND_UNAVAILABLE, "away"),
    "refused": lambda: BackendRefused(Reason.BACKEND_AUTH, "denied"),
    "busy": lambda: Overloaded("busy"),
    "slow": lambda: DeadlineExceeded("it took too long"),
}


@pytest.fixture
def objects() -> MeddledStore:
    return MeddledStore(MemoryStore())


@pytest.fixture
def keys() -> FixedKeys:
    return FixedKeys(KeyRing.fresh())


@pytest.fixture
def others(objects: MeddledStore, keys: FixedKeys) -> Pointers:
    """Those of another server, which nobody meddles with."""
    return Pointers(objects.inner, keys)


Watching = Iterator[Seen]


@pytest.fixture(params=[1, 4], ids=["one by one", "four at once"])
def watch(
    request: pytest.FixtureRequest, objects: MeddledStore, keys: FixedKeys, others: Pointers
) -> Iterator[Watching]:
    """A watch of three rooms at epoch 1, which was told of them."""
    for room in ROOMS:
        move(others, room, 1)
    with closing(Workers()) as workers:
        pointers = Pointers(objects, keys)
        watches = Watches(pointers, workers, interval_seconds=SOON, most=4, at_once=request.param)
        call = calls.Call(time.monotonic() + SECONDS)
        with closing(watches), calls.working_for(call):
            news = watches.watch(ROOMS)
            assert [next(news).epoch for _ in ROOMS] == [1, 1, 1]
            yield news


def move(pointers: Pointers, room: RoomId, epoch: int) -> None:
    pointers.advance(Target(room, epoch, TAG), pointers.read(room))


@pytest.mark.parametrize("how", ERRORS)
@pytest.mark.parametrize("failing", ROOMS, ids=str)
def test_others_are_read_while_one_rooms_pointer_cannot_be(
    watch: Watching, objects: MeddledStore, others: Pointers, failing: RoomId, how: str
) -> None:
    def fail(_operation: str, name: str) -> None:
        if name == failing.pointer_key.text:
            error = ERRORS[how]()
            raise error

    objects.before = fail
    for room in ROOMS:
        if room != failing:
            move(others, room, 2)
            assert next(watch) == Seen(room, 2)
    move(others, failing, 3)
    objects.calm()
    assert next(watch) == Seen(failing, 3), "which is told as soon as it can be read, and nothing of its trouble"


def test_others_are_read_where_ones_fails_as_nobody_foresaw(
    watch: Watching, objects: MeddledStore, others: Pointers, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_operation: str, name: str) -> None:
        if name == ROOMS[0].pointer_key.text:
            raise RuntimeError("nobody foresaw this")

    objects.before = fail
    for epoch in (2, 3):
        for room in ROOMS[1:]:
            move(others, room, epoch)
            assert next(watch) == Seen(room, epoch)
    assert "Watched pointer could not be read" in caplog.text
    move(others, ROOMS[0], 4)
    objects.calm()
    assert next(watch) == Seen(ROOMS[0], 4)
