"""`python -m benchmarks [SECTION ...]`: measures, and prints a table for each section.

Progress goes to standard error, tables to standard output. Targets are told and judged; missing one fails nothing.
"""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import batches, calls, checkpoints, crowd, download, lists, machine, memory, s3, upload
from benchmarks.measure import report
from benchmarks.options import Options, quick
from benchmarks.table import Table, show
from holdfast_server.rpc.allocator import AllocatorOptions, tune
from tests.support.s3_servers import MinioServer

_SECTIONS: dict[str, Callable[[Options], list[Table]]] = {
    "download": download.run,
    "upload": upload.run,
    "calls": calls.run,
    "batches": batches.run,
    "checkpoints": checkpoints.run,
    "lists": lists.run,
    "crowd": crowd.run,
    "memory": memory.run,
    "s3": s3.run,
}
_ROUNDS = 15
_QUICK_ROUNDS = 3


def main() -> None:
    """Run the sections that the command line names, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"any of: {', '.join(_SECTIONS)}; none: all")
    parser.add_argument("--rounds", type=int, help=f"turns of each contender (default {_ROUNDS})")
    parser.add_argument("--quick", action="store_true", help="little data and few rounds: to see that it works")
    parser.add_argument("--dir", type=Path, help="a directory on the disk to measure (default: the temporary one)")
    given = parser.parse_args()
    if unknown := [name for name in given.sections if name not in _SECTIONS]:
        parser.error(f"unknown section {unknown[0]!r}; there are {', '.join(_SECTIONS)}")
    sections = given.sections or list(_SECTIONS)
    if "s3" in sections and not MinioServer.built.exists():
        parser.error(f"the section s3 needs MinIO, which is not there: {MinioServer.how_to_get}")
    # Ended from outside it still ends its servers and removes its files.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    tune(AllocatorOptions())  # this process is the client of streams, and should not be what limits them

    print(machine.facts(), flush=True)
    begun = time.monotonic()
    for name in sections:
        with tempfile.TemporaryDirectory(prefix="holdfast-bench-", dir=given.dir) as directory:
            make = quick if given.quick else Options
            options = make(given.rounds or (_QUICK_ROUNDS if given.quick else _ROUNDS), Path(directory))
            neighbours = machine.Neighbours()
            for table in _SECTIONS[name](options):
                show(table)
            print(f"  {neighbours.told()}", flush=True)
    report(f"done in {time.monotonic() - begun:.0f} s\n")


if __name__ == "__main__":
    main()
