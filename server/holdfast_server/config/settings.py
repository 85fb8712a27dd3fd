"""All settings, and how they are put together."""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from holdfast_server.checkpoints.key_file import FILE_NAME
from holdfast_server.config.origins import ENV_PREFIX, FileError, SettingsFile, origin
from holdfast_server.config.s3 import S3Settings
from holdfast_server.config.sections import (
    AllocatorSettings,
    BackendName,
    BlobStoreSettings,
    CheckpointStoreSettings,
    FilesystemSettings,
    MemorySettings,
    RpcSettings,
    Seconds,
    SomeInt64,
    none_if_empty,
)
from holdfast_server.objects.s3.options import S3Options
from holdfast_server.objects.spool import DEFAULT_SPOOL_BYTES
from holdfast_server.rpc.server import ServerOptions

_MAX_PORT = 0xFFFF
_RPC = ServerOptions()
_NAMED = re.compile(r"setting ([a-z0-9_.]+): ")
_NO_SECTION = re.compile(r'error parsing value for field "(\w+)" from source .*')
"""What is said of a variable that stands for a whole section."""


class ConfigError(Exception):
    """The settings are wrong; the message names the setting and the rule."""


class Settings(BaseSettings):
    """All settings, valid and frozen. Those that `load` returns are whole: also what they left out is in them."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        case_sensitive=False,
        hide_input_in_errors=True,  # there are keys in it
    )

    listen: Annotated[tuple[str, ...], NoDecode] = Field(
        default=_RPC.listen,
        min_length=1,
        description="gRPC addresses: `host:port` (port 0: a free one) or `unix:/path`.",
    )
    http: str = Field(default="127.0.0.1:4654", description="HTTP address of probes and metrics; empty: none.")
    data_dir: Path | None = Field(
        default=None, description="Where data is kept. With it, and without S3, the common backend is `filesystem`."
    )
    spool_dir: Path | None = Field(
        default=None,
        description="Where bytes wait that must be known whole: `spool` in the data directory, "
        "or the system's temporary directory.",
    )
    spool_max_bytes: SomeInt64 = Field(
        default=DEFAULT_SPOOL_BYTES, description="What may wait there together; then SPOOL_FULL."
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
    checkpoint_store: CheckpointStoreSettings = CheckpointStoreSettings()
    memory: MemorySettings = MemorySettings()
    filesystem: FilesystemSettings = FilesystemSettings()
    s3: S3Settings | None = Field(default=None, description="S3; with any of it the common backend is `s3`.")
    rpc: RpcSettings = RpcSettings()
    allocator: AllocatorSettings = AllocatorSettings()

    _not_given = field_validator("data_dir", "spool_dir", mode="before")(none_if_empty)

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
        if own:
            return own
        if self.s3 is not None:
            return "s3"
        return "filesystem" if self.data_dir else "memory"

    @property
    def s3_options(self) -> S3Options | None:
        """What the S3 backend is made of, if there is one."""
        return None if self.s3 is None else self.s3.options()


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of `host:port`. Raises `ValueError`."""
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > _MAX_PORT:
        raise ValueError(f"{address!r} is not host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)


def load(flags: dict[str, Any], config_file: Path | None = None) -> Settings:
    """Return the settings; `flags` are those given on the command line. Raises `ConfigError`."""
    path = config_file or (Path(given) if (given := os.environ.get(f"{ENV_PREFIX}CONFIG")) else None)
    return _load(flags, path, with_variables=True)


def load_file(path: Path | None) -> Settings:
    """Return the settings of a file by itself, or the defaults: no `HOLDFAST_*` variable counts. Raises `ConfigError`.

    What a section `s3` leaves out is looked for as ever.
    """
    return _load({}, path, with_variables=False)


def _load(flags: dict[str, Any], path: Path | None, *, with_variables: bool) -> Settings:
    try:
        file = SettingsFile.read(path)
    except FileError as error:
        raise ConfigError(str(error)) from None

    def given(name: str) -> str:
        where = origin(name, flags, file, with_variables=with_variables)
        return f" ({where})" if where else ""

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
            in_file = InitSettingsSource(settings_cls, dict(file.content))
            return (init_settings, env_settings, in_file) if with_variables else (init_settings, in_file)

    try:
        sourced = Sourced(**flags)
        s3 = None if sourced.s3 is None else sourced.s3.completed(os.environ)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(part for part in first["loc"] if isinstance(part, str))
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"unknown setting {name}{given(name)}") from None
        raise ConfigError(f"setting {name}: {first['msg'].removeprefix('Value error, ')}{given(name)}") from None
    except SettingsError as error:
        name = _NO_SECTION.sub(r"\1", str(error))
        raise ConfigError(f"setting {name}: it is a section, and no JSON object{given(name)}") from None
    except ValueError as error:  # only a part of S3
        named = _NAMED.match(str(error))
        raise ConfigError(f"{error}{given(named[1]) if named else ''}") from None
    spool_dir = sourced.spool_dir or (sourced.data_dir and sourced.data_dir / "spool")
    key_ring = sourced.checkpoint_store.key_ring or (sourced.data_dir and sourced.data_dir / FILE_NAME)
    checkpoint_store = sourced.checkpoint_store.model_copy(update={"key_ring": key_ring})
    settings = sourced.model_copy(update={"s3": s3, "spool_dir": spool_dir, "checkpoint_store": checkpoint_store})
    for name, own in (
        ("blob_store", settings.blob_store.backend),
        ("checkpoint_store", settings.checkpoint_store.backend),
    ):
        if lacks := _lacking(own, settings):
            raise ConfigError(f"setting {name}.backend: {lacks}{given(f'{name}.backend')}")
    return settings


def _lacking(own: BackendName | None, settings: Settings) -> str:
    """Return what a service's own backend needs and has not."""
    if own == "filesystem" and settings.data_dir is None:
        return "'filesystem' needs data_dir"
    if own == "s3" and settings.s3 is None:
        return "'s3' needs the section s3: s3.bucket and what goes with it"
    return ""
