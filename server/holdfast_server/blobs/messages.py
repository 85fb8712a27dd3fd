"""What BlobStore's messages mean: requests read into values of the domain, results written into messages."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Protocol

from google.protobuf.message import Message

from holdfast.v1 import blob_store_pb2 as pb
from holdfast.v1.types_pb2 import ByteRange as ByteRangeMessage
from holdfast.v1.types_pb2 import ItemStatus
from holdfast_server.blobs.address import Address, BlobKey, ContentAddress, Layout
from holdfast_server.blobs.batches import MAX_BATCH_ITEMS, MAX_FIND_ITEMS, DeleteItem, GetItem, Got, PutItem, Wanted
from holdfast_server.blobs.store import Put
from holdfast_server.errors import HoldfastError, InvalidArgument, Reason
from holdfast_server.objects.base import OVERWRITE, Entry
from holdfast_server.objects.body import SHA256_BYTES
from holdfast_server.objects.conditions import Condition, CreateOnly, IfMatch
from holdfast_server.objects.info import Attributes, ObjectInfo
from holdfast_server.objects.ranges import ByteRange, Extent, Range, Suffix
from holdfast_server.rpc.batches import MAX_ANSWER_BYTES, Statuses, check_count, each
from holdfast_server.rpc.framing import frame_other_result, frame_result
from holdfast_server.rpc.timestamps import timestamp
from holdfast_server.rpc.uploads import summed

MAX_FIND_BYTES = 2 << 20

MAX_PUT_BYTES = 15 << 17
"""1.875 MiB: the answer repeats what is said of each blob, adds less than 128 bytes to it, and stays below 2 MiB."""

_LAYOUTS = {
    pb.CONTENT_LAYOUT_UNSPECIFIED: Layout.HEX,
    pb.CONTENT_LAYOUT_HEX: Layout.HEX,
    pb.CONTENT_LAYOUT_BASE32_MULTIHASH: Layout.BASE32_MULTIHASH,
    pb.CONTENT_LAYOUT_FLATFS: Layout.FLATFS,
}

_Addressed = (
    pb.PutBlobHeader
    | pb.GetBlobRequest
    | pb.StatBlobRequest
    | pb.DeleteBlobRequest
    | pb.BlobAddress
    | pb.BatchPutBlobsItem
    | pb.BatchDeleteBlobsItem
)


def address(message: _Addressed) -> Address:
    """Read which blob is meant. Raises `InvalidArgument` (INVALID_ADDRESS, INVALID_KEY, INVALID_DIGEST)."""
    named = message.WhichOneof("address")
    if named == "key":
        return BlobKey(message.key)
    if named == "content":
        return _content(message.content)
    raise InvalidArgument(
        Reason.INVALID_ADDRESS, "address", "neither key nor content is set: the request names no blob"
    )


def _content(content: pb.ContentAddress, sha256: bytes | None = None) -> ContentAddress:
    if (layout := _LAYOUTS.get(content.layout)) is None:
        rule = f"content.layout {content.layout} is not one that this server knows"
        raise InvalidArgument(Reason.INVALID_ADDRESS, "content.layout", rule)
    return ContentAddress(content.prefix, content.suffix, layout, sha256 or content.sha256 or None)


def put_condition(message: pb.PutBlobHeader | pb.BatchPutBlobsItem | pb.CopyBlobRequest) -> Condition:
    """Read when to refuse a write. Raises `InvalidArgument` (INVALID_CONDITION)."""
    given = message.WhichOneof("precondition")
    if given == "if_match_etag":
        return IfMatch(message.if_match_etag)
    return CreateOnly() if message.create_only else OVERWRITE


def if_match(message: pb.GetBlobRequest | pb.DeleteBlobRequest | pb.BatchDeleteBlobsItem) -> Condition:
    """Read which etag a blob must have. Raises `InvalidArgument` (INVALID_CONDITION)."""
    return IfMatch(message.if_match_etag) if message.HasField("if_match_etag") else OVERWRITE


def attributes(message: pb.PutBlobHeader | pb.BatchPutBlobsItem | pb.BlobAttributes) -> Attributes:
    """Read what a writer says of a blob. Raises `InvalidArgument` (INVALID_CONTENT_TYPE, INVALID_METADATA)."""
    return Attributes(message.content_type, dict(message.metadata))


def byte_range(request: pb.GetBlobRequest) -> Range:
    """Read which bytes are wanted. Raises `InvalidArgument` (INVALID_RANGE)."""
    length = request.length if request.HasField("length") else None
    if not request.HasField("suffix_length"):
        return ByteRange(request.offset, length, request.exact)
    if request.offset or length is not None:
        rule = "suffix_length excludes offset and length"
        raise InvalidArgument(Reason.INVALID_RANGE, "suffix_length", rule)
    return Suffix(request.suffix_length, request.exact)


def source(request: pb.CopyBlobRequest) -> tuple[Address, Condition]:
    """Read which blob to copy, and which etag it must have. Raises `InvalidArgument`."""
    with _within("source."):
        found = address(request.source)
    with _within("source_"):
        given = request.HasField("source_if_match_etag")
        return found, IfMatch(request.source_if_match_etag) if given else OVERWRITE


def target(request: pb.CopyBlobRequest) -> Address:
    """Read where a copy goes. Raises `InvalidArgument`."""
    with _within("target."):
        return address(request.target)


def new_attributes(request: pb.CopyBlobRequest) -> Attributes | None:
    """Read what a copy's attributes shall be; None: those of the source. Raises `InvalidArgument`."""
    with _within("attributes."):
        return attributes(request.attributes) if request.HasField("attributes") else None


