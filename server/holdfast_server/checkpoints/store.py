"""What CheckpointStore means: the newest good state of a room is never lost or forged, and a rollback is noticed."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry

from holdfast_server.checkpoints.checkpoint import Found, Listed, ListedRoom, Saved, SaveOptions
from holdfast_server.checkpoints.deleting import Deleting, Deletion
from holdfast_server.checkpoints.key_ring import Keys
from holdfast_server.checkpoints.limits import DEFAULT_MAX_CHECKPOINT_BYTES, DEFAULT_TOMBSTONE_SECONDS
from holdfast_server.checkpoints.lists import PageQuery, checkpoints_page, rooms_page
from holdfast_server.checkpoints.loading import Loaded, Loading
from holdfast_server.checkpoints.metrics import CheckpointMetrics
from holdfast_server.checkpoints.names import RoomId
from holdfast_server.checkpoints.opening import OpenLegacy, WaitingRoom
from holdfast_server.checkpoints.pointers import Pointers, ReadLegacy
from holdfast_server.checkpoints.pruning import Pruned, Pruning, Retention
from holdfast_server.checkpoints.reading import Checkpoints
from holdfast_server.checkpoints.resealing import Resealing
from holdfast_server.checkpoints.saving import Saving
from holdfast_server.checkpoints.snapshots import SnapshotStore
from holdfast_server.objects.base import ObjectStore
from holdfast_server.objects.body import NOTHING_DECLARED, Chunk, Declared
from holdfast_server.workers import Workers

_PLAIN = SaveOptions()


@dataclass(frozen=True, slots=True)
class LegacyForms:
    """What reads the forms of an older system."""

    read_pointer: ReadLegacy
    open_payload: OpenLegacy


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """How a `CheckpointStore` keeps what it is given. `legacy`: the older forms; None: they are damage."""

    max_bytes: int = DEFAULT_MAX_CHECKPOINT_BYTES
    encrypt: bool = False
    tombstone_seconds: float = DEFAULT_TOMBSTONE_SECONDS
    legacy: LegacyForms | None = None


_DEFAULTS = StoreOptions()


def _now() -> datetime:
    return datetime.now(UTC)


class CheckpointStore:
    """Checkpoints on an `ObjectStore`, sealed with `keys`; `clock` tells when.

    `check_write` may refuse what would write. `snapshots` are those of rooms that sleep.

    Each part is a file of its own; this is where they come together. All may be used by many threads at once, and
    beside other processes on the same backend.
    """

    def __init__(
        self,
        objects: ObjectStore,
        keys: Keys,
        waiting_room: WaitingRoom,
        workers: Workers,
        options: StoreOptions = _DEFAULTS,
        *,
        check_write: Callable[[], None] = lambda: None,
        metrics: CheckpointMetrics | None = None,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self._objects = objects
        self._keys = keys
        self._check_write = check_write
        self._metrics = metrics or CheckpointMetrics(CollectorRegistry())
        self._workers = workers
        legacy = options.legacy
        open_legacy = None if legacy is None else legacy.open_payload
        self.pointers = Pointers(
            objects,
            keys,
            read_legacy=None if legacy is None else legacy.read_pointer,
            forget_seconds=options.tombstone_seconds,
        )
        self._checkpoints = Checkpoints(objects, keys, waiting_room, open_legacy)
        self._saving = Saving(
            objects,
            keys,
            self.pointers,
            self._checkpoints,
            self._metrics,
            max_bytes=options.max_bytes,
            encrypt=options.encrypt,
            clock=clock,
        )
        self._loading = Loading(objects, self.pointers, self._checkpoints, self._metrics)
        self._pruning = Pruning(objects, self.pointers, self._checkpoints, self._metrics)
        self.deleting = Deleting(objects, self.pointers, self._checkpoints, self._metrics)
        self.snapshots = SnapshotStore(
            objects,
            keys,
            waiting_room,
            workers,
            max_bytes=options.max_bytes,
            encrypt=options.encrypt,
            legacy=open_legacy,
            check_write=check_write,
            metrics=self._metrics,
            clock=clock,
        )

    def save(
        self,
        room: RoomId,
        epoch: int,
        parts: Iterable[Chunk | Declared],
        *,
        declared: Declared = NOTHING_DECLARED,
        options: SaveOptions = _PLAIN,
    ) -> Saved:
        """Store a checkpoint, and move the pointer to it if that is forward; repeated after any failure it converges.

        What has the epoch already stays. Where that is another payload the pointer does not move: nobody was told that
        it is there. Raises `BrokenUpload`, `InvalidArgument`, `AlreadyExists`, `EpochTooOld`, `ConcurrentModification`,
        `PointerInvalid`, `SealKeyUnavailable`, and what `ObjectStore.put` raises.
        """
        self._check_write()
        with self._metrics.reporting():
            saved = self._saving.save(room, epoch, parts, declared, options)
        self._metrics.count_save(saved.outcome)
        return saved

    def load(
        self, room: RoomId, epoch: int | None = None, *, min_epoch: int | None = None, fallback: bool = False
    ) -> Loaded:
        """Return a checkpoint, verified whole; the latest where no epoch is given. The caller closes it.

        With `fallback` what is damaged or gone is passed over, for the newest older one that is good. Raises `NotFound`
        (ROOM_NOT_FOUND, CHECKPOINT_NOT_FOUND), `EpochTooOld` if it is older than `min_epoch`, `SealInvalid`,
        `IntegrityFailed`, `PointerInvalid`, `SealKeyUnavailable`.
        """
        with self._metrics.reporting():
            return self._loading.load(room, epoch, min_epoch=min_epoch, fallback=fallback)

    def stat(self, room: RoomId, epoch: int | None = None, *, min_epoch: int | None = None) -> Found:
        """Tell what is known of a checkpoint, from its verified footer. Raises as `load` does."""
        with self._metrics.reporting():
            return self._loading.stat(room, epoch, min_epoch=min_epoch)

    def checkpoints_of(
        self, room: RoomId, *, from_epoch: int = 0, page_size: int = 0, page_token: str = ""
    ) -> tuple[list[Listed], str]:
        """Return a page of the room's checkpoints by rising epoch, and the token of the next one (empty: the end).

        Raises `InvalidArgument` (INVALID_PAGE_SIZE, INVALID_PAGE_TOKEN).
        """
        return checkpoints_page(
            self._objects,
            self.pointers,
            self._checkpoints,
            self._workers,
            room,
            from_epoch=from_epoch,
            page_size=page_size,
            token=page_token,
        )

    def rooms(self, query: PageQuery) -> tuple[list[ListedRoom], str]:
        """Return a page of the rooms that have a pointer, and the token of the next one (empty: the end).

        In the byte order of their ids with a `/` at each one's end. Raises `InvalidArgument` (INVALID_PAGE_TOKEN).
        """
        return rooms_page(self._objects, self.pointers, self._workers, query)

    def prune(self, room: RoomId | None, retention: Retention, *, dry_run: bool = False) -> Iterator[Pruned]:
        """Delete what the retention does not keep, of one room or (None) of all; yield the sums now and then.

        Never what the pointer names or what is newer, nor what is being read; and nothing where what the pointer names
        is not good, or the pointer is an older system's still. For one room raises `NotFound`, `PointerInvalid`,
        `SealInvalid`, `IntegrityFailed`, `SealKeyUnavailable`, `PreconditionFailed` (of the older pointer); of all,
        such a room is told of in `failed`, and the others go on.
        """
        return self._pruning.prune(room, retention, dry_run=dry_run)

    def resealing(self) -> Resealing:
        """Return what seals with the signing key what an older one sealed, and counts that from zero."""
        return Resealing(self._objects, self._keys)

    def delete_room(self, room: RoomId, *, without_key: bool = False, request_id: str = "") -> Iterator[Deletion]:
        """Replace a room's pointer by a tombstone, and then delete its checkpoints; yield progress.

        The tombstone lies well above them: so who has not heard of it saves below, which is refused. What is at or
        below stays deleted when the room is begun anew, also where this broke off. A request that is repeated with its
        `request_id` deletes nothing of a room that was begun anew meanwhile.
        `without_key`: also where the key that it is sealed with is not available. Raises `SealKeyUnavailable`,
        `ConcurrentModification`.
        """
        self._check_write()
        return self.deleting.delete_room(room, without_key=without_key, request_id=request_id)
