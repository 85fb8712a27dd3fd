"""What is printed: a table for each section, readable on a terminal and in a pipe."""

from collections.abc import Callable
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table as RichTable

from benchmarks.measure import Series, Spread, cpu_per_amount, rate, ratio

_WIDTH = 160
"""In a pipe, where nobody says how wide a line may be."""

_GB = 1e9


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under a title."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Unit:
    """How rates and their cost are written."""

    rate: Callable[[float], str]
    cpu: Callable[[float], str]
    cpu_name: str


BYTES = Unit(lambda rate: f"{rate / _GB:.2f} GB/s", lambda cpu: f"{cpu * _GB:.2f}", "CPU s/GB")
CALLS = Unit(lambda rate: f"{rate:,.0f} calls/s", lambda cpu: f"{cpu * 1e6:.0f}", "CPU us/call")


def comparison(title: str, unit: Unit) -> Table:
    """Return an empty table for rows of `compared`."""
    cpu = f"{unit.cpu_name} server, both"
    columns = ("measured", "rate", "ceiling", "its rate", "ratio (min-max)", "target", "", cpu, "ceiling's")
    return Table(title, columns)


def compared(
    unit: Unit, name: str, ours: Series, ceiling_name: str, ceiling: Series, *, target: float | None = None
) -> tuple[str, ...]:
    """Return the row that sets ours against a ceiling; no target: it is only told."""
    found = ratio(ours, ceiling)
    return (
        name,
        unit.rate(rate(ours)),
        ceiling_name,
        unit.rate(rate(ceiling)),
        written(found),
        "" if target is None else f">= {target:.2f}",
        "" if target is None else verdict(found.median >= target),
        _cpu(unit, ours),
        _cpu(unit, ceiling),
    )


def written(numbers: Spread) -> str:
    """Return a spread of ratios as text."""
    return f"{numbers.median:.2f} ({numbers.low:.2f}-{numbers.high:.2f})"


def verdict(met: bool) -> str:  # noqa: FBT001 (the only thing that it is about)
    """Return whether a target is met, as text."""
    return "met" if met else "MISSED"


def show(table: Table) -> None:
    """Print a table to standard output."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH
    drawn = RichTable(title=table.title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for number, column in enumerate(table.columns):
        drawn.add_column(column, no_wrap=number == 0, justify="left")
    for row in table.rows:
        drawn.add_row(*row, style="bold red" if "MISSED" in row else None)
    console.print()
    console.print(drawn)


def _cpu(unit: Unit, series: Series) -> str:
    server, both = cpu_per_amount(series)
    return f"{unit.cpu(server)}, {unit.cpu(both)}" if server else f"-, {unit.cpu(both)}"
