"""What the options and arguments of several commands are, and what they stand for."""

from enum import StrEnum
from typing import Annotated

import typer

from holdfast.content import Address, Content, Layout

STDIO = "-"


class LayoutName(StrEnum):
    """The layouts of content addresses, as options have them."""

    HEX = "hex"
    BASE32 = "base32"
    FLATFS = "flatfs"

    @property
    def layout(self) -> Layout:
        """What the library calls it."""
        return {"hex": Layout.HEX, "base32": Layout.BASE32_MULTIHASH, "flatfs": Layout.FLATFS}[self.value]


KeyArgument = Annotated[str, typer.Argument(metavar="KEY", help="The blob's key.", show_default=False)]
RoomArgument = Annotated[str, typer.Argument(metavar="ROOM", help="The room's id.", show_default=False)]
SourceArgument = Annotated[str, typer.Argument(metavar="SOURCE", help="A file, or - for stdin.", show_default=False)]
TargetArgument = Annotated[
    str | None, typer.Argument(metavar="TARGET", help="A file, a directory, or - for stdout.", show_default=False)
]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Print at most this many.")]
WriterOption = Annotated[str, typer.Option("--writer", metavar="NAME", help="Who does it, e.g. the name of a node.")]
CreateOnlyOption = Annotated[bool, typer.Option("--create-only", help="Only if the key is free.")]
IfMatchOption = Annotated[
    str | None, typer.Option("--if-match", metavar="ETAG", help="Only if the blob there has just this etag.")
]
MetadataOption = Annotated[
    list[str] | None, typer.Option(metavar="NAME=VALUE", help="An entry of metadata; repeatable.")
]
ContentOption = Annotated[
    str | None,
    typer.Option(metavar="PREFIX", help="Store by content: the key is PREFIX and the sha256. Never overwrites."),
]
SuffixOption = Annotated[str, typer.Option(help="With --content: what the key ends with, e.g. .wasm.")]
LayoutOption = Annotated[LayoutName, typer.Option(help="With --content: how digest makes key.")]


def address_of(key: str | None, prefix: str | None, suffix: str, layout: LayoutName, argument: str = "KEY") -> Address:
    """Return where a blob goes. Raises `typer.BadParameter` unless just one of `argument` and --content was given."""
    if prefix is None:
        if key is None:
            raise typer.BadParameter("give it, or --content", param_hint=argument)
        if suffix or layout is not LayoutName.HEX:
            raise typer.BadParameter("--suffix and --layout go with --content", param_hint=argument)
        return key
    if key is not None:
        raise typer.BadParameter("--content makes the key: give one of them", param_hint=argument)
    return Content(prefix, suffix, layout.layout)


def metadata_of(entries: list[str]) -> dict[str, str]:
    """Return the entries by name. Raises `typer.BadParameter` for what is no entry, or repeated."""
    metadata: dict[str, str] = {}
    for entry in entries:
        name, separator, value = entry.partition("=")
        if not separator:
            raise typer.BadParameter(f"{entry!r} is not NAME=VALUE", param_hint="--metadata")
        if name in metadata:
            raise typer.BadParameter(f"{name!r} is given twice", param_hint="--metadata")
        metadata[name] = value
    return metadata
