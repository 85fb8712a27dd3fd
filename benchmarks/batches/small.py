"""Many small blobs in one call, against one call for each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.batches.many import BATCH, ManyBlobs, SoughtBlobs
from benchmarks.batches.rows import Target, compared
from benchmarks.batches.served import Served
from benchmarks.measure import Contender, take_turns
from benchmarks.table import Unit

BLOBS = Unit(lambda rate: f"{rate:,.0f}/s", lambda cpu: f"{cpu * 1e6:.1f}", "CPU us/blob")

GET, PUT, DELETE, FIND = "BatchGetBlobs", "BatchPutBlobs", "BatchDeleteBlobs", "FindMissingBlobs"
_SINGLE = {GET: "GetBlob", PUT: "PutBlob", DELETE: "DeleteBlob", FIND: "StatBlob"}

_MOST_SEARCHES = 3
"""In one turn: each is for thousands of keys."""


@dataclass(frozen=True, slots=True)
class Extent:
    """How much one turn does: so many batches, so many calls for one blob each; and how many keys are looked for."""

    batches: int
    singles: int
    sought: int


def rows(
    served: Sequence[Served], extent: Extent, rounds: int, targets: Mapping[tuple[str, str], Target]
) -> list[tuple[str, ...]]:
    """Measure, and return the rows. `targets` are by operation and name of the server."""
    contenders: dict[str, dict[str, Contender]] = {operation: {} for operation in _SINGLE}
    for one in served:
        many = ManyBlobs(one.caller, "benchmark/batch", extent.singles)
        sought = SoughtBlobs(one.caller, "benchmark/sought", extent.sought, extent.singles)
        many.put()
        together, singly = partial(one.timed, BATCH), partial(one.timed, extent.singles)
        turns: dict[str, tuple[Contender, Contender]] = {
            GET: (partial(together, many.get, extent.batches), partial(singly, many.get_each)),
            PUT: (partial(together, many.put, extent.batches), partial(singly, many.put_each)),
            # All are put again before, outside the time: a deletion of nothing would cost less.
            DELETE: (
                partial(together, many.delete, extent.batches, before=many.put),
                partial(singly, many.delete_each, before=many.put),
            ),
            FIND: (
                partial(one.timed, extent.sought, sought.find, min(extent.batches, _MOST_SEARCHES)),
                partial(singly, sought.stat_each),
            ),
        }
        for operation, (batch, single) in turns.items():
            contenders[operation] |= {f"{operation} {one.name}": batch, f"{_SINGLE[operation]} {one.name}": single}
    found: list[tuple[str, ...]] = []
    for operation, singly_called in _SINGLE.items():
        series = take_turns(f"batches, {operation}", contenders[operation], rounds)
        count = extent.sought if operation == FIND else BATCH
        found.extend(
            compared(
                BLOBS,
                f"{operation} of {count:,}, {one.name}",
                series[f"{operation} {one.name}"],
                singly_called,
                series[f"{singly_called} {one.name}"],
                target=targets.get((operation, one.name)),
            )
            for one in served
        )
    return found
