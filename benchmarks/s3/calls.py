"""Small blobs, many callers at once."""

from functools import partial

from benchmarks import callers
from benchmarks.callers import Callers, Prepare
from benchmarks.measure import IDLE, Contender, HasCpu, take_turns
from benchmarks.options import Options
from benchmarks.s3 import direct
from benchmarks.s3.place import Place
from benchmarks.s3.rows import beside, compared
from benchmarks.table import CALLS, Table
from benchmarks.traffic import Caller, CannedUpload, canned_data

_BYTES = 64 << 10
_GET_KEY, _PUT_KEY = "benchmark/small", "benchmark/put"
_DIRECT_GET_KEY, _DIRECT_PUT_KEY = "direct/small", "direct/put"
_CALLERS = 16


def run(place: Place, options: Options) -> Table:
    """Measure, and return the table."""
    data = canned_data(_BYTES)
    place.direct.put(_DIRECT_GET_KEY, data)
    table = beside(f"{_BYTES // 1024} KiB in S3, {_CALLERS} callers", CALLS)
    with place.holdfast() as server, Callers() as processes:
        with Caller(server.address) as caller:
            caller.upload(_GET_KEY, CannedUpload(data, 1))

        def contender(prepare: Prepare, server: HasCpu) -> Contender:
            return partial(processes.run, prepare, _CALLERS, options.call_seconds, server, place.cpu)

        ours: dict[str, Prepare] = {
            "GetBlob": partial(callers.get, server.address, _GET_KEY),
            "PutBlob": partial(callers.put, server.address, _PUT_KEY, size_bytes=_BYTES),
        }
        theirs: dict[str, Prepare] = {
            "get_object": partial(direct.get, place.direct, _DIRECT_GET_KEY, _BYTES),
            "put_object": partial(direct.put, place.direct, _DIRECT_PUT_KEY, _BYTES),
        }
        for name, direct_name in zip(ours, theirs, strict=True):
            contenders = {
                name: contender(ours[name], server),
                direct_name: contender(theirs[direct_name], IDLE),
            }
            series = take_turns(f"small calls to S3, {name}", contenders, options.rounds)
            table.rows.append(compared(CALLS, name, series[name], direct_name, series[direct_name]))
    return table
