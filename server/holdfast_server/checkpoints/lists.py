"""Lists: the checkpoints of a room, and the rooms; a page at a time."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from holdfast_server import page_token
from holdfast_server.checkpoints.checkpoint import Checkpoint, Listed, ListedRoom
from holdfast_server.checkpoints.epochs import epochs_of
from holdfast_server.checkpoints.names import EPOCH_DIGITS, EPOCH_ZEROS, MAX_ROOM_ID_BYTES, SNAPSHOTS, RoomId, room_in
from holdfast_server.checkpoints.pointers import Pointers
from holdfast_server.checkpoints.reading import Checkpoints, concerns_one
from holdfast_server.checkpoints.seen_pointers import Pointer
from holdfast_server.errors import HoldfastError, InvalidArgument, Reason
from holdfast_server.objects.base import ListQuery, ObjectNotFound, ObjectStore
from holdfast_server.objects.key import check_text
from holdfast_server.pages import PAGE_BYTES, checked_page_size
from holdfast_server.workers import Workers

T = TypeVar("T")
R = TypeVar("R")

_LOOKED_AT = 4096
"""So many names make a page, if most of them turn out to be nothing to show."""

_BATCH = 128
"""Names that are looked into together."""

_EPOCHS_READ_ON = 64
"""So many epochs of a room are passed over one by one, before the rest of them by a new list."""

ENTRY_BYTES = 300
"""About what an entry takes on the wire beside room, writer and metadata."""


@dataclass(frozen=True, slots=True)
class PageQuery:
    """Which page: valid by construction. Raises `InvalidArgument` (INVALID_ROOM for the prefix, INVALID_PAGE_SIZE)."""

    prefix: str = ""
    page_size: int = 0
    page_token: str = ""

    def __post_init__(self) -> None:
        """Check the rules."""
        checked_page_size(self.page_size)
        try:
            check_text(self.prefix, "prefix")
        except InvalidArgument as broken:
            raise InvalidArgument(Reason.INVALID_ROOM, "prefix", broken.message) from None
        if len(self.prefix.encode()) > MAX_ROOM_ID_BYTES:
            message = f"prefix is longer than {MAX_ROOM_ID_BYTES} bytes"
            raise InvalidArgument(Reason.INVALID_ROOM, "prefix", message)


def checkpoints_page(
    objects: ObjectStore,
    pointers: Pointers,
    checkpoints: Checkpoints,
    workers: Workers,
    room: RoomId,
    *,
    from_epoch: int,
    page_size: int,
    token: str,
) -> tuple[list[Listed], str]:
    """Return a page of the room's checkpoints by rising epoch, and the token of the next one.

    Not what was deleted with the room, as far as this server has seen: a pointer that it remembers is not read again.
    Raises `InvalidArgument` (INVALID_PAGE_SIZE, INVALID_PAGE_TOKEN).
    """
    binding = ("checkpoints", room.text, str(from_epoch))
    after = _epoch_in(page_token.decode(binding, token)) if token else from_epoch - 1
    after = max(after, _floor(pointers, room))

    def look(epoch: int) -> Listed | None:
        try:
            return Listed(epoch, checkpoints.stat(room, epoch))
        except ObjectNotFound:
            return None  # deleted meanwhile
        except HoldfastError as error:
            return Listed(epoch, _of_one(error))

    epochs = (epoch for epoch, _ in epochs_of(objects, room, after))
    page, last = page_of(
        epochs,
        look,
        checked_page_size(page_size),
        size_of=_size_of,
        workers=workers,
        at_once=objects.describe().reads_at_once,
    )
    return page, "" if not last else page_token.encode(binding, str(last[0]))


def rooms_page(
    objects: ObjectStore, pointers: Pointers, workers: Workers, query: PageQuery
) -> tuple[list[ListedRoom], str]:
    """Return a page of the rooms that have a pointer and are not deleted, and the token of the next one.

    Raises `InvalidArgument` (INVALID_PAGE_TOKEN).
    """
    binding = ("rooms", query.prefix)
    after = page_token.decode(binding, query.page_token) if query.page_token else ""
    if query.page_token and _room(after) is None:
        raise page_token.refusal()
    rooms = rooms_of(objects, query.prefix, after)
    page, last = page_of(
        rooms,
        lambda room: listed_room(pointers, room),
        checked_page_size(query.page_size),
        size_of=lambda listed: ENTRY_BYTES + len(listed.room.text.encode()),
        workers=workers,
        at_once=objects.describe().reads_at_once,
    )
    return page, "" if not last else page_token.encode(binding, last[0].text)


def listed_room(pointers: Pointers, room: RoomId) -> ListedRoom | None:
    """Return what a list says of a room; None: it has no pointer, or is deleted."""
    try:
        pointer: Pointer | None = pointers.read(room, remember=False)
    except HoldfastError as error:
        return ListedRoom(room, None, None, _of_one(error))
    if pointer is None or pointer.is_deleted:
        return None
    return ListedRoom(room, pointer.epoch, pointer.update_time)


def rooms_of(objects: ObjectStore, prefix: str = "", after: str = "") -> Iterator[RoomId]:
    """Yield the rooms that have a checkpoint or a pointer, in the byte order of their ids with a `/` at each one's end.

    Names sort otherwise: what lies below `a/b` comes among what lies in `a`, which comes first here. A room's epochs
    are passed over by seeking, where they are many.
    """
    path = [*_ancestors(after, ""), after] if after else []
    start: str | None = f"{SNAPSHOTS}{after}/\0" if after else ""
    while start is not None:
        begun, start = start, None
        epochs = 0
        for item in objects.list(ListQuery(SNAPSHOTS + prefix, begun)):
            if (found := room_in(item.name)) is None:
                continue
            text, is_epoch = found
            path = [room for room in path if text == room or text.startswith(room + "/")]
            for new in [each for each in (*_ancestors(text, prefix), text) if each not in path]:
                path.append(new)
                epochs = 0
                # The names of a room `a` begin with `a/`, as a prefix may.
                room = _room(new) if new.startswith(prefix) else None
                if room is not None and (new == text or _is_there(objects, room)):
                    yield room
            epochs = epochs + 1 if is_epoch else 0
            if epochs > _EPOCHS_READ_ON and item.name.startswith(f"{SNAPSHOTS}{text}/{EPOCH_ZEROS}"):
                start = f"{SNAPSHOTS}{text}/{EPOCH_ZEROS}:"  # behind all that begin with these zeros
                break


def page_of(
    names: Iterator[T],
    look: Callable[[T], R | None],
    most: int,
    *,
    size_of: Callable[[R], int],
    workers: Workers,
    at_once: int,
) -> tuple[list[R], list[T]]:
    """Return what is found at the first names, and the last name that was looked at; none if it was the last of all."""
    page: list[R] = []
    size = 0
    looked_at = 0
    while held := list(islice(names, min(_BATCH, most - len(page)))):
        looked_at += len(held)
        for name, found in zip(held, workers.each(held, look, at_once), strict=True):
            if found is not None:
                page.append(found)
                size += size_of(found)
            if size > PAGE_BYTES:
                return page, [name]  # perhaps there are no more, and then the next page is empty
        if len(page) == most or looked_at >= max(most, _LOOKED_AT):
            return page, held[-1:] if next(names, None) is not None else []
    return page, []


def _floor(pointers: Pointers, room: RoomId) -> int:
    try:
        known = pointers.known(room)
    except HoldfastError as error:
        _of_one(error)
        return pointers.floor(room)
    return pointers.floor(room) if known is None else known.floor


def _size_of(listed: Listed) -> int:
    footer = listed.checkpoint.footer if isinstance(listed.checkpoint, Checkpoint) else None
    return ENTRY_BYTES + (0 if footer is None else footer.subject.size_bytes)


def _of_one(error: HoldfastError) -> HoldfastError:
    """Return an error that concerns one entry; raise one that concerns them all."""
    if concerns_one(error):
        return error.with_traceback(None)
    raise error


def _epoch_in(position: str) -> int:
    if not (position.isascii() and position.isdecimal()) or len(position) > EPOCH_DIGITS:
        raise page_token.refusal()
    return int(position)


def _ancestors(text: str, prefix: str) -> list[str]:
    """Return the ids that this one is below, and that begin with the prefix, shortest first."""
    segments: Sequence[str] = text.split("/")
    ids = ("/".join(segments[:count]) for count in range(1, len(segments)))
    return [found for found in ids if found.startswith(prefix)]


def _room(text: str) -> RoomId | None:
    try:
        return RoomId(text)
    except InvalidArgument:
        return None  # not ours


def _is_there(objects: ObjectStore, room: RoomId) -> bool:
    try:
        objects.stat(room.pointer_key)
    except ObjectNotFound:
        return False
    except HoldfastError as error:
        _of_one(error)
    return True
