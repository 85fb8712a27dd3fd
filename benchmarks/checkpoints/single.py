"""One caller's saves beside two PutBlob each, and its loads beside GetBlob, of the same bytes on the same server."""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import count

from benchmarks.checkpoints.calls import CannedSave, load, prune, save, stub_of
from benchmarks.checkpoints.place import Place, Served
from benchmarks.measure import Contender, Run, take_turns, timed
from benchmarks.options import MIB, Options
from benchmarks.table import BYTES, CALLS, Table, compared, comparison
from benchmarks.traffic import Caller, CannedUpload, canned_data

_SAVE, _TWO_PUTS, _LOAD, _GET = "SaveCheckpoint", "two PutBlob", "LoadCheckpoint", "GetBlob"
_PUT = "PutBlob"
_MOST_ROUNDS = 9
_SIZES = {"16 KiB": 16 << 10, "1 MiB": MIB}
_TARGETS = {"1 MiB": 0.5}
_TIMES = 40
_LARGE_CHUNKS = 64


def run(place: Place, options: Options) -> list[Table]:
    """Measure, and return the tables."""
    rounds = min(options.rounds, _MOST_ROUNDS)
    small = comparison("Checkpoints, one caller, each a room of its own with a pointer", CALLS)
    large = comparison(f"Checkpoints of {_LARGE_CHUNKS} MiB, one caller", BYTES)
    for served in place.served:
        with Caller(served.server.address) as caller:
            for name, size in _SIZES.items():
                title = f"{name}, {served.name}"
                series = take_turns(f"checkpoints of {title}", _contenders(served, caller, size, 1, _TIMES), rounds)
                target = _TARGETS.get(name)
                small.rows.append(
                    compared(CALLS, f"{_SAVE} {title}", series[_SAVE], _TWO_PUTS, series[_TWO_PUTS], target=target)
                )
                small.rows.append(compared(CALLS, f"{_LOAD} {title}", series[_LOAD], _GET, series[_GET]))
            contenders = _contenders(served, caller, MIB, _LARGE_CHUNKS, 1)
            series = take_turns(f"large checkpoints, {served.name}", contenders, rounds)
            large.rows.append(compared(BYTES, f"{_SAVE} to {served.name}", series[_SAVE], _PUT, series[_PUT]))
            large.rows.append(compared(BYTES, f"{_LOAD} from {served.name}", series[_LOAD], _GET, series[_GET]))
    return [small, large]


def _contenders(served: Served, caller: Caller, size: int, chunks: int, times: int) -> Mapping[str, Contender]:
    stub = stub_of(served.server.address)
    canned, upload = CannedSave(canned_data(size), chunks), CannedUpload(canned_data(size), chunks)
    room, key = f"benchmark/{size}-{chunks}", f"benchmark/beside/{size}-{chunks}"
    epochs = count()
    amount = times if chunks == 1 else canned.size_bytes

    def saves() -> None:
        for _ in range(times):
            save(stub, room, next(epochs), canned)

    def turn(work: Callable[[], object]) -> Run:
        run = timed(amount, work, served.server, served.store)
        prune(stub, room)  # outside the time
        return run

    def repeated(work: Callable[[], object]) -> None:
        for _ in range(times):
            work()

    def two_puts() -> None:
        for number in range(times):
            caller.upload(f"{key}/{number}", upload)
            caller.upload(f"{key}/second", upload)

    def one_put() -> None:
        caller.upload(f"{key}/0", upload)

    saves()
    two_puts()
    return {
        _SAVE: partial(turn, saves),
        _TWO_PUTS: partial(turn, two_puts),
        _PUT: partial(turn, one_put),
        _LOAD: partial(turn, partial(repeated, partial(load, stub, room, canned.size_bytes))),
        _GET: partial(turn, partial(repeated, partial(caller.download, f"{key}/0", chunks))),
    }
