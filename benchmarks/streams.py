"""Long streams, all at once, and the memory that the server takes for them meanwhile."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle, islice
from types import TracebackType
from typing import Self

from benchmarks.measure import report
from benchmarks.processes import ServerProcess
from benchmarks.traffic import Caller, CannedUpload
from holdfast.v1 import blob_store_pb2 as pb

_INTERVAL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Watched:
    """What was seen of streams: their bytes a second together, and the server's resident bytes every now and then."""

    rate: float
    samples: list[int]

    def rise_above(self, base: int) -> int:
        """Return how much more memory the server had at its most."""
        return max(self.samples) - base

    @property
    def drift(self) -> int:
        """By how much the most of the last half is above that of the first: about 0, unless it grows with the bytes."""
        half = len(self.samples) // 2
        return max(self.samples[half:]) - max(self.samples[:half])


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


class Streams:
    """One stream of `upload.chunks` MiB for each key, all at once: each on a connection of its own, or on few."""

    def __init__(
        self, server: ServerProcess, keys: Sequence[str], upload: CannedUpload, connections: int | None = None
    ) -> None:
        self._server = server
        self._keys = keys
        self._upload = upload
        self._resources = ExitStack()
        callers = [self._resources.enter_context(Caller(server.address)) for _ in range(connections or len(keys))]
        self._callers = list(islice(cycle(callers), len(keys)))

    def small_call(self) -> int:
        """Make the server's first small call, and return the memory that it has then."""
        self._callers[0].stub.DeleteBlob(pb.DeleteBlobRequest(key="benchmark/none"))
        return self._server.resident_bytes()

    def upload(self, caller: Caller, key: str) -> None:
        """Put a key: for `watched`."""
        caller.upload(key, self._upload)

    def download(self, caller: Caller, key: str) -> None:
        """Get a key: for `watched`."""
        caller.download(key, self._upload.chunks)

    def watched(self, stream: Callable[[Caller, str], None]) -> Watched:
        """Run a stream for each key at once, and return what was seen."""
        report(f"memory: {stream.__name__} of {len(self._keys)} x {self._upload.chunks} chunks")
        with _Watch(self._server) as watch, ThreadPoolExecutor(len(self._keys)) as pool:
            list(pool.map(stream, self._callers, self._keys))
        return Watched(self._upload.size_bytes * len(self._keys) / watch.seconds, watch.samples)

    def delete(self) -> None:
        """Delete all keys."""
        for key in self._keys:
            self._callers[0].stub.DeleteBlob(pb.DeleteBlobRequest(key=key))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()
