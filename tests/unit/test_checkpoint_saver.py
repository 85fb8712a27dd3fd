"""The cadence of saving a room: when, at which epoch, and what becomes of a failure. Time is given, not slept."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

import holdfast
from holdfast import CheckpointSaver, SaveOutcome
from tests.support.room_store import FakeClock, Fault, RoomStore
from tests.support.waiting import wait_until

_ROOM = "duel-7"


class _Game:
    """A room being played: its state."""

    def __init__(self) -> None:
        self.state = b"0"
        self.taken = 0

    def snapshot(self) -> bytes:
        self.taken += 1
        return self.state

    def play(self) -> None:
        self.state = str(int(self.state) + 1).encode()


@pytest.fixture
def store() -> RoomStore:
    """Where it is saved."""
    return RoomStore()


@pytest.fixture
def clock() -> FakeClock:
    """A clock that waiting moves."""
    return FakeClock()


@pytest.fixture
def game() -> _Game:
    """What is saved."""
    return _Game()


Make = Callable[..., CheckpointSaver]


@pytest.fixture
def make(store: RoomStore, clock: FakeClock, game: _Game) -> Make:
    """What makes a saver without a thread."""

    def make(snapshot: Callable[[], bytes] = game.snapshot, **options: Any) -> CheckpointSaver:
        given: dict[str, Any] = {"start_epoch": 0, "clock": clock, "random": lambda: 0.5, **options}
        return CheckpointSaver(store, _ROOM, snapshot, **given)

    return make


def _away() -> holdfast.Unavailable:
    return holdfast.Unavailable("UNAVAILABLE", "away")


class TestEpochs:
    def test_each_success_advances_the_epoch(self, make: Make, store: RoomStore, game: _Game) -> None:
        saver = make(start_epoch=7)
        for epoch in (7, 8, 9):
            game.play()
            saved = saver.step()
            assert saved is not None
            assert (saved.outcome, saved.latest_epoch) == (SaveOutcome.STORED, epoch)
            assert saver.last_saved == saved
        assert store.payloads == {7: b"1", 8: b"2", 9: b"3"}

    def test_without_a_start_the_server_is_asked_once(self, make: Make, store: RoomStore, game: _Game) -> None:
        store.done(4, b"old")
        saver = make(start_epoch=None)
        assert saver.epoch is None
        saver.step()
        game.play()
        saver.step()
        assert (store.tried, store.asked) == ([(5, b"0"), (6, b"1")], 1)

    def test_a_server_that_could_not_be_asked_is_asked_again(self, make: Make, store: RoomStore) -> None:
        store.faults = [_away()]
        saver = make(start_epoch=None)
        assert saver.step() is None
        assert isinstance(saver.last_error, holdfast.Unavailable)
        assert saver.step() is not None
        assert (store.tried, store.asked) == ([(0, b"0")], 2)

    def test_a_failed_save_is_tried_at_the_same_epoch_with_the_state_of_then(
        self, make: Make, store: RoomStore, game: _Game
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
        self, make: Make, store: RoomStore, game: _Game
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

    def test_where_the_server_does_not_say_where_to_go_on_it_is_asked(self, make: Make, store: RoomStore) -> None:
        store.floor = 6
        store.faults = [holdfast.EpochTooOld("EPOCH_TOO_OLD", "no more is said")]
        saver = make()
        assert saver.step() is None
        assert saver.step() is not None
        assert (store.tried, store.asked) == ([(0, b"0"), (6, b"0")], 1)

    def test_a_room_that_lost_its_pointer_goes_on_above_at_once(self, make: Make, store: RoomStore) -> None:
        store.faults = [holdfast.EpochTooOld("EPOCH_TOO_OLD", "it has no pointer", {"next_epoch": "8"})]
        assert make(start_epoch=5).step() is not None
        assert store.tried == [(5, b"0"), (8, b"0")]

    def test_an_orphan_above_does_not_win(self, make: Make, store: RoomStore, game: _Game) -> None:
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
        self, make: Make, store: RoomStore, game: _Game
    ) -> None:
        saver = make()
        store.faults = [Fault.LATE, Fault.LATE]
        for _ in range(3):
            saver.step()
            game.play()
        store.land_late()
        assert (store.payloads, store.latest) == ({0: b"2"}, 0)


class TestDeletedRooms:
    def _run_until_deleted(self, make: Make, store: RoomStore, game: _Game, **options: Any) -> CheckpointSaver:
        saver = make(**options)
        saver.step()
        store.delete()
        game.play()
        saver.mark_changed()
        return saver

    @pytest.mark.parametrize("start_epoch", [0, None, 7])
    def test_one_that_was_saved_is_not_brought_back(
        self, make: Make, store: RoomStore, game: _Game, start_epoch: int | None
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
        self, make: Make, store: RoomStore, game: _Game
    ) -> None:
        saver = self._run_until_deleted(make, store, game)
        drained = saver.drain()
        assert isinstance(drained.error, holdfast.EpochTooOld)
        assert (drained.saved, drained.error, saver.last_error) == (None, drained.error, drained.error)
        assert store.payloads == {}

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

    def test_one_is_begun_anew_by_another_saver(self, make: Make, store: RoomStore, game: _Game) -> None:
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


class TestIdleRooms:
    @pytest.mark.parametrize("fault", list(Fault))
    @pytest.mark.parametrize("judged", ["by its bytes", "by a mark", "by being asked"])
    def test_one_that_returns_to_the_state_before_a_failed_save_is_saved(
        self, make: Make, store: RoomStore, game: _Game, fault: Fault, judged: str
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

    def test_the_same_bytes_are_not_saved_again(self, make: Make, store: RoomStore, game: _Game) -> None:
        saver = make()
        saver.step()
        assert saver.step() is None
        assert saver.last_error is None
        game.play()
        saver.step()
        assert store.tried == [(0, b"0"), (1, b"1")]

    def test_changed_is_asked_before_a_state_is_taken(self, make: Make, store: RoomStore, game: _Game) -> None:
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

    def test_what_changes_while_a_save_is_at_work_is_saved_next(
        self, make: Make, store: RoomStore, game: _Game
    ) -> None:
        saver = make(only_when_marked=True)

        def play() -> None:
            store.meanwhile = None
            game.play()
            saver.mark_changed()

        store.meanwhile = play
        saver.step()
        saver.step()
        assert store.tried == [(0, b"0"), (1, b"1")]


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
        store.faults = [_away()]
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

    def test_nothing_is_saved_after_it(self, make: Make, store: RoomStore, game: _Game) -> None:
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
        store.faults = [_away(), Fault.LOST, Fault.LATE]
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


class _Held:
    """A store whose saves wait until the test lets them go on."""

    def __init__(self, store: RoomStore) -> None:
        self.at_work = threading.Event()
        self.go_on = threading.Event()
        store.meanwhile = self._hold

    def _hold(self) -> None:
        self.at_work.set()
        assert self.go_on.wait(30)


class TestThreads:
    def test_one_save_is_at_work_at_a_time(self, make: Make, store: RoomStore) -> None:
        held = _Held(store)
        saver = make()
        thread = threading.Thread(target=saver.step)
        thread.start()
        assert held.at_work.wait(30)
        assert saver.step() is None
        assert len(store.tried) == 1
        held.go_on.set()
        thread.join()
        assert saver.epoch == 1

    def test_a_step_beside_a_long_save_is_due_again_a_period_later(
        self, make: Make, store: RoomStore, clock: FakeClock
    ) -> None:
        held = _Held(store)
        saver = make()
        thread = threading.Thread(target=saver.step)
        thread.start()
        assert held.at_work.wait(30)
        clock.now += 40
        assert saver.step() is None
        assert saver.due == clock.now + 30
        clock.now += 10
        assert saver.step() is None
        assert saver.due == clock.now + 20
        held.go_on.set()
        thread.join()

    def test_draining_waits_for_the_save_at_work_and_saves_above_it(
        self, make: Make, store: RoomStore, game: _Game
    ) -> None:
        held = _Held(store)
        saver = make(clock=FakeClock(passes=False))
        step = threading.Thread(target=saver.step)
        step.start()
        assert held.at_work.wait(30)
        game.play()
        drained: list[holdfast.Drained] = []
        drain = threading.Thread(target=lambda: drained.append(saver.drain()))
        drain.start()
        wait_until(saver._stopping.is_set)
        assert len(store.tried) == 1
        held.go_on.set()
        step.join()
        drain.join()
        assert drained[0].error is None
        assert store.tried == [(0, b"0"), (1, b"1")]

    def test_a_save_that_hangs_is_left_behind_in_time_and_begins_no_other(self, make: Make, store: RoomStore) -> None:
        held = _Held(store)
        store.done(0, b"another's")
        saver = make(clock=FakeClock())
        step = threading.Thread(target=saver.step)
        step.start()
        assert held.at_work.wait(30)
        drained = saver.drain(timeout=5)
        assert isinstance(drained.error, holdfast.DeadlineExceeded)
        held.go_on.set()
        step.join()
        assert store.tried == [(0, b"0")]  # epoch 1 would have been next
        assert saver.drain() is drained

    def test_a_store_that_hangs_holds_nobody_up(self, make: Make, store: RoomStore) -> None:
        held = _Held(store)
        saver = make(only_when_marked=True)
        step = threading.Thread(target=saver.step)
        step.start()
        assert held.at_work.wait(30)
        for call in (saver.mark_changed, saver.step, saver.stop):
            call()  # would hang
        held.go_on.set()
        step.join()

    def test_a_thread_saves_every_period(self, make: Make, store: RoomStore, game: _Game) -> None:
        clock = FakeClock(passes=False)
        saver = make(clock=clock, random=lambda: 0.5)
        saver.start()
        saver.start()
        for number in range(3):
            assert len(store.tried) == number
            game.play()
            clock.now += 15 if number == 0 else 30
            wait_until(lambda number=number: saver.epoch == number + 1)  # type: ignore[misc]  # bound for each
        saver.drain()
        assert [epoch for epoch, _ in store.tried] == [0, 1, 2, 3]
        assert saver._thread is not None
        saver._thread.join(30)
        assert not saver._thread.is_alive()

    @pytest.mark.parametrize("flaw", [RuntimeError, SystemExit, KeyboardInterrupt])
    def test_a_thread_lives_on_whatever_the_callables_raise(
        self, make: Make, store: RoomStore, flaw: type[BaseException]
    ) -> None:
        flaws = [flaw()]
        told: list[BaseException] = []

        def snapshot() -> bytes:
            if flaws:
                raise flaws.pop()
            return b"state"

        clock = FakeClock(passes=False)
        saver = make(snapshot, clock=clock, on_failure=told.append)
        saver.start()
        clock.now += 15
        wait_until(lambda: len(told) == 1)
        clock.now += 30
        wait_until(lambda: saver.epoch == 1)
        assert isinstance(told[0], flaw)
        saver.drain()
