"""CheckpointStore on the wire: requests in, store calls, responses out."""

from collections.abc import Iterator
from typing import Any

import grpc

from holdfast.v1 import checkpoint_store_pb2 as pb
from holdfast.v1 import checkpoint_store_pb2_grpc
from holdfast_server.checkpoints import messages
from holdfast_server.checkpoints.names import RoomId, checked_epoch, checked_request_id, checked_writer
from holdfast_server.checkpoints.store import CheckpointStore
from holdfast_server.checkpoints.watching import Watches
from holdfast_server.rpc.framing import frame_chunk
from holdfast_server.rpc.uploads import Upload, declared

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["CheckpointStore"].full_name


class CheckpointStoreService(checkpoint_store_pb2_grpc.CheckpointStoreServicer):
    """The servicer of `holdfast.v1.CheckpointStore`."""

    def __init__(self, store: CheckpointStore, watches: Watches) -> None:
        self._store = store
        self._watches = watches

    def SaveCheckpoint(  # noqa: N802 (the name is the proto's)
        self, request_iterator: Iterator[pb.SaveCheckpointRequest], _context: grpc.ServicerContext
    ) -> pb.SaveCheckpointResponse:
        """See `checkpoint_store.proto`."""
        upload: Upload[pb.SaveCheckpointHeader] = Upload(request_iterator)
        header = upload.header
        result = self._store.save(
            RoomId(header.room_id),
            checked_epoch(messages.epoch(header)),
            upload.parts(),
            declared=declared(header),
            options=messages.save_options(header),
        )
        return messages.saved(result)

    def LoadCheckpoint(  # noqa: N802
        self, request: pb.LoadCheckpointRequest, _context: grpc.ServicerContext
    ) -> Iterator[Any]:
        """See `checkpoint_store.proto`. Yields the info as a message, and chunks framed."""
        room, epoch, oldest = RoomId(request.room_id), messages.epoch(request), messages.min_epoch(request)
        with self._store.load(room, epoch, min_epoch=oldest, fallback=request.fallback) as loaded:
            yield pb.LoadCheckpointResponse(info=messages.found(loaded.found, loaded.skipped))
            for chunk in loaded:
                yield frame_chunk(chunk)

    def StatCheckpoint(  # noqa: N802
        self, request: pb.StatCheckpointRequest, _context: grpc.ServicerContext
    ) -> pb.StatCheckpointResponse:
        """See `checkpoint_store.proto`."""
        room, epoch, oldest = RoomId(request.room_id), messages.epoch(request), messages.min_epoch(request)
        return pb.StatCheckpointResponse(checkpoint=messages.found(self._store.stat(room, epoch, min_epoch=oldest)))

    def ListCheckpoints(  # noqa: N802
        self, request: pb.ListCheckpointsRequest, _context: grpc.ServicerContext
    ) -> pb.ListCheckpointsResponse:
        """See `checkpoint_store.proto`."""
        page = self._store.checkpoints_of(
            RoomId(request.room_id),
            from_epoch=checked_epoch(request.from_epoch, "from_epoch"),
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return messages.checkpoints_page(page)

    def ListRooms(  # noqa: N802
        self, request: pb.ListRoomsRequest, _context: grpc.ServicerContext
    ) -> pb.ListRoomsResponse:
        """See `checkpoint_store.proto`."""
        return messages.rooms_page(self._store.rooms(messages.page_query(request)))

    def PruneCheckpoints(  # noqa: N802
        self, request: pb.PruneCheckpointsRequest, _context: grpc.ServicerContext
    ) -> Iterator[pb.PruneCheckpointsResponse]:
        """See `checkpoint_store.proto`."""
        room = RoomId(request.room_id) if request.room_id else None
        for sums in self._store.prune(room, messages.retention(request), dry_run=request.dry_run):
            yield messages.pruned(sums)

    def DeleteRoom(  # noqa: N802
        self, request: pb.DeleteRoomRequest, _context: grpc.ServicerContext
    ) -> Iterator[pb.DeleteRoomResponse]:
        """See `checkpoint_store.proto`."""
        for progress in self._store.delete_room(
            RoomId(request.room_id),
            without_key=request.without_key,
            request_id=checked_request_id(request.request_id),
        ):
            yield messages.deletion(progress)

    def WatchCheckpoints(  # noqa: N802
        self, request: pb.WatchCheckpointsRequest, _context: grpc.ServicerContext
    ) -> Iterator[pb.WatchCheckpointsResponse]:
        """See `checkpoint_store.proto`."""
        for seen in self._watches.watch(messages.watched_rooms(request)):
            yield messages.seen(seen)

    def HibernateRoom(  # noqa: N802
        self, request_iterator: Iterator[pb.HibernateRoomRequest], _context: grpc.ServicerContext
    ) -> pb.HibernateRoomResponse:
        """See `checkpoint_store.proto`."""
        upload: Upload[pb.HibernateRoomHeader] = Upload(request_iterator)
        header = upload.header
        room = RoomId(header.room_id)
        snapshot = self._store.snapshots.hibernate(
            room,
            upload.parts(),
            declared(header),
            subject=messages.snapshot_subject(header, room),
            condition=messages.snapshot_condition(header),
            replace_damaged=header.replace_damaged,
        )
        return pb.HibernateRoomResponse(snapshot=messages.snapshot(snapshot))

    def RestoreRoom(  # noqa: N802
        self, request: pb.RestoreRoomRequest, _context: grpc.ServicerContext
    ) -> Iterator[Any]:
        """See `checkpoint_store.proto`. Yields the info as a message, and chunks framed."""
        with self._store.snapshots.restore(RoomId(request.room_id)) as restored:
            yield pb.RestoreRoomResponse(info=messages.snapshot(restored.snapshot))
            for chunk in restored:
                yield frame_chunk(chunk)

    def ConfirmRestore(  # noqa: N802
        self, request: pb.ConfirmRestoreRequest, _context: grpc.ServicerContext
    ) -> pb.ConfirmRestoreResponse:
        """See `checkpoint_store.proto`."""
        writer_id = checked_writer(request.writer_id)
        self._store.snapshots.confirm(RoomId(request.room_id), request.etag, request.sha256, writer_id)
        return pb.ConfirmRestoreResponse()

    def ListHibernatedRooms(  # noqa: N802
        self, request: pb.ListHibernatedRoomsRequest, _context: grpc.ServicerContext
    ) -> pb.ListHibernatedRoomsResponse:
        """See `checkpoint_store.proto`."""
        return messages.snapshots_page(self._store.snapshots.lists.page(messages.page_query(request)))
