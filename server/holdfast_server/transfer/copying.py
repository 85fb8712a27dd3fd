"""From one store to another: the objects that the other lacks, or has otherwise.

The two lists are merged, so nothing is asked about an object that only one of them has, and what is in memory does not
grow with the stores. Running it again goes on where the last run ended, whatever ended that.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from holdfast_server import calls
from holdfast_server.errors import BrokenUpload, IntegrityFailed
from holdfast_server.objects.base import Entry, ListQuery, ObjectNotFound, ObjectReader, ObjectStore
from holdfast_server.objects.body import Body, Chunk, Declared
from holdfast_server.objects.info import ObjectInfo
from holdfast_server.objects.key import ObjectKey
from holdfast_server.transfer.nesting import Nesting
from holdfast_server.transfer.outcome import Done, Moved, Outcome, Task, nobody
from holdfast_server.transfer.work import Patience, attempted, failure, listed

OWN_TO_EACH_STORE = frozenset({"holdfast/"})
"""The store's marker and what probes leave: they are not copied."""


@dataclass(frozen=True, slots=True)
class Copying:
    """Copies what stands under `prefix` from `source` to `target`, under the same keys.

    Bytes, content type and metadata are kept; etag and time are the target's. What the target has beside them is left
    alone. `dry_run`: no object is written, and no bytes of the source are read. `verify`: the bytes of what the target
    has are read, too, and replaced where they are damaged; without it only a damaged record is found out.
    """

    source: ObjectStore
    target: ObjectStore
    patience: Patience
    prefix: str = ""
    dry_run: bool = False
    verify: bool = False
    moved: Moved = nobody

    def tasks(self) -> Iterator[Task]:
        """Yield a task for each object of the source, in byte order."""
        query = ListQuery(self.prefix, skip=OWN_TO_EACH_STORE)
        hides_nested = not self.target.describe().nested_keys
        nesting = Nesting()
        targets = listed(self.target, query, self.patience)
        there = next(targets, None)
        for entry in listed(self.source, query, self.patience):
            while there is not None and there.name < entry.name:
                nesting.parent_of(there.name)
                there = next(targets, None)
            found = there if there is not None and there.name == entry.name else None
            if hides_nested and found is None and (below := self._below(entry.name, there)) is not None:
                why = f"the lists of the target would hide the key {below!r}, which it has below this one"
                yield partial(failure, entry.name, why)
                continue
            parent = nesting.parent_of(entry.name)
            if hides_nested and parent is not None:
                why = f"it lies below the key {parent!r}, and the lists of the target would hide it"
                yield partial(failure, entry.name, why)
                continue
            yield partial(attempted, entry.name, partial(self._copy, entry, found), self.patience)

    def _below(self, name: str, following: Entry | None) -> str | None:
        """Return a key of the target below `name`. `following`: the first one of the target behind it."""
        below = f"{name}/"
        if following is None or following.name[: len(below)] > below:
            return None
        if not following.name.startswith(below):  # `a!` comes before `a/b`, and so may many others
            query = ListQuery(below, skip=OWN_TO_EACH_STORE)
            following = next(listed(self.target, query, self.patience), None)
        return None if following is None else following.name

    def _copy(self, entry: Entry, found: Entry | None) -> Done:
        key = ObjectKey(entry.name)
        try:
            if found is not None and self._is_same(key, entry, found):
                return Done(entry.name, Outcome.PRESENT)
            outcome = Outcome.COPIED if found is None else Outcome.REPLACED
            if self.dry_run:
                return Done(entry.name, outcome, self.source.stat(key).size_bytes)
            with self.source.get(key) as reader:
                put_verified(self.target, key, reader, self.moved)
                return Done(entry.name, outcome, reader.info.size_bytes)
        except ObjectNotFound:
            return Done(entry.name, Outcome.GONE)

    def _is_same(self, key: ObjectKey, entry: Entry, found: Entry) -> bool:
        if entry.record is None or found.record is None or entry.record.size_bytes != found.record.size_bytes:
            return False
        theirs = stat_or_none(self.target, key)
        if theirs is None:
            return False
        ours = self.source.stat(key)
        if (ours.sha256, ours.attributes) != (theirs.sha256, theirs.attributes):
            return False
        return not self.verify or is_sound(self.target, key, self.moved)


def is_sound(store: ObjectStore, key: ObjectKey, moved: Moved) -> bool:
    """Read an object, and tell whether it is there as it was written."""
    try:
        with store.get(key) as reader:
            Body(watched(reader, moved), Declared(reader.info.size_bytes, reader.info.sha256)).read_to_end()
    except (BrokenUpload, IntegrityFailed, ObjectNotFound):
        return False
    return True


def put_verified(target: ObjectStore, key: ObjectKey, reader: ObjectReader, moved: Moved) -> None:
    """Put what a reader reads, and see that it is what was stored there. Raises `IntegrityFailed` where it is not."""
    info = reader.info
    body = Body(watched(reader, moved), Declared(info.size_bytes, info.sha256))
    try:
        target.put(key, body, attributes=info.attributes)
    except BrokenUpload:
        raise IntegrityFailed(key.text, "its bytes are not those that its sha256 was made of") from None


def watched(chunks: ObjectReader, moved: Moved) -> Iterator[Chunk]:
    """Yield the chunks, and tell of them; ends where the work is to stop."""
    for chunk in chunks:
        calls.check("copying")
        moved(len(chunk.data))
        yield chunk


def stat_or_none(store: ObjectStore, key: ObjectKey) -> ObjectInfo | None:
    """Return what is known of an object. None: it is not there, or it is damaged, and so it may be replaced."""
    try:
        return store.stat(key)
    except (ObjectNotFound, IntegrityFailed):
        return None
