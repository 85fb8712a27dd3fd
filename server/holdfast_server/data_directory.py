"""The data directory: whose it is, and which format it has.

It carries the file `holdfast/store`, a JSON object with the format's number and a random store id. A directory that
holds anything else is not ours and is left alone.
"""

import json
import os
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from holdfast_server.objects.filesystem.disk import make_directory, sync_directory

FORMAT = 1

_HARMLESS = frozenset({"lost+found"})
"""What a new file system holds by itself."""


class DataDirectoryError(Exception):
    """The data directory cannot be used; the message says what to do."""


@dataclass(frozen=True, slots=True)
class DataDirectory:
    """A directory that is ours."""

    path: Path
    store_id: str

    @property
    def objects(self) -> Path:
        """Where the filesystem backend keeps its objects."""
        return self.path / "objects"


def open_data_directory(path: Path) -> DataDirectory:
    """Open the data directory, and make it if it is missing or empty.

    Raises `DataDirectoryError` if it is somebody else's, of a newer format, or cannot be written.
    """
    path = path.absolute()
    marker = path / "holdfast" / "store"
    try:
        make_directory(path)
        if not marker.exists():
            foreign = sorted({entry.name for entry in path.iterdir()} - _HARMLESS - {"holdfast", "objects"})
            if foreign:
                raise DataDirectoryError(
                    f"data directory {path} holds {foreign[0]!r} but no store of Holdfast: give an empty directory"
                )
            _create(marker)
        return DataDirectory(path, _store_id(marker))
    except OSError as error:
        raise DataDirectoryError(f"data directory {path} cannot be used: {error.strerror}") from error


def _create(marker: Path) -> None:
    """Write the marker in one step; of several processes that do so at once, one wins."""
    make_directory(marker.parent)
    temporary = marker.with_name(f"store.{uuid.uuid4().hex}")
    content = json.dumps({"format": FORMAT, "store_id": uuid.uuid4().hex}) + "\n"
    try:
        with temporary.open("x") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(temporary, marker)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(marker.parent)


def _store_id(marker: Path) -> str:
    try:
        content = json.loads(marker.read_bytes())
        found, store_id = content["format"], content["store_id"]
        valid = isinstance(found, int) and isinstance(store_id, str)
    except (ValueError, KeyError, TypeError):
        valid = False
    if not valid:
        raise DataDirectoryError(f"{marker} is damaged: it is not the marker that Holdfast writes")
    if found > FORMAT:
        raise DataDirectoryError(
            f"{marker} says format {found}, and this server knows up to {FORMAT}: it was written by a newer Holdfast"
        )
    return str(store_id)
