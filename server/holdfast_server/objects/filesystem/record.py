"""The form of an object's file, version 1. `docs/formats.md` has the same byte by byte.

    the object's bytes
    CRC-32C of each 1 MiB piece, 4 bytes each, little-endian
    the record: a JSON object
    the trailer, 32 bytes: magic, version, flags, length of the record, size, piece size, CRC-32C of record and trailer

The bytes come first and what is known of them last, so that a file is written in one pass and a record found by one
read at the end. A damaged entry of the CRC table needs no checksum of its own: its piece does not verify then.
"""

import json
import struct
import sys
from array import array
from datetime import UTC, datetime, timedelta

import google_crc32c

from holdfast_server.errors import HoldfastError, IntegrityFailed
from holdfast_server.objects.body import PIECE_BYTES, SHA256_BYTES
from holdfast_server.objects.filesystem.disk import Disk
from holdfast_server.objects.info import Attributes, ObjectInfo
from holdfast_server.objects.key import ObjectKey

MAGIC = b"HOLDFOBJ"
VERSION = 1

_TRAILER = struct.Struct("<8sHHIQI")
_CRC = struct.Struct("<I")
_TRAILER_BYTES = _TRAILER.size + _CRC.size
_CRC_BYTES = _CRC.size

_USUAL_TAIL_BYTES = 1024
"""Read at once from the end: enough for trailer and record of nearly every object."""

_SMALL_FILE_BYTES = 8192
"""The same where the object's bytes will be read, too: small ones are in it whole."""

_decode = json.JSONDecoder().decode
"""As `json.loads` does, which guesses the encoding first."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def encode(info: ObjectInfo, piece_crc32c: "array[int]") -> bytes:
    """Return what follows an object's bytes in its file."""
    fields = {
        "key": info.key.text,
        "etag": info.etag,
        "sha256": info.sha256.hex(),
        "content_type": info.attributes.content_type,
        "metadata": dict(info.attributes.metadata),
        "update_time_us": (info.update_time - _EPOCH) // _MICROSECOND,
    }
    record = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    trailer = _TRAILER.pack(MAGIC, VERSION, 0, len(record), info.size_bytes, PIECE_BYTES)
    checksum = _CRC.pack(google_crc32c.value(record + trailer))
    return b"".join((_little_endian(piece_crc32c).tobytes(), record, trailer, checksum))


class ObjectFile:
    """An open file of an object: `info` is what is known of it. Raises `IntegrityFailed` if it cannot be relied on."""

    def __init__(self, disk: Disk, fd: int, key: ObjectKey) -> None:
        self._disk = disk
        self._fd = fd
        self.info, self._tail, self._tail_offset = _read(disk, fd, key, _SMALL_FILE_BYTES)

    def read(self, length: int, offset: int) -> bytes:
        """Read up to `length` bytes of the file: fewer only at its end."""
        start = offset - self._tail_offset
        return self._tail[start : start + length] if start >= 0 else self._disk.read(self._fd, length, offset)

    def read_crcs(self, pieces: range) -> "array[int]":
        """Read the CRC-32C of some of the object's 1 MiB pieces."""
        crcs = array("I")
        if pieces:
            data = self.read(_CRC_BYTES * len(pieces), self.info.size_bytes + _CRC_BYTES * pieces.start)
            if len(data) != _CRC_BYTES * len(pieces):
                raise IntegrityFailed(self.info.key.text, "its file ends within its checksums")
            crcs.frombytes(data)
        return _little_endian(crcs)


def read(disk: Disk, fd: int, key: ObjectKey) -> ObjectInfo:
    """Read what is known of the object in an open file. Raises `IntegrityFailed` if it cannot be relied on."""
    return _read(disk, fd, key, _USUAL_TAIL_BYTES)[0]


def _read(disk: Disk, fd: int, key: ObjectKey, tail_bytes: int) -> tuple[ObjectInfo, bytes, int]:
    """Return what is known of an object, and the last bytes of its file with their offset."""
    file_bytes = disk.size(fd)
    tail_bytes = min(tail_bytes, file_bytes)
    tail = disk.read(fd, tail_bytes, file_bytes - tail_bytes)
    if len(tail) < _TRAILER_BYTES:
        raise IntegrityFailed(key.text, "its file is too short to hold a record")
    magic, version, _flags, record_bytes, size_bytes, piece_bytes = _TRAILER.unpack_from(tail, -_TRAILER_BYTES)
    if magic != MAGIC:
        raise IntegrityFailed(key.text, "its file does not end with a record")
    if version != VERSION:
        raise IntegrityFailed(key.text, f"its file has format {version}, and this server reads {VERSION}")
    need = record_bytes + _TRAILER_BYTES
    if file_bytes != size_bytes + _CRC_BYTES * -(-size_bytes // PIECE_BYTES) + need or piece_bytes != PIECE_BYTES:
        raise IntegrityFailed(key.text, "its file has not the length that its record tells")
    if need > len(tail):
        tail = disk.read(fd, need, file_bytes - need)
    covered = tail[-need:-_CRC_BYTES]
    if google_crc32c.value(covered) != _CRC.unpack_from(tail, -_CRC_BYTES)[0]:
        raise IntegrityFailed(key.text, "its record is damaged")
    return _info(key, size_bytes, covered[:record_bytes]), tail, file_bytes - len(tail)


def _info(key: ObjectKey, size_bytes: int, record: bytes) -> ObjectInfo:
    try:
        fields = _decode(record.decode())
        attributes = Attributes(fields["content_type"], fields["metadata"])
        sha256 = bytes.fromhex(fields["sha256"])
        update_time = _EPOCH + fields["update_time_us"] * _MICROSECOND
        etag, recorded = fields["etag"], fields["key"]
        if not isinstance(etag, str):
            raise TypeError
    except (ValueError, KeyError, TypeError, OverflowError, HoldfastError):
        raise IntegrityFailed(key.text, "its record is not of the form that this server writes") from None
    if recorded != key.text or len(sha256) != SHA256_BYTES:
        raise IntegrityFailed(key.text, "its file holds the record of another key")
    return ObjectInfo(key, size_bytes, etag, sha256, attributes, update_time)


def _little_endian(numbers: "array[int]") -> "array[int]":
    if sys.byteorder == "little":
        return numbers
    swapped = numbers[:]
    swapped.byteswap()
    return swapped
