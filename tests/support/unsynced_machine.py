"""A machine whose disk forgets what was not synced, the processes on it, and what they were promised."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from holdfast_server.errors import HoldfastError, IntegrityFailed
from holdfast_server.objects.base import Entry, ListQuery, ObjectStore
from holdfast_server.objects.body import Body
from holdfast_server.objects.conditions import CreateOnly, IfMatch
from holdfast_server.objects.filesystem import FilesystemStore
from holdfast_server.objects.filesystem.disk import Disk
from holdfast_server.objects.key import ObjectKey
from tests.support.disk_operations import content
from tests.support.power_loss import Platter, Power, PowerLost, UnsyncedDisk

_DAMAGED = b"damaged"
"""Stands for the bytes of an object whose bytes cannot be read."""


@dataclass(frozen=True)
class Step:
    """What one of the processes that share the root does, and what `key` holds afterwards."""

    process: str
    do: Callable[[ObjectStore], object]
    key: str
    value: bytes | None


def put(process: str, key: str, value: bytes) -> Step:
    """Put an object."""
    return Step(process, lambda store: store.put(ObjectKey(key), Body.of(value)), key, value)


def create(process: str, key: str, value: bytes) -> Step:
    """Put an object where there is none."""
    return Step(process, lambda store: store.put(ObjectKey(key), Body.of(value), condition=CreateOnly()), key, value)


def replace(process: str, key: str, value: bytes) -> Step:
    """Put an object in place of the one that is there."""

    def do(store: ObjectStore) -> None:
        store.put(ObjectKey(key), Body.of(value), condition=IfMatch(store.stat(ObjectKey(key)).etag))

    return Step(process, do, key, value)


def copy(process: str, source: str, key: str, value: bytes) -> Step:
    """Copy an object that holds `value`."""
    return Step(process, lambda store: store.copy(ObjectKey(source), ObjectKey(key)), key, value)


def delete(process: str, key: str) -> Step:
    """Delete an object."""
    return Step(process, lambda store: store.delete(ObjectKey(key)), key, None)


@dataclass
class Ledger:
    """What was acknowledged, and the step that was under way when the power went."""

    acknowledged: dict[str, bytes | None] = field(default_factory=dict)
    pending: Step | None = None
    refusals: list[HoldfastError] = field(default_factory=list)

    def may_hold(self, key: str) -> set[bytes | None]:
        """Return what a key may hold now; None: nothing."""
        allowed = {self.acknowledged.get(key)}
        if self.pending is not None and self.pending.key == key:
            allowed.add(self.pending.value)
        return allowed


MakeDisk = Callable[[Platter, Power], UnsyncedDisk]


class _QuickDisk(Disk):
    """Syncs nothing: what is looked at need not last."""

    def fsync(self, fd: int) -> None:
        pass


class Machine:
    """A machine with a store's root on its disk, and the processes that use it."""

    def __init__(self, directory: Path, make_disk: MakeDisk = UnsyncedDisk) -> None:
        self._root = directory / "root"
        for name in ("tree", "locks", "scratch"):  # the root is given: only what happens in it is at stake
            (self._root / name).mkdir(parents=True)
        self._directory = directory
        self._make_disk = make_disk
        self._platter = Platter(self._root)
        self._disks: dict[str, UnsyncedDisk] = {}
        self._stores: dict[str, FilesystemStore] = {}
        self._numbers = itertools.count()
        self.ledger = Ledger()

    def run(self, steps: Sequence[Step], power: Power) -> None:
        """Take the steps as far as the power lasts."""
        try:
            for step in steps:
                self.ledger.pending = step
                step.do(self._process(step.process, power))
                self.ledger.acknowledged[step.key] = step.value
                self.ledger.pending = None
        except PowerLost:
            pass
        except HoldfastError as error:
            self.ledger.refusals.append(error)

    def kill(self, process: str) -> None:
        """End a process at once; the machine goes on."""
        self._stores.pop(process, None)
        self._disks.pop(process).release()

    def _process(self, name: str, power: Power) -> ObjectStore:
        if name not in self._disks:
            self._disks[name] = self._make_disk(self._platter, power)
            self._stores[name] = FilesystemStore(self._root, disk=self._disks[name])
        self._disks[name].power = power
        return self._stores[name]

    def broken_promises(self) -> Iterator[str]:
        """Yield what is wrong on the disk after a loss of power, however much of the unsynced it shows."""
        for name in list(self._disks):
            self.kill(name)
        yield from (f"a step was refused: {error}" for error in self.ledger.refusals)
        chance = Random(0)
        for kept, shows in (("nothing", lambda: False), ("all", lambda: True), ("some", lambda: chance.random() < 0.5)):
            rebuilt = self._directory / f"rebuilt {next(self._numbers)}"
            self._platter.rebuild(rebuilt, shows)
            for wrong in self._wrong_in(rebuilt):
                yield f"{wrong}, with {kept} of the unsynced directory entries kept"

    def _wrong_in(self, root: Path) -> Iterator[str]:
        store = FilesystemStore(root, disk=_QuickDisk())
        found: dict[str, bytes] = {}
        for key in {*self.ledger.acknowledged, *([self.ledger.pending.key] if self.ledger.pending else [])}:
            value = _verified(store, key)
            if value not in self.ledger.may_hold(key):
                yield f"{key} holds {value and value[:10]!r}"
            if value is not None:
                found[key] = value
        listed = list(store.list(ListQuery()))
        if [item.name for item in listed] != sorted(found):
            yield f"the list has {listed}"
        if any(isinstance(item, Entry) and item.record is None for item in listed):
            yield "the list shows a damaged object"
        store.close()


def _verified(store: ObjectStore, key: str) -> bytes | None:
    try:
        return content(store, ObjectKey(key))
    except IntegrityFailed:
        return _DAMAGED
