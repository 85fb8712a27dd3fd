"""The stores: which keys they have, and how they come to be full in minutes."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import psutil

from benchmarks.measure import report
from benchmarks.traffic import Caller
from holdfast.v1 import blob_store_pb2 as pb
from holdfast_server.objects.body import Body
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.memory import MemoryStore
from tests.support.filled_trees import fill

CROWDED, SMALL = "crowded", "small"
SMALL_PREFIXES = 10
KEYS_PER_PREFIX = 100
VALUE = b"value of a small object" * 4

MEMORY_BYTES = 1 << 40
"""So much that it is no bound."""
MEMORY_SETTINGS = {"HOLDFAST_MEMORY__MAX_BYTES": str(MEMORY_BYTES)}

_DISK_BYTES = 8 << 10
"""What a blob takes on a disk at most: a block, and its part of a directory, in the journal, too."""
_MEMORY_BYTES = 3 << 10
"""What a blob takes in memory, rounded up."""
_FILLED_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Crowd:
    """The keys of a store: so many prefixes, each with `KEYS_PER_PREFIX`."""

    prefixes: int

    @property
    def keys_count(self) -> int:
        """How many keys there are."""
        return self.prefixes * KEYS_PER_PREFIX

    def prefix(self, number: int) -> str:
        """Return the prefix of a number, with the `/` at its end."""
        return f"prefix-{number:06}/"

    def keys(self) -> Iterator[str]:
        """Yield all keys in order."""
        for prefix in range(self.prefixes):
            for number in range(KEYS_PER_PREFIX):
                yield f"{self.prefix(prefix)}key-{number:03}"


def check_room(directory: Path, keys: int) -> None:
    """Raise `RuntimeError` if so many keys do not fit on the disk or into memory."""
    disk = os.statvfs(directory)
    lacks_inodes = disk.f_files > 0 and disk.f_favail < 2 * keys  # some file systems make them as needed, and tell none
    needed = keys * _DISK_BYTES
    if lacks_inodes or shutil.disk_usage(directory).free < needed:
        raise RuntimeError(f"crowd: the temporary directory needs room for {keys:,} files, {needed >> 20:,} MiB")
    if psutil.virtual_memory().available < keys * _MEMORY_BYTES:
        raise RuntimeError(f"crowd: {keys:,} blobs in memory need {keys * _MEMORY_BYTES >> 20:,} MiB")


def filled_memory(crowd: Crowd) -> MemoryStore:
    """Return a memory store with the keys."""
    store = MemoryStore(MEMORY_BYTES)
    for key in _reported("memory", crowd):
        store.put(ObjectKey(key), Body.of(VALUE))
    return store


def fill_called(caller: Caller, crowd: Crowd) -> None:
    """Put the keys into the caller's store, in batches."""
    keys = _reported("memory over gRPC", crowd)
    while items := [pb.BatchPutBlobsItem(key=key, data=VALUE) for key in islice(keys, _FILLED_AT_ONCE)]:
        results = caller.stub.BatchPutBlobs(pb.BatchPutBlobsRequest(items=items)).results
        if any(result.HasField("status") for result in results):
            raise RuntimeError(f"a store could not be filled: {results}")


def fill_files(root: Path, crowd: Crowd) -> None:
    """Write the files of the keys where a filesystem store with this root has them."""
    fill(root, _reported("files", crowd), VALUE)
    os.sync()  # or else it is written while others are measured, who wait for the same disk


def _reported(name: str, crowd: Crowd) -> Iterator[str]:
    """Yield the keys, and tell now and then how far that is."""
    every = max(crowd.keys_count // 10, 1)
    for number, key in enumerate(crowd.keys()):
        if number % every == 0:
            report(f"crowd: filling {name}, {number:,} of {crowd.keys_count:,}")
        yield key
