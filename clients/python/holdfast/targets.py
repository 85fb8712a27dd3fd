"""Where commands write the bytes that they fetch."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import typer

from holdfast.files import check_replaceable, replacing
from holdfast.options import STDIO
from holdfast.terminal import Output, progress_bar, stdout_is_terminal


def path_of(target: str | None, name: str) -> Path | None:
    """Return the file to write, or None for stdout; in a directory it gets the last part of `name`."""
    if target is None:
        if stdout_is_terminal():
            raise typer.BadParameter("stdout is a terminal: give a file, or - to print the bytes", param_hint="TARGET")
        return None
    if target == STDIO:
        return None
    path = Path(target)
    return path / name.rpartition("/")[2] if path.is_dir() else path


def written(chunks: Iterable[bytes], size_bytes: int, path: Path | None, name: str, output: Output) -> None:
    """Write chunks into a file, durably and whole or not at all; into a device or a pipe; or, None, to stdout."""
    if path is None:
        copy_chunks(chunks, size_bytes, output.write, name, visible=not stdout_is_terminal())
    elif path.exists() and not path.is_file():  # it cannot be replaced
        with path.open("wb") as file:
            copy_chunks(chunks, size_bytes, file.write, name)
    else:
        check_replaceable(path)
        with replacing(path) as file:
            copy_chunks(chunks, size_bytes, file.write, name)


def copy_chunks(
    chunks: Iterable[bytes], size_bytes: int, write: Callable[[bytes], Any], name: str, *, visible: bool = True
) -> None:
    """Write chunks of `size_bytes` in all, with a progress bar if that is to be visible."""
    with progress_bar(name, wanted=visible) as progress:
        written = 0
        for chunk in chunks:
            write(chunk)
            written += len(chunk)
            if progress is not None:
                progress(written, size_bytes)
