"""BlobStore as messages in and out, which can be restarted: a service on a bare store, or a server's process."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import grpc

from holdfast.v1 import blob_store_pb2 as pb
from holdfast.v1 import blob_store_pb2_grpc
from holdfast_server.blobs.batches import Batches
from holdfast_server.blobs.service import BlobStoreService
from holdfast_server.blobs.store import BlobStore
from holdfast_server.errors import HoldfastError
from holdfast_server.objects.base import ObjectStore
from holdfast_server.objects.filesystem import FilesystemStore
from holdfast_server.objects.memory import MemoryStore
from holdfast_server.workers import Workers
from tests.support.blob_model.dictionary import Refused
from tests.support.s3_servers import S3Server
from tests.support.s3_stores import OpenedStore, fresh_bucket, s3_environment
from tests.support.server_process import ServerProcess
from tests.support.statuses import refusal_of

_TIMEOUT_SECONDS = 60


class RestartableBlobs(ABC):
    """Every RPC by its name; what is refused is a `Refused`. A context manager."""

    @abstractmethod
    def restart(self, *, kill: bool) -> None:
        """End what serves, by force where there is a process to `kill`, and start it again on what is left."""

    @abstractmethod
    def call(self, rpc: str, request: object) -> Any:
        """Return the answer to one message, or to an iterator of them where the RPC takes a stream."""

    @abstractmethod
    def get(self, request: pb.GetBlobRequest) -> list[pb.GetBlobResponse] | Refused:
        """Return all messages of a download."""

    @abstractmethod
    def close(self) -> None:
        """End what serves."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class OpenedBlobs(RestartableBlobs):
    """The service in this process. `open_store` opens the store, again and again, and says how to close it."""

    def __init__(self, open_store: Callable[[], tuple[ObjectStore, Callable[[], None]]]) -> None:
        self._open_store = open_store
        self._open()

    def _open(self) -> None:
        store, self._close_store = self._open_store()
        blobs = BlobStore(store)
        self._workers = Workers()
        self._service = BlobStoreService(blobs, Batches(blobs, self._workers))

    def restart(self, *, kill: bool) -> None:
        self.close()
        self._open()

    def call(self, rpc: str, request: object) -> Any:
        try:
            answer = getattr(self._service, rpc)(request, None)
        except HoldfastError as error:
            return Refused(error.reason, error.details, error.message)
        return _answer_of(rpc).FromString(answer) if isinstance(answer, bytes) else answer

    def get(self, request: pb.GetBlobRequest) -> list[pb.GetBlobResponse] | Refused:
        context: Any = None
        try:
            return list(_unframed(self._service.GetBlob(request, context)))
        except HoldfastError as error:
            return Refused(error.reason, error.details, error.message)

    def close(self) -> None:
        self._workers.close()
        self._close_store()


def _answer_of(rpc: str) -> Any:
    """Return the type of an RPC's answer."""
    return getattr(pb, pb.DESCRIPTOR.services_by_name["BlobStore"].methods_by_name[rpc].output_type.name)


def _unframed(answers: Iterator[Any]) -> Iterator[pb.GetBlobResponse]:
    for answer in answers:
        yield pb.GetBlobResponse.FromString(answer) if isinstance(answer, bytes) else answer


class ServedBlobs(RestartableBlobs):
    """A server's process. `start` starts it, again and again."""

    def __init__(self, start: Callable[[], ServerProcess]) -> None:
        self._start = start
        self._open()

    def _open(self) -> None:
        self._server = self._start()
        self._channel = grpc.insecure_channel(self._server.address)
        self._stub = blob_store_pb2_grpc.BlobStoreStub(self._channel)

    def restart(self, *, kill: bool) -> None:
        self._channel.close()
        if kill:
            self._server.kill()
        else:
            assert self._server.stop() == 0
        self._open()

    def call(self, rpc: str, request: object) -> Any:
        try:
            return getattr(self._stub, rpc)(request, timeout=_TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            return _refused(error)

    def get(self, request: pb.GetBlobRequest) -> list[pb.GetBlobResponse] | Refused:
        try:
            return list(self._stub.GetBlob(request, timeout=_TIMEOUT_SECONDS))
        except grpc.RpcError as error:
            return _refused(error)

    def close(self) -> None:
        self._channel.close()
        self._server.stop()


def _refused(error: grpc.RpcError) -> Refused:
    refusal = refusal_of(error)
    return Refused(refusal.reason or refusal.code, refusal.names, refusal.message)


def restartable(variant: str, directory: Path, s3: S3Server | None) -> RestartableBlobs:
    """Return an empty store: `opened` or `served`, and on `memory`, on `filesystem`, or in a bucket of `s3`."""
    how, backend = variant.split()
    bucket = fresh_bucket()
    if how == "served":
        data = directory / "data" if backend == "filesystem" else None
        environment = {} if s3 is None else s3_environment(s3, bucket)
        return ServedBlobs(lambda: ServerProcess(data, env=environment))

    def open_store() -> tuple[ObjectStore, Callable[[], None]]:
        if s3 is not None:
            opened = OpenedStore(s3, bucket=bucket)
            return opened.store, opened.close
        store: ObjectStore = MemoryStore() if backend == "memory" else FilesystemStore(directory / "objects")
        return store, store.close

    return OpenedBlobs(open_store)
