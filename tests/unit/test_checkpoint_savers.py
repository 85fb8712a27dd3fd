"""Saving many rooms with a few threads, and draining them all in time."""

import threading
from collections import Counter, defaultdict
from collections.abc import Callable

import pytest

import holdfast
from holdfast import CheckpointSaver, CheckpointSavers, Saved
from holdfast.checkpoint_savers import _LastTries
from tests.support.room_store import FakeClock, RoomStore
from tests.support.waiting import wait_until


class _Store:
    """Many rooms; counts how many saves are at work."""

    def __init__(self) -> None:
        self.rooms: dict[str, RoomStore] = defaultdict(RoomStore)
        self.lock = threading.Lock()
        self.at_work = 0
        self.most_at_work = 0
        self.hangs = threading.Event()
        """Saves of the room `hangs` wait for it."""

    def next_epoch(self, room_id: str, *, need_pointer: bool, timeout: float | None) -> int:
        with self.lock:
            return self.rooms[room_id].next_epoch(room_id, need_pointer=need_pointer, timeout=timeout)

    def save(self, room_id: str, epoch: int, source: bytes, *, writer_id: str, timeout: float | None) -> Saved:
        with self.lock:
            self.at_work += 1
            self.most_at_work = max(self.most_at_work, self.at_work)
        if room_id == "hangs":
            assert self.hangs.wait(30)
        try:
            with self.lock:
                return self.rooms[room_id].save(room_id, epoch, source, writer_id=writer_id, timeout=timeout)
        finally:
            with self.lock:
                self.at_work -= 1


@pytest.fixture
def store() -> _Store:
    """Where they are saved."""
    return _Store()


@pytest.fixture
def clock() -> FakeClock:
    """A clock that the test moves."""
    return FakeClock(passes=False)


def _snapshot() -> bytes:
    return b"state"


def test_all_rooms_of_a_node_are_drained_each_at_a_higher_epoch(store: _Store, clock: FakeClock) -> None:
    savers = CheckpointSavers(store, threads=16, clock=clock, random=lambda: 0.0, start_epoch=3, writer_id="node")
    names = [f"room-{number}" for number in range(200)]
    for name in names:
        savers.add(name, _snapshot)
    wait_until(lambda: all(store.rooms[name].latest == 3 for name in names))
    drained = savers.drain(60)
    assert sorted(drained) == sorted(names)
    assert all(one.error is None and one.saved is not None and one.saved.latest_epoch == 4 for one in drained.values())
    assert store.most_at_work <= 16
    assert savers.drain(60) == drained
    with pytest.raises(ValueError, match="drained"):
        savers.add("late", _snapshot)


def test_rooms_are_saved_every_period(store: _Store, clock: FakeClock) -> None:
    states = {"a": 0, "b": 0}

    def snapshot_of(name: str) -> bytes:
        states[name] += 1
        return str(states[name]).encode()

    with CheckpointSavers(store, clock=clock, random=lambda: 0.5, start_epoch=0) as savers:
        for name in states:
            savers.add(name, lambda name=name: snapshot_of(name))  # type: ignore[misc]  # bound for each
        for epoch in range(3):
            clock.now += 30
            wait_until(lambda epoch=epoch: all(store.rooms[name].latest == epoch for name in states))  # type: ignore[misc]
    assert all(store.rooms[name].latest == 3 for name in states)


def test_a_room_whose_save_hangs_holds_no_other_up(store: _Store, clock: FakeClock) -> None:
    savers = CheckpointSavers(store, threads=2, clock=clock, random=lambda: 0.0, start_epoch=0)
    savers.add("hangs", _snapshot)
    wait_until(lambda: store.at_work == 1)
    saver = savers.add("other", _snapshot)
    wait_until(lambda: saver.epoch == 1)
    store.hangs.set()
    assert set(savers.drain()) == {"hangs", "other"}


def test_rooms_that_wait_for_a_thread_when_it_is_drained_are_saved_once(store: _Store, clock: FakeClock) -> None:
    savers = CheckpointSavers(store, threads=1, clock=clock, random=lambda: 0.0, start_epoch=0)
    savers.add("hangs", _snapshot)
    wait_until(lambda: store.at_work == 1)
    saver = savers.add("waits", _snapshot)
    wait_until(lambda: savers._workers._work_queue.qsize() == 1)
    draining = threading.Thread(target=savers.drain)
    draining.start()
    wait_until(saver._stopping.is_set)
    store.hangs.set()
    draining.join()
    assert [epoch for epoch, _ in store.rooms["waits"].tried] == [0]


