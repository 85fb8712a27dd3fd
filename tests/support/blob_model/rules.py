"""What is wrong with a request by itself, whatever the store holds: the reasons that may be told, empty if none."""

import base64
import unicodedata
from collections.abc import Sequence

from tests.support.blob_model.asked import Attributes, Condition, Content, Key, Name, Put, Query, Range, digest_of

_RESERVED = ("blocks", "chunks", "hibernated", "holdfast", "snapshots")
_MAX_BATCH_BYTES = 1835008
_MAX_PUT_MESSAGE_BYTES = 1966080
_UNRESERVED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
_SHA256_BYTES = 32

Reasons = set[str]


def of_text(text: str) -> Reasons:
    """Judge what keys, prefixes and positions have in common."""
    is_wrong = len(text.encode()) > 900 or any(unicodedata.category(one) == "Cc" for one in text)
    return {"INVALID_KEY"} if is_wrong else set()


def of_key(text: str) -> Reasons:
    """Judge a key."""
    parts = text.split("/")
    is_wrong = parts[0] in _RESERVED or any(part in {"", ".", ".."} or len(part.encode()) > 200 for part in parts)
    return {"INVALID_KEY"} if is_wrong else of_text(text)


def content_key(content: Content, sha256: bytes) -> str:
    """Return the key of some content."""
    multihash = base64.b32encode(b"\x12\x20" + sha256).decode().lower().strip("=")
    middle = {0: sha256.hex(), 1: sha256.hex(), 2: multihash, 3: f"{multihash[-3:-1]}/{multihash}.data"}
    return content.prefix + middle[content.layout] + content.suffix


def of_name(name: Name, *, may_be_open: bool = False) -> Reasons:
    """Judge an address; `may_be_open`: content may come without its digest."""
    if name is None:
        return {"INVALID_ADDRESS"}
    if isinstance(name, Key):
        return of_key(name.text)
    if name.layout not in range(4):
        return {"INVALID_ADDRESS"}
    reasons = of_key(content_key(name, bytes(_SHA256_BYTES)))
    if name.layout == 3 and name.suffix:
        reasons |= {"INVALID_KEY"}
    if len(name.sha256) != _SHA256_BYTES and not (may_be_open and not name.sha256):
        reasons |= {"INVALID_DIGEST"}
    return reasons


def key_of(name: Name, sha256: bytes = b"") -> str:
    """Return the key that a good address names; `sha256` is used where it has none."""
    assert name is not None
    return name.text if isinstance(name, Key) else content_key(name, name.sha256 or sha256)


def of_attributes(attributes: Attributes) -> Reasons:
    """Judge content type and metadata."""
    reasons = set()
    said = attributes.content_type
    if len(said) > 255 or said != said.strip(" ") or not all(" " <= one <= "~" for one in said):
        reasons.add("INVALID_CONTENT_TYPE")
    size = 0
    for key, value in attributes.metadata.items():
        if not 0 < len(key) <= 64 or set(key) - set("abcdefghijklmnopqrstuvwxyz0123456789-"):
            reasons.add("INVALID_METADATA")
        size += len(key) + sum(1 if byte in _UNRESERVED else 3 for byte in value.encode())
    return reasons | ({"INVALID_METADATA"} if size > 1024 else set())


def of_etag(etag: str | None) -> Reasons:
    """Judge an etag."""
    return {"INVALID_CONDITION"} if etag == "" else set()


def of_condition(condition: Condition, name: Name) -> Reasons:
    """Judge a precondition on an address."""
    is_on_content = isinstance(name, Content) and condition.etag is not None
    return {"INVALID_CONDITION"} if is_on_content else of_etag(condition.etag)


def of_range(wanted: Range) -> Reasons:
    """Judge a range."""
    is_suffix = wanted.suffix_length is not None
    is_wrong = (
        (is_suffix and (wanted.offset != 0 or wanted.length is not None))
        or wanted.offset < 0
        or (wanted.length is not None and wanted.length <= 0)
        or (wanted.suffix_length is not None and wanted.suffix_length <= 0)
    )
    return {"INVALID_RANGE"} if is_wrong else set()


def of_query(query: Query, page_size: int) -> Reasons:
    """Judge a list."""
    reasons = of_text(query.prefix) | of_text(query.start_after)
    if query.delimiter not in ("", "/"):
        reasons |= {"INVALID_DELIMITER"}
    return reasons if 0 <= page_size <= 10_000 else reasons | {"INVALID_PAGE_SIZE"}


def of_put(put: Put) -> Reasons:
    """Judge a PutBlob: all that is declared against what comes."""
    reasons = _of_described(put) | _of_digests(
        put, [put.upload.header.digest, put.upload.trailer.digest if put.upload.trailer else None]
    )
    declared = put.upload.header.size_off_by
    if declared is None and put.upload.trailer is None:
        reasons |= {"UPLOAD_INCOMPLETE"}
    if declared is not None and put.of.size + declared < 0:
        reasons |= {"INVALID_SIZE"}
    if declared:
        reasons |= {"UPLOAD_INCOMPLETE" if declared > 0 and put.upload.trailer is None else "SIZE_MISMATCH"}
    if put.upload.trailer is not None and put.upload.trailer.size_off_by:
        at_the_end = put.upload.trailer.size_off_by
        reasons |= {"SIZE_MISMATCH", *({"INVALID_SIZE"} if put.of.size + at_the_end < 0 else ())}
    return reasons


def of_item(put: Put) -> Reasons:
    """Judge an item of a BatchPutBlobs."""
    reasons = _of_described(put) | _of_digests(put, [put.upload.header.digest])
    return reasons | {"CHECKSUM_MISMATCH"} if put.upload.crc32c == "wrong" else reasons


def _of_described(put: Put) -> Reasons:
    wrong_crc = put.upload.crc32c == "wrong" and put.of.size > 0
    return (
        of_name(put.name, may_be_open=True)
        | of_attributes(put.attributes)
        | of_condition(put.condition, put.name)
        | ({"CHECKSUM_MISMATCH"} if wrong_crc else set())
    )


def _of_digests(put: Put, declared: Sequence[str | None]) -> Reasons:
    given = [digest_of(put.of, how) for how in declared if how]
    if isinstance(put.name, Content) and put.name.sha256:
        given.append(put.name.sha256)
    reasons = set()
    if any(len(one) != _SHA256_BYTES for one in given) or len(set(given)) > 1:
        reasons.add("INVALID_DIGEST")
    if any(one != put.of.sha256 for one in given):
        reasons.add("CHECKSUM_MISMATCH")
    return reasons


def of_batch(sizes: Sequence[int], message_bytes: int) -> Reasons:
    """Judge a BatchPutBlobs as a whole."""
    is_large = len(sizes) > 1000 or sum(sizes) > _MAX_BATCH_BYTES or message_bytes > _MAX_PUT_MESSAGE_BYTES
    return {"TOO_LARGE"} if is_large else set()
