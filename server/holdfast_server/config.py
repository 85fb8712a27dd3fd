"""The settings: flags, then `HOLDFAST_*` variables, then a TOML file, then the defaults here.

This module alone reads the environment. In variables, sections are joined by two underscores and lists by commas.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from holdfast_server.blobs.store import DEFAULT_MAX_BLOB_BYTES
from holdfast_server.objects.filesystem.store import DEFAULT_LOCK_TIMEOUT_SECONDS
from holdfast_server.objects.memory import DEFAULT_MAX_BYTES, OBJECT_OVERHEAD_BYTES
from holdfast_server.rpc.allocator import AllocatorOptions
from holdfast_server.rpc.server import ServerOptions

ENV_PREFIX = "HOLDFAST_"
_MAX_PORT = 0xFFFF
_MAX_INT64 = (1 << 63) - 1
_MAX_INT32 = (1 << 31) - 1
_DAY_SECONDS = 86_400
_RPC = ServerOptions()
_ALLOCATOR = AllocatorOptions()

Seconds = Annotated[float, Field(ge=0, le=_DAY_SECONDS)]
SomeSeconds = Annotated[float, Field(gt=0, le=_DAY_SECONDS)]
Int32 = Annotated[int, Field(ge=0, le=_MAX_INT32)]
SomeInt64 = Annotated[int, Field(ge=1, le=_MAX_INT64)]

BackendName = Literal["memory", "filesystem"]


class ConfigError(Exception):
    """The settings are wrong; the message names the setting and the rule."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BlobStoreSettings(_Section):
    """BlobStore."""

    enabled: bool = Field(default=True, description="Offer BlobStore.")
    backend: BackendName | None = Field(default=None, description="Its own backend, instead of the common one.")

    @field_validator("backend", mode="before")
    @classmethod
    def _none_if_empty(cls, value: object) -> object:
        return None if value == "" else value

    max_blob_bytes: SomeInt64 = Field(default=DEFAULT_MAX_BLOB_BYTES, description="The largest blob.")


class MemorySettings(_Section):
    """The memory backend."""

    max_bytes: int = Field(
        default=DEFAULT_MAX_BYTES, ge=OBJECT_OVERHEAD_BYTES, description="What it may hold; then STORAGE_FULL."
    )


class FilesystemSettings(_Section):
    """The filesystem backend."""

    lock_timeout_seconds: SomeSeconds = Field(
        default=DEFAULT_LOCK_TIMEOUT_SECONDS,
        description="The longest wait for another process's lock.",
    )


class RpcSettings(_Section):
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


class AllocatorSettings(_Section):
    """glibc's malloc."""

    tune: bool = Field(default=True, description="Set the four below at start (glibc only).")
    mmap_threshold: Int32 = Field(default=_ALLOCATOR.mmap_threshold, description="M_MMAP_THRESHOLD, bytes.")
    trim_threshold: Int32 = Field(default=_ALLOCATOR.trim_threshold, description="M_TRIM_THRESHOLD, bytes.")
    top_pad: Int32 = Field(default=_ALLOCATOR.top_pad, description="M_TOP_PAD, bytes.")
    arenas: int = Field(default=_ALLOCATOR.arenas, ge=1, le=1024, description="M_ARENA_MAX.")


