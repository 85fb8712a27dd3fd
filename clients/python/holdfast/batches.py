"""Many small blobs in few calls: cut into requests, tried again item by item, and answered in order."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TypeVar

import google_crc32c
import grpc
from google.protobuf.message import Message

from holdfast.calls import Calls, checked
from holdfast.content import Address, Content, address_fields, check_content
from holdfast.cutting import Weighed, Weight, cut
from holdfast.errors import HoldfastError, IntegrityFailed, InternalError, InvalidArgument, from_item_status
from holdfast.results import BlobInfo, PutResult, blob_info
from holdfast.retrying import PASSING
from holdfast.v1 import blob_store_pb2 as pb
from holdfast.v1 import blob_store_pb2_grpc

T = TypeVar("T")
R = TypeVar("R")
M = TypeVar("M", bound=Message)

MAX_BATCH_BYTES = 7 << 18
"""1.75 MiB: the most data in a batch, by `blob_store.proto`, as are the other limits here."""

_MAX_ITEMS = 1000
_MAX_FIND_ITEMS = 2000
"""Of the 10,000 that may be. A server before a distant bucket looks for 16 at once, of 0.1 s each: these take it 13 s,
where a call has 60 s by default. 10,000 would take it 63 s, and every further try begins from the start."""
_MAX_FIND_BYTES = 2 << 20
_MAX_PUT_BYTES = 15 << 17

_ITEM_BYTES = 6
"""Tag and length of an item in its request, rounded up."""

_CONTENT_BYTES = 64
"""What a content address takes beside prefix and suffix, rounded up."""

_NEW_BYTES = 64
"""What an item of BatchPutBlobs takes beside its address, data, attributes and condition, rounded up."""

_FEWEST_ITEMS = 16
"""Asked for at least, after answers that held less than what was asked for."""

_IS_LARGE = ("TOO_LARGE", "BATCH_FULL")
"""A blob that gets one of these when it is asked for alone is fetched by itself."""

_PATIENCE = 3
"""How often a blob may find the answer full before it is asked for alone: what comes behind it waits in memory."""


@dataclass(frozen=True, slots=True)
class NewBlob:
    """A blob to be stored by `Blobs.put_many`; the fields are the arguments of `Blobs.put`."""

    key_or_content: Address
    data: bytes
    content_type: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)
    create_only: bool = False
    if_match_etag: str | None = None

    @property
    def may_repeat(self) -> bool:
        """Whether storing it twice does no harm."""
        return isinstance(self.key_or_content, Content) or not (self.create_only or self.if_match_etag is not None)


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob, whole and verified."""

    info: BlobInfo
    data: bytes


