"""What `--from` and `--to` name: a data directory, a file of settings, or the S3 settings of the environment."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry

from holdfast_server import calls, config
from holdfast_server.config import BackendName, ConfigError, Settings
from holdfast_server.data_directory import is_new, open_data_directory
from holdfast_server.errors import BackendRefused, HoldfastError, Reason, Unavailable
from holdfast_server.objects.base import Durability, Entry, ListQuery, ObjectStore
from holdfast_server.objects.marker import NAME as MARKER
from holdfast_server.objects.memory import MemoryStore
from holdfast_server.objects.registry import BACKENDS, BackendOptions, not_opened
from holdfast_server.objects.remote_metrics import RemoteMetrics
from holdfast_server.objects.s3 import S3Options, StoreMissing
from holdfast_server.objects.spool import Spool
from holdfast_server.transfer.work import Stopped

S3 = "s3"
_SETTINGS_SUFFIX = ".toml"

_FIRST_ANSWER_SECONDS = 20.0
_ABSENCE_SECONDS = 60.0
_PAUSE_SECONDS = 0.05
_RETRY_PAUSE_SECONDS = 0.5


class LocationError(Exception):
    """There is no store at a location, or it cannot be used for this; the message says why."""


class NothingThereError(LocationError):
    """A store could be made at a location, and none was yet."""


@dataclass(frozen=True, slots=True)
class Where:
    """Where something is that the user calls `name`: in a directory, or in a bucket."""

    name: str
    directory: Path | None = None
    bucket: S3Options | None = None


class Location:
    """An open store, called `name` by the user, and what is heard of it. `where`: where it is, if that is known."""

    def __init__(self, name: str, store: ObjectStore, where: Where | None = None) -> None:
        self.name = name
        self.store = store
        self.where = where or Where(name)
        self._error: HoldfastError | None = Unavailable(Reason.BACKEND_UNAVAILABLE, "it has not answered yet")

    def start(self) -> None:
        """Start the store, and wait until it can be used.

        Raises `NothingThereError`, and `LocationError` if it takes too long or is refused.
        """
        self.store.start(self._listen)
        if (error := self._awaited(_FIRST_ANSWER_SECONDS)) is not None:
            if isinstance(error, StoreMissing) or (error.reason is Reason.BUCKET_MISSING and self._may_be_made()):
                raise NothingThereError(f"{self.name}: {error.message}")
            raise LocationError(f"{self.name}: it cannot be used: {error.message}")

    def wait(self) -> bool:
        """Wait until the store can be used again; see `Patience`."""
        if self.store.describe().durability is not Durability.REMOTE:
            return False
        calls.pause(_RETRY_PAUSE_SECONDS, self.name)
        if (error := self._awaited(_ABSENCE_SECONDS)) is not None:
            raise Stopped(f"{self.name}: it cannot be used any more: {error.message}")
        return True

    def _may_be_made(self) -> bool:
        return self.where.bucket is not None and self.where.bucket.create_bucket

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


@contextmanager
def opened_source(text: str) -> Iterator[Location]:
    """Open the store that is read, within the block: it has to be there, and is not made.

    Raises `ConfigError` for wrong settings, and `LocationError` and `DataDirectoryError` for what cannot be used.
    """
    where, settings = _found(text)
    if where.directory is not None:
        if not (where.directory / MARKER).is_file():
            raise LocationError(f"{text}: there is no store of Holdfast in {where.directory}: no file {MARKER}")
        store = _in_directory(where.directory, settings)
    else:
        store = _in_bucket(settings, must_exist=True)
    with _opened(where, store) as location:
        yield location


@contextmanager
def opened_target(text: str, source: Where, *, dry_run: bool) -> Iterator[Location]:
    """Open the store that is written, within the block. It is made if it is not there: see docs/operations.md.

    With `dry_run` it is not made; an empty store stands for it. Raises as `opened_source` does, and `LocationError` if
    it is a part of where `source` is, or the other way round.
    """
    where, settings = _found(text)
    check_apart(source, where)
    with ExitStack() as stack:
        if where.directory is None:
            try:
                yielded = stack.enter_context(_opened(where, _in_bucket(settings, must_exist=dry_run)))
            except NothingThereError:
                if not dry_run:
                    raise
                yielded = stack.enter_context(_opened(where, MemoryStore()))
        elif dry_run and is_new(where.directory):
            yielded = stack.enter_context(_opened(where, MemoryStore()))
        else:
            yielded = stack.enter_context(_opened(where, _in_directory(where.directory, settings)))
        yield yielded


@contextmanager
def opened_in_place(settings: Settings, backend: BackendName | None, *, adopt_prefix: str = "") -> Iterator[Location]:
    """Open the store of a service of a server with these settings, within the block; `backend` is the service's own.

    `adopt_prefix` is as in `S3Options`. A data directory has to be there, and is not made; a bucket may be one where no
    server was yet. Raises as `opened_source` does.
    """
    if settings.backend_of(backend) == "filesystem" and settings.data_dir is not None:
        where = Where(str(settings.data_dir), settings.data_dir)
        if not (settings.data_dir / MARKER).is_file():
            raise LocationError(f"there is no store of Holdfast in {where.name}: no file {MARKER}")
        store = _in_directory(settings.data_dir, settings)
    else:
        options = _options(settings)
        if options.s3 is not None:
            options = replace(options, s3=replace(options.s3, adopt_prefix=adopt_prefix))
        where, store = Where(S3, bucket=options.s3), _made("s3", options, "S3")
    with _opened(where, store) as location:
        yield location


def check_apart(one: Where, other: Where) -> None:
    """Raise `LocationError` if the names show that one of two places is a part of the other."""
    for inner, outer in ((one, other), (other, one)):
        if inner.directory is not None and outer.directory is not None:
            if outer.directory.resolve() in inner.directory.resolve().parents:
                raise LocationError(f"{inner.name} lies in the directory of {outer.name}")
        elif inner.bucket is not None and outer.bucket is not None and _names_one_bucket(inner.bucket, outer.bucket):
            _check_prefixes(inner, outer, inner.bucket.prefix, outer.bucket.prefix)


def _names_one_bucket(one: S3Options, other: S3Options) -> bool:
    return (one.endpoint, one.bucket) == (other.endpoint, other.bucket)


def _check_prefixes(inner: Where, outer: Where, longer: str, shorter: str) -> None:
    if longer != shorter and longer.startswith(shorter):
        message = f"{inner.name} and {outer.name} are in one bucket, and the prefix {longer!r} of {inner.name}"
        raise LocationError(f"{message} lies in the other one")


def check_different(source: Location, target: Location) -> None:
    """Raise `LocationError` if both are one store, or one is a part of the other, whatever they are called."""
    check_apart(source.where, target.where)
    for inner, outer in ((source, target), (target, source)):
        if inner.where.bucket is None or outer.where.bucket is None:
            continue
        longer, shorter = inner.where.bucket.prefix, outer.where.bucket.prefix
        # One server goes by many names; so it is looked whether the marker of one shows in the other.
        if longer != shorter and longer.startswith(shorter):
            marker = _etag_of(inner.store, MARKER)
            if marker and marker == _etag_of(outer.store, longer.removeprefix(shorter) + MARKER):
                _check_prefixes(inner.where, outer.where, longer, shorter)
    ids = [location.store.describe().store_id for location in (source, target)]
    if ids[0] and ids[0] == ids[1]:
        message = f"{source.name} and {target.name} are the same store, or one is a copy of the other's files: {ids[0]}"
        raise LocationError(message)


def _etag_of(store: ObjectStore, name: str) -> str:
    """Return what a list says of an object that need not be of Holdfast's making; empty: it is not there."""
    first = next(iter(store.list(ListQuery(name))), None)
    return first.record.etag if isinstance(first, Entry) and first.name == name and first.record else ""


