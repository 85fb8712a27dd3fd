"""`holdfast checkpoint prune|rm`: deleting."""

import re
import sys
from datetime import timedelta
from typing import Annotated

import typer

from holdfast.checkpoint_commands import told
from holdfast.checkpoint_descriptions import described_room
from holdfast.descriptions import size_of
from holdfast.exit_codes import EXIT_FAILURE
from holdfast.options import RoomArgument
from holdfast.session import Session

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

retention = typer.Typer()


@retention.command()
def prune(
    context: typer.Context,
    room: Annotated[
        str | None, typer.Argument(metavar="ROOM", help="The room's id, unless --all.", show_default=False)
    ] = None,
    *,
    all_rooms: Annotated[bool, typer.Option("--all", help="Prune all rooms.")] = False,
    keep_last: Annotated[int, typer.Option(min=1, help="Keep the newest so many of a room.")],
    older_than: Annotated[str, typer.Option(metavar="AGE", help="Keep what is not older, e.g. 0s, 90m, 12h, 7d.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Delete nothing, and tell what would be.")] = False,
) -> None:
    """Delete old checkpoints: those that are outside the newest --keep-last and older than --older-than as well.

    Never the latest, or a newer one. A room whose latest is not good is left alone, and told on stderr; the exit code
    is that of the first of them.
    """
    session: Session = context.obj
    if (room is None) == (not all_rooms):
        raise typer.BadParameter(
            "give it, or --all" if room is None else "give it or --all, not both", param_hint="ROOM"
        )
    age = _age_of(older_than)
    with session.connect() as client:
        pruned = client.checkpoints.prune(room, keep_last=keep_last, older_than=age, dry_run=dry_run)
    if session.output.as_json:
        session.output.document(
            {
                "rooms": pruned.rooms,
                "deleted": pruned.deleted,
                "kept": pruned.kept,
                "deleted_bytes": pruned.deleted_bytes,
                "failed": [described_room(each) for each in pruned.failed],
                "dry_run": dry_run,
            }
        )
    else:
        would = "would be " if dry_run else ""
        rooms = f"{pruned.rooms} room{'' if pruned.rooms == 1 else 's'}"
        deleted = f"{pruned.deleted} {would}deleted ({size_of(pruned.deleted_bytes)})"
        failed = f", {len(pruned.failed)} FAILED" if pruned.failed else ""
        session.output.line(f"{rooms}: {deleted}, {pruned.kept} kept{failed}")
    code = 0
    for each in pruned.failed:
        code = told(session, each.room_id, each.error, code)
    raise typer.Exit(code)


@retention.command("rm")
def remove(
    context: typer.Context,
    room: RoomArgument,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    without_key: Annotated[
        bool, typer.Option("--without-key", help="Also if the key that its pointer is sealed with is lost for good.")
    ] = False,
) -> None:
    """Delete a room with all its checkpoints, but not its snapshot. One that is not there is no error.

    What late saves have left in a room that is deleted already goes, too.
    """
    session: Session = context.obj
    if not (yes or _agreed(room)):
        session.output.note("nothing was removed", {"room_id": room, "deleted": 0})
        raise typer.Exit(EXIT_FAILURE)
    with session.connect() as client:
        deleted = client.checkpoints.delete_room(room, without_key=without_key)
    if session.output.as_json:
        session.output.document(
            {
                "room_id": room,
                "existed": deleted.existed,
                "deleted": deleted.deleted,
                "next_epoch": deleted.next_epoch,
            }
        )
        return
    count = f"{deleted.deleted} checkpoint{'' if deleted.deleted == 1 else 's'}"
    verb = f"removed {room}: {count}" if deleted.existed or deleted.deleted else f"was not there: {room}"
    session.output.line(f"{verb} (next epoch {deleted.next_epoch})")


def _agreed(room: str) -> bool:
    if not sys.stdin.isatty():
        raise typer.BadParameter("there is nobody to ask: say --yes", param_hint="--yes")
    sys.stderr.write(f"Delete room {room!r} with all its checkpoints? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _age_of(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,9})([smhd])", text, re.ASCII)
    if found is None:
        raise typer.BadParameter(f"{text!r} is not a number with s, m, h or d", param_hint="--older-than")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})
