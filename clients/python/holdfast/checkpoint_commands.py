"""`holdfast checkpoint ...`: saving, loading and looking."""

import sys
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from holdfast.checkpoint_descriptions import (
    described,
    described_entry,
    described_error,
    described_room,
    described_save,
    entry_line,
    outcome_line,
    refusal_line,
    room_line,
    rows,
    skipped_line,
)
from holdfast.checkpoint_results import SaveOutcome
from holdfast.checkpoints import Checkpoints
from holdfast.descriptions import size_of
from holdfast.errors import HoldfastError, IntegrityFailed, NotFound, PointerInvalid
from holdfast.exit_codes import EXIT_CONDITION, EXIT_DAMAGED, exit_code_of
from holdfast.options import (
    STDIO,
    LimitOption,
    MetadataOption,
    RoomArgument,
    SourceArgument,
    TargetArgument,
    WriterOption,
    metadata_of,
)
from holdfast.session import Session
from holdfast.sources import Data
from holdfast.targets import path_of, written
from holdfast.terminal import progress_bar

checkpoint = typer.Typer(help="Save, load and keep checkpoints of rooms, and put rooms to sleep.", no_args_is_help=True)

EpochOption = Annotated[int | None, typer.Option(min=0, help="The epoch; without it: the latest.")]
MinEpochOption = Annotated[int | None, typer.Option(min=0, help="Fail if it is older than this epoch.")]


@checkpoint.command()
def save(
    context: typer.Context,
    room: RoomArgument,
    source: SourceArgument,
    *,
    epoch: Annotated[
        int | None, typer.Option(min=0, help="The epoch; without it: the one to go on at, as the server tells it.")
    ] = None,
    metadata: MetadataOption = None,
    writer: WriterOption = "",
    if_latest: Annotated[
        int | None,
        typer.Option("--if-latest", min=-1, metavar="EPOCH", help="Only if this is the latest; -1: if there is none."),
    ] = None,
    require_new: Annotated[bool, typer.Option("--require-new", help="Only if the epoch is free.")] = False,
    replace_damaged_pointer: Annotated[
        bool, typer.Option("--replace-damaged-pointer", help="Put the room's pointer right, if it is damaged.")
    ] = False,
) -> None:
    """Save a file, or what comes from stdin, as a checkpoint of a room.

    An epoch is never overwritten. What is there already with the same bytes is as good as stored; with other bytes the
    exit code is 4, and where it is damaged 5: then nothing was stored, and the message names the epoch to go on at.
    --replace-damaged-pointer without --epoch saves above the newest checkpoint that is good.
    """
    session: Session = context.obj
    data: Data = sys.stdin.buffer if source == STDIO else Path(source)
    with session.connect() as client:
        at = _next_epoch(client.checkpoints, room, replaces=replace_damaged_pointer) if epoch is None else epoch
        with progress_bar(source) as progress:
            saved = client.checkpoints.save(
                room,
                at,
                data,
                metadata=metadata_of(metadata or []),
                writer_id=writer,
                if_latest_epoch=if_latest,
                require_new=require_new,
                replace_damaged_pointer=replace_damaged_pointer,
                progress=progress,
            )
    if session.output.as_json:
        session.output.document({"room_id": room, "epoch": at, **described_save(saved)})
    elif saved.is_there:
        session.output.line(outcome_line(room, at, saved))
    if not saved.is_there:
        code = EXIT_DAMAGED if saved.outcome is SaveOutcome.EXISTS_DAMAGED else EXIT_CONDITION
        details: dict[str, str | None] = {"room_id": room, "epoch": str(at), "next_epoch": str(saved.next_epoch)}
        session.output.error(refusal_line(room, at, saved), code, details=details)
        raise typer.Exit(code)


def _next_epoch(checkpoints: Checkpoints, room: str, *, replaces: bool) -> int:
    """Return the epoch to go on at, also (`replaces`) where the pointer cannot tell it."""
    try:
        return checkpoints.next_epoch(room)
    except PointerInvalid as damage:
        if not replaces:
            raise
        try:
            with checkpoints.load(room, fallback=True) as reader:
                known = reader.info.next_epoch
        except (IntegrityFailed, NotFound):  # none is good
            known = None
        if known is None:
            why = f"{damage.message}. Give --epoch, above all that `holdfast checkpoint ls` shows"
            raise PointerInvalid(damage.reason, why, damage.details) from damage
        return known


