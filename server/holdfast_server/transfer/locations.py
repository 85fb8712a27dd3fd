"""What `--from` and `--to` name: a data directory, a file of settings, or the S3 settings of the environment."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from prometheus_client import CollectorRegistry

from holdfast_server import calls, config
from holdfast_server.config import ConfigError, Settings
from holdfast_server.data_directory import is_new, open_data_directory
from holdfast_server.errors import BackendRefused, HoldfastError, Reason, Unavailable
from holdfast_server.objects.base import Durability, ObjectStore
from holdfast_server.objects.marker import NAME as MARKER
from holdfast_server.objects.memory import MemoryStore
from holdfast_server.objects.registry import BACKENDS, BackendOptions
from holdfast_server.objects.remote_metrics import RemoteMetrics
from holdfast_server.objects.s3 import S3Options
from holdfast_server.transfer.work import Stopped

S3 = "s3"
_SETTINGS_SUFFIX = ".toml"

_FIRST_ANSWER_SECONDS = 20.0
_ABSENCE_SECONDS = 60.0
_PAUSE_SECONDS = 0.05
_RETRY_PAUSE_SECONDS = 0.5


class LocationError(Exception):
    """There is no store at a location, or it cannot be used for this; the message says why."""


class Location:
    """An open store, called `name` by the user, and what is heard of it. `bucket`: where it is, if that is S3."""

    def __init__(self, name: str, store: ObjectStore, bucket: S3Options | None = None) -> None:
        self.name = name
        self.store = store
        self.bucket = bucket
        self._error: HoldfastError | None = Unavailable(Reason.BACKEND_UNAVAILABLE, "it has not answered yet")

    def start(self) -> None:
        """Start the store, and wait until it can be used. Raises `LocationError` if that takes too long."""
        self.store.start(self._listen)
        if (error := self._awaited(_FIRST_ANSWER_SECONDS)) is not None:
            raise LocationError(f"{self.name}: it cannot be used: {error.message}")

    def wait(self) -> bool:
        """Wait until the store can be used again; see `Patience`."""
        if self.store.describe().durability is not Durability.REMOTE:
            return False
        calls.pause(_RETRY_PAUSE_SECONDS, self.name)
        if (error := self._awaited(_ABSENCE_SECONDS)) is not None:
            raise Stopped(f"{self.name}: it cannot be used any more: {error.message}")
        return True

    def _listen(self, error: HoldfastError | None) -> None:
        self._error = error

    def _awaited(self, seconds: float) -> HoldfastError | None:
        """Wait until the store can be used. Returns why it cannot, at once where waiting will not help."""
        end = time.monotonic() + seconds
        while (error := self._error) is not None:
            if isinstance(error, BackendRefused) or time.monotonic() > end:
                return error
            calls.pause(_PAUSE_SECONDS, self.name)
        return None


class Every:
    """The `Patience` with several stores at once."""

    def __init__(self, locations: Sequence[Location]) -> None:
        self._locations = locations

    def wait(self) -> bool:
        """Wait until all of them can be used again; see `Patience`."""
        waited = [location.wait() for location in self._locations]
        return any(waited)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a store is: in a data directory, or in a bucket by these settings."""

    directory: Path | None
    settings: Settings


@contextmanager
def opened_source(text: str) -> Iterator[Location]:
    """Open the store that is read, within the block: it has to be there.

    Raises `ConfigError` for wrong settings, and `LocationError` and `DataDirectoryError` for what cannot be used.
    """
    place = _place(text)
    if place.directory is not None:
        if not (place.directory / MARKER).is_file():
            raise LocationError(f"{text}: there is no store of Holdfast in {place.directory}: no file {MARKER}")
        store = _in_directory(place.directory, place.settings)
    else:
        store = _in_bucket(place.settings, create_bucket=False)
    with _opened(text, store, place) as location:
        yield location


@contextmanager
def opened_target(text: str, *, dry_run: bool) -> Iterator[Location]:
    """Open the store that is written, within the block. A data directory is made if it is missing or empty.

    With `dry_run` it is not made; an empty store stands for it. Raises as `opened_source` does.
    """
    place = _place(text)
    if place.directory is None:
        store = _in_bucket(place.settings, create_bucket=not dry_run)
    elif dry_run and is_new(place.directory):
        store = MemoryStore()
    else:
        store = _in_directory(place.directory, place.settings)
    with _opened(text, store, place) as location:
        yield location


def check_different(source: Location, target: Location) -> None:
    """Raise `LocationError` if both are one store, or one is a part of the other."""
    one, other = source.bucket, target.bucket
    if one and other and (one.endpoint, one.bucket) == (other.endpoint, other.bucket):
        longer, shorter = sorted((one.prefix, other.prefix), key=len, reverse=True)
        if longer != shorter and longer.startswith(shorter):
            message = f"{source.name} and {target.name} are in one bucket, and the prefix {longer!r} of one of them"
            raise LocationError(f"{message} lies in the other one")
    ids = [location.store.describe().store_id for location in (source, target)]
    if ids[0] and ids[0] == ids[1]:
        message = f"{source.name} and {target.name} are the same store, or one is a copy of the other's files: {ids[0]}"
        raise LocationError(message)


@contextmanager
def _opened(name: str, store: ObjectStore, place: _Place) -> Iterator[Location]:
    with closing(store):
        location = Location(name, store, place.settings.s3_options if place.directory is None else None)
        location.start()
        yield location


def _place(text: str) -> _Place:
    if not text:
        raise ConfigError("a location is empty: give a data directory, a settings file (.toml), or s3")
    path = Path(text)
    if text == S3:
        settings = config.load({})
        if settings.s3 is None:
            raise ConfigError(
                "s3: the environment has no settings of S3: set HOLDFAST_S3__BUCKET and what goes with it"
            )
        return _Place(None, settings)
    if not text.endswith(_SETTINGS_SUFFIX) or path.is_dir():
        return _Place(path, config.load_file(None))
    try:
        settings = config.load_file(path)
    except ConfigError as error:
        raise ConfigError(f"{text}: {error}") from None
    backend = settings.backend_of(None)
    if backend == "memory":
        raise ConfigError(f"{text}: its backend is memory, and what that holds is in no other process's reach")
    return _Place(settings.data_dir if backend == "filesystem" else None, settings)


def _in_directory(path: Path, settings: Settings) -> ObjectStore:
    directory = open_data_directory(path)
    options = replace(_options(settings), objects_dir=directory.objects, store_id=directory.store_id)
    return _made("filesystem", options, str(path))


def _in_bucket(settings: Settings, *, create_bucket: bool) -> ObjectStore:
    options = _options(settings)
    if options.s3 is not None and not create_bucket:
        options = replace(options, s3=replace(options.s3, create_bucket=False))
    return _made("s3", options, "S3")


def _made(backend: str, options: BackendOptions, where: str) -> ObjectStore:
    try:
        return BACKENDS[backend](options)
    except OSError as error:
        raise LocationError(f"{where}: the {backend} backend cannot be opened: {error.strerror}") from None


def _options(settings: Settings) -> BackendOptions:
    return BackendOptions(
        memory_max_bytes=settings.memory.max_bytes,
        lock_timeout_seconds=settings.filesystem.lock_timeout_seconds,
        spool_max_bytes=settings.spool_max_bytes,
        remote_metrics=RemoteMetrics(CollectorRegistry()),
        s3=settings.s3_options,
        spool_dir=settings.spool_dir,
    )
