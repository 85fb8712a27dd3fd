"""An open object in the bucket: one request for the range asked for, and more only if that breaks off."""

import re
from collections.abc import Iterator
from contextlib import suppress

from holdfast_server.errors import ConcurrentModification, IntegrityFailed, Reason, Unavailable
from holdfast_server.objects.base import ObjectReader
from holdfast_server.objects.body import PIECE_BYTES, Chunk
from holdfast_server.objects.ranges import Extent, Range, Tail
from holdfast_server.objects.reading import pieces_touched, verified_chunks
from holdfast_server.objects.s3 import layout, record
from holdfast_server.objects.s3.client import Download
from holdfast_server.objects.s3.messages import Request, S3Refusal
from holdfast_server.objects.s3.requests import MeasuredClient, Requests

_SKIP_BYTES = 1 << 20
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(?:-1|\d+)/(\d+)\Z")
"""MinIO answers `bytes 0--1/0` for an empty object."""


class S3Reader(ObjectReader):
    """Reads pieces from a download, `begun` with its position in what is stored, and goes on in another one.

    What breaks off is asked for again from the piece that is missing, if the object is still the same; so is, once, a
    piece that did not arrive as it was stored.
    """

    def __init__(
        self,
        requests: Requests,
        path: str,
        stored: record.Stored,
        extent: Extent,
        begun: tuple[Download, int] | None = None,
    ) -> None:
        self.info = stored.info
        self.extent = extent
        self._requests = requests
        self._path = path
        self._crcs = stored.crcs
        self._seed = stored.seed
        self._is_adopted = stored.is_adopted
        self._download: Download | None = None
        self._position = 0
        if begun is not None:
            self._download, self._position = begun

    def __iter__(self) -> Iterator[Chunk]:
        return verified_chunks(
            self.info.key, self.info.size_bytes, self.extent, self._read_piece, read_again=self._read_piece_anew
        )

    def close(self) -> None:
        """End the download."""
        download, self._download = self._download, None
        if download is not None:
            download.close()

    def __del__(self) -> None:
        """Give back the connection of a reader that nobody closed."""
        with suppress(AttributeError):  # a constructor that failed
            self.close()

    def _read_piece(self, offset: int, _length: int) -> tuple[bytes, int]:
        number = offset // PIECE_BYTES
        data = self._fetch(layout.piece_at(number, self.info.size_bytes))
        if self._crcs is not None:
            return data, self._crcs[number]
        return layout.split_frame(data, number, self._seed)

    def _read_piece_anew(self, offset: int, length: int) -> tuple[bytes, int]:
        self.close()
        return self._read_piece(offset, length)

    def _fetch(self, place: Extent) -> bytes:
        """Return what is stored in a place, or less where it ends early. Places are asked for in order."""
        return self._requests.retry(lambda client, _number: self._read(client, place))

    def _read(self, client: MeasuredClient, place: Extent) -> bytes:
        try:
            if self._position > place.offset:
                self.close()  # what others wrote may lie before where ours would
            if self._download is None:
                self._download = self._open_at(client, place.offset)
                self._position, _ = place_of(self._download)
            while self._position < place.offset:
                skipped = self._download.read(min(place.offset - self._position, _SKIP_BYTES))
                if not skipped:
                    raise self._changed()
                self._position += len(skipped)
            data = self._download.read(place.length)
        except Unavailable:
            self.close()
            raise
        self._position += len(data)
        return data

    def _open_at(self, client: MeasuredClient, position: int) -> Download:
        last = pieces_touched(self.extent)[-1]
        end = layout.piece_at(last, self.info.size_bytes, is_adopted=self._is_adopted)
        headers = {"Range": f"bytes={position}-{end.offset + end.length - 1}", "If-Match": f'"{self.info.etag}"'}
        try:
            download = client.open(Request("get", "GET", self._path, headers=headers))
        except S3Refusal as refusal:
            if refusal.is_missing or refusal.is_conflict or refusal.is_out_of_range:
                raise self._changed() from None
            raise
        if record.etag_of(download.headers) != self.info.etag:  # some stores keep no conditions of reads
            download.close()
            raise self._changed()
        return download

    def _changed(self) -> ConcurrentModification:
        message = f"key {self.info.key.text!r} was replaced or deleted while it was read"
        return ConcurrentModification(message, key=self.info.key.text)


class UnverifiedReader(S3Reader):
    """Reads what has no sums, or is wanted without them: of each piece no more than the extent has of it."""

    def __iter__(self) -> Iterator[Chunk]:
        """Yield the bytes as they are stored."""
        return (Chunk(self._part(number)) for number in pieces_touched(self.extent))

    def _part(self, number: int) -> bytes:
        place = layout.part_at(number, self.extent, self.info.size_bytes, is_adopted=self._is_adopted)
        data = self._fetch(place)
        if len(data) < place.length:  # some give less while the object is overwritten
            self.close()
            data = self._fetch(place)
        if len(data) < place.length:
            raise IntegrityFailed(self.info.key.text, "it ends within its bytes")
        return data


class S3TailReader(UnverifiedReader):
    """Reads the end of an object."""

    def __iter__(self) -> Iterator[Chunk]:
        """Yield it in one chunk."""
        if data := b"".join(chunk.data for chunk in super().__iter__()):
            yield Chunk(data)


def reader_of(wanted: Range, stored: record.Stored) -> type[S3Reader]:
    """Return what reads this range of an object."""
    if isinstance(wanted, Tail):
        return S3TailReader
    return UnverifiedReader if stored.is_adopted else S3Reader


def place_of(download: Download) -> tuple[int, int]:
    """Return where a download begins in what is stored, and how many bytes are stored in all."""
    content_range = download.headers.get("content-range", "")
    if content_range:
        if found := _CONTENT_RANGE.match(content_range):
            return int(found[1]), int(found[2])
        raise Unavailable(Reason.BACKEND_UNAVAILABLE, "the S3 store does not say which part of an object it gives")
    return 0, record.length_of(download.headers)
