"""The commands `holdfast-server keys ...`: they change the file with the sealing keys, and never print a secret.

A server that runs takes up a change by itself. Run them as the user that the server runs as.
"""

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from holdfast_server import config
from holdfast_server.checkpoints import key_file
from holdfast_server.checkpoints.key_document import time_text
from holdfast_server.checkpoints.key_file import KeyRingMissing
from holdfast_server.checkpoints.key_ring import MIN_KEY_BYTES, KeyRing, KeyRingError, KeyState, SealKey
from holdfast_server.config import ConfigError
from holdfast_server.objects.filesystem.disk import make_directory

_EXIT_FAILURE = 1
_ID = re.compile(r"[0-9a-fA-F]{16}")
_MAX_LEGACY_BYTES = 64 << 10
"""Far above the longest secret: what is longer is some other file."""

_keys = typer.Typer(help="Make, list and rotate the keys that checkpoints are sealed with.", no_args_is_help=True)


def _key_id(text: str) -> bytes:
    if not _ID.fullmatch(text):
        raise typer.BadParameter("it is not 16 hex digits, as `keys list` shows it")
    return bytes.fromhex(text)


_KeyRingPath = Annotated[Path | None, typer.Option(help="The file with the keys. Without it: the one `serve` uses.")]
_DataDir = Annotated[Path | None, typer.Option(help="The data directory, as for `serve`.")]
_Config = Annotated[Path | None, typer.Option("--config", help="A TOML file with settings, as for `serve`.")]
_Id = Annotated[bytes, typer.Argument(metavar="ID", parser=_key_id, help="The key, as `keys list` shows it.")]


def register(cli: typer.Typer) -> None:
    """Add the commands."""
    cli.add_typer(_keys, name="keys")


@_keys.command("generate")
def _generate(key_ring: _KeyRingPath = None, data_dir: _DataDir = None, config_file: _Config = None) -> None:
    """Make the key ring with a key that signs; where there is one, add a key that waits for `rotate`."""
    with _failures_told():
        path = _path(key_ring, data_dir, config_file)
        make_directory(path.parent)
        fresh = KeyRing.fresh()
        if key_file.create(path, fresh):
            typer.echo(f"key ring {path} was made: key {fresh.signing.id.hex()} signs")
            typer.echo("back it up, apart from the data: without it no checkpoint can be read")
            return
        added = SealKey.fresh(KeyState.VERIFYING)
        key_file.change(path, lambda ring: ring.with_key(added))
        typer.echo(f"key {added.id.hex()} was added, and verifies")
        typer.echo("give the key ring to every server, then `holdfast-server keys rotate` makes this key sign")


@_keys.command("list")
def _list(
    *,
    key_ring: _KeyRingPath = None,
    data_dir: _DataDir = None,
    config_file: _Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON document.")] = False,
) -> None:
    """List the keys in the order in which they came: id, state, and when they were made."""
    with _failures_told():
        path = _path(key_ring, data_dir, config_file)
        ring = key_file.read(path)
    rows = [(key.id.hex(), key.state.value, time_text(key.create_time)) for key in ring.keys]
    if as_json:
        keys = [dict(zip(("id", "state", "create_time"), row, strict=True)) for row in rows]
        typer.echo(json.dumps({"key_ring": str(path), "keys": keys, "legacy_secrets": len(ring.legacy)}))
        return
    for name, state, created in rows:
        typer.echo(f"{name}  {state:9}  {created}")
    if ring.legacy:
        typer.echo(f"legacy secrets: {len(ring.legacy)}")


@_keys.command("rotate")
def _rotate(
    key_id: Annotated[
        bytes | None,
        typer.Argument(
            metavar="[ID]",
            parser=_key_id,
            help="The key. Without it: the last verifying one that came after the signing one, or else a new one.",
        ),
    ] = None,
    key_ring: _KeyRingPath = None,
    data_dir: _DataDir = None,
    config_file: _Config = None,
) -> None:
    """Make another key sign; the one that signed before verifies. Nothing that is stored needs to be written again."""
    spare = SealKey.fresh(KeyState.VERIFYING)

    def rotated(ring: KeyRing) -> KeyRing:
        if key_id is not None:
            return ring.rotated(key_id)
        waiting = ring.next_signing
        return ring.rotated(waiting.id) if waiting else ring.with_key(spare).rotated(spare.id)

    with _failures_told():
        before, after = key_file.change(_path(key_ring, data_dir, config_file), rotated)
    old = [key.id.hex() for key in before.keys if key.state is KeyState.SIGNING]
    new = after.signing.id.hex()
    if old == [new]:
        typer.echo(f"key {new} was signing already")
        return
    typer.echo(f"key {new} signs{'; it is new' if after.signing.id == spare.id else ''}")
    for name in old:
        typer.echo(f"key {name} verifies what it sealed")
    typer.echo("give the key ring to every server; one without this key cannot read what it seals")


