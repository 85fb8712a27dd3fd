"""GetBlob and PutBlob of a large blob."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

from benchmarks.measure import Contender, Run, take_turns, timed
from benchmarks.options import MIB, Options
from benchmarks.s3.direct import CannedObject
from benchmarks.s3.place import PART_BYTES, Place
from benchmarks.s3.rows import beside, compared
from benchmarks.table import BYTES, Table
from benchmarks.traffic import Caller, CannedUpload, canned_data
from holdfast.v1 import blob_store_pb2 as pb

_KEY = "benchmark/large"
_DIRECT_KEY = "direct/large"
_CALLERS = {1: 0.8, 2: None}
_HOLDFAST, _RELAY, _DIRECT = "GetBlob", "relay", "get_object"
_HEADER, _TRAILER = "sha256 in header", "through the spool"
_PARTS_AT_ONCE = {"put_object": 3, "put_object, 1 thread": 1}
"""How many parts `minio` sends at once: 3 is its default, and Holdfast sends one."""


def downloads(place: Place, options: Options) -> Table:
    """Measure GetBlob, and return the table."""
    chunks = options.blob_chunks
    size = chunks * MIB
    table = beside(f"GetBlob of {chunks} MiB from S3", BYTES)
    with ExitStack() as stack:
        servers = {_HOLDFAST: stack.enter_context(place.holdfast()), _RELAY: stack.enter_context(place.relay())}
        callers = {
            name: [stack.enter_context(Caller(server.address)) for _ in range(max(_CALLERS))]
            for name, server in servers.items()
        }
        threads = stack.enter_context(ThreadPoolExecutor(max(_CALLERS)))
        callers[_HOLDFAST][0].upload(_KEY, CannedUpload(canned_data(), chunks, foretold=True))
        place.direct.upload(_DIRECT_KEY, CannedObject(chunks, PART_BYTES), 1)
        keys = {_HOLDFAST: _KEY, _RELAY: _DIRECT_KEY}

        def at_once(works: Sequence[Callable[[], None]]) -> None:
            if len(works) == 1:
                works[0]()
            else:
                list(threads.map(lambda work: work(), works))

        def called(name: str, count: int) -> Run:
            works = [partial(caller.download, keys[name], chunks) for caller in callers[name][:count]]
            return timed(count * size, lambda: at_once(works), servers[name], place.cpu)

        def direct(count: int) -> Run:
            works = [partial(place.direct.download, _DIRECT_KEY, size)] * count
            return timed(count * size, lambda: at_once(works), store=place.cpu)

        for count, target in _CALLERS.items():
            title = "one caller" if count == 1 else f"{count} callers"
            contenders: dict[str, Contender] = {name: partial(called, name, count) for name in servers}
            contenders[_DIRECT] = partial(direct, count)
            series = take_turns(f"download from S3, {title}", contenders, options.rounds)
            table.rows.extend(
                compared(BYTES, f"{name}, {title}", series[name], other, series[other], target=bound)
                for name, other, bound in (
                    (_HOLDFAST, _DIRECT, target),
                    (_RELAY, _DIRECT, None),
                    (_HOLDFAST, _RELAY, None),
                )
            )
        callers[_HOLDFAST][0].stub.DeleteBlob(pb.DeleteBlobRequest(key=_KEY))
        place.direct.delete(_DIRECT_KEY)
    return table


def uploads(place: Place, options: Options) -> Table:
    """Measure PutBlob, and return the table."""
    chunks = options.blob_chunks
    canned = {
        name: CannedUpload(canned_data(), chunks, foretold=foretold)
        for name, foretold in ((_HEADER, True), (_TRAILER, False))
    }
    canned_object = CannedObject(chunks, PART_BYTES)
    with place.holdfast() as server, Caller(server.address) as caller:

        def ours(upload: CannedUpload) -> Run:
            run = timed(upload.size_bytes, lambda: caller.upload(_KEY, upload), server, place.cpu)
            caller.stub.DeleteBlob(pb.DeleteBlobRequest(key=_KEY))  # outside the time, as in the other contenders
            return run

        def direct(parts_at_once: int) -> Run:
            def upload() -> None:
                place.direct.upload(_DIRECT_KEY, canned_object, parts_at_once)

            run = timed(canned_object.size_bytes, upload, store=place.cpu)
            place.direct.delete(_DIRECT_KEY)
            return run

        contenders: dict[str, Contender] = {name: partial(ours, upload) for name, upload in canned.items()}
        contenders |= {name: partial(direct, count) for name, count in _PARTS_AT_ONCE.items()}
        series = take_turns("upload to S3", contenders, options.rounds)
    table = beside(f"PutBlob of {chunks} MiB to S3 in parts of {PART_BYTES // MIB} MiB, one caller", BYTES)
    table.rows.extend(
        compared(BYTES, f"PutBlob, {name}", series[name], direct_name, series[direct_name])
        for name in canned
        for direct_name in _PARTS_AT_ONCE
    )
    return table
