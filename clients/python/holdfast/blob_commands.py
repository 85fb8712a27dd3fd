"""`holdfast blob ...`."""

import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from holdfast.content import Address, Content, Layout
from holdfast.downloads import BlobReader
from holdfast.results import BlobEntry, BlobInfo, CommonPrefix
from holdfast.session import Session
from holdfast.sources import Data
from holdfast.terminal import progress_bar, stdout_is_terminal

_STDIO = "-"
_DEFAULT_PAGE_SIZE = 1000

blob = typer.Typer(help="Put, get, list and remove blobs.", no_args_is_help=True)


class LayoutName(StrEnum):
    """The layouts of content addresses, as options have them."""

    HEX = "hex"
    BASE32 = "base32"
    FLATFS = "flatfs"

    @property
    def layout(self) -> Layout:
        """What the library calls it."""
        return {"hex": Layout.HEX, "base32": Layout.BASE32_MULTIHASH, "flatfs": Layout.FLATFS}[self.value]


_Key = Annotated[str, typer.Argument(metavar="KEY", help="The blob's key.", show_default=False)]
_IfMatch = Annotated[
    str | None, typer.Option("--if-match", metavar="ETAG", help="Only if the blob there has just this etag.")
]


@blob.command()
def put(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A file, or - for stdin.", show_default=False)],
    key: Annotated[
        str | None, typer.Argument(metavar="KEY", help="The blob's key, unless --content makes it.", show_default=False)
    ] = None,
    *,
    content_type: Annotated[str, typer.Option(metavar="TYPE", help="Media type, e.g. application/wasm.")] = "",
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="An entry of metadata; repeatable.")
    ] = None,
    create_only: Annotated[bool, typer.Option("--create-only", help="Only if the key is free.")] = False,
    if_match: _IfMatch = None,
    content: Annotated[
        str | None,
        typer.Option(metavar="PREFIX", help="Store by content: the key is PREFIX and the sha256. Never overwrites."),
    ] = None,
    suffix: Annotated[str, typer.Option(help="With --content: what the key ends with, e.g. .wasm.")] = "",
    layout: Annotated[LayoutName, typer.Option(help="With --content: how digest makes key.")] = LayoutName.HEX,
) -> None:
    """Store a file, or what comes from stdin, as a blob.

    KEY names it and is overwritten unless a condition forbids that. With --content there is no KEY: it is made from the
    bytes, and printed. The blob is durable when the command ends well; otherwise nothing was stored.
    """
    session: Session = context.obj
    address = _address(key, content, suffix, layout)
    data: Data = sys.stdin.buffer if source == _STDIO else Path(source)
    with session.connect() as client, progress_bar(source) as progress:
        result = client.blobs.put(
            address,
            data,
            content_type=content_type,
            metadata=_metadata(metadata or []),
            create_only=create_only,
            if_match_etag=if_match,
            progress=progress,
        )
    if session.output.as_json:
        session.output.document({"blob": _described(result.blob), "created": result.created})
    else:
        verb = "stored" if result.created else "was there already:"
        session.output.line(f"{verb} {result.blob.key} ({_size(result.blob.size_bytes)}, etag {result.blob.etag})")


@blob.command()
def get(
    context: typer.Context,
    key: _Key,
    target: Annotated[
        str | None,
        typer.Argument(metavar="TARGET", help="A file, a directory, or - for stdout.", show_default=False),
    ] = None,
    *,
    offset: Annotated[int, typer.Option(help="First byte wanted, from 0.")] = 0,
    length: Annotated[int | None, typer.Option(help="Bytes wanted; without it: to the end.")] = None,
    suffix_length: Annotated[int | None, typer.Option(help="Only this many of the last bytes.")] = None,
    if_match: _IfMatch = None,
) -> None:
    """Fetch a blob, or a range of it, into a file or to stdout.

    A file TARGET is there whole and verified, or not at all; in a directory it gets the last part of KEY for a name.
    Without TARGET the bytes go to stdout, unless that is a terminal: say - if you mean it. On stdout each MiB is
    verified before it leaves, and whether all of them came the exit code tells. With stdout for the bytes, --json
    prints no result.
    """
    session: Session = context.obj
    path = _path_of(target, key)
    wanted: dict[str, Any] = {
        "offset": offset,
        "length": length,
        "suffix_length": suffix_length,
        "if_match_etag": if_match,
    }
    with session.connect() as client:
        if path is None:
            with client.blobs.get(key, **wanted) as reader:
                _copy(reader, session.output.write, key, visible=not stdout_is_terminal())
            return
        if path.exists() and not path.is_file():  # a device or a pipe: it cannot be replaced
            with client.blobs.get(key, **wanted) as reader, path.open("wb") as file:
                _copy(reader, file.write, key)
            info = reader.info
        else:
            with progress_bar(key) as progress:
                info = client.blobs.download(key, path, **wanted, progress=progress)
    if session.output.as_json:
        session.output.document({"blob": _described(info), "target": str(path)})
    else:
        session.output.line(f"wrote {path} (from {info.key}, {_size(info.size_bytes)}, etag {info.etag})")


