"""The dictionary, and what may be answered to a request on it.

Every method takes a request and its answer, and raises `AssertionError` where no dictionary can have given that.
"""

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import permutations
from typing import TypeVar

import google_crc32c

from holdfast.v1 import blob_store_pb2 as pb
from holdfast.v1.types_pb2 import ErrorReason, ItemStatus
from tests.support.blob_model import rules
from tests.support.blob_model.asked import Attributes, Condition, Content, Copy, Key, Name, Put, Query, Range, Sample
from tests.support.blob_model.rules import Reasons

_MIB = 1 << 20
_MAX_BATCH_BYTES = 1835008
_CLOSE = timedelta(minutes=1)
"""A server may stand still between storing and answering."""


@dataclass(frozen=True)
class Backend:
    """In which way a store may differ from the others."""

    survives: bool = True
    """A restart keeps what is there."""
    etags_are_new: bool = True
    """No etag ever comes again; on S3 the same bytes may keep theirs."""
    times_are_exact: bool = True
    """A put answers the time that later reads tell; on S3 it does not know that."""
    deletes_at_once: bool = True
    """Of two deletions of one blob at the same time one tells that it was there; S3 has no such, and both may."""
    deletes_if_match: bool = True
    """MinIO ignores the condition of a deletion, so that is refused."""
    nested_keys: bool = True
    """MinIO hides keys below a key from lists."""


@dataclass(frozen=True)
class Refused:
    """An answer that is an error; `names` are the names in it."""

    reason: str
    names: dict[str, str]
    message: str


@dataclass(frozen=True)
class Kept:
    """A blob."""

    of: Sample
    attributes: Attributes
    etag: str
    update_time: datetime