class Batches:
    """Batches of one server's blobs. Results come in the order of the items, with an error in place of what failed.

    What fails as a whole, such as a server that is away, is raised.
    """

    def __init__(self, channel: grpc.Channel, calls: Calls) -> None:
        self._stub = blob_store_pb2_grpc.BlobStoreStub(channel)
        self._calls = calls

    def find_missing(self, wanted: Iterable[tuple[Address, bytes | None]]) -> Iterator[bool | HoldfastError]:
        """Tell of each blob whether it is missing; one by key also if its bytes have not the sha256 given."""
        for some in cut(wanted, _weigh_wanted, Weight(_MAX_FIND_ITEMS, _MAX_FIND_BYTES)):
            yield from self._settled(some, self._find)

    def _find(self, items: Sequence[tuple[Address, bytes | None]]) -> list[bool | HoldfastError]:
        request = pb.FindMissingBlobsRequest()
        with checked():
            if (family := _family(items[0][0])) is None:
                request.keys.extend(key for key, _ in items if isinstance(key, str))
                if any(sha256 is not None for _, sha256 in items):
                    request.sha256.extend(sha256 or b"" for _, sha256 in items)
            else:
                request.content.CopyFrom(address_fields(family)["content"])
                request.sha256.extend(content.sha256 or b"" for content, _ in items if isinstance(content, Content))
        answer = self._calls.unary(self._stub.FindMissingBlobs, request)
        results: list[bool | HoldfastError] = [False] * len(items)
        told = [(position, None) for position in answer.missing]
        for position, status in [*told, *((failure.position, failure.status) for failure in answer.failures)]:
            if not 0 <= position < len(items):
                raise _nonsense(f"told of position {position}, and was asked for {len(items)} blobs")
            results[position] = True if status is None else from_item_status(status)
        return results

    def get(self, addresses: Iterable[Address], fetch: Callable[[Address], Blob]) -> Iterator[Blob | HoldfastError]:
        """Yield blobs; `fetch` gets those that are too large for a batch."""
        left = iter(addresses)
        waiting: deque[_Waiting] = deque()
        most = _MAX_ITEMS
        while True:
            unanswered = [one for one in waiting if one.result is None]
            new = [_Waiting(address) for address in islice(left, max(0, most - len(unanswered)))]
            waiting += new
            asked = (unanswered + new)[:most]
            if not asked:
                return
            if asked[0].refusals >= _PATIENCE:
                del asked[1:]
            results = self._settled([one.address for one in asked], self._get)
            answered = 0
            for one, result in zip(asked, results, strict=True):
                if isinstance(result, HoldfastError) and result.reason == "BATCH_FULL" and len(asked) > 1:
                    one.refusals += 1
                    continue
                answered += 1
                one.result = result
            # What did not fit was read by the server for nothing: ask for about what does.
            most = _MAX_ITEMS if answered == len(asked) else min(_MAX_ITEMS, max(2 * answered, _FEWEST_ITEMS))
            while waiting and (found := waiting[0].result) is not None:
                one = waiting.popleft()
                is_large = isinstance(found, HoldfastError) and found.reason in _IS_LARGE
                yield _attempted(fetch, one.address) if is_large else found

    def _get(self, addresses: Sequence[Address]) -> list[Blob | HoldfastError]:
        with checked():
            request = pb.BatchGetBlobsRequest(items=[pb.BlobAddress(**address_fields(each)) for each in addresses])
        answer = self._calls.unary(self._stub.BatchGetBlobs, request)
        return [_blob(item, result) for item, result in _paired(request.items, answer.results)]

    def put(
        self, blobs: Iterable[NewBlob], store: Callable[[NewBlob], PutResult]
    ) -> Iterator[PutResult | HoldfastError]:
        """Store blobs in their order; `store` stores those that are too large for a batch."""
        for some in cut(blobs, _weigh_new, Weight(_MAX_ITEMS, _MAX_PUT_BYTES, MAX_BATCH_BYTES)):
            if _is_large(some[0]):
                yield _attempted(store, some[0])
            else:
                yield from self._settled(some, self._put, lambda blob: blob.may_repeat)

    def _put(self, blobs: Sequence[NewBlob]) -> list[PutResult | HoldfastError]:
        with checked():
            request = pb.BatchPutBlobsRequest(items=[_put_item(blob) for blob in blobs])
        calls = self._calls if all(blob.may_repeat for blob in blobs) else self._calls.once()
        answer = calls.unary(self._stub.BatchPutBlobs, request)
        return [_put_result(item, result) for item, result in _paired(request.items, answer.results)]

    def delete(self, unwanted: Iterable[tuple[Address, str | None]]) -> Iterator[bool | HoldfastError]:
        """Delete blobs, those with an etag only if they have it still, and tell of each whether there was one."""
        for some in cut(unwanted, _weigh_unwanted, Weight(_MAX_ITEMS, _MAX_FIND_BYTES)):
            yield from self._settled(some, self._delete, lambda one: one[1] is None)

    def _delete(self, unwanted: Sequence[tuple[Address, str | None]]) -> list[bool | HoldfastError]:
        with checked():
            items = [
                pb.BatchDeleteBlobsItem(**address_fields(address), if_match_etag=etag) for address, etag in unwanted
            ]
        calls = self._calls if all(etag is None for _, etag in unwanted) else self._calls.once()
        answer = calls.unary(self._stub.BatchDeleteBlobs, pb.BatchDeleteBlobsRequest(items=items))
        return [
            from_item_status(result.status) if result.status.code else result.existed
            for _, result in _paired(items, answer.results)
        ]

    def _settled(
        self,
        items: Sequence[T],
        ask: Callable[[Sequence[T]], Sequence[R | HoldfastError]],
        may_repeat: Callable[[T], bool] = lambda _: True,
    ) -> list[R | HoldfastError]:
        """Return the results of one request; items whose failure may pass are asked again."""
        tries = self._calls.retrier.begin()
        results = list(_asked(items, ask))
        while True:
            passing = [
                (position, result)
                for position, result in enumerate(results)
                if isinstance(result, PASSING) and may_repeat(items[position])
            ]
            if not passing:
                return results
            try:
                tries.pause_after(passing[0][1])
            except PASSING:  # enough
                return results
            again = _asked([items[position] for position, _ in passing], ask)
            for (position, _), result in zip(passing, again, strict=True):
                results[position] = result


@dataclass(slots=True)
class _Waiting:
    """A blob that was asked for; `result` is None until it is answered, `refusals` counts BATCH_FULL."""

    address: Address
    result: Blob | HoldfastError | None = None
    refusals: int = 0


def _address_bytes(address: Address) -> int:
    """Return what an address takes in a request, rounded up."""
    if isinstance(address, str):
        return len(address.encode(errors="replace")) + 2 * _ITEM_BYTES
    return len((address.prefix + address.suffix).encode(errors="replace")) + _CONTENT_BYTES


