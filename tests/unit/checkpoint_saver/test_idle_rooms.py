"""A room that has not changed is not saved again, and one that has is."""

from typing import Any

import pytest

import holdfast
from tests.support.played_room import Game, Make
from tests.support.room_store import Fault, RoomStore


class TestIdleRooms:
    @pytest.mark.parametrize("fault", list(Fault))
    @pytest.mark.parametrize("judged", ["by its bytes", "by a mark", "by being asked"])
    def test_one_that_returns_to_the_state_before_a_failed_save_is_saved(
        self, make: Make, store: RoomStore, game: Game, fault: Fault, judged: str
    ) -> None:
        changes = iter([True])  # then it has not changed
        asked = {"changed": lambda: next(changes, False)} if judged == "by being asked" else {}
        saver = make(only_when_marked=judged == "by a mark", **asked)
        saver.step()
        game.state = b"1"
        if judged == "by a mark":
            saver.mark_changed()
        store.faults = [fault]
        saver.step()
        assert saver.last_error is not None
        game.state = b"0"
        assert saver.step() is not None
        store.land_late()
        assert store.payloads[store.latest] == b"0"
        assert saver.step() is None
        assert saver.last_error is None

    def test_the_same_bytes_are_not_saved_again(self, make: Make, store: RoomStore, game: Game) -> None:
        saver = make()
        saver.step()
        assert saver.step() is None
        assert saver.last_error is None
        game.play()
        saver.step()
        assert store.tried == [(0, b"0"), (1, b"1")]

    def test_changed_is_asked_before_a_state_is_taken(self, make: Make, store: RoomStore, game: Game) -> None:
        changes = [False, True, False]
        saver = make(changed=lambda: changes.pop(0))
        for _ in range(4):  # a new room is saved unasked
            saver.step()
        assert (len(store.tried), game.taken, changes) == (2, 2, [])

    def test_only_marked_rooms_are_saved(self, make: Make, store: RoomStore) -> None:
        saver = make(only_when_marked=True)
        saver.step()
        saver.step()
        saver.mark_changed()
        saver.step()
        saver.step()
        assert len(store.tried) == 2

    def test_a_restored_room_is_idle_until_it_changes(self, make: Make, store: RoomStore) -> None:
        changes = [False, True]
        saver = make(start_epoch=5, changed=lambda: changes.pop(0))
        saver.step()
        assert store.tried == []
        saver.step()
        assert store.tried == [(5, b"0")]

    @pytest.mark.parametrize("options", [{"changed": lambda: False}, {"only_when_marked": True}, {}])
    def test_a_failed_save_is_tried_again_though_nothing_changed(
        self, make: Make, store: RoomStore, options: dict[str, Any]
    ) -> None:
        saver = make(**options)
        saver.step()
        saver.mark_changed()
        store.faults = [holdfast.StorageFull("STORAGE_FULL", "full")]
        if not options:
            store.payloads.clear()
            saver._saved_sha256 = None
        saver.step()
        assert isinstance(saver.last_error, holdfast.StorageFull)
        assert saver.step() is not None

    def test_what_changes_while_a_save_is_at_work_is_saved_next(self, make: Make, store: RoomStore, game: Game) -> None:
        saver = make(only_when_marked=True)

        def play() -> None:
            store.meanwhile = None
            game.play()
            saver.mark_changed()

        store.meanwhile = play
        saver.step()
        saver.step()
        assert store.tried == [(0, b"0"), (1, b"1")]
