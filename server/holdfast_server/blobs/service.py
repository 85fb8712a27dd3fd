"""BlobStore on the wire: requests in, store calls, responses out."""

from collections.abc import Iterator
from typing import Any

import grpc

from holdfast.v1 import blob_store_pb2 as pb
from holdfast.v1 import blob_store_pb2_grpc
from holdfast_server.blobs import messages
from holdfast_server.blobs.batches import Batches
from holdfast_server.blobs.lists import BlobQuery
from holdfast_server.blobs.store import BlobStore
from holdfast_server.rpc.framing import frame_chunk
from holdfast_server.rpc.uploads import Upload, declared

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["BlobStore"].full_name


class BlobStoreService(blob_store_pb2_grpc.BlobStoreServicer):
    """The servicer of `holdfast.v1.BlobStore`."""

    def __init__(self, store: BlobStore, batches: Batches) -> None:
        self._store = store
        self._batches = batches

    def PutBlob(  # noqa: N802 (the name is the proto's)
        self, request_iterator: Iterator[pb.PutBlobRequest], _context: grpc.ServicerContext
    ) -> pb.PutBlobResponse:
        """See `blob_store.proto`."""
        upload: Upload[pb.PutBlobHeader] = Upload(request_iterator)
        header = upload.header
        put = self._store.put(
            messages.address(header),
            upload.parts(),
            declared=declared(header),
            condition=messages.put_condition(header),
            attributes=messages.attributes(header),
        )
        return pb.PutBlobResponse(blob=messages.info(put.blob), created=put.created)

    def GetBlob(  # noqa: N802
        self, request: pb.GetBlobRequest, _context: grpc.ServicerContext
    ) -> Iterator[Any]:
        """See `blob_store.proto`. Yields the info as a message, and chunks framed."""
        address, wanted = messages.address(request), messages.byte_range(request)
        with self._store.get(address, wanted, condition=messages.if_match(request)) as blob:
            yield pb.GetBlobResponse(info=messages.info(blob.info, blob.extent))
            for chunk in blob:
                yield frame_chunk(chunk)

    def StatBlob(  # noqa: N802
        self, request: pb.StatBlobRequest, _context: grpc.ServicerContext
    ) -> pb.StatBlobResponse:
        """See `blob_store.proto`."""
        return pb.StatBlobResponse(blob=messages.info(self._store.stat(messages.address(request))))

    def DeleteBlob(  # noqa: N802
        self, request: pb.DeleteBlobRequest, _context: grpc.ServicerContext
    ) -> pb.DeleteBlobResponse:
        """See `blob_store.proto`."""
        existed = self._store.delete(messages.address(request), condition=messages.if_match(request))
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
            blobs=[messages.entry(entry) for entry in page.entries],
            common_prefixes=page.common_prefixes,
            next_page_token=page.next_page_token,
        )

    def CopyBlob(  # noqa: N802
        self, request: pb.CopyBlobRequest, _context: grpc.ServicerContext
    ) -> pb.CopyBlobResponse:
        """See `blob_store.proto`."""
        source, source_condition = messages.source(request)
        copy = self._store.copy(
            source,
            messages.target(request),
            condition=messages.put_condition(request),
            source_condition=source_condition,
            attributes=messages.new_attributes(request),
        )
        return pb.CopyBlobResponse(blob=messages.info(copy.blob), created=copy.created)

    def FindMissingBlobs(  # noqa: N802
        self, request: pb.FindMissingBlobsRequest, _context: grpc.ServicerContext
    ) -> pb.FindMissingBlobsResponse:
        """See `blob_store.proto`."""
        return messages.missing(self._batches.find_missing(messages.wanted(request)))

    def BatchGetBlobs(  # noqa: N802
        self, request: pb.BatchGetBlobsRequest, _context: grpc.ServicerContext
    ) -> Any:
        """See `blob_store.proto`. Returns the response framed."""
        return messages.got(self._batches.get(messages.get_items(request)))

    def BatchPutBlobs(  # noqa: N802
        self, request: pb.BatchPutBlobsRequest, _context: grpc.ServicerContext
    ) -> pb.BatchPutBlobsResponse:
        """See `blob_store.proto`."""
        return messages.put(self._batches.put(messages.put_items(request)))

    def BatchDeleteBlobs(  # noqa: N802
        self, request: pb.BatchDeleteBlobsRequest, _context: grpc.ServicerContext
    ) -> pb.BatchDeleteBlobsResponse:
        """See `blob_store.proto`."""
        return messages.deleted(self._batches.delete(messages.delete_items(request)))
