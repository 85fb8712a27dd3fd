"""Cases that other stores of checkpoints lose or mix up, each as the story of a room, on every backend.

What a case promises in detail is held beside it; `tests/CASES.md` tells where all of them are.
"""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from holdfast.v1 import checkpoint_store_pb2 as pb
from tests.support.any_checkpoints import (
    DIFFERENT,
    SAME,
    STORED,
    Checkpoints,
    Refused,
    epoch_name,
    pointer_name,
    refused,
    snapshot_name,
)
from tests.support.meddled_store import once

ROOM = "room"
DATA = b"state"
CALLERS = 16
ROOMS_OF_A_NODE = {"memory": 200, "filesystem": 200}
ROOMS_ON_S3 = 40


def test_a_room_goes_on_where_it_was_on_another_server(checkpoints: Checkpoints) -> None:
    for epoch in range(7):
        checkpoints.save(ROOM, epoch, b"%d" % epoch)
    with checkpoints.beside() as other:
        loaded = other.load(ROOM, min_epoch=6)
        assert (loaded.data, loaded.info.next_epoch) == (b"6", 7)
        assert other.save(ROOM, loaded.info.next_epoch, b"7", if_latest_epoch=6).pointer_moved
    with refused("CONCURRENT_MODIFICATION", "ABORTED"):
        checkpoints.save(ROOM, 7, b"of one who believes that the room is still theirs", if_latest_epoch=6)
    assert checkpoints.load(ROOM, min_epoch=7).data == b"7"


def test_a_room_that_was_restored_goes_on_above_an_orphan(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 6, b"6")
    checkpoints.objects.before = once("put", pointer_name(ROOM))
    with refused("BACKEND_UNAVAILABLE"):
        checkpoints.save(ROOM, 7, b"nobody was told of this")
    checkpoints.restart()
    loaded = checkpoints.load(ROOM)
    assert (loaded.data, loaded.info.latest_epoch, loaded.info.next_epoch) == (b"6", 6, 8)
    assert checkpoints.save(ROOM, 7, b"the next").outcome == DIFFERENT
    assert checkpoints.load(ROOM).data == b"6"
    assert checkpoints.save(ROOM, 8, b"the next").outcome == STORED
    assert checkpoints.load(ROOM).data == b"the next"


def test_an_orphan_is_acknowledged_by_its_own_retry(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 6, b"6")
    checkpoints.objects.before = once("put", pointer_name(ROOM))
    with refused("BACKEND_UNAVAILABLE"):
        checkpoints.save(ROOM, 7, b"7")
    checkpoints.restart()
    retried = checkpoints.save(ROOM, 7, b"7")
    assert (retried.outcome, retried.pointer_moved, retried.next_epoch) == (SAME, True, 8)
    assert checkpoints.load(ROOM).data == b"7"


def test_a_room_hibernates_and_wakes_elsewhere_once(checkpoints: Checkpoints) -> None:
    saved = checkpoints.save(ROOM, 4, DATA)
    slept = checkpoints.hibernate(ROOM, DATA, create_only=True, metadata={"epoch": "4"})
    with checkpoints.beside() as other:
        found = [server.restore(ROOM) for server in (checkpoints, other)]
        assert [each.data for each in found] == [DATA, DATA]
        digest = hashlib.sha256(DATA).digest()
        other.confirm(ROOM, found[1].info.etag, digest, "node 2")
        with refused("CONCURRENT_MODIFICATION", "ABORTED"):
            checkpoints.confirm(ROOM, found[0].info.etag, digest, "node 1")
        with refused("SNAPSHOT_NOT_FOUND", "NOT_FOUND"):
            checkpoints.restore(ROOM)
        # What was put back behind our backs is a snapshot again, and the confirmation of it is another one.
        assert slept.etag == found[0].info.etag
        assert other.save(ROOM, saved.next_epoch, b"awake").pointer_moved
    assert checkpoints.load(ROOM).data == b"awake"


