"""A plain tree, as shellcade keeps blobs in development: one file a key, its path the key.

`artifacts/<sha256>.wasm` holds just those bytes; `snapshots/` holds the state of rooms.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from holdfast_server import calls
from holdfast_server.errors import InvalidArgument, Reason
from holdfast_server.objects.base import ListQuery
from holdfast_server.objects.filesystem.paths import Place
from holdfast_server.objects.key import ObjectKey, check_text
from holdfast_server.transfer.incoming import Incoming
from holdfast_server.transfer.nesting import Nesting
from holdfast_server.transfer.outcome import Task
from holdfast_server.transfer.outgoing import Outgoing
from holdfast_server.transfer.tree import Kind, Name, Tree, opened_tree, path_of
from holdfast_server.transfer.work import failure, listed

FOREIGN_PREFIXES = frozenset({"blocks/", "chunks/", "hibernated/", "holdfast/"})
"""Where services keep what shellcade has not. `snapshots/` is the same there and here."""

_TEMPORARY = b".tmp-"
"""How the names of shellcade's unfinished files begin; its lists leave such names out."""

_MARK = b".tmp-holdfast-"
_ARTIFACT = re.compile(r"artifacts/([0-9a-f]{64})\.wasm")
_HARMLESS = b"lost+found"


def check_prefix(prefix: str) -> None:
    """Check a prefix of keys. Raises `InvalidArgument` (INVALID_KEY)."""
    check_text(prefix, "prefix")
    if prefix and not prefix.endswith("/"):
        raise InvalidArgument(Reason.INVALID_KEY, "prefix", f"prefix {prefix!r} does not end in '/'")
    if prefix:
        _key(prefix + "a")


def _key(text: str) -> ObjectKey:
    key = ObjectKey(text)
    first = text.partition("/")[0] + "/"
    if first in FOREIGN_PREFIXES:
        raise InvalidArgument(Reason.INVALID_KEY, "key", f"key {text!r} lies under {first!r}, which is reserved")
    return key


def _digest_in(path: str) -> bytes | None:
    """Return the sha256 that a path in the tree tells. None: it tells none."""
    match = _ARTIFACT.fullmatch(path)
    return bytes.fromhex(match[1]) if match else None


@dataclass(frozen=True, slots=True)
class ShellcadeImport:
    """Takes a plain tree into a store, the keys with `prefix` before them."""

    incoming: Incoming
    prefix: str = ""

    def tasks(self) -> Iterator[Task]:
        """Yield a task for each file of the tree. Raises `OSError` if the root cannot be read."""
        levels: list[tuple[Place, Iterator[Name]]] = [((), iter(self.incoming.tree.names()))]
        while levels:
            calls.check("listing")
            place, names = levels[-1]
            found = next(names, None)
            if found is None:
                levels.pop()
            elif found.kind is Kind.DIRECTORY:
                below = (*place, found.name)
                try:
                    levels.append((below, iter(self.incoming.tree.names(below))))
                except FileNotFoundError:
                    continue  # removed meanwhile
                except OSError as error:
                    if below != (_HARMLESS,):  # of a new file system, for its administrator alone
                        yield partial(failure, path_of(place, found.name), f"it cannot be read: {error.strerror}")
            elif not found.name.startswith(_TEMPORARY):
                yield self._task(place, found)

    def _task(self, place: Place, found: Name) -> Task:
        path = path_of(place, found.name)
        if found.kind is not Kind.FILE:
            what = "a symbolic link, and these are not followed" if found.kind is Kind.LINK else "no regular file"
            return partial(failure, path, f"it is {what}")
        try:
            key = _key(self.prefix + path)
        except InvalidArgument as error:
            return partial(failure, path, error.message)
        return self.incoming.task(place, found.name, key, _digest_in(path))


@dataclass(frozen=True, slots=True)
class ShellcadeExport:
    """Writes the objects below `prefix` into a plain tree, their paths the keys without it."""

    outgoing: Outgoing
    prefix: str = ""

    def tasks(self) -> Iterator[Task]:
        """Yield a task for each object below the prefix."""
        query = ListQuery(self.prefix, skip=FOREIGN_PREFIXES)
        nesting = Nesting()
        for entry in listed(self.outgoing.source, query, self.outgoing.patience):
            path = entry.name.removeprefix(self.prefix)
            *place, name = path.encode().split(b"/")
            if (parent := nesting.parent_of(path)) is not None:
                yield partial(failure, entry.name, f"the file of {parent!r} is where its directory would be")
            elif name.startswith(_TEMPORARY):
                yield partial(
                    failure, entry.name, f"shellcade takes {path!r} for an unfinished file and does not list it"
                )
            else:
                yield self.outgoing.task(entry, tuple(place), name, _digest_in(path))


@contextmanager
def opened_shellcade(path: Path) -> Iterator[Tree]:
    """Open a plain tree for reading within the block. Raises `TreeError`."""
    with opened_tree(path) as tree:
        yield tree


@contextmanager
def made_shellcade(path: Path, *, dry_run: bool = False) -> Iterator[Tree]:
    """Open a plain tree for writing within the block, and make it if it is missing. Raises `TreeError`."""
    with opened_tree(path, make=not dry_run, may_be_missing=dry_run, mark=_MARK) as tree:
        if not dry_run:
            tree.lock()
        yield tree
