"""How an object lies in a bucket, version 1; `docs/formats.md` describes each byte.

An object of at most 5 MiB is there as it is, and any S3 tool reads it; the CRC-32C of its pieces are in its metadata.
In a larger one they do not fit there, and each piece of 1 MiB is followed by its CRC-32C: so a range of it, sums
included, is one run of bytes that one request gets. The size in a list tells which of both it is.
"""

import hashlib
import re
import struct
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote, unquote

from holdfast_server.errors import IntegrityFailed, InvalidArgument, Reason, Unavailable
from holdfast_server.objects.body import PIECE_BYTES
from holdfast_server.objects.info import Attributes, ObjectInfo
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.ranges import ByteRange, Extent, Range, Suffix, Whole
from holdfast_server.objects.reading import pieces_touched

FORMAT = 1

PLAIN_BYTES = 5 << 20
"""The largest object that lies there as it is: S3's smallest part, so whatever comes in parts is larger."""

CRC_BYTES = 4
FRAME_BYTES = PIECE_BYTES + CRC_BYTES
_CRC = struct.Struct("<I")

_PREFIX = "x-amz-meta-holdfast-"
_FORMAT = _PREFIX + "format"
_SHA256 = _PREFIX + "sha256"
_CRC32C = _PREFIX + "crc32c"
_SIZE = _PREFIX + "size"
_WRITE = _PREFIX + "write"
_METADATA = _PREFIX + "metadata"
_CONTENT_TYPE = _PREFIX + "content-type"
"""Set to `none` where the writer gave none: the store makes one up."""

_CRC_HEX_DIGITS = 8

_MOST_BYTES = 1 << 43
"""8 TiB, above every object that S3 can hold: positions beyond it are sent as this one."""

_SHA256_OF_NOTHING = hashlib.sha256().hexdigest()
_SHA256_HEX = re.compile(r"[0-9a-f]{64}\Z")
_HEX = re.compile(r"[0-9a-f]*\Z")


@dataclass(frozen=True, slots=True)
class Stored:
    """What the headers of a stored object say. `write_id` names the put that it came by."""

    info: ObjectInfo
    write_id: str
    crcs: "array[int] | None"
    """Of each piece; None: they stand behind the pieces."""


def headers_of(
    attributes: Attributes,
    sha256: bytes,
    write_id: str,
    *,
    crcs: Sequence[int] | None = None,
    size_bytes: int | None = None,
) -> dict[str, str]:
    """Return the headers that an object is written with.

    `crcs` for one that lies there as it is; `size_bytes` for a larger one, where it is known before its first byte.
    """
    headers = {_FORMAT: str(FORMAT), _SHA256: sha256.hex(), _WRITE: write_id}
    if crcs:  # without it an empty one, since some stores take no empty values
        headers[_CRC32C] = "".join(f"{crc:08x}" for crc in crcs)
    if size_bytes is not None:
        headers[_SIZE] = str(size_bytes)
    if attributes.metadata:
        headers[_METADATA] = "&".join(_entry(name, value) for name, value in attributes.metadata.items())
    if attributes.content_type:
        headers["Content-Type"] = attributes.content_type
    else:
        headers[_CONTENT_TYPE] = "none"
    return headers


def read_headers(key: ObjectKey, headers: Mapping[str, str], stored_bytes: int) -> Stored:
    """Return what the headers (by lower-case name) of an object of `stored_bytes` say.

    Raises `IntegrityFailed` if it was not written by Holdfast, by a newer one, or is damaged.
    """
    found = headers.get(_FORMAT)
    if found is None:
        raise IntegrityFailed(key.text, "the object in the bucket was not written by Holdfast")
    if found != str(FORMAT):
        raise IntegrityFailed(
            key.text, f"the object in the bucket has format {found!r}, and this server knows {FORMAT}"
        )
    size = size_of(stored_bytes)
    sha256 = headers.get(_SHA256, "")
    update_time = time_of(headers)
    etag = etag_of(headers)
    if size is None or not _SHA256_HEX.match(sha256) or update_time is None or not etag:
        raise IntegrityFailed(key.text, "the object in the bucket is not as Holdfast wrote it")
    if not size and sha256 != _SHA256_OF_NOTHING:  # neither kind has a checksum that would tell
        raise IntegrityFailed(key.text, "the object in the bucket is empty, and was not when Holdfast wrote it")
    if headers.get(_SIZE, str(size)) != str(size):
        raise IntegrityFailed(key.text, "the object in the bucket has another size than when Holdfast wrote it")
    crcs = _crcs(key, headers.get(_CRC32C, ""), size) if size <= PLAIN_BYTES else None
    try:
        attributes = _attributes(headers)
    except InvalidArgument as broken:
        raise IntegrityFailed(key.text, f"its metadata is not what Holdfast writes: {broken.message}") from None
    info = ObjectInfo(key, size, etag, bytes.fromhex(sha256), attributes, update_time)
    return Stored(info, headers.get(_WRITE, ""), crcs)


def length_of(headers: Mapping[str, str]) -> int:
    """Return how many bytes follow. Raises `Unavailable` where it is not said: a guess would pass for the size."""
    length = headers.get("content-length", "")
    if not length.isdecimal():
        raise Unavailable(Reason.BACKEND_UNAVAILABLE, "the S3 store does not say how long an object is")
    return int(length)


