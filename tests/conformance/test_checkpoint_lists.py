"""What the lists promise: the checkpoints of a room, and the rooms; in order, a page at a time, damage and all."""

from functools import partial

import pytest

from holdfast.v1.types_pb2 import ErrorReason, ItemStatus
from holdfast_server import page_token
from tests.support.any_checkpoints import Checkpoints, epoch_name, pointer_name, refused, tried
from tests.support.samples import MIB
from tests.support.statuses import Refusal

ROOM = "lobby"
EPOCHS = [0, 3, 7, 8, 100, 12345678901]

ROOMS = ["a", "a-b", "a/007", "a/b", "a/b/c", "a/b-c", "b", "2026/11/20", "2026", "é/🎲", "z%2F", "A", "a0", "a/0"]

ROOMS_IN_TOKENS = ["abc", "-5", "٣", "²"]
NOTHING_IN_TOKENS = ["", "9" * 4000, "9" * 5000, "\0", "a\nb", "r/" * 400, "../..", "a//b"]


def in_order(rooms: list[str]) -> list[str]:
    return sorted(rooms, key=lambda room: (room + "/").encode())


def room_ids(checkpoints: Checkpoints, **fields: str | int) -> list[str]:
    return [entry.room_id for entry in checkpoints.rooms(**fields)]


def reason_of(status: ItemStatus) -> str:
    return ErrorReason.Name(status.reason).removeprefix("ERROR_REASON_")


def test_checkpoints_are_listed_by_rising_epoch(checkpoints: Checkpoints) -> None:
    for epoch in reversed(EPOCHS):
        checkpoints.save(ROOM, epoch, b"%d" % epoch, writer_id=f"w{epoch}", metadata={"n": str(epoch)})
    entries = checkpoints.listed(ROOM)
    assert [entry.epoch for entry in entries] == EPOCHS
    for entry in entries:
        stat = checkpoints.stat(ROOM, epoch=entry.epoch)
        stat.ClearField("latest_epoch")
        stat.ClearField("next_epoch")
        assert entry.checkpoint == stat
        assert not entry.status.code
        assert (entry.checkpoint.writer_id, entry.checkpoint.metadata["n"]) == (f"w{entry.epoch}", str(entry.epoch))


def test_pages_of_every_size_are_the_whole_list(checkpoints: Checkpoints) -> None:
    for epoch in EPOCHS:
        checkpoints.save(ROOM, epoch)
    checkpoints.save("lobby/below", 4)
    for start in (0, 1, 3, 9, 12345678902):
        expected = [epoch for epoch in EPOCHS if epoch >= start]
        for page_size in (1, 2, 3, 5, 6, 7, 10_000):
            assert checkpoints.epochs(ROOM, from_epoch=start, page_size=page_size) == expected


def test_rooms_are_listed_with_those_below_them(checkpoints: Checkpoints) -> None:
    for number, room in enumerate(ROOMS):
        for epoch in range(number % 4 + 1):
            checkpoints.save(room, epoch)
    for page_size in (0, 1, 2, 5):
        assert room_ids(checkpoints, page_size=page_size) == in_order(ROOMS)
    entries = {entry.room_id: entry for entry in checkpoints.rooms()}
    assert [entries[room].latest_epoch for room in ROOMS] == [number % 4 for number in range(len(ROOMS))]
    assert all(entry.HasField("update_time") and not entry.status.code for entry in entries.values())
    for number, room in enumerate(ROOMS):
        assert checkpoints.epochs(room) == list(range(number % 4 + 1))


def test_a_prefix_is_one_of_the_string(checkpoints: Checkpoints) -> None:
    for room in ROOMS:
        checkpoints.save(room, 1)
    for prefix in ("a", "a/", "a/b", "a-", "2026/1", "é", "z%", "x", "a/00", "a/l", "snapshots"):
        expected = [room for room in in_order(ROOMS) if room.startswith(prefix)]
        for page_size in (0, 1, 2):
            assert room_ids(checkpoints, prefix=prefix, page_size=page_size) == expected


def test_a_room_whose_first_save_was_not_finished_is_no_room_yet(checkpoints: Checkpoints) -> None:
    checkpoints.save("there", 1)
    checkpoints.save("unfinished", 1)
    checkpoints.remove(pointer_name("unfinished"))
    checkpoints.restart()
    assert room_ids(checkpoints) == ["there"]
    assert checkpoints.epochs("unfinished") == [1]


