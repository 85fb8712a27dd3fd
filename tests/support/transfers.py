"""The commands `copy`, `import` and `export` as processes, stores for them to work on, and what came of it.

What is in a data directory is read here by docs/formats.md alone, without the code that wrote it.
"""

import base64
import fcntl
import hashlib
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast_server.data_directory import open_data_directory
from holdfast_server.objects.base import NO_ATTRIBUTES, Entry, ListQuery, ObjectStore
from holdfast_server.objects.body import Body
from holdfast_server.objects.filesystem import FilesystemStore
from holdfast_server.objects.filesystem.disk import Disk
from holdfast_server.objects.info import Attributes
from holdfast_server.objects.key import ObjectKey

SHARDING = "/repo/flatfs/shard/v1/next-to-last/2\n"
_TIMEOUT_SECONDS = 240
_TRAILER = struct.Struct("<8sHHIQI")
_CRC_BYTES = 4
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class Ran:
    """What a command ended with, and what it said."""

    code: int
    out: str
    err: str

    @property
    def summary(self) -> dict[str, Any]:
        """The summary of a command that was given `--json`."""
        document: dict[str, Any] = json.loads(self.out)
        return document

    def count(self, *names: str) -> dict[str, int]:
        """Return these counts of the summary."""
        return {name: self.summary[name] for name in names}


def environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of this process without settings of ours or of S3, and `env`."""
    ours = ("HOLDFAST_", "AWS_", "MINIO_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | dict(env or {})


def command(*arguments: object) -> list[str]:
    """Return the command line of `holdfast-server` with these arguments."""
    return [sys.executable, "-m", "holdfast_server", *map(str, arguments)]


def run(*arguments: object, env: Mapping[str, str] | None = None) -> Ran:
    """Run `holdfast-server` to its end."""
    done = subprocess.run(
        command(*arguments), env=environment(env), capture_output=True, timeout=_TIMEOUT_SECONDS, check=False
    )
    ran = Ran(done.returncode, done.stdout.decode(), done.stderr.decode())
    assert "Traceback" not in ran.err, ran.err
    return ran


class _UnsyncedDisk(Disk):
    """Leaves it to the kernel when files reach the disk: what a test begins with need not last."""

    def fsync(self, fd: int) -> None:
        pass


@contextmanager
def data_store(path: Path) -> Iterator[ObjectStore]:
    """Open the store in a data directory, made if it is missing."""
    directory = open_data_directory(path)
    store = FilesystemStore(directory.objects, store_id=directory.store_id, disk=_UnsyncedDisk())
    try:
        yield store
    finally:
        store.close()


def fill(path: Path, objects: Mapping[str, bytes], attributes: Attributes = NO_ATTRIBUTES) -> None:
    """Put objects into a data directory."""
    with data_store(path) as store:
        put_all(store, objects, attributes)


def put_all(store: ObjectStore, objects: Mapping[str, bytes], attributes: Attributes = NO_ATTRIBUTES) -> None:
    """Put objects into a store."""
    for key, data in objects.items():
        store.put(ObjectKey(key), Body.of(data), attributes=attributes)


LOCK_PATIENCE = {"HOLDFAST_FILESYSTEM__LOCK_TIMEOUT_SECONDS": "3600"}
"""The variable that lets a process wait for what is held back."""


@contextmanager
def held_back(path: Path, names: Sequence[str], *, free: int) -> Iterator[None]:
    """Let nobody store all of these objects in a data directory within the block, but the first `free` of them.

    So a command that stores them stands in the middle of its work for as long as a test needs. Of the locks that it
    takes, one for each two first digits of a name's sha256, those are held that the first objects do not need.
    """
    locks = [hashlib.sha256(name.encode()).hexdigest()[:2] for name in names]
    with ExitStack() as held:
        for lock in set(locks[free:]).difference(locks[:free]):
            file = held.enter_context((path / "objects" / "locks" / lock).open("ab"))
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class Found:
    """An object as it was found."""

    data: bytes
    content_type: str
    metadata: dict[str, str]


def objects_in(path: Path) -> dict[str, Found]:
    """Return all objects in a data directory, read file by file as docs/formats.md describes them."""
    root = path / "objects" / "tree"
    found = {}
    for directory, _, names in os.walk(root):
        for name in names:
            file = Path(directory) / name
            parts = file.relative_to(root).parts
            assert all(part.endswith(".d") for part in parts[:-1]), file
            assert name.endswith(".f"), file
            found["/".join(part[:-2] for part in parts)] = _object_in(file)
    return found


def _object_in(file: Path) -> Found:
    content = file.read_bytes()
    trailer = content[-_TRAILER.size - _CRC_BYTES : -_CRC_BYTES]
    magic, version, _, record_bytes, size, piece_bytes = _TRAILER.unpack(trailer)
    assert (magic, version, piece_bytes) == (b"HOLDFOBJ", 1, _PIECE_BYTES), file
    record_end = len(content) - _TRAILER.size - _CRC_BYTES
    record = json.loads(content[record_end - record_bytes : record_end])
    data = content[:size]
    assert hashlib.sha256(data).hexdigest() == record["sha256"], file
    return Found(data, record["content_type"], record["metadata"])


def objects_of(store: ObjectStore) -> dict[str, Found]:
    """Return all objects of a store but its own, read through it."""
    found = {}
    for entry in store.list(ListQuery(skip=frozenset({"holdfast/"}))):
        assert isinstance(entry, Entry)
        with store.get(ObjectKey(entry.name)) as reader:
            data = b"".join(chunk.data for chunk in reader)
            attributes = reader.info.attributes
        found[entry.name] = Found(data, attributes.content_type, dict(attributes.metadata))
    return found


def damage(path: Path, key: str) -> None:
    """Change a byte of an object in a data directory."""
    *directories, name = key.split("/")
    file = path.joinpath("objects", "tree", *(f"{part}.d" for part in directories), f"{name}.f")
    content = bytearray(file.read_bytes())
    content[0] ^= 1
    file.write_bytes(content)


def multihash(data: bytes) -> str:
    """Return the flatfs key of these bytes."""
    return base64.b32encode(b"\x12\x20" + hashlib.sha256(data).digest()).decode().lower().rstrip("=")


def flatfs_path(data: bytes) -> str:
    """Return where these bytes stand in a flatfs tree."""
    name = multihash(data)
    return f"{name[-3:-1]}/{name}.data"


def write_tree(root: Path, files: Mapping[str, bytes]) -> Path:
    """Write files below a directory."""
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def write_flatfs(root: Path, *blobs: bytes) -> Path:
    """Write a flatfs tree with these blobs."""
    return write_tree(root, {"SHARDING": SHARDING.encode(), **{flatfs_path(blob): blob for blob in blobs}})


def files_in(root: Path) -> dict[str, bytes]:
    """Return all files below a directory."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
