"""Many callers of small calls, in processes of their own: one interpreter is no match for the server's."""

import multiprocessing
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import cycle
from types import TracebackType
from typing import Self

from benchmarks.measure import IDLE, HasCpu, Run
from benchmarks.traffic import Caller, CannedUpload, canned_data
from holdfast.v1 import blob_store_pb2 as pb
from holdfast_server.rpc.allocator import AllocatorOptions, tune

_PROCESSES = 2
_LEAD_SECONDS = 0.05
"""Until a turn begins: for all processes to hear of it."""

_KEYS = 500
"""Different keys that each caller has below its own."""

SMALL_BYTES = 4096

Prepare = Callable[[str], Callable[[], object]]
"""Is given a caller's own name, and returns what makes one call. To be picklable: it goes to another process."""

Call = Callable[[str, str, str], Callable[[], object]]
"""A `Prepare` once it knows the server's address and the key."""


def stat(address: str, key: str, _name: str) -> Callable[[], object]:
    """StatBlob of the key; of nothing if that is empty."""
    request = pb.StatBlobRequest(key=key) if key else pb.StatBlobRequest()
    stub = caller_of(address).stub
    return lambda: stub.StatBlob(request)


def put(address: str, key: str, name: str, size_bytes: int = SMALL_BYTES) -> Callable[[], object]:
    """PutBlob under keys of the caller's own below the key, in turn."""
    upload = CannedUpload(canned_data(size_bytes), 1)
    caller = caller_of(address)
    keys = turning_keys(f"{key}/{name}")
    return lambda: caller.upload(keys(), upload)


def get(address: str, key: str, _name: str) -> Callable[[], object]:
    """GetBlob of a blob of one chunk."""
    caller = caller_of(address)
    return lambda: caller.download(key, 1)


def turning_keys(prefix: str) -> Callable[[], str]:
    """Return what gives the next of the keys below a prefix, over and over."""
    turns = cycle(range(_KEYS))
    return lambda: f"{prefix}/{next(turns)}"


@cache
def caller_of(address: str) -> Caller:
    """Return this process's connection to a server; it lasts as long as the process."""
    return Caller(address)


@dataclass(frozen=True, slots=True)
class _Job:
    """What one process does: `threads` callers make calls from `begin` to `end` on the monotonic clock."""

    name: str
    prepare: Prepare
    threads: int
    begin: float
    end: float


class Callers:
    """Processes with callers in them, used turn by turn."""

    def __init__(self) -> None:
        # Not forked: gRPC's threads do not survive that.
        context = multiprocessing.get_context("spawn")
        self._pools = [ProcessPoolExecutor(1, mp_context=context, initializer=_initialize) for _ in range(_PROCESSES)]

    def run(self, prepare: Prepare, callers: int, seconds: float, server: HasCpu = IDLE, store: HasCpu = IDLE) -> Run:
        """Let `callers` make calls for some seconds, and return how many were answered; for the rest see `timed`."""
        pools = self._pools[: min(callers, len(self._pools))]
        threads = callers // len(pools)
        begin = time.monotonic() + _LEAD_SECONDS
        jobs = [_Job(str(number), prepare, threads, begin, begin + seconds) for number in range(len(pools))]
        server_before, store_before = server.cpu_seconds(), store.cpu_seconds()
        results = [pool.submit(_work, job) for pool, job in zip(pools, jobs, strict=True)]
        counts, cpus = zip(*(result.result() for result in results), strict=True)
        server_cpu, store_cpu = server.cpu_seconds() - server_before, store.cpu_seconds() - store_before
        return Run(sum(counts), seconds, server_cpu, sum(cpus), store_cpu)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pool in self._pools:
            pool.shutdown()


def _initialize() -> None:
    tune(AllocatorOptions())


def _work(job: _Job) -> tuple[int, float]:
    """Do a job in this process, and return the number of calls and the CPU seconds."""
    counts = [0] * job.threads
    calls = [job.prepare(f"{job.name}/{number}") for number in range(job.threads)]

    def work(number: int) -> None:
        call = calls[number]
        count = 0
        time.sleep(max(job.begin - time.monotonic(), 0))
        while time.monotonic() < job.end:
            call()
            count += 1
        counts[number] = count

    before = time.process_time()
    threads = [threading.Thread(target=work, args=(number,)) for number in range(job.threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts), time.process_time() - before
