"""What calls answer with: frozen values, so that programs never meet protobuf messages."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from holdfast.v1 import blob_store_pb2 as pb


@dataclass(frozen=True, slots=True)
class ByteRange:
    """A run of bytes: `offset` from 0 and `length` >= 0, both in bytes."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """What is known of a blob.

    `size_bytes` is always the whole blob's. `etag` is opaque, changes whenever the bytes do, and can be compared on one
    backend only. `sha256` are 32 raw bytes. `update_time` (UTC) is when the blob was stored, by the backend's clock.
    """

    key: str
    size_bytes: int
    etag: str
    sha256: bytes
    content_type: str
    metadata: Mapping[str, str] = field(hash=False)
    update_time: datetime


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a writer says of a blob besides its bytes."""

    content_type: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class PutResult:
    """The stored blob. `created` is False only where a content address already held the bytes."""

    blob: BlobInfo
    created: bool


@dataclass(frozen=True, slots=True)
class BlobEntry:
    """A blob as lists show it.

    `damaged`: its stored record cannot be read. Then reading it raises `IntegrityFailed`, and size, etag and time are
    None.
    """

    key: str
    size_bytes: int | None
    etag: str | None
    update_time: datetime | None
    damaged: bool = False


@dataclass(frozen=True, slots=True)
class CommonPrefix:
    """What several keys have in common up to and including a delimiter, e.g. `artifacts/`."""

    prefix: str


@dataclass(frozen=True, slots=True)
class BlobPage:
    """One page of a list, in byte order. An empty token means the end; an empty page does not."""

    items: tuple[BlobEntry | CommonPrefix, ...]
    next_page_token: str


def blob_info(message: pb.BlobInfo) -> BlobInfo:
    """Return what a message says of a blob."""
    return BlobInfo(
        key=message.key,
        size_bytes=message.size_bytes,
        etag=message.etag,
        sha256=message.sha256,
        content_type=message.content_type,
        metadata=dict(message.metadata),
        update_time=moment_of(message.update_time),
    )


def blob_page(message: pb.ListBlobsResponse) -> BlobPage:
    """Return what a message says of a page, entries and common prefixes in one order."""
    items: list[BlobEntry | CommonPrefix] = [_blob_entry(entry) for entry in message.blobs]
    items += [CommonPrefix(prefix) for prefix in message.common_prefixes]
    # The order of `str` is that of its UTF-8 bytes.
    items.sort(key=lambda item: item.prefix if isinstance(item, CommonPrefix) else item.key)
    return BlobPage(tuple(items), message.next_page_token)


def _blob_entry(message: pb.BlobEntry) -> BlobEntry:
    if message.damaged:
        return BlobEntry(message.key, None, None, None, damaged=True)
    return BlobEntry(message.key, message.size_bytes, message.etag, moment_of(message.update_time))


def moment_of(message: Timestamp) -> datetime:
    """Return the time (UTC) that a message tells."""
    return message.ToDatetime(tzinfo=UTC)
