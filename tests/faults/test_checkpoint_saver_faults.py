"""A room's saver and a real server: lost answers and pointers, epochs that cannot be read, and deleted rooms."""

from collections.abc import Iterator

import pytest

import holdfast
from holdfast import Checkpoints, CheckpointSaver, SaveOutcome
from holdfast_server.checkpoints.names import RoomId
from holdfast_server.errors import Reason, Unavailable
from holdfast_server.objects.body import Body
from holdfast_server.objects.memory import MemoryStore
from tests.support.any_checkpoints import footer_of
from tests.support.checkpoint_damage import KEY_ID
from tests.support.checkpoint_stores import ServedCheckpoints
from tests.support.disk_operations import read
from tests.support.meddled_store import MeddledStore

_ROOM = RoomId("duel-7")
_FORM_AT = 8
"""Where a head has the version of its form."""


@pytest.fixture
def objects() -> MeddledStore:
    """What is stored."""
    return MeddledStore(MemoryStore())


@pytest.fixture
def checkpoints(objects: MeddledStore) -> Iterator[Checkpoints]:
    """A client's."""
    with ServedCheckpoints(objects) as served, holdfast.connect(served.address, retries=0) as client:
        yield client.checkpoints


class _Door:
    """The state of a room that opens and shuts."""

    def __init__(self) -> None:
        self.state = b"open"

    def saver(self, checkpoints: Checkpoints, start_epoch: int | None = 0) -> CheckpointSaver:
        return CheckpointSaver(checkpoints, _ROOM.text, lambda: self.state, start_epoch=start_epoch)


@pytest.fixture
def door() -> _Door:
    """The room."""
    return _Door()


def _loaded(checkpoints: Checkpoints) -> tuple[int, bytes]:
    with checkpoints.load(_ROOM.text) as reader:
        return reader.info.epoch, reader.read()


def test_a_state_that_returns_after_a_lost_answer_is_what_is_restored(
    checkpoints: Checkpoints, objects: MeddledStore, door: _Door
) -> None:
    def lose(operation: str, name: str) -> None:
        if operation == "put" and name == _ROOM.pointer_key.text:
            raise Unavailable(Reason.BACKEND_UNAVAILABLE, "the answer is lost")

    saver = door.saver(checkpoints)
    saver.step()
    door.state = b"shut"
    objects.after = lose
    assert saver.step() is None
    objects.calm()
    assert _loaded(checkpoints) == (1, b"shut")
    door.state = b"open"
    assert saver.step() is not None
    assert _loaded(checkpoints) == (2, b"open")


@pytest.mark.parametrize(
    ("at", "kind"), [(KEY_ID[0], holdfast.SealKeyUnavailable), (_FORM_AT, holdfast.SealTooNew)], ids=["key", "form"]
)
def test_an_epoch_that_the_server_cannot_read_holds_no_room_up(
    checkpoints: Checkpoints, objects: MeddledStore, door: _Door, at: int, kind: type[holdfast.HoldfastError]
) -> None:
    saver = door.saver(checkpoints)
    saver.step()
    left = bytearray(read(objects, _ROOM.epoch_key(0)))
    for start in (0, footer_of(bytes(left))):
        left[start + at] ^= 8
    objects.put(_ROOM.epoch_key(1), Body.of(bytes(left)))
    with pytest.raises(kind) as caught:
        checkpoints.save(_ROOM.text, 1, b"shut")
    assert isinstance(caught.value, holdfast.SealKeyUnavailable | holdfast.SealTooNew)
    assert caught.value.next_epoch == 2
    door.state = b"shut"
    saved = saver.step()
    assert saved is not None
    assert saved.outcome is SaveOutcome.STORED
    assert _loaded(checkpoints) == (2, b"shut")


def test_a_room_that_is_deleted_while_it_runs_stays_deleted(
    checkpoints: Checkpoints, objects: MeddledStore, door: _Door
) -> None:
    saver = door.saver(checkpoints)
    for state in (b"open", b"shut", b"broken"):
        door.state = state
        saver.step()
    deleted = checkpoints.delete_room(_ROOM.text)
    door.state = b"mended"
    puts = objects.calls["put"]
    assert saver.step() is None
    drained = saver.drain()
    assert objects.calls["put"] == puts
    assert isinstance(drained.error, holdfast.EpochTooOld)
    assert drained.error.deleted
    assert drained.error.next_epoch == deleted.next_epoch
    with pytest.raises(holdfast.NotFound):
        checkpoints.load(_ROOM.text)
    begun = door.saver(checkpoints, drained.error.next_epoch)
    assert begun.step() is not None
    assert _loaded(checkpoints) == (deleted.next_epoch, b"mended")


@pytest.mark.parametrize("start_epoch", [0, 1, 5, None])
def test_a_room_that_lost_its_pointer_is_not_begun_over_what_it_has(
    checkpoints: Checkpoints, objects: MeddledStore, door: _Door, start_epoch: int | None
) -> None:
    for epoch in (0, 1, 5):
        checkpoints.save(_ROOM.text, epoch, b"hours of play")
    objects.delete(_ROOM.pointer_key)
    with ServedCheckpoints(objects) as fresh, holdfast.connect(fresh.address, retries=0) as client:
        saver = door.saver(client.checkpoints, start_epoch)
        assert saver.step() is None
        drained = saver.drain()
        assert isinstance(drained.error, holdfast.EpochTooOld)
        assert (drained.error.deleted, drained.error.next_epoch) == (False, 6)
        assert [entry.epoch for entry in client.checkpoints.list(_ROOM.text)] == [0, 1, 5]
        with client.checkpoints.load(_ROOM.text, fallback=True) as reader:
            assert (reader.read(), reader.info.epoch, reader.info.next_epoch) == (b"hours of play", 5, 6)
        assert door.saver(client.checkpoints, reader.info.next_epoch).step() is not None
        assert _loaded(client.checkpoints) == (6, b"open")


@pytest.mark.parametrize("start_epoch", [0, None])
def test_a_room_of_a_name_that_was_deleted_is_begun_anew(
    checkpoints: Checkpoints, door: _Door, start_epoch: int | None
) -> None:
    checkpoints.save(_ROOM.text, 3, b"before")
    deleted = checkpoints.delete_room(_ROOM.text)
    assert door.saver(checkpoints, start_epoch).step() is not None
    assert _loaded(checkpoints) == (deleted.next_epoch, b"open")


def test_a_saver_that_has_not_heard_that_its_room_was_begun_anew_does_not_overwrite_it(
    checkpoints: Checkpoints, door: _Door
) -> None:
    saver = door.saver(checkpoints)
    saver.step()
    deleted = checkpoints.delete_room(_ROOM.text)
    checkpoints.save(_ROOM.text, deleted.next_epoch, b"anew")
    door.state = b"shut"
    assert saver.step() is None
    assert saver.is_stopped
    assert _loaded(checkpoints) == (deleted.next_epoch, b"anew")