def _weigh_unwanted(unwanted: tuple[Address, str | None]) -> Weighed:
    address, etag = unwanted
    size = _address_bytes(address) + len((etag or "").encode(errors="replace")) + _ITEM_BYTES
    # In a batch there is no order: of two deletes the one would tell what the other should. What has a condition may
    # not be repeated, and goes by itself: the others would lose their further tries.
    return Weighed(Weight(1, size), group=etag is None, name=address)


def _weigh_wanted(wanted: tuple[Address, bytes | None]) -> Weighed:
    address, sha256 = wanted
    size = _address_bytes(address) + len(sha256 or b"") + _ITEM_BYTES
    return Weighed(Weight(1, size), group=_family(address))


def _family(address: Address) -> Content | None:
    """Return what content addresses that are looked for in one request have in common; None for keys."""
    return replace(address, sha256=None) if isinstance(address, Content) else None


def _is_large(blob: NewBlob) -> bool:
    return len(blob.data) > MAX_BATCH_BYTES


def _weigh_new(blob: NewBlob) -> Weighed:
    # In a batch there is no order, so what replaces one of it goes into the next.
    name = blob.key_or_content if isinstance(blob.key_or_content, str) else None
    said = sum(len(key) + len(value.encode(errors="replace")) + 2 * _ITEM_BYTES for key, value in blob.metadata.items())
    said += len(blob.content_type) + len(blob.if_match_etag or "") + _address_bytes(blob.key_or_content) + _NEW_BYTES
    weight = Weight(1, len(blob.data) + said, len(blob.data))
    # What may not be repeated goes by itself: the others would lose their further tries.
    return Weighed(weight, group=id(blob) if _is_large(blob) else blob.may_repeat, name=name)


def _put_item(blob: NewBlob) -> pb.BatchPutBlobsItem:
    item = pb.BatchPutBlobsItem(
        **address_fields(blob.key_or_content),
        data=blob.data,
        crc32c=google_crc32c.value(blob.data),
        sha256=hashlib.sha256(blob.data).digest(),
        content_type=blob.content_type,
        metadata=blob.metadata,
    )
    if blob.create_only:
        item.create_only = True
    elif blob.if_match_etag is not None:
        item.if_match_etag = blob.if_match_etag
    return item


def _put_result(item: pb.BatchPutBlobsItem, result: pb.BatchPutBlobsResult) -> PutResult | HoldfastError:
    if result.status.code:
        return from_item_status(result.status)
    if result.blob.sha256 != item.sha256:
        return _damage(result.blob.key, "the server stored other bytes than those sent")
    return PutResult(blob_info(result.blob), result.created)


def _blob(address: pb.BlobAddress, result: pb.BatchGetBlobsResult) -> Blob | HoldfastError:
    if result.status.code:
        return from_item_status(result.status)
    data, info = result.data, result.blob
    try:
        check_content(address, info)
    except IntegrityFailed as error:
        return error
    if not result.HasField("crc32c") or google_crc32c.value(data) != result.crc32c or len(data) != info.size_bytes:
        return _damage(info.key, "the bytes that came are not those that were sent")
    if (found := hashlib.sha256(data).digest()) != info.sha256:
        return _damage(info.key, f"the bytes that came have sha256 {found.hex()}, not {info.sha256.hex()}")
    return Blob(blob_info(info), data)


def _asked(
    items: Sequence[T], ask: Callable[[Sequence[T]], Sequence[R | HoldfastError]]
) -> Sequence[R | HoldfastError]:
    """Return the answers; an item that no message can hold gets its own error, and the others are asked without it."""
    try:
        return ask(items)
    except InvalidArgument as error:
        if not isinstance(error.__cause__, ValueError):  # it was sent, and the server refuses it as a whole
            raise
        if len(items) == 1:
            return [error]
    middle = len(items) // 2
    return [*_asked(items[:middle], ask), *_asked(items[middle:], ask)]


def _paired(items: Sequence[T], results: Sequence[M]) -> Iterator[tuple[T, M]]:
    """Return items and results side by side. Raises `InternalError` unless there is one for each."""
    if len(items) != len(results):
        raise _nonsense(f"gave {len(results)} results for {len(items)} items")
    return zip(items, results, strict=True)


def _nonsense(what: str) -> InternalError:
    return InternalError("INTERNAL", f"the server {what}")


def _damage(key: str, what: str) -> IntegrityFailed:
    return IntegrityFailed("INTEGRITY_FAILED", f"key {key!r}: {what}", {"key": key})


def _attempted(do: Callable[[T], R], item: T) -> R | HoldfastError:
    try:
        return do(item)
    except HoldfastError as error:
        return error
