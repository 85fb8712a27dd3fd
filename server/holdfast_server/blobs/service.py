"""BlobStore on the wire: requests in, store calls, responses out."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from holdfast.v1 import blob_store_pb2 as pb
from holdfast.v1 import blob_store_pb2_grpc
from holdfast.v1.types_pb2 import ByteRange as ByteRangeMessage
from holdfast_server.blobs.address import Address, BlobKey, ContentAddress, Layout
from holdfast_server.blobs.store import BlobQuery, BlobStore
from holdfast_server.errors import InvalidArgument, Reason
from holdfast_server.objects.base import OVERWRITE, Entry
from holdfast_server.objects.conditions import Condition, CreateOnly, IfMatch
from holdfast_server.objects.info import Attributes, ObjectInfo
from holdfast_server.objects.ranges import ByteRange, Extent, Range, Suffix
from holdfast_server.rpc.framing import frame_chunk
from holdfast_server.rpc.uploads import Upload, declared

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["BlobStore"].full_name

_NANOSECONDS = 1000
"""Of a microsecond."""

_LAYOUTS = {
    pb.CONTENT_LAYOUT_UNSPECIFIED: Layout.HEX,
    pb.CONTENT_LAYOUT_HEX: Layout.HEX,
    pb.CONTENT_LAYOUT_BASE32_MULTIHASH: Layout.BASE32_MULTIHASH,
    pb.CONTENT_LAYOUT_FLATFS: Layout.FLATFS,
}


class BlobStoreService(blob_store_pb2_grpc.BlobStoreServicer):
    """The servicer of `holdfast.v1.BlobStore`."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store

    def PutBlob(  # noqa: N802 (the name is the proto's)
        self, request_iterator: Iterator[pb.PutBlobRequest], _context: grpc.ServicerContext
    ) -> pb.PutBlobResponse:
        """See `blob_store.proto`."""
        upload: Upload[pb.PutBlobHeader] = Upload(request_iterator)
        header = upload.header
        put = self._store.put(
            _address(header),
            upload.parts(),
            declared=declared(header),
            condition=_put_condition(header),
            attributes=Attributes(header.content_type, dict(header.metadata)),
        )
        return pb.PutBlobResponse(blob=_info(put.blob), created=put.created)

    def GetBlob(  # noqa: N802
        self, request: pb.GetBlobRequest, _context: grpc.ServicerContext
    ) -> Iterator[Any]:
        """See `blob_store.proto`. Yields the info as a message, and chunks framed."""
        with self._store.get(_address(request), _range(request), condition=_if_match(request)) as blob:
            yield pb.GetBlobResponse(info=_info(blob.info, blob.extent))
            for chunk in blob:
                yield frame_chunk(chunk)

    def StatBlob(  # noqa: N802
        self, request: pb.StatBlobRequest, _context: grpc.ServicerContext
    ) -> pb.StatBlobResponse:
        """See `blob_store.proto`."""
        return pb.StatBlobResponse(blob=_info(self._store.stat(_address(request))))

    def DeleteBlob(  # noqa: N802
        self, request: pb.DeleteBlobRequest, _context: grpc.ServicerContext
    ) -> pb.DeleteBlobResponse:
        """See `blob_store.proto`."""
        existed = self._store.delete(_address(request), condition=_if_match(request))
        return pb.DeleteBlobResponse(existed=existed)

    def ListBlobs(  # noqa: N802
        self, request: pb.ListBlobsRequest, _context: grpc.ServicerContext
    ) -> pb.ListBlobsResponse:
        """See `blob_store.proto`."""
        page = self._store.list(
            BlobQuery(
                prefix=request.prefix,
                delimiter=request.delimiter,
                start_after=request.start_after,
                page_size=request.page_size,
                page_token=request.page_token,
            )
        )
        return pb.ListBlobsResponse(
            blobs=[_entry(entry) for entry in page.entries],
            common_prefixes=page.common_prefixes,
            next_page_token=page.next_page_token,
        )


_Addressed = pb.PutBlobHeader | pb.GetBlobRequest | pb.StatBlobRequest | pb.DeleteBlobRequest


def _address(message: _Addressed) -> Address:
    named = message.WhichOneof("address")
    if named == "key":
        return BlobKey(message.key)
    if named == "content":
        content = message.content
        if (layout := _LAYOUTS.get(content.layout)) is None:
            rule = f"content.layout {content.layout} is not one that this server knows"
            raise InvalidArgument(Reason.INVALID_ADDRESS, "content.layout", rule)
        return ContentAddress(content.prefix, content.suffix, layout, content.sha256 or None)
    raise InvalidArgument(
        Reason.INVALID_ADDRESS, "address", "neither key nor content is set: the request names no blob"
    )


def _put_condition(header: pb.PutBlobHeader) -> Condition:
    given = header.WhichOneof("precondition")
    if given == "if_match_etag":
        return IfMatch(header.if_match_etag)
    return CreateOnly() if header.create_only else OVERWRITE


def _if_match(request: pb.GetBlobRequest | pb.DeleteBlobRequest) -> Condition:
    return IfMatch(request.if_match_etag) if request.HasField("if_match_etag") else OVERWRITE


def _range(request: pb.GetBlobRequest) -> Range:
    length = request.length if request.HasField("length") else None
    if not request.HasField("suffix_length"):
        return ByteRange(request.offset, length, request.exact)
    if request.offset or length is not None:
        rule = "suffix_length excludes offset and length"
        raise InvalidArgument(Reason.INVALID_RANGE, "suffix_length", rule)
    return Suffix(request.suffix_length, request.exact)


def _info(info: ObjectInfo, extent: Extent | None = None) -> pb.BlobInfo:
    return pb.BlobInfo(
        key=info.key.text,
        size_bytes=info.size_bytes,
        etag=info.etag,
        sha256=info.sha256,
        content_type=info.attributes.content_type,
        metadata=info.attributes.metadata,
        update_time=_timestamp(info.update_time),
        range=None if extent is None else ByteRangeMessage(offset=extent.offset, length=extent.length),
    )


def _entry(entry: Entry) -> pb.BlobEntry:
    if entry.record is None:
        return pb.BlobEntry(key=entry.name, damaged=True)
    record = entry.record
    return pb.BlobEntry(
        key=entry.name, size_bytes=record.size_bytes, etag=record.etag, update_time=_timestamp(record.update_time)
    )


def _timestamp(moment: datetime) -> Timestamp:
    return Timestamp(seconds=int(moment.timestamp()), nanos=moment.microsecond * _NANOSECONDS)