@contextmanager
def _opened(where: Where, store: ObjectStore) -> Iterator[Location]:
    with closing(store):
        location = Location(where.name, store, where)
        location.start()
        yield location


def _found(text: str) -> tuple[Where, Settings]:
    """Return where a store is, and the settings for it."""
    if not text:
        raise ConfigError("a location is empty: give a data directory, a settings file (.toml), or s3")
    path = Path(text)
    if text == S3:
        settings = config.load({})
        if settings.s3 is None:
            raise ConfigError(
                "s3: the environment has no settings of S3: set HOLDFAST_S3__BUCKET and what goes with it"
            )
        return Where(text, bucket=settings.s3_options), settings
    if not text.endswith(_SETTINGS_SUFFIX) or path.is_dir():
        return Where(text, path), config.load_file(None)
    try:
        settings = config.load_file(path)
    except ConfigError as error:
        raise ConfigError(f"{text}: {error}") from None
    backend = settings.backend_of(None)
    if backend == "memory":
        raise ConfigError(f"{text}: its backend is memory, and what that holds is in no other process's reach")
    if backend == "filesystem":
        return Where(text, settings.data_dir), settings
    return Where(text, bucket=settings.s3_options), settings


def _in_directory(path: Path, settings: Settings) -> ObjectStore:
    directory = open_data_directory(path)
    options = replace(_options(settings), objects_dir=directory.objects, store_id=directory.store_id)
    return _made("filesystem", options, str(path))


def _in_bucket(settings: Settings, *, must_exist: bool) -> ObjectStore:
    options = _options(settings)
    if options.s3 is not None and must_exist:
        options = replace(options, s3=replace(options.s3, create_bucket=False, must_exist=True))
    return _made("s3", options, "S3")


def _made(backend: str, options: BackendOptions, where: str) -> ObjectStore:
    try:
        return BACKENDS[backend](options)
    except OSError as error:
        raise LocationError(f"{where}: {not_opened(backend, options, error)}") from None


def _options(settings: Settings) -> BackendOptions:
    return BackendOptions(
        memory_max_bytes=settings.memory.max_bytes,
        lock_timeout_seconds=settings.filesystem.lock_timeout_seconds,
        remote_metrics=RemoteMetrics(CollectorRegistry()),
        s3=settings.s3_options,
        open_spool=partial(Spool, settings.spool_dir, settings.spool_max_bytes),
    )
