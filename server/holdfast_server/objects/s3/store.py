"""Objects in a bucket of an S3-compatible store."""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from holdfast_server.errors import (
    BackendRefused,
    ConcurrentModification,
    ConditionUnsupported,
    HoldfastError,
    IntegrityFailed,
    Reason,
    Unavailable,
)
from holdfast_server.objects.base import (
    NO_ATTRIBUTES,
    OVERWRITE,
    WHOLE,
    CommonPrefix,
    Description,
    Durability,
    Entry,
    Listener,
    ListQuery,
    NamedByContent,
    ObjectNotFound,
    ObjectReader,
    ObjectStore,
    stat_each,
)
from holdfast_server.objects.body import Body
from holdfast_server.objects.breaker import Breaker
from holdfast_server.objects.conditions import Condition, CreateOnly, IfMatch, Overwrite
from holdfast_server.objects.info import Attributes, ObjectInfo
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.ranges import Range
from holdfast_server.objects.remote_metrics import BackendMetrics
from holdfast_server.objects.retrying import DEFAULT_POLICY, Retrying, RetryPolicy
from holdfast_server.objects.s3 import layout
from holdfast_server.objects.s3.bucket import Bucket
from holdfast_server.objects.s3.client import Download, S3Client
from holdfast_server.objects.s3.copies import Copies
from holdfast_server.objects.s3.heads import Heads, condition_headers
from holdfast_server.objects.s3.lists import listed
from holdfast_server.objects.s3.messages import Request, S3Refusal
from holdfast_server.objects.s3.options import S3Options
from holdfast_server.objects.s3.probe import UNKNOWN_MODES, Findings, StoreUnfit, probe
from holdfast_server.objects.s3.puts import Puts
from holdfast_server.objects.s3.reader import place_of, reader_of
from holdfast_server.objects.s3.requests import MeasuredClient, Requests
from holdfast_server.objects.spool import Spool

NAME = "s3"

SWEPT_AGE = timedelta(hours=24)
"""Uploads in parts that were begun longer ago are taken for forgotten."""

_SWEEP_SECONDS = 3600.0
_SWEEP_RETRY_SECONDS = 5.0
_PROBE_PAUSE_SECONDS = 1.0
_MOST_PROBE_PAUSE_SECONDS = 60.0
"""Between probes of a store that was found unfit: the pause doubles with each."""

_CLOSE_SECONDS = 5.0

_AT_ONCE = 16
"""Operations that wait for a network, of a caller who wants many."""

_TRIES = 3

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Opened:
    """What was found out about the bucket."""

    findings: Findings
    store_id: str


