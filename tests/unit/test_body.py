"""A body that ends without an error is whole and is what was declared."""

import hashlib
import threading
from collections.abc import Iterator

import google_crc32c
import pytest

from holdfast_server.errors import BrokenUpload, InvalidArgument, Reason
from holdfast_server.objects.body import NOTHING_DECLARED, PIECE_BYTES, Body, Chunk, Declared
from tests.support.samples import sample
from tests.support.waiting import wait_until


def reason_of(body: Body) -> Reason:
    with pytest.raises(InvalidArgument) as refused:
        body.read_to_end()
    return refused.value.reason


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, 9 * PIECE_BYTES + 3])
@pytest.mark.parametrize("step", [4097, PIECE_BYTES, 2 * PIECE_BYTES])
def test_pieces_digests_and_sizes_are_those_of_the_bytes(size: int, step: int) -> None:
    data = sample(size)
    body = Body([*(Chunk(data[at : at + step]) for at in range(0, size, step)), Declared()])
    pieces = list(body)
    assert b"".join(pieces) == data
    assert [len(piece) for piece in pieces[:-1]] == [PIECE_BYTES] * max(len(pieces) - 1, 0)
    assert body.digests.sha256 == hashlib.sha256(data).digest()
    assert body.digests.size_bytes == size
    assert list(body.digests.piece_crc32c) == [google_crc32c.value(piece) for piece in pieces]


def test_a_checksum_verified_on_the_wire_is_not_computed_again() -> None:
    piece = sample(PIECE_BYTES)
    body = Body([Chunk(piece, 42), Chunk(b"end", 43)], Declared(PIECE_BYTES + 3))
    body.read_to_end()
    assert list(body.digests.piece_crc32c) == [42, 43]


def test_a_checksum_of_part_of_a_piece_is_not_taken_for_that_of_the_piece() -> None:
    body = Body([Chunk(b"one", 42), Chunk(b"two", 43)], Declared(6))
    body.read_to_end()
    assert list(body.digests.piece_crc32c) == [google_crc32c.value(b"onetwo")]


@pytest.mark.parametrize(
    ("parts", "header"),
    [
        ([], Declared(0)),
        ([Declared()], NOTHING_DECLARED),
        ([Chunk(b"data")], Declared(4)),
        ([Chunk(b"data"), Declared()], NOTHING_DECLARED),
        ([Chunk(b"data"), Declared(4)], Declared(4)),
    ],
)
def test_complete_is_what_fills_its_declared_size_or_has_a_trailer(
    parts: list[Chunk | Declared], header: Declared
) -> None:
    Body(parts, header).read_to_end()


@pytest.mark.parametrize(
    ("parts", "header", "reason"),
    [
        ([], NOTHING_DECLARED, Reason.UPLOAD_INCOMPLETE),
        ([], Declared(1), Reason.UPLOAD_INCOMPLETE),
        ([Chunk(b"data")], NOTHING_DECLARED, Reason.UPLOAD_INCOMPLETE),
        ([Chunk(b"dat")], Declared(4), Reason.UPLOAD_INCOMPLETE),
        ([Chunk(b"data")], Declared(None, hashlib.sha256(b"data").digest()), Reason.UPLOAD_INCOMPLETE),
        ([Chunk(b"data!")], Declared(4), Reason.SIZE_MISMATCH),
        ([Chunk(b"dat"), Declared()], Declared(4), Reason.SIZE_MISMATCH),
        ([Chunk(b"data"), Declared(5)], NOTHING_DECLARED, Reason.SIZE_MISMATCH),
        ([Chunk(b"data"), Declared(3)], Declared(4), Reason.SIZE_MISMATCH),
        ([Chunk(b"data"), Declared(None, bytes(32))], NOTHING_DECLARED, Reason.CHECKSUM_MISMATCH),
        ([Chunk(b"data")], Declared(4, bytes(32)), Reason.CHECKSUM_MISMATCH),
        ([Declared()], Declared(0, bytes(32)), Reason.CHECKSUM_MISMATCH),
    ],
)
def test_what_is_not_as_declared_is_refused(parts: list[Chunk | Declared], header: Declared, reason: Reason) -> None:
    assert reason_of(Body(parts, header)) is reason


def test_more_than_declared_is_refused_at_once() -> None:
    def endless() -> Iterator[Chunk]:
        while True:
            yield Chunk(bytes(1000))

    assert reason_of(Body(endless(), Declared(5000))) is Reason.SIZE_MISMATCH


def test_a_limit_holds_for_what_is_declared_and_for_what_comes() -> None:
    with pytest.raises(InvalidArgument) as refused:
        Body([], Declared(11), max_bytes=10)
    assert refused.value.reason is Reason.TOO_LARGE
    assert reason_of(Body([Chunk(bytes(11)), Declared()], max_bytes=10)) is Reason.TOO_LARGE
    Body([Chunk(bytes(10)), Declared()], max_bytes=10).read_to_end()


def test_a_body_that_was_not_read_has_no_digests() -> None:
    with pytest.raises(RuntimeError):
        _ = Body.of(b"data").digests


def test_a_broken_body_leaves_no_thread() -> None:
    def parts() -> Iterator[Chunk]:
        yield from [Chunk(sample(PIECE_BYTES))] * 3
        raise BrokenUpload(Reason.UPLOAD_INCOMPLETE, "size_bytes", "cut off")

    assert reason_of(Body(parts())) is Reason.UPLOAD_INCOMPLETE
    left = iter(Body([Chunk(sample(PIECE_BYTES))] * 3))
    next(left)
    next(left)
    del left
    wait_until(lambda: "sha256" not in [thread.name for thread in threading.enumerate()])  # nor of another test


@pytest.mark.parametrize(
    ("size", "sha256", "reason"), [(-1, None, Reason.INVALID_SIZE), (None, b"31 bytes", Reason.INVALID_DIGEST)]
)
def test_a_declaration_that_cannot_be_is_refused(size: int | None, sha256: bytes | None, reason: Reason) -> None:
    with pytest.raises(InvalidArgument) as refused:
        Declared(size, sha256)
    assert refused.value.reason is reason


def test_what_a_store_has_not_read_is_read_on_and_the_digest_is_of_the_whole() -> None:
    data = b"".join(bytes([number]) * PIECE_BYTES for number in range(4)) + b"rest"
    body = Body([Chunk(data)], Declared(len(data), hashlib.sha256(data).digest()))
    pieces = iter(body)
    assert next(pieces) + next(pieces) == data[: 2 * PIECE_BYTES]
    assert body.read_to_end() == body.digests
    assert body.digests.sha256 == hashlib.sha256(data).digest()
    assert list(body) == []
