"""What WatchCheckpoints promises: first what is there now, then only what is higher, and the newest at the end."""

import threading
from contextlib import ExitStack
from queue import Empty

import pytest

from holdfast_server.checkpoints.names import RoomId
from tests.support.any_checkpoints import Checkpoints, Refused, pointer_name, refused
from tests.support.waiting import wait_until

ROOM = "duel"


def test_a_watch_begins_with_the_current_epoch(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 7)
    for _ in range(2):
        with checkpoints.watch(ROOM) as watcher:
            first = watcher.next()
            assert (first.room_id, first.epoch, first.status.code) == (ROOM, 7, 0)
        checkpoints.restart()


def test_a_room_that_is_not_there_is_told_as_that_and_then_as_it_comes(checkpoints: Checkpoints) -> None:
    with checkpoints.watch(ROOM) as watcher:
        first = watcher.next()
        assert (first.room_id, first.HasField("epoch"), first.status.code) == (ROOM, False, 0)
        checkpoints.save(ROOM, 0)
        assert watcher.epochs_to(0) == [0]


def test_epochs_rise_and_the_newest_is_told(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 0)
    with checkpoints.watch(ROOM) as watcher, checkpoints.watch(ROOM) as second:
        assert watcher.next().epoch == second.next().epoch == 0
        for epoch in (3, 2, 5, 4, 8, 6):
            checkpoints.save(ROOM, epoch)
        for each in (watcher, second):
            told = each.epochs_to(8)
            assert told == sorted(set(told))
            assert set(told) <= {3, 5, 8}


def test_what_another_server_saves_is_seen(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 1)
    with checkpoints.beside() as other, checkpoints.watch(ROOM) as watcher:
        assert watcher.epochs_to(1) == [1]
        other.save(ROOM, 5)
        assert watcher.epochs_to(5) == [5]
        other.save(ROOM, 6)
        checkpoints.save(ROOM, 7)
        told = watcher.epochs_to(7)
        assert told in ([7], [6, 7])


def test_many_writers_are_seen_in_order(checkpoints: Checkpoints) -> None:
    last = 40
    with checkpoints.beside() as other, checkpoints.watch(ROOM) as watcher:
        assert not watcher.next().HasField("epoch")

        def write(mine: Checkpoints, first: int) -> None:
            for epoch in range(first, last + 1, 2):
                mine.save(ROOM, epoch)

        writers = [
            threading.Thread(target=write, args=(mine, first)) for first, mine in enumerate((checkpoints, other))
        ]
        for writer in writers:
            writer.start()
        told = watcher.epochs_to(last)
        for writer in writers:
            writer.join(60)
        assert told == sorted(set(told))


def test_many_rooms_are_watched_at_once_and_each_once(checkpoints: Checkpoints) -> None:
    rooms = [f"room/{number}" for number in range(30)]
    for number, room in enumerate(rooms[:20]):
        checkpoints.save(room, number)
    with checkpoints.watch(*rooms, *rooms[:5]) as watcher:
        first = [watcher.next() for _ in rooms]
        assert sorted(message.room_id for message in first) == sorted(rooms)
        assert {message.room_id: message.epoch for message in first if message.HasField("epoch")} == {
            room: number for number, room in enumerate(rooms[:20])
        }
        for room in reversed(rooms):
            checkpoints.save(room, 100)
        then: dict[str, int] = {}
        while len(then) < len(rooms):
            message = watcher.next()
            assert message.room_id not in then
            then[message.room_id] = message.epoch
        assert then == dict.fromkeys(rooms, 100)


def test_a_deletion_is_told_and_what_comes_after_it(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 3)
    with checkpoints.beside() as other, checkpoints.watch(ROOM) as watcher:
        assert watcher.next().epoch == 3
        for mine in (checkpoints, other):
            epoch = mine.delete_room(ROOM).next_epoch
            gone = watcher.next()
            assert (gone.HasField("epoch"), gone.status.code) == (False, 0)
            mine.save(ROOM, epoch)
            assert watcher.next().epoch == epoch


def test_a_damaged_pointer_is_told_once_and_the_room_is_watched_on(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 3)
    good = checkpoints.stored(pointer_name(ROOM))
    with checkpoints.beside() as other, checkpoints.watch(ROOM) as watcher:
        assert watcher.next().epoch == 3
        checkpoints.put(pointer_name(ROOM), b"garbage")
        damaged = watcher.next()
        assert (damaged.HasField("epoch"), damaged.status.code) == (False, 15)
        checkpoints.put(pointer_name(ROOM), good)
        other.save(ROOM, 4)
        assert watcher.epochs_to(4) in ([4], [3, 4]), "it is good again before that is saved"


def test_a_rolled_back_pointer_is_told_and_never_as_an_epoch(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 3)
    older = checkpoints.stored(pointer_name(ROOM))
    checkpoints.save(ROOM, 4)
    with checkpoints.watch(ROOM) as watcher:
        assert watcher.next().epoch == 4
        checkpoints.put(pointer_name(ROOM), older)
        told = watcher.next()
        assert (told.HasField("epoch"), told.status.code, told.status.details["room_id"]) == (False, 15, ROOM)


def test_what_is_seen_late_is_not_told(checkpoints: Checkpoints) -> None:
    room = RoomId(ROOM)
    checkpoints.save(ROOM, 3)
    older = checkpoints.store.pointers.read(room)
    checkpoints.save(ROOM, 4)
    with checkpoints.watch(ROOM) as watcher:
        assert watcher.next().epoch == 4
        checkpoints.watches._observe(room, older)  # as of a thread that was held up after it had read
        checkpoints.save(ROOM, 5)
        assert watcher.epochs_to(5) == [5]


def test_a_watch_ends_when_the_server_does(checkpoints: Checkpoints) -> None:
    with checkpoints.watch(ROOM) as watcher:
        watcher.next()
        checkpoints.watches.close()
        with refused("DRAINING", "UNAVAILABLE"):
            watcher.next()
    with refused("DRAINING", "UNAVAILABLE"), checkpoints.watch(ROOM) as late:
        late.next()


def test_no_more_watch_at_once_than_may(checkpoints: Checkpoints) -> None:
    with ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(checkpoints.watch(ROOM)).next()
        with refused("OVERLOADED", "RESOURCE_EXHAUSTED"), checkpoints.watch(ROOM) as watcher:
            watcher.next()
    assert_watched_again(checkpoints)


def assert_watched_again(checkpoints: Checkpoints) -> None:
    """Check that those who left have left: they may take a moment to notice."""

    def watches() -> bool:
        try:
            with checkpoints.watch(ROOM) as watcher:
                watcher.next()
        except Refused:
            return False
        return True

    wait_until(watches)


def test_a_watched_pointer_is_read_once_however_many_watch_it(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 1)
    readings = threading.Semaphore(0)
    with checkpoints.watch(ROOM) as first, checkpoints.watch(ROOM) as second, checkpoints.watch(ROOM) as third:
        for each in (first, second, third):
            each.next()
        checkpoints.objects.calm()
        at_once = []

        def meddle(operation: str, _name: str) -> None:
            if operation == "get":
                at_once.append(threading.current_thread().name)
                readings.release()

        checkpoints.objects.before = meddle
        for _ in range(6):
            assert readings.acquire(timeout=30)
        assert len(set(at_once)) == 1
        with pytest.raises(Empty):
            first._news.get_nowait()
