"""What the backend is asked for by one call of CheckpointStore, counted by the server's own metrics."""

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack

from prometheus_client import CollectorRegistry

from benchmarks.checkpoints.place import Place
from benchmarks.table import Table
from holdfast_server.checkpoints.checkpoint import SaveOptions
from holdfast_server.checkpoints.key_ring import FixedKeys, KeyRing
from holdfast_server.checkpoints.names import RoomId
from holdfast_server.checkpoints.opening import WaitingRoom
from holdfast_server.checkpoints.store import CheckpointStore
from holdfast_server.objects.body import NOTHING_DECLARED, Chunk, Declared
from holdfast_server.objects.measured import MeasuredStore, ObjectMetrics
from holdfast_server.objects.memory import MemoryStore
from holdfast_server.objects.spool import Spool
from holdfast_server.workers import Workers

_OPERATIONS = "holdfast_object_operations_total"


def run(place: Place) -> Table:
    """Count, and return the table."""
    registry = CollectorRegistry()
    with ExitStack() as stack:
        workers = Workers()
        stack.callback(workers.close)
        objects = MeasuredStore(MemoryStore(), ObjectMetrics(registry))
        room_for_loads = WaitingRoom(Spool(place.directory / "spool"), 1 << 20)
        keys = FixedKeys(KeyRing.fresh())

        def fresh() -> CheckpointStore:
            """Return a store as a server has it that has just started: it remembers no pointer."""
            return CheckpointStore(objects, keys, room_for_loads, workers)

        store, room = fresh(), RoomId("room")

        def save(epoch: int, expected: int | None = None) -> Callable[[], object]:
            parts: list[Chunk | Declared] = [Chunk(b"state"), NOTHING_DECLARED]
            return lambda: store.save(room, epoch, parts, options=SaveOptions(if_latest_epoch=expected))

        steps: dict[str, Callable[[], object]] = {
            "the first save of a room": save(1),
            "a save": save(2),
            "a save of an epoch below the latest": save(0),
            "a save repeated": save(2),
            "a save with if_latest_epoch": save(3, expected=2),
            "a load": lambda: store.load(room).close(),
            "StatCheckpoint": lambda: store.stat(room),
            "ListCheckpoints of 4": lambda: store.checkpoints_of(room),
        }
        table = Table("Backend operations of one call", ("call", "operations"))
        for name, work in steps.items():
            before = _counted(registry)
            work()
            spent = _counted(registry) - before
            table.rows.append((name, ", ".join(f"{count} {operation}" for operation, count in sorted(spent.items()))))
        store = fresh()
        before = _counted(registry)
        save(4)()
        spent = _counted(registry) - before
        table.rows.append(
            ("a save after a start", ", ".join(f"{count} {operation}" for operation, count in sorted(spent.items())))
        )
    return table


def _counted(registry: CollectorRegistry) -> Counter[str]:
    found: Counter[str] = Counter()
    for family in registry.collect():
        for sample in family.samples:
            if sample.name == _OPERATIONS:
                found[sample.labels["operation"]] += int(sample.value)
    return found
