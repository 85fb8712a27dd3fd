"""The command `holdfast-server keys usage`: what in the store each key sealed, before one is retired."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from holdfast_server import calls, config, logs
from holdfast_server.checkpoints import key_file, key_options
from holdfast_server.checkpoints.key_file import KeyRingMissing
from holdfast_server.checkpoints.key_options import (
    EXIT_FAILURE,
    Config,
    DataDir,
    KeyRingPath,
    fail,
    failures_told,
)
from holdfast_server.checkpoints.key_ring import KeyRing, KeyState
from holdfast_server.checkpoints.key_usage import KeyUsage, Kind, Uses, key_usage
from holdfast_server.checkpoints.names import SNAPSHOTS
from holdfast_server.config import ConfigError, Settings
from holdfast_server.data_directory import DataDirectoryError
from holdfast_server.errors import Cancelled, HoldfastError
from holdfast_server.objects.base import ObjectStore
from holdfast_server.transfer.locations import LocationError, opened_in_place
from holdfast_server.transfer.outcome import printable
from holdfast_server.transfer.signals import stopping_on_signals
from holdfast_server.workers import Workers

_UNKNOWN = "unknown"
"""Of a key that is not in the ring."""

_NO_KEY = "-" * 16
_RENEWED = (Kind.POINTERS, Kind.TOMBSTONES, Kind.WAKE_MARKS)
"""What servers seal anew."""


def usage(
    *,
    key_id: Annotated[
        bytes | None,
        typer.Argument(metavar="[ID]", parser=key_options.key_id, help="Only this key. Without it: all of them."),
    ] = None,
    key_ring: KeyRingPath = None,
    data_dir: DataDir = None,
    config_file: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON document.")] = False,
) -> None:
    """Count what each key sealed of all that is stored, and name some rooms: what needs the key, if it is retired.

    It reads the end of every object, and verifies nothing. Servers may run meanwhile.
    """
    logs.configure("error", "text")
    with failures_told(), _store_failures_told():
        settings = _settings(data_dir, config_file)
        ring = _ring(key_ring or settings.checkpoint_store.key_ring)
        with _opened(settings) as objects, closing(Workers()) as workers:
            found = key_usage(objects, workers, [key.id for key in ring.keys])
    ids = _ids(ring, found) if key_id is None else [key_id]
    states = {key.id: key.state.value for key in ring.keys}
    if as_json:
        typer.echo(json.dumps(_document(ids, states, found)))
        return
    for each in ids:
        _show(each.hex(), states.get(each, _UNKNOWN), found.keys.get(each, {}))
    if found.unread:
        _show(_NO_KEY, "not read", found.unread)
    for each in ids:
        if states.get(each) == KeyState.VERIFYING:
            typer.echo(_advice(each.hex(), found.keys.get(each, {})))


def _settings(data_dir: Path | None, config_file: Path | None) -> Settings:
    settings = config.load({} if data_dir is None else {"data_dir": data_dir}, config_file)
    if settings.backend_of(settings.checkpoint_store.backend) == "memory":
        raise ConfigError("the backend is memory, and what that holds is in no other process's reach")
    return settings


def _ring(path: Path | None) -> KeyRing:
    """Return the ring; an empty one where there is none, since that may be why somebody asks."""
    try:
        return KeyRing(()) if path is None else key_file.read(path)
    except KeyRingMissing:
        return KeyRing(())


@contextmanager
def _opened(settings: Settings) -> Iterator[ObjectStore]:
    chosen = settings.checkpoint_store
    adopt = SNAPSHOTS if chosen.legacy else ""
    with stopping_on_signals() as stopping:
        try:
            with (
                calls.working_for(calls.Call(is_active=lambda: not stopping.is_set())),
                opened_in_place(settings, chosen.backend, adopt_prefix=adopt) as location,
            ):
                yield location.store
        except Cancelled:
            fail(f"{stopping.name} came", stopping.exit_code)


@contextmanager
def _store_failures_told() -> Iterator[None]:
    try:
        yield
    except (DataDirectoryError, LocationError) as error:
        fail(printable(str(error)), EXIT_FAILURE)
    except HoldfastError as error:
        fail(printable(error.message), EXIT_FAILURE)


def _ids(ring: KeyRing, found: KeyUsage) -> list[bytes]:
    """Return the keys of the ring in their order, and then those that are not in it."""
    ids = [key.id for key in ring.keys]
    return [*ids, *sorted(set(found.keys).difference(ids))]


def _show(name: str, state: str, uses: Uses) -> None:
    for kind in Kind:
        if (use := uses.get(kind)) is not None:
            rooms = ", ".join(map(printable, use.rooms)) + (", ..." if use.has_more_rooms else "")
            typer.echo(f"{name}  {state:9}  {kind.value:11}  {use.count:>7}  {rooms}")
    if not uses:
        typer.echo(f"{name}  {state:9}  nothing")


def _advice(name: str, uses: Uses) -> str:
    if not uses:
        return f"nothing needs key {name}: `holdfast-server keys retire {name}`"
    if all(kind in _RENEWED for kind in uses):
        return f"key {name} is needed, until the servers have sealed these anew: within six hours"
    return f"key {name} is needed: without it these cannot be read"


def _document(ids: list[bytes], states: dict[bytes, str], found: KeyUsage) -> dict[str, Any]:
    keys = [
        {"id": each.hex(), "state": states.get(each, _UNKNOWN), **_counted(found.keys.get(each, {}))} for each in ids
    ]
    return {"keys": keys, "not_read": _counted(found.unread)}


def _counted(uses: Uses) -> dict[str, Any]:
    return {
        kind.value.replace(" ", "_"): {"count": use.count, "rooms": use.rooms}
        for kind in Kind
        if (use := uses.get(kind)) is not None
    }
