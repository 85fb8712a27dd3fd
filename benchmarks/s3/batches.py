"""Batches and copies of a server before MinIO, against its own calls for one blob each."""

from benchmarks.batches import copies, small
from benchmarks.batches.rows import beside
from benchmarks.batches.served import Served
from benchmarks.callers import SMALL_BYTES
from benchmarks.options import Options
from benchmarks.s3.place import Place
from benchmarks.table import CALLS, Table
from benchmarks.traffic import Caller

_MOST_ROUNDS, _SINGLES, _SOUGHT = 5, 50, 1000
"""A call to S3 takes milliseconds: fewer of them, and fewer turns, tell as much."""

_PROCESSES = "server, MinIO, caller"


def run(place: Place, options: Options) -> list[Table]:
    """Measure, and return the tables."""
    rounds = min(options.rounds, _MOST_ROUNDS)
    with place.holdfast() as server, Caller(server.address) as caller:
        served = [Served("S3", server, caller, place.cpu)]
        batches = beside(f"Batches of blobs of {SMALL_BYTES // 1024} KiB in S3, one caller", small.BLOBS, _PROCESSES)
        batches.rows.extend(small.rows(served, small.Extent(1, _SINGLES, _SOUGHT), rounds, {}))
        copied = beside("Copies within S3, one caller (CPU of the large ones: s/GB)", CALLS, _PROCESSES)
        copied.rows.extend(copies.rows(served, _SINGLES, rounds))
    return [batches, copied]