@checkpoint.command()
def load(
    context: typer.Context,
    room: RoomArgument,
    target: TargetArgument = None,
    *,
    epoch: EpochOption = None,
    min_epoch: MinEpochOption = None,
    fallback: Annotated[
        bool, typer.Option("--fallback", help="Where it is damaged: the newest good one that is older.")
    ] = False,
) -> None:
    """Load a checkpoint of a room into a file or to stdout.

    All of it is verified before. A file TARGET is there whole or not at all; in a directory it gets the last part of
    ROOM for a name. Without TARGET the bytes go to stdout, unless that is a terminal: say - if you mean it. What
    --fallback passes over is told on stderr. With stdout for the bytes, --json prints no result.
    """
    session: Session = context.obj
    path = path_of(target, room)
    with (
        session.connect() as client,
        client.checkpoints.load(room, epoch, min_epoch=min_epoch, fallback=fallback) as reader,
    ):
        info = reader.info
        for each in info.skipped:
            value = {"skipped": {"room_id": room, "epoch": each.epoch, "error": described_error(each.error)}}
            session.output.note(skipped_line(room, each), value)
        written(reader, info.size_bytes, path, room, session.output)
    if path is None:
        return
    if session.output.as_json:
        session.output.document({"checkpoint": described(info), "target": str(path)})
    else:
        session.output.line(f"wrote {path} (from {room} at epoch {info.epoch}, {size_of(info.size_bytes)})")


@checkpoint.command("stat")
def stat_checkpoint(
    context: typer.Context, room: RoomArgument, *, epoch: EpochOption = None, min_epoch: MinEpochOption = None
) -> None:
    """Tell what is known of a checkpoint of a room."""
    session: Session = context.obj
    with session.connect() as client:
        info = client.checkpoints.stat(room, epoch, min_epoch=min_epoch)
    if session.output.as_json:
        session.output.document(described(info))
    else:
        session.output.table(rows(info))


@checkpoint.command("ls")
def list_checkpoints(
    context: typer.Context,
    room: RoomArgument,
    *,
    from_epoch: Annotated[int, typer.Option(min=0, help="Only epochs from this one on.")] = 0,
    limit: LimitOption = None,
) -> None:
    """List the checkpoints of a room by rising epoch: time (UTC), size in bytes, epoch, writer.

    One that is damaged, or sealed with a key that is not available, is told on stderr, too; the exit code is that of
    the first of them. With --json one object a line.
    """
    session: Session = context.obj
    code = 0
    with session.connect() as client:
        for entry in islice(client.checkpoints.list(room, from_epoch=from_epoch), limit):
            if session.output.as_json:
                session.output.document(described_entry(entry))
            else:
                session.output.line(entry_line(entry))
            code = told(session, room, entry.error, code, epoch=entry.epoch)
    raise typer.Exit(code)


@checkpoint.command("rooms")
def list_rooms(
    context: typer.Context,
    prefix: Annotated[str, typer.Argument(metavar="PREFIX", help="What the ids start with.", show_default=False)] = "",
    *,
    limit: LimitOption = None,
) -> None:
    """List the rooms: when the latest checkpoint was saved (UTC), its epoch, room.

    A room whose pointer is damaged is told on stderr, too; the exit code is that of the first of them. With --json one
    object a line.
    """
    session: Session = context.obj
    code = 0
    with session.connect() as client:
        for room in islice(client.checkpoints.rooms(prefix), limit):
            if session.output.as_json:
                session.output.document(described_room(room))
            else:
                session.output.line(room_line(room))
            code = told(session, room.room_id, room.error, code)
    raise typer.Exit(code)


@checkpoint.command("watch")
def watch_rooms(
    context: typer.Context,
    rooms: Annotated[list[str], typer.Argument(metavar="ROOM...", help="Ids of the rooms.", show_default=False)],
) -> None:
    """Print the latest epochs of rooms as they rise, until interrupted: first the current ones.

    A line has the epoch, or - for none, and the room. Where it cannot be told, that is told on stderr, and the room is
    watched on. With --json one object a line.
    """
    session: Session = context.obj
    with session.connect() as client:
        for event in client.checkpoints.watch(rooms):
            if session.output.as_json:
                session.output.document(described_room(event))
            elif event.error is None:
                epoch = "-" if event.epoch is None else str(event.epoch)
                session.output.line(f"{epoch:>14} {event.room_id}")
            told(session, event.room_id, event.error)
            session.output.flush()


def told(
    session: Session, room: str, error: HoldfastError | None, earlier: int = 0, *, epoch: int | None = None
) -> int:
    """Report the failure of an item, if it is one, and return the exit code of the first: `earlier`, if there was."""
    if error is None:
        return earlier
    code = exit_code_of(error)
    names = [repr(room)] if epoch is None else [repr(room), f"epoch {epoch}"]
    where = room if epoch is None else f"{room}, epoch {epoch}"
    message = error.message if all(name in error.message for name in names) else f"{where}: {error.message}"
    session.output.error(message, code, error)
    return earlier or code
