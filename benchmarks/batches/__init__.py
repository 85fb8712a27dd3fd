"""One call for many small blobs, and copies that do not pass through the caller.

The one caller is this process, with the generated stub and requests built beforehand; the server is a process of its
own. Counted are blobs (or keys) whose answer has arrived and been looked at, item by item, and the CPU time of both.
`small` measures batches and `copies` copies, on whatever is `served`; `many` is what the caller does, `rows` are rows.
"""

from contextlib import ExitStack

from benchmarks import processes
from benchmarks.batches import copies, small
from benchmarks.batches.rows import Target, beside
from benchmarks.batches.served import Served
from benchmarks.callers import SMALL_BYTES
from benchmarks.options import Options
from benchmarks.table import CALLS, Table
from benchmarks.traffic import Caller

_MEMORY, _FILES = "memory", "files"
_TARGETS = {
    (small.GET, _MEMORY): Target(rate=45_000, ratio=20),
    (small.GET, _FILES): Target(rate=25_000, ratio=12),
    (small.FIND, _MEMORY): Target(rate=200_000),
}


def run(options: Options) -> list[Table]:
    """Measure, and return the tables."""
    with ExitStack() as stack:
        started = {
            _MEMORY: stack.enter_context(processes.memory_server(options.directory)),
            _FILES: stack.enter_context(processes.filesystem_server(options.directory)),
        }
        served = [Served(name, server, stack.enter_context(Caller(server.address))) for name, server in started.items()]
        extent = small.Extent(options.batches, options.single_calls, options.sought_keys)
        batches = beside(f"Batches of blobs of {SMALL_BYTES // 1024} KiB, one caller", small.BLOBS)
        batches.rows.extend(small.rows(served, extent, options.rounds, _TARGETS))
        copied = beside("Copies within the server, one caller (CPU of the large ones: s/GB)", CALLS)
        copied.rows.extend(copies.rows(served, options.single_calls, options.rounds))
    return [batches, copied]
