"""A flatfs tree, as Piri and go-ds-flatfs keep it: `<shard>/<key>.data`, where the shard is made of the key.

The key of a blob is its sha2-256 multihash in base32, lower case, without padding. Other keys of lower-case letters,
digits and `+ - _ =` are taken as they are. Upper-case ones, as go-ds-flatfs has them in other programs, are not read:
they fail. The file `SHARDING` names the function that makes the shard: here the two characters before the last.
"""

import base64
import binascii
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

from holdfast_server.blobs.address import RESERVED_PREFIXES, BlobKey, ContentAddress
from holdfast_server.blobs.address import Layout as AddressLayout
from holdfast_server.errors import InvalidArgument
from holdfast_server.objects.base import ListQuery
from holdfast_server.objects.body import Body
from holdfast_server.objects.filesystem.paths import Place
from holdfast_server.transfer.incoming import Incoming
from holdfast_server.transfer.outcome import Done, Note, Outcome, Task, nobody
from holdfast_server.transfer.outgoing import Outgoing
from holdfast_server.transfer.tree import Kind, Name, NoPlace, Tree, TreeError, Unreadable, opened_tree, path_of
from holdfast_server.transfer.work import failure, listed

SHARDING_FILE = b"SHARDING"
SHARDING = "/repo/flatfs/shard/v1/next-to-last/2"
_EXTENSION = ".data"
_MULTIHASH = b"\x12\x20"
"""Code and length of sha2-256 in the multihash table (multiformats.io)."""
_MULTIHASH_BYTES = 34

_KEY = re.compile(r"[0-9a-z+\-_=]+")
_SHARD = re.compile(rb"[0-9a-z+\-_=]{2}")
_PASSED_OVER = {
    Kind.FILE: re.compile(rb"SHARDING|_README|diskUsage\.cache|(du|put|temp)-\d+"),
    Kind.DIRECTORY: re.compile(rb"\.temp|lost\+found"),
    Kind.LINK: re.compile(rb"\.temp"),
}
"""What these programs keep beside the objects, what an interrupted put leaves, and what a new file system holds."""

_NOT_A_SHARD = (
    "a directory of flatfs has two lower-case letters, digits or + - _ = as its name: nothing in it was taken"
)
_NOT_A_KEY = "a key of flatfs is of lower-case letters, digits and + - _ =: it was not taken"

_TEMPORARY = b".temp"
"""Where Piri makes its unfinished files; it empties that at its start."""

_MARK = b"temp-holdfast-"
_MOST_SHARDING_BYTES = 200


class Layout(StrEnum):
    """How the keys in the store are made; see `ContentAddress`."""

    FLATFS = "flatfs"
    BASE32 = "base32"
    HEX = "hex"


_LAYOUTS = {
    Layout.FLATFS: AddressLayout.FLATFS,
    Layout.BASE32: AddressLayout.BASE32_MULTIHASH,
    Layout.HEX: AddressLayout.HEX,
}


def shard_of(name: str) -> str:
    """Return the shard of a flatfs key: the two characters before its last one, with `_` where there are none."""
    return ("___" + name)[-3:-1]


def sha256_in(name: str) -> bytes | None:
    """Return the digest that a flatfs key is the multihash of. None: it is no sha2-256 multihash."""
    try:
        decoded = base64.b32decode(name.upper() + "=" * (-len(name) % 8))
    except (binascii.Error, ValueError):
        return None
    is_one = len(decoded) == _MULTIHASH_BYTES and decoded.startswith(_MULTIHASH) and _base32(decoded) == name
    return decoded[len(_MULTIHASH) :] if is_one else None


def name_of(sha256: bytes) -> str:
    """Return the flatfs key of the bytes with this digest."""
    return _base32(_MULTIHASH + sha256)


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()


@dataclass(frozen=True, slots=True)
class Keys:
    """Which key in the store belongs to which flatfs key; valid by construction. Raises `InvalidArgument`."""

    prefix: str = ""
    layout: Layout = Layout.FLATFS

    def __post_init__(self) -> None:
        """Check that prefix and layout make keys."""
        self._address()

    def of(self, name: str) -> BlobKey:
        """Return the key of a flatfs key. Raises `InvalidArgument`."""
        sha256 = sha256_in(name)
        if sha256 is None:
            return BlobKey(f"{self.prefix}{shard_of(name)}/{name}{_EXTENSION}")
        return self._address().key_of(sha256)

    def name_in(self, key: str) -> str | None:
        """Return the flatfs key that a key belongs to. None: it is not one of ours."""
        rest = key.removeprefix(self.prefix)
        name = rest.rpartition("/")[2].removesuffix(_EXTENSION)
        if self.layout is Layout.HEX and re.fullmatch(r"[0-9a-f]{64}", rest):
            name = name_of(bytes.fromhex(rest))
        try:
            return name if _KEY.fullmatch(name) and self.of(name).text == key else None
        except InvalidArgument:
            return None

    def _address(self) -> ContentAddress:
        return ContentAddress(self.prefix, layout=_LAYOUTS[self.layout])


