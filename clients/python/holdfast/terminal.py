"""What the command line says, and where: results on stdout, errors and progress on stderr."""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from holdfast.errors import HoldfastError
from holdfast.uploads import Progress

_NAME_CHARACTERS = 24


class OutputClosed(Exception):
    """Whoever read our stdout has gone."""


def open_closed_streams() -> None:
    """Let stdout and stderr lead nowhere if they were closed: Python has None in their place."""
    nowhere = Path(os.devnull)
    sys.stdout = sys.stdout or nowhere.open("w")
    sys.stderr = sys.stderr or nowhere.open("w")


class Output:
    """Where results and errors go. `as_json`: for machines.

    Writing raises `OutputClosed`, and `OSError` for a full disk and the like.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def write(self, data: bytes) -> None:
        """Write the bytes of a blob to stdout."""
        left = memoryview(data)
        try:
            while left:  # with PYTHONUNBUFFERED a write may take a part only
                left = left[sys.stdout.buffer.write(left) :]
        except BrokenPipeError:
            raise OutputClosed from None

    def line(self, text: str) -> None:
        """Write a line for people, with what is not printable escaped."""
        self.write(printable(text).encode() + b"\n")

    def table(self, rows: dict[str, str]) -> None:
        """Write names and values for people, aligned."""
        names = [printable(name) for name in rows]
        width = max(map(len, names))
        for name, value in zip(names, rows.values(), strict=True):
            self.line(f"{name:<{width}}  {value}".rstrip())

    def document(self, value: dict[str, Any]) -> None:
        """Write a line of JSON for machines."""
        self.write(json.dumps(value).encode() + b"\n")

    def flush(self) -> None:
        """Write out what is still held back."""
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            raise OutputClosed from None

    def discard(self) -> None:
        """Forget what is still held back: Python would try again, and complain, when it exits."""
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())

    def note(self, message: str, value: dict[str, Any]) -> None:
        """Tell on stderr what is no failure: the message for people, the value for machines."""
        sys.stderr.write(json.dumps(value) + "\n" if self.as_json else f"holdfast: {printable(message)}\n")

    def error(
        self,
        message: str,
        exit_code: int,
        error: Exception | None = None,
        details: Mapping[str, str | None] | None = None,
    ) -> None:
        """Report a failure on stderr, in one line; `details`, for machines, are those of an `error` that has none."""
        if not self.as_json:
            sys.stderr.write(f"holdfast: {printable(' '.join(message.split()))}\n")
            return
        described: dict[str, Any] = {"message": message, "exit_code": exit_code}
        if details is not None:
            described["details"] = dict(details)
        if isinstance(error, HoldfastError):
            described |= {"type": type(error).__name__, "reason": error.reason, "details": error.details}
            for name in ("field", "retry_after_seconds", "size_bytes", "next_epoch"):
                if (value := getattr(error, name, None)) is not None:
                    described[name] = value
        sys.stderr.write(json.dumps({"error": described}) + "\n")


@contextmanager
def progress_bar(what: str, *, wanted: bool = True) -> Iterator[Progress | None]:
    """Show a progress bar on stderr within the block, if that is a terminal; yield what moves it."""
    if not (wanted and sys.stderr.isatty()):
        yield None
        return
    from rich import console, progress  # noqa: PLC0415 (most commands show no bar, and this is a third of their time)

    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.DownloadColumn(binary_units=True),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=console.Console(stderr=True), transient=True) as bar:
        task = bar.add_task(_shortened(what), total=None)

        def move(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total)

        yield move


def _shortened(name: str) -> str:
    """Return the last part of a path or key, short enough to leave room for the figures."""
    last = printable(name.rpartition("/")[2])
    return last if len(last) <= _NAME_CHARACTERS else f"{last[: _NAME_CHARACTERS - 1]}…"


def stdout_is_terminal() -> bool:
    """Whether a person would see the bytes."""
    return sys.stdout.isatty()


def printable(text: str) -> str:
    r"""Return the text with `\x1b` and the like in place of what is no visible character.

    Keys and metadata are anybody's: they must not move the cursor, forge a line, or turn the direction of writing. A
    backslash stays as it is, since it is harmless; whoever needs the exact text takes `--json`.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
