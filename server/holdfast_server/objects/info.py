"""What is known of an object: what its writer gave, and what the store found."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import quote

from holdfast_server.errors import InvalidArgument, Reason
from holdfast_server.objects.key import ObjectKey

MAX_METADATA_BYTES = 1024
"""The most metadata of an object, percent-encoded, keys included: half of what S3 allows, the rest is ours."""

MAX_CONTENT_TYPE_BYTES = 255

_METADATA_KEY = re.compile(r"[a-z0-9-]{1,64}\Z")
_CONTENT_TYPE = re.compile(r"(?! )[\x20-\x7e]{0,255}(?<! )\Z")


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a writer says of an object besides its bytes, valid by construction.

    `content_type`: at most 255 printable ASCII characters, no space at either end. `metadata`: keys `[a-z0-9-]{1,64}`,
    any text as values, at most 1,024 bytes in all when percent-encoded (RFC 3986). Raises `InvalidArgument`
    (INVALID_CONTENT_TYPE, INVALID_METADATA).
    """

    content_type: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the rules."""
        if self.content_type and not _CONTENT_TYPE.match(self.content_type):
            rule = f"at most {MAX_CONTENT_TYPE_BYTES} printable ASCII characters without a space at either end"
            message = f"content_type {self.content_type[:80]!r} is not {rule}"
            raise InvalidArgument(Reason.INVALID_CONTENT_TYPE, "content_type", message)
        if not self.metadata:
            return
        size = 0
        for key, value in self.metadata.items():
            if not _METADATA_KEY.match(key):
                rule = "1 to 64 characters a-z, 0-9, -"
                message = f"metadata key {key[:80]!r} is not {rule}"
                raise InvalidArgument(Reason.INVALID_METADATA, "metadata", message)
            try:
                size += len(key) + len(quote(value, safe=""))
            except UnicodeEncodeError:
                message = f"metadata value of {key!r} is not valid Unicode: it has a lone surrogate"
                raise InvalidArgument(Reason.INVALID_METADATA, "metadata", message) from None
        if size > MAX_METADATA_BYTES:
            message = f"metadata takes {size} bytes percent-encoded, above {MAX_METADATA_BYTES}"
            raise InvalidArgument(Reason.INVALID_METADATA, "metadata", message)


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a store knows of one object."""

    key: ObjectKey
    size_bytes: int
    etag: str
    """Opaque, another one whenever the bytes change. Memory and files give every put one; S3's may be the same for the
    same bytes."""
    sha256: bytes
    """Of the whole object, 32 bytes. Empty: not known, of what others wrote; only where a store adopts that."""
    attributes: Attributes
    update_time: datetime
    """When it was stored under this key, by the backend's clock, with time zone."""

    def identity(self) -> dict[str, str]:
        """Return key, etag and sha256 (hex): what a caller needs to tell this object from another."""
        return {"key": self.key.text, "etag": self.etag, "sha256": self.sha256.hex()}
