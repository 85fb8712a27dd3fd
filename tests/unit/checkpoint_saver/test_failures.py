"""What is told of a save that failed."""

import pytest

import holdfast
from tests.support.played_room import Make
from tests.support.room_store import FakeClock, RoomStore, away


class TestFailures:
    def test_failures_are_told_until_a_save_succeeds(self, make: Make, store: RoomStore) -> None:
        told: list[BaseException] = []
        saver = make(on_failure=told.append)
        full = holdfast.StorageFull("STORAGE_FULL", "full")
        store.faults = [full]
        saver.step()
        assert (told, saver.last_error) == ([full], full)
        saver.step()
        assert (told, saver.last_error) == ([full], None)

    def test_what_is_told_of_a_failure_may_fail_itself(self, make: Make, store: RoomStore) -> None:
        def fail(error: BaseException) -> None:
            raise RuntimeError

        saver = make(on_failure=fail)
        store.faults = [away()]
        assert saver.step() is None
        assert saver.step() is not None

    def test_a_state_that_cannot_be_taken_is_a_failed_save(self, make: Make, store: RoomStore) -> None:
        flaw = RuntimeError("no state")
        flaws = [flaw]

        def snapshot() -> bytes:
            if flaws:
                raise flaws.pop()
            return b"state"

        saver = make(snapshot)
        assert saver.step() is None
        assert saver.last_error is flaw
        assert saver.step() is not None
        assert store.payloads == {0: b"state"}

    @pytest.mark.parametrize(("state", "kind"), [("a state", "str"), (None, "NoneType"), ([b"a"], "list"), (7, "int")])
    def test_a_state_that_is_no_bytes_is_named_as_that(
        self, make: Make, store: RoomStore, clock: FakeClock, state: object, kind: str
    ) -> None:
        saver = make(lambda: state)
        assert saver.step() is None
        assert str(saver.last_error) == f"snapshot() of room 'duel-7' has to return the state as bytes, not {kind}"
        began = clock.now
        assert isinstance(saver.drain().error, TypeError)
        assert (clock.now, store.tried) == (began, [])

    def test_a_state_that_the_game_goes_on_with_is_saved_as_it_was(self, make: Make, store: RoomStore) -> None:
        state = bytearray(b"before")

        def play() -> None:
            state[:] = b"after!"

        store.meanwhile = play
        assert make(lambda: state).step() is not None
        assert store.payloads == {0: b"before"}
