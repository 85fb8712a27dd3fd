"""What is known of an object in a bucket: its record, which is the headers that it is stored with, version 1.

`docs/formats.md` describes each entry. All are user metadata, but for the content type, which has a place of S3's own.
"""

import hashlib
import re
import secrets
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote, unquote

import google_crc32c

from holdfast_server.errors import IntegrityFailed, InvalidArgument, Reason, Unavailable
from holdfast_server.objects.body import PIECE_BYTES
from holdfast_server.objects.info import Attributes, ObjectInfo
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.s3 import layout

FORMAT = 1

_USER = "x-amz-meta-"
_PREFIX = _USER + "holdfast-"
_FORMAT = _PREFIX + "format"
_SHA256 = _PREFIX + "sha256"
_CRC32C = _PREFIX + "crc32c"
_SIZE = _PREFIX + "size"
_SEED = _PREFIX + "seed"
_WRITE = _PREFIX + "write"
_METADATA = _PREFIX + "metadata"
_TYPE = _PREFIX + "type"
"""Set to `none` where the writer gave no content type: the store makes one up."""
_CHECK = _PREFIX + "check"

_CRC_HEX_DIGITS = 8
_WRITE_BYTES = 8

_SHA256_OF_NOTHING = hashlib.sha256().hexdigest()
_SHA256_HEX = re.compile(r"[0-9a-f]{64}\Z")
_HEX = re.compile(r"[0-9a-f]*\Z")
_SEED_HEX = re.compile(r"[0-9a-f]{8}\Z")


@dataclass(frozen=True, slots=True)
class Stored:
    """What the headers of a stored object say. `write_id` names the put that it came by; empty: others wrote it."""

    info: ObjectInfo
    write_id: str
    crcs: "array[int] | None"
    """Of each piece; None: their sums stand behind them, or there are none."""
    seed: bytes = b""
    """What those sums were made with."""

    @property
    def is_adopted(self) -> bool:
        """Whether others wrote it: it lies there as it is, whatever its size, and there are no sums."""
        return not self.info.sha256


def new_write_id() -> str:
    """Return what names one put."""
    return secrets.token_hex(_WRITE_BYTES)


def headers_of(
    attributes: Attributes,
    sha256: bytes,
    write_id: str,
    *,
    crcs: Sequence[int] | None = None,
    seed: bytes = b"",
    size_bytes: int | None = None,
) -> dict[str, str]:
    """Return the headers that an object is written with.

    `crcs` for one that lies there as it is; for a larger one the `seed` of its sums, and `size_bytes` where that is
    known before its first byte.
    """
    headers = {_FORMAT: str(FORMAT), _SHA256: sha256.hex(), _WRITE: write_id}
    if crcs:  # without it an empty one, since some stores take no empty values
        headers[_CRC32C] = "".join(f"{crc:08x}" for crc in crcs)
    if seed:
        headers[_SEED] = seed.hex()
    if size_bytes is not None:
        headers[_SIZE] = str(size_bytes)
    if attributes.metadata:
        headers[_METADATA] = "&".join(_entry(name, value) for name, value in attributes.metadata.items())
    if not attributes.content_type:
        headers[_TYPE] = "none"
    headers[_CHECK] = _check_of(headers, attributes.content_type)
    if attributes.content_type:
        headers["Content-Type"] = attributes.content_type
    return headers


