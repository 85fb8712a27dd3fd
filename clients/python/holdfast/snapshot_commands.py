"""`holdfast checkpoint hibernate|restore|hibernated`: rooms that sleep."""

import sys
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from holdfast.checkpoint_commands import told
from holdfast.checkpoint_descriptions import described, described_entry, entry_line
from holdfast.descriptions import size_of
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

snapshot = typer.Typer()


@snapshot.command()
def hibernate(
    context: typer.Context,
    room: RoomArgument,
    source: SourceArgument,
    *,
    metadata: MetadataOption = None,
    writer: Annotated[
        str, typer.Option("--writer", metavar="NAME", help="Who does it: a new name each time; to repeat it, the same.")
    ] = "",
    create_only: Annotated[bool, typer.Option("--create-only", help="Only if the room is not hibernated.")] = False,
    if_match: Annotated[
        str | None, typer.Option("--if-match", metavar="ETAG", help="Only if its snapshot has just this etag.")
    ] = None,
    replace_damaged: Annotated[
        bool, typer.Option("--replace-damaged", help="Also over what is damaged in the snapshot's place.")
    ] = False,
) -> None:
    """Store a file, or what comes from stdin, as the snapshot of a room that goes to sleep.

    A room has one snapshot: a new one replaces it, unless a condition forbids that. Repeated with the same --writer,
    after its answer was lost, it does not bring back a room that another one has restored meanwhile: exit code 4.
    What is damaged there stays, with exit code 5: it may have said that the room is awake. With --replace-damaged, or
    --if-match and its etag, it is replaced.
    """
    session: Session = context.obj
    data: Data = sys.stdin.buffer if source == STDIO else Path(source)
    with session.connect() as client, progress_bar(source) as progress:
        info = client.checkpoints.hibernate(
            room,
            data,
            metadata=metadata_of(metadata or []),
            writer_id=writer,
            create_only=create_only,
            if_match_etag=if_match,
            replace_damaged=replace_damaged,
            progress=progress,
        )
    if session.output.as_json:
        session.output.document({"snapshot": described(info)})
    else:
        session.output.line(f"hibernated {room} ({size_of(info.size_bytes)}, etag {info.etag})")


@snapshot.command()
def restore(
    context: typer.Context,
    room: RoomArgument,
    target: TargetArgument = None,
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Do not give the snapshot up.")] = False,
    writer: WriterOption = "",
) -> None:
    """Restore a room's snapshot into a file or to stdout, and give it up once the file is safe on the disk.

    All of it is verified before. A file TARGET is there whole or not at all. If another one restored the room
    meanwhile, the exit code is 4: the file is there, and the room is not yours. From stdout, and from what is no file,
    nobody knows what arrives: there the snapshot is kept, as with --keep.
    """
    session: Session = context.obj
    path = path_of(target, room)
    is_file = path is not None and (path.is_file() or not path.exists())
    with session.connect() as client:
        kept = keep or not is_file
        opened = client.checkpoints.restore(room) if kept else client.checkpoints.restoring(room, writer_id=writer)
        with opened as reader:
            written(reader, reader.info.size_bytes, path, room, session.output)
    info = reader.info
    if kept and not keep:
        session.output.note(f"the snapshot of {room} is kept: only a file is known to be safe", {"kept": room})
    if path is None:
        return
    if session.output.as_json:
        session.output.document({"snapshot": described(info), "target": str(path), "given_up": reader.is_confirmed})
    else:
        what = "given up" if reader.is_confirmed else "kept"
        session.output.line(f"wrote {path} (from {room}, {size_of(info.size_bytes)}), and the snapshot is {what}")


@snapshot.command("hibernated")
def list_hibernated(
    context: typer.Context,
    prefix: Annotated[str, typer.Argument(metavar="PREFIX", help="What the ids start with.", show_default=False)] = "",
    *,
    limit: LimitOption = None,
) -> None:
    """List the rooms that are hibernated: time (UTC), size in bytes, room.

    One whose snapshot is damaged, or sealed with a key that is not available, is told on stderr, too; the exit code is
    that of the first of them. With --json one object a line.
    """
    session: Session = context.obj
    code = 0
    with session.connect() as client:
        for entry in islice(client.checkpoints.hibernated(prefix), limit):
            if session.output.as_json:
                session.output.document(described_entry(entry))
            else:
                session.output.line(entry_line(entry))
            code = told(session, entry.room_id, entry.error, code)
    raise typer.Exit(code)
