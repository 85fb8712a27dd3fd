"""How much memory the server takes for many long streams at once: uploads, then downloads."""

import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import cycle, islice
from types import TracebackType
from typing import Self

from benchmarks import processes
from benchmarks.measure import report
from benchmarks.options import MIB, Options
from benchmarks.processes import ServerProcess
from benchmarks.table import Table, verdict
from benchmarks.traffic import Caller, CannedUpload, canned_data
from holdfast.v1 import blob_store_pb2 as pb

_INTERVAL_SECONDS = 0.05
_UPLOADS_MIB = 128
_DOWNLOADS_MIB = 64
_SPARE_BYTES = 1 << 30


def run(options: Options) -> list[Table]:
    """Measure, and return the table. Raises `RuntimeError` if the disk has too little room."""
    streams, chunks = options.memory_streams, options.memory_chunks
    if shutil.disk_usage(options.directory).free < streams * chunks * MIB + _SPARE_BYTES:
        raise RuntimeError(f"memory: the temporary directory needs room for {streams} x {chunks} MiB")
    keys = [f"benchmark/memory/{number}" for number in range(streams)]
    rows = []
    with processes.filesystem_server(options.directory) as server, _Streams(server, keys, chunks) as callers:
        base = callers.small_call()
        rows.append(_row("uploads", "the first call", base, callers.watched(callers.upload), _UPLOADS_MIB))
        before_downloads = server.resident_bytes()
        watched = callers.watched(callers.download)
        rows.append(_row("downloads after these", "the first call", base, watched, _DOWNLOADS_MIB))
        rows.append(_row("downloads after these", "their begin", before_downloads, watched, None))
        callers.delete()
    with (
        processes.filesystem_server(options.directory) as server,
        _Streams(server, keys, chunks, connections=1) as callers,
    ):
        base = callers.small_call()
        watched = callers.watched(callers.upload)
        rows.append(_row("uploads on one connection, fresh server", "the first call", base, watched, _UPLOADS_MIB))
    with processes.filesystem_server(options.directory) as server, _Streams(server, keys, chunks) as callers:
        base = callers.small_call()
        watched = callers.watched(callers.download)
        rows.append(_row("downloads, fresh server", "the first call", base, watched, _DOWNLOADS_MIB))
        callers.delete()
    title = f"Resident memory of the server, {streams} streams of {chunks} MiB at once, files"
    columns = ("measured", "GB/s together", "against", "peak rise", "limit", "", "last half above the first")
    return [Table(title, columns, rows)]


class _Watch:
    """Samples a server's resident memory within a block."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.samples: list[int] = []

    def _watch(self) -> None:
        while not self._ended.wait(_INTERVAL_SECONDS):
            self.samples.append(self._server.resident_bytes())

    def __enter__(self) -> Self:
        self.samples.append(self._server.resident_bytes())
        self._begun = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.perf_counter() - self._begun
        self._ended.set()
        self._thread.join()
        self.samples.append(self._server.resident_bytes())


class _Streams:
    """One stream for each key, all at once: each on a connection of its own, or all on the same."""

    def __init__(self, server: ServerProcess, keys: list[str], chunks: int, connections: int | None = None) -> None:
        self._server = server
        self._keys = keys
        self._chunks = chunks
        self._upload = CannedUpload(canned_data(), chunks)
        self._resources = ExitStack()
        callers = [self._resources.enter_context(Caller(server.address)) for _ in range(connections or len(keys))]
        self._callers = list(islice(cycle(callers), len(keys)))

    def small_call(self) -> int:
        """Make the server's first small call, and return the memory that it has then."""
        self._callers[0].stub.DeleteBlob(pb.DeleteBlobRequest(key="benchmark/none"))
        return self._server.resident_bytes()

    def upload(self, caller: Caller, key: str) -> None:
        caller.upload(key, self._upload)

    def download(self, caller: Caller, key: str) -> None:
        caller.download(key, self._chunks)

    def watched(self, stream: Callable[[Caller, str], None]) -> tuple[float, list[int]]:
        """Run a stream for each key at once, and return the bytes a second and the samples of memory."""
        report(f"memory: {stream.__name__} of {len(self._keys)} x {self._chunks} MiB")
        with _Watch(self._server) as watch, ThreadPoolExecutor(len(self._keys)) as pool:
            list(pool.map(stream, self._callers, self._keys))
        return self._upload.size_bytes * len(self._keys) / watch.seconds, watch.samples

    def delete(self) -> None:
        for key in self._keys:
            self._callers[0].stub.DeleteBlob(pb.DeleteBlobRequest(key=key))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()


def _row(
    name: str, against: str, base: int, watched: tuple[float, list[int]], limit_mib: int | None
) -> tuple[str, ...]:
    rate, samples = watched
    half = len(samples) // 2
    rise = (max(samples) - base) / MIB
    return (
        name,
        f"{rate / 1e9:.2f}",
        against,
        f"{rise:.0f} MiB",
        "" if limit_mib is None else f"{limit_mib} MiB",
        "" if limit_mib is None else verdict(rise <= limit_mib),
        f"{(max(samples[half:]) - max(samples[:half])) / MIB:+.0f} MiB",
    )