def test_a_room_that_fails_is_told_and_the_others_are_drained(store: _Store, clock: FakeClock) -> None:
    read_only = holdfast.ReadOnly("READ_ONLY", "read-only")
    savers = CheckpointSavers(store, clock=clock, random=lambda: 1.0, start_epoch=0)
    store.rooms["fails"].faults = [read_only]
    for name in ("fails", "works"):
        savers.add(name, _snapshot)
    drained = savers.drain()
    assert drained["fails"].error is read_only
    assert drained["works"].error is None


def test_it_is_told_which_room_failed(store: _Store, clock: FakeClock) -> None:
    told: list[tuple[str, BaseException]] = []
    own: list[BaseException] = []
    errors = {name: holdfast.ReadOnly("READ_ONLY", name) for name in ("a", "b", "own")}
    savers = CheckpointSavers(
        store, clock=clock, random=lambda: 1.0, start_epoch=0, on_room_failure=lambda *both: told.append(both)
    )
    for name, error in errors.items():
        store.rooms[name].faults = [error]
    savers.add("a", _snapshot)
    savers.add("b", _snapshot, on_failure=None)
    savers.add("own", _snapshot, on_failure=own.append)
    savers.drain()
    assert sorted(told, key=lambda both: both[0]) == [("a", errors["a"]), ("b", errors["b"])]
    assert own == [errors["own"]]


def test_rooms_that_come_too_late_to_be_drained_are_told(store: _Store, clock: FakeClock) -> None:
    savers = CheckpointSavers(store, threads=1, clock=clock, random=lambda: 1.0, start_epoch=0, period_seconds=1e6)
    for name in ("a", "b", "c"):
        savers.add(name, _snapshot)

        def slowly() -> None:
            clock.now += 20

        store.rooms[name].meanwhile = slowly
    drained = savers.drain(35)
    assert [one.error is None for one in drained.values()] == [True, True, False]
    assert isinstance(drained["c"].error, holdfast.DeadlineExceeded)


def test_a_room_that_closes_is_drained_and_forgotten(store: _Store, clock: FakeClock) -> None:
    with CheckpointSavers(store, clock=clock, random=lambda: 1.0, start_epoch=0) as savers:
        savers.add("a", _snapshot)
        with pytest.raises(ValueError, match="already"):
            savers.add("a", _snapshot)
        drained = savers.remove("a")
        assert drained.saved is not None
        with pytest.raises(KeyError):
            savers.remove("a")
        again = savers.add("a", _snapshot, start_epoch=drained.saved.next_epoch)
        assert again.epoch == 1
    assert store.rooms["a"].latest == 1


