"""Many callers of small calls, in processes of their own: one interpreter is no match for the server's."""

import multiprocessing
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from enum import Enum, auto
from types import TracebackType
from typing import Protocol, Self

from benchmarks.measure import HasCpu, Run
from benchmarks.traffic import Caller, CannedUpload, canned_data
from holdfast.v1 import blob_store_pb2 as pb
from holdfast_server.rpc.allocator import AllocatorOptions, tune

_PROCESSES = 2
_LEAD_SECONDS = 0.05
"""Until a turn begins: for all processes to hear of it."""

_KEYS = 500
"""Different keys that each caller puts to in turn."""

SMALL_BYTES = 4096


class Call(Enum):
    """A small call."""

    STAT = auto()
    """StatBlob of the job's key."""
    PUT = auto()
    """PutBlob of 4 KiB under keys below the job's key."""


@dataclass(frozen=True, slots=True)
class _Job:
    """What one process does: `threads` callers make calls from `begin` to `end` on the monotonic clock."""

    address: str
    call: Call
    key: str
    threads: int
    begin: float
    end: float


class Callers:
    """Processes with callers in them, used turn by turn."""

    def __init__(self) -> None:
        # Not forked: gRPC's threads do not survive that.
        context = multiprocessing.get_context("spawn")
        self._pools = [ProcessPoolExecutor(1, mp_context=context, initializer=_initialize) for _ in range(_PROCESSES)]

    def run(self, server: "Target", call: Call, key: str, callers: int, seconds: float) -> Run:
        """Let `callers` call the server for some seconds, and return how many calls were answered."""
        pools = self._pools[: min(callers, len(self._pools))]
        threads = callers // len(pools)
        begin = time.monotonic() + _LEAD_SECONDS
        jobs = [
            _Job(server.address, call, f"{key}/{number}" if call is Call.PUT else key, threads, begin, begin + seconds)
            for number in range(len(pools))
        ]
        before = server.cpu_seconds()
        results = [pool.submit(_work, job) for pool, job in zip(pools, jobs, strict=True)]
        counts, cpus = zip(*(result.result() for result in results), strict=True)
        return Run(sum(counts), seconds, server.cpu_seconds() - before, sum(cpus))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pool in self._pools:
            pool.shutdown()


class Target(HasCpu, Protocol):
    """A server to call."""

    address: str


_callers: dict[str, Caller] = {}


def _initialize() -> None:
    tune(AllocatorOptions())


def _work(job: _Job) -> tuple[int, float]:
    """Do a job in this process, and return the number of calls and the CPU seconds."""
    caller = _callers.setdefault(job.address, Caller(job.address))
    counts = [0] * job.threads
    calls = [_call(caller, job, f"{job.key}/{number}") for number in range(job.threads)]

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


def _call(caller: Caller, job: _Job, prefix: str) -> Callable[[], object]:
    if job.call is Call.STAT:
        request = pb.StatBlobRequest(key=job.key) if job.key else pb.StatBlobRequest()
        return lambda: caller.stub.StatBlob(request)
    upload = CannedUpload(canned_data(SMALL_BYTES), 1)
    state = iter(range(1 << 62))
    return lambda: caller.upload(f"{prefix}/{next(state) % _KEYS}", upload)
