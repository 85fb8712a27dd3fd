"""The last save of a room, for which there is a time."""

from typing import Any

import pytest

import holdfast
from tests.support.played_room import Game, Make
from tests.support.room_store import FakeClock, Fault, RoomStore, away


class TestDraining:
    def test_an_idle_room_is_saved_once_more_at_a_higher_epoch(self, make: Make, store: RoomStore) -> None:
        saver = make()
        saver.step()
        drained = saver.drain()
        assert drained.error is None
        assert drained.saved is not None
        assert drained.saved.latest_epoch == 1
        assert store.payloads == {0: b"0", 1: b"0"}

    @pytest.mark.parametrize("options", [{"changed": lambda: False}, {"only_when_marked": True}])
    def test_nobody_is_asked_whether_to_save_once_more(
        self, make: Make, store: RoomStore, options: dict[str, Any]
    ) -> None:
        make(start_epoch=5, **options).drain()
        assert store.tried == [(5, b"0")]

    def test_nothing_is_saved_after_it(self, make: Make, store: RoomStore, game: Game) -> None:
        saver = make()
        drained = saver.drain()
        game.play()
        saver.mark_changed()
        assert saver.step() is None
        assert saver.drain() is drained
        assert store.tried == [(0, b"0")]
        assert (game.taken, saver.last_error) == (1, None)

    def test_a_stopped_saver_saves_only_when_it_is_drained(self, make: Make, store: RoomStore) -> None:
        saver = make()
        assert not saver.is_stopped
        saver.stop()
        assert saver.is_stopped
        assert saver.step() is None
        assert store.tried == []
        saver.drain()
        assert store.tried == [(0, b"0")]

    def test_it_is_tried_again_while_there_is_time(self, make: Make, store: RoomStore, clock: FakeClock) -> None:
        store.faults = [away(), Fault.LOST, Fault.LATE]
        saver = make()
        began = clock.now
        drained = saver.drain(timeout=60)
        assert drained.saved is not None
        assert clock.now - began <= 60
        assert len(store.tried) == 4

    def test_it_ends_in_time_with_a_store_that_stays_away(self, make: Make, store: RoomStore, clock: FakeClock) -> None:
        store.faults = [Fault.REFUSED] * 1000
        saver = make()
        began = clock.now
        drained = saver.drain(timeout=60)
        assert isinstance(drained.error, holdfast.Unavailable)
        assert drained.saved is None
        assert 20 < clock.now - began < 60
        assert saver.drain() is drained

    def test_what_does_not_pass_is_told_at_once(self, make: Make, store: RoomStore, clock: FakeClock) -> None:
        full = holdfast.StorageFull("STORAGE_FULL", "full")
        store.faults = [full]
        began = clock.now
        assert make().drain().error is full
        assert clock.now == began

    def test_the_block_of_a_saver_ends_with_it(self, make: Make, store: RoomStore, clock: FakeClock) -> None:
        with make(period_seconds=1e9, random=lambda: 1.0, jitter=0.0, clock=FakeClock(passes=False)):
            assert store.tried == []
        assert store.payloads == {0: b"0"}
