"""What a page of a list costs in a crowded store, against the same page in a store that holds nothing else."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks import processes
from benchmarks.measure import Contender, Run, Series, rate, ratio, report, take_turns, timed
from benchmarks.options import Options
from benchmarks.table import Table, verdict, written
from benchmarks.traffic import Caller
from benchmarks.unsynced import UnsyncedDisk
from holdfast.v1 import blob_store_pb2 as pb
from holdfast_server.blobs.lists import BlobQuery
from holdfast_server.blobs.store import BlobStore
from holdfast_server.data_directory import open_data_directory
from holdfast_server.objects.base import ObjectStore
from holdfast_server.objects.body import Body
from holdfast_server.objects.filesystem import FilesystemStore
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.memory import MemoryStore

_KEYS_PER_PREFIX = 100
_MOST = 3.0
_TURN_PAGES = 20
_VALUE = b"value of a small object" * 4


def run(options: Options) -> list[Table]:
    """Measure, and return the table."""
    prefixes = [f"prefix-{number:04}/" for number in range(options.list_prefixes)]
    prefix = prefixes[len(prefixes) // 2]
    rows = []
    with ExitStack() as stack:
        crowded, alone = options.directory / "crowded", options.directory / "alone"
        stores: dict[str, tuple[ObjectStore, ObjectStore]] = {
            "memory": (MemoryStore(), MemoryStore()),
            "files": (_files(crowded, stack), _files(alone, stack)),
        }
        for name, (full, lone) in stores.items():
            _fill(name, full, prefixes)
            _fill(name, lone, [prefix])
            rows.append(_row(name, "in process", partial(_page, full, prefix), partial(_page, lone, prefix), options))
        servers = [
            stack.enter_context(processes.filesystem_server(options.directory, data)) for data in (crowded, alone)
        ]
        callers = [stack.enter_context(Caller(server.address)) for server in servers]
        full_page, lone_page = (partial(_called_page, caller, prefix) for caller in callers)
        rows.append(_row("files", "over gRPC", full_page, lone_page, options))
    keys = len(prefixes) * _KEYS_PER_PREFIX
    title = f"A page of {_KEYS_PER_PREFIX} keys under one of {len(prefixes):,} prefixes, {keys:,} keys in all"
    columns = ("measured", "crowded", "alone", "cost as a ratio (min-max)", "target", "")
    return [Table(title, columns, rows)]


def _files(data: Path, stack: ExitStack) -> FilesystemStore:
    """Return a store in the place where a server with this data directory has its own."""
    store = FilesystemStore(open_data_directory(data).objects, disk=UnsyncedDisk())
    stack.callback(store.close)
    return store


def _fill(name: str, store: ObjectStore, prefixes: list[str]) -> None:
    for done, prefix in enumerate(prefixes):
        if done % 100 == 0:
            report(f"lists: filling {name}, prefix {done} of {len(prefixes)}")
        for number in range(_KEYS_PER_PREFIX):
            store.put(ObjectKey(f"{prefix}key-{number:03}"), Body.of(_VALUE))


def _page(store: ObjectStore, prefix: str) -> int:
    return len(BlobStore(store).list(BlobQuery(prefix=prefix)).entries)


def _called_page(caller: Caller, prefix: str) -> int:
    return len(caller.stub.ListBlobs(pb.ListBlobsRequest(prefix=prefix)).blobs)


def _row(
    name: str, where: str, crowded: Callable[[], int], alone: Callable[[], int], options: Options
) -> tuple[str, ...]:
    contenders: dict[str, Contender] = {
        "crowded": lambda: _timed(crowded),
        "alone": lambda: _timed(alone),
    }
    series = take_turns(f"lists, {name} {where}", contenders, options.rounds)
    cost = ratio(series["alone"], series["crowded"])  # of rates: the other way round is that of costs
    return (
        f"ListBlobs of {name}, {where}",
        _milliseconds(series["crowded"]),
        _milliseconds(series["alone"]),
        written(cost),
        f"<= {_MOST:.2f}",
        verdict(cost.median <= _MOST),
    )


def _timed(page: Callable[[], int]) -> Run:
    def pages() -> None:
        for _ in range(_TURN_PAGES):
            if (found := page()) != _KEYS_PER_PREFIX:
                raise RuntimeError(f"a page has {found} keys instead of {_KEYS_PER_PREFIX}")

    return timed(_TURN_PAGES, pages)


def _milliseconds(series: Series) -> str:
    return f"{1000 / rate(series):.2f} ms a page"
