"""At which epoch a room is saved, and what becomes of one that is taken, damaged, or not answered for."""

import pytest

import holdfast
from holdfast import SaveOutcome
from tests.support.played_room import Game, Make
from tests.support.room_store import Fault, RoomStore, away


class TestEpochs:
    def test_each_success_advances_the_epoch(self, make: Make, store: RoomStore, game: Game) -> None:
        saver = make(start_epoch=7)
        for epoch in (7, 8, 9):
            game.play()
            saved = saver.step()
            assert saved is not None
            assert (saved.outcome, saved.latest_epoch) == (SaveOutcome.STORED, epoch)
            assert saver.last_saved == saved
        assert store.payloads == {7: b"1", 8: b"2", 9: b"3"}

    def test_without_a_start_the_server_is_asked_once(self, make: Make, store: RoomStore, game: Game) -> None:
        store.done(4, b"old")
        saver = make(start_epoch=None)
        assert saver.epoch is None
        saver.step()
        game.play()
        saver.step()
        assert (store.tried, store.asked) == ([(5, b"0"), (6, b"1")], 1)

    def test_a_server_that_could_not_be_asked_is_asked_again(self, make: Make, store: RoomStore) -> None:
        store.faults = [away()]
        saver = make(start_epoch=None)
        assert saver.step() is None
        assert isinstance(saver.last_error, holdfast.Unavailable)
        assert saver.step() is not None
        assert (store.tried, store.asked) == ([(0, b"0")], 2)

    def test_a_failed_save_is_tried_at_the_same_epoch_with_the_state_of_then(
        self, make: Make, store: RoomStore, game: Game
    ) -> None:
        saver = make()
        store.faults = [Fault.REFUSED, Fault.REFUSED]
        for _ in range(3):
            game.play()
            saver.step()
        assert store.tried == [(0, b"1"), (0, b"2"), (0, b"3")]
        assert (store.payloads, saver.epoch, saver.last_error) == ({0: b"3"}, 1, None)

    def test_a_lost_answer_and_then_the_same_state_is_a_success(self, make: Make, store: RoomStore) -> None:
        saver = make()
        store.faults = [Fault.LOST]
        assert saver.step() is None
        assert saver.epoch == 0
        saved = saver.step()
        assert saved is not None
        assert saved.outcome is SaveOutcome.EXISTS_SAME
        assert (store.payloads, saver.epoch, saver.last_error) == ({0: b"0"}, 1, None)

    def test_a_lost_answer_and_then_another_state_is_saved_above_at_once(
        self, make: Make, store: RoomStore, game: Game
    ) -> None:
        saver = make()
        store.faults = [Fault.LOST]
        saver.step()
        game.play()
        assert saver.step() is not None
        assert store.tried == [(0, b"0"), (0, b"1"), (1, b"1")]
        assert (store.payloads, store.latest) == ({0: b"0", 1: b"1"}, 1)

    def test_an_epoch_that_lacked_its_pointer_gets_it(self, make: Make, store: RoomStore) -> None:
        saver = make()
        store.faults = [Fault.ORPHAN]
        saver.step()
        assert store.latest == -1
        assert saver.step() is not None
        assert (store.latest, saver.epoch) == (0, 1)

    def test_a_damaged_epoch_is_passed_by_at_once(self, make: Make, store: RoomStore) -> None:
        store.done(3, b"damaged")
        store.damaged.add(3)
        saver = make(start_epoch=3)
        assert saver.step() is not None
        assert (store.tried, store.latest) == ([(3, b"0"), (4, b"0")], 4)

    @pytest.mark.parametrize("kind", [holdfast.SealKeyUnavailable, holdfast.SealTooNew])
    def test_an_epoch_that_the_server_cannot_read_is_passed_by_at_once(
        self, make: Make, store: RoomStore, kind: type[holdfast.HoldfastError]
    ) -> None:
        store.faults = [kind("SEAL", "it cannot be read", {"next_epoch": "5"})]
        assert make(start_epoch=3).step() is not None
        assert store.tried == [(3, b"0"), (5, b"0")]

    @pytest.mark.parametrize("kind", [holdfast.SealKeyUnavailable, holdfast.SealTooNew])
    def test_a_pointer_that_the_server_cannot_read_is_a_failure_at_the_same_epoch(
        self, make: Make, store: RoomStore, kind: type[holdfast.HoldfastError]
    ) -> None:
        store.faults = [kind("SEAL", "it cannot be read")]
        saver = make(start_epoch=3)
        assert saver.step() is None
        assert isinstance(saver.last_error, kind)
        assert (store.tried, saver.epoch, store.asked) == ([(3, b"0")], 3, 0)

    @pytest.mark.parametrize("next_epoch", ["6", "9"])
    def test_the_pointers_epoch_whose_checkpoint_is_gone_is_passed_by_at_once(
        self, make: Make, store: RoomStore, game: Game, next_epoch: str
    ) -> None:
        gone = holdfast.PointerInvalid("POINTER_INVALID", "it is gone", {"epoch": "5", "next_epoch": next_epoch})
        told: list[BaseException] = []
        store.faults = [gone]
        restored = make(start_epoch=5, on_failure=told.append)
        assert restored.step() is not None
        assert (told, restored.last_error) == ([gone], None)
        assert [epoch for epoch, _ in store.tried] == [5, int(next_epoch)]

        written = make(start_epoch=int(next_epoch) + 1)
        written.step()
        game.play()
        store.faults = [holdfast.PointerInvalid("POINTER_INVALID", "it is gone", {"next_epoch": "20"})]
        assert written.step() is not None
        assert store.latest == 20

    @pytest.mark.parametrize(
        ("start_epoch", "details"),
        [(0, {"epoch": "0", "next_epoch": "1"}), (5, {}), (5, {"next_epoch": "?"})],
        ids=["begun by nobody here", "of any other pointer", "not a number"],
    )
    def test_a_bad_pointer_is_else_a_failure_at_the_same_epoch(
        self, make: Make, store: RoomStore, start_epoch: int, details: dict[str, str]
    ) -> None:
        store.faults = [holdfast.PointerInvalid("POINTER_INVALID", "bad", details)]
        saver = make(start_epoch=start_epoch)
        assert saver.step() is None
        assert isinstance(saver.last_error, holdfast.PointerInvalid)
        assert (len(store.tried), saver.epoch, saver.is_stopped) == (1, start_epoch, False)

    def test_where_the_server_does_not_say_where_to_go_on_it_is_asked(
        self, make: Make, store: RoomStore, game: Game
    ) -> None:
        saver = make()
        saver.step()
        game.play()
        store.done(5, b"another's")
        store.faults = [holdfast.EpochTooOld("EPOCH_TOO_OLD", "no more is said")]
        assert saver.step() is None
        assert saver.step() is not None
        assert (store.tried, store.asked) == ([(0, b"0"), (1, b"1"), (6, b"1")], 1)

    def test_a_room_that_loses_its_pointer_after_it_was_saved_goes_on_above_at_once(
        self, make: Make, store: RoomStore, game: Game
    ) -> None:
        saver = make(start_epoch=5)
        saver.step()
        game.play()
        store.done(7, b"another's")
        store.lose_pointer()
        assert saver.step() is not None
        assert store.tried == [(5, b"0"), (6, b"1"), (8, b"1")]

    def test_an_orphan_above_does_not_win(self, make: Make, store: RoomStore, game: Game) -> None:
        saver = make()
        store.done(1, b"orphan", moves=False)
        saver.step()
        game.play()
        saver.step()
        assert (store.tried, store.latest) == ([(0, b"0"), (2, b"1")], 2)

    def test_a_state_that_is_not_the_latest_is_saved_above_at_once(self, make: Make, store: RoomStore) -> None:
        store.done(20, b"another's")
        saver = make(start_epoch=5)
        saved = saver.step()
        assert saved is not None
        assert saved.latest_epoch == 21
        assert (store.tried, store.payloads[21]) == ([(5, b"0"), (21, b"0")], b"0")

    def test_epochs_that_are_taken_again_and_again_are_tried_a_few_times_only(
        self, make: Make, store: RoomStore
    ) -> None:
        def faster() -> None:
            store.done(store.tried[-1][0], b"another's")

        store.meanwhile = faster
        saver = make()
        assert saver.step() is None
        assert isinstance(saver.last_error, holdfast.AlreadyExists)
        assert [epoch for epoch, _ in store.tried] == [0, 1, 2, 3, 4]
        store.meanwhile = None
        assert saver.step() is not None
        assert store.latest == 5

    def test_an_older_state_that_lands_late_is_never_at_a_higher_epoch(
        self, make: Make, store: RoomStore, game: Game
    ) -> None:
        saver = make()
        store.faults = [Fault.LATE, Fault.LATE]
        for _ in range(3):
            saver.step()
            game.play()
        store.land_late()
        assert (store.payloads, store.latest) == ({0: b"2"}, 0)
