"""The ceiling of GetBlob from S3: reads with `minio` and sends with gRPC, and never looks at a byte.

What it measures is what any server of ours in between has to cost. Run as `python -m benchmarks.s3.relay`; the fields
of `Direct` are its variables.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields

import grpc

from benchmarks.ceiling import bare_server, serve
from benchmarks.s3.direct import Direct
from holdfast.v1 import blob_store_pb2 as pb
from holdfast_server.blobs.service import SERVICE_NAME
from holdfast_server.objects.body import Chunk
from holdfast_server.rpc.framing import frame_chunk

_PREFIX = "RELAY_"
_SOME_CRC = 1


def settings(direct: Direct) -> Mapping[str, str]:
    """Return the variables that the relay of a bucket is started with."""
    return {_PREFIX + name.upper(): value for name, value in asdict(direct).items()}


def _main() -> None:
    direct = Direct(**{field.name: os.environ[_PREFIX + field.name.upper()] for field in fields(Direct)})

    def get_blob(request: pb.GetBlobRequest, _context: grpc.ServicerContext) -> Iterator[bytes]:
        yield pb.GetBlobResponse(info=pb.BlobInfo()).SerializeToString()
        for data in direct.pieces(request.key):
            yield frame_chunk(Chunk(data, _SOME_CRC))

    handler: grpc.RpcMethodHandler[pb.GetBlobRequest, bytes] = grpc.unary_stream_rpc_method_handler(
        get_blob, request_deserializer=pb.GetBlobRequest.FromString
    )
    server = bare_server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE_NAME, {"GetBlob": handler}),))
    serve(server)


if __name__ == "__main__":
    _main()
