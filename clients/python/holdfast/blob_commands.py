"""`holdfast blob ...`."""

import sys
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from holdfast.descriptions import described, list_line, listed, moment, size_of
from holdfast.options import (
    STDIO,
    ContentOption,
    CreateOnlyOption,
    IfMatchOption,
    KeyArgument,
    LayoutName,
    LayoutOption,
    MetadataOption,
    SuffixOption,
    address_of,
    metadata_of,
)
from holdfast.results import Attributes
from holdfast.session import Session
from holdfast.sources import Data
from holdfast.targets import copy_chunks, path_of
from holdfast.terminal import progress_bar, stdout_is_terminal

_DEFAULT_PAGE_SIZE = 1000

blob = typer.Typer(help="Put, get, copy, list, sync and remove blobs.", no_args_is_help=True)


@blob.command()
def put(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A file, or - for stdin.", show_default=False)],
    key: Annotated[
        str | None, typer.Argument(metavar="KEY", help="The blob's key, unless --content makes it.", show_default=False)
    ] = None,
    *,
    content_type: Annotated[str, typer.Option(metavar="TYPE", help="Media type, e.g. application/wasm.")] = "",
    metadata: MetadataOption = None,
    create_only: CreateOnlyOption = False,
    if_match: IfMatchOption = None,
    content: ContentOption = None,
    suffix: SuffixOption = "",
    layout: LayoutOption = LayoutName.HEX,
) -> None:
    """Store a file, or what comes from stdin, as a blob.

    KEY names it and is overwritten unless a condition forbids that. With --content there is no KEY: it is made from the
    bytes, and printed. The blob is durable when the command ends well; otherwise nothing was stored.
    """
    session: Session = context.obj
    address = address_of(key, content, suffix, layout)
    data: Data = sys.stdin.buffer if source == STDIO else Path(source)
    with session.connect() as client, progress_bar(source) as progress:
        result = client.blobs.put(
            address,
            data,
            content_type=content_type,
            metadata=metadata_of(metadata or []),
            create_only=create_only,
            if_match_etag=if_match,
            progress=progress,
        )
    if session.output.as_json:
        session.output.document({"blob": described(result.blob), "created": result.created})
    else:
        verb = "stored" if result.created else "was there already:"
        session.output.line(f"{verb} {result.blob.key} ({size_of(result.blob.size_bytes)}, etag {result.blob.etag})")


@blob.command()
def get(
    context: typer.Context,
    key: KeyArgument,
    target: Annotated[
        str | None,
        typer.Argument(metavar="TARGET", help="A file, a directory, or - for stdout.", show_default=False),
    ] = None,
    *,
    offset: Annotated[int, typer.Option(help="First byte wanted, from 0.")] = 0,
    length: Annotated[int | None, typer.Option(help="Bytes wanted; without it: to the end.")] = None,
    suffix_length: Annotated[int | None, typer.Option(help="Only this many of the last bytes.")] = None,
    if_match: IfMatchOption = None,
) -> None:
    """Fetch a blob, or a range of it, into a file or to stdout.

    A file TARGET is there whole and verified, or not at all; in a directory it gets the last part of KEY for a name.
    Without TARGET the bytes go to stdout, unless that is a terminal: say - if you mean it. On stdout each MiB is
    verified before it leaves, and whether all of them came the exit code tells. With stdout for the bytes, --json
    prints no result.
    """
    session: Session = context.obj
    path = path_of(target, key)
    wanted: dict[str, Any] = {
        "offset": offset,
        "length": length,
        "suffix_length": suffix_length,
        "if_match_etag": if_match,
    }
    with session.connect() as client:
        if path is None:
            with client.blobs.get(key, **wanted) as reader:
                copy_chunks(reader, reader.range.length, session.output.write, key, visible=not stdout_is_terminal())
            return
        if path.exists() and not path.is_file():  # a device or a pipe: it cannot be replaced
            with client.blobs.get(key, **wanted) as reader, path.open("wb") as file:
                copy_chunks(reader, reader.range.length, file.write, key)
            info = reader.info
        else:
            with progress_bar(key) as progress:
                info = client.blobs.download(key, path, **wanted, progress=progress)
    if session.output.as_json:
        session.output.document({"blob": described(info), "target": str(path)})
    else:
        session.output.line(f"wrote {path} (from {info.key}, {size_of(info.size_bytes)}, etag {info.etag})")


@blob.command("cp")
def copy_blob(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="The key to copy from.", show_default=False)],
    target: Annotated[
        str | None,
        typer.Argument(metavar="TARGET", help="The key to copy to, unless --content makes it.", show_default=False),
    ] = None,
    *,
    content_type: Annotated[
        str | None, typer.Option(metavar="TYPE", help="Media type of the copy.", show_default=False)
    ] = None,
    metadata: MetadataOption = None,
    create_only: CreateOnlyOption = False,
    if_match: IfMatchOption = None,
    if_source_match: Annotated[
        str | None, typer.Option("--if-source-match", metavar="ETAG", help="Only if SOURCE has just this etag.")
    ] = None,
    content: ContentOption = None,
    suffix: SuffixOption = "",
    layout: LayoutOption = LayoutName.HEX,
) -> None:
    """Copy a blob; its bytes stay with the server.

    TARGET is overwritten unless a condition forbids that. Content type and metadata are those of SOURCE; with
    --content-type or --metadata the copy has just what these say.
    """
    session: Session = context.obj
    address = address_of(target, content, suffix, layout, "TARGET")
    replaced = None
    if content_type is not None or metadata:
        replaced = Attributes(content_type or "", metadata_of(metadata or []))
    with session.connect() as client:
        result = client.blobs.copy(
            source,
            address,
            attributes=replaced,
            create_only=create_only,
            if_match_etag=if_match,
            source_if_match_etag=if_source_match,
        )
    if session.output.as_json:
        session.output.document({"blob": described(result.blob), "created": result.created})
    else:
        verb = f"copied {source} to" if result.created else "was there already:"
        session.output.line(f"{verb} {result.blob.key} ({size_of(result.blob.size_bytes)}, etag {result.blob.etag})")


@blob.command("stat")
def stat_blob(context: typer.Context, key: KeyArgument) -> None:
    """Tell what is known of a blob."""
    session: Session = context.obj
    with session.connect() as client:
        info = client.blobs.stat(key)
    if session.output.as_json:
        session.output.document(described(info))
        return
    rows = {
        "key": info.key,
        "size": size_of(info.size_bytes),
        "etag": info.etag,
        "sha256": info.sha256.hex(),
        "updated": moment(info.update_time),
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
                session.output.document(listed(item))
            else:
                session.output.line(list_line(item))