@contextmanager
def _within(field: str) -> Iterator[None]:
    """Name the field that holds the one that an error within the block names."""
    try:
        yield
    except InvalidArgument as error:
        raise InvalidArgument(error.reason, field + error.field, error.message, **error.details) from None


def wanted(request: pb.FindMissingBlobsRequest) -> list[Wanted | HoldfastError]:
    """Read which blobs to look for. Raises `InvalidArgument` (TOO_LARGE, INVALID_*)."""
    keys, digests = request.keys, request.sha256
    check_count(keys, MAX_FIND_ITEMS, "keys")
    check_count(digests, MAX_FIND_ITEMS, "sha256")
    _check_size(request, MAX_FIND_BYTES, "keys" if keys else "sha256")
    if keys:
        if request.HasField("content"):
            rule = "keys and content exclude each other"
            raise InvalidArgument(Reason.INVALID_ADDRESS, "content", rule)
        if not digests:
            return each(_wanted_key, keys)
        if len(digests) != len(keys):
            rule = f"{len(keys)} keys and {len(digests)} digests are given: there must be none, or one for each key"
            raise InvalidArgument(Reason.INVALID_DIGEST, "sha256", rule)
        return each(_wanted_both, zip(keys, digests, strict=True))
    if request.content.sha256:
        rule = "the digests to look for stand in sha256"
        raise InvalidArgument(Reason.INVALID_DIGEST, "content.sha256", rule)
    _content(request.content)  # what is wrong with it is not the fault of each digest
    return each(lambda sha256: Wanted(_content(request.content, _digest(sha256))), digests)


def _wanted_key(key: str) -> Wanted:
    return Wanted(BlobKey(key))


def _wanted_both(both: tuple[str, bytes]) -> Wanted:
    key, sha256 = both
    return Wanted(BlobKey(key), _digest(sha256) if sha256 else None)


def _digest(sha256: bytes) -> bytes:
    if len(sha256) != SHA256_BYTES:
        message = f"a sha256 has {len(sha256)} bytes, not {SHA256_BYTES}"
        raise InvalidArgument(Reason.INVALID_DIGEST, "sha256", message)
    return sha256


def put_items(request: pb.BatchPutBlobsRequest) -> list[PutItem | HoldfastError]:
    """Read which blobs to store. Raises `InvalidArgument` (TOO_LARGE)."""
    check_count(request.items, MAX_BATCH_ITEMS)
    _check_size(request, MAX_PUT_BYTES, "items")
    return each(_put_item, request.items)


def _put_item(item: pb.BatchPutBlobsItem) -> PutItem:
    return PutItem(
        address(item),
        summed(item.data, item.crc32c if item.HasField("crc32c") else None, "crc32c"),
        _digest(item.sha256) if item.sha256 else None,
        put_condition(item),
        attributes(item),
    )


def get_items(request: pb.BatchGetBlobsRequest) -> list[GetItem | HoldfastError]:
    """Read which blobs to get. Raises `InvalidArgument` (TOO_LARGE)."""
    check_count(request.items, MAX_BATCH_ITEMS)
    return each(lambda item: GetItem(address(item)), request.items)