class TestRoomsThatAreDone:
    """Threads are not kept busy by a room that is only waited for."""

    @pytest.fixture
    def steps(self, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
        """How often each room's saver was asked to step."""
        steps: Counter[str] = Counter()
        step = CheckpointSaver.step

        def counted(saver: CheckpointSaver) -> Saved | None:
            steps[saver.room_id] += 1
            return step(saver)

        monkeypatch.setattr(CheckpointSaver, "step", counted)
        return steps

    @pytest.fixture
    def savers(self, store: _Store, clock: FakeClock, steps: Counter[str]) -> CheckpointSavers:
        """Savers with one thread: of what is due at a time, the room that was added first is stepped first."""
        assert not steps
        return CheckpointSavers(store, threads=1, clock=clock, random=lambda: 0.5, start_epoch=0)

    def _play_periods(self, savers: CheckpointSavers, clock: FakeClock, periods: int) -> None:
        """Let another room be saved so many periods long."""
        states = iter(range(1000))
        other = savers.add("other", lambda: str(next(states)).encode())
        for epoch in range(periods):
            clock.now += 30
            wait_until(lambda epoch=epoch: other.epoch == epoch + 1)  # type: ignore[misc]  # bound for each

    def test_a_room_that_is_being_removed_is_left_alone(
        self, store: _Store, clock: FakeClock, steps: Counter[str], savers: CheckpointSavers
    ) -> None:
        savers.add("hangs", _snapshot)
        removing = threading.Thread(target=savers.remove, args=("hangs",))
        removing.start()
        wait_until(lambda: store.at_work == 1)
        self._play_periods(savers, clock, 5)
        assert steps["hangs"] <= 1  # it was due already
        store.hangs.set()
        removing.join()
        savers.drain()
        assert [epoch for epoch, _ in store.rooms["hangs"].tried] == [0]

    @pytest.mark.parametrize("end", [CheckpointSaver.stop, CheckpointSaver.drain])
    def test_a_room_that_was_ended_by_its_own_saver_is_left_alone(
        self, clock: FakeClock, steps: Counter[str], savers: CheckpointSavers, end: Callable[[CheckpointSaver], object]
    ) -> None:
        end(savers.add("ended", _snapshot))
        self._play_periods(savers, clock, 5)
        assert steps["ended"] <= 1
        assert savers.drain()["ended"].error is None

    def test_a_room_that_is_not_to_be_begun_is_left_alone_and_told(
        self, store: _Store, clock: FakeClock, steps: Counter[str], savers: CheckpointSavers
    ) -> None:
        room = store.rooms["lost"]
        for epoch in range(3):
            room.done(epoch, b"old")
        room.lose_pointer()
        saver = savers.add("lost", _snapshot)
        self._play_periods(savers, clock, 5)
        assert (steps["lost"], len(room.payloads), room.latest) == (1, 3, -1)
        assert savers.drain()["lost"].error is saver.last_error

    def test_a_room_that_was_deleted_is_left_alone_and_told(
        self, store: _Store, clock: FakeClock, steps: Counter[str], savers: CheckpointSavers
    ) -> None:
        store.rooms["deleted"].floor = 9
        saver = savers.add("deleted", _snapshot, start_epoch=5)
        self._play_periods(savers, clock, 5)
        assert (steps["deleted"], store.rooms["deleted"].payloads) == (1, {})
        drained = savers.remove("deleted")
        assert (drained.saved, drained.error) == (None, saver.last_error)
        assert isinstance(drained.error, holdfast.EpochTooOld)
        savers.drain()


class TestDrainingWithRoomsThatFail:
    """Every room has its try before those that failed have more, and no thread is held by their pauses."""

    _DAMAGED = holdfast.PointerInvalid("POINTER_INVALID", "badly read")

    def test_rooms_that_fail_hold_no_other_up(self, store: _Store, clock: FakeClock) -> None:
        savers = CheckpointSavers(store, threads=2, clock=clock, random=lambda: 1.0, start_epoch=0)
        names = ["bad-0", "bad-1", "bad-2", "good-0", "good-1", "good-2"]
        for name in names:
            savers.add(name, _snapshot)
            store.rooms[name].faults = [self._DAMAGED] if name.startswith("bad") else []
        drained: dict[str, holdfast.Drained] = {}
        draining = threading.Thread(target=lambda: drained.update(savers.drain(1e6)))
        draining.start()
        try:
            wait_until(lambda: [name for name in names if store.rooms[name].latest == 0] == names[3:])  # in no time
            assert all(len(store.rooms[name].tried) == 1 for name in names)
        except BaseException:
            clock.now += 1e7  # or the drain would never end
            raise

        def is_over_later() -> bool:
            clock.now += 1
            return not draining.is_alive()

        wait_until(is_over_later)
        assert list(drained) == names
        assert all(one.error is None and one.saved is not None for one in drained.values())

    def test_rooms_that_go_on_failing_are_tried_at_their_times_until_it_is_over(self, store: _Store) -> None:
        clock = FakeClock()
        began = clock.now
        at: dict[str, list[float]] = defaultdict(list)
        savers = [
            CheckpointSaver(store, name, _snapshot, clock=clock, random=lambda: 1.0, start_epoch=0) for name in "ab"
        ]
        for name in "ab":
            store.rooms[name].faults = [self._DAMAGED] * 100
            store.rooms[name].meanwhile = lambda name=name: at[name].append(clock.now - began)
        tries = _LastTries(clock, began + 10, savers)
        tries.work()
        assert tries.result() == dict.fromkeys("ab", holdfast.Drained(None, self._DAMAGED))
        assert at == {"a": [0, 1, 3, 7], "b": [0, 1, 3, 7]}  # there is no time for a pause of 8

    def test_one_that_comes_too_late_to_be_tried_again_is_told_why_it_failed(
        self, store: _Store, clock: FakeClock
    ) -> None:
        savers = CheckpointSavers(store, threads=1, clock=clock, random=lambda: 1.0, start_epoch=0)
        savers.add("bad", _snapshot)
        store.rooms["bad"].faults = [self._DAMAGED]
        savers.add("slow", _snapshot)

        def slowly() -> None:
            clock.now += 20

        store.rooms["slow"].meanwhile = slowly
        drained = savers.drain(10)
        assert (drained["bad"].error, drained["slow"].error) == (self._DAMAGED, None)
        assert len(store.rooms["bad"].tried) == 1

    def test_one_whose_snapshot_ends_the_thread_keeps_no_other_from_it(self, store: _Store, clock: FakeClock) -> None:
        def ends() -> bytes:
            raise SystemExit

        savers = CheckpointSavers(store, threads=1, clock=clock, random=lambda: 1.0, start_epoch=0)
        savers.add("ends", ends)
        savers.add("good", _snapshot)
        with pytest.raises(SystemExit):
            savers.drain()
        assert store.rooms["good"].latest == 0
