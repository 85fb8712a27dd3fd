"""CheckpointStore: what a save and a load take, beside the blobs that carry as much, and how fast a node is drained.

`single` sets one caller's saves and loads beside PutBlob and GetBlob on the same server, `rooms` drains 200 rooms by 16
callers, `operations` counts what the backend is asked for. `calls` is what callers do, `place` where they do it.
"""

from benchmarks.checkpoints import operations, rooms, single
from benchmarks.checkpoints.place import Place
from benchmarks.options import Options
from benchmarks.table import Table


def run(options: Options) -> list[Table]:
    """Measure, and return the tables."""
    with Place(options.directory) as place:
        return [*single.run(place, options), rooms.run(place, options), operations.run(place)]
