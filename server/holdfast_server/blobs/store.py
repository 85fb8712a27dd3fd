"""What BlobStore means: a blob is there whole and verified, or not at all."""

import logging
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace

from holdfast_server import calls
from holdfast_server.blobs import page_token
from holdfast_server.blobs.address import RESERVED_PREFIXES, Address, BlobKey, ContentAddress, key_of
from holdfast_server.errors import AlreadyExists, IntegrityFailed, InvalidArgument, NotFound, Reason
from holdfast_server.objects.base import (
    NO_ATTRIBUTES,
    OVERWRITE,
    WHOLE,
    CommonPrefix,
    Description,
    Entry,
    ListQuery,
    NamedByContent,
    ObjectNotFound,
    ObjectReader,
    ObjectStore,
)
from holdfast_server.objects.body import NOTHING_DECLARED, Body, Chunk, Declared
from holdfast_server.objects.conditions import Condition, CreateOnly, IfMatch, ObjectExists
from holdfast_server.objects.info import Attributes, ObjectInfo
from holdfast_server.objects.key import ObjectKey, check_text
from holdfast_server.objects.ranges import Range

_log = logging.getLogger(__name__)

DEFAULT_MAX_BLOB_BYTES = 1 << 40
"""1 TiB."""

DEFAULT_PAGE_SIZE = 1000
MAX_PAGE_SIZE = 10_000

_PAGE_BYTES = 1 << 20
"""A page ends at about 1 MiB, so that its message stays far below every client's limit of 4 MiB."""

_ENTRY_BYTES = 80
"""About what an entry takes on the wire beside its key."""


@dataclass(frozen=True, slots=True)
class Put:
    """The answer to a put. `created` is False only where a content address already held the bytes."""

    blob: ObjectInfo
    created: bool


@dataclass(frozen=True, slots=True)
class BlobQuery:
    """Which blobs to list; valid by construction.

    `delimiter` is empty or `/`; `page_size` is 1 to 10,000, or 0 for 1,000. Raises `InvalidArgument` (INVALID_KEY for
    prefix and start_after, INVALID_DELIMITER, INVALID_PAGE_SIZE).
    """

    prefix: str = ""
    delimiter: str = ""
    start_after: str = ""
    page_size: int = 0
    page_token: str = ""

    def __post_init__(self) -> None:
        """Check the rules."""
        check_text(self.prefix, "prefix")
        check_text(self.start_after, "start_after")
        if self.delimiter not in ("", "/"):
            message = f"delimiter {self.delimiter[:80]!r} is neither empty nor '/'"
            raise InvalidArgument(Reason.INVALID_DELIMITER, "delimiter", message)
        if not 0 <= self.page_size <= MAX_PAGE_SIZE:
            message = f"page_size {self.page_size} is not between 0 and {MAX_PAGE_SIZE}"
            raise InvalidArgument(Reason.INVALID_PAGE_SIZE, "page_size", message)

    @property
    def first_after(self) -> str:
        """`start_after` as an `after` of `ListQuery`, in which a `/` at the end would pass over all below it."""
        return self.start_after + "\0" if self.start_after.endswith("/") else self.start_after


@dataclass(frozen=True, slots=True)
class BlobPage:
    """One page of a list, in byte order; an empty token means the end."""

    entries: list[Entry]
    common_prefixes: list[str]
    next_page_token: str


