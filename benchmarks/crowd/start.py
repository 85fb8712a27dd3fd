"""What a start of the server costs on a full directory, against one on a directory with little in it."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from benchmarks import processes
from benchmarks.crowd.operations import MOST
from benchmarks.crowd.stores import CROWDED, SMALL, Crowd
from benchmarks.measure import Contender, Run, Spread, spread, take_turns
from benchmarks.options import MIB, Options
from benchmarks.table import Table, verdict, written
from holdfast_server.data_directory import open_data_directory
from holdfast_server.objects.filesystem import FilesystemStore
from tests.support.counting_disk import CountingDisk

_MOST_ROUNDS = 7


def run(options: Options, crowds: Mapping[str, Crowd], data: Mapping[str, Path]) -> Table:
    """Measure, and return the table."""
    peaks: dict[str, list[int]] = {name: [] for name in data}

    def start(name: str) -> Run:
        begun = time.perf_counter()
        with processes.filesystem_server(options.directory, data[name]) as server:
            seconds = time.perf_counter() - begun
            peaks[name].append(server.peak_bytes())
            return Run(1, seconds, server.cpu_seconds(), 0.0)

    contenders: dict[str, Contender] = {name: partial(start, name) for name in data}
    series = take_turns("crowd, start", contenders, min(options.rounds, _MOST_ROUNDS))
    seconds = {name: [run.seconds for run in runs] for name, runs in series.items()}
    cpu = {name: [run.server_cpu for run in runs] for name, runs in series.items()}
    work = {name: [_work(path)] for name, path in data.items()}
    columns = ("measured", CROWDED, SMALL, "ratio (min-max)", "target", "")
    title = f"A start on {crowds[CROWDED].keys_count:,} blobs in files, and on {crowds[SMALL].keys_count:,}"
    rows = [
        _row("until it is ready", seconds, lambda value: f"{value:.2f} s"),
        _row("CPU time until then", cpu, lambda value: f"{value:.2f} s"),
        _row("peak memory until then", peaks, lambda value: f"{value / MIB:.0f} MiB"),
        _row("system calls and names read to open the store", work, lambda value: f"{value:.0f}"),
    ]
    return Table(title, columns, rows)


def _work(data: Path) -> int:
    disk = CountingDisk()
    FilesystemStore(open_data_directory(data).objects, disk=disk).close()
    return disk.work


def _row(
    name: str, numbers: Mapping[str, list[float]] | Mapping[str, list[int]], told: Callable[[float], str]
) -> tuple[str, ...]:
    medians = {where: spread(found) for where, found in numbers.items()}
    cost = _ratio(numbers[CROWDED], numbers[SMALL])
    crowded, small = told(medians[CROWDED].median), told(medians[SMALL].median)
    return name, crowded, small, written(cost), f"<= {MOST:.2f}", verdict(cost.median <= MOST)


def _ratio(crowded: list[float] | list[int], small: list[float] | list[int]) -> Spread:
    return spread([full / little for full, little in zip(crowded, small, strict=True)])