def test_what_is_damaged_is_listed_with_the_reason(checkpoints: Checkpoints) -> None:
    for epoch in range(5):
        checkpoints.save(ROOM, epoch)
    checkpoints.flip(epoch_name(ROOM, 1))
    checkpoints.put(epoch_name(ROOM, 2), b"garbage")
    checkpoints.put(epoch_name(ROOM, 3), checkpoints.stored(epoch_name(ROOM, 4)))
    for page_size in (0, 1):
        entries = checkpoints.listed(ROOM, page_size=page_size)
        assert [entry.epoch for entry in entries] == [0, 1, 2, 3, 4]
        assert [entry.HasField("checkpoint") for entry in entries] == [True, False, False, False, True]
        assert [reason_of(entry.status) for entry in entries[1:4]] == ["SEAL_INVALID"] * 3
        assert [entry.status.code for entry in entries] == [0, 15, 15, 15, 0]
        assert entries[1].status.details["epoch"] == "1"


def test_what_an_unavailable_key_has_sealed_is_listed_with_that_reason(checkpoints: Checkpoints) -> None:
    checkpoints.save(ROOM, 1)
    checkpoints.hibernate(ROOM)
    old = checkpoints.keys.rotate()
    checkpoints.save(ROOM, 2)
    checkpoints.save("sleeping", 2)
    checkpoints.hibernate("sleeping")
    checkpoints.put(pointer_name("lost"), checkpoints.stored(pointer_name(ROOM)))
    checkpoints.keys.ring = checkpoints.keys.ring.retired(old)
    first, second = checkpoints.listed(ROOM)
    assert (first.epoch, reason_of(first.status)) == (1, "SEAL_KEY_UNAVAILABLE")
    assert (second.epoch, second.HasField("checkpoint")) == (2, True)
    lobby, sleeping = checkpoints.hibernated()
    assert (lobby.room_id, reason_of(lobby.status)) == (ROOM, "SEAL_KEY_UNAVAILABLE")
    assert (sleeping.room_id, sleeping.HasField("snapshot")) == ("sleeping", True)


def test_a_room_with_a_damaged_pointer_is_listed_with_the_reason(checkpoints: Checkpoints) -> None:
    for room in ("a", "b", "c"):
        checkpoints.save(room, 7)
    checkpoints.flip(pointer_name("b"))
    for _ in range(2):
        a, b, c = checkpoints.rooms()
        assert (a.latest_epoch, c.latest_epoch) == (7, 7)
        assert (b.room_id, b.HasField("latest_epoch"), reason_of(b.status)) == ("b", False, "POINTER_INVALID")
        assert b.status.details["room_id"] == "b"
        checkpoints.restart()


def test_what_is_nobodys_is_passed_over(checkpoints: Checkpoints) -> None:
    checkpoints.save("a", 1)
    for name in (
        "snapshots/a/notes",
        "snapshots/a/7",
        "snapshots/a/99999999999999999999",
        "snapshots/loose",
        "snapshots/0000000000x/latest",
        "hibernated/%zz",
        "hibernated/a/b",
        "blobs/a/latest",
    ):
        checkpoints.put(name, b"?")
    assert room_ids(checkpoints) == ["a"]
    assert checkpoints.epochs("a") == [1]
    assert [entry.room_id for entry in checkpoints.hibernated()] == []


def test_deleted_rooms_are_not_listed(checkpoints: Checkpoints) -> None:
    for room in ("a", "b", "c"):
        checkpoints.save(room, 1)
    anew = checkpoints.delete_room("b").next_epoch
    assert room_ids(checkpoints) == ["a", "c"]
    for page_size in (1, 2):
        assert room_ids(checkpoints, page_size=page_size) == ["a", "c"]
    checkpoints.save("b", anew)
    assert room_ids(checkpoints) == ["a", "b", "c"]


def test_rooms_with_many_epochs_are_passed_over_by_seeking(checkpoints: Checkpoints, backend: str) -> None:
    many = {"memory": 3000, "filesystem": 300}.get(backend, 120)
    for room in ("a", "b"):
        checkpoints.save(room, many)
        checkpoint = checkpoints.stored(epoch_name(room, many))
        for epoch in range(many):
            checkpoints.put(epoch_name(room, epoch), checkpoint)  # what is in them is not looked at
    checkpoints.save("a/z", 5)
    checkpoints.objects.calm()
    assert room_ids(checkpoints) == ["a", "a/z", "b"]
    assert checkpoints.objects.calls["list"] <= 4
    assert checkpoints.objects.entries_listed < 2 * 64 + 20
    assert checkpoints.objects.calls["get"] == 3


def test_a_list_is_read_no_further_than_its_page(checkpoints: Checkpoints) -> None:
    for epoch in range(40):
        checkpoints.save(ROOM, epoch)
    checkpoints.objects.calm()
    answer = checkpoints.page("ListCheckpoints", room_id=ROOM, page_size=3)
    assert [entry.epoch for entry in answer.checkpoints] == [0, 1, 2]
    assert checkpoints.objects.calls == {"list": 1, "get": 3}
    assert checkpoints.objects.entries_listed == 4


