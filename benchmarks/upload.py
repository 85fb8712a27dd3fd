"""PutBlob of a large blob, against servers that swallow it, and against writing a file."""

import os
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks import processes
from benchmarks.ceiling import HASHING_SINK, SINK
from benchmarks.measure import Run, take_turns, timed
from benchmarks.options import Options
from benchmarks.processes import ServerProcess
from benchmarks.table import BYTES, Table, compared, comparison
from benchmarks.traffic import Caller, CannedUpload, canned_data
from holdfast.v1 import blob_store_pb2 as pb

_KEY = "benchmark/upload"
_MEMORY, _FILE, _RAW = "memory", "files", "write and fsync"
_SINKS = {"sink": SINK, "hashing sink": HASHING_SINK}


def run(options: Options) -> list[Table]:
    """Measure, and return the table."""
    upload = CannedUpload(canned_data(), options.blob_chunks)
    size = upload.size_bytes
    with ExitStack() as stack:
        bare = stack.enter_context(processes.ceiling(options.directory))
        memory = stack.enter_context(processes.memory_server(options.directory))
        files = stack.enter_context(processes.filesystem_server(options.directory))
        bare_caller, memory_caller, file_caller = (
            stack.enter_context(Caller(server.address)) for server in (bare, memory, files)
        )

        def swallowed(key: str) -> Run:
            return timed(size, lambda: bare_caller.upload(key, upload), bare)

        def stored(server: ServerProcess, caller: Caller) -> Run:
            run = timed(size, lambda: caller.upload(_KEY, upload), server)
            caller.stub.DeleteBlob(pb.DeleteBlobRequest(key=_KEY))  # outside the time: none pays for removing another
            return run

        def raw() -> Run:
            path = options.directory / "raw"
            run = timed(size, lambda: _write(path, options.blob_chunks))
            path.unlink()
            return run

        series = take_turns(
            "upload",
            {
                **{name: partial(swallowed, key) for name, key in _SINKS.items()},
                _MEMORY: partial(stored, memory, memory_caller),
                _FILE: partial(stored, files, file_caller),
                _RAW: raw,
            },
            options.rounds,
        )
    sink, hashing_sink = _SINKS
    table = comparison(f"PutBlob of {options.blob_chunks} MiB with crc32c and sha256, one caller", BYTES)
    table.rows.extend(
        compared(BYTES, f"PutBlob to {name}", series[name], ceiling, series[ceiling], target=target)
        for name, ceiling, target in (
            (_MEMORY, sink, 0.5),
            (_MEMORY, hashing_sink, 0.85),
            (_FILE, sink, None),
            (_FILE, hashing_sink, None),
            (_FILE, _RAW, None),
        )
    )
    return [table]


def _write(path: Path, chunks: int) -> None:
    data = canned_data()
    with path.open("wb", buffering=0) as file:
        for _ in range(chunks):
            file.write(data)
        os.fsync(file.fileno())
