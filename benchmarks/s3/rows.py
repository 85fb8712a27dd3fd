"""Rows that set Holdfast before MinIO beside something simpler before the same MinIO, `minio` by itself for one."""

from benchmarks.measure import Series, cpu_by_process, rate, ratio
from benchmarks.table import Table, Unit, verdict, written


def beside(title: str, unit: Unit) -> Table:
    """Return an empty table for rows of `compared`."""
    cpu = f"{unit.cpu_name}: server + MinIO + caller"
    columns = ("measured", "rate", "beside", "its rate", "ratio (min-max)", "target", "", cpu, "that's")
    return Table(title, columns)


def compared(
    unit: Unit, name: str, ours: Series, other_name: str, other: Series, *, target: float | None = None
) -> tuple[str, ...]:
    """Return the row that sets ours beside the other; no target: it is only told."""
    found = ratio(ours, other)
    return (
        name,
        unit.rate(rate(ours)),
        other_name,
        unit.rate(rate(other)),
        written(found),
        "" if target is None else f">= {target:.2f}",
        "" if target is None else verdict(found.median >= target),
        _cpu(unit, ours),
        _cpu(unit, other),
    )


def _cpu(unit: Unit, series: Series) -> str:
    processes = [cpu for cpu in cpu_by_process(series) if cpu]
    return f"{' + '.join(unit.cpu(cpu) for cpu in processes)} = {unit.cpu(sum(processes))}"
