"""Files that are not as they were written: damage is told as damage, and a wrong byte is never served."""

import json
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import google_crc32c
import pytest

from holdfast_server.errors import IntegrityFailed
from holdfast_server.objects.base import Entry, ListQuery
from holdfast_server.objects.body import Body
from holdfast_server.objects.conditions import CreateOnly, IfMatch
from holdfast_server.objects.filesystem import FilesystemStore
from holdfast_server.objects.info import Attributes
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.ranges import ByteRange
from tests.support.disk_operations import content, read
from tests.support.samples import MIB, sample

KEY = ObjectKey("some/key")
ATTRIBUTES = Attributes("text/plain", {"name": "value"})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FilesystemStore]:
    """A store in `tmp_path`."""
    with closing(FilesystemStore(tmp_path)) as store:
        yield store


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the object KEY is."""
    return tmp_path / "tree" / "some.d" / "key.f"


@pytest.mark.parametrize("data", [b"", b"twenty bytes of data"], ids=["empty", "small"])
@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_every_flipped_byte_is_noticed(store: FilesystemStore, file: Path, data: bytes, flip: int) -> None:
    info = store.put(KEY, Body.of(data), attributes=ATTRIBUTES)
    intact = file.read_bytes()
    checksums = 4 if data else 0
    for position in range(len(intact)):
        file.write_bytes(intact[:position] + bytes([intact[position] ^ flip]) + intact[position + 1 :])
        with pytest.raises(IntegrityFailed):
            read(store, KEY)
        if position < len(data) + checksums:
            assert store.stat(KEY) == info  # the record says nothing wrong; the bytes are checked when they are read
        else:
            with pytest.raises(IntegrityFailed):
                store.stat(KEY)
    file.write_bytes(intact)
    assert read(store, KEY) == data


@pytest.mark.parametrize("data", [b"", b"twenty bytes of data"], ids=["empty", "small"])
def test_every_other_length_is_noticed(store: FilesystemStore, file: Path, data: bytes) -> None:
    store.put(KEY, Body.of(data), attributes=ATTRIBUTES)
    intact = file.read_bytes()
    shortened = (intact[:length] for length in range(len(intact)))
    beheaded = (intact[start:] for start in range(1, len(intact)))
    lengthened = (intact + b"\0", b"\0" + intact, intact + intact)
    for damaged in (*shortened, *beheaded, *lengthened):
        file.write_bytes(damaged)
        with pytest.raises(IntegrityFailed):
            read(store, KEY)
        with pytest.raises(IntegrityFailed):
            store.stat(KEY)


def test_a_damaged_piece_does_not_hide_the_others(store: FilesystemStore, file: Path) -> None:
    data = sample(3 * MIB + 10)
    store.put(KEY, Body.of(data))
    with file.open("r+b") as damaged:
        damaged.seek(MIB + 5)
        damaged.write(bytes([data[MIB + 5] ^ 1]))
    assert read(store, KEY, ByteRange(0, MIB)) == data[:MIB]
    assert read(store, KEY, ByteRange(2 * MIB)) == data[2 * MIB :]
    for wanted in (ByteRange(MIB - 1, 2), ByteRange(MIB, 1), ByteRange(2 * MIB - 1, 5)):
        with pytest.raises(IntegrityFailed):
            read(store, KEY, wanted)


def test_a_damaged_checksum_condemns_its_own_piece_only(store: FilesystemStore, file: Path) -> None:
    data = sample(MIB + 10)
    store.put(KEY, Body.of(data))
    intact = file.read_bytes()
    for position in range(len(data), len(data) + 8):
        file.write_bytes(intact[:position] + bytes([intact[position] ^ 1]) + intact[position + 1 :])
        good, bad = (
            (ByteRange(MIB), ByteRange(0, MIB)) if position < len(data) + 4 else (ByteRange(0, MIB), ByteRange(MIB))
        )
        assert read(store, KEY, good) == data[good.offset :][: good.length or MIB]
        with pytest.raises(IntegrityFailed):
            read(store, KEY, bad)


def test_a_list_shows_damage_where_it_is_and_the_rest_as_it_was(store: FilesystemStore, file: Path) -> None:
    before, after = store.put(ObjectKey("some/k"), Body.of(b"1")), store.put(ObjectKey("some/kez"), Body.of(b"2"))
    store.put(KEY, Body.of(b"3"))
    file.write_bytes(b"not an object")
    found = [item for item in store.list(ListQuery()) if isinstance(item, Entry)]
    assert [item.name for item in found] == ["some/k", "some/key", "some/kez"]
    assert [item.record and item.record.etag for item in found] == [before.etag, None, after.etag]


DAMAGES = [b"", b"x", b"x" * 5000]


@pytest.mark.parametrize("damaged", DAMAGES, ids=len)
def test_a_damaged_object_can_be_overwritten(store: FilesystemStore, file: Path, damaged: bytes) -> None:
    store.put(KEY, Body.of(b"old"))
    file.write_bytes(damaged)
    store.put(KEY, Body.of(b"new"))
    assert read(store, KEY) == b"new"


@pytest.mark.parametrize("damaged", DAMAGES, ids=len)
def test_a_damaged_object_can_be_deleted(store: FilesystemStore, file: Path, damaged: bytes) -> None:
    store.put(KEY, Body.of(b"old"))
    file.write_bytes(damaged)
    assert store.delete(KEY)
    assert content(store, KEY) is None


def test_a_damaged_object_can_be_the_target_of_a_copy_and_not_its_source(store: FilesystemStore, file: Path) -> None:
    other = ObjectKey("other")
    store.put(other, Body.of(b"fine"))
    store.put(KEY, Body.of(b"old"))
    file.write_bytes(b"damaged")
    with pytest.raises(IntegrityFailed):
        store.copy(KEY, other)
    assert read(store, other) == b"fine"
    store.copy(other, KEY)
    assert read(store, KEY) == b"fine"


def test_a_condition_on_a_damaged_object_is_not_guessed(store: FilesystemStore, file: Path) -> None:
    etag = store.put(KEY, Body.of(b"old")).etag
    file.write_bytes(b"damaged")
    for condition in (CreateOnly(), IfMatch(etag)):
        with pytest.raises(IntegrityFailed):
            store.put(KEY, Body.of(b"new"), condition=condition)
    with pytest.raises(IntegrityFailed):
        store.delete(KEY, condition=IfMatch(etag))
    assert file.read_bytes() == b"damaged"


def test_a_copy_of_damaged_bytes_is_known_to_be_damaged(store: FilesystemStore, file: Path) -> None:
    store.put(KEY, Body.of(b"old"))
    intact = file.read_bytes()
    file.write_bytes(b"bad" + intact[3:])
    target = ObjectKey("target")
    try:
        store.copy(KEY, target)
    except IntegrityFailed:
        assert content(store, target) is None
    else:
        with pytest.raises(IntegrityFailed):
            read(store, target)


def test_a_file_with_the_record_of_another_key_is_refused(store: FilesystemStore, tmp_path: Path, file: Path) -> None:
    store.put(KEY, Body.of(b"bytes of some/key"))
    (tmp_path / "tree" / "other.f").write_bytes(file.read_bytes())
    other = ObjectKey("other")
    with pytest.raises(IntegrityFailed, match="another key"):
        store.get(other)
    with pytest.raises(IntegrityFailed, match="another key"):
        store.stat(other)
    assert [(item.name, isinstance(item, Entry) and item.record is None) for item in store.list(ListQuery())] == [
        ("other", True),
        ("some/key", False),
    ]


@pytest.mark.parametrize(
    ("member", "value"),
    [("update_time_us", 10**30), ("update_time_us", "now"), ("etag", 7), ("etag", None), ("sha256", "00"), ("key", 1)],
)
def test_a_record_that_only_looks_right_is_damage(
    store: FilesystemStore, file: Path, member: str, value: object
) -> None:
    store.put(KEY, Body.of(b"data"))
    stored = file.read_bytes()
    (length,) = struct.unpack_from("<I", stored, len(stored) - 32 + 12)
    record = json.loads(stored[-32 - length : -32])
    changed = json.dumps(record | {member: value}, separators=(",", ":")).encode()
    trailer = stored[-32:-20] + struct.pack("<I", len(changed)) + stored[-16:-4]
    checksum = struct.pack("<I", google_crc32c.value(changed + trailer))
    file.write_bytes(stored[: -32 - length] + changed + trailer + checksum)
    with pytest.raises(IntegrityFailed):
        store.stat(KEY)
    assert [isinstance(item, Entry) and item.record is None for item in store.list(ListQuery())] == [True]
