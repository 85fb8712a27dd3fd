"""How an object's bytes lie in a bucket, version 1; `docs/formats.md` describes each byte.

An object of at most 5 MiB is there as it is, and any S3 tool reads it; the CRC-32C of its pieces are in its record.
In a larger one they do not fit there, and each piece of 1 MiB is followed by its sum: so a range of it, sums included,
is one run of bytes that one request gets. The size in a list tells which of both it is.
"""

import secrets
import struct
from collections.abc import Iterable, Iterator, Sequence

import google_crc32c

from holdfast_server.objects.body import PIECE_BYTES
from holdfast_server.objects.ranges import ByteRange, Extent, Range, Suffix, Tail, Whole
from holdfast_server.objects.reading import pieces_touched

PLAIN_BYTES = 5 << 20
"""The largest object that lies there as it is: S3's smallest part, so whatever comes in parts is larger."""

SUM_BYTES = 4
FRAME_BYTES = PIECE_BYTES + SUM_BYTES
_SUM = struct.Struct("<I")
_NUMBER = struct.Struct("<Q")
_SEED_BYTES = 4

_TAIL_SUMS = 2
"""A tail is shorter than a piece, and so in two of them at most."""

_MOST_BYTES = 1 << 60
"""Above every object, and below what stores can read: positions beyond it are sent as this one."""


def size_of(stored_bytes: int) -> int | None:
    """Return the size of an object from that of what is stored; None: Holdfast stores nothing of that size."""
    if stored_bytes <= PLAIN_BYTES:
        return stored_bytes
    frames, rest = divmod(stored_bytes, FRAME_BYTES)
    if 0 < rest <= SUM_BYTES:
        return None
    size = frames * PIECE_BYTES + max(rest - SUM_BYTES, 0)
    return size if size > PLAIN_BYTES else None


def stored_size_of(size_bytes: int) -> int:
    """Return how many bytes are stored for an object."""
    if size_bytes <= PLAIN_BYTES:
        return size_bytes
    return size_bytes + SUM_BYTES * -(-size_bytes // PIECE_BYTES)


def new_seed() -> bytes:
    """Return what the sums of one larger object are made with, so that none of another object's pass for them."""
    return secrets.token_bytes(_SEED_BYTES)


def framed(pieces: Iterable[bytes], crcs: Sequence[int], seed: bytes) -> Iterator[bytes]:
    """Yield the pieces of a larger object as they are stored; `crcs` may grow while they are yielded."""
    for number, piece in enumerate(pieces):
        yield piece
        yield _SUM.pack(crcs[number] ^ _place_crc(number, seed))


def split_frame(data: bytes, number: int, seed: bytes) -> tuple[bytes, int]:
    """Return a stored piece of a larger object, and the CRC-32C that it must have if this is its place.

    What is too short is no piece: b"" and 0.
    """
    if len(data) <= SUM_BYTES:
        return b"", 0
    return data[:-SUM_BYTES], _SUM.unpack_from(data, len(data) - SUM_BYTES)[0] ^ _place_crc(number, seed)


def _place_crc(number: int, seed: bytes) -> int:
    """Return the CRC-32C of a place: no two places of one object have the same.

    The sum is this one XOR the piece's, and not one over both: so a reader gets the piece's own back out of it, which
    it needs for the wire, and reads the piece once.
    """
    crc: int = google_crc32c.value(_NUMBER.pack(number) + seed)
    return crc


def piece_at(number: int, size_bytes: int, *, is_adopted: bool = False) -> Extent:
    """Return where a piece and its sum, if that follows it, are stored: it never does in what others wrote."""
    length = min(PIECE_BYTES, size_bytes - number * PIECE_BYTES)
    if size_bytes <= PLAIN_BYTES or is_adopted:
        return Extent(number * PIECE_BYTES, length)
    return Extent(number * FRAME_BYTES, length + SUM_BYTES)


def part_at(number: int, extent: Extent, size_bytes: int, *, is_adopted: bool = False) -> Extent:
    """Return where that part of a piece is stored which the extent touches, without a sum."""
    first = max(extent.offset - number * PIECE_BYTES, 0)
    end = min(extent.offset + extent.length - number * PIECE_BYTES, PIECE_BYTES)
    return Extent(piece_at(number, size_bytes, is_adopted=is_adopted).offset + first, end - first)


def range_header(wanted: Range) -> str | None:
    """Return the range to ask for before the size is known: all pieces that `wanted` touches, whichever way they lie.

    None: everything. It can begin or end some bytes too early or too late, and for a suffix up to two pieces. For a
    tail it is just its bytes, and the sums that may stand between and behind them.
    """
    if isinstance(wanted, Whole):
        return None
    if isinstance(wanted, Tail):
        return f"bytes=-{wanted.length + _TAIL_SUMS * SUM_BYTES}"
    if isinstance(wanted, Suffix):
        pieces = -(-wanted.length // PIECE_BYTES) + 1
        return f"bytes=-{min(pieces * FRAME_BYTES, _MOST_BYTES)}"
    return _from_to(wanted)


def range_header_of(extent: Extent, size_bytes: int, *, is_adopted: bool = False) -> str:
    """Return the range to ask for once the size is known: the pieces that the extent, not an empty one, touches."""
    pieces = pieces_touched(extent)
    first, last = (piece_at(number, size_bytes, is_adopted=is_adopted) for number in (pieces[0], pieces[-1]))
    return f"bytes={first.offset}-{last.offset + last.length - 1}"


def _from_to(wanted: ByteRange) -> str | None:
    first = wanted.offset // PIECE_BYTES
    # The pieces of a larger object begin later than those of one that lies there as it is.
    start = min(first * (PIECE_BYTES if wanted.offset < PLAIN_BYTES else FRAME_BYTES), _MOST_BYTES)
    if wanted.length is None:
        return f"bytes={start}-" if start else None
    last = (wanted.offset + wanted.length - 1) // PIECE_BYTES
    return f"bytes={start}-{min((last + 1) * FRAME_BYTES - 1, 2 * _MOST_BYTES)}"
