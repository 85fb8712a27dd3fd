"""CheckpointStore as its contract sees it: every RPC by its name, called in this process or over gRPC, on any backend.

Messages go in and come out as they are. Over gRPC the server is in this process too, with all that is around a call:
so each variant has the same back doors to the objects below, the keys, and the clocks.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from prometheus_client import CollectorRegistry

from holdfast.v1 import checkpoint_store_pb2 as pb
from holdfast.v1 import checkpoint_store_pb2_grpc
from holdfast.v1.types_pb2 import DataChunk, UploadTrailer
from holdfast_server import calls
from holdfast_server.checkpoints.key_ring import KeyRing, KeyState, SealKey
from holdfast_server.checkpoints.opening import WaitingRoom
from holdfast_server.checkpoints.service import SERVICE_NAME, CheckpointStoreService
from holdfast_server.checkpoints.store import CheckpointStore, StoreOptions
from holdfast_server.checkpoints.watching import Watches
from holdfast_server.errors import HoldfastError, InvalidArgument, SealKeyUnavailable
from holdfast_server.objects.base import ListQuery, ObjectNotFound, ObjectStore
from holdfast_server.objects.body import Body
from holdfast_server.objects.filesystem import FilesystemStore
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.memory import MemoryStore
from holdfast_server.objects.spool import Spool
from holdfast_server.rpc.server import RpcServer, ServerOptions
from holdfast_server.rpc.status import code_of
from holdfast_server.workers import Workers
from tests.support.meddled_store import MeddledStore
from tests.support.s3_servers import S3Server
from tests.support.s3_stores import OpenedStore
from tests.support.samples import MIB
from tests.support.statuses import Refusal, refusal_of

TIMEOUT_SECONDS = 60
WATCH_SECONDS = 0.05
LOAD_MEMORY_BYTES = MIB
"""So that a payload of two pieces goes through the spool."""

ON_EACH_BACKEND = pytest.mark.parametrize(
    "all_checkpoints",
    ["direct memory", "grpc filesystem encrypted", "direct moto", "grpc minio"],
    indirect=True,
    scope="module",
)
"""For what neither the wire nor the form of a payload has to do with: one of both on each backend, and not all."""

STORED = pb.SAVE_OUTCOME_STORED
SAME = pb.SAVE_OUTCOME_EXISTS_SAME
DIFFERENT = pb.SAVE_OUTCOME_EXISTS_DIFFERENT
DAMAGED = pb.SAVE_OUTCOME_EXISTS_DAMAGED

_SERVICE = pb.DESCRIPTOR.services_by_name["CheckpointStore"]


class Refused(Exception):
    """A call that was refused, told alike however it was made."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(f"{refusal.code} {refusal.reason}: {refusal.message}")
        self.refusal = refusal


@contextmanager
def refused(reason: str, code: str | None = None) -> Iterator[Refusal]:
    """Expect the block to be refused for this reason, and tell how."""
    refusal = Refusal()
    with pytest.raises(Refused) as failed:
        yield refusal
    refusal.__dict__.update(failed.value.refusal.__dict__)
    assert refusal.reason == reason, refusal
    assert code is None or refusal.code == code, refusal


def tried(call: Callable[[], Any]) -> Any:
    """Return the answer of a call, or its `Refusal`."""
    try:
        return call()
    except Refused as refused:
        return refused.refusal


class ChangingKeys:
    """The key ring that a test puts there; None: there is none."""

    def __init__(self) -> None:
        self.now: KeyRing | None = KeyRing.fresh()

    @property
    def ring(self) -> KeyRing:
        if self.now is None:
            raise SealKeyUnavailable("there is no ring")
        return self.now

    @ring.setter
    def ring(self, ring: KeyRing) -> None:
        self.now = ring

    @property
    def problem(self) -> SealKeyUnavailable | None:
        return None if self.now is not None else SealKeyUnavailable("there is no ring")

    def rotate(self) -> bytes:
        """Let a new key sign, and return the id of the one that did before."""
        old, new = self.ring.signing.id, SealKey.fresh(KeyState.VERIFYING)
        self.ring = self.ring.with_key(new).rotated(new.id)
        return old


