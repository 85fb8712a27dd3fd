"""What rooms and epochs may be called, and that every name leads back to what it is the name of."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_server.checkpoints.names import (
    MAX_EPOCH,
    RoomId,
    checked_epoch,
    checked_writer,
    epoch_in,
    flat_room,
    room_in,
    room_of_snapshot,
    snapshots_prefix,
)
from holdfast_server.errors import InvalidArgument, Reason
from holdfast_server.objects.key import ObjectKey

BAD = {
    "empty": "",
    "a dot": ".",
    "two dots": "..",
    "two dots within": "a/../b",
    "two dots at the end": "a/..",
    "the pointer's name": "latest",
    "the pointer's name below": "a/latest",
    "the pointer's name above": "latest/a",
    "a checkpoint's name": "00000000000000000007",
    "a checkpoint's name below": "a/00000000000000000007",
    "20 digits": "12345678901234567890",
    "ten zeros": "0000000000",
    "ten zeros and more": "a/0000000000x/b",
    "a leading slash": "/a",
    "a trailing slash": "a/",
    "a doubled slash": "a//b",
    "513 bytes": "/".join(["r" * 127] * 4) + "rr",
    "1 KiB": "/".join(["r" * 127] * 8),
    "a segment of 201 bytes": "r" * 201,
    "a segment of 202 bytes in 101 characters": "é" * 101,
    "a lone surrogate": "a\ud800b",
    "half of a pair": "\udfff",
    **{f"U+{code:04X}": f"a{chr(code)}b" for code in (*range(0x20), *range(0x7F, 0xA0))},
}

GOOD = [
    "a",
    "a/b",
    "2026/11/20",
    "a/007",
    "latest7",
    "Latest",
    "LATEST",
    "a/latest.",
    "000000000",
    "0000000001x"[1:],
    "1234567890123456789",
    "123456789012345678901",
    "1234567890123456789x",
    "...",
    "é/🎲",
    "\N{ARABIC-INDIC DIGIT ZERO}" * 10,
    "a b",
    "%",
    "%2F",
    "con",
    "r" * 200,
    "/".join(["r" * 127] * 4),
]


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_what_is_no_room_is_refused_with_its_field(text: str) -> None:
    for field in ("room_id", "room_ids"):
        with pytest.raises(InvalidArgument) as refused:
            RoomId(text, field)
        assert (refused.value.reason, refused.value.field) == (Reason.INVALID_ROOM, field)
        assert field in refused.value.message


@pytest.mark.parametrize("text", GOOD)
def test_what_is_a_room_is_taken(text: str) -> None:
    room = RoomId(text)
    assert str(room) == text
    assert room == RoomId(text, "another field")
    assert hash(room) == hash(RoomId(text, "another field"))


def test_a_long_room_is_not_repeated_to_its_caller() -> None:
    with pytest.raises(InvalidArgument) as refused:
        RoomId("r" * 5000)
    assert len(refused.value.message) < 200


def test_names_are_those_of_the_documents() -> None:
    room = RoomId("duel/7")
    assert room.epoch_key(42).text == "snapshots/duel/7/00000000000000000042"
    assert room.pointer_key.text == "snapshots/duel/7/latest"
    assert room.snapshot_key.text == "hibernated/duel%2F7"
    assert room.flat_key.text == "snapshots/duel/7"


@given(st.lists(st.integers(0, MAX_EPOCH), min_size=2, max_size=20))
def test_the_order_of_names_is_that_of_epochs_and_the_pointer_is_behind_all(epochs: list[int]) -> None:
    room = RoomId("room")
    keys = [room.epoch_key(epoch).text for epoch in sorted(epochs)]
    assert keys == sorted(keys)
    assert all(key < room.pointer_key.text for key in keys)
    assert [epoch_in(key, room) for key in keys] == sorted(epochs)


@pytest.mark.parametrize("epoch", [None, -1, -(1 << 63), MAX_EPOCH + 1])
def test_what_is_no_epoch_is_refused_with_its_field(epoch: int | None) -> None:
    with pytest.raises(InvalidArgument) as refused:
        checked_epoch(epoch, "min_epoch")
    assert (refused.value.reason, refused.value.field) == (Reason.INVALID_EPOCH, "min_epoch")


def test_an_epoch_is_refused_with_the_bound_that_it_breaks() -> None:
    for epoch, least, rule in ((-1, 0, "e -1 is negative"), (-2, -1, "e -2 is below -1"), (1 << 63, -1, "is above")):
        with pytest.raises(InvalidArgument, match=rule):
            checked_epoch(epoch, "e", least=least)
    assert checked_epoch(-1, least=-1) == -1


def test_the_epoch_after_the_highest_has_64_bits() -> None:
    assert checked_epoch(MAX_EPOCH) + 1 == (1 << 63) - 1
    assert checked_epoch(0) == 0


@pytest.mark.parametrize("writer", ["w" * 129, "é", "a\n", "\n", "\0", "a\x7f"])
def test_what_is_no_writer_is_refused(writer: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        checked_writer(writer)
    assert (refused.value.reason, refused.value.field) == (Reason.INVALID_WRITER, "writer_id")


def test_a_writer_is_printable_ascii() -> None:
    for writer in ("", " ~", "w" * 128):
        assert checked_writer(writer) == writer


def test_what_is_no_checkpoint_of_a_room_has_no_epoch() -> None:
    room = RoomId("a")
    for name in (
        "snapshots/a/7",
        "snapshots/a/latest",
        "snapshots/a/000000000000000000070",
        "snapshots/a/b/00000000000000000007",
        "snapshots/ab/00000000000000000007",
        "snapshots/a/99999999999999999999",
        "snapshots/a/" + "\N{ARABIC-INDIC DIGIT ZERO}" * 20,
        "snapshots/a/0000000000000000007\n",
        "00000000000000000007",
    ):
        assert epoch_in(name, room) is None


def test_the_room_of_a_name_is_all_before_its_last_segment() -> None:
    assert room_in("snapshots/a/b/00000000000000000007") == ("a/b", True)
    assert room_in("snapshots/a/b/latest") == ("a/b", False)
    for nobodys in ("snapshots/latest", "snapshots/a/b", "other/a/latest", "snapshots/a/7", "latest"):
        assert room_in(nobodys) is None


def test_a_flat_name_is_a_rooms() -> None:
    assert flat_room("snapshots/a/b") == RoomId("a/b")
    assert flat_room("snapshots/a/latest") is None


# The names of snapshots.

segments = st.one_of(
    st.text(st.sampled_from("a%./é🎲2F5~"), min_size=1, max_size=200),
    st.sampled_from(
        ["x" * 199 + ".", "x" * 198 + "..", "%" * 200, "é" * 99, "x" * 200, "...", "%25", "%2F", "%~", "="]
    ),
)


def _room(text: str) -> RoomId | None:
    try:
        return RoomId(text)
    except InvalidArgument:
        return None


def rooms() -> st.SearchStrategy[RoomId]:
    texts = st.lists(segments, min_size=1, max_size=12).map("/".join)
    cut = texts.map(lambda text: text.encode()[:512].decode(errors="ignore"))
    return cut.map(_room).filter(lambda room: room is not None)  # type: ignore[return-value]


EXTREME = [
    "x" * 199 + ".",
    "x" * 198 + "..",
    "x" * 198 + "/..z",
    "/".join(["%" * 127] * 4),
    "/".join("a" * 256),
    "/".join(["..."] * 128),
    "/".join(["🎲" * 49] * 2),
    "é" * 100,
    "/".join(["é" * 100, "%" * 200, "~" * 109]),
]


@settings(max_examples=300)
@given(rooms())
def test_the_name_of_a_snapshot_leads_back_to_its_room(room: RoomId) -> None:
    assert room_of_snapshot(room.snapshot_key.text) == room


@pytest.mark.parametrize("text", EXTREME)
def test_rooms_with_the_longest_names_can_be_hibernated(text: str) -> None:
    key = RoomId(text).snapshot_key
    assert room_of_snapshot(key.text) == RoomId(text)
    assert ObjectKey(key.text) == key


@settings(max_examples=300)
@given(st.lists(rooms(), min_size=2, max_size=6, unique=True))
def test_no_snapshots_name_is_anothers_nor_its_parent(found: list[RoomId]) -> None:
    keys = [room.snapshot_key.text for room in found]
    assert len(set(keys)) == len(keys)
    assert not any(other.startswith(key + "/") for key in keys for other in keys)


@settings(max_examples=300)
@given(st.one_of(rooms().map(str), st.sampled_from(EXTREME)), st.integers(0, 512))
def test_the_name_of_a_snapshot_begins_as_its_rooms_prefixes_do(text: str, length: int) -> None:
    assert RoomId(text).snapshot_key.text.startswith(snapshots_prefix(text[:length]))


@pytest.mark.parametrize(
    "name",
    ["a/b", "a%", "%zz", "a%2f", "x" * 199 + "%/", "a%/b", "a%~", "%~YQ==", "a%~!!", "..", "", "latest", "%25%~Yg=="],
)
def test_what_does_not_give_back_its_own_name_is_nobodys(name: str) -> None:
    assert room_of_snapshot("hibernated/" + name) is None
