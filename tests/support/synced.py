"""Directories of files, and the blobs that they became: made, read and damaged without the client."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

import holdfast
from holdfast import Synced
from tests.support.raw_blobs import entries, get, stub_of
from tests.support.server_process import ServerProcess


@contextmanager
def emptied(server: ServerProcess) -> Iterator[holdfast.Blobs]:
    """The blobs of a server: at first none."""
    with holdfast.connect(server.address) as client:
        keys = [entry.key for entry in client.blobs.list() if isinstance(entry, holdfast.BlobEntry)]
        assert all(existed is True for existed in client.blobs.delete_many(keys))
        yield client.blobs


def empty_directory(parent: Path) -> Path:
    """Make a directory to be synced."""
    root = parent / "root"
    root.mkdir()
    return root


def make_files(root: Path, files: dict[str, bytes]) -> None:
    """Write files, by their paths."""
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)


def stored(server: ServerProcess) -> dict[str, bytes]:
    """Return all blobs of the server, read without the client."""
    with grpc.insecure_channel(server.address) as channel:
        stub = stub_of(channel)
        return {entry.key: get(stub, entry.key) for entry in entries(stub)}


def outcomes(results: Iterable[Synced]) -> dict[str, str]:
    """Return what became of each path."""
    return {result.path: str(result.outcome) for result in results}


def damage_record(server: ServerProcess, key: str) -> None:
    """Damage the record of a blob at rest: the end of its file."""
    root = Path(next(part.split("=", 1)[1] for line in server.log for part in line.split() if "data_dir=" in part))
    (path,) = [path for path in root.rglob("*") if path.is_file() and key.encode() in path.read_bytes()[-2000:]]
    with path.open("r+b") as file:
        file.seek(-30, os.SEEK_END)
        file.write(bytes(30))
