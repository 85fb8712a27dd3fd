"""Copies: by the store where it keeps what is asked of it, or else through this server."""

from collections.abc import Callable

from holdfast_server.errors import ConcurrentModification, PreconditionFailed
from holdfast_server.objects.base import ConditionMode, ObjectNotFound, ObjectReader
from holdfast_server.objects.body import Body, Declared
from holdfast_server.objects.conditions import Condition
from holdfast_server.objects.info import Attributes, ObjectInfo
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.s3 import layout, record
from holdfast_server.objects.s3.heads import Heads
from holdfast_server.objects.s3.messages import WORK_SECONDS, Answer, Request, S3Refusal, copy_source
from holdfast_server.objects.s3.probe import Findings
from holdfast_server.objects.s3.puts import New, Puts

_MOST_BYTES = 5 << 30
"""S3 copies at most 5 GiB in one request."""

_TRIES = 3


class Copies:
    """Copies objects within the bucket.

    `findings` tells which copies the store makes itself; `open_same` opens an object that still is the one described,
    and raises `PreconditionFailed` if it is not.
    """

    def __init__(
        self,
        heads: Heads,
        puts: Puts,
        bucket: str,
        findings: Callable[[], Findings],
        open_same: Callable[[ObjectInfo], ObjectReader],
    ) -> None:
        self._heads = heads
        self._puts = puts
        self._bucket = bucket
        self._findings = findings
        self._open_same = open_same

    def copy(
        self,
        source: ObjectKey,
        target: ObjectKey,
        *,
        condition: Condition,
        source_condition: Condition,
        attributes: Attributes | None,
    ) -> ObjectInfo:
        """Store the source's bytes under the target too; see `ObjectStore.copy`."""
        for _ in range(_TRIES):
            found = self._heads.get(source)
            source_condition.check(source, found.info)
            kept = found.info.attributes if attributes is None else attributes
            # What others wrote has to pass through here, for its sums to be made.
            by_store = self._findings().copies(condition) and not found.is_adopted
            too_large = layout.stored_size_of(found.info.size_bytes) > _MOST_BYTES
            copy = self._copy_by_store if by_store and not too_large else self._copy_through
            try:
                return copy(found, target, condition, kept)
            except _SourceChanged:
                continue
        raise ConcurrentModification(f"key {source.text!r} changed each time that it was copied", key=source.text)

    def _copy_by_store(
        self, found: record.Stored, target: ObjectKey, condition: Condition, attributes: Attributes
    ) -> ObjectInfo:
        info = found.info
        new = New(target, info.size_bytes, info.sha256, attributes, record.new_write_id())
        headers = {
            **record.headers_of(
                attributes,
                info.sha256,
                new.write_id,
                crcs=found.crcs,
                seed=found.seed,
                size_bytes=info.size_bytes if found.crcs is None else None,
            ),
            **copy_source(self._bucket, self._heads.path(info.key)),
            "x-amz-copy-source-if-match": f'"{info.etag}"',
            "x-amz-metadata-directive": "REPLACE",
        }
        path = self._heads.path(target)

        def write(conditions: dict[str, str]) -> Answer | None:
            request = Request("copy", "PUT", path, headers={**headers, **conditions}, work_seconds=WORK_SECONDS)
            try:
                return self._puts.make(request, new)
            except S3Refusal as refusal:
                now = self._heads.find_info(info.key) if refusal.is_conflict or refusal.is_missing else info
                if now is None:
                    raise ObjectNotFound(info.key) from None
                if now.etag != info.etag:
                    raise _SourceChanged from None
                raise

        return self._puts.publish(new, condition, ConditionMode.ATOMIC, write)

    def _copy_through(
        self, found: record.Stored, target: ObjectKey, condition: Condition, attributes: Attributes
    ) -> ObjectInfo:
        info = found.info
        try:
            opened = self._open_same(info)
        except PreconditionFailed:
            raise _SourceChanged from None
        with opened as reader:
            body = Body(reader, Declared(info.size_bytes, info.sha256 or None))
            return self._puts.put(target, body, condition, attributes)


class _SourceChanged(Exception):
    """The source of a copy is another object than the one that was looked at."""
