"""The last save of a room, for which there is a time."""

from typing import Any

import grpc
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

    @pytest.mark.parametrize(
        "error",
        [
            holdfast.StorageFull("SPOOL_FULL", "full"),
            holdfast.StorageFull("STORAGE_FULL", "full"),
            holdfast.ConcurrentModification("CONCURRENT_MODIFICATION", "raced"),
            holdfast.Cancelled("CANCELLED", "cut"),
            holdfast.InternalError("INTERNAL", "a fault"),
            holdfast.BrokenUpload("CHECKSUM_MISMATCH", "it did not arrive whole"),
            holdfast.SealKeyUnavailable("SEAL_KEY_UNAVAILABLE", "retired just now"),
            holdfast.BackendRefused("BACKEND_AUTH", "credentials are replaced"),
            holdfast.PointerInvalid("POINTER_INVALID", "badly read"),
            RuntimeError("dictionary changed size during iteration"),
        ],
        ids=lambda error: getattr(error, "reason", type(error).__name__),
    )
    def test_the_last_state_is_not_given_up_for_what_may_pass(
        self, make: Make, store: RoomStore, clock: FakeClock, error: Exception
    ) -> None:
        store.faults = [error, error]
        told: list[BaseException] = []
        began = clock.now
        drained = make(on_failure=told.append).drain()
        assert (drained.error, told, store.payloads) == (None, [error, error], {0: b"0"})
        assert clock.now - began == pytest.approx(0.75 + 1.5)

    def test_a_room_that_is_taken_again_and_again_is_tried_again(self, make: Make, store: RoomStore) -> None:
        def faster() -> None:
            store.done(store.tried[-1][0], b"another's")
            if len(store.tried) == 7:
                store.meanwhile = None

        store.meanwhile = faster
        drained = make().drain()
        assert drained.saved is not None
        assert (drained.error, len(store.tried), store.payloads[store.latest]) == (None, 8, b"0")

    @pytest.mark.parametrize(
        "error",
        [
            holdfast.InvalidArgument("TOO_LARGE", "too large"),
            holdfast.ReadOnly("READ_ONLY", "read-only"),
            holdfast.ConditionUnsupported("CONDITION_UNSUPPORTED", "it cannot"),
            holdfast.SealTooNew("SEAL_TOO_NEW", "it does not know the form"),
            *(
                holdfast.InternalError(code.name, "by gRPC")
                for code in (
                    grpc.StatusCode.UNAUTHENTICATED,
                    grpc.StatusCode.PERMISSION_DENIED,
                    grpc.StatusCode.UNIMPLEMENTED,
                )
            ),
            ValueError("the client is closed"),
        ],
        ids=lambda error: getattr(error, "reason", type(error).__name__),
    )
    def test_what_no_repetition_mends_is_told_at_once(
        self, make: Make, store: RoomStore, clock: FakeClock, error: Exception
    ) -> None:
        store.faults = [error]
        began = clock.now
        assert make().drain().error is error
        assert (clock.now, len(store.tried)) == (began, 1)

    def test_the_block_of_a_saver_ends_with_it(self, make: Make, store: RoomStore, clock: FakeClock) -> None:
        with make(period_seconds=1e9, random=lambda: 1.0, jitter=0.0, clock=FakeClock(passes=False)):
            assert store.tried == []
        assert store.payloads == {0: b"0"}