def delete_items(request: pb.BatchDeleteBlobsRequest) -> list[DeleteItem | HoldfastError]:
    """Read which blobs to delete. Raises `InvalidArgument` (TOO_LARGE)."""
    check_count(request.items, MAX_BATCH_ITEMS)
    return each(lambda item: DeleteItem(address(item), if_match(item)), request.items)


def _check_size(request: Message, most: int, field: str) -> None:
    if (size := request.ByteSize()) > most:
        message = f"the request has {size} bytes, and {most} are the most"
        raise InvalidArgument(Reason.TOO_LARGE, field, message)


def info(found: ObjectInfo, extent: Extent | None = None) -> pb.BlobInfo:
    """Write what is known of a blob, and which of its bytes follow."""
    return pb.BlobInfo(
        key=found.key.text,
        size_bytes=found.size_bytes,
        etag=found.etag,
        sha256=found.sha256,
        content_type=found.attributes.content_type,
        metadata=found.attributes.metadata,
        update_time=timestamp(found.update_time),
        range=None if extent is None else ByteRangeMessage(offset=extent.offset, length=extent.length),
    )


def entry(listed: Entry) -> pb.BlobEntry:
    """Write what a list shows of a blob."""
    if listed.record is None:
        return pb.BlobEntry(key=listed.name, damaged=True)
    record = listed.record
    return pb.BlobEntry(
        key=listed.name, size_bytes=record.size_bytes, etag=record.etag, update_time=timestamp(record.update_time)
    )


def missing(results: Sequence[bool | HoldfastError]) -> pb.FindMissingBlobsResponse:
    """Write what is missing, and what failed."""
    response = pb.FindMissingBlobsResponse(
        missing=[position for position, result in enumerate(results) if result is True]
    )
    statuses = Statuses(MAX_ANSWER_BYTES - response.ByteSize())
    response.failures.extend(
        pb.FailedItem(position=position, status=statuses.of(result))
        for position, result in enumerate(results)
        if isinstance(result, HoldfastError)
    )
    return response


def got(results: Sequence[Got | HoldfastError]) -> bytes:
    """Write the blobs of a batch, as a serialized `BatchGetBlobsResponse`."""
    framed = [
        frame_result(info(result.blob), result.data, result.crc32c) if isinstance(result, Got) else ()
        for result in results
    ]
    if not all(framed):
        statuses = Statuses(MAX_ANSWER_BYTES - sum(len(part) for parts in framed for part in parts))
        for position, result in enumerate(results):
            if isinstance(result, HoldfastError):
                framed[position] = frame_other_result(pb.BatchGetBlobsResult(status=statuses.of(result)))
    return b"".join(chain.from_iterable(framed))


def put(results: Sequence[Put | HoldfastError]) -> pb.BatchPutBlobsResponse:
    """Write what became of the blobs to be stored."""
    response = pb.BatchPutBlobsResponse(
        results=[
            pb.BatchPutBlobsResult(blob=_put_info(result), created=result.created)
            if isinstance(result, Put)
            else pb.BatchPutBlobsResult()
            for result in results
        ]
    )
    _add_statuses(response.ByteSize(), response.results, results)
    return response


def _put_info(result: Put) -> pb.BlobInfo:
    said = info(result.blob)
    if not result.created:
        # Somebody else's, of any size, while the rest is no longer than what was sent.
        said.ClearField("content_type")
        said.ClearField("metadata")
    return said


def deleted(results: Sequence[bool | HoldfastError]) -> pb.BatchDeleteBlobsResponse:
    """Write what became of the blobs to be deleted."""
    response = pb.BatchDeleteBlobsResponse(
        results=[pb.BatchDeleteBlobsResult(existed=result is True) for result in results]
    )
    _add_statuses(response.ByteSize(), response.results, results)
    return response


class _Result(Protocol):
    @property
    def status(self) -> ItemStatus: ...


def _add_statuses(answer_bytes: int, messages: Iterable[_Result], results: Sequence[object]) -> None:
    """Write the statuses of the items that failed, last: their texts get the room that the others left."""
    statuses = Statuses(MAX_ANSWER_BYTES - answer_bytes)
    for message, result in zip(messages, results, strict=True):
        if isinstance(result, HoldfastError):
            message.status.CopyFrom(statuses.of(result))
