"""The S3 backend on a real MinIO, beside `minio`, its client, on the same MinIO.

`place` has the processes; `direct` is what callers without Holdfast do, and `relay` the least that a server in between
can. `transfers`, `calls`, `batches`, `requests` and `memory` are the parts, one table each, or two.
"""

from benchmarks.options import Options
from benchmarks.s3 import batches, calls, memory, requests, transfers
from benchmarks.s3.place import Place
from benchmarks.table import Table


def run(options: Options) -> list[Table]:
    """Measure, and return the tables."""
    with Place(options.directory) as place:
        return [
            transfers.downloads(place, options),
            transfers.uploads(place, options),
            calls.run(place, options),
            *batches.run(place, options),
            requests.run(place, options),
            memory.run(place, options),
        ]
