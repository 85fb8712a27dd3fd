"""BlobStore through the generated stubs alone: the messages as they are, and no help from the client library."""

from collections.abc import Iterator
from typing import Any

import grpc

from holdfast.v1 import blob_store_pb2 as pb
from holdfast.v1 import blob_store_pb2_grpc
from holdfast.v1.types_pb2 import DataChunk, UploadTrailer
from tests.support.samples import MIB

TIMEOUT_SECONDS = 60


def stub_of(channel: grpc.Channel) -> blob_store_pb2_grpc.BlobStoreStub:
    """Return the generated stub."""
    return blob_store_pb2_grpc.BlobStoreStub(channel)


def header(key: str, **fields: Any) -> pb.PutBlobRequest:
    """Return the first message of an upload."""
    return pb.PutBlobRequest(header=pb.PutBlobHeader(key=key, **fields))


def chunk(data: bytes) -> pb.PutBlobRequest:
    """Return a data message of an upload."""
    return pb.PutBlobRequest(chunk=DataChunk(data=data))


def trailer() -> pb.PutBlobRequest:
    """Return the last message of an upload, which says: that was all."""
    return pb.PutBlobRequest(trailer=UploadTrailer())


def upload(key: str, data: bytes, **fields: Any) -> Iterator[pb.PutBlobRequest]:
    """Yield the messages of a whole upload; `fields` are the header's."""
    yield header(key, **fields)
    for start in range(0, len(data), MIB):
        yield chunk(data[start : start + MIB])
    yield trailer()


def put(stub: Any, key: str, data: bytes, **fields: Any) -> pb.BlobInfo:
    """Store a blob. Raises `grpc.RpcError`."""
    blob: pb.BlobInfo = stub.PutBlob(upload(key, data, **fields), timeout=TIMEOUT_SECONDS).blob
    return blob


def get(stub: Any, key: str, **fields: Any) -> bytes:
    """Return a blob's bytes; `fields` are the request's. Raises `grpc.RpcError`."""
    answers = stub.GetBlob(pb.GetBlobRequest(key=key, **fields), timeout=TIMEOUT_SECONDS)
    return b"".join(answer.chunk.data for answer in answers)


def get_with_etag(stub: Any, key: str) -> tuple[bytes, str]:
    """Return a blob's bytes and the etag that they have. Raises `grpc.RpcError`."""
    info, *chunks = stub.GetBlob(pb.GetBlobRequest(key=key), timeout=TIMEOUT_SECONDS)
    return b"".join(answer.chunk.data for answer in chunks), info.info.etag


def stat(stub: Any, key: str) -> pb.BlobInfo:
    """Return what is known of a blob. Raises `grpc.RpcError`."""
    blob: pb.BlobInfo = stub.StatBlob(pb.StatBlobRequest(key=key), timeout=TIMEOUT_SECONDS).blob
    return blob


def delete(stub: Any, key: str) -> bool:
    """Delete a blob, and tell whether there was one. Raises `grpc.RpcError`."""
    return bool(stub.DeleteBlob(pb.DeleteBlobRequest(key=key), timeout=TIMEOUT_SECONDS).existed)


def entries(stub: Any, prefix: str = "") -> list[pb.BlobEntry]:
    """Return what all pages of a list show."""
    found: list[pb.BlobEntry] = []
    token = ""
    while True:
        request = pb.ListBlobsRequest(prefix=prefix, page_token=token)
        page = stub.ListBlobs(request, timeout=TIMEOUT_SECONDS)
        found += page.blobs
        token = page.next_page_token
        if not token:
            return found