class Checkpoints:
    """A CheckpointStore. `call` and `messages` are the RPCs, the rest is shorter to write, with fields by their names.

    `objects` and `keys` are the back doors. What it has seen is forgotten by `restart`.
    """

    def __init__(self, objects: ObjectStore, keys: ChangingKeys, *, encrypt: bool = False, **options: Any) -> None:
        self.objects = objects if isinstance(objects, MeddledStore) else MeddledStore(objects)
        self.keys = keys
        self.options = StoreOptions(encrypt=encrypt, **options)
        self._stack = ExitStack()
        self._workers = Workers()
        self._stack.callback(self._workers.close)
        self._stack.callback(self._close_watches)
        self._open()

    def _open(self) -> None:
        self.store = CheckpointStore(
            self.objects, self.keys, WaitingRoom(Spool(), LOAD_MEMORY_BYTES), self._workers, self.options
        )
        self.watches = Watches(self.store.pointers, self._workers, interval_seconds=WATCH_SECONDS, most=8)
        self.service: Any = CheckpointStoreService(self.store, self.watches)

    def restart(self) -> None:
        """Forget all that was seen, as a process that starts."""
        self.watches.close()
        self._open()

    @contextmanager
    def beside(self) -> "Iterator[Checkpoints]":
        """Another server on the same backend, with the same keys."""
        other = type(self)(self.objects.inner, self.keys, encrypt=self.options.encrypt)
        try:
            yield other
        finally:
            other.close()

    def _close_watches(self) -> None:
        self.watches.close()

    def close(self) -> None:
        self._stack.close()

    # Calls.

    def call(self, rpc: str, request: Any) -> Any:
        """Return the only answer. Raises `Refused`."""
        (answer,) = self.messages(rpc, request)
        return answer

    def messages(self, rpc: str, request: Any) -> Iterator[Any]:
        """Yield the answers as they come. Raises `Refused`."""
        answer_type = getattr(pb, _SERVICE.methods_by_name[rpc].output_type.name)
        try:
            answers = getattr(self.service, rpc)(request, None)
            for answer in [answers] if isinstance(answers, answer_type) else answers:
                yield answer_type.FromString(answer) if isinstance(answer, bytes) else answer
        except HoldfastError as error:
            fields = [error.field] if isinstance(error, InvalidArgument) else []
            raise Refused(
                Refusal(code_of(error).name, error.reason.value, error.message, error.details, fields)
            ) from None

    def watch(self, *rooms: str) -> "Watcher":
        """Watch rooms until the watcher is closed."""
        is_over = threading.Event()

        def news() -> Iterator[Any]:
            with calls.working_for(calls.Call(is_active=lambda: not is_over.is_set())):
                yield from self.messages("WatchCheckpoints", pb.WatchCheckpointsRequest(room_ids=rooms))

        return Watcher(news, is_over.set)

    # The same, shorter.

    def save(self, room: str, epoch: int, data: bytes = b"", **header: Any) -> pb.SaveCheckpointResponse:
        said = pb.SaveCheckpointHeader(room_id=room, epoch=epoch, **header)
        answer: pb.SaveCheckpointResponse = self.call("SaveCheckpoint", upload(pb.SaveCheckpointRequest, said, data))
        return answer

    def hibernate(self, room: str, data: bytes = b"", **header: Any) -> pb.SnapshotInfo:
        said = pb.HibernateRoomHeader(room_id=room, **header)
        answer: pb.HibernateRoomResponse = self.call("HibernateRoom", upload(pb.HibernateRoomRequest, said, data))
        return answer.snapshot

    def load(self, room: str, **fields: Any) -> "Loaded":
        return _whole(self.messages("LoadCheckpoint", pb.LoadCheckpointRequest(room_id=room, **fields)))

    def restore(self, room: str) -> "Loaded":
        return _whole(self.messages("RestoreRoom", pb.RestoreRoomRequest(room_id=room)))

    def confirm(self, room: str, etag: str, sha256: bytes, writer_id: str = "") -> None:
        request = pb.ConfirmRestoreRequest(room_id=room, etag=etag, sha256=sha256, writer_id=writer_id)
        self.call("ConfirmRestore", request)

    def stat(self, room: str, **fields: Any) -> pb.CheckpointInfo:
        answer: pb.StatCheckpointResponse = self.call(
            "StatCheckpoint", pb.StatCheckpointRequest(room_id=room, **fields)
        )
        return answer.checkpoint

    def listed(self, room: str, **fields: Any) -> list[pb.CheckpointEntry]:
        found: list[pb.CheckpointEntry] = self._pages(
            "ListCheckpoints", pb.ListCheckpointsRequest(room_id=room, **fields), "checkpoints"
        )
        return found

    def epochs(self, room: str, **fields: Any) -> list[int]:
        return [entry.epoch for entry in self.listed(room, **fields)]

    def rooms(self, **fields: Any) -> list[pb.RoomEntry]:
        found: list[pb.RoomEntry] = self._pages("ListRooms", pb.ListRoomsRequest(**fields), "rooms")
        return found

    def hibernated(self, **fields: Any) -> list[pb.SnapshotEntry]:
        request = pb.ListHibernatedRoomsRequest(**fields)
        found: list[pb.SnapshotEntry] = self._pages("ListHibernatedRooms", request, "snapshots")
        return found

    def page(self, rpc: str, **fields: Any) -> Any:
        """Return one page of a list."""
        return self.call(rpc, getattr(pb, rpc + "Request")(**fields))

    def _pages(self, rpc: str, request: Any, field: str) -> Any:
        found: list[Any] = []
        while True:
            page = self.call(rpc, request)
            entries = getattr(page, field)
            assert not request.page_size or len(entries) <= request.page_size
            found += entries
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    def prune(
        self, room: str = "", *, keep_last: int = 1, older_than: int = 0, dry_run: bool = False
    ) -> list[pb.PruneCheckpointsResponse]:
        """Return all messages, of which the last one is the summary; `older_than` is in seconds."""
        request = pb.PruneCheckpointsRequest(
            room_id=room, keep_last=keep_last, older_than=Duration(seconds=older_than), dry_run=dry_run
        )
        answers = list(self.messages("PruneCheckpoints", request))
        assert [answer.done for answer in answers] == [False] * (len(answers) - 1) + [True]
        return answers

    def delete_room(self, room: str, **fields: Any) -> pb.DeleteRoomResponse:
        """Return the summary; `fields` are the request's."""
        request = pb.DeleteRoomRequest(room_id=room, **fields)
        answers: list[pb.DeleteRoomResponse] = list(self.messages("DeleteRoom", request))
        assert [answer.done for answer in answers] == [False] * (len(answers) - 1) + [True]
        return answers[-1]

    # Back doors.

    def stored(self, name: str) -> bytes:
        """Return what lies under a name."""
        with self.objects.inner.get(ObjectKey(name)) as reader:
            return b"".join(chunk.data for chunk in reader)

    def put(self, name: str, data: bytes) -> None:
        """Put something else under a name, with the sums of the layer below as they must be."""
        self.objects.inner.put(ObjectKey(name), Body.of(data))

    def remove(self, name: str) -> None:
        self.objects.inner.delete(ObjectKey(name))

    def names(self) -> list[str]:
        return [item.name for item in self.objects.inner.list(ListQuery())]

    def flip(self, name: str, at: int = -10, bit: int = 0) -> None:
        """Flip a bit of what lies under a name."""
        data = bytearray(self.stored(name))
        data[at] ^= 1 << bit
        self.put(name, bytes(data))

    def clear(self) -> None:
        """Remove all, start anew with other keys, and meddle no more."""
        self.keys.now = KeyRing.fresh()
        self.clear_but_keys()

    def clear_but_keys(self) -> None:
        """Do the same with the keys that there are."""
        self.objects.calm()
        while names := self.names():
            for name in names:
                with suppress(ObjectNotFound):
                    self.remove(name)
        self.restart()


