"""Turns, and what is compared between them.

Contenders take turns, A B C A B C, and a ratio is taken within each round, between runs that are a second apart: so
what else the machine does disturbs both sides alike. What is reported of the ratios is their median, least and most.
"""

import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Run:
    """One turn: how much was done (bytes or calls), in how many seconds, at which CPU seconds on either side.

    `store_cpu`: those of the store behind the server, where there is one.
    """

    amount: int
    seconds: float
    server_cpu: float
    client_cpu: float
    store_cpu: float = 0.0

    @property
    def rate(self) -> float:
        """Amount a second."""
        return self.amount / self.seconds


Contender = Callable[[], Run]
Series = Sequence[Run]


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some numbers, and their ends."""

    median: float
    low: float
    high: float


class HasCpu(Protocol):
    """A process whose CPU time can be told."""

    def cpu_seconds(self) -> float:
        """Return the CPU seconds that it has used so far."""


class Idle:
    """The process that is not there: takes no CPU time."""

    def cpu_seconds(self) -> float:
        """Return 0."""
        return 0.0


IDLE = Idle()


def timed(amount: int, work: Callable[[], object], server: HasCpu = IDLE, store: HasCpu = IDLE) -> Run:
    """Run `work` in this process against `server` with the `store` behind it, and return what it took."""
    server_before, store_before = server.cpu_seconds(), store.cpu_seconds()
    client_before = time.process_time()
    begun = time.perf_counter()
    work()
    seconds = time.perf_counter() - begun
    client_cpu = time.process_time() - client_before
    server_cpu, store_cpu = server.cpu_seconds() - server_before, store.cpu_seconds() - store_before
    return Run(amount, seconds, server_cpu, client_cpu, store_cpu)


def take_turns(title: str, contenders: Mapping[str, Contender], rounds: int) -> dict[str, Series]:
    """Give each contender its turn in each round, after one round that does not count.

    Every second round goes backwards, so that none is always the one after the same other.
    """
    series: dict[str, list[Run]] = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(rounds + 1):
        report(f"{title}: round {number} of {rounds}" if number else f"{title}: warming up")
        for name in names if number % 2 else reversed(names):
            run = contenders[name]()
            if number:
                series[name].append(run)
    return dict(series)


def spread(numbers: Sequence[float]) -> Spread:
    """Return median and ends of some numbers."""
    return Spread(statistics.median(numbers), min(numbers), max(numbers))


def rate(series: Series) -> float:
    """Return the median rate."""
    return statistics.median(run.rate for run in series)


def ratio(ours: Series, ceiling: Series) -> Spread:
    """Return how our rate compares to the ceiling's, round by round."""
    return spread([mine.rate / bare.rate for mine, bare in zip(ours, ceiling, strict=True)])


def cpu_per_amount(series: Series) -> tuple[float, float]:
    """Return the CPU seconds of the server for a byte or call, and those of both sides."""
    server, _, client = cpu_by_process(series)
    return server, server + client


def cpu_by_process(series: Series) -> tuple[float, float, float]:
    """Return the CPU seconds of server, store and client for a byte or call."""
    amount = sum(run.amount for run in series)
    return (
        sum(run.server_cpu for run in series) / amount,
        sum(run.store_cpu for run in series) / amount,
        sum(run.client_cpu for run in series) / amount,
    )


def report(progress: str) -> None:
    """Tell on standard error how far it is: one line that changes on a terminal, lines elsewhere."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{progress}", end="", file=sys.stderr, flush=True)
    else:
        print(progress, file=sys.stderr, flush=True)
