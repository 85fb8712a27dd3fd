"""Bytes on their way out of a store: the pieces that a range touches, verified, and cut to the range; or a tail."""

from collections.abc import Callable, Iterator

import google_crc32c

from holdfast_server.errors import IntegrityFailed
from holdfast_server.objects.base import ObjectReader
from holdfast_server.objects.body import PIECE_BYTES, Chunk
from holdfast_server.objects.info import ObjectInfo
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.ranges import Extent

ReadPiece = Callable[[int, int], tuple[bytes, int]]
"""Called with offset and length of one whole piece: returns its stored bytes, and the CRC-32C stored with them."""


def verified_chunks(
    key: ObjectKey, size_bytes: int, extent: Extent, read_piece: ReadPiece, read_again: ReadPiece | None = None
) -> Iterator[Chunk]:
    """Yield the extent's bytes, at most 1 MiB at a time, each piece checked against its CRC-32C before it leaves.

    `read_again`: for stores that are far away, so that a piece may have been altered on its way only; it is asked once
    for one that is not as it was stored. Raises `IntegrityFailed`.
    """
    end = extent.offset + extent.length
    for number in pieces_touched(extent):
        start = number * PIECE_BYTES
        length = min(PIECE_BYTES, size_bytes - start)
        piece, crc = read_piece(start, length)
        is_whole = _is_whole(piece, length, crc)
        if not is_whole and read_again is not None:
            piece, crc = read_again(start, length)
            is_whole = _is_whole(piece, length, crc)
        if not is_whole:
            raise IntegrityFailed(
                key.text, f"the bytes from {start} to {start + length} are not those that were stored"
            )
        if start >= extent.offset and start + length <= end:
            yield Chunk(piece, crc)
        else:
            part = piece[max(extent.offset - start, 0) : end - start]
            yield Chunk(part, google_crc32c.value(part))


def _is_whole(piece: bytes, length: int, crc: int) -> bool:
    return len(piece) == length and google_crc32c.value(piece) == crc


class TailReader(ObjectReader):
    """The end of an object, which was read already: what a `Tail` asks for, unverified.

    Raises `IntegrityFailed` where it is not all there.
    """

    def __init__(self, info: ObjectInfo, extent: Extent, data: bytes) -> None:
        if len(data) != extent.length:
            raise IntegrityFailed(info.key.text, "it ends within its bytes")
        self.info = info
        self.extent = extent
        self._data = data

    def __iter__(self) -> Iterator[Chunk]:
        """Yield it in one chunk."""
        if self._data:
            yield Chunk(self._data)

    def close(self) -> None:
        """Nothing is held but memory."""


def pieces_touched(extent: Extent) -> range:
    """Return the numbers of the 1 MiB pieces that the extent touches."""
    if extent.length == 0:
        return range(0)
    return range(extent.offset // PIECE_BYTES, (extent.offset + extent.length - 1) // PIECE_BYTES + 1)
