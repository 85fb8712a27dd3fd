"""The sections of the settings: what is given under one name, with its bounds and defaults."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from holdfast_server.blobs.store import DEFAULT_MAX_BLOB_BYTES
from holdfast_server.objects.filesystem.store import DEFAULT_LOCK_TIMEOUT_SECONDS
from holdfast_server.objects.memory import DEFAULT_MAX_BYTES, OBJECT_OVERHEAD_BYTES
from holdfast_server.rpc.allocator import AllocatorOptions
from holdfast_server.rpc.server import ServerOptions

_MAX_INT64 = (1 << 63) - 1
_MAX_INT32 = (1 << 31) - 1
_DAY_SECONDS = 86_400
_RPC = ServerOptions()
_ALLOCATOR = AllocatorOptions()

Seconds = Annotated[float, Field(ge=0, le=_DAY_SECONDS)]
SomeSeconds = Annotated[float, Field(gt=0, le=_DAY_SECONDS)]
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
    min_ping_seconds: Seconds = Field(default=_RPC.min_ping_seconds, description="Clients may ping no more often.")
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