def trace_of(headers: Mapping[str, str]) -> tuple[str, ...]:
    """Return what tells an object from another one under its key."""
    return headers.get("etag", ""), headers.get(_WRITE, ""), headers.get("last-modified", "")


def etag_of(headers: Mapping[str, str]) -> str:
    """Return the etag without its quotes."""
    return headers.get("etag", "").removeprefix("W/").strip('"')


def time_of(headers: Mapping[str, str]) -> datetime | None:
    """Return when the object was stored, by the store's clock and as precisely as HTTP tells: to the second.

    The answer to a put may lack it, and then the time of the answer stands for it.
    """
    text = headers.get("last-modified") or headers.get("date")
    try:
        return parsedate_to_datetime(text) if text else None
    except ValueError:
        return None


def size_of(stored_bytes: int) -> int | None:
    """Return the size of an object from that of what is stored; None: Holdfast stores nothing of that size."""
    if stored_bytes <= PLAIN_BYTES:
        return stored_bytes
    frames, rest = divmod(stored_bytes, FRAME_BYTES)
    if 0 < rest <= CRC_BYTES:
        return None
    size = frames * PIECE_BYTES + max(rest - CRC_BYTES, 0)
    return size if size > PLAIN_BYTES else None


def stored_size_of(size_bytes: int) -> int:
    """Return how many bytes are stored for an object."""
    if size_bytes <= PLAIN_BYTES:
        return size_bytes
    return size_bytes + CRC_BYTES * -(-size_bytes // PIECE_BYTES)


def frame(crc: int) -> bytes:
    """Return what follows a piece in a larger object."""
    return _CRC.pack(crc)


def framed(pieces: Iterable[bytes], crcs: Sequence[int]) -> Iterator[bytes]:
    """Yield the pieces of a larger object as they are stored; `crcs` may grow while they are yielded."""
    for number, piece in enumerate(pieces):
        yield piece
        yield frame(crcs[number])


def split_frame(data: bytes) -> tuple[bytes, int]:
    """Return a stored piece of a larger object and its CRC-32C. What is too short is no piece: b"" and 0."""
    if len(data) <= CRC_BYTES:
        return b"", 0
    return data[:-CRC_BYTES], _CRC.unpack_from(data, len(data) - CRC_BYTES)[0]


def piece_at(number: int, size_bytes: int) -> Extent:
    """Return where a piece and its CRC-32C, if that follows it, are stored."""
    length = min(PIECE_BYTES, size_bytes - number * PIECE_BYTES)
    if size_bytes <= PLAIN_BYTES:
        return Extent(number * PIECE_BYTES, length)
    return Extent(number * FRAME_BYTES, length + CRC_BYTES)


def range_header(wanted: Range) -> str | None:
    """Return the range to ask for before the size is known: all pieces that `wanted` touches, whichever way they lie.

    None: everything. It can begin or end some bytes too early or too late, and for a suffix up to two pieces.
    """
    if isinstance(wanted, Whole):
        return None
    if isinstance(wanted, Suffix):
        pieces = -(-wanted.length // PIECE_BYTES) + 1
        return f"bytes=-{min(pieces * FRAME_BYTES, _MOST_BYTES)}"
    return _from_to(wanted)


def range_header_of(extent: Extent, size_bytes: int) -> str:
    """Return the range to ask for once the size is known: the pieces that the extent, not an empty one, touches."""
    pieces = pieces_touched(extent)
    first, last = piece_at(pieces[0], size_bytes), piece_at(pieces[-1], size_bytes)
    return f"bytes={first.offset}-{last.offset + last.length - 1}"


def _from_to(wanted: ByteRange) -> str | None:
    first = wanted.offset // PIECE_BYTES
    # The pieces of a larger object begin later than those of one that lies there as it is.
    start = min(first * (PIECE_BYTES if wanted.offset < PLAIN_BYTES else FRAME_BYTES), _MOST_BYTES)
    if wanted.length is None:
        return f"bytes={start}-" if start else None
    last = (wanted.offset + wanted.length - 1) // PIECE_BYTES
    return f"bytes={start}-{min((last + 1) * FRAME_BYTES - 1, 2 * _MOST_BYTES)}"


def _entry(name: str, value: str) -> str:
    return f"{name}={quote(value, safe='')}" if value else name


def _crcs(key: ObjectKey, text: str, size_bytes: int) -> "array[int]":
    pieces = -(-size_bytes // PIECE_BYTES)
    if len(text) != pieces * _CRC_HEX_DIGITS or not _HEX.match(text):
        raise IntegrityFailed(key.text, "the object in the bucket has not the checksums that Holdfast wrote with it")
    return array("I", (int(text[at : at + _CRC_HEX_DIGITS], 16) for at in range(0, len(text), _CRC_HEX_DIGITS)))


def _attributes(headers: Mapping[str, str]) -> Attributes:
    content_type = "" if _CONTENT_TYPE in headers else headers.get("content-type", "")
    entries = (entry.partition("=") for entry in headers.get(_METADATA, "").split("&") if entry)
    return Attributes(content_type, {name: unquote(value) for name, _, value in entries})
