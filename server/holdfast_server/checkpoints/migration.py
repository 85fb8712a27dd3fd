"""What shellcade wrote becomes what we write, in its place, while servers that read the older forms go on serving it.

First every flat snapshot, sealed where ours lie, since some stores list nothing below it; then of each room the
checkpoint that its pointer names, under its own name, and the pointer with the seal of that; and then every other
checkpoint. So no plain pointer is left where anything else of its room is sealed, which would be held against it; and
a room whose pointer fails, or is not there, stays as it is, so that its pointer may be put back. Each step is one
conditional put that changes nothing of what a load finds, so it may end anywhere and begin again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from holdfast_server.checkpoints.key_ring import Keys
from holdfast_server.checkpoints.legacy import LegacyTags, read_pointer
from holdfast_server.checkpoints.names import SNAPSHOTS, RoomId, epoch_in, flat_room, room_in
from holdfast_server.checkpoints.opening import Payload, WaitingRoom, open_payload
from holdfast_server.checkpoints.pointers import LEGACY_TAG, Pointers
from holdfast_server.checkpoints.reading import Checkpoints
from holdfast_server.checkpoints.seal import OtherPurpose, Purpose, SealBroken, SealedAs, Subject
from holdfast_server.checkpoints.sealed_ends import ends_sealed
from holdfast_server.checkpoints.sealing import Sealing
from holdfast_server.errors import (
    AlreadyExists,
    ConcurrentModification,
    ConditionUnsupported,
    InvalidArgument,
    PointerInvalid,
    PreconditionFailed,
    Reason,
    SealInvalid,
    SealKeyUnavailable,
)
from holdfast_server.objects.base import ListQuery, ObjectNotFound, ObjectStore
from holdfast_server.objects.body import Body, Chunk, Declared
from holdfast_server.objects.conditions import CreateOnly, IfMatch, ObjectExists
from holdfast_server.objects.info import ObjectInfo
from holdfast_server.objects.key import ObjectKey
from holdfast_server.transfer.outcome import Done, Moved, Outcome, Task
from holdfast_server.transfer.work import Patience, Stopped, attempted, failure, listed

_NO_POINTER = (
    "its room has no pointer, and is left as it is: put that back; or load one of its checkpoints by its epoch, and "
    "save it above all others"
)
_POINTER_FAILED = "the pointer of its room failed, and so the room is left as it is"


@dataclass(frozen=True, slots=True)
class Plan:
    """How to migrate. `encrypt`: as saves do. `dry_run`: read and verify everything, and write nothing."""

    encrypt: bool = False
    dry_run: bool = False


class Migration:
    """Rewrites what `objects` hold in the older forms. `moved` is told of payload bytes as they are written."""

    def __init__(
        self,
        objects: ObjectStore,
        keys: Keys,
        waiting_room: WaitingRoom,
        patience: Patience,
        *,
        plan: Plan,
        moved: Moved,
    ) -> None:
        self._objects = objects
        self._keys = keys
        self._waiting_room = waiting_room
        self._patience = patience
        self._plan = plan
        self._moved = moved
        self._legacy = LegacyTags(keys)
        self._pointers = Pointers(objects, keys, read_legacy=read_pointer)
        self._checkpoints = Checkpoints(objects, keys, waiting_room, self._legacy)
        self._named: dict[str, Done] = {}
        """The checkpoints that were sealed before their pointers."""
        self._failed: set[str] = set()
        """The names of pointers that failed."""

    def phases(self) -> Iterator[Iterator[Task]]:
        """Yield sets of tasks; each needs those before it to be done."""
        seen: set[str] = set()
        begun_with = -1
        while len(seen) > begun_with:
            begun_with = len(seen)
            yield self._flats(seen)
            if self._plan.dry_run or self._objects.describe().nested_keys:
                break  # else what was hidden by those may hide others
        yield self._pointers_found()
        yield self._checkpoints_found()

    def _flats(self, seen: set[str]) -> Iterator[Task]:
        """Yield a task for each flat snapshot that was not seen yet."""
        for name in self._names():
            if room_in(name) is not None or name in seen:
                continue
            seen.add(name)
            if (room := flat_room(name)) is None:
                yield partial(failure, name, "its name is not one that the snapshot of a room may have")
            else:
                yield partial(self._attempted, name, partial(self._flat, room))

    def _pointers_found(self) -> Iterator[Task]:
        """Yield a task for each pointer."""
        for name in self._names():
            if (found := room_in(name)) is None or found[1]:
                continue
            try:
                room = RoomId(found[0])
            except InvalidArgument as broken:
                yield partial(failure, name, broken.message)
            else:
                yield partial(self._pointer_attempted, name, room)

    def _checkpoints_found(self) -> Iterator[Task]:
        """Yield a task for each checkpoint."""
        for name in self._names():
            if (found := room_in(name)) is None or not found[1]:
                continue
            try:
                room = RoomId(found[0])
            except InvalidArgument as broken:
                yield partial(failure, name, broken.message)
                continue
            if (epoch := epoch_in(name, room)) is not None:
                yield partial(self._attempted, name, partial(self._checkpoint_found, room, epoch))
            else:
                yield partial(failure, name, "its epoch is higher than one can be")

    def _names(self) -> Iterator[str]:
        return (entry.name for entry in listed(self._objects, ListQuery(SNAPSHOTS), self._patience))

    def _attempted(self, name: str, act: Task) -> Done:
        def told() -> Done:
            try:
                return act()
            except ObjectNotFound:
                return Done(name, Outcome.GONE)
            except SealBroken as broken:
                return failure(name, str(broken))
            except SealKeyUnavailable as error:
                if not self._keys.ring.legacy:
                    raise Stopped(error.message) from error  # nothing of all that could be verified
                raise
            except PreconditionFailed as changed:
                raise ConcurrentModification(changed.message) from changed

        return attempted(name, told, self._patience)

    def _checkpoint_found(self, room: RoomId, epoch: int) -> Done:
        """Seal a checkpoint if the pointer of its room is sealed: a plain one would be refused from then on."""
        key = room.epoch_key(epoch)
        if (done := self._named.pop(key.text, None)) is not None:
            return done
        if ends_sealed(self._objects, key):
            return Done(key.text, Outcome.PRESENT)
        try:
            pointer = self._pointers.known(room)
        except PointerInvalid:
            return failure(key.text, _POINTER_FAILED)
        if pointer is None:
            return failure(key.text, _NO_POINTER)
        if room.pointer_key.text in self._failed or (pointer.is_plain and not self._plan.dry_run):
            return failure(key.text, _POINTER_FAILED)
        return self._checkpoint(room, epoch, pointer.tag if pointer.epoch == epoch else LEGACY_TAG)

    def _checkpoint(self, room: RoomId, epoch: int, tag: bytes) -> Done:
        """Seal a checkpoint. `tag`: the seal that it must have already, since a sealed pointer names it by that."""
        key = room.epoch_key(epoch)
        if ends_sealed(self._objects, key):
            return Done(key.text, Outcome.PRESENT)
        checkpoint, payload = self._checkpoints.open(room, epoch, tag)
        with payload:
            if payload.footer is not None:
                return Done(key.text, Outcome.PRESENT)  # others are at it, too
            subject = Subject(room.text, epoch)
            condition = IfMatch(checkpoint.info.etag)
            self._put(key, payload, checkpoint.info, Purpose.CHECKPOINT, subject, condition=condition)
        return Done(key.text, Outcome.REPLACED, checkpoint.size_bytes)

    def _pointer_attempted(self, name: str, room: RoomId) -> Done:
        done = self._attempted(name, partial(self._pointer, room))
        if done.outcome is Outcome.FAILED:
            self._failed.add(name)
        return done

    def _pointer(self, room: RoomId) -> Done:
        name = room.pointer_key.text
        pointer = self._pointers.read(room)
        if pointer is None:
            return Done(name, Outcome.GONE)
        if pointer.is_deleted or pointer.tag != LEGACY_TAG:
            return Done(name, Outcome.PRESENT)
        try:
            if not self._plan.dry_run:
                done = self._checkpoint(room, pointer.epoch, LEGACY_TAG)
                if done.outcome is Outcome.REPLACED:
                    self._named[done.name] = done
            checkpoint = self._checkpoints.stat(room, pointer.epoch)
        except ObjectNotFound:
            if self._pointers.read(room) != pointer:
                raise ConcurrentModification("it was moved meanwhile") from None
            return failure(name, f"it names epoch {pointer.epoch}, and that is not there")
        if not self._plan.dry_run:
            if checkpoint.footer is None:
                return failure(name, f"epoch {pointer.epoch}, which it names, has come in the older form meanwhile")
            self._pointers.rewrite(pointer, checkpoint.footer.tag)
        return Done(name, Outcome.REPLACED)

    def _flat(self, room: RoomId) -> Done:
        key, outcome = room.flat_key, Outcome.REPLACED
        wanted = SealedAs(Purpose.SNAPSHOT, room.text)
        with self._objects.get(key) as reader:
            info = reader.info
            payload = open_payload(reader, self._waiting_room, self._keys, wanted, legacy=self._legacy)
        with payload:
            try:
                self._put(room.snapshot_key, payload, info, wanted.purpose, Subject(room.text), condition=CreateOnly())
            except ObjectExists:
                self._check_superseded(room, payload, info)
                outcome = Outcome.PRESENT
        if not self._plan.dry_run:
            self._delete(info)
        return Done(key.text, outcome, payload.size_bytes)

    def _check_superseded(self, room: RoomId, payload: Payload, info: ObjectInfo) -> None:
        """Check that what stands where ours lie came of a flat snapshot, or after it.

        Raises `AlreadyExists` if it is older: then the older system has written since, and somebody has to choose.
        """
        try:
            with self._objects.get(room.snapshot_key) as reader:
                ours = open_payload(
                    reader, self._waiting_room, self._keys, SealedAs(Purpose.SNAPSHOT, room.text), legacy=None
                )
            with ours:
                if ours.sha256 == payload.sha256:
                    return
        except ObjectNotFound:
            return  # it was given up, and that is long ago
        except OtherPurpose as other:
            if other.footer.head.purpose is not Purpose.RESTORED:
                raise
        except SealBroken as broken:
            raise SealInvalid(
                f"{room.snapshot_key.text}, where it would go", str(broken), room_id=room.text
            ) from broken
        if reader.info.update_time < info.update_time:
            message = f"{room.snapshot_key.text} is there, is another one, and older"
            raise AlreadyExists(Reason.ALREADY_EXISTS, message, room_id=room.text)

    def _delete(self, info: ObjectInfo) -> None:
        try:
            self._objects.delete(info.key, condition=IfMatch(info.etag))
        except ConditionUnsupported:
            self._objects.delete(info.key)  # nobody writes such objects any more

    def _put(
        self,
        key: ObjectKey,
        payload: Payload,
        info: ObjectInfo,
        purpose: Purpose,
        subject: Subject,
        *,
        condition: CreateOnly | IfMatch,
    ) -> None:
        """Store a payload sealed; it keeps the time at which it was stored first."""
        if self._plan.dry_run:
            return

        def parts() -> Iterator[Chunk]:
            for chunk in payload:
                yield chunk
                self._moved(len(chunk.data))

        upload = Body(parts(), Declared(payload.size_bytes, payload.sha256))
        sealing = Sealing(upload, self._keys, purpose, subject, info.update_time, encrypt=self._plan.encrypt)
        self._objects.put(key, sealing.body, condition=condition)
