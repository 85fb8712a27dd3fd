"""Rows that set one call for many beside many calls, or for much beside what a caller did without it."""

from dataclasses import dataclass

from benchmarks.measure import Series, cpu_by_process, rate, ratio
from benchmarks.table import Table, Unit, verdict


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be reached: so many a second, and so many times the rate of what stands beside it."""

    rate: float
    ratio: float | None = None


def beside(title: str, unit: Unit, processes: str = "server, caller") -> Table:
    """Return an empty table for rows of `compared`."""
    cpu = f"{unit.cpu_name} {processes}"
    return Table(
        title, ("measured", "rate", "target", "", "beside", "its rate", "ratio (min-max)", "target", "", cpu, "that's")
    )


def compared(
    unit: Unit, name: str, ours: Series, other_name: str, other: Series, *, target: Target | None = None
) -> tuple[str, ...]:
    """Return the row that sets ours beside the other; no target: it is only told."""
    found, our_rate = ratio(ours, other), rate(ours)
    least_rate, least_ratio = (None, None) if target is None else (target.rate, target.ratio)
    return (
        name,
        unit.rate(our_rate),
        "" if least_rate is None else f">= {unit.rate(least_rate)}",
        "" if least_rate is None else verdict(our_rate >= least_rate),
        other_name,
        unit.rate(rate(other)),
        f"{found.median:.1f} ({found.low:.1f}-{found.high:.1f})",
        "" if least_ratio is None else f">= {least_ratio:.0f}",
        "" if least_ratio is None else verdict(found.median >= least_ratio),
        _cpu(unit, ours),
        _cpu(unit, other),
    )


def _cpu(unit: Unit, series: Series) -> str:
    return ", ".join(unit.cpu(cpu) for cpu in cpu_by_process(series) if cpu)