def test_the_rooms_of_a_node_are_drained(checkpoints: Checkpoints, backend: str) -> None:
    rooms = [f"node/{number:03}" for number in range(ROOMS_OF_A_NODE.get(backend, ROOMS_ON_S3))]
    with ThreadPoolExecutor(CALLERS) as pool:
        for epoch in (1, 2):

            def save(room: str, epoch: int = epoch) -> bool:
                return checkpoints.save(room, epoch, f"{room} {epoch}".encode()).pointer_moved

            assert all(pool.map(save, rooms))
        checkpoints.restart()
        assert [(entry.room_id, entry.latest_epoch) for entry in checkpoints.rooms()] == [(room, 2) for room in rooms]
        assert list(pool.map(lambda room: checkpoints.load(room).data, rooms)) == [
            f"{room} 2".encode() for room in rooms
        ]


# What is not good is not served, whatever is wrong with it.

Load = Callable[[Checkpoints], object]
PLACES: dict[str, tuple[str, Load]] = {
    "checkpoint": (epoch_name(ROOM, 7), lambda checkpoints: checkpoints.load(ROOM)),
    "pointer": (pointer_name(ROOM), lambda checkpoints: checkpoints.load(ROOM)),
    "snapshot": (snapshot_name(ROOM), lambda checkpoints: checkpoints.restore(ROOM)),
}
REASONS = {"checkpoint": "SEAL_INVALID", "pointer": "POINTER_INVALID", "snapshot": "SEAL_INVALID"}


@pytest.mark.parametrize("place", PLACES)
def test_any_byte_of_what_is_stored_counts(checkpoints: Checkpoints, place: str) -> None:
    name, load = filled(checkpoints, place)
    good = checkpoints.stored(name)
    step = 1 if checkpoints.objects.describe().name == "memory" else 7
    for at in range(0, len(good), step):
        bad = bytearray(good)
        bad[at] ^= 1 << at % 8
        assert_refused(checkpoints, name, bytes(bad), place, load)
    checkpoints.put(name, good)
    load(checkpoints)


@pytest.mark.parametrize("place", PLACES)
def test_what_is_cut_or_longer_is_refused(checkpoints: Checkpoints, place: str) -> None:
    name, load = filled(checkpoints, place)
    good = checkpoints.stored(name)
    step = 1 if checkpoints.objects.describe().name == "memory" else 13
    for length in range(0, len(good), step):
        assert_refused(checkpoints, name, good[:length], place, load)
        assert_refused(checkpoints, name, good[len(good) - length :], place, load)
    for longer in (good + b"\0", b"\0" + good, good + good, good[:60] + b"\0" + good[60:]):
        assert_refused(checkpoints, name, longer, place, load)
    checkpoints.put(name, good)
    load(checkpoints)


def filled(checkpoints: Checkpoints, place: str) -> tuple[str, Load]:
    checkpoints.save(ROOM, 7, DATA)
    checkpoints.hibernate(ROOM, DATA)
    return PLACES[place]


def assert_refused(checkpoints: Checkpoints, name: str, bad: bytes, place: str, load: Load) -> None:
    checkpoints.put(name, bad)
    with pytest.raises(Refused) as failed:
        load(checkpoints)
    # The key's id and the version are in the footer: with others, the key is not there, or the server is too old.
    assert failed.value.refusal.reason in {REASONS[place], "SEAL_KEY_UNAVAILABLE", "SEAL_TOO_NEW"}
    assert failed.value.refusal.code in {"DATA_LOSS", "FAILED_PRECONDITION"}


def test_no_byte_of_what_is_not_good_is_sent(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 7, DATA)
    checkpoints.hibernate(ROOM, DATA)
    for name in (epoch_name(ROOM, 7), snapshot_name(ROOM)):
        checkpoints.flip(name, 58)
    for rpc, request in (
        ("LoadCheckpoint", pb.LoadCheckpointRequest(room_id=ROOM)),
        ("RestoreRoom", pb.RestoreRoomRequest(room_id=ROOM)),
    ):
        sent: list[object] = []
        with refused("SEAL_INVALID", "DATA_LOSS"):
            sent.extend(checkpoints.messages(rpc, request))
        assert sent == []
