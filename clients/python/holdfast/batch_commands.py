"""`holdfast blob rm|missing`: commands that take many keys."""

import sys
from collections.abc import Iterator
from itertools import tee
from typing import Annotated, Any

import typer

from holdfast.errors import HoldfastError
from holdfast.exit_codes import exit_code_of
from holdfast.options import STDIO
from holdfast.session import Session

batch = typer.Typer()


@batch.command("rm")
def remove(
    context: typer.Context,
    keys: Annotated[list[str], typer.Argument(metavar="KEY...", help="Keys of the blobs.", show_default=False)],
) -> None:
    """Remove blobs. One that is not there is no error.

    What fails is told, and the others are removed all the same; the exit code is that of the first failure.
    """
    session: Session = context.obj
    results: list[dict[str, Any]] = []
    code = 0
    try:
        with session.connect() as client:
            for key, existed in zip(keys, client.blobs.delete_many(keys), strict=True):
                if isinstance(existed, HoldfastError):
                    code = _told(session, key, existed, code)
                    continue
                results.append({"key": key, "existed": existed})
                if not session.output.as_json:
                    session.output.line(f"removed {key}" if existed else f"was not there: {key}")
    finally:
        if session.output.as_json:
            session.output.document({"removed": results})
    raise typer.Exit(code)


@batch.command("missing")
def missing(
    context: typer.Context,
    keys: Annotated[
        list[str],
        typer.Argument(metavar="KEY...", help="Keys, or just - for stdin, one a line.", show_default=False),
    ],
) -> None:
    """Print which of the keys have no blob, one a line, in their order.

    That some are missing is no failure. A key of which it cannot be told is told on stderr, and the others go on; the
    exit code is that of the first such failure. With --json one object a line: {"key": ...}.
    """
    session: Session = context.obj
    asked, named = tee(_lines() if keys == [STDIO] else iter(keys))
    code = 0
    with session.connect() as client:
        for key, is_missing in zip(named, client.blobs.find_missing(asked), strict=True):
            if isinstance(is_missing, HoldfastError):
                code = _told(session, key, is_missing, code)
            elif is_missing and session.output.as_json:
                session.output.document({"key": key})
            elif is_missing:
                session.output.line(key)
    raise typer.Exit(code)


def _lines() -> Iterator[str]:
    """Yield the lines of stdin but for empty ones: no key is."""
    for line in sys.stdin.buffer:
        # What is not UTF-8 is refused as an argument of that kind is.
        if key := line.removesuffix(b"\n").decode(errors="surrogateescape"):
            yield key


def _told(session: Session, key: str, error: HoldfastError, earlier: int) -> int:
    """Report a failure with the key that it is of, and return the exit code of the first: `earlier`, if there was."""
    code = exit_code_of(error)
    message = error.message if repr(key) in error.message else f"{key}: {error.message}"
    session.output.error(message, code, error)
    return earlier or code