class BlobStore:
    """Blobs on an `ObjectStore`. `max_blob_bytes` bounds each of them."""

    def __init__(self, objects: ObjectStore, *, max_blob_bytes: int = DEFAULT_MAX_BLOB_BYTES) -> None:
        self._objects = objects
        self.max_blob_bytes = max_blob_bytes

    def describe(self) -> Description:
        """Tell where the bytes are."""
        return self._objects.describe()

    def put(
        self,
        address: Address,
        parts: Iterable[Chunk | Declared],
        *,
        declared: Declared = NOTHING_DECLARED,
        condition: Condition = OVERWRITE,
        attributes: Attributes = NO_ATTRIBUTES,
    ) -> Put:
        """Store a blob, whole and as declared, or leave all as it was.

        A content address never overwrites: the same bytes found there are success. What is found is read first, and
        replaced if it is damaged and the digest of what comes was declared. Raises `BrokenUpload`,
        `InvalidArgument`, `AlreadyExists` (ALREADY_EXISTS, CONTENT_CONFLICT), `PreconditionFailed`, and what
        `ObjectStore.put` raises.
        """
        if isinstance(address, BlobKey):
            body = Body(parts, declared, max_bytes=self.max_blob_bytes)
            info = self._objects.put(address.object_key, body, condition=condition, attributes=attributes)
            return Put(info, created=True)
        if isinstance(condition, IfMatch):
            message = "if_match_etag is given with a content address, which is never overwritten"
            raise InvalidArgument(Reason.INVALID_CONDITION, "if_match_etag", message)
        declared = _agreed(address, declared)
        body = Body(parts, declared, max_bytes=self.max_blob_bytes)
        return self._put_content(address, body, attributes)

    def _put_content(self, address: ContentAddress, body: Body, attributes: Attributes) -> Put:
        known = body.header.sha256
        name: ObjectKey | NamedByContent = NamedByContent(lambda sha256: address.key_of(sha256).object_key)
        if known is not None:
            name = address.key_of(known).object_key
            if self._is_damaged(name):
                # It is known what the bytes were: those that come.
                replaced = self._objects.put(name, body, attributes=attributes)
                _log.warning("A damaged blob was replaced", extra={"fields": {"key": name.text}})
                return Put(replaced, created=True)
        try:
            return Put(self._objects.put(name, body, condition=CreateOnly(), attributes=attributes), created=True)
        except ObjectExists as found:
            existing = found.existing
        # What arrived must be what was declared even where it is not needed.
        if existing.sha256 != body.read_to_end().sha256:
            message = f"other bytes stand under the content address {existing.key.text!r}"
            raise AlreadyExists(Reason.CONTENT_CONFLICT, message, **existing.identity())
        if known is None and self._is_damaged(existing.key):
            what = "the bytes that are there are damaged; a put that declares their sha256 replaces them"
            raise IntegrityFailed(existing.key.text, what)
        return Put(existing, created=False)

    def _is_damaged(self, key: ObjectKey) -> bool:
        """Read what is under a key, and tell whether that is not what was written; nothing there is not damage."""
        try:
            with self._objects.get(key) as reader:
                for _ in reader:
                    calls.check("reading what is there")
        except ObjectNotFound:
            return False
        except IntegrityFailed:
            return True
        return False

    def get(self, address: Address, wanted: Range = WHOLE, *, condition: Condition = OVERWRITE) -> ObjectReader:
        """Open a blob; the caller closes it.

        Raises `NotFound`, `RangeNotSatisfiable`, `PreconditionFailed`, and `IntegrityFailed` if other bytes stand under
        a content address.
        """
        try:
            reader = self._objects.get(key_of(address), wanted, condition=condition)
        except ObjectNotFound as missing:
            raise _not_found(missing) from None
        try:
            _check_content(address, reader.info)
        except IntegrityFailed:
            reader.close()
            raise
        return reader

    def stat(self, address: Address) -> ObjectInfo:
        """Tell what is known of a blob. Raises `NotFound`, and `IntegrityFailed` as `get` does."""
        try:
            info = self._objects.stat(key_of(address))
        except ObjectNotFound as missing:
            raise _not_found(missing) from None
        _check_content(address, info)
        return info

    def delete(self, address: Address, *, condition: Condition = OVERWRITE) -> bool:
        """Delete a blob, and tell whether there was one. Raises `PreconditionFailed`, `IntegrityFailed` as `get`."""
        key = key_of(address)
        if isinstance(address, ContentAddress):
            with suppress(ObjectNotFound):  # the deletion tells that
                _check_content(address, self._objects.stat(key))
        return self._objects.delete(key, condition=condition)

    def list(self, query: BlobQuery) -> BlobPage:
        """Return one page of blobs. Raises `InvalidArgument` (INVALID_PAGE_TOKEN)."""
        binding = (query.prefix, query.delimiter, query.start_after)
        after = page_token.decode(binding, query.page_token) if query.page_token else query.first_after
        found = self._objects.list(ListQuery(query.prefix, after, bool(query.delimiter), RESERVED_PREFIXES))
        entries: list[Entry] = []
        common_prefixes: list[str] = []
        room = query.page_size or DEFAULT_PAGE_SIZE
        size = 0
        last = ""
        for item in found:
            if room == 0 or size > _PAGE_BYTES:
                return BlobPage(entries, common_prefixes, page_token.encode(binding, last))
            if isinstance(item, CommonPrefix):
                common_prefixes.append(item.name)
            else:
                entries.append(item)
            last = item.name
            room -= 1
            size += len(last.encode()) + _ENTRY_BYTES
        return BlobPage(entries, common_prefixes, "")


def _agreed(address: ContentAddress, declared: Declared) -> Declared:
    """Return what the header declares, the digest of the address included."""
    if address.sha256 is None or address.sha256 == declared.sha256:
        return declared
    if declared.sha256 is not None:
        message = "sha256 and content.sha256 are both given, and differ"
        raise InvalidArgument(Reason.INVALID_DIGEST, "sha256", message)
    return replace(declared, sha256=address.sha256)


def _check_content(address: Address, info: ObjectInfo) -> None:
    """Raise `IntegrityFailed` if other bytes stand under a content address: a put by key can bring them there."""
    if isinstance(address, ContentAddress) and info.sha256 != address.sha256:
        raise IntegrityFailed(info.key.text, "other bytes stand under this content address")


def _not_found(missing: ObjectNotFound) -> NotFound:
    key = missing.key.text
    return NotFound(Reason.BLOB_NOT_FOUND, f"there is no blob with key {key!r}", key=key)
