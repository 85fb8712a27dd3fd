"""The data directory: whose it is, and which format it has.

It carries the file `holdfast/store`, a JSON object with the format's number and a random store id. A directory that
holds anything else is not ours and is left alone.
"""

import os
import re
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from holdfast_server.checkpoints.key_file import FILE_NAME, UNFINISHED
from holdfast_server.objects.filesystem.disk import make_directory, sync_directory
from holdfast_server.objects.marker import NAME, MarkerError, new_marker, store_id_in

_HARMLESS = frozenset({"lost+found", FILE_NAME})
"""What a new file system holds by itself, and the sealing keys, which may be made before the first start."""


_LEFT_BY_A_START = re.compile(r"store\.[0-9a-f]{32}|store")
"""The marker (another process may just have written it), and what a start leaves that dies in the middle of that."""


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
    marker = path / NAME
    try:
        make_directory(path)
        if not marker.exists():
            if foreign := _foreign(path):
                raise _holds(path, foreign)
            _create(marker)
        sync_directory(marker.parent)  # also for one who wrote it and died before that
        return DataDirectory(path, _store_id(marker))
    except OSError as error:
        raise _refused(path, error) from error


def is_new(path: Path) -> bool:
    """Tell whether `open_data_directory` would make a store there, without doing so. Raises `DataDirectoryError`."""
    try:
        if (path / NAME).exists():
            return False
        if path.exists() and (foreign := _foreign(path)):
            raise _holds(path, foreign)
    except OSError as error:
        raise _refused(path, error) from error
    return True


def _holds(path: Path, foreign: str) -> DataDirectoryError:
    return DataDirectoryError(
        f"data directory {path} holds {foreign!r} but no store of Holdfast: give an empty directory"
    )


def _refused(path: Path, error: OSError) -> DataDirectoryError:
    inner = f"{error.filename}: " if error.filename and str(error.filename) != str(path) else ""
    return DataDirectoryError(f"data directory {path} cannot be used: {inner}{error.strerror}")


def _foreign(path: Path) -> str:
    """Return the name of something in a directory without a marker that no start of ours left there."""
    for entry in path.iterdir():
        if entry.name == "holdfast" and entry.is_dir():
            strange = [inner.name for inner in entry.iterdir() if not _LEFT_BY_A_START.fullmatch(inner.name)]
            if strange:
                return f"holdfast/{strange[0]}"
        elif entry.name not in _HARMLESS and not UNFINISHED.fullmatch(entry.name):
            return entry.name
    return ""


def _create(marker: Path) -> None:
    """Write the marker in one step; of several processes that do so at once, one wins."""
    marker.parent.mkdir(mode=0o700, exist_ok=True)
    sync_directory(marker.parent.parent)
    temporary = marker.with_name(f"store.{uuid.uuid4().hex}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(new_marker())
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(temporary, marker)
    finally:
        temporary.unlink(missing_ok=True)


def _store_id(marker: Path) -> str:
    try:
        return store_id_in(marker.read_bytes())
    except MarkerError as error:
        raise DataDirectoryError(f"{marker} {error}") from None
