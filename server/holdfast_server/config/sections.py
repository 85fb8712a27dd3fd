"""The sections of the settings: what is given under one name, with its bounds and defaults."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from holdfast_server.blobs.store import DEFAULT_MAX_BLOB_BYTES
from holdfast_server.checkpoints.limits import (
    DEFAULT_KEEP_SECONDS,
    DEFAULT_LOAD_MEMORY_BYTES,
    DEFAULT_MAX_CHECKPOINT_BYTES,
    DEFAULT_PRUNE_INTERVAL_SECONDS,
    DEFAULT_TOMBSTONE_SECONDS,
    DEFAULT_WATCH_INTERVAL_SECONDS,
)
from holdfast_server.objects.filesystem.store import DEFAULT_LOCK_TIMEOUT_SECONDS
from holdfast_server.objects.memory import DEFAULT_MAX_BYTES, OBJECT_OVERHEAD_BYTES
from holdfast_server.rpc.allocator import AllocatorOptions
from holdfast_server.rpc.server import ServerOptions

_MAX_INT64 = (1 << 63) - 1
_MAX_INT32 = (1 << 31) - 1
_DAY_SECONDS = 86_400
_TEN_YEARS_SECONDS = 3652 * _DAY_SECONDS
_RPC = ServerOptions()
_ALLOCATOR = AllocatorOptions()

Seconds = Annotated[float, Field(ge=0, le=_DAY_SECONDS)]
SomeSeconds = Annotated[float, Field(gt=0, le=_DAY_SECONDS)]
LongSeconds = Annotated[float, Field(ge=0, le=_TEN_YEARS_SECONDS)]
Int32 = Annotated[int, Field(ge=0, le=_MAX_INT32)]
SomeInt64 = Annotated[int, Field(ge=1, le=_MAX_INT64)]

BackendName = Literal["memory", "filesystem", "s3"]


def none_if_empty(value: object) -> object:
    """Take an empty variable for one that is not given: an empty path would be the working directory."""
    return None if value == "" else value


class Section(BaseModel):
    """Settings under one name: no others, and they never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class BlobStoreSettings(Section):
    """BlobStore."""

    enabled: bool = Field(default=True, description="Offer BlobStore.")
    backend: BackendName | None = Field(default=None, description="Its own backend, instead of the common one.")
    max_blob_bytes: SomeInt64 = Field(default=DEFAULT_MAX_BLOB_BYTES, description="The largest blob.")

    _backend = field_validator("backend", mode="before")(none_if_empty)


class CheckpointStoreSettings(Section):
    """CheckpointStore."""

    enabled: bool = Field(default=True, description="Offer CheckpointStore.")
    backend: BackendName | None = Field(default=None, description="Its own backend, instead of the common one.")
    key_ring: Path | None = Field(
        default=None, description="The file with the sealing keys: `keys.json` in the data directory."
    )
    max_checkpoint_bytes: SomeInt64 = Field(default=DEFAULT_MAX_CHECKPOINT_BYTES, description="The largest checkpoint.")
    load_memory_bytes: Int32 = Field(
        default=DEFAULT_LOAD_MEMORY_BYTES,
        description="What a load may hold in memory; a larger checkpoint is verified through the spool.",
    )
    encrypt: bool = Field(default=False, description="AES-256-GCM, in addition to the seal.")
    legacy: bool = Field(
        default=False,
        description="Read what shellcade wrote: payloads with their tag, plain pointers, flat snapshots.",
    )
    keep_last: Int32 = Field(
        default=0,
        description="Prune automatically: checkpoints outside a room's newest so many *and* older than "
        "`keep_seconds`; 0: never.",
    )
    keep_seconds: LongSeconds = Field(
        default=DEFAULT_KEEP_SECONDS, description="Checkpoints that are younger are never pruned automatically."
    )
    prune_interval_seconds: SomeSeconds = Field(
        default=DEFAULT_PRUNE_INTERVAL_SECONDS, description="How often it is looked for what to prune."
    )
    watch_interval_seconds: SomeSeconds = Field(
        default=DEFAULT_WATCH_INTERVAL_SECONDS,
        description="How often pointers are looked at that other processes may have moved.",
    )
    tombstone_seconds: LongSeconds = Field(
        default=DEFAULT_TOMBSTONE_SECONDS, description="How long a deleted room is remembered."
    )

    _not_given = field_validator("backend", "key_ring", mode="before")(none_if_empty)


class MemorySettings(Section):
    """The memory backend."""

    max_bytes: int = Field(
        default=DEFAULT_MAX_BYTES, ge=OBJECT_OVERHEAD_BYTES, description="What it may hold; then STORAGE_FULL."
    )


class FilesystemSettings(Section):
    """The filesystem backend."""

    lock_timeout_seconds: SomeSeconds = Field(
        default=DEFAULT_LOCK_TIMEOUT_SECONDS,
        description="The longest wait for another process's lock.",
    )


class RpcSettings(Section):
    """gRPC."""

    max_concurrent_calls: int = Field(
        default=_RPC.max_concurrent_calls, ge=1, le=10_000, description="Beyond it: OVERLOADED."
    )
    keepalive_seconds: SomeSeconds = Field(
        default=_RPC.keepalive_seconds, description="A silent connection is pinged after it."
    )
    keepalive_timeout_seconds: SomeSeconds = Field(
        default=_RPC.keepalive_timeout_seconds,
        description="An unanswered ping closes the connection after it.",
    )
    min_ping_seconds: Seconds = Field(
        default=_RPC.min_ping_seconds, description="Clients may ping no more often; the Python one does every 20 s."
    )
    stall_timeout_seconds: Seconds = Field(
        default=_RPC.stall_timeout_seconds,
        description="A call ends whose client neither sends nor takes the next message for so long; 0: never.",
    )
    window_bytes: int = Field(
        default=_RPC.window_bytes,
        ge=64 << 10,
        le=64 << 20,
        description="An upload's flow-control window; more is for clients that are far away, and costs memory.",
    )


class AllocatorSettings(Section):
    """glibc's malloc."""

    tune: bool = Field(default=True, description="Set the four below at start (glibc only).")
    mmap_threshold: Int32 = Field(default=_ALLOCATOR.mmap_threshold, description="M_MMAP_THRESHOLD, bytes.")
    trim_threshold: Int32 = Field(default=_ALLOCATOR.trim_threshold, description="M_TRIM_THRESHOLD, bytes.")
    top_pad: Int32 = Field(default=_ALLOCATOR.top_pad, description="M_TOP_PAD, bytes.")
    arenas: int = Field(default=_ALLOCATOR.arenas, ge=1, le=1024, description="M_ARENA_MAX.")
