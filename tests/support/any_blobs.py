"""BlobStore as its contract sees it: the bare store, or a server behind the client, on any backend."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import holdfast
from holdfast import BlobEntry, Content
from holdfast_server.blobs.store import BlobStore
from holdfast_server.objects.base import ObjectStore
from holdfast_server.objects.filesystem import FilesystemStore
from holdfast_server.objects.memory import MemoryStore
from tests.support.direct_blobs import DirectBlobs
from tests.support.s3_servers import S3Server
from tests.support.s3_stores import OpenedStore, s3_environment
from tests.support.server_process import ServerProcess

Blobs = DirectBlobs | holdfast.Blobs


@contextmanager
def local_blobs(how: str, backend: str, directory: Path) -> Iterator[Blobs]:
    """Blobs on `memory` or `filesystem`, `direct` or over `grpc`."""
    if how == "direct":
        objects: ObjectStore = MemoryStore() if backend == "memory" else FilesystemStore(directory / "objects")
        yield DirectBlobs(BlobStore(objects))
        objects.close()
        return
    with (
        ServerProcess(None if backend == "memory" else directory / "data") as server,
        holdfast.connect(server.address) as client,
    ):
        yield client.blobs


@contextmanager
def blobs_on_s3(how: str, s3: S3Server) -> Iterator[Blobs]:
    """Blobs in a bucket of their own."""
    if how == "direct":
        with OpenedStore(s3) as opened:
            yield DirectBlobs(BlobStore(opened.store))
    else:
        with ServerProcess(env=s3_environment(s3)) as server, holdfast.connect(server.address) as client:
            yield client.blobs


def keys(blobs: Blobs, prefix: str = "") -> list[str]:
    return [item.key for item in blobs.list(prefix) if isinstance(item, BlobEntry)]


def read(blobs: Blobs, address: str | Content, **wanted: int | bool) -> bytes:
    with blobs.get(address, **wanted) as reader:  # type: ignore[arg-type]
        return reader.read()
