"""One file of a foreign tree on its way into a store."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from holdfast_server.checkpoints.names import SNAPSHOTS, flat_room
from holdfast_server.checkpoints.seal import MAGIC
from holdfast_server.errors import BrokenUpload, ConcurrentModification, IntegrityFailed, PreconditionFailed, Reason
from holdfast_server.objects.base import NO_ATTRIBUTES, ObjectNotFound, ObjectStore
from holdfast_server.objects.body import Body, Declared
from holdfast_server.objects.conditions import Condition, CreateOnly, IfMatch, ObjectExists, Overwrite
from holdfast_server.objects.filesystem.paths import Place
from holdfast_server.objects.info import Attributes, ObjectInfo
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.ranges import ByteRange
from holdfast_server.transfer.copying import is_sound
from holdfast_server.transfer.outcome import Done, Moved, Note, Outcome, Task, nobody
from holdfast_server.transfer.sealed_rooms import SealedRooms
from holdfast_server.transfer.tree import NoPlace, OpenFile, Tree, Unreadable, path_of
from holdfast_server.transfer.work import Patience, attempted, failure

_OTHER_BYTES = "other bytes stand under its content address {key!r}: nothing was changed"
_DAMAGED = "it is damaged: its bytes are not those that its name is the sha256 of"
_CHANGED = "it changed while it was read"
_MAY_BE_SEALED = "what is there is damaged, and Holdfast may have sealed it: only --replace-sealed replaces it"


@dataclass(frozen=True, slots=True)
class Incoming:
    """Takes files of `tree` into `target`. `dry_run`: they are read and checked, and no object is written.

    `verify`: the bytes of what the target has are read, too, and replaced where they are damaged; without it only a
    damaged record is found out. `replace_sealed`: also what Holdfast has sealed of rooms is replaced, but for
    rooms of which it has sealed epochs that the tree lacks.
    """

    tree: Tree
    target: ObjectStore
    patience: Patience
    dry_run: bool = False
    verify: bool = False
    moved: Moved = nobody
    replace_sealed: bool = False
    _rooms: SealedRooms = field(init=False)

    def __post_init__(self) -> None:
        """Know what was sealed in the target."""
        object.__setattr__(self, "_rooms", SealedRooms(self.tree, self.target))

    def task(self, place: Place, name: bytes, key: ObjectKey, sha256: bytes | None, *notes: Note) -> Task:
        """Return the task to take a file. `sha256`: what its name says of its bytes; None: nothing."""
        return partial(
            attempted, path_of(place, name), partial(self._take, place, name, key, sha256, notes), self.patience
        )

    def _take(self, place: Place, name: bytes, key: ObjectKey, sha256: bytes | None, notes: tuple[Note, ...]) -> Done:
        path = path_of(place, name)
        try:
            if self.replace_sealed and (why := self._rooms.why_not_replaced(place, key)):
                return failure(path, why)
            with self.tree.opened(place, name) as file:
                if file is None:
                    return Done(path, Outcome.GONE)
                done = (
                    self._put_plain(file, path, key) if sha256 is None else self._put_content(file, path, key, sha256)
                )
        except (NoPlace, Unreadable) as error:
            return failure(path, str(error))
        except OSError as error:
            return failure(path, f"it cannot be opened: {error.strerror}")
        return Done(path, done.outcome, done.size_bytes, done.why, notes)

    def _put_content(self, file: OpenFile, path: str, key: ObjectKey, sha256: bytes) -> Done:
        """Store what never changes. What is found to be damaged in the store is replaced: it is known what it was."""
        condition: Condition = CreateOnly()
        attributes = NO_ATTRIBUTES
        try:
            info = self.target.stat(key)
            if info.sha256 != sha256 or self._may_stay(key):
                return _told(path, key, sha256, info)
            condition, attributes = Overwrite(), info.attributes
        except ObjectNotFound:
            pass
        except IntegrityFailed:
            condition = Overwrite()
        replaced = isinstance(condition, Overwrite)
        try:
            self._put(file, key, sha256, condition, attributes)
        except ObjectExists as found:  # put by somebody else just now
            return _told(path, key, sha256, found.existing)
        except BrokenUpload as broken:
            return failure(path, _DAMAGED if broken.reason is Reason.CHECKSUM_MISMATCH else _CHANGED)
        return Done(path, Outcome.REPLACED if replaced else Outcome.COPIED, file.size_bytes)

    def _put_plain(self, file: OpenFile, path: str, key: ObjectKey) -> Done:
        """Store what has its name from somewhere else, in place of what is there if that is something else."""
        is_guarded = key.text.startswith(SNAPSHOTS) and not self.replace_sealed
        outcome = Outcome.REPLACED
        found: ObjectInfo | None = None
        try:
            found = self.target.stat(key)
        except ObjectNotFound:
            outcome = Outcome.COPIED
        except IntegrityFailed:
            if is_guarded:
                return failure(path, _MAY_BE_SEALED)
        # Declared, so that no store has to find it out first; what changes meanwhile is noticed.
        sha256 = file.sha256()
        attributes = NO_ATTRIBUTES
        condition: Condition = Overwrite()
        if found is not None and found.sha256 == sha256:
            if self._may_stay(key):
                return Done(path, Outcome.PRESENT)
            attributes = found.attributes
        elif is_guarded:
            if self._is_sealed(key, found):
                return Done(path, Outcome.KEPT)
            if why := self._rooms.why_not_plain(key, file):
                return failure(path, why)
            condition = CreateOnly() if found is None else IfMatch(found.etag)
        try:
            with _others_noticed():
                self._put(file, key, sha256, condition, attributes)
        except BrokenUpload:
            return failure(path, _CHANGED)
        return Done(path, outcome, file.size_bytes)

    def _is_sealed(self, key: ObjectKey, found: ObjectInfo | None) -> bool:
        """Tell whether Holdfast has written what is there; of a snapshot, whether it has one of the room, or had."""
        try:
            if (room := flat_room(key.text)) is not None:
                self.target.stat(room.snapshot_key)
                return True
        except ObjectNotFound:
            pass
        if found is None:
            return False
        with self.target.get(key, ByteRange(0, len(MAGIC)), condition=IfMatch(found.etag)) as reader:
            return b"".join(chunk.data for chunk in reader) == MAGIC

    def _may_stay(self, key: ObjectKey) -> bool:
        """Tell whether an object whose record is right may stay as it is."""
        return not self.verify or is_sound(self.target, key, self.moved)

    def _put(self, file: OpenFile, key: ObjectKey, sha256: bytes, condition: Condition, attributes: Attributes) -> None:
        body = Body(file.chunks(self.moved), Declared(file.size_bytes, sha256))
        if self.dry_run:
            body.read_to_end()
        else:
            self.target.put(key, body, condition=condition, attributes=attributes)


@contextmanager
def _others_noticed() -> Iterator[None]:
    """Let what lost a race be tried again, from the beginning."""
    try:
        yield
    except (ObjectExists, PreconditionFailed) as changed:
        raise ConcurrentModification("a server wrote it meanwhile") from changed


def _told(path: str, key: ObjectKey, sha256: bytes, found: ObjectInfo) -> Done:
    """Return what it means that `found` is there already."""
    if found.sha256 == sha256:
        return Done(path, Outcome.PRESENT)
    return failure(path, _OTHER_BYTES.format(key=key.text))
