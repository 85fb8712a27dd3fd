"""A room that was deleted while it was played is not brought back by saving it."""

from typing import Any

import pytest

import holdfast
from holdfast import CheckpointSaver
from tests.support.played_room import Game, Make
from tests.support.room_store import FakeClock, RoomStore


class TestDeletedRooms:
    def _run_until_deleted(self, make: Make, store: RoomStore, game: Game, **options: Any) -> CheckpointSaver:
        saver = make(**options)
        saver.step()
        store.delete()
        game.play()
        saver.mark_changed()
        return saver

    @pytest.mark.parametrize("start_epoch", [0, None, 7])
    def test_one_that_was_saved_is_not_brought_back(
        self, make: Make, store: RoomStore, game: Game, start_epoch: int | None
    ) -> None:
        told: list[BaseException] = []
        saver = self._run_until_deleted(make, store, game, start_epoch=start_epoch, on_failure=told.append)
        assert not saver.is_stopped
        assert saver.step() is None
        assert saver.is_stopped
        assert isinstance(saver.last_error, holdfast.EpochTooOld)
        assert saver.last_error.deleted
        tried, taken = len(store.tried), game.taken
        game.play()
        assert saver.step() is None
        drained = saver.drain()
        assert (drained.saved, drained.error) == (None, saver.last_error)
        assert told == [drained.error]
        assert (store.payloads, len(store.tried), game.taken) == ({}, tried, taken)
        assert saver.drain() is drained

    def test_one_that_was_restored_is_not_brought_back(self, make: Make, store: RoomStore) -> None:
        store.done(6, b"before")
        store.delete()
        saver = make(start_epoch=5)
        assert saver.step() is None
        assert saver.is_stopped
        assert store.payloads == {}

    def test_one_that_is_deleted_before_it_is_drained_is_not_brought_back(
        self, make: Make, store: RoomStore, game: Game
    ) -> None:
        saver = self._run_until_deleted(make, store, game)
        tried = len(store.tried)
        drained = saver.drain()
        assert isinstance(drained.error, holdfast.EpochTooOld)
        assert (drained.saved, drained.error, saver.last_error) == (None, drained.error, drained.error)
        assert (store.payloads, len(store.tried)) == ({}, tried + 1)

    def test_one_whose_past_was_deleted_before_it_began_is_begun_above_at_once(
        self, make: Make, store: RoomStore
    ) -> None:
        store.done(8, b"another's")
        store.delete()
        saver = make(start_epoch=0)
        assert saver.step() is not None
        assert (store.tried, store.latest) == ([(0, b"0"), (store.floor, b"0")], store.floor)

    def test_one_that_is_deleted_before_its_first_save_is_begun_above_at_once(
        self, make: Make, store: RoomStore
    ) -> None:
        def delete() -> None:
            store.meanwhile = None
            store.delete()

        store.done(4, b"another's")
        store.meanwhile = delete
        assert make(start_epoch=None).step() is not None
        assert store.tried == [(5, b"0"), (store.floor, b"0")]

    def test_one_is_begun_anew_by_another_saver(self, make: Make, store: RoomStore, game: Game) -> None:
        ended = self._run_until_deleted(make, store, game)
        ended.step()
        assert isinstance(ended.last_error, holdfast.EpochTooOld)
        for start_epoch in (ended.last_error.next_epoch, None):
            assert make(start_epoch=start_epoch).step() is not None
        assert sorted(store.payloads) == [store.floor, store.floor + 1]

    def test_where_to_go_on_need_not_be_told_with_it(self, make: Make, store: RoomStore) -> None:
        store.faults = [holdfast.EpochTooOld("EPOCH_TOO_OLD", "deleted", {"deleted": "true"})]
        saver = make(start_epoch=5)
        saver.step()
        saver.drain()
        assert (store.tried, store.asked, saver.is_stopped) == ([(5, b"0")], 0, True)

    def test_its_thread_ends(self, make: Make, store: RoomStore) -> None:
        clock = FakeClock(passes=False)
        saver = make(clock=clock, start_epoch=5)
        store.floor = 9
        saver.start()
        clock.now += 30
        assert saver._thread is not None
        saver._thread.join(30)
        assert not saver._thread.is_alive()