class Dictionary:
    """Blobs by key."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.blobs: dict[str, Kept] = {}
        self.etags: dict[str, bytes] = {}
        """The digest that each etag ever seen stands for."""
        self.former: dict[str, str] = {}
        """By key, an etag that it once had."""

    # Writing.

    def put(self, put: Put, answer: Refused | pb.PutBlobResponse) -> None:
        """Check a PutBlob."""
        self._put(put, rules.of_put(put), answer)

    def _put(self, put: Put, reasons: Reasons, answer: Refused | pb.PutBlobResponse | pb.BatchPutBlobsResult) -> None:
        if not rules.of_name(put.name, may_be_open=True):
            reasons = reasons | self._of_target(put.name, put.condition, put.of)
        if self._is_refused(reasons, answer):
            return
        assert not isinstance(answer, Refused)
        self._stored(rules.key_of(put.name, put.of.sha256), put.name, put.of, put.attributes, answer)

    def _of_target(self, name: Name, condition: Condition, arriving: Sample) -> Reasons:
        there = self.blobs.get(rules.key_of(name, arriving.sha256))
        if isinstance(name, Content):
            # Where the digest is wrong already, what is there does not matter.
            is_right = name.sha256 in (b"", arriving.sha256)
            return {"CONTENT_CONFLICT"} if is_right and there and there.of.sha256 != arriving.sha256 else set()
        if condition.create_only and there is not None:
            return {"ALREADY_EXISTS"}
        return self._of_etag(condition.etag, there)

    @staticmethod
    def _of_etag(etag: str | None, there: Kept | None) -> Reasons:
        return {"PRECONDITION_FAILED"} if etag is not None and (there is None or there.etag != etag) else set()

    def _stored(
        self,
        key: str,
        name: Name,
        of: Sample,
        attributes: Attributes,
        answer: pb.PutBlobResponse | pb.CopyBlobResponse | pb.BatchPutBlobsResult,
    ) -> None:
        if isinstance(name, Content) and key in self.blobs:
            assert not answer.created
            told = Attributes() if isinstance(answer, pb.BatchPutBlobsResult) else None
            self._check_info(answer.blob, key, told)
            return
        assert answer.created
        etag = answer.blob.etag
        assert etag
        assert not (self.backend.etags_are_new and etag in self.etags), "an etag came again"
        assert self.etags.setdefault(etag, of.sha256) == of.sha256, "an etag stands for two blobs"
        self._forget(key)
        self.blobs[key] = Kept(of, attributes, etag, _time(answer.blob))
        self._check_info(answer.blob, key)

    def _forget(self, key: str) -> None:
        if key in self.blobs:
            self.former[key] = self.blobs.pop(key).etag

    def delete(
        self, name: Name, etag: str | None, answer: Refused | pb.DeleteBlobResponse | pb.BatchDeleteBlobsResult
    ) -> None:
        """Check a DeleteBlob."""
        reasons = rules.of_name(name) | rules.of_etag(etag)
        if not rules.of_name(name):
            there = self.blobs.get(rules.key_of(name))
            reasons |= self._of_identity(name, there)
            if etag is not None and not self.backend.deletes_if_match:
                reasons |= {"CONDITION_UNSUPPORTED"}
            else:
                reasons |= self._of_etag(etag, there)
        if self._is_refused(reasons, answer):
            return
        assert not isinstance(answer, Refused)
        assert answer.existed == (rules.key_of(name) in self.blobs)
        self._forget(rules.key_of(name))

    @staticmethod
    def _of_identity(name: Name, there: Kept | None) -> Reasons:
        """Judge what stands under an address that has its digest: content is never other bytes."""
        is_other = isinstance(name, Content) and there is not None and there.of.sha256 != name.sha256
        return {"INTEGRITY_FAILED"} if is_other else set()

    def copy(self, asked: Copy, answer: Refused | pb.CopyBlobResponse) -> None:
        """Check a CopyBlob."""
        reasons, source = self._found(asked.source, asked.source_etag)
        reasons |= rules.of_condition(asked.condition, asked.target)
        reasons |= rules.of_name(asked.target, may_be_open=True)
        if asked.attributes is not None:
            reasons |= rules.of_attributes(asked.attributes)
        if source is not None and not rules.of_name(asked.target, may_be_open=True):
            if isinstance(asked.target, Content) and asked.target.sha256 not in (b"", source.of.sha256):
                reasons |= {"INVALID_DIGEST"}
            reasons |= self._of_target(asked.target, asked.condition, source.of)
        if self._is_refused(reasons, answer):
            return
        assert not isinstance(answer, Refused)
        assert source is not None
        attributes = source.attributes if asked.attributes is None else asked.attributes
        self._stored(rules.key_of(asked.target, source.of.sha256), asked.target, source.of, attributes, answer)

    # Reading.

    def _found(self, name: Name, etag: str | None = None) -> tuple[Reasons, Kept | None]:
        reasons = rules.of_name(name) | rules.of_etag(etag)
        if rules.of_name(name):
            return reasons, None
        there = self.blobs.get(rules.key_of(name))
        if there is None:
            return reasons | {"BLOB_NOT_FOUND"}, None
        return reasons | self._of_identity(name, there) | self._of_etag(etag, there), there

    def stat(self, name: Name, answer: Refused | pb.StatBlobResponse) -> None:
        """Check a StatBlob."""
        reasons, _ = self._found(name)
        if not self._is_refused(reasons, answer):
            assert not isinstance(answer, Refused)
            self._check_info(answer.blob, rules.key_of(name))

    def get(self, name: Name, wanted: Range, etag: str | None, answer: Refused | list[pb.GetBlobResponse]) -> None:
        """Check a GetBlob: all of its messages."""
        reasons, there = self._found(name, etag)
        reasons |= rules.of_range(wanted)
        bounds = None if there is None else _bounds(wanted, there.of.size)
        if bounds is None and there is not None:
            reasons |= {"RANGE_NOT_SATISFIABLE"}
        if self._is_refused(reasons, answer):
            return
        assert not isinstance(answer, Refused)
        assert there is not None
        assert bounds is not None
        first, *chunks = answer
        assert first.WhichOneof("part") == "info"
        assert (first.info.range.offset, first.info.range.length) == (bounds[0], bounds[1] - bounds[0])
        self._check_info(first.info, rules.key_of(name))
        for message in chunks:
            assert 0 < len(message.chunk.data) <= _MIB
            assert message.chunk.crc32c == google_crc32c.value(message.chunk.data)
        assert b"".join(message.chunk.data for message in chunks) == there.of.data[slice(*bounds)]

    def page(self, query: Query, page_size: int, last: str | None, answer: Refused | pb.ListBlobsResponse) -> str:
        """Check a ListBlobs that goes on after the item `last`, and return the last item of the page."""
        if self._is_refused(rules.of_query(query, page_size), answer):
            return ""
        assert not isinstance(answer, Refused)
        expected = [item for item in self._listed(query) if last is None or item.encode() > last.encode()]
        keys = [entry.key for entry in answer.blobs]
        assert keys == sorted(keys, key=str.encode)
        found = sorted([*keys, *answer.common_prefixes], key=str.encode)
        assert len(found) <= (page_size or 1000)
        assert found == expected[: len(found)]
        assert (answer.next_page_token == "") == (len(found) == len(expected))
        for entry in answer.blobs:
            kept = self.blobs[entry.key]
            assert (entry.size_bytes, entry.etag, entry.damaged) == (kept.of.size, kept.etag, False)
            self._check_time(entry, kept)
        return found[-1] if found else last or ""

    def _listed(self, query: Query) -> list[str]:
        names = set()
        for key in self.blobs:
            if key.startswith(query.prefix) and key.encode() > query.start_after.encode():
                cut = key.find("/", len(query.prefix)) if query.delimiter else -1
                names.add(key if cut < 0 else key[: cut + 1])
        return sorted(names, key=str.encode)

    def missing(
        self, wanted: Sequence[tuple[Name, bytes]], of_call: Reasons, answer: Refused | pb.FindMissingBlobsResponse
    ) -> None:
        """Check a FindMissingBlobs: of names, each with the digest that it must have (empty: any)."""
        if self._is_refused(of_call, answer):
            return
        assert not isinstance(answer, Refused)
        failed = {failure.position: failure.status for failure in answer.failures}
        assert list(failed) == sorted(failed)
        missing = []
        for position, (name, digest) in enumerate(wanted):
            reasons, there = self._found(name)
            if len(digest) not in (0, 32):
                reasons |= {"INVALID_DIGEST"}
            if reasons - {"BLOB_NOT_FOUND"}:
                assert _reason(failed.pop(position)) in reasons
            elif there is None or digest not in (b"", there.of.sha256):
                missing.append(position)
        assert not failed
        assert list(answer.missing) == missing

    def restart(self) -> None:
        """Be what is left after a restart."""
        if not self.backend.survives:
            for key in list(self.blobs):
                self._forget(key)

    # Batches.

    def got(self, names: Sequence[Name], answer: Refused | pb.BatchGetBlobsResponse) -> None:
        """Check a BatchGetBlobs."""
        assert not isinstance(answer, Refused), answer
        assert len(answer.results) == len(names)
        room = _MAX_BATCH_BYTES - sum(len(result.data) for result in answer.results)
        assert room >= 0
        for name, result in zip(names, answer.results, strict=True):
            reasons, there = self._found(name)
            if there is not None and there.of.size > _MAX_BATCH_BYTES:
                reasons |= {"TOO_LARGE"}
            elif there is not None and there.of.size > room and _reason(result.status) == "BATCH_FULL":
                reasons |= {"BATCH_FULL"}
            if self._is_refused(reasons, _outcome(result)):
                continue
            assert there is not None
            assert (result.data, result.crc32c) == (there.of.data, google_crc32c.value(there.of.data))
            self._check_info(result.blob, rules.key_of(name))

    def put_many(self, items: Sequence[Put], answer: Refused | pb.BatchPutBlobsResponse, message_bytes: int) -> None:
        """Check a BatchPutBlobs: a key may be named once, and not by content too; content may come often."""
        # Whether the data of an item that is malformed counts is left open.
        counted = [put for put in items if isinstance(answer, Refused) or not rules.of_item(put)]
        if self._is_refused(rules.of_batch([put.of.size for put in counted], message_bytes), answer):
            return
        assert not isinstance(answer, Refused)
        assert len(answer.results) == len(items)
        named = {put.name.text for put in items if isinstance(put.name, Key) and not rules.of_item(put)}
        before: dict[str, bool] = {}
        by_key: dict[str, list[Callable[[Dictionary], None]]] = {}
        for put, result in zip(items, answer.results, strict=True):
            reasons, outcome = rules.of_item(put), _outcome(result)
            repeated = isinstance(put.name, Key) and put.name.text in before
            if isinstance(put.name, Key):
                # Whether an item that is malformed counts as one that has the key is left open.
                is_sure = before.get(put.name.text, False)
                before[put.name.text] = is_sure or not reasons
                if repeated and (is_sure or _reason(result.status) == "INVALID_BATCH"):
                    reasons = reasons | {"INVALID_BATCH"}
            one = partial(Dictionary._put, put=put, reasons=reasons, answer=outcome)
            key = "" if rules.of_name(put.name, may_be_open=True) else rules.key_of(put.name, put.of.sha256)
            if isinstance(put.name, Content) and key in named:
                one = partial(Dictionary._put, put=put, reasons=reasons | {"INVALID_BATCH"}, answer=outcome)
            by_key.setdefault(key, []).append(one)
        self._in_some_order(by_key.values())

    def deleted(self, items: Sequence[tuple[Name, str | None]], answer: Refused | pb.BatchDeleteBlobsResponse) -> None:
        """Check a BatchDeleteBlobs."""
        assert not isinstance(answer, Refused), answer
        assert len(answer.results) == len(items)
        by_key: dict[str, list[Callable[[Dictionary], None]]] = {}
        for (name, etag), result in zip(items, answer.results, strict=True):
            one = partial(Dictionary.delete, name=name, etag=etag, answer=_outcome(result))
            key = "" if rules.of_name(name) else rules.key_of(name)
            by_key.setdefault(key, []).append(one)
        if self.backend.deletes_at_once:
            self._in_some_order(by_key.values())
            return
        for key, deletions in by_key.items():
            self._at_once(key, deletions)

    def _at_once(self, key: str, deletions: Sequence[Callable[["Dictionary"], None]]) -> None:
        """Do what was done to one blob, where each may have found it as before all of them, or gone."""
        gone = self._twin()
        gone._forget(key)
        found_gone = was_deleted = False
        for one in deletions:
            then = self._twin()
            try:
                one(then)
            except AssertionError:
                one(gone)
                found_gone = True
            was_deleted = was_deleted or len(then.blobs) < len(self.blobs)
        assert was_deleted or not found_gone
        if was_deleted:
            self._forget(key)

    def _in_some_order(self, groups: Iterable[Sequence[Callable[["Dictionary"], None]]]) -> None:
        """Do what was done under each key, in the first order that explains the answers."""
        for group in groups:
            wrong: AssertionError | None = None
            for order in permutations(group):
                then = self._twin()
                try:
                    for one in order:
                        one(then)
                except AssertionError as error:
                    wrong = wrong or error
                    continue
                self.__dict__.update(then.__dict__)
                break
            else:
                assert wrong is not None
                raise wrong

    def _twin(self) -> "Dictionary":
        twin = copy(self)
        twin.blobs, twin.etags, twin.former = dict(self.blobs), dict(self.etags), dict(self.former)
        return twin

    # What every answer has.

    def _is_refused(self, reasons: Reasons, answer: object) -> bool:
        """Tell whether the answer is a refusal, which it must be if there is a reason, and only then."""
        if not isinstance(answer, Refused):
            assert not reasons, f"not refused, in spite of {reasons}"
            return False
        assert answer.reason in reasons, f"refused: {answer}; the reasons are {reasons or 'none'}"
        if answer.reason in {"ALREADY_EXISTS", "CONTENT_CONFLICT", "PRECONDITION_FAILED"}:
            there = self.blobs.get(answer.names["key"])
            identity = {} if there is None else {"etag": there.etag, "sha256": there.of.sha256.hex()}
            assert answer.names == {"key": answer.names["key"], **identity}
        return True

    def _check_info(self, info: pb.BlobInfo, key: str, told: Attributes | None = None) -> None:
        """Check what is said of a blob. `told`: its attributes, where they are not told as they are."""
        kept = self.blobs[key]
        attributes = told or kept.attributes
        assert (info.key, info.size_bytes, info.etag) == (key, kept.of.size, kept.etag)
        assert info.sha256 == kept.of.sha256
        assert (info.content_type, dict(info.metadata)) == (attributes.content_type, attributes.metadata)
        self._check_time(info, kept)

    def _check_time(self, info: pb.BlobInfo | pb.BlobEntry, kept: Kept) -> None:
        difference = abs(_time(info) - kept.update_time)
        assert difference <= (timedelta(0) if self.backend.times_are_exact else _CLOSE)


def _time(info: pb.BlobInfo | pb.BlobEntry) -> datetime:
    return info.update_time.ToDatetime(UTC)


def _bounds(wanted: Range, size: int) -> tuple[int, int] | None:
    """Return the bytes served, from and to; None: the range lies outside."""
    if wanted.suffix_length is not None:
        start, end = size - wanted.suffix_length, size
    else:
        start, end = wanted.offset, size if wanted.length is None else wanted.offset + wanted.length
    if wanted.exact and (start < 0 or end > size):
        return None
    if start >= size and not (start == 0 and size == 0):
        return None
    return max(start, 0), min(end, size)


def _reason(status: ItemStatus) -> str:
    return ErrorReason.Name(status.reason).removeprefix("ERROR_REASON_")


Result = TypeVar("Result", pb.BatchGetBlobsResult, pb.BatchPutBlobsResult, pb.BatchDeleteBlobsResult)


def _outcome(result: Result) -> Refused | Result:
    if not result.status.code:
        return result
    return Refused(_reason(result.status), dict(result.status.details), result.status.message)
