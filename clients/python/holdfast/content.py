"""The two ways to name a blob: a key, which is a `str`, or the sha256 of its bytes."""

from dataclasses import dataclass
from enum import Enum
from typing import TypedDict

from holdfast.errors import IntegrityFailed
from holdfast.v1 import blob_store_pb2 as pb


class Layout(Enum):
    """How a digest becomes a key."""

    HEX = pb.CONTENT_LAYOUT_HEX
    """`<prefix><sha256 in lower-case hex><suffix>`."""
    BASE32_MULTIHASH = pb.CONTENT_LAYOUT_BASE32_MULTIHASH
    """`<prefix><base32 multihash, lower case, no padding><suffix>`."""
    FLATFS = pb.CONTENT_LAYOUT_FLATFS
    """`<prefix><shard>/<base32 multihash>.data`, a flatfs tree; takes no suffix."""


@dataclass(frozen=True, slots=True)
class Content:
    """Names a blob by the SHA-256 of its bytes. Such a blob is never overwritten.

    `prefix` is what the key starts with, e.g. `artifacts/` (no `/` is added). `sha256` are 32 raw bytes; a put may
    leave it to the server to compute them, everything else needs them.
    """

    prefix: str = ""
    suffix: str = ""
    layout: Layout = Layout.HEX
    sha256: bytes | None = None


Address = str | Content
"""A key, or a content address."""


class AddressFields(TypedDict, total=False):
    """`oneof address` of the requests."""

    key: str
    content: pb.ContentAddress


def address_fields(address: Address) -> AddressFields:
    """Return the field of a request that names this blob. Raises `TypeError` for anything else than the two."""
    if isinstance(address, str):
        return {"key": address}
    if isinstance(address, Content):
        content = pb.ContentAddress(
            prefix=address.prefix, suffix=address.suffix, layout=address.layout.value, sha256=address.sha256 or b""
        )
        return {"content": content}
    raise TypeError(f"a blob is named by a str or a Content, not by {type(address).__name__}")


def check_content(request: pb.GetBlobRequest | pb.StatBlobRequest | pb.BlobAddress, blob: pb.BlobInfo) -> None:
    """Raise `IntegrityFailed` if the blob answered with is not of the sha256 that the request names it by, if it does.

    The reader's own check of the bytes is against what the server says they are, and a range has none.
    """
    wanted = request.content.sha256
    if wanted and blob.sha256 != wanted:
        what = f"key {blob.key!r}: the server has sha256 {blob.sha256.hex()} there, not {wanted.hex()} as asked for"
        raise IntegrityFailed("INTEGRITY_FAILED", what, {"key": blob.key})