@_keys.command("retire")
def _retire(
    *,
    key_id: _Id,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    key_ring: _KeyRingPath = None,
    data_dir: _DataDir = None,
    config_file: _Config = None,
) -> None:
    """Stop reading what a key sealed. Its secret stays in the file: `readmit` takes this back."""
    with _failures_told():
        path = _path(key_ring, data_dir, config_file)
        key_file.read(path).retired(key_id)  # what is refused is not asked for
        if not yes:
            _confirm(f"Nothing that key {key_id.hex()} sealed can be read any more. Retire it?")
        key_file.change(path, lambda ring: ring.retired(key_id))
    typer.echo(f"key {key_id.hex()} is retired; `holdfast-server keys readmit {key_id.hex()}` takes that back")


@_keys.command("readmit")
def _readmit(
    key_id: _Id, key_ring: _KeyRingPath = None, data_dir: _DataDir = None, config_file: _Config = None
) -> None:
    """Make a retired key verify again."""
    with _failures_told():
        key_file.change(_path(key_ring, data_dir, config_file), lambda ring: ring.readmitted(key_id))
    typer.echo(f"key {key_id.hex()} verifies")


@_keys.command("add-legacy")
def _add_legacy(
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="Holds the secret; a newline at its end is no part.")],
    key_ring: _KeyRingPath = None,
    data_dir: _DataDir = None,
    config_file: _Config = None,
) -> None:
    """Add the secret with which an older system sealed, to read what it wrote (`checkpoint_store.legacy`)."""
    with _failures_told():
        path = _path(key_ring, data_dir, config_file)
        secret = _legacy_secret(file)
        before, after = key_file.change(path, lambda ring: ring.with_legacy(secret))
    typer.echo(f"the legacy secret {'was there already' if before == after else 'is in the key ring'}")
    if len(secret) < MIN_KEY_BYTES:
        typer.echo(f"holdfast-server: warning: it has {len(secret)} bytes only, fewer than {MIN_KEY_BYTES}", err=True)


def _legacy_secret(name: str) -> bytes:
    if name == "-":
        secret = sys.stdin.buffer.read(_MAX_LEGACY_BYTES + 1)
    else:
        with Path(name).open("rb") as file:
            secret = file.read(_MAX_LEGACY_BYTES + 1)
    if len(secret) > _MAX_LEGACY_BYTES:
        raise KeyRingError(f"{name} holds more than a secret")
    secret = secret.removesuffix(b"\n").removesuffix(b"\r") if secret.endswith(b"\n") else secret
    if not secret:
        raise KeyRingError(f"{name} is empty")
    return secret


def _confirm(question: str) -> None:
    if not sys.stdin.isatty():
        raise KeyRingError(f"{question} There is no terminal to ask at: give --yes")
    if not typer.confirm(question):
        raise KeyRingError("nothing was changed")


def _path(key_ring: Path | None, data_dir: Path | None, config_file: Path | None) -> Path:
    """Return where the ring is that `serve` would use. Raises `ConfigError`."""
    if key_ring is not None:
        return key_ring
    flags = {} if data_dir is None else {"data_dir": data_dir}
    found = config.load(flags, config_file).checkpoint_store.key_ring
    if found is None:
        raise ConfigError("setting checkpoint_store.key_ring: it is not given, and neither is a data directory")
    return found


@contextmanager
def _failures_told() -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        _fail(str(error), os.EX_CONFIG)
    except KeyRingMissing as error:
        _fail(f"{error}: `holdfast-server keys generate` makes one", _EXIT_FAILURE)
    except KeyRingError as error:
        _fail(str(error), _EXIT_FAILURE)
    except OSError as error:
        _fail(": ".join(str(part) for part in (error.filename, error.strerror) if part), _EXIT_FAILURE)


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(f"holdfast-server: {message}", err=True)
    raise typer.Exit(code)
