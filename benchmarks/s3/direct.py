"""What a program does that uses `minio` itself: the measure of what Holdfast costs in between."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache

import urllib3
from minio import Minio

from benchmarks.callers import turning_keys
from benchmarks.options import MIB
from benchmarks.traffic import canned_data

_CONNECTIONS = 32
"""More than there are callers; the client's own default is 10."""


@dataclass(frozen=True, slots=True)
class Direct:
    """A bucket, reached with `minio` alone. It can be sent to other processes, each of which has its own client."""

    endpoint: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    bucket: str

    def pieces(self, key: str) -> Iterator[bytes]:
        """Get an object, and yield it 1 MiB at a time."""
        response = _client(self).get_object(self.bucket, key)
        try:
            yield from iter(lambda: response.read(MIB), b"")
        finally:
            response.close()
            response.release_conn()

    def download(self, key: str, size_bytes: int) -> None:
        """Get an object, and check that all of it came."""
        received = sum(map(len, self.pieces(key)))
        if received != size_bytes:
            raise RuntimeError(f"{received} of {size_bytes} bytes of {key} came")

    def put(self, key: str, data: bytes) -> None:
        """Put a small object."""
        _client(self).put_object(self.bucket, key, io.BytesIO(data), len(data))

    def upload(self, key: str, upload: "CannedObject", parts_at_once: int) -> None:
        """Put a large object in parts."""
        _client(self).put_object(
            self.bucket,
            key,
            upload.opened(),
            upload.size_bytes,
            part_size=upload.part_bytes,
            num_parallel_uploads=parts_at_once,
        )

    def delete(self, key: str) -> None:
        """Delete an object."""
        _client(self).remove_object(self.bucket, key)


class CannedObject:
    """An object of so many MiB for `put_object`, which is given its parts without copying a byte."""

    def __init__(self, chunks: int, part_bytes: int) -> None:
        self.size_bytes = chunks * MIB
        self.part_bytes = part_bytes
        self._part = canned_data() * (part_bytes // MIB)

    def opened(self) -> io.BytesIO:
        """Return it as a file that never ends: who reads knows the size."""
        return _CannedFile(self._part)


class _CannedFile(io.BytesIO):
    def __init__(self, part: bytes) -> None:
        super().__init__()
        self._part = part

    def read(self, size: int | None = -1, /) -> bytes:
        return self._part[:size]


def get(direct: Direct, key: str, size_bytes: int, _name: str) -> Callable[[], object]:
    """Prepare `Callers` to get a small object."""
    return lambda: direct.download(key, size_bytes)


def put(direct: Direct, key: str, size_bytes: int, name: str) -> Callable[[], object]:
    """Prepare `Callers` to put small objects, under keys of the caller's own in turn."""
    data = canned_data(size_bytes)
    keys = turning_keys(f"{key}/{name}")
    return lambda: direct.put(keys(), data)


@cache
def _client(direct: Direct) -> Minio:
    pool = urllib3.PoolManager(maxsize=_CONNECTIONS, retries=False)
    return Minio(
        direct.endpoint,
        access_key=direct.access_key,
        secret_key=direct.secret_key,
        secure=False,
        region="us-east-1",  # without it each bucket costs a request more
        http_client=pool,
    )