def read_headers(key: ObjectKey, headers: Mapping[str, str], stored_bytes: int, *, adopts: bool = False) -> Stored:
    """Return what the headers (by lower-case name) of an object of `stored_bytes` say.

    Raises `IntegrityFailed` if it was not written by Holdfast (unless the caller `adopts` what others wrote), by a
    newer one, or is damaged.
    """
    found = headers.get(_FORMAT)
    if adopts and not any(name.startswith(_PREFIX) for name in headers):
        return _adopted(key, headers, stored_bytes)
    if found is None:
        raise IntegrityFailed(key.text, "the object in the bucket was not written by Holdfast")
    if found != str(FORMAT):
        raise IntegrityFailed(
            key.text, f"the object in the bucket has format {found!r}, and this server knows {FORMAT}"
        )
    size = layout.size_of(stored_bytes)
    sha256 = headers.get(_SHA256, "")
    update_time = time_of(headers)
    etag = etag_of(headers)
    if size is None or not _SHA256_HEX.match(sha256) or update_time is None or not etag:
        raise IntegrityFailed(key.text, "the object in the bucket is not as Holdfast wrote it")
    if not size and sha256 != _SHA256_OF_NOTHING:  # neither kind has a checksum that would tell
        raise IntegrityFailed(key.text, "the object in the bucket is empty, and was not when Holdfast wrote it")
    if headers.get(_SIZE, str(size)) != str(size):
        raise IntegrityFailed(key.text, "the object in the bucket has another size than when Holdfast wrote it")
    crcs, seed = None, b""
    if size <= layout.PLAIN_BYTES:
        crcs = _crcs(key, headers.get(_CRC32C, ""), size)
    else:
        seed = _seed(key, headers.get(_SEED, ""))
    try:
        attributes = _attributes(headers)
    except InvalidArgument as broken:
        raise IntegrityFailed(key.text, f"its metadata is not what Holdfast writes: {broken.message}") from None
    if headers.get(_CHECK) != _check_of(headers, attributes.content_type):
        raise IntegrityFailed(key.text, "what is known of the object in the bucket is not what Holdfast wrote with it")
    info = ObjectInfo(key, size, etag, bytes.fromhex(sha256), attributes, update_time)
    return Stored(info, headers.get(_WRITE, ""), crcs, seed)


def _adopted(key: ObjectKey, headers: Mapping[str, str], stored_bytes: int) -> Stored:
    update_time, etag = time_of(headers), etag_of(headers)
    if update_time is None or not etag:
        raise IntegrityFailed(key.text, "the S3 store does not say enough of an object that others wrote")
    try:
        attributes = Attributes(headers.get("content-type", ""))
    except InvalidArgument:
        attributes = Attributes()  # others may write what we would not take
    return Stored(ObjectInfo(key, stored_bytes, etag, b"", attributes, update_time), "", None)


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


def bare_type(content_type: str) -> str:
    """Return a content type without what a store may change of it: case, and spaces."""
    return content_type.replace(" ", "").lower()


def _entry(name: str, value: str) -> str:
    return f"{name}={quote(value, safe='')}" if value else name


def _crcs(key: ObjectKey, text: str, size_bytes: int) -> "array[int]":
    pieces = -(-size_bytes // PIECE_BYTES)
    if len(text) != pieces * _CRC_HEX_DIGITS or not _HEX.match(text):
        raise IntegrityFailed(key.text, "the object in the bucket has not the checksums that Holdfast wrote with it")
    return array("I", (int(text[at : at + _CRC_HEX_DIGITS], 16) for at in range(0, len(text), _CRC_HEX_DIGITS)))


def _seed(key: ObjectKey, text: str) -> bytes:
    if not _SEED_HEX.match(text):
        raise IntegrityFailed(key.text, "the object in the bucket has not the seed that Holdfast wrote with it")
    return bytes.fromhex(text)


def _attributes(headers: Mapping[str, str]) -> Attributes:
    content_type = "" if _TYPE in headers else headers.get("content-type", "")
    entries = (entry.partition("=") for entry in headers.get(_METADATA, "").split("&") if entry)
    return Attributes(content_type, {name: unquote(value) for name, _, value in entries})


def _check_of(headers: Mapping[str, str], content_type: str) -> str:
    """Return the CRC-32C, in hex, of the entries that are in the headers (by lower-case name), and of the content type.

    It is made anew for a copy by the store, whose attributes and write id are others.
    """
    entries = sorted(item for item in headers.items() if item[0].startswith(_PREFIX) and item[0] != _CHECK)
    text = "".join(f"{name.removeprefix(_USER)}:{value}\n" for name, value in entries)
    return f"{google_crc32c.value((text + bare_type(content_type)).encode()):08x}"