@blob.command("stat")
def stat_blob(context: typer.Context, key: _Key) -> None:
    """Tell what is known of a blob."""
    session: Session = context.obj
    with session.connect() as client:
        info = client.blobs.stat(key)
    if session.output.as_json:
        session.output.document(_described(info))
        return
    rows = {
        "key": info.key,
        "size": _size(info.size_bytes),
        "etag": info.etag,
        "sha256": info.sha256.hex(),
        "updated": _moment(info.update_time),
        "content type": info.content_type,
    }
    session.output.table(rows | {f"metadata {name}": value for name, value in sorted(info.metadata.items())})


@blob.command("ls")
def list_blobs(
    context: typer.Context,
    prefix: Annotated[str, typer.Argument(metavar="PREFIX", help="What the keys start with.", show_default=False)] = "",
    *,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="All blobs, instead of one level with its prefixes.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Print at most this many.")] = None,
    start_after: Annotated[str, typer.Option(metavar="KEY", help="Only what comes after this in byte order.")] = "",
) -> None:
    """List blobs in byte order of their keys: time (UTC), size in bytes, key.

    PREFIX is a string, not a directory: "ls maps" shows maps/ and maps.txt, "ls maps/" what is in maps/. What has a
    further / is shown as one PRE line, unless --recursive. With --json one object a line: {"key": ...} or
    {"prefix": ...}.
    """
    session: Session = context.obj
    page_size = 0 if limit is None else min(limit, _DEFAULT_PAGE_SIZE)
    with session.connect() as client:
        found = client.blobs.list(prefix, "" if recursive else "/", start_after, page_size)
        for item in islice(found, limit):
            if session.output.as_json:
                session.output.document(_listed(item))
            else:
                session.output.line(_list_line(item))


@blob.command("rm")
def remove(
    context: typer.Context,
    keys: Annotated[list[str], typer.Argument(metavar="KEY...", help="Keys of the blobs.", show_default=False)],
) -> None:
    """Remove blobs. One that is not there is no error.

    The first failure ends the command; what was removed before it is told.
    """
    session: Session = context.obj
    results: list[dict[str, Any]] = []
    try:
        with session.connect() as client:
            for key in keys:
                existed = client.blobs.delete(key)
                results.append({"key": key, "existed": existed})
                if not session.output.as_json:
                    session.output.line(f"removed {key}" if existed else f"was not there: {key}")
    finally:
        if session.output.as_json:
            session.output.document({"removed": results})


def _address(key: str | None, prefix: str | None, suffix: str, layout: LayoutName) -> Address:
    if prefix is None:
        if key is None:
            raise typer.BadParameter("give it, or --content", param_hint="KEY")
        if suffix or layout is not LayoutName.HEX:
            raise typer.BadParameter("--suffix and --layout go with --content", param_hint="KEY")
        return key
    if key is not None:
        raise typer.BadParameter("--content makes the key: give one of them", param_hint="KEY")
    return Content(prefix, suffix, layout.layout)


def _metadata(entries: list[str]) -> dict[str, str]:
    metadata: dict[str, str] = {}
    for entry in entries:
        name, separator, value = entry.partition("=")
        if not separator:
            raise typer.BadParameter(f"{entry!r} is not NAME=VALUE", param_hint="--metadata")
        if name in metadata:
            raise typer.BadParameter(f"{name!r} is given twice", param_hint="--metadata")
        metadata[name] = value
    return metadata


def _path_of(target: str | None, key: str) -> Path | None:
    """Return the file to write, or None for stdout."""
    if target is None:
        if stdout_is_terminal():
            raise typer.BadParameter("stdout is a terminal: give a file, or - to print the bytes", param_hint="TARGET")
        return None
    if target == _STDIO:
        return None
    path = Path(target)
    return path / key.rpartition("/")[2] if path.is_dir() else path


def _copy(reader: BlobReader, write: Callable[[bytes], Any], key: str, *, visible: bool = True) -> None:
    with progress_bar(key, wanted=visible) as progress:
        written = 0
        for chunk in reader:
            write(chunk)
            written += len(chunk)
            if progress is not None:
                progress(written, reader.range.length)


def _described(info: BlobInfo) -> dict[str, Any]:
    return asdict(info) | {"sha256": info.sha256.hex(), "update_time": info.update_time.isoformat()}


def _listed(item: BlobEntry | CommonPrefix) -> dict[str, Any]:
    if isinstance(item, CommonPrefix):
        return asdict(item)
    return asdict(item) | {"update_time": item.update_time and item.update_time.isoformat()}


def _list_line(item: BlobEntry | CommonPrefix) -> str:
    if isinstance(item, CommonPrefix):
        time, size, name = "", "PRE", item.prefix
    elif item.update_time is None:
        time, size, name = "", "DAMAGED", item.key
    else:
        time, size, name = _moment(item.update_time), str(item.size_bytes), item.key
    return f"{time:<20} {size:>14} {name}"


def _moment(time: datetime) -> str:
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"


def _size(size_bytes: int) -> str:
    return f"{size_bytes} byte{'' if size_bytes == 1 else 's'}"
