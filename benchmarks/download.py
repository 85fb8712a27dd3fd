"""GetBlob of a large blob, against a bare stream of one canned message of 1 MiB."""

from contextlib import ExitStack
from functools import partial

import grpc

from benchmarks import processes
from benchmarks.ceiling import CANNED_BYTES_SERVICE
from benchmarks.measure import Run, take_turns, timed
from benchmarks.options import MIB, Options
from benchmarks.processes import ServerProcess
from benchmarks.table import BYTES, Table, compared, comparison
from benchmarks.traffic import Caller, CannedUpload, canned_data, drain
from holdfast.v1 import blob_store_pb2 as pb

_KEY = "benchmark/download"
_MESSAGE, _BYTES, _MEMORY, _FILE = "bare stream", "bare stream of bytes", "memory", "file"


def run(options: Options) -> list[Table]:
    """Measure, and return the table."""
    chunks = options.blob_chunks
    size = chunks * MIB
    with ExitStack() as stack:
        bare = stack.enter_context(processes.ceiling(options.directory))
        memory = stack.enter_context(processes.memory_server(options.directory))
        files = stack.enter_context(processes.filesystem_server(options.directory))
        bare_caller, memory_caller, file_caller = (
            stack.enter_context(Caller(server.address)) for server in (bare, memory, files)
        )
        upload = CannedUpload(canned_data(), chunks)
        for caller in (memory_caller, file_caller):
            caller.upload(_KEY, upload)
        request = pb.GetBlobRequest(length=size)
        canned_bytes = _canned_bytes(bare_caller.channel)

        def ours(server: ServerProcess, caller: Caller) -> Run:
            return timed(size, lambda: caller.download(_KEY, chunks), server)

        series = take_turns(
            "download",
            {
                _MESSAGE: lambda: timed(size, lambda: drain(bare_caller.stub.GetBlob(request), chunks), bare),
                _BYTES: lambda: timed(size, lambda: drain(canned_bytes(request), chunks), bare),
                _MEMORY: partial(ours, memory, memory_caller),
                _FILE: partial(ours, files, file_caller),
            },
            options.rounds,
        )
    table = comparison(f"GetBlob of {chunks} MiB, one caller", BYTES)
    table.rows.extend(
        compared(BYTES, f"GetBlob from {name}", series[name], ceiling, series[ceiling], target=target)
        for name, ceiling, target in (
            (_MEMORY, _MESSAGE, 0.9),
            (_MEMORY, _BYTES, None),
            (_FILE, _MESSAGE, 0.8),
            (_FILE, _BYTES, None),
        )
    )
    return [table]


def _canned_bytes(channel: grpc.Channel) -> "grpc.UnaryStreamMultiCallable[pb.GetBlobRequest, pb.GetBlobResponse]":
    return channel.unary_stream(
        f"/{CANNED_BYTES_SERVICE}/GetBlob",
        request_serializer=pb.GetBlobRequest.SerializeToString,
        response_deserializer=pb.GetBlobResponse.FromString,
    )
