"""What callers of CheckpointStore do: the generated stub, and messages built beforehand."""

import uuid
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count

import grpc

from benchmarks.traffic import canned_chunk, canned_data
from holdfast.v1 import checkpoint_store_pb2 as pb
from holdfast.v1.checkpoint_store_pb2_grpc import CheckpointStoreStub
from holdfast.v1.types_pb2 import UploadTrailer

NODE = "node/"
"""What the ids of the rooms begin with that many callers save."""


class CannedSave:
    """A save of `chunks` times the same chunk, its size declared in the trailer."""

    def __init__(self, data: bytes, chunks: int) -> None:
        self.size_bytes = len(data) * chunks
        self._chunk = pb.SaveCheckpointRequest(chunk=canned_chunk(data))
        self._chunks = chunks
        self._trailer = pb.SaveCheckpointRequest(trailer=UploadTrailer(size_bytes=self.size_bytes))

    def messages(self, room: str, epoch: int) -> Iterator[pb.SaveCheckpointRequest]:
        """Yield the messages of a save."""
        yield pb.SaveCheckpointRequest(header=pb.SaveCheckpointHeader(room_id=room, epoch=epoch))
        for _ in range(self._chunks):
            yield self._chunk
        yield self._trailer


def save(stub: CheckpointStoreStub, room: str, epoch: int, save: CannedSave) -> None:
    """Save an epoch, and check that it is the latest then."""
    answer = stub.SaveCheckpoint(save.messages(room, epoch))
    if answer.outcome != pb.SAVE_OUTCOME_STORED or not answer.pointer_moved:
        raise RuntimeError(f"epoch {epoch} of {room} was not saved: {answer}")


def load(stub: CheckpointStoreStub, room: str, size_bytes: int) -> None:
    """Load the latest epoch of a room, and check that all of it came."""
    answers = stub.LoadCheckpoint(pb.LoadCheckpointRequest(room_id=room))
    if next(answers).info.size_bytes != size_bytes or not sum(1 for _ in answers):
        raise RuntimeError(f"{room} was not loaded whole")


def prune(stub: CheckpointStoreStub, room: str) -> None:
    """Delete all but the latest checkpoint of a room: else what was measured would fill the store."""
    for _ in stub.PruneCheckpoints(pb.PruneCheckpointsRequest(room_id=room, keep_last=1)):
        pass


def delete_all(stub: CheckpointStoreStub, prefix: str) -> None:
    """Delete the rooms whose ids begin so."""
    while rooms := stub.ListRooms(pb.ListRoomsRequest(prefix=prefix)).rooms:
        for room in rooms:
            for _ in stub.DeleteRoom(pb.DeleteRoomRequest(room_id=room.room_id)):
                pass


def saves_in_turn(address: str, size_bytes: int, rooms: int, name: str) -> Callable[[], object]:
    """Save rooms of the caller's own in turn, each at its next epoch; to be picklable it takes no stub."""
    stub, canned = stub_of(address), CannedSave(canned_data(size_bytes), 1)
    # Its own in each turn: who saves them again would find the epochs taken.
    turn = uuid.uuid4().hex[:8]
    turns = count()

    def one() -> None:
        number = next(turns)
        save(stub, f"{NODE}{name}/{turn}/{number % rooms}", number // rooms, canned)

    return one


@cache
def stub_of(address: str) -> CheckpointStoreStub:
    """Return a stub on this process's connection to a server; it lasts as long as the process."""
    return CheckpointStoreStub(grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]))
