"""The commands `holdfast-server keys ...`: they change the file with the sealing keys, and never print a secret.

A server that runs takes up a change by itself. Run them as the user that the server runs as.
"""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from holdfast_server.checkpoints import key_file, key_options
from holdfast_server.checkpoints.key_document import time_text
from holdfast_server.checkpoints.key_file import KeyRingMissing
from holdfast_server.checkpoints.key_options import Config, DataDir, Id, KeyRingPath, failures_told, ring_path
from holdfast_server.checkpoints.key_ring import MIN_KEY_BYTES, KeyRing, KeyRingError, KeyState, SealKey
from holdfast_server.checkpoints.key_usage_commands import usage
from holdfast_server.objects.filesystem.disk import make_directory

_MAX_LEGACY_BYTES = 64 << 10
"""Far above the longest secret: what is longer is some other file."""

_WHAT_IT_DOES = {KeyState.VERIFYING: "verifies", KeyState.RETIRED: "is retired"}

_keys = typer.Typer(help="Make, list and rotate the keys that checkpoints are sealed with.", no_args_is_help=True)


def register(cli: typer.Typer) -> None:
    """Add the commands."""
    cli.add_typer(_keys, name="keys")
    _keys.command("usage")(usage)


@_keys.command("generate")
def _generate(key_ring: KeyRingPath = None, data_dir: DataDir = None, config_file: Config = None) -> None:
    """Make the key ring with a key that signs; where there is one, add a key that waits for `rotate`."""
    with failures_told():
        path = ring_path(key_ring, data_dir, config_file)
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
    key_ring: KeyRingPath = None,
    data_dir: DataDir = None,
    config_file: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON document.")] = False,
) -> None:
    """List the keys in the order in which they came: id, state, and when they were made."""
    with failures_told():
        path = ring_path(key_ring, data_dir, config_file)
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
            parser=key_options.key_id,
            help="The key. Without it: the last verifying one that came after the signing one, or else a new one.",
        ),
    ] = None,
    key_ring: KeyRingPath = None,
    data_dir: DataDir = None,
    config_file: Config = None,
) -> None:
    """Make another key sign; the one that signed before verifies. Nothing that is stored needs to be written again."""
    spare = SealKey.fresh(KeyState.VERIFYING)

    def rotated(ring: KeyRing) -> KeyRing:
        if key_id is not None:
            return ring.rotated(key_id)
        waiting = ring.next_signing
        return ring.rotated(waiting.id) if waiting else ring.with_key(spare).rotated(spare.id)

    with failures_told():
        before, after = key_file.change(ring_path(key_ring, data_dir, config_file), rotated)
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
    key_id: Id,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    key_ring: KeyRingPath = None,
    data_dir: DataDir = None,
    config_file: Config = None,
) -> None:
    """Stop reading what a key sealed: `usage` tells what that is. Its secret stays in the file for `readmit`."""
    with failures_told():
        path = ring_path(key_ring, data_dir, config_file)
        key_file.read(path).retired(key_id)  # what is refused is not asked for
        typer.echo(f"`holdfast-server keys usage {key_id.hex()}` tells what it sealed of what is stored", err=True)
        if not yes:
            _confirm(f"Nothing that key {key_id.hex()} sealed can be read any more. Retire it?")
        key_file.change(path, lambda ring: ring.retired(key_id))
    typer.echo(f"key {key_id.hex()} is retired; `holdfast-server keys readmit {key_id.hex()}` takes that back")


@_keys.command("readmit")
def _readmit(key_id: Id, key_ring: KeyRingPath = None, data_dir: DataDir = None, config_file: Config = None) -> None:
    """Make a retired key verify again."""
    with failures_told():
        key_file.change(ring_path(key_ring, data_dir, config_file), lambda ring: ring.readmitted(key_id))
    typer.echo(f"key {key_id.hex()} verifies")


@_keys.command("add")
def _add(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Another key ring: as it was before it was lost, say.")],
    key_ring: KeyRingPath = None,
    data_dir: DataDir = None,
    config_file: Config = None,
) -> None:
    """Add the keys of another key ring, to read what they sealed. None of them signs; a retired one stays retired."""
    with failures_told():
        path = ring_path(key_ring, data_dir, config_file)
        key_file.read(path)  # so that of two that are not there this one is named
        try:
            other = key_file.read(file)
        except KeyRingMissing as missing:
            raise KeyRingError(str(missing)) from None  # there is nothing to make
        before, after = key_file.change(path, lambda ring: ring.joined(other))
    known = {key.id for key in before.keys}
    for key in after.keys:
        if key.id not in known:
            typer.echo(f"key {key.id.hex()} was added, and {_WHAT_IT_DOES[key.state]}")
    for key in other.keys:
        if key.id in known:
            typer.echo(f"key {key.id.hex()} was there already")
    if before.legacy != after.legacy:
        typer.echo(f"legacy secrets added: {len(after.legacy) - len(before.legacy)}")
    if before != after:
        typer.echo("give the key ring to every server")


@_keys.command("add-legacy")
def _add_legacy(
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="Holds the secret; a newline at its end is no part.")],
    key_ring: KeyRingPath = None,
    data_dir: DataDir = None,
    config_file: Config = None,
) -> None:
    """Add the secret with which an older system sealed, to read what it wrote (`checkpoint_store.legacy`)."""
    with failures_told():
        path = ring_path(key_ring, data_dir, config_file)
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