def test_a_page_goes_on_where_the_one_before_ended_whatever_happens_between(checkpoints: Checkpoints) -> None:
    for epoch in range(1, 7):
        checkpoints.save(ROOM, epoch)
    first = checkpoints.page("ListCheckpoints", room_id=ROOM, page_size=3)
    checkpoints.remove(epoch_name(ROOM, 3))
    checkpoints.remove(epoch_name(ROOM, 4))
    checkpoints.save(ROOM, 0)
    checkpoints.save(ROOM, 9)
    checkpoints.restart()
    rest = checkpoints.page("ListCheckpoints", room_id=ROOM, page_token=first.next_page_token)
    assert [entry.epoch for entry in rest.checkpoints] == [5, 6, 9]


def test_a_token_belongs_to_its_query(checkpoints: Checkpoints) -> None:
    for room in ("a", "b"):
        for epoch in (1, 2, 3):
            checkpoints.save(room, epoch)
        checkpoints.hibernate(room)
    epochs = checkpoints.page("ListCheckpoints", room_id="a", page_size=1).next_page_token
    rooms = checkpoints.page("ListRooms", page_size=1).next_page_token
    sleeping = checkpoints.page("ListHibernatedRooms", page_size=1).next_page_token
    for rpc, fields in (
        ("ListCheckpoints", {"room_id": "b", "page_token": epochs}),
        ("ListCheckpoints", {"room_id": "a", "from_epoch": 1, "page_token": epochs}),
        ("ListCheckpoints", {"room_id": "a", "page_token": rooms}),
        ("ListCheckpoints", {"room_id": "a", "page_token": "x" + epochs[1:]}),
        ("ListRooms", {"prefix": "a", "page_token": rooms}),
        ("ListRooms", {"page_token": sleeping}),
        ("ListRooms", {"page_token": "?"}),
        ("ListHibernatedRooms", {"page_token": rooms}),
        ("ListHibernatedRooms", {"prefix": "b", "page_token": sleeping}),
    ):
        with refused("INVALID_PAGE_TOKEN", "INVALID_ARGUMENT") as refusal:
            checkpoints.page(rpc, **fields)
        assert refusal.fields == ["page_token"]
    for rpc, token in (("ListRooms", rooms), ("ListHibernatedRooms", sleeping)):
        assert checkpoints.page(rpc, page_size=7, page_token=token).next_page_token == ""


@pytest.mark.parametrize("position", [*ROOMS_IN_TOKENS, *NOTHING_IN_TOKENS])
def test_a_crafted_page_token_is_refused_unless_it_tells_where_to_go_on(
    checkpoints: Checkpoints, position: str
) -> None:
    checkpoints.save(ROOM, 1, b"data")
    checkpoints.hibernate(ROOM, b"data")
    queries = {
        "ListCheckpoints": (("checkpoints", ROOM, "0"), {"room_id": ROOM}),
        "ListRooms": (("rooms", ""), {}),
        "ListHibernatedRooms": (("hibernated", ""), {}),
    }
    for rpc, (binding, fields) in queries.items():
        token = page_token.encode(binding, position)
        answer = tried(partial(checkpoints.page, rpc, page_token=token, **fields))
        if rpc == "ListRooms" and position in ROOMS_IN_TOKENS:
            assert not isinstance(answer, Refusal)
        else:
            assert (answer.code, answer.reason) == ("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN")


def test_a_page_of_much_metadata_ends_at_about_a_mebibyte(checkpoints: Checkpoints, backend: str) -> None:
    if backend != "memory":
        pytest.skip("the same in every backend, and thousands of saves")
    for epoch in range(1200):
        checkpoints.save(ROOM, epoch, metadata={"k": "v" * 1000})
    first = checkpoints.page("ListCheckpoints", room_id=ROOM, page_size=10_000)
    assert 600 < len(first.checkpoints) < 1100
    assert first.ByteSize() < 2 * MIB
    assert checkpoints.epochs(ROOM, page_size=10_000) == list(range(1200))


def test_a_page_where_all_is_damaged_stays_below_two_mebibytes(checkpoints: Checkpoints, backend: str) -> None:
    if backend != "memory":
        pytest.skip("the same in every backend, and thousands of saves")
    room = "/".join(["r" * 199] * 2)
    for epoch in range(5000):
        checkpoints.put(epoch_name(room, epoch), b"?")
    assert checkpoints.epochs(room, page_size=10_000) == list(range(5000))
    page = checkpoints.page("ListCheckpoints", room_id=room, page_size=10_000)
    assert page.ByteSize() < 2 * MIB
    for number in range(3000):
        checkpoints.put(pointer_name(f"{room}/{number}"), b"?")
    page = checkpoints.page("ListRooms", page_size=10_000)
    assert page.ByteSize() < 2 * MIB
    assert len(room_ids(checkpoints, page_size=10_000)) == 3000
