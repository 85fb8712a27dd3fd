"""A node that is drained: 200 rooms of 1 MiB saved by 16 callers."""

from functools import partial

from benchmarks.callers import Callers
from benchmarks.checkpoints.calls import NODE, delete_all, saves_in_turn, stub_of
from benchmarks.checkpoints.place import Place, Served
from benchmarks.measure import Run, cpu_by_process, rate, take_turns
from benchmarks.options import MIB, Options
from benchmarks.table import Table

CALLERS = 16
ROOMS = 200
DRAIN_SECONDS = 60
"""In which shellcade wants all rooms of a node to be saved."""

_MOST_ROUNDS = 5
_CALLS_LAST = 4
"""Turns are so many times longer than those of small calls."""


def run(place: Place, options: Options) -> Table:
    """Measure, and return the table."""
    columns = ("backend", "rooms/s", "200 rooms take", "rooms drained in 60 s", "CPU ms/room server, callers")
    table = Table(f"Rooms of 1 MiB saved by {CALLERS} callers, each room at rising epochs", columns)
    each = -(-ROOMS // CALLERS)
    with Callers() as callers:

        def turn(served: Served) -> Run:
            address = served.server.address
            saves = partial(saves_in_turn, address, MIB, each)
            run = callers.run(saves, CALLERS, options.call_seconds * _CALLS_LAST, served.server, served.store)
            delete_all(stub_of(address), NODE)  # outside the time
            return run

        contenders = {served.name: partial(turn, served) for served in place.served}
        series = take_turns("rooms", contenders, min(options.rounds, _MOST_ROUNDS))
    for name, runs in series.items():
        found = rate(runs)
        server, _, client = cpu_by_process(runs)
        table.rows.append(
            (
                name,
                f"{found:,.0f}",
                f"{ROOMS / found:.1f} s",
                f"{found * DRAIN_SECONDS:,.0f}",
                f"{server * 1e3:.1f}, {client * 1e3:.1f}",
            )
        )
    return table
