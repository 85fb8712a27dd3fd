"""The Python client of Holdfast, a storage sidecar over gRPC.

    import holdfast

    with holdfast.connect("127.0.0.1:4653") as client:
        client.blobs.put("maps/duel.bin", b"...", content_type="application/octet-stream")
        with client.blobs.get("maps/duel.bin") as blob:
            data = blob.read()
        client.checkpoints.save("duel-7", client.checkpoints.next_epoch("duel-7"), b"...")
        with client.checkpoints.load("duel-7") as checkpoint:
            state = checkpoint.read()

`holdfast.errors` tells what can go wrong. `holdfast.v1` are the generated stubs, for whoever wants the wire itself.
"""

from holdfast.batches import Blob, NewBlob
from holdfast.blobs import Blobs
from holdfast.checkpoint_results import (
    Checkpoint,
    CheckpointEntry,
    DeletedRoom,
    Pruned,
    Room,
    Saved,
    SaveOutcome,
    Skipped,
    Snapshot,
    SnapshotEntry,
    Watched,
)
from holdfast.checkpoint_saver import CheckpointSaver, Drained
from holdfast.checkpoint_savers import CheckpointSavers
from holdfast.checkpoints import CheckpointReader, Checkpoints
from holdfast.client import Client, connect
from holdfast.content import Content, Layout
from holdfast.directories import Synced, SyncOutcome, sync_directory
from holdfast.downloads import BlobReader
from holdfast.errors import (
    AlreadyExists,
    BackendRefused,
    BrokenUpload,
    Cancelled,
    ConcurrentModification,
    ConditionUnsupported,
    DeadlineExceeded,
    EpochTooOld,
    HoldfastError,
    IntegrityFailed,
    InternalError,
    InvalidArgument,
    NotFound,
    Overloaded,
    PointerInvalid,
    PreconditionFailed,
    RangeNotSatisfiable,
    ReadOnly,
    SealInvalid,
    SealKeyUnavailable,
    SealTooNew,
    StorageFull,
    Unavailable,
)
from holdfast.results import Attributes, BlobEntry, BlobInfo, BlobPage, ByteRange, CommonPrefix, PutResult
from holdfast.retrying import Retrier
from holdfast.server_info import BackendInfo, ConditionModes, ServerInfo, ServerLimits, ServiceInfo
from holdfast.snapshots import SnapshotReader

__all__ = [
    "AlreadyExists",
    "Attributes",
    "BackendInfo",
    "BackendRefused",
    "Blob",
    "BlobEntry",
    "BlobInfo",
    "BlobPage",
    "BlobReader",
    "Blobs",
    "BrokenUpload",
    "ByteRange",
    "Cancelled",
    "Checkpoint",
    "CheckpointEntry",
    "CheckpointReader",
    "CheckpointSaver",
    "CheckpointSavers",
    "Checkpoints",
    "Client",
    "CommonPrefix",
    "ConcurrentModification",
    "ConditionModes",
    "ConditionUnsupported",
    "Content",
    "DeadlineExceeded",
    "DeletedRoom",
    "Drained",
    "EpochTooOld",
    "HoldfastError",
    "IntegrityFailed",
    "InternalError",
    "InvalidArgument",
    "Layout",
    "NewBlob",
    "NotFound",
    "Overloaded",
    "PointerInvalid",
    "PreconditionFailed",
    "Pruned",
    "PutResult",
    "RangeNotSatisfiable",
    "ReadOnly",
    "Retrier",
    "Room",
    "SaveOutcome",
    "Saved",
    "SealInvalid",
    "SealKeyUnavailable",
    "SealTooNew",
    "ServerInfo",
    "ServerLimits",
    "ServiceInfo",
    "Skipped",
    "Snapshot",
    "SnapshotEntry",
    "SnapshotReader",
    "StorageFull",
    "SyncOutcome",
    "Synced",
    "Unavailable",
    "Watched",
    "connect",
    "sync_directory",
]