@dataclass(frozen=True, slots=True)
class FlatfsImport:
    """Takes a flatfs tree into a store."""

    incoming: Incoming
    keys: Keys

    def tasks(self) -> Iterator[Task]:
        """Yield a task for each file of the tree; what could be or hold a blob, and is not read, fails."""
        tree = self.incoming.tree
        for found in tree.names():
            if found.kind is Kind.DIRECTORY and _SHARD.fullmatch(found.name):
                try:
                    files = tree.names((found.name,))
                except FileNotFoundError:
                    continue
                except OSError as error:
                    yield partial(failure, path_of((), found.name), f"it cannot be read: {error.strerror}")
                    continue
                yield from (self._task((found.name,), file) for file in files if not _is_passed_over(file))
            elif not _is_passed_over(found):
                yield partial(_not_taken, (), found)

    def _task(self, place: Place, found: Name) -> Task:
        text = found.name.decode(errors="replace")
        name = text.removesuffix(_EXTENSION)
        if found.kind is not Kind.FILE or not text.endswith(_EXTENSION) or not _KEY.fullmatch(name):
            return partial(_not_taken, place, found)
        if shard_of(name).encode() != place[0]:
            # Piri does not find it there either.
            return partial(failure, path_of(place, found.name), f"it belongs into the directory {shard_of(name)!r}")
        try:
            key = self.keys.of(name).object_key
        except InvalidArgument as error:
            return partial(failure, path_of(place, found.name), error.message)
        sha256 = sha256_in(name)
        notes = [Note.OPAQUE_NAME] if sha256 is None else []
        return self.incoming.task(place, found.name, key, sha256, *notes)


@dataclass(frozen=True, slots=True)
class FlatfsExport:
    """Writes the objects that belong into a flatfs tree there."""

    outgoing: Outgoing
    keys: Keys

    def tasks(self) -> Iterator[Task]:
        """Yield a task for each object below the prefix."""
        for entry in listed(
            self.outgoing.source, ListQuery(self.keys.prefix, skip=RESERVED_PREFIXES), self.outgoing.patience
        ):
            name = self.keys.name_in(entry.name)
            if name is None:
                yield partial(Done, entry.name, Outcome.SKIPPED, why="its key is none of this layout")
                continue
            sha256 = sha256_in(name)
            notes = [Note.OPAQUE_NAME] if sha256 is None else []
            yield self.outgoing.task(entry, (shard_of(name).encode(),), (name + _EXTENSION).encode(), sha256, *notes)


def _is_passed_over(found: Name) -> bool:
    pattern = _PASSED_OVER.get(found.kind)
    return pattern is not None and pattern.fullmatch(found.name) is not None


def _why_no_blob(place: Place, found: Name) -> str:
    if found.kind is not Kind.FILE:
        return "it is no regular file"
    return _NOT_A_KEY if place else "flatfs keeps blobs in the directories of their keys: it was not taken"


def _not_taken(place: Place, found: Name) -> Done:
    path = path_of(place, found.name)
    if found.kind is Kind.LINK:
        return failure(path, "it is a symbolic link, and these are not followed")
    if found.kind is Kind.DIRECTORY:
        return failure(path, _NOT_A_SHARD if not place else "flatfs keeps no directory there: nothing in it was taken")
    if found.name.endswith(_EXTENSION.encode()):
        return failure(path, _why_no_blob(place, found))
    return Done(path, Outcome.SKIPPED, why="flatfs keeps no such thing there")


@contextmanager
def opened_flatfs(path: Path) -> Iterator[Tree]:
    """Open a flatfs tree for reading within the block. Raises `TreeError` if it is none of the kind that we read."""
    with opened_tree(path) as tree:
        if not _has_sharding(tree, path):
            raise TreeError(f"{path}: it is no flatfs tree: it has no file {SHARDING_FILE.decode()}")
        yield tree


@contextmanager
def made_flatfs(path: Path, *, dry_run: bool = False) -> Iterator[Tree]:
    """Open a flatfs tree for writing within the block, and make it if it is missing or empty.

    Raises `TreeError` if the directory holds something else, or another export writes to it.
    """
    with opened_tree(path, make=not dry_run, may_be_missing=dry_run, aside=(_TEMPORARY,), mark=_MARK) as tree:
        if not dry_run:
            tree.lock()
        if not _has_sharding(tree, path):
            # What an export leaves that was interrupted before the file was there, and a new file system by itself.
            foreign = [name.name for name in tree.names() if name.name not in (_TEMPORARY, b"lost+found")]
            if foreign:
                first = path_of((), foreign[0])
                raise TreeError(f"{path}: it holds '{first}' but no flatfs tree: give an empty directory")
            if not dry_run:
                tree.write((), SHARDING_FILE, Body.of(f"{SHARDING}\n".encode()))
        yield tree


def _has_sharding(tree: Tree, path: Path) -> bool:
    """Tell whether the tree says how it is sharded. Raises `TreeError` if it is not as we read and write it."""
    try:
        with tree.opened((), SHARDING_FILE) as file:
            if file is None:
                return False
            found = (
                b"".join(chunk.data for chunk in file.chunks(nobody)) if file.size_bytes < _MOST_SHARDING_BYTES else b""
            )
    except (NoPlace, Unreadable, OSError) as error:
        raise TreeError(f"{path}: its file {SHARDING_FILE.decode()} cannot be read: {error}") from None
    if found.strip() != SHARDING.encode():  # Piri does not mind the newline, either
        other = path_of((), found.strip())
        raise TreeError(f"{path}: its sharding function is '{other}', and only '{SHARDING}' is known here")
    return True
