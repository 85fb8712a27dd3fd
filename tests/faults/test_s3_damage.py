"""Objects in the bucket that are not as they were written: damage is told as damage, and no wrong byte is served."""

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import pytest
from minio import Minio

from holdfast_server.errors import IntegrityFailed
from holdfast_server.objects.base import Entry, ListQuery, ObjectStore
from holdfast_server.objects.body import Body, Chunk, Declared
from holdfast_server.objects.conditions import Condition, CreateOnly, IfMatch, Overwrite
from holdfast_server.objects.info import Attributes
from holdfast_server.objects.ranges import ByteRange, Suffix
from tests.support.disk_operations import KEY, SOURCE, content, read
from tests.support.s3_servers import MotoServer
from tests.support.s3_stores import OpenedStore
from tests.support.samples import MIB, sample

PLAIN = sample(2 * MIB + 10, seed=7)
FRAMED = sample(5 * MIB + 10, seed=8)
FRAME = MIB + 4
ATTRIBUTES = Attributes("text/plain", {"name": "value"})

PREFIX = "x-amz-meta-holdfast-"


@dataclass(frozen=True)
class Stored:
    """What lies in the bucket under a key."""

    data: bytes
    metadata: dict[str, str]
    content_type: str = "text/plain"


class BackDoor:
    """Looks at objects in the bucket, and puts others there."""

    def __init__(self, client: Minio, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def take(self) -> Stored:
        """Return what lies under KEY."""
        answer = self._client.get_object(self._bucket, KEY.text)
        try:
            headers = {name.lower(): value for name, value in answer.headers.items()}
            return Stored(answer.read(), {name: value for name, value in headers.items() if name.startswith(PREFIX)})
        finally:
            answer.close()
            answer.release_conn()

    def lay(self, stored: Stored) -> None:
        """Have this lie under KEY."""
        self._client.put_object(
            self._bucket,
            KEY.text,
            io.BytesIO(stored.data),
            len(stored.data),
            content_type=stored.content_type,
            metadata=dict(stored.metadata),
        )


@pytest.fixture(scope="module")
def opened(moto: MotoServer) -> Iterator[OpenedStore]:
    """A store on moto."""
    with OpenedStore(moto) as opened:
        yield opened


@pytest.fixture
def store(opened: OpenedStore) -> ObjectStore:
    """The store, empty."""
    opened.empty()
    return opened.store


@pytest.fixture
def back_door(opened: OpenedStore) -> BackDoor:
    """The way around it."""
    return BackDoor(opened.server.client(), opened.bucket)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("at", [0, MIB - 1, MIB, 2 * MIB + 9])
def test_a_flipped_byte_of_an_object_that_lies_as_it_is(store: ObjectStore, back_door: BackDoor, at: int) -> None:
    store.put(KEY, Body.of(PLAIN))
    stored = back_door.take()
    assert stored.data == PLAIN
    back_door.lay(replace(stored, data=flipped(stored.data, at)))
    check_piece_is_damaged(store, PLAIN, at // MIB)


@pytest.mark.parametrize("at", [0, MIB - 1, MIB, MIB + 3, 4 * FRAME + 1, 5 * FRAME, 5 * FRAME + 13])
def test_a_flipped_byte_of_a_larger_object(store: ObjectStore, back_door: BackDoor, at: int) -> None:
    store.put(KEY, Body.of(FRAMED))
    stored = back_door.take()
    assert len(stored.data) == len(FRAMED) + 6 * 4
    back_door.lay(replace(stored, data=flipped(stored.data, at)))
    check_piece_is_damaged(store, FRAMED, at // FRAME)


def check_piece_is_damaged(store: ObjectStore, data: bytes, number: int) -> None:
    """Check that a piece cannot be had, and all others can."""
    start, end = number * MIB, min((number + 1) * MIB, len(data))
    for wanted in (ByteRange(), ByteRange(start, 1), ByteRange(end - 1, 1), Suffix(len(data) - start)):
        with pytest.raises(IntegrityFailed, match="not those that were stored"):
            read(store, KEY, wanted)
    if start:
        assert read(store, KEY, ByteRange(0, start)) == data[:start]
    if end < len(data):
        assert read(store, KEY, ByteRange(end)) == data[end:]
    assert store.stat(KEY).size_bytes == len(data)


def framed(data: bytes, frames: Iterable[int]) -> bytes:
    """Return these frames of what is stored, by number."""
    return b"".join(data[number * FRAME :][:FRAME] for number in frames)


MISPLACED: dict[str, tuple[int, ...]] = {
    "two neighbours swapped": (0, 2, 1, 3, 4, 5),
    "first and last but one swapped": (4, 1, 2, 3, 0, 5),
    "one in place of the next": (0, 1, 1, 3, 4, 5),
    "one in place of all": (3, 3, 3, 3, 3, 5),
    "one dropped, and one repeated": (0, 2, 3, 4, 4, 5),
}
"""Which frames lie where."""


@pytest.mark.parametrize("frames", MISPLACED.values(), ids=MISPLACED)
def test_pieces_of_a_larger_object_that_are_not_in_their_places(
    store: ObjectStore, back_door: BackDoor, frames: tuple[int, ...]
) -> None:
    store.put(KEY, Body.of(FRAMED))
    stored = back_door.take()
    back_door.lay(replace(stored, data=framed(stored.data, frames)))
    check_pieces(store, FRAMED, [number for number, there in enumerate(frames) if number != there])


@pytest.mark.parametrize("other", [FRAMED[::-1], FRAMED], ids=["other bytes", "the same bytes"])
@pytest.mark.parametrize("number", [0, 3, 5])
def test_a_piece_of_another_object_of_the_same_key(
    store: ObjectStore, back_door: BackDoor, other: bytes, number: int
) -> None:
    store.put(KEY, Body.of(other))
    before = back_door.take()
    store.put(KEY, Body.of(FRAMED))
    stored = back_door.take()
    mixed = framed(stored.data, range(number)) + framed(before.data, [number])
    back_door.lay(replace(stored, data=mixed + framed(stored.data, range(number + 1, 6))))
    check_pieces(store, FRAMED, [number])


def test_the_bytes_of_another_object_of_the_same_key_and_size(store: ObjectStore, back_door: BackDoor) -> None:
    store.put(KEY, Body.of(FRAMED[::-1]))
    before = back_door.take()
    store.put(KEY, Body.of(FRAMED))
    back_door.lay(replace(back_door.take(), data=before.data))
    check_pieces(store, FRAMED, range(6))


def check_pieces(store: ObjectStore, data: bytes, damaged: Iterable[int]) -> None:
    """Check that these pieces cannot be had, neither by themselves nor with the others, and all others can."""
    for number in range(6):
        start, end = number * MIB, min((number + 1) * MIB, len(data))
        for wanted in (ByteRange(start, end - start), ByteRange(start, 1), ByteRange(end - 1, 1)):
            if number in damaged:
                with pytest.raises(IntegrityFailed, match="not those that were stored"):
                    read(store, KEY, wanted)
            else:
                assert read(store, KEY, wanted) == data[start:end][wanted.offset - start :][: wanted.length]
    for across in (ByteRange(), Suffix(len(data))):
        with pytest.raises(IntegrityFailed, match="not those that were stored"):
            read(store, KEY, across)


LENGTHS: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda _: b"",
    "without its last byte": lambda data: data[:-1],
    "without its first byte": lambda data: data[1:],
    "with one byte more": lambda data: data + b"\0",
    "twice": lambda data: data + data,
}


BODIES: dict[str, Callable[[], Body]] = {
    "plain": lambda: Body.of(PLAIN),
    "framed": lambda: Body.of(FRAMED),
    "framed, of unknown size": lambda: Body(
        [Chunk(FRAMED), Declared()], Declared(sha256=hashlib.sha256(FRAMED).digest())
    ),
}


@pytest.mark.parametrize("change", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_another_length(
    store: ObjectStore, back_door: BackDoor, body: Callable[[], Body], change: Callable[[bytes], bytes]
) -> None:
    store.put(KEY, body())
    stored = back_door.take()
    back_door.lay(replace(stored, data=change(stored.data)))
    with pytest.raises(IntegrityFailed):
        read(store, KEY)


HEADERS: dict[str, dict[str, str | None]] = {
    "no format": {"format": None},
    "a newer format": {"format": "2"},
    "no sha256": {"sha256": None},
    "a short sha256": {"sha256": "00"},
    "a sha256 that is none": {"sha256": "x" * 64},
    "no checksums": {"crc32c": None},
    "a checksum too few": {"crc32c": "0" * 16},
    "a checksum that is none": {"crc32c": "x" * 24},
    "metadata that are none": {"metadata": "NAME=value"},
    "other metadata": {"metadata": "name=valuf"},
    "another sha256": {"sha256": hashlib.sha256(b"another").hexdigest()},
    "another write": {"write": "0" * 16},
    "another check": {"check": "00000000"},
    "no check": {"check": None},
    "no content type": {"type": "none"},
}


@pytest.mark.parametrize("change", HEADERS.values(), ids=HEADERS)
def test_headers_that_are_not_as_they_were_written(
    store: ObjectStore, back_door: BackDoor, change: dict[str, str | None]
) -> None:
    store.put(KEY, Body.of(PLAIN), attributes=ATTRIBUTES)
    stored = back_door.take()
    headers = {**stored.metadata, **{PREFIX + name: value for name, value in change.items()}}
    back_door.lay(replace(stored, metadata={name: value for name, value in headers.items() if value is not None}))
    check_damaged(store)


def test_a_content_type_that_is_not_as_it_was_written(store: ObjectStore, back_door: BackDoor) -> None:
    store.put(KEY, Body.of(PLAIN), attributes=ATTRIBUTES)
    back_door.lay(replace(back_door.take(), content_type="text/plaim"))
    check_damaged(store)


@pytest.mark.parametrize("name", ["seed", "size", "sha256", "check"])
def test_headers_of_a_larger_object_that_are_not_as_they_were_written(
    store: ObjectStore, back_door: BackDoor, name: str
) -> None:
    store.put(KEY, Body.of(FRAMED), attributes=ATTRIBUTES)
    stored = back_door.take()
    value = stored.metadata[PREFIX + name]
    other = value[:-1] + ("1" if value.endswith("0") else "0")
    back_door.lay(replace(stored, metadata={**stored.metadata, PREFIX + name: other}))
    check_damaged(store)


def test_an_object_that_another_program_wrote(store: ObjectStore, back_door: BackDoor) -> None:
    back_door.lay(Stored(b"hello", {}))
    check_damaged(store)
    assert [item.name for item in store.list(ListQuery()) if isinstance(item, Entry)] == [KEY.text]


def check_damaged(store: ObjectStore) -> None:
    """Check that nothing is told or made of what lies under KEY, and that it can be put right."""
    for look in (store.get, store.stat, lambda key: store.copy(key, SOURCE)):
        with pytest.raises(IntegrityFailed):
            look(KEY)
    assert content(store, SOURCE) is None
    for condition in (CreateOnly(), IfMatch("etag")):
        with pytest.raises(IntegrityFailed):
            store.put(KEY, Body.of(b"new"), condition=condition)
    with pytest.raises(IntegrityFailed):
        store.delete(KEY, condition=IfMatch("etag"))
    assert store.put(KEY, Body.of(b"new")).size_bytes == 3
    assert content(store, KEY) == b"new"


def test_a_damaged_object_can_be_deleted_and_overwritten_by_a_copy(store: ObjectStore, back_door: BackDoor) -> None:
    store.put(SOURCE, Body.of(b"fine"))
    back_door.lay(Stored(b"hello", {}))
    store.copy(SOURCE, KEY)
    assert content(store, KEY) == b"fine"
    back_door.lay(Stored(b"hello", {}))
    assert store.delete(KEY)
    assert content(store, KEY) is None


@pytest.mark.parametrize("condition", [Overwrite(), CreateOnly()], ids=["without a condition", "under a condition"])
def test_a_copy_of_damaged_bytes_is_refused_or_known_to_be_damaged(
    store: ObjectStore, back_door: BackDoor, condition: Condition
) -> None:
    store.put(KEY, Body.of(PLAIN))
    stored = back_door.take()
    back_door.lay(replace(stored, data=flipped(stored.data, MIB + 5)))
    try:
        store.copy(KEY, SOURCE, condition=condition)
    except IntegrityFailed:
        assert content(store, SOURCE) is None
    else:
        with pytest.raises(IntegrityFailed):
            read(store, SOURCE)
