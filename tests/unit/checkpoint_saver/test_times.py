"""When a room is saved, and how soon again after a failure. Time is given, not slept."""

from typing import Any

import pytest

import holdfast
from tests.support.played_room import Make
from tests.support.room_store import FakeClock, Fault, RoomStore


class TestTimes:
    def test_the_first_save_comes_at_a_random_part_of_the_period(self, make: Make, clock: FakeClock) -> None:
        for part in (0.0, 0.25, 1.0):
            assert make(period_seconds=30, random=lambda part=part: part).due == clock.now + 30 * part

    @pytest.mark.parametrize(("drawn", "seconds"), [(0.0, 27.0), (0.5, 30.0), (1.0, 33.0)])
    def test_periods_are_jittered(self, make: Make, clock: FakeClock, drawn: float, seconds: float) -> None:
        saver = make(random=lambda: drawn, jitter=0.1)
        clock.now = saver.due
        saver.step()
        assert saver.due == pytest.approx(clock.now + seconds)

    def test_the_period_is_counted_from_the_beginning_of_a_save(
        self, make: Make, store: RoomStore, clock: FakeClock
    ) -> None:
        def slowly() -> None:
            clock.now += 12

        store.meanwhile = slowly
        saver = make()
        began = clock.now
        saver.step()
        assert saver.due == began + 30

    def test_what_may_pass_is_tried_soon_and_more_slowly_each_time(
        self, make: Make, store: RoomStore, clock: FakeClock
    ) -> None:
        saver = make(period_seconds=5)
        store.faults = [Fault.REFUSED] * 5
        pauses = []
        for _ in range(6):
            saver.step()
            pauses.append(saver.due - clock.now)
        assert pauses == pytest.approx([0.75, 1.5, 3.0, 3.75, 3.75, 5.0])
        store.faults = [Fault.REFUSED]
        saver.mark_changed()
        saver._saved_sha256 = None
        saver.step()
        assert saver.due - clock.now == pytest.approx(0.75)

    def test_the_server_is_not_asked_before_the_time_that_it_says(
        self, make: Make, store: RoomStore, clock: FakeClock
    ) -> None:
        store.faults = [holdfast.Overloaded("OVERLOADED", "busy", retry_after_seconds=7.0)]
        saver = make()
        saver.step()
        assert saver.due == clock.now + 7

    @pytest.mark.parametrize(
        "error",
        [
            holdfast.StorageFull("STORAGE_FULL", "full"),
            holdfast.PointerInvalid("POINTER_INVALID", "damaged"),
            holdfast.SealKeyUnavailable("SEAL_KEY_UNAVAILABLE", "no key"),
            OSError("of the snapshot"),
        ],
    )
    def test_what_does_not_pass_waits_for_the_next_period(
        self, make: Make, store: RoomStore, clock: FakeClock, error: Exception
    ) -> None:
        store.faults = [error]
        saver = make()
        saver.step()
        assert saver.last_error is error
        assert saver.due == clock.now + 30

    def test_a_save_with_its_tries_is_bounded(self, make: Make, store: RoomStore, clock: FakeClock) -> None:
        def slowly() -> None:
            clock.now += 11
            store.done(store.tried[-1][0], b"another's")

        store.meanwhile = slowly
        saver = make(save_timeout_seconds=30)
        saver.step()
        assert isinstance(saver.last_error, holdfast.DeadlineExceeded)
        assert len(store.tried) == 3

    @pytest.mark.parametrize(
        "options", [{"period_seconds": 0}, {"jitter": 1.5}, {"jitter": -0.1}, {"save_timeout_seconds": 0}]
    )
    def test_times_that_make_no_sense_are_refused(self, make: Make, options: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="above 0"):
            make(**options)
