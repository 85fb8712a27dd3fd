"""How many requests to the store an operation takes, by the metric that an operator sees them in."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import repeat

from prometheus_client import CollectorRegistry

from benchmarks.measure import report
from benchmarks.options import Options
from benchmarks.s3.place import PART_BYTES, Place
from benchmarks.table import Table
from benchmarks.traffic import CannedUpload, canned_data
from holdfast_server.blobs.address import BlobKey
from holdfast_server.blobs.lists import BlobQuery
from holdfast_server.blobs.store import BlobStore
from holdfast_server.objects.base import WHOLE, ObjectStore
from holdfast_server.objects.body import NOTHING_DECLARED, Chunk, Declared
from holdfast_server.objects.conditions import CreateOnly
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.ranges import ByteRange, Range
from holdfast_server.objects.spool import Spool
from tests.support.s3_stores import OpenedStore

_METRIC = "holdfast_remote_requests"
_SWEEP = "list_uploads"
"""What the store asks by itself, whenever it is time."""

_SMALL, _LARGE, _LISTED = "requests/small", "requests/large", "requests/listed/"
_SMALL_BYTES = 64 << 10
_LISTED_KEYS = 1200


def run(place: Place, options: Options) -> Table:
    """Count, and return the table."""
    rows = []
    with OpenedStore(place.minio, part_bytes=PART_BYTES, spool=Spool(options.directory)) as opened:
        rows.append(_row("start on no bucket, with the probe", _sent(opened.registry)))
        report(f"requests: putting {_LISTED_KEYS} objects to be listed")
        listed = place.direct_to(opened.bucket)
        for number in range(_LISTED_KEYS):
            listed.put(f"{_LISTED}{number:04}", b"")
        for name, operation in _operations(opened.store, options.blob_chunks).items():
            report(f"requests: {name}")
            before = _sent(opened.registry)
            operation()
            rows.append(_row(name, _sent(opened.registry) - before))
    return Table("Requests to S3", ("operation", "requests", "which"), rows)


def _operations(objects: ObjectStore, chunks: int) -> dict[str, Callable[[], object]]:
    """Return what is counted, in the order in which it is to be done."""
    data = canned_data()
    upload = CannedUpload(data, chunks)
    trailer = Declared(upload.size_bytes, upload.sha256)
    small, large, copy = ObjectKey(_SMALL), ObjectKey(_LARGE), ObjectKey(f"{_SMALL}/copy")
    blobs = BlobStore(objects)

    def put_small() -> None:
        blobs.put(BlobKey(_SMALL), [Chunk(data[:_SMALL_BYTES])], declared=Declared(_SMALL_BYTES))

    def put_large(header: Declared) -> None:
        blobs.put(BlobKey(_LARGE), [*repeat(Chunk(data), chunks), trailer], declared=header)

    def get(key: str, wanted: Range = WHOLE) -> None:
        with blobs.get(BlobKey(key), wanted) as reader:
            for _ in reader:
                pass

    return {
        "put, 64 KiB": put_small,
        f"put, {chunks} MiB, sha256 in the header": partial(put_large, Declared(sha256=trailer.sha256)),
        f"put, {chunks} MiB, sha256 in the trailer": partial(put_large, NOTHING_DECLARED),
        "get, 64 KiB": partial(get, _SMALL),
        f"get, {chunks} MiB": partial(get, _LARGE),
        f"get, 1 KiB amid {chunks} MiB": partial(get, _LARGE, ByteRange(upload.size_bytes // 2, 1 << 10)),
        "stat": partial(blobs.stat, BlobKey(_SMALL)),
        f"list, 1000 of {_LISTED_KEYS} keys": partial(blobs.list, BlobQuery(prefix=_LISTED)),
        "copy, 64 KiB": partial(objects.copy, small, copy),
        f"copy, {chunks} MiB": partial(objects.copy, large, copy),
        "copy, 64 KiB, create_only": partial(objects.copy, small, ObjectKey(f"{_SMALL}/new"), condition=CreateOnly()),
        "delete": partial(blobs.delete, BlobKey(_SMALL)),
        "delete, nothing there": partial(blobs.delete, BlobKey(_SMALL)),
    }


def _sent(registry: CollectorRegistry) -> Counter[str]:
    """Return how many requests were sent so far, by their name and without the sweep's, which comes at any time."""
    sent: Counter[str] = Counter()
    for family in registry.collect():
        for sample in family.samples:
            if sample.name == f"{_METRIC}_total" and sample.labels["request"] != _SWEEP:
                sent[sample.labels["request"]] += int(sample.value)
    return sent


def _row(name: str, sent: Counter[str]) -> tuple[str, ...]:
    which = ", ".join(f"{count} {request}" for request, count in sent.items() if count)
    return name, str(sent.total()), which
