"""What BlobStore means: a blob is there whole and verified, or not at all."""

import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from holdfast_server import calls
from holdfast_server.blobs.address import Address, BlobKey, ContentAddress, key_of
from holdfast_server.blobs.lists import BlobPage, BlobQuery, page_of
from holdfast_server.errors import (
    AlreadyExists,
    ConcurrentModification,
    HoldfastError,
    IntegrityFailed,
    InvalidArgument,
    NotFound,
    PreconditionFailed,
    Reason,
    StorageFull,
)
from holdfast_server.objects.base import (
    NO_ATTRIBUTES,
    OVERWRITE,
    WHOLE,
    Description,
    NamedByContent,
    ObjectNotFound,
    ObjectReader,
    ObjectStore,
)
from holdfast_server.objects.body import NOTHING_DECLARED, Body, Chunk, Declared
from holdfast_server.objects.conditions import Condition, CreateOnly, IfMatch, ObjectExists
from holdfast_server.objects.info import Attributes, ObjectInfo
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.ranges import Range

_log = logging.getLogger(__name__)

DEFAULT_MAX_BLOB_BYTES = 1 << 40
"""1 TiB."""

_TRIES = 3
"""Of a copy whose source is replaced meanwhile."""


@dataclass(frozen=True, slots=True)
class Put:
    """The answer to a put. `created` is False only where a content address already held the bytes."""

    blob: ObjectInfo
    created: bool


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
        try:
            return self._put(address, parts, declared, condition, attributes)
        except StorageFull as full:
            if full.reason is not Reason.SPOOL_FULL:
                raise
            message = f"{full.message}; an upload whose header declares its sha256 needs no room there"
            raise StorageFull(message, full.reason) from full

    def _put(
        self,
        address: Address,
        parts: Iterable[Chunk | Declared],
        declared: Declared,
        condition: Condition,
        attributes: Attributes,
    ) -> Put:
        if isinstance(address, BlobKey):
            body = Body(parts, declared, max_bytes=self.max_blob_bytes)
            info = self._objects.put(address.object_key, body, condition=condition, attributes=attributes)
            return Put(info, created=True)
        _check_condition(condition)
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
                return _replaced(self._objects.put(name, body, attributes=attributes))
        try:
            return Put(self._objects.put(name, body, condition=CreateOnly(), attributes=attributes), created=True)
        except ObjectExists as found:
            existing = found.existing
        # What arrived must be what was declared even where it is not needed.
        _check_conflict(existing, body.read_to_end().sha256)
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

    def stat_many(self, addresses: Sequence[Address]) -> list[ObjectInfo | HoldfastError | None]:
        """Tell what is known of each blob; None: it is not there, and an error stands for what could not be told.

        Raises `InvalidArgument` (INVALID_DIGEST) for a content address without digest.
        """
        found = self._objects.stat_many([key_of(address) for address in addresses])
        for position, (address, info) in enumerate(zip(addresses, found, strict=True)):
            if isinstance(address, ContentAddress) and isinstance(info, ObjectInfo):
                try:
                    _check_content(address, info)
                except IntegrityFailed as error:
                    found[position] = error
        return found

    def delete(self, address: Address, *, condition: Condition = OVERWRITE) -> bool:
        """Delete a blob, and tell whether there was one. Raises `PreconditionFailed`, `IntegrityFailed` as `get`."""
        key = key_of(address)
        if isinstance(address, ContentAddress):
            with suppress(ObjectNotFound):  # the deletion tells that
                _check_content(address, self._objects.stat(key))
        return self._objects.delete(key, condition=condition)

    def copy(
        self,
        source: Address,
        target: Address,
        *,
        condition: Condition = OVERWRITE,
        source_condition: Condition = OVERWRITE,
        attributes: Attributes | None = None,
    ) -> Put:
        """Store a blob's bytes under another name too; attributes are kept where None.

        `condition` is on the target. A content address there is never overwritten, as with `put`; what is found is read
        first, and replaced if it is damaged. Raises for the source `NotFound`, and `PreconditionFailed` if
        `source_condition` does not hold; for the target `AlreadyExists`, `PreconditionFailed`, and `InvalidArgument`
        (INVALID_DIGEST) if its digest is not that of the source.
        """
        if isinstance(target, ContentAddress):
            _check_condition(condition)
        elif isinstance(source, BlobKey):
            try:
                copied = self._objects.copy(
                    source.object_key,
                    target.object_key,
                    condition=condition,
                    source_condition=source_condition,
                    attributes=attributes,
                )
            except ObjectNotFound as missing:
                raise _not_found(missing) from None
            return Put(copied, created=True)
        for _ in range(_TRIES):
            found = self.stat(source)
            source_condition.check(found.key, found)
            try:
                return self._copy_found(found, target, condition, attributes)
            except ObjectNotFound:
                continue
            except PreconditionFailed:
                if self.stat(source).etag == found.etag:
                    raise  # it was the target's
        raise ConcurrentModification(f"key {found.key.text!r} changed each time that it was copied", key=found.key.text)

    def _copy_found(
        self, source: ObjectInfo, target: Address, condition: Condition, attributes: Attributes | None
    ) -> Put:
        """Copy just this object: it must not become another one on the way."""
        if isinstance(target, ContentAddress):
            return self._copy_content(source, target, attributes)
        copied = self._objects.copy(
            source.key,
            target.object_key,
            condition=condition,
            source_condition=IfMatch(source.etag),
            attributes=attributes,
        )
        return Put(copied, created=True)

    def _copy_content(self, source: ObjectInfo, target: ContentAddress, attributes: Attributes | None) -> Put:
        if target.sha256 not in (None, source.sha256):
            message = f"target.content.sha256 is not that of the source, which is {source.sha256.hex()}"
            raise InvalidArgument(Reason.INVALID_DIGEST, "target.content.sha256", message)
        key = target.key_of(source.sha256).object_key
        copy = partial(
            self._objects.copy, source.key, key, source_condition=IfMatch(source.etag), attributes=attributes
        )
        if self._is_damaged(key):
            if self._is_damaged(source.key):
                raise IntegrityFailed(source.key.text, "it is damaged, and so cannot replace a damaged blob")
            return _replaced(copy())
        try:
            return Put(copy(condition=CreateOnly()), created=True)
        except ObjectExists as found:
            _check_conflict(found.existing, source.sha256)
            return Put(found.existing, created=False)

    def list(self, query: BlobQuery) -> BlobPage:
        """Return one page of blobs. Raises `InvalidArgument` (INVALID_PAGE_TOKEN)."""
        return page_of(self._objects, query)