class S3Store(ObjectStore):
    """An `ObjectStore` in a bucket. Nothing is asked of the store before `start`, and nothing waits for it there."""

    def __init__(
        self, options: S3Options, spool: Spool, metrics: BackendMetrics, policy: RetryPolicy = DEFAULT_POLICY
    ) -> None:
        self._options = options
        self._metrics = metrics
        self._client = S3Client(options)
        self._measured = MeasuredClient(self._client, metrics)
        self._bucket = Bucket(self._measured, options)
        self._breaker = Breaker(self._mend, name=NAME, metrics=metrics)
        self._requests = Requests(self._measured, Retrying(self._breaker, policy, metrics=metrics))
        self._heads = Heads(self._requests, options.prefix, options.adopt_prefix)
        self._puts = Puts(self._requests, self._heads, spool, options.part_bytes, self._findings)
        self._copies = Copies(self._heads, self._puts, options.bucket, self._findings, self._open_same)
        self._opened: _Opened | None = None
        self._was_lost = False
        self._unfit: str | None = None
        self._probe_pause = _PROBE_PAUSE_SECONDS
        self._probe_at = 0.0
        self._closing = threading.Event()
        self._sweeper = threading.Thread(target=self._sweep_now_and_then, name="s3 sweep", daemon=True)

    def describe(self) -> Description:
        """Tell what the probe has found."""
        opened = self._opened
        return Description(
            NAME,
            Durability.REMOTE,
            UNKNOWN_MODES if opened is None else opened.findings.modes,
            nested_keys=opened is not None and opened.findings.nested_keys,
            store_id="" if opened is None else opened.store_id,
            not_ready=self._breaker.reason,
            reads_at_once=_AT_ONCE,
            writes_at_once=_AT_ONCE,
        )

    def start(self, listener: Listener) -> None:
        """Begin to look for the bucket; see `ObjectStore.start`."""
        self._breaker.start(listener)
        self._sweeper.start()

    def now(self) -> datetime:
        """Return the store's time, as its answers tell it; asks for an answer where none came lately."""
        if (now := self._client.clock.now()) is None:
            with suppress(S3Refusal):  # that has no date
                self._requests.send(Request("head_bucket", "HEAD"))
            now = self._client.clock.now()
        if now is None:
            raise Unavailable(Reason.BACKEND_UNAVAILABLE, "the S3 store does not say what time it is")
        return now

    def put(
        self,
        name: ObjectKey | NamedByContent,
        body: Body,
        *,
        condition: Condition = OVERWRITE,
        attributes: Attributes = NO_ATTRIBUTES,
    ) -> ObjectInfo:
        """Store the body's bytes; see `ObjectStore.put`."""
        self._breaker.check()  # before a body is read that could go nowhere
        with body.given_up_on_failure():
            return self._puts.put(name, body, condition, attributes)

    def get(self, key: ObjectKey, wanted: Range = WHOLE, *, condition: Condition = OVERWRITE) -> ObjectReader:
        """Open an object with one request; see `ObjectStore.get`."""
        headers = {} if isinstance(condition, Overwrite) else condition_headers(condition)
        if headers is None or isinstance(condition, CreateOnly):
            condition.check(key, self._heads.get(key).info)
            headers = {}
        if (asked := layout.range_header(wanted)) is not None:
            headers = {**headers, "Range": asked}
        request = Request("get", "GET", self._heads.path(key), headers=headers)
        for _ in range(_TRIES):
            try:
                return self._reader(key, wanted, condition, self._requests.open(request))
            except S3Refusal as refusal:
                if refusal.is_missing:
                    raise ObjectNotFound(key) from None
                if not refusal.is_out_of_range and not refusal.is_conflict:
                    raise
            # Why it was refused shows by what is there now, or else it is another object now.
            stored = self._heads.get(key)
            condition.check(key, stored.info)
            extent = wanted.of(stored.info.size_bytes)
            if extent.length == 0:
                return reader_of(wanted, stored)(self._requests, self._heads.path(key), stored, extent)
            # Some refuse a suffix that is longer than the object.
            asked = layout.range_header_of(extent, stored.info.size_bytes, is_adopted=stored.is_adopted)
            request = replace(request, headers={**headers, "Range": asked})
        raise ConcurrentModification(f"key {key.text!r} changed each time that it was opened", key=key.text)

    def stat(self, key: ObjectKey) -> ObjectInfo:
        """Tell what is known of an object; see `ObjectStore.stat`."""
        return self._heads.get(key).info

    def stat_many(self, keys: Sequence[ObjectKey]) -> list[ObjectInfo | HoldfastError | None]:
        """Tell what is known of each object; see `ObjectStore.stat_many`."""
        return stat_each(self.stat, keys)

    def delete(self, key: ObjectKey, *, condition: Condition = OVERWRITE) -> bool:
        """Remove an object; see `ObjectStore.delete`. S3 does not say whether there was one, so it is asked before."""
        if isinstance(condition, IfMatch):
            return self._delete_if_match(key, condition)
        there = self._requests.retry(lambda client, _number: self._heads.by(client).trace(key))
        if there is None:
            return False
        if isinstance(condition, CreateOnly):
            condition.check(key, self._heads.find_info(key))

        def delete(client: MeasuredClient, number: int) -> None:
            # After a lost answer: what others have put there since is not what was to be deleted.
            if not number or self._heads.by(client).trace(key) == there:
                client.send(Request("delete", "DELETE", self._heads.path(key)))

        self._requests.retry(delete)
        return True

    def list(self, query: ListQuery) -> Iterator[Entry | CommonPrefix]:
        """Yield what the query asks for; see `ObjectStore.list`."""
        return map(self._sized, listed(self._requests, self._options.prefix, query))

    def copy(
        self,
        source: ObjectKey,
        target: ObjectKey,
        *,
        condition: Condition = OVERWRITE,
        source_condition: Condition = OVERWRITE,
        attributes: Attributes | None = None,
    ) -> ObjectInfo:
        """Store the source's bytes under the target too; see `ObjectStore.copy`.

        The store copies where it keeps the condition; else, and above 5 GiB, the bytes go through this server.
        """
        return self._copies.copy(
            source, target, condition=condition, source_condition=source_condition, attributes=attributes
        )

    def close(self) -> None:
        """End the threads, and close the connections that nobody uses; readers go on."""
        self._closing.set()
        self._breaker.close()
        if self._sweeper.is_alive():
            self._sweeper.join(_CLOSE_SECONDS)
        self._client.close()

    def _known(self) -> _Opened:
        if self._opened is None:
            self._breaker.check()
            raise RuntimeError("the breaker is closed, and nothing was found out")
        return self._opened

    def _findings(self) -> Findings:
        return self._known().findings

    def _open_same(self, info: ObjectInfo) -> ObjectReader:
        return self.get(info.key, condition=IfMatch(info.etag))

    def _reader(self, key: ObjectKey, wanted: Range, condition: Condition, download: Download) -> ObjectReader:
        try:
            position, stored_bytes = place_of(download)
            stored = self._heads.read(key, download.headers, stored_bytes)
            if isinstance(condition, IfMatch):
                condition.check(key, stored.info)  # some stores keep no conditions of reads
            extent = wanted.of(stored.info.size_bytes)
            begun = (download, position)
            return reader_of(wanted, stored)(self._requests, self._heads.path(key), stored, extent, begun)
        except BaseException:
            download.close()  # else its connection would be lost
            raise

    def _sized(self, item: Entry | CommonPrefix) -> Entry | CommonPrefix:
        """Return an item of a list with its size: that of a large object is not as listed if others wrote it."""
        if not isinstance(item, Entry) or item.record is None or not self._heads.adopts(item.name):
            return item
        if item.record.size_bytes <= layout.PLAIN_BYTES:
            return item
        try:
            size = self._heads.get(ObjectKey(item.name)).info.size_bytes
        except (ObjectNotFound, IntegrityFailed):
            return item  # deleted meanwhile, or damaged: as listed
        return replace(item, record=replace(item.record, size_bytes=size))

    def _delete_if_match(self, key: ObjectKey, condition: IfMatch) -> bool:
        if not self._known().findings.delete_if_match:
            raise ConditionUnsupported("this S3 store does not keep if_match_etag of deletions")
        # If an answer is lost, what was never there could not be told from what is deleted.
        condition.check(key, self._heads.find_info(key))
        headers = condition_headers(condition) or {}
        is_unclear = False

        def delete(client: MeasuredClient, number: int) -> None:
            nonlocal is_unclear
            is_unclear = number > 0
            client.send(Request("delete", "DELETE", self._heads.path(key), headers=headers))

        try:
            self._requests.retry(delete)
        except S3Refusal as refusal:
            if not (refusal.is_conflict or refusal.is_missing):
                raise
            existing = self._heads.find_info(key)
            if is_unclear and existing is None:
                return True  # the try before, whose answer was lost, deleted it; or else somebody did
            if is_unclear and existing is not None and existing.etag != condition.etag:
                message = f"it is not known whether key {key.text!r} was deleted: an answer was lost"
                raise Unavailable(Reason.BACKEND_UNAVAILABLE, message) from None
            condition.check(key, existing)
            message = f"key {key.text!r} was written by others while it was deleted"
            raise ConcurrentModification(message, key=key.text) from None
        return True

    def _mend(self, _error: HoldfastError | None) -> None:
        """Find out whether the bucket can be used, and at first what it can do; for the breaker's thread."""
        try:
            self._find_out()
        except S3Refusal as refusal:
            raise StoreUnfit(f"it answers {refusal} to what any store does") from refusal

    def _find_out(self) -> None:
        if self._opened is not None and not self._was_lost:
            try:
                self._bucket.check()
            except BackendRefused:
                self._was_lost = True  # what comes back can be another bucket, or another store
                raise
            return
        # Once it was there it is not created anew: an empty bucket in its place would pass for all that was stored.
        self._bucket.make_sure(create=self._options.create_bucket and self._opened is None)
        if self._unfit is not None and time.monotonic() < self._probe_at:
            raise StoreUnfit(self._unfit)
        try:
            if self._options.must_exist and self._opened is None:
                self._bucket.check_store()
            findings = probe(self._measured, self._options.bucket, self._options.prefix)
            store_id = self._bucket.store_id(create_only=findings.put_create_only)
            if self._opened is not None and store_id != self._opened.store_id:
                raise StoreUnfit("its marker is that of another store than before; restart the server if that is meant")
        except StoreUnfit as error:
            # It costs requests, and is not likely to be another one in a second.
            self._unfit = error.lacks
            self._probe_pause = min(2 * self._probe_pause, _MOST_PROBE_PAUSE_SECONDS)
            self._probe_at = time.monotonic() + self._probe_pause
            raise
        self._unfit = None
        self._probe_pause = _PROBE_PAUSE_SECONDS
        for name, holds in findings.items():
            self._metrics.set_finding(name, holds=holds)
        self._opened = _Opened(findings, store_id)
        self._was_lost = False
        fields = {"bucket": self._options.bucket, "endpoint": self._options.endpoint, "store_id": store_id}
        _log.info("S3 store probed", extra={"fields": fields | dict(findings.items())})
        lacking = [name for name, holds in findings.items() if not holds and name != "nested_keys"]
        if lacking:
            fields = {"bucket": self._options.bucket, "lacking": ",".join(lacking)}
            _log.warning("The S3 store does not keep every condition", extra={"fields": fields})

    def _sweep_now_and_then(self) -> None:
        while not self._closing.is_set():
            if self._breaker.reason is not None:
                self._closing.wait(_SWEEP_RETRY_SECONDS)
                continue
            try:
                if swept := self._bucket.sweep(SWEPT_AGE):
                    _log.info("Forgotten uploads were aborted", extra={"fields": {"uploads": swept}})
            except Exception as error:  # noqa: BLE001 (the thread has to live on, whatever the store answers)
                _log.warning("Forgotten uploads could not be looked for", extra={"fields": {"error": str(error)}})
            self._closing.wait(_SWEEP_SECONDS)
