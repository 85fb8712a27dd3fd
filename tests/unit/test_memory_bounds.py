"""What is kept in memory is bounded by what is counted, however it is cut up."""

import hashlib
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import google_crc32c
import pytest

from holdfast_server.objects.body import Body, Chunk, Declared
from holdfast_server.objects.conditions import CreateOnly, ObjectExists
from holdfast_server.objects.info import Attributes
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.memory import MemoryStore
from tests.support.s3_servers import MotoServer
from tests.support.s3_stores import PART_BYTES, OpenedStore
from tests.support.samples import MIB

KEY = ObjectKey("key")


@contextmanager
def traced() -> Iterator[None]:
    """Have memory measured within the block."""
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def large_key(number: int) -> ObjectKey:
    """Return a key of 366 bytes, of characters that take two."""
    segment = "é" * 90
    return ObjectKey(f"{segment}/{segment}/{number:04}")


def large_attributes(number: int) -> Attributes:
    """Return attributes with 90 entries, none of whose strings another object has."""
    return Attributes("text/plain", {f"k{entry:02}": f"v{number:04}{entry:02}" for entry in range(90)})


@pytest.mark.parametrize(
    ("step", "checked"), [(1, False), (2, True)], ids=["1 byte without checksum", "2 bytes with checksum"]
)
def test_tiny_chunks_take_little_more_than_their_bytes(step: int, checked: bool) -> None:
    def parts() -> Iterator[Chunk]:
        for number in range(MIB // step):
            data = (number % 256**step).to_bytes(step)
            yield Chunk(data, google_crc32c.value(data) if checked else None)

    with traced():
        Body(parts(), Declared(MIB)).read_to_end()
        _, peak = tracemalloc.get_traced_memory()
    assert peak < 8 * MIB


def test_an_object_with_much_metadata_counts_for_what_it_takes() -> None:
    store = MemoryStore()
    count = 50
    assert len(large_key(0).text.encode()) == 366
    with traced():
        for number in range(count):
            store.put(large_key(number), Body.of(b""), attributes=large_attributes(number))
        taken, _ = tracemalloc.get_traced_memory()
    assert store._used_bytes >= taken / 3


def test_what_counted_is_given_back_by_deletes_and_overwrites() -> None:
    plain = MemoryStore()
    plain.put(KEY, Body.of(b"data"))
    store = MemoryStore()
    other = large_key(1)
    store.put(KEY, Body.of(b"data"), attributes=large_attributes(1))
    store.copy(KEY, other)
    store.copy(KEY, other, attributes=Attributes())
    store.copy(KEY, other, attributes=large_attributes(2))
    with pytest.raises(ObjectExists):
        store.put(other, Body.of(b"data"), condition=CreateOnly(), attributes=large_attributes(3))
    with pytest.raises(ObjectExists):
        store.copy(KEY, other, condition=CreateOnly())
    assert store.delete(other)
    store.put(KEY, Body.of(b"data"))
    assert store._used_bytes == plain._used_bytes
    assert store.delete(KEY)
    assert store._used_bytes == 0


@pytest.mark.parametrize("foretold", [True, False], ids=["sha256 in the header", "through the spool"])
def test_an_upload_to_s3_takes_two_parts_and_some_pieces(moto: MotoServer, *, foretold: bool) -> None:
    pieces = 32
    sha256 = hashlib.sha256(b"".join(bytes([number]) * MIB for number in range(pieces))).digest()
    chunks = (Chunk(bytes([number]) * MIB) for number in range(pieces))
    with OpenedStore(moto) as opened:
        body = Body(chunks, Declared(pieces * MIB, sha256 if foretold else None))
        with traced():
            opened.store.put(KEY, body)
            _, peak = tracemalloc.get_traced_memory()
    assert peak < 2 * PART_BYTES + 9 * MIB