class ServedCheckpoints(Checkpoints):
    """The same behind a gRPC server."""

    def __init__(self, objects: ObjectStore, keys: ChangingKeys, *, encrypt: bool = False, **options: Any) -> None:
        super().__init__(objects, keys, encrypt=encrypt, **options)
        newest: Any = _Newest(self)
        register = partial(checkpoint_store_pb2_grpc.add_CheckpointStoreServicer_to_server, newest)
        listen = ServerOptions(listen=("127.0.0.1:0",), max_concurrent_calls=64)
        server = RpcServer(listen, {SERVICE_NAME: register}, CollectorRegistry(), log=lambda _fields: None)
        self._stack.callback(server.stop)
        channel = self._stack.enter_context(grpc.insecure_channel(server.addresses[0]))
        self.stub: Any = checkpoint_store_pb2_grpc.CheckpointStoreStub(channel)

    def messages(self, rpc: str, request: Any) -> Iterator[Any]:
        try:
            answers = getattr(self.stub, rpc)(request, timeout=TIMEOUT_SECONDS)
            yield from answers if _SERVICE.methods_by_name[rpc].server_streaming else [answers]
        except grpc.RpcError as error:
            raise Refused(refusal_of(error)) from None

    def watch(self, *rooms: str) -> "Watcher":
        request = pb.WatchCheckpointsRequest(room_ids=rooms)
        call = self.stub.WatchCheckpoints(request, timeout=TIMEOUT_SECONDS)

        def news() -> Iterator[Any]:
            try:
                yield from call
            except grpc.RpcError as error:
                raise Refused(refusal_of(error)) from None

        return Watcher(news, call.cancel)


