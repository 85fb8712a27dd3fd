"""Rooms of a CheckpointStore: emptied, and damaged at rest without the client."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import holdfast
from tests.support.server_process import ServerProcess


@contextmanager
def emptied(server: ServerProcess) -> Iterator[holdfast.Checkpoints]:
    """The checkpoints of a server: at first none. The epochs of rooms that were there go on."""
    with holdfast.connect(server.address) as client:
        for room in client.checkpoints.rooms():
            client.checkpoints.delete_room(room.room_id)
        yield client.checkpoints


def damage(data_dir: Path, room_id: str, epoch: int | None, where: bytes = b"") -> None:
    """Flip a bit of a checkpoint at rest, None: of the pointer: the first of the bytes `where`, or the very first.

    What a writer said stands in the footer, which lists read, and the payload before.
    """
    _damage(data_dir, f"snapshots/{room_id}/" + ("latest" if epoch is None else f"{epoch:020}"), where)


def damage_snapshot(data_dir: Path, room_id: str, where: bytes = b"") -> None:
    """Do the same to a snapshot."""
    _damage(data_dir, "hibernated/" + room_id.replace("%", "%25").replace("/", "%2F"), where)


def _damage(data_dir: Path, key: str, where: bytes) -> None:
    files = [path for path in (data_dir / "objects" / "tree").rglob("*") if path.is_file()]
    # The footer has the object's name.
    (path,) = [path for path in files if key.encode() in path.read_bytes()[-2000:]]
    data = bytearray(path.read_bytes())
    data[data.index(where)] ^= 1
    path.write_bytes(data)
