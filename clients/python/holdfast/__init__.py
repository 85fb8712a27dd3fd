"""The Python client of Holdfast, a storage sidecar over gRPC.

    import holdfast

    with holdfast.connect("127.0.0.1:4653") as client:
        client.blobs.put("maps/duel.bin", b"...", content_type="application/octet-stream")
        with client.blobs.get("maps/duel.bin") as blob:
            data = blob.read()

`holdfast.errors` tells what can go wrong. `holdfast.v1` are the generated stubs, for whoever wants the wire itself.
"""

from holdfast.batches import Blob, NewBlob
from holdfast.blobs import Blobs
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
    HoldfastError,
    IntegrityFailed,
    InternalError,
    InvalidArgument,
    NotFound,
    Overloaded,
    PreconditionFailed,
    RangeNotSatisfiable,
    ReadOnly,
    StorageFull,
    Unavailable,
)
from holdfast.results import Attributes, BlobEntry, BlobInfo, BlobPage, ByteRange, CommonPrefix, PutResult
from holdfast.retrying import Retrier
from holdfast.server_info import BackendInfo, ConditionModes, ServerInfo, ServerLimits, ServiceInfo

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
    "Client",
    "CommonPrefix",
    "ConcurrentModification",
    "ConditionModes",
    "ConditionUnsupported",
    "Content",
    "DeadlineExceeded",
    "HoldfastError",
    "IntegrityFailed",
    "InternalError",
    "InvalidArgument",
    "Layout",
    "NewBlob",
    "NotFound",
    "Overloaded",
    "PreconditionFailed",
    "PutResult",
    "RangeNotSatisfiable",
    "ReadOnly",
    "Retrier",
    "ServerInfo",
    "ServerLimits",
    "ServiceInfo",
    "StorageFull",
    "SyncOutcome",
    "Synced",
    "Unavailable",
    "connect",
    "sync_directory",
]
