"""The progress bar of a transfer, for a person who waits for it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from holdfast_server.transfer.outcome import Moved, nobody
from holdfast_server.transfer.report import Say, say_error


@dataclass(frozen=True, slots=True)
class Bar:
    """What moves a bar, and what writes lines beside it. `moved` may be called by many threads."""

    moved: Moved
    counted: Moved
    """Is told how many objects there were so far."""
    say_error: Say


@contextmanager
def bar(*, wanted: bool) -> Iterator[Bar]:
    """Show a bar with objects and bytes on stderr within the block, if it is wanted and that is a terminal."""
    if not (wanted and sys.stderr and sys.stderr.isatty()):
        yield Bar(nobody, nobody, say_error)
        return
    from rich import console, progress, text  # noqa: PLC0415 (other commands show no bar, and it takes long)

    columns = (
        progress.SpinnerColumn(),
        progress.TextColumn("{task.fields[objects]} objects", markup=False),
        progress.FileSizeColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeElapsedColumn(),
    )
    with progress.Progress(*columns, console=console.Console(stderr=True), transient=True) as shown:
        task = shown.add_task("", total=None, objects=0)

        def moved(size: int) -> None:
            shown.advance(task, size)

        def counted(objects: int) -> None:
            shown.update(task, objects=objects)

        def say(line: str) -> None:
            shown.console.print(text.Text(line), soft_wrap=True)

        yield Bar(moved, counted, say)