class Settings(BaseSettings):
    """All settings, valid and frozen."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, case_sensitive=False
    )

    listen: Annotated[tuple[str, ...], NoDecode] = Field(
        default=_RPC.listen,
        min_length=1,
        description="gRPC addresses: `host:port` (port 0: a free one) or `unix:/path`.",
    )
    http: str = Field(default="127.0.0.1:4654", description="HTTP address of probes and metrics; empty: none.")
    data_dir: Path | None = Field(
        default=None, description="Where data is kept. With it the common backend is `filesystem`."
    )
    drain_seconds: Seconds = Field(default=30.0, description="How long calls at work may take to finish at shutdown.")
    drain_notice_seconds: Seconds = Field(
        default=0.0,
        description="How long calls are still taken after NOT_SERVING was announced.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="`info` has a line for each call."
    )
    log_format: Literal["text", "json"] = Field(default="text", description="`text` for people, `json` for machines.")
    blob_store: BlobStoreSettings = BlobStoreSettings()
    memory: MemorySettings = MemorySettings()
    filesystem: FilesystemSettings = FilesystemSettings()
    rpc: RpcSettings = RpcSettings()
    allocator: AllocatorSettings = AllocatorSettings()
    s3: dict[str, Any] | None = Field(default=None, description="Not built yet: giving any of it is refused.")

    @field_validator("data_dir", mode="before")
    @classmethod
    def _none_if_empty(cls, value: object) -> object:
        return None if value == "" else value  # not the working directory

    @field_validator("listen", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("listen")
    @classmethod
    def _check_addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for address in value:
            if not address.startswith("unix:"):
                split_address(address)
        return value

    @field_validator("http")
    @classmethod
    def _check_http(cls, value: str) -> str:
        if value:
            split_address(value)
        return value

    def backend_of(self, own: BackendName | None) -> BackendName:
        """Return the backend of a service: its own, or else the common one."""
        return own or ("filesystem" if self.data_dir else "memory")


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of `host:port`. Raises `ValueError`."""
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > _MAX_PORT:
        raise ValueError(f"{address!r} is not host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)


def load(flags: dict[str, Any], config_file: Path | None = None) -> Settings:
    """Return the settings; `flags` are those given on the command line. Raises `ConfigError`."""
    path = config_file or (Path(given) if (given := os.environ.get(f"{ENV_PREFIX}CONFIG")) else None)
    if path is not None and not path.is_file():
        raise ConfigError(f"config file {path} does not exist")

    class Sourced(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (pydantic-settings passes it by name)
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (the same)
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, path)

    try:
        settings = Sourced(**flags)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"setting {name}: {first['msg']}") from None
    except (SettingsError, ValueError) as error:  # a section that is no section; a file that is no TOML
        raise ConfigError(str(error)) from None
    if settings.s3 is not None:
        raise ConfigError("setting s3: the S3 backend is not built yet; use data_dir, or nothing for memory")
    if settings.backend_of(settings.blob_store.backend) == "filesystem" and settings.data_dir is None:
        raise ConfigError("setting blob_store.backend: 'filesystem' needs data_dir")
    return settings


@dataclass(frozen=True, slots=True)
class Described:
    """A setting for people: its name in the file (`section.name`), its variable, its default, and what it does."""

    name: str
    variable: str
    default: str
    description: str


def describe() -> list[Described]:
    """Return all settings that can be given, in the order in which they stand here."""
    return [
        _described(name, field)
        for name, field in _flattened(Settings)
        if name != "s3"  # nothing of it can be given yet
    ]


def unknown_variables() -> list[str]:
    """Return the `HOLDFAST_*` variables that no setting has.

    They are no error: Kubernetes puts `HOLDFAST_SERVICE_HOST` and its like there for a service of our name.
    """
    # The last is our own client's.
    known = {f"{ENV_PREFIX}CONFIG", f"{ENV_PREFIX}ADDRESS", *(setting.variable for setting in describe())}
    return sorted(name for name in os.environ if name.startswith(ENV_PREFIX) and name.upper() not in known)


def _flattened(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            yield from _flattened(section, f"{name}.")
        else:
            yield prefix + name, field


def _described(name: str, field: FieldInfo) -> Described:
    default = field.default
    if default is None:
        text = ""
    elif isinstance(default, tuple):
        text = ",".join(default)
    elif isinstance(default, bool):
        text = str(default).lower()
    else:
        text = f"{default:g}" if isinstance(default, float) else str(default)
    variable = ENV_PREFIX + name.replace(".", "__").upper()
    return Described(name, variable, text, field.description or "")
