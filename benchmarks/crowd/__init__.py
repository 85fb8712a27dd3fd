"""A million small blobs in one store, against a thousand in another: what one of them costs, and what a start does.

`stores` fills them, `operations` has what is done and its rows, `start` the starts of servers on the two directories.
In process nothing is synced, so that waiting for the disk hides no work; over gRPC the servers are as they are.
"""

from contextlib import ExitStack

from benchmarks import processes
from benchmarks.crowd import operations, start, stores
from benchmarks.crowd.operations import Called, InProcess
from benchmarks.crowd.stores import CROWDED, SMALL, Crowd
from benchmarks.options import Options
from benchmarks.table import Table
from benchmarks.traffic import Caller
from benchmarks.unsynced import UnsyncedDisk
from holdfast_server.data_directory import open_data_directory
from holdfast_server.objects.filesystem import FilesystemStore


def run(options: Options) -> list[Table]:
    """Measure, and return the tables. Raises `RuntimeError` if disk or memory have too little room."""
    crowds = {CROWDED: Crowd(options.crowd_prefixes), SMALL: Crowd(stores.SMALL_PREFIXES)}
    stores.check_room(options.directory, crowds[CROWDED].keys_count)
    table = operations.table(crowds)
    _memory(table, crowds, options)
    _memory_called(table, crowds, options)
    data = {name: options.directory / name for name in crowds}
    for name, crowd in crowds.items():
        stores.fill_files(open_data_directory(data[name]).objects, crowd)
    with ExitStack() as stack:
        opened = {}
        for name, crowd in crowds.items():
            store = FilesystemStore(open_data_directory(data[name]).objects, disk=UnsyncedDisk())
            stack.callback(store.close)
            opened[name] = InProcess(crowd, store)
        operations.add_rows(table, "files, in process", opened, options.rounds)
    with ExitStack() as stack:
        called = {}
        for name, crowd in crowds.items():
            server = stack.enter_context(processes.filesystem_server(options.directory, data[name]))
            called[name] = Called(crowd, stack.enter_context(Caller(server.address)))
        operations.add_rows(table, "files, over gRPC", called, options.rounds)
    return [table, start.run(options, crowds, data)]


def _memory(table: Table, crowds: dict[str, Crowd], options: Options) -> None:
    filled = {name: InProcess(crowd, stores.filled_memory(crowd)) for name, crowd in crowds.items()}
    operations.add_rows(table, "memory, in process", filled, options.rounds)


def _memory_called(table: Table, crowds: dict[str, Crowd], options: Options) -> None:
    with ExitStack() as stack:
        called = {}
        for name, crowd in crowds.items():
            directory = options.directory / f"memory-{name}"
            directory.mkdir()
            server = stack.enter_context(processes.memory_server(directory, stores.MEMORY_SETTINGS))
            caller = stack.enter_context(Caller(server.address))
            stores.fill_called(caller, crowd)
            called[name] = Called(crowd, caller)
        operations.add_rows(table, "memory, over gRPC", called, options.rounds)
