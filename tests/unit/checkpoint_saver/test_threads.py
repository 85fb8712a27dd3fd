"""Savers and threads: one save of a room at a time, and whoever hangs holds nobody up."""

import threading

import pytest

import holdfast
from tests.support.played_room import Game, Make
from tests.support.room_store import FakeClock, RoomStore
from tests.support.waiting import wait_until


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
        self, make: Make, store: RoomStore, game: Game
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

    def test_a_thread_saves_every_period(self, make: Make, store: RoomStore, game: Game) -> None:
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
