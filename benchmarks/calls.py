"""Small calls: StatBlob against an empty unary call, and PutBlob of 4 KiB against a bare upload."""

from contextlib import ExitStack
from functools import partial

from benchmarks import processes
from benchmarks.callers import SMALL_BYTES, Call, Callers, put, stat
from benchmarks.ceiling import SINK
from benchmarks.measure import Contender, take_turns
from benchmarks.options import Options
from benchmarks.table import CALLS, Table, compared, comparison
from benchmarks.traffic import Caller, CannedUpload, canned_data

_STAT_KEY = "benchmark/stat"
_PUT_KEY = "benchmark/put"
_STAT_TARGETS = {1: 0.75, 16: 0.6}
_BARE, _MEMORY, _FILES = "bare", "memory", "files"


def run(options: Options) -> list[Table]:
    """Measure, and return the tables."""
    with ExitStack() as stack:
        bare = stack.enter_context(processes.ceiling(options.directory))
        memory = stack.enter_context(processes.memory_server(options.directory))
        files = stack.enter_context(processes.filesystem_server(options.directory))
        callers = stack.enter_context(Callers())
        for server in (memory, files):
            with Caller(server.address) as caller:
                caller.upload(_STAT_KEY, CannedUpload(canned_data(SMALL_BYTES), 1))

        def contenders(call: Call, ours: str, theirs: str, count: int) -> dict[str, Contender]:
            targets = ((_BARE, bare, theirs), (_MEMORY, memory, ours), (_FILES, files, ours))
            return {
                name: partial(callers.run, partial(call, server.address, key), count, options.call_seconds, server)
                for name, server, key in targets
            }

        stats = comparison("StatBlob, metrics and access log on", CALLS)
        puts = comparison(f"PutBlob of {SMALL_BYTES // 1024} KiB with crc32c and sha256", CALLS)
        for count, stat_target in _STAT_TARGETS.items():
            title = f"{count} caller{'s' if count > 1 else ''}"
            series = take_turns(f"StatBlob, {title}", contenders(stat, _STAT_KEY, "", count), options.rounds)
            stats.rows.extend(
                compared(
                    CALLS, f"StatBlob from {name}, {title}", series[name], "empty call", series[_BARE], target=target
                )
                for name, target in ((_MEMORY, stat_target), (_FILES, None))
            )
            series = take_turns(f"small puts, {title}", contenders(put, _PUT_KEY, SINK, count), options.rounds)
            puts.rows.extend(
                compared(CALLS, f"PutBlob to {name}, {title}", series[name], "bare upload", series[_BARE])
                for name in (_MEMORY, _FILES)
            )
    return [stats, puts]
