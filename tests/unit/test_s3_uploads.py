"""How a stream is cut into parts, and what that holds in memory."""

import tracemalloc
from collections.abc import Iterator

from holdfast_server.objects.s3.uploads import MOST_PARTS, Parts, part_size
from tests.support.samples import MIB, sample


def stream(data: bytes, step: int) -> Iterator[bytes]:
    for at in range(0, len(data), step):
        yield data[at : at + step]


def test_parts_are_of_one_size_but_for_the_last() -> None:
    data = sample(10_000)
    for step in (1, 7, 1000, 1024, 3000, 20_000):
        parts = [bytes(part) for part in Parts(1024).cut(stream(data, step))]
        assert b"".join(parts) == data
        assert {len(part) for part in parts[:-1]} == {1024}
        assert 0 < len(parts[-1]) <= 1024


def test_a_part_stays_as_it_was_while_the_next_one_is_filled() -> None:
    parts = Parts(1000).cut(stream(sample(5000), 300))
    before = next(parts)
    copied = bytes(before)
    for part in parts:
        assert bytes(before) == copied
        before, copied = part, bytes(part)


def test_a_declared_size_takes_no_memory_before_bytes_come() -> None:
    tracemalloc.start()
    try:
        (part,) = Parts(1024 * MIB).cut(stream(sample(7 * MIB), MIB))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(part) == 7 * MIB
    assert most < 40 * MIB


def test_parts_grow_so_that_there_are_no_more_than_s3_takes() -> None:
    assert part_size(None, 16 * MIB) == 16 * MIB
    assert part_size(100 * MIB, 16 * MIB) == 16 * MIB
    for stored in (16 * MIB * MOST_PARTS, 16 * MIB * MOST_PARTS + 1, 1 << 40, 5 << 40):
        size = part_size(stored, 16 * MIB)
        assert -(-stored // size) <= MOST_PARTS
        assert size % MIB == 0