def _agreed(address: ContentAddress, declared: Declared) -> Declared:
    """Return what the header declares, the digest of the address included."""
    if address.sha256 is None or address.sha256 == declared.sha256:
        return declared
    if declared.sha256 is not None:
        message = "sha256 and content.sha256 are both given, and differ"
        raise InvalidArgument(Reason.INVALID_DIGEST, "sha256", message)
    return replace(declared, sha256=address.sha256)


def _check_condition(condition: Condition) -> None:
    """Refuse if-match with a content address. Raises `InvalidArgument` (INVALID_CONDITION)."""
    if isinstance(condition, IfMatch):
        message = "if_match_etag is given with a content address, which is never overwritten"
        raise InvalidArgument(Reason.INVALID_CONDITION, "if_match_etag", message)


def _check_conflict(existing: ObjectInfo, sha256: bytes) -> None:
    """Raise `AlreadyExists` (CONTENT_CONFLICT) if what stands under a content address has another digest than this."""
    if existing.sha256 != sha256:
        message = f"other bytes stand under the content address {existing.key.text!r}"
        raise AlreadyExists(Reason.CONTENT_CONFLICT, message, **existing.identity())


def _replaced(info: ObjectInfo) -> Put:
    _log.warning("A damaged blob was replaced", extra={"fields": {"key": info.key.text}})
    return Put(info, created=True)


def _check_content(address: Address, info: ObjectInfo) -> None:
    """Raise `IntegrityFailed` if other bytes stand under a content address: a put by key can bring them there."""
    if isinstance(address, ContentAddress) and info.sha256 != address.sha256:
        raise IntegrityFailed(info.key.text, "other bytes stand under this content address")


def _not_found(missing: ObjectNotFound) -> NotFound:
    key = missing.key.text
    return NotFound(Reason.BLOB_NOT_FOUND, f"there is no blob with key {key!r}", key=key)
