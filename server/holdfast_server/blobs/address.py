"""The two ways to name a blob: a key, or the sha256 of its bytes."""

import base64
from dataclasses import dataclass, field
from enum import Enum, auto

from holdfast_server.errors import InvalidArgument, Reason
from holdfast_server.objects.body import SHA256_BYTES
from holdfast_server.objects.key import ObjectKey

RESERVED_PREFIXES = frozenset({"blocks/", "chunks/", "hibernated/", "holdfast/", "snapshots/"})
"""Where the other services keep their objects."""

_SHA2_256_MULTIHASH_PREFIX = b"\x12\x20"
"""Code and length of sha2-256 in the multihash table (multiformats.io)."""


@dataclass(frozen=True, slots=True)
class BlobKey:
    """A key that blobs may have: an `ObjectKey` outside the reserved prefixes, valid by construction.

    The bare reserved names are refused too: on some S3 stores an object `chunks` hides all of `chunks/`. Raises
    `InvalidArgument` (INVALID_KEY).
    """

    text: str
    object_key: ObjectKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the rules."""
        key = ObjectKey(self.text)
        first = self.text.partition("/")[0] + "/"
        if first in RESERVED_PREFIXES:
            message = f"key {self.text!r} lies under {first!r}, which is reserved"
            raise InvalidArgument(Reason.INVALID_KEY, "key", message)
        object.__setattr__(self, "object_key", key)


class Layout(Enum):
    """How a digest becomes a key."""

    HEX = auto()
    """`<prefix><sha256 in lower-case hex><suffix>`."""
    BASE32_MULTIHASH = auto()
    """`<prefix><base32 multihash, lower case, no padding><suffix>`: what Piri's S3 stores used at first."""
    FLATFS = auto()
    """`<prefix><shard>/<base32 multihash>.data`, the shard its next to last two characters: a go-ds-flatfs tree."""


@dataclass(frozen=True, slots=True)
class ContentAddress:
    """Names a blob by the sha256 of its bytes; `sha256` (32 bytes) is None while they are still to come.

    Raises `InvalidArgument`: INVALID_KEY if prefix and suffix make no valid key, INVALID_DIGEST for a digest of another
    length.
    """

    prefix: str = ""
    suffix: str = ""
    layout: Layout = Layout.HEX
    sha256: bytes | None = None

    def __post_init__(self) -> None:
        """Check the rules."""
        if self.sha256 is not None and len(self.sha256) != SHA256_BYTES:
            message = f"content.sha256 has {len(self.sha256)} bytes, not {SHA256_BYTES}"
            raise InvalidArgument(Reason.INVALID_DIGEST, "content.sha256", message)
        if self.layout is Layout.FLATFS and self.suffix:
            message = f"content.suffix {self.suffix[:80]!r} is given, and the flatfs layout has its own: '.data'"
            raise InvalidArgument(Reason.INVALID_KEY, "content.suffix", message)
        parts = (("content.prefix", self.prefix, ""), ("content.suffix", self.suffix, self.suffix))
        for part, given, suffix in parts:
            try:
                self._key(bytes(SHA256_BYTES), suffix)
            except InvalidArgument as error:
                message = f"{part} {given[:80]!r} makes no valid key: {error.message}"
                raise InvalidArgument(error.reason, part, message) from None

    def key_of(self, sha256: bytes) -> BlobKey:
        """Return the key of the blob with this digest."""
        return self._key(sha256, self.suffix)

    def _key(self, sha256: bytes, suffix: str) -> BlobKey:
        if self.layout is Layout.HEX:
            return BlobKey(f"{self.prefix}{sha256.hex()}{suffix}")
        name = base64.b32encode(_SHA2_256_MULTIHASH_PREFIX + sha256).decode().rstrip("=").lower()
        if self.layout is Layout.BASE32_MULTIHASH:
            return BlobKey(f"{self.prefix}{name}{suffix}")
        return BlobKey(f"{self.prefix}{name[-3:-1]}/{name}.data")

    @property
    def key(self) -> BlobKey:
        """The key of the blob. Raises `InvalidArgument` (INVALID_DIGEST) where the digest is not given."""
        if self.sha256 is None:
            message = "content.sha256 is required: only PutBlob can compute it"
            raise InvalidArgument(Reason.INVALID_DIGEST, "content.sha256", message)
        return self.key_of(self.sha256)


Address = BlobKey | ContentAddress


def key_of(address: Address) -> ObjectKey:
    """Return the object key that an address names. Raises `InvalidArgument` (INVALID_DIGEST) if it names none yet."""
    blob_key = address.key if isinstance(address, ContentAddress) else address
    return blob_key.object_key