class _Newest:
    """A servicer that passes each call to the service that is there now."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints

    def __getattr__(self, rpc: str) -> Callable[[Any, Any], Any]:
        def call(request: Any, context: Any) -> Any:
            return getattr(self._checkpoints.service, rpc)(request, context)

        return call


@dataclass(frozen=True)
class Loaded:
    """A download: what it began with, and its bytes."""

    info: Any
    data: bytes


def _whole(messages: Iterable[Any]) -> Loaded:
    first, *rest = messages
    assert first.WhichOneof("part") == "info"
    assert all(0 < len(message.chunk.data) <= MIB for message in rest)
    return Loaded(first.info, b"".join(message.chunk.data for message in rest))


def upload(message: Any, header: Any, data: bytes) -> Iterator[Any]:
    """Yield the messages of a whole upload."""
    yield message(header=header)
    for start in range(0, len(data), MIB):
        yield message(chunk=DataChunk(data=data[start : start + MIB]))
    yield message(trailer=UploadTrailer())


class Watcher:
    """A watch whose messages are taken as they come. A context manager."""

    def __init__(self, news: Callable[[], Iterator[Any]], cancel: Callable[[], object]) -> None:
        self._cancel = cancel
        self._news: queue.Queue[pb.WatchCheckpointsResponse | Refusal] = queue.Queue()
        self._thread = threading.Thread(target=self._run, args=(news,), daemon=True)
        self._thread.start()

    def _run(self, news: Callable[[], Iterator[Any]]) -> None:
        try:
            for message in news():
                self._news.put(message)
        except Refused as error:
            self._news.put(error.refusal)

    def next(self) -> pb.WatchCheckpointsResponse:
        """Return the next message. Raises `Refused`, and `queue.Empty` if none comes."""
        message = self._news.get(timeout=TIMEOUT_SECONDS)
        if isinstance(message, Refusal):
            raise Refused(message)
        return message

    def epochs_to(self, last: int) -> list[int]:
        """Return the epochs that come, up to this one."""
        found: list[int] = []
        while not found or found[-1] != last:
            message = self.next()
            assert message.HasField("epoch")
            found.append(message.epoch)
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._cancel()
        self._thread.join(TIMEOUT_SECONDS)
        assert not self._thread.is_alive()


@contextmanager
def opened(variant: str, directory: Path, s3: S3Server | None) -> Iterator[Checkpoints]:
    """An empty store: `direct` or `grpc`, on `memory`, on `filesystem`, or in a bucket of `s3`; perhaps `encrypted`."""
    how, backend, *more = variant.split()
    kind = Checkpoints if how == "direct" else ServedCheckpoints
    with ExitStack() as stack:
        if s3 is not None:
            objects: ObjectStore = stack.enter_context(OpenedStore(s3)).store
        else:
            objects = MemoryStore() if backend == "memory" else FilesystemStore(directory / "objects")
            stack.callback(objects.close)
        checkpoints = kind(objects, ChangingKeys(), encrypt=more == ["encrypted"])
        stack.callback(checkpoints.close)
        yield checkpoints


def epoch_name(room: str, epoch: int) -> str:
    """Say where a checkpoint lies, as the documents do."""
    return f"snapshots/{room}/{epoch:020d}"


def pointer_name(room: str) -> str:
    return f"snapshots/{room}/latest"


def snapshot_name(room: str) -> str:
    """Say where the snapshot of a room lies whose name is short."""
    return "hibernated/" + room.replace("%", "%25").replace("/", "%2F")


def footer_of(data: bytes | bytearray) -> int:
    """Return where the footer of sealed bytes begins."""
    return len(data) - int.from_bytes(data[-12:-8], "little")
