"""What HibernateRoom, RestoreRoom and ConfirmRestore promise: a snapshot goes only to one, and only when it arrived."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from holdfast.v1 import checkpoint_store_pb2 as pb
from holdfast.v1.types_pb2 import DataChunk, ErrorReason
from tests.support.any_checkpoints import (
    Checkpoints,
    epoch_name,
    pointer_name,
    refused,
    snapshot_name,
    tried,
)
from tests.support.meddled_store import once
from tests.support.samples import MIB, sample

ROOM = "den/7"
DATA = b"what the room was when it fell asleep"
SHA256 = hashlib.sha256(DATA).digest()

LONG = [
    "x" * 199 + ".",
    "/".join(["..."] * 120),
    "y" * 198 + "/..z",
    "/".join(["é" * 99] * 2),
    "x" * 200,
    "/".join(["%" * 60] * 8),
    "🎲" * 49,
    "/".join("ab" * 100),
]


@pytest.mark.parametrize("size", [0, 1, MIB, 3 * MIB + 7])
def test_a_snapshot_comes_back_as_it_was(checkpoints: Checkpoints, size: int) -> None:
    data = sample(size)
    info = checkpoints.hibernate(ROOM, data, writer_id="node 1", metadata={"who": "mé"})
    assert (info.room_id, info.size_bytes, info.sha256) == (ROOM, size, hashlib.sha256(data).digest())
    assert (info.writer_id, dict(info.metadata), info.legacy) == ("node 1", {"who": "mé"}, False)
    assert (info.key_id, info.encrypted) == (checkpoints.keys.ring.signing.id.hex(), checkpoints.options.encrypt)
    for _ in range(2):
        restored = checkpoints.restore(ROOM)
        assert restored.data == data
        restored.info.update_time.CopyFrom(info.update_time)
        assert restored.info == info
        checkpoints.restart()
    assert checkpoints.names() == [snapshot_name(ROOM)]


def test_a_room_that_is_not_hibernated_is_not_found(checkpoints: Checkpoints) -> None:
    with refused("SNAPSHOT_NOT_FOUND", "NOT_FOUND") as refusal:
        checkpoints.restore(ROOM)
    assert refusal.names == {"room_id": ROOM}
    with refused("SNAPSHOT_NOT_FOUND", "NOT_FOUND"):
        checkpoints.confirm(ROOM, "etag", SHA256)


def test_a_snapshot_stays_until_it_is_confirmed(checkpoints: Checkpoints) -> None:
    info = checkpoints.hibernate(ROOM, DATA)
    for _ in range(3):
        assert checkpoints.restore(ROOM).data == DATA
    checkpoints.confirm(ROOM, info.etag, SHA256)
    for _ in range(2):
        with refused("SNAPSHOT_NOT_FOUND", "NOT_FOUND"):
            checkpoints.restore(ROOM)
        assert checkpoints.hibernated() == []
        checkpoints.restart()


def test_a_second_confirmation_is_told_that_it_lost(checkpoints: Checkpoints) -> None:
    info = checkpoints.hibernate(ROOM, DATA)
    checkpoints.confirm(ROOM, info.etag, SHA256)
    for writer_id in ("", "node 2"):
        with refused("CONCURRENT_MODIFICATION", "ABORTED") as refusal:
            checkpoints.confirm(ROOM, info.etag, SHA256, writer_id)
        assert refusal.names == {"room_id": ROOM}


def test_the_same_writers_confirmation_is_answered_again(checkpoints: Checkpoints) -> None:
    info = checkpoints.hibernate(ROOM, DATA)
    for _ in range(3):
        checkpoints.confirm(ROOM, info.etag, SHA256, "node 1")
        checkpoints.restart()
    for writer_id in ("", "node 2"):
        with refused("CONCURRENT_MODIFICATION", "ABORTED"):
            checkpoints.confirm(ROOM, info.etag, SHA256, writer_id)
    with refused("CONCURRENT_MODIFICATION", "ABORTED"):
        checkpoints.confirm(ROOM, info.etag + "x", SHA256, "node 1")


def test_a_confirmation_whose_answer_was_lost_is_repeated(checkpoints: Checkpoints) -> None:
    info = checkpoints.hibernate(ROOM, DATA)
    checkpoints.objects.after = once("put", snapshot_name(ROOM))
    with refused("BACKEND_UNAVAILABLE", "UNAVAILABLE"):
        checkpoints.confirm(ROOM, info.etag, SHA256, "node 1")
    checkpoints.confirm(ROOM, info.etag, SHA256, "node 1")


def test_a_wrong_digest_confirms_nothing(checkpoints: Checkpoints) -> None:
    info = checkpoints.hibernate(ROOM, DATA)
    with refused("CHECKSUM_MISMATCH", "INVALID_ARGUMENT") as refusal:
        checkpoints.confirm(ROOM, info.etag, bytes(32))
    assert refusal.fields == ["sha256"]
    for wrong in (b"", b"short", bytes(33)):
        with refused("INVALID_DIGEST", "INVALID_ARGUMENT") as refusal:
            checkpoints.confirm(ROOM, info.etag, wrong)
        assert refusal.fields == ["sha256"]
    with refused("CONCURRENT_MODIFICATION", "ABORTED"):
        checkpoints.confirm(ROOM, "another", SHA256)
    with refused("INVALID_CONDITION", "INVALID_ARGUMENT") as refusal:
        checkpoints.confirm(ROOM, "", SHA256)
    assert refusal.fields == ["etag"]
    assert checkpoints.restore(ROOM).data == DATA
    checkpoints.confirm(ROOM, info.etag, SHA256)


def test_a_room_that_was_hibernated_again_meanwhile_is_not_given_up(checkpoints: Checkpoints) -> None:
    first = checkpoints.hibernate(ROOM, DATA)
    checkpoints.hibernate(ROOM, b"newer")
    for digest in (SHA256, hashlib.sha256(b"newer").digest()):
        with refused("CONCURRENT_MODIFICATION", "ABORTED"):
            checkpoints.confirm(ROOM, first.etag, digest)
    assert checkpoints.restore(ROOM).data == b"newer"


def test_a_room_that_is_hibernated_again_within_the_confirmation_is_not_given_up(checkpoints: Checkpoints) -> None:
    first = checkpoints.hibernate(ROOM, DATA)
    with checkpoints.beside() as other:

        def meddle(operation: str, _name: str) -> None:
            if operation == "put":
                checkpoints.objects.before = lambda _operation, _name: None
                other.hibernate(ROOM, b"newer")

        checkpoints.objects.before = meddle
        with refused("CONCURRENT_MODIFICATION", "ABORTED"):
            checkpoints.confirm(ROOM, first.etag, SHA256)
    assert checkpoints.restore(ROOM).data == b"newer"


def test_of_many_who_confirm_at_once_one_wins(checkpoints: Checkpoints) -> None:
    info = checkpoints.hibernate(ROOM, DATA)
    with checkpoints.beside() as other, ThreadPoolExecutor(12) as pool:

        def confirm(number: int) -> bool:
            mine = (checkpoints, other)[number % 2]
            answer = tried(lambda: mine.confirm(ROOM, info.etag, SHA256, f"node {number}"))
            assert answer is None or answer.reason == "CONCURRENT_MODIFICATION"
            return answer is None

        assert list(pool.map(confirm, range(12))).count(True) == 1


def test_a_restore_that_is_cut_off_in_the_middle_changes_nothing(checkpoints: Checkpoints) -> None:
    data = sample(5 * MIB)
    info = checkpoints.hibernate(ROOM, data)
    for read in (0, 1, 2, 4):
        messages = checkpoints.messages("RestoreRoom", pb.RestoreRoomRequest(room_id=ROOM))
        for _ in range(read):
            next(messages)
        messages.close()  # type: ignore[attr-defined]
    assert checkpoints.restore(ROOM).data == data
    checkpoints.confirm(ROOM, info.etag, hashlib.sha256(data).digest())


def test_a_room_that_was_given_up_can_be_hibernated_again(checkpoints: Checkpoints) -> None:
    for number in range(3):
        data = b"%d" % number
        info = checkpoints.hibernate(ROOM, data, create_only=True)
        assert checkpoints.restore(ROOM).data == data
        checkpoints.confirm(ROOM, info.etag, hashlib.sha256(data).digest(), "node 1")


def test_create_only_refuses_where_the_room_is_hibernated(checkpoints: Checkpoints) -> None:
    info = checkpoints.hibernate(ROOM, DATA, create_only=True)
    with refused("ALREADY_EXISTS", "ALREADY_EXISTS") as refusal:
        checkpoints.hibernate(ROOM, b"other", create_only=True)
    assert refusal.names == {"room_id": ROOM, "etag": info.etag}
    assert checkpoints.restore(ROOM).data == DATA
    checkpoints.hibernate(ROOM, b"other", create_only=False)
    assert checkpoints.restore(ROOM).data == b"other"


@pytest.mark.parametrize("given_up", [False, True])
def test_create_only_holds_when_the_snapshot_is_put_and_not_only_before(
    checkpoints: Checkpoints, given_up: bool
) -> None:
    if given_up:
        info = checkpoints.hibernate(ROOM, DATA)
        checkpoints.confirm(ROOM, info.etag, SHA256)
    with checkpoints.beside() as other:

        def meddle(operation: str, _name: str) -> None:
            if operation == "put":
                checkpoints.objects.before = lambda _operation, _name: None
                other.hibernate(ROOM, b"other")

        checkpoints.objects.before = meddle
        with refused("ALREADY_EXISTS", "ALREADY_EXISTS"):
            checkpoints.hibernate(ROOM, b"mine", create_only=True)
    assert checkpoints.restore(ROOM).data == b"other"


def test_if_match_refuses_where_it_is_another_snapshot(checkpoints: Checkpoints) -> None:
    first = checkpoints.hibernate(ROOM, DATA)
    second = checkpoints.hibernate(ROOM, b"2", if_match_etag=first.etag)
    with refused("PRECONDITION_FAILED", "FAILED_PRECONDITION"):
        checkpoints.hibernate(ROOM, b"3", if_match_etag=first.etag)
    with refused("INVALID_CONDITION", "INVALID_ARGUMENT"):
        checkpoints.hibernate(ROOM, b"3", if_match_etag="")
    assert checkpoints.restore(ROOM).info.etag == second.etag
    with refused("PRECONDITION_FAILED", "FAILED_PRECONDITION"):
        checkpoints.hibernate("never", b"", if_match_etag=first.etag)


def test_a_hibernation_that_breaks_off_leaves_the_snapshot_before_it(checkpoints: Checkpoints) -> None:
    checkpoints.hibernate(ROOM, DATA)
    parts = [
        pb.HibernateRoomRequest(header=pb.HibernateRoomHeader(room_id=ROOM)),
        *[pb.HibernateRoomRequest(chunk=DataChunk(data=sample(MIB)))] * 2,
    ]
    with refused("UPLOAD_INCOMPLETE", "INVALID_ARGUMENT"):
        checkpoints.call("HibernateRoom", iter(parts))
    for declared in ({"size_bytes": 5}, {"sha256": bytes(32)}):
        with refused("SIZE_MISMATCH" if "size_bytes" in declared else "CHECKSUM_MISMATCH", "INVALID_ARGUMENT"):
            checkpoints.hibernate(ROOM, b"data", **declared)
    assert checkpoints.restore(ROOM).data == DATA
    assert checkpoints.names() == [snapshot_name(ROOM)]


@pytest.mark.parametrize(
    "what", ["a checkpoint", "a pointer", "another's", "garbage", "nothing", "a flipped bit", "short"]
)
def test_what_is_not_the_rooms_snapshot_is_damage_and_stays(checkpoints: Checkpoints, what: str) -> None:
    info = checkpoints.hibernate(ROOM, DATA)
    checkpoints.hibernate("other", DATA)
    checkpoints.save(ROOM, 1, DATA)
    good = checkpoints.stored(snapshot_name(ROOM))
    bad = {
        "a checkpoint": checkpoints.stored(epoch_name(ROOM, 1)),
        "a pointer": checkpoints.stored(pointer_name(ROOM)),
        "another's": checkpoints.stored(snapshot_name("other")),
        "garbage": b"garbage",
        "nothing": b"",
        "a flipped bit": good[:-20] + bytes([good[-20] ^ 1]) + good[-19:],
        "short": good[:70] + good[71:],
    }[what]
    checkpoints.put(snapshot_name(ROOM), bad)
    sent: list[object] = []
    with refused("SEAL_INVALID", "DATA_LOSS") as refusal:
        sent.extend(checkpoints.messages("RestoreRoom", pb.RestoreRoomRequest(room_id=ROOM)))
    assert (sent, refusal.names["room_id"]) == ([], ROOM)
    with refused("SEAL_INVALID", "DATA_LOSS"):
        checkpoints.confirm(ROOM, info.etag, SHA256)
    with refused("SEAL_INVALID", "DATA_LOSS"):
        checkpoints.hibernate(ROOM, b"new", create_only=True)
    assert checkpoints.stored(snapshot_name(ROOM)) == bad
    mine, other = sorted(checkpoints.hibernated(), key=lambda entry: entry.room_id != ROOM)
    assert (mine.HasField("snapshot"), ErrorReason.Name(mine.status.reason)) == (False, "ERROR_REASON_SEAL_INVALID")
    assert (other.room_id, other.HasField("snapshot")) == ("other", True)
    checkpoints.hibernate(ROOM, b"new", replace_damaged=True)
    assert checkpoints.restore(ROOM).data == b"new"


def test_what_stands_for_a_snapshot_given_up_is_bound_to_its_room(checkpoints: Checkpoints) -> None:
    info = checkpoints.hibernate("other", DATA)
    checkpoints.confirm("other", info.etag, SHA256)
    checkpoints.hibernate(ROOM, DATA)
    checkpoints.put(snapshot_name(ROOM), checkpoints.stored(snapshot_name("other")))
    with refused("SEAL_INVALID", "DATA_LOSS"):
        checkpoints.restore(ROOM)


# Lists.


def test_hibernated_rooms_are_listed(checkpoints: Checkpoints) -> None:
    rooms = ["a", "a/b", "a-b", "a%2Fb", "a%", "é/🎲", "z/1/2"]
    infos = {room: checkpoints.hibernate(room, room.encode(), metadata={"n": "1"}) for room in rooms}
    gone = checkpoints.hibernate("a/gone", DATA)
    checkpoints.confirm("a/gone", gone.etag, SHA256)
    checkpoints.save("awake", 1)
    for info in infos.values():
        info.sha256 = b""
    for page_size in (0, 1, 2, 3):
        entries = checkpoints.hibernated(page_size=page_size)
        assert [entry.room_id for entry in entries] == sorted(
            rooms, key=lambda room: room.replace("%", "%25").replace("/", "%2F").encode()
        )
        for entry in entries:
            infos[entry.room_id].update_time.CopyFrom(entry.snapshot.update_time)
            assert entry.snapshot == infos[entry.room_id]


def test_hibernated_rooms_by_prefix_long_names_included(checkpoints: Checkpoints) -> None:
    rooms = ["a", "a/b", "a%2Fb", "é", "x" * 200 + "/y", *LONG]
    for room in rooms:
        checkpoints.hibernate(room, room.encode())
        assert checkpoints.restore(room).data == room.encode()
    for prefix in ("", "a", "a/", "a%", "a%2", "é", "x" * 150, "x" * 201, "...", *(room[:120] for room in LONG), *LONG):
        for page_size in (0, 2):
            found = [entry.room_id for entry in checkpoints.hibernated(prefix=prefix, page_size=page_size)]
            assert sorted(found) == sorted(room for room in rooms if room.startswith(prefix))
