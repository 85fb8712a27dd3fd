"""A room that has checkpoints but no pointer is not begun over them, whatever a saver was told of where to start."""

import pytest

import holdfast
from holdfast import CheckpointSaver
from tests.support.played_room import Game, Make
from tests.support.room_store import Fault, RoomStore


def _ended(saver: CheckpointSaver, store: RoomStore, next_epoch: int) -> None:
    """Let it step, and see that it ends without a change, and says so."""
    before = dict(store.payloads)
    assert saver.step() is None
    error = saver.last_error
    assert isinstance(error, holdfast.EpochTooOld)
    assert (error.deleted, error.next_epoch, saver.is_stopped) == (False, next_epoch, True)
    tried = len(store.tried)
    drained = saver.drain()
    assert (drained.saved, drained.error) == (None, error)
    assert (store.payloads, store.latest, len(store.tried)) == (before, -1, tried)


class TestLostPointers:
    @pytest.fixture
    def lost(self, store: RoomStore) -> RoomStore:
        """A room with the epochs 0 to 4, that has lost its pointer."""
        for epoch in range(5):
            store.done(epoch, b"hours of play")
        store.lose_pointer()
        return store

    @pytest.mark.parametrize("start_epoch", [0, 2, 4, None])
    def test_a_blank_room_is_not_begun_over_it(self, make: Make, lost: RoomStore, start_epoch: int | None) -> None:
        told: list[BaseException] = []
        saver = make(start_epoch=start_epoch, on_failure=told.append)
        _ended(saver, lost, 5)
        assert told == [saver.last_error]

    @pytest.mark.parametrize("start_epoch", [0, None])
    def test_nor_by_a_drain(self, make: Make, lost: RoomStore, start_epoch: int | None) -> None:
        drained = make(start_epoch=start_epoch).drain()
        assert isinstance(drained.error, holdfast.EpochTooOld)
        assert (drained.saved, lost.latest, len(lost.payloads)) == (None, -1, 5)
        assert len(lost.tried) + lost.asked == 1  # it would not pass

    def test_nor_over_its_only_checkpoint(self, make: Make, store: RoomStore) -> None:
        store.done(0, b"all there is")
        store.lose_pointer()
        _ended(make(start_epoch=0), store, 1)

    def test_nor_over_one_that_is_damaged(self, make: Make, store: RoomStore) -> None:
        store.done(0, b"all there was")
        store.damaged.add(0)
        store.lose_pointer()
        _ended(make(start_epoch=0), store, 1)

    def test_where_to_go_on_need_not_be_told_with_it(self, make: Make, store: RoomStore) -> None:
        store.faults = [holdfast.EpochTooOld("EPOCH_TOO_OLD", "no more is said")]
        saver = make(start_epoch=5)
        saver.step()
        saver.drain()
        assert (store.tried, store.asked, saver.is_stopped) == ([(5, b"0")], 0, True)

    @pytest.mark.parametrize("kind", [holdfast.SealKeyUnavailable, holdfast.SealTooNew])
    @pytest.mark.parametrize("start_epoch", [0, 3])
    def test_nor_over_one_that_the_server_cannot_read(
        self, make: Make, lost: RoomStore, kind: type[holdfast.HoldfastError], start_epoch: int
    ) -> None:
        lost.faults = [kind("SEAL", "it cannot be read", {"next_epoch": "5", "latest_epoch": "-1"})]
        saver = make(start_epoch=start_epoch)
        _ended(saver, lost, 5)
        assert isinstance(saver.last_error.__cause__, kind)  # type: ignore[union-attr]  # just asserted

    def test_who_has_saved_goes_on_above_one_that_the_server_cannot_read(
        self, make: Make, store: RoomStore, game: Game
    ) -> None:
        saver = make()
        saver.step()
        game.play()
        details = {"next_epoch": "5", "latest_epoch": "-1"}
        store.faults = [holdfast.SealKeyUnavailable("SEAL_KEY_UNAVAILABLE", "no key", details)]
        assert saver.step() is not None
        assert store.latest == 5

    def test_a_room_with_a_pointer_is_begun_above_one_that_the_server_cannot_read(
        self, make: Make, store: RoomStore
    ) -> None:
        details = {"next_epoch": "5", "latest_epoch": "2"}
        store.faults = [holdfast.SealKeyUnavailable("SEAL_KEY_UNAVAILABLE", "no key", details)]
        assert make().step() is not None
        assert store.tried == [(0, b"0"), (5, b"0")]

    def test_a_deleted_room_is_begun_whatever_else_is_said_of_it(self, make: Make, store: RoomStore) -> None:
        details = {"next_epoch": "1000", "latest_epoch": "-1", "deleted": "true"}
        store.faults = [holdfast.EpochTooOld("EPOCH_TOO_OLD", "deleted", details)]
        assert make().step() is not None
        assert store.latest == 1000

    def test_who_has_loaded_it_goes_on_above(self, make: Make, lost: RoomStore, game: Game) -> None:
        told: list[BaseException] = []
        saver = make(start_epoch=5, on_failure=told.append)
        saver.step()
        game.play()
        saver.step()
        assert (lost.tried, lost.latest, told) == ([(5, b"0"), (6, b"1")], 6, [])

    def test_a_saver_passes_by_what_it_left_itself(self, make: Make, store: RoomStore, game: Game) -> None:
        told: list[BaseException] = []
        saver = make(on_failure=told.append)
        store.faults = [Fault.ORPHAN]
        saver.step()
        assert (store.latest, len(told)) == (-1, 1)
        game.play()
        assert saver.step() is not None
        assert (store.payloads, store.latest) == ({0: b"0", 1: b"1"}, 1)


class TestOthersCheckpoints:
    """Where there is a pointer, a saver goes on above what it finds; but at first not without a word."""

    @pytest.mark.parametrize("start_epoch", [0, 5])
    def test_who_begins_beneath_them_is_told(self, make: Make, store: RoomStore, start_epoch: int) -> None:
        store.done(20, b"another's")
        store.done(start_epoch, b"another's")
        told: list[BaseException] = []
        saver = make(start_epoch=start_epoch, on_failure=told.append)
        saved = saver.step()
        assert saved is not None
        assert (saved.latest_epoch, saver.last_error) == (21, None)
        assert [type(error) for error in told] == [holdfast.AlreadyExists]

    def test_who_begins_where_one_was_pruned_is_told(self, make: Make, store: RoomStore) -> None:
        store.done(20, b"another's")
        told: list[BaseException] = []
        assert make(start_epoch=0, on_failure=told.append).step() is not None
        assert [type(error) for error in told] == [holdfast.ConcurrentModification]

    def test_whose_room_was_deleted_before_is_told(self, make: Make, store: RoomStore) -> None:
        store.done(3, b"another's")
        store.delete()
        told: list[BaseException] = []
        assert make(start_epoch=0, on_failure=told.append).step() is not None
        assert [type(error) for error in told] == [holdfast.EpochTooOld]

    def test_who_has_saved_is_not(self, make: Make, store: RoomStore, game: Game) -> None:
        told: list[BaseException] = []
        saver = make(on_failure=told.append)
        saver.step()
        store.done(1, b"another's")
        game.play()
        assert saver.step() is not None
        assert (told, store.latest) == ([], 2)
