"""The ceiling: a bare `grpc.server` with generated stubs that does nothing with what it gets, in its own process.

It has our allocator settings and our channel options, and none of our code on the way of a call. What it measures is
gRPC, protobuf and this machine. Run as `python -m benchmarks.ceiling` it serves until its standard input ends.
"""

import hashlib
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from benchmarks.options import MIB
from benchmarks.traffic import canned_chunk, canned_data
from holdfast.v1 import blob_store_pb2 as pb
from holdfast.v1 import blob_store_pb2_grpc
from holdfast_server import config
from holdfast_server.rpc.allocator import AllocatorOptions, tune
from holdfast_server.rpc.server import ServerOptions, channel_options

SINK = "sink"
HASHING_SINK = "hashing-sink"
"""Keys: what the ceiling does with an upload depends on the one in its header."""

CANNED_BYTES_SERVICE = "holdfast.benchmarks.CannedBytes"
"""A service with a `GetBlob` whose messages are bytes already: gRPC alone, without protobuf on the server's side."""

_THREADS = 256


class _Ceiling(blob_store_pb2_grpc.BlobStoreServicer):
    def __init__(self) -> None:
        self._info = pb.GetBlobResponse(info=pb.BlobInfo())
        self._message = pb.GetBlobResponse(chunk=canned_chunk(canned_data()))
        self._info_bytes = self._info.SerializeToString()
        self._message_bytes = self._message.SerializeToString()

    def PutBlob(  # noqa: N802 (the name is the proto's)
        self, request_iterator: Iterator[pb.PutBlobRequest], _context: grpc.ServicerContext
    ) -> pb.PutBlobResponse:
        header = next(request_iterator).header
        trailer = _hash(request_iterator) if header.key == HASHING_SINK else _swallow(request_iterator)
        return pb.PutBlobResponse(blob=pb.BlobInfo(size_bytes=trailer.trailer.size_bytes))

    def GetBlob(  # noqa: N802
        self, request: pb.GetBlobRequest, _context: grpc.ServicerContext
    ) -> Iterator[pb.GetBlobResponse]:
        yield self._info
        for _ in range(request.length // MIB):
            yield self._message

    def canned_bytes(self, request: pb.GetBlobRequest, _context: grpc.ServicerContext) -> Iterator[bytes]:
        yield self._info_bytes
        for _ in range(request.length // MIB):
            yield self._message_bytes

    def StatBlob(  # noqa: N802
        self, request: pb.StatBlobRequest, _context: grpc.ServicerContext
    ) -> pb.StatBlobResponse:
        del request
        return pb.StatBlobResponse()

    def _not_measured(self, request: Any, context: grpc.ServicerContext) -> Any:
        raise RuntimeError(f"nobody measures {type(request).__name__}, which {context.peer()} sent")

    DeleteBlob = ListBlobs = CopyBlob = _not_measured
    FindMissingBlobs = BatchGetBlobs = BatchPutBlobs = BatchDeleteBlobs = _not_measured


def _swallow(requests: Iterator[pb.PutBlobRequest]) -> pb.PutBlobRequest:
    request = pb.PutBlobRequest()
    for request in requests:  # noqa: B007 (the last one is the trailer)
        pass
    return request


def _hash(requests: Iterator[pb.PutBlobRequest]) -> pb.PutBlobRequest:
    request = pb.PutBlobRequest()
    digest = hashlib.sha256()
    for request in requests:
        digest.update(request.chunk.data)
    digest.digest()
    return request


def bare_server() -> grpc.Server:
    """Return a server without methods."""
    settings = config.load({})
    allocator = settings.allocator
    if allocator.tune:
        tune(AllocatorOptions(allocator.mmap_threshold, allocator.trim_threshold, allocator.top_pad, allocator.arenas))
    options = ServerOptions(window_bytes=settings.rpc.window_bytes)
    return grpc.server(ThreadPoolExecutor(_THREADS), options=tuple(channel_options(options).items()))


def serve(server: grpc.Server) -> None:
    """Serve on a free port, which standard error names, until standard input ends."""
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"Server ready grpc=127.0.0.1:{port} http=", file=sys.stderr, flush=True)
    sys.stdin.read()
    server.stop(grace=None).wait()


def _main() -> None:
    server = bare_server()
    ceiling = _Ceiling()
    blob_store_pb2_grpc.add_BlobStoreServicer_to_server(ceiling, server)
    canned_bytes: grpc.RpcMethodHandler[pb.GetBlobRequest, bytes] = grpc.unary_stream_rpc_method_handler(
        ceiling.canned_bytes, request_deserializer=pb.GetBlobRequest.FromString
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(CANNED_BYTES_SERVICE, {"GetBlob": canned_bytes}),)
    )
    serve(server)


if __name__ == "__main__":
    _main()
