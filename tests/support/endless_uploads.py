"""A client that begins uploads and never finishes one: to be run as a process, and killed.

    endless_uploads.py ADDRESS PREFIX UPLOADS

Each upload `<PREFIX><number>` sends some chunks, prints its number, and then hangs: the odd ones once they have sent
2 MiB, so that no other one finds the server full, however long all of this takes. Every second pair declares a size.
"""

import os
import sys
import threading
from collections.abc import Iterator

import grpc

from holdfast.v1 import blob_store_pb2 as pb
from holdfast.v1 import blob_store_pb2_grpc
from holdfast.v1.types_pb2 import DataChunk

_CHUNK_BYTES = 10_000
_MOST_CHUNKS = 7
_CHUNKS_MORE = (2 << 20) // _CHUNK_BYTES
_DECLARED_BYTES = 1 << 40
_for_ever = threading.Event()


def _requests(key: str, number: int) -> Iterator[pb.PutBlobRequest]:
    declared = _DECLARED_BYTES if number % 4 < 2 else None
    yield pb.PutBlobRequest(header=pb.PutBlobHeader(key=key, size_bytes=declared))
    chunk = pb.PutBlobRequest(chunk=DataChunk(data=b"x" * _CHUNK_BYTES))
    for _ in range(number % _MOST_CHUNKS):
        yield chunk
    os.write(1, f"{number}\n".encode())  # in one piece, whatever the other threads say
    for _ in range(_CHUNKS_MORE * (number % 2)):
        yield chunk
    _for_ever.wait()


def main(address: str, prefix: str, uploads: str) -> None:
    """Begin the uploads, and wait to be killed."""
    with grpc.insecure_channel(address) as channel:
        stub = blob_store_pb2_grpc.BlobStoreStub(channel)
        calls = [stub.PutBlob.future(_requests(f"{prefix}{number}", number)) for number in range(int(uploads))]
        for call in calls:
            call.exception()


if __name__ == "__main__":
    main(*sys.argv[1:])
