"""Bytes on their way out of a store: the pieces that a range touches, verified, and cut to the range."""

from collections.abc import Callable, Iterator, Sequence

import google_crc32c

from holdfast_server.errors import IntegrityFailed
from holdfast_server.objects.body import PIECE_BYTES, Chunk
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.ranges import Extent


def verified_chunks(
    key: ObjectKey,
    size_bytes: int,
    extent: Extent,
    crcs: Sequence[int],
    read_piece: Callable[[int, int], bytes],
) -> Iterator[Chunk]:
    """Yield the extent's bytes, at most 1 MiB at a time, each piece checked against its CRC-32C before it leaves.

    `crcs` are those of the pieces that the extent touches, in order; `read_piece(offset, length)` returns the stored
    bytes of one whole piece. Raises `IntegrityFailed`.
    """
    if extent.length == 0:
        return
    first = extent.offset // PIECE_BYTES
    end = extent.offset + extent.length
    for number, crc in enumerate(crcs, first):
        start = number * PIECE_BYTES
        length = min(PIECE_BYTES, size_bytes - start)
        piece = read_piece(start, length)
        if len(piece) != length or google_crc32c.value(piece) != crc:
            raise IntegrityFailed(
                key.text, f"the bytes from {start} to {start + length} are not those that were stored"
            )
        if start >= extent.offset and start + length <= end:
            yield Chunk(piece, crc)
        else:
            part = piece[max(extent.offset - start, 0) : end - start]
            yield Chunk(part, google_crc32c.value(part))


def pieces_touched(extent: Extent) -> range:
    """Return the numbers of the 1 MiB pieces that the extent touches."""
    if extent.length == 0:
        return range(0)
    return range(extent.offset // PIECE_BYTES, (extent.offset + extent.length - 1) // PIECE_BYTES + 1)
