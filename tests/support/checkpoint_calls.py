"""CheckpointStore through the generated stubs alone: the messages as they are, and no help from the client library."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from holdfast.v1 import checkpoint_store_pb2 as pb
from holdfast.v1.checkpoint_store_pb2_grpc import CheckpointStoreStub
from holdfast.v1.types_pb2 import DataChunk, UploadTrailer
from tests.support.samples import MIB
from tests.support.statuses import Refusal, refusal_of

TIMEOUT_SECONDS = 60


def stub_of(channel: grpc.Channel) -> CheckpointStoreStub:
    """Return the generated stub."""
    return CheckpointStoreStub(channel)


def pieces(data: bytes) -> Iterator[DataChunk]:
    """Yield bytes in messages."""
    for start in range(0, len(data), MIB):
        yield DataChunk(data=data[start : start + MIB])


def saving(room: str, epoch: int, data: bytes, **fields: Any) -> Iterator[pb.SaveCheckpointRequest]:
    """Yield the messages of a whole save; `fields` are the header's."""
    yield pb.SaveCheckpointRequest(header=pb.SaveCheckpointHeader(room_id=room, epoch=epoch, **fields))
    for chunk in pieces(data):
        yield pb.SaveCheckpointRequest(chunk=chunk)
    yield pb.SaveCheckpointRequest(trailer=UploadTrailer())


def save(stub: Any, room: str, epoch: int, data: bytes, **fields: Any) -> pb.SaveCheckpointResponse:
    """Save a checkpoint. Raises `grpc.RpcError`."""
    answer: pb.SaveCheckpointResponse = stub.SaveCheckpoint(
        saving(room, epoch, data, **fields), timeout=TIMEOUT_SECONDS
    )
    return answer


def load(stub: Any, room: str, **fields: Any) -> tuple[pb.CheckpointInfo, bytes]:
    """Return a checkpoint and its bytes; `fields` are the request's. Raises `grpc.RpcError`."""
    first, *rest = stub.LoadCheckpoint(pb.LoadCheckpointRequest(room_id=room, **fields), timeout=TIMEOUT_SECONDS)
    return first.info, b"".join(answer.chunk.data for answer in rest)


def load_refused(stub: Any, room: str, **fields: Any) -> Refusal:
    """Return why a load is refused, without one message before that."""
    return _refused(stub.LoadCheckpoint(pb.LoadCheckpointRequest(room_id=room, **fields), timeout=TIMEOUT_SECONDS))


def stat(stub: Any, room: str, **fields: Any) -> pb.CheckpointInfo:
    """Return what is known of a checkpoint. Raises `grpc.RpcError`."""
    request = pb.StatCheckpointRequest(room_id=room, **fields)
    info: pb.CheckpointInfo = stub.StatCheckpoint(request, timeout=TIMEOUT_SECONDS).checkpoint
    return info


def entries(stub: Any, room: str) -> list[pb.CheckpointEntry]:
    """Return the first page of a room's checkpoints. Raises `grpc.RpcError`."""
    request = pb.ListCheckpointsRequest(room_id=room)
    return list(stub.ListCheckpoints(request, timeout=TIMEOUT_SECONDS).checkpoints)


def rooms(stub: Any) -> list[pb.RoomEntry]:
    """Return the first page of the rooms. Raises `grpc.RpcError`."""
    return list(stub.ListRooms(pb.ListRoomsRequest(), timeout=TIMEOUT_SECONDS).rooms)


def prune(stub: Any, room: str = "", *, keep_last: int = 1) -> pb.PruneCheckpointsResponse:
    """Prune, and return the summary. Raises `grpc.RpcError`."""
    request = pb.PruneCheckpointsRequest(room_id=room, keep_last=keep_last)
    *_, last = stub.PruneCheckpoints(request, timeout=TIMEOUT_SECONDS)
    summary: pb.PruneCheckpointsResponse = last
    return summary


def delete_room(stub: Any, room: str) -> pb.DeleteRoomResponse:
    """Delete a room, and return the summary. Raises `grpc.RpcError`."""
    *_, last = stub.DeleteRoom(pb.DeleteRoomRequest(room_id=room), timeout=TIMEOUT_SECONDS)
    summary: pb.DeleteRoomResponse = last
    return summary


def hibernating(room: str, data: bytes, **fields: Any) -> Iterator[pb.HibernateRoomRequest]:
    """Yield the messages of a whole snapshot; `fields` are the header's."""
    yield pb.HibernateRoomRequest(header=pb.HibernateRoomHeader(room_id=room, **fields))
    for chunk in pieces(data):
        yield pb.HibernateRoomRequest(chunk=chunk)
    yield pb.HibernateRoomRequest(trailer=UploadTrailer())


def hibernate(stub: Any, room: str, data: bytes, **fields: Any) -> pb.SnapshotInfo:
    """Store a snapshot. Raises `grpc.RpcError`."""
    info: pb.SnapshotInfo = stub.HibernateRoom(hibernating(room, data, **fields), timeout=TIMEOUT_SECONDS).snapshot
    return info


def restore(stub: Any, room: str) -> tuple[pb.SnapshotInfo, bytes]:
    """Return a snapshot and its bytes. Raises `grpc.RpcError`."""
    first, *rest = stub.RestoreRoom(pb.RestoreRoomRequest(room_id=room), timeout=TIMEOUT_SECONDS)
    return first.info, b"".join(answer.chunk.data for answer in rest)


def restore_refused(stub: Any, room: str) -> Refusal:
    """Return why a restore is refused, without one message before that."""
    return _refused(stub.RestoreRoom(pb.RestoreRoomRequest(room_id=room), timeout=TIMEOUT_SECONDS))


def confirm(stub: Any, info: pb.SnapshotInfo, sha256: bytes, writer_id: str = "") -> None:
    """Confirm a restore. Raises `grpc.RpcError`."""
    request = pb.ConfirmRestoreRequest(room_id=info.room_id, etag=info.etag, sha256=sha256, writer_id=writer_id)
    stub.ConfirmRestore(request, timeout=TIMEOUT_SECONDS)


def hibernated(stub: Any) -> list[pb.SnapshotEntry]:
    """Return the first page of the hibernated rooms. Raises `grpc.RpcError`."""
    return list(stub.ListHibernatedRooms(pb.ListHibernatedRoomsRequest(), timeout=TIMEOUT_SECONDS).snapshots)


def _refused(answers: Iterator[Any]) -> Refusal:
    try:
        first = next(answers)
    except grpc.RpcError as error:
        return refusal_of(error)
    pytest.fail(f"it was not refused: {first}")
