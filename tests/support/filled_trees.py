"""Many objects on a disk, quickly: their files are written into place at once, and nothing is synced."""

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from holdfast_server.objects.base import NO_ATTRIBUTES
from holdfast_server.objects.body import Body
from holdfast_server.objects.filesystem import FilesystemStore, record
from holdfast_server.objects.filesystem.disk import Disk
from holdfast_server.objects.filesystem.paths import Place, Walker, file_name, place_of
from holdfast_server.objects.info import ObjectInfo
from holdfast_server.objects.key import ObjectKey

_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY


def fill(root: Path, keys: Iterable[str], data: bytes) -> None:
    """Put `data` (at most 1 MiB, not empty) under each of the keys of the store at `root`, none of which it has.

    Some tens of thousands a second, where those of a directory stand together. Nobody else may use the store meanwhile.
    """
    FilesystemStore(root).close()  # makes what is to be there
    disk = Disk()
    digests = Body.of(data).read_to_end()
    sha256 = hashlib.sha256(data).digest()
    now = datetime.now(UTC)
    root_fd = disk.open(str(root / "tree"), _DIRECTORY_FLAGS)
    try:
        with Walker(disk, root_fd) as walker:
            here: Place = ()
            for number, text in enumerate(keys):
                key = ObjectKey(text)
                place = place_of(key)
                if place != here:
                    _make(disk, walker, place)
                    here = place
                info = ObjectInfo(key, len(data), f"{number:032x}", sha256, NO_ATTRIBUTES, now)
                fd = disk.open(file_name(key), _FILE_FLAGS, dir_fd=walker.at(place))
                try:
                    disk.write(fd, data + record.encode(info, digests.piece_crc32c))
                finally:
                    disk.close(fd)
    finally:
        disk.close(root_fd)


def _make(disk: Disk, walker: Walker, place: Place) -> None:
    for depth, name in enumerate(place):
        parent = walker.at(place[:depth])
        with suppress(FileExistsError):
            disk.mkdir(name, parent)
