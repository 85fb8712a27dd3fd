"""From store to store: what is asked of them, what stands in the way, and what is in memory meanwhile."""

import threading
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from holdfast_server.errors import StorageFull
from holdfast_server.objects.base import (
    Description,
    ObjectStore,
)
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.memory import MemoryStore
from holdfast_server.transfer.copying import Copying
from holdfast_server.transfer.flatfs import FlatfsImport, Keys, opened_flatfs
from holdfast_server.transfer.incoming import Incoming
from holdfast_server.transfer.outcome import Done, Outcome
from holdfast_server.transfer.outgoing import Outgoing
from holdfast_server.transfer.shellcade import ShellcadeExport, made_shellcade
from holdfast_server.transfer.work import Stopped, work_off
from tests.support.meddled_store import MeddledStore, meanwhile
from tests.support.samples import MIB, sample
from tests.support.transfers import data_store, files_in, flatfs_path, objects_of, put_all, write_flatfs


class Nothing:
    """A `Patience` that has nothing to wait for."""

    def wait(self) -> bool:
        return False


def full() -> MeddledStore:
    """Return a memory store that has no room from its third put on."""
    store, puts = MeddledStore(MemoryStore()), count(1)

    def meddle(operation: str, _name: str) -> None:
        if operation == "put" and next(puts) > 2:
            raise StorageFull("there is no room left")

    store.before = meddle
    return store


def copy(source: ObjectStore, target: ObjectStore, told: list[Done], jobs: int = 4) -> None:
    work_off(Copying(source, target, Nothing()).tasks(), jobs, told.append, lambda: False)


def outcomes(told: list[Done]) -> list[Outcome]:
    return [done.outcome for done in sorted(told, key=lambda done: done.name)]


def test_only_what_both_have_in_one_size_is_asked_about() -> None:
    source, target = MeddledStore(MemoryStore()), MeddledStore(MemoryStore())
    put_all(source, {"a": b"1", "b": b"2", "c": b"333", "d": b"4"})
    put_all(target, {"b": b"2", "c": b"3", "e": b"5"})
    told: list[Done] = []
    copy(source, target, told)
    assert outcomes(told) == [Outcome.COPIED, Outcome.PRESENT, Outcome.REPLACED, Outcome.COPIED]
    assert (source.calls["stat"], target.calls["stat"]) == (1, 1)


class Hiding(MeddledStore):
    """Says of itself that its lists hide nested keys."""

    def describe(self) -> Description:
        return replace(super().describe(), nested_keys=False)


def test_what_lies_below_a_new_key_is_asked_for_only_where_the_lists_leave_it_open() -> None:
    source, target = MemoryStore(), Hiding(MemoryStore())
    put_all(source, {"a": b"1", "b": b"1", "c": b"1", "d": b"1", "e": b"1", "z": b"1"})
    put_all(target, {"a!": b"2", "a/b": b"2", "b/c": b"2", "c!": b"2", "d0": b"2", "e": b"2", "e!": b"2"})
    told: list[Done] = []
    copy(source, target, told)
    copied, failed, replaced = Outcome.COPIED, Outcome.FAILED, Outcome.REPLACED
    assert {done.name: done.outcome for done in told} == {
        "a": failed,
        "b": failed,
        "c": copied,
        "d": copied,
        "e": replaced,
        "z": copied,
    }
    assert target.calls["list"] == 3  # of all, below `a` and below `c`


def test_an_object_that_the_target_lost_meanwhile_is_copied_when_it_is_verified() -> None:
    source, target = MemoryStore(), MeddledStore(MemoryStore())
    for store in (source, target):
        put_all(store, {"a": b"1"})
    target.before = meanwhile("get", "a", lambda: target.delete(ObjectKey("a")))
    (task,) = Copying(source, target, Nothing(), verify=True).tasks()
    assert task().outcome is Outcome.REPLACED
    assert target.stat(ObjectKey("a")).size_bytes == 1


def test_a_full_target_ends_the_copy_at_once() -> None:
    source, target = MemoryStore(), full()
    put_all(source, {f"k{number:04}": b"1" for number in range(1000)})
    told: list[Done] = []
    with pytest.raises(Stopped, match="there is no room left"):
        copy(source, target, told)
    assert outcomes(told) == [Outcome.COPIED, Outcome.COPIED]


def test_what_is_deleted_meanwhile_is_no_failure() -> None:
    source, target = MemoryStore(), MemoryStore()
    put_all(source, {"a": b"1", "b": b"2"})
    told: list[Done] = []

    def tasks() -> Iterator[object]:
        for task in Copying(source, target, Nothing()).tasks():
            source.delete(ObjectKey("b"))
            yield task

    work_off(tasks(), 1, told.append, lambda: False)  # type: ignore[arg-type]
    assert {done.name: done.outcome for done in told}["a"] is Outcome.COPIED
    assert Outcome.FAILED not in outcomes(told)


def test_an_object_that_was_listed_and_is_gone_is_counted() -> None:
    source, target = MemoryStore(), MemoryStore()
    put_all(source, {"a": b"1"})
    tasks = list(Copying(source, target, Nothing()).tasks())
    source.delete(ObjectKey("a"))
    assert [task() for task in tasks] == [Done("a", Outcome.GONE)]


def test_bytes_are_told_of_as_they_move(tmp_path: Path) -> None:
    moved: list[int] = []
    with data_store(tmp_path / "from") as source:
        put_all(source, {"a": sample(3 * MIB + 1)})
        copying = Copying(source, MemoryStore(), Nothing(), moved=moved.append)
        work_off(copying.tasks(), 2, lambda _done: None, lambda: False)
    assert (len(moved), sum(moved)) == (4, 3 * MIB + 1)


def test_a_wish_to_stop_is_heard_in_the_middle_of_an_object(tmp_path: Path) -> None:
    stopping = threading.Event()
    with data_store(tmp_path / "from") as source, data_store(tmp_path / "to") as target:
        put_all(source, {"a": sample(8 * MIB)})
        told: list[Done] = []
        copying = Copying(source, target, Nothing(), moved=lambda _size: stopping.set())
        work_off(copying.tasks(), 2, told.append, stopping.is_set)
        assert told == []
        assert objects_of(target) == {}
    assert list((tmp_path / "to/objects/scratch").iterdir()) == []


def test_memory_does_not_grow_with_what_is_copied(tmp_path: Path) -> None:
    with data_store(tmp_path / "from") as source, data_store(tmp_path / "to") as target:
        put_all(source, {f"large/{number}": sample(32 * MIB, number) for number in range(3)})
        put_all(source, {f"small/{number:05}": b"1" for number in range(3000)})
        tracemalloc.start()
        try:
            work_off(Copying(source, target, Nothing()).tasks(), 2, lambda _done: None, lambda: False)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    # Two jobs, each with a few pieces of 1 MiB on their way through its hashing thread.
    assert most < 24 * MIB


def test_a_full_target_ends_an_import(tmp_path: Path) -> None:
    blobs = [b"%d" % number for number in range(200)]
    told: list[Done] = []
    with opened_flatfs(write_flatfs(tmp_path / "piri", *blobs)) as tree:
        tasks = FlatfsImport(Incoming(tree, full(), Nothing()), Keys()).tasks()
        with pytest.raises(Stopped, match="there is no room left"):
            work_off(tasks, 2, told.append, lambda: False)
    assert outcomes(told) == [Outcome.COPIED, Outcome.COPIED]


def test_a_file_that_grows_while_it_is_read_is_not_taken(tmp_path: Path) -> None:
    tree_path = write_flatfs(tmp_path / "piri", b"hello")
    file = tree_path / flatfs_path(b"hello")
    target = MemoryStore()

    def grow(_size: int) -> None:
        with file.open("ab") as appended:
            appended.write(b"more")

    with opened_flatfs(tree_path) as tree:
        (task,) = FlatfsImport(Incoming(tree, target, Nothing(), moved=grow), Keys()).tasks()
        done = task()
    assert (done.outcome, done.why) == (Outcome.FAILED, "it changed while it was read")
    assert objects_of(target) == {}


def test_an_export_into_a_full_file_system_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = MemoryStore()
    put_all(source, {f"k{number:03}": b"1" for number in range(100)})
    told: list[Done] = []
    with made_shellcade(tmp_path / "out") as tree:

        def full(_fd: int, _data: bytes) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(tree._disk, "write", full)
        tasks = ShellcadeExport(Outgoing(tree, source, Nothing())).tasks()
        with pytest.raises(Stopped, match="its disk is full"):
            work_off(tasks, 2, told.append, lambda: False)
    assert told == []
    assert files_in(tmp_path / "out") == {}


def test_an_exported_file_is_on_the_disk_before_it_is_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = MemoryStore()
    put_all(source, {"a/b/c": b"1"})
    steps: list[str] = []
    with made_shellcade(tmp_path / "out") as tree:
        disk = tree._disk
        fsync, rename, mkdir = disk.fsync, disk.rename, disk.mkdir

        def synced(fd: int) -> None:
            steps.append("fsync")
            fsync(fd)

        def renamed(name: bytes, source_dir: int, target: bytes, target_dir: int) -> None:
            steps.append("rename")
            rename(name, source_dir, target, target_dir)

        def made(name: bytes, dir_fd: int) -> None:
            steps.append(f"mkdir {name.decode()}")
            mkdir(name, dir_fd)

        monkeypatch.setattr(disk, "fsync", synced)
        monkeypatch.setattr(disk, "rename", renamed)
        monkeypatch.setattr(disk, "mkdir", made)
        work_off(ShellcadeExport(Outgoing(tree, source, Nothing())).tasks(), 1, lambda _done: None, lambda: False)
    assert steps == ["mkdir a", "fsync", "mkdir b", "fsync", "fsync", "rename", "fsync"]
    assert files_in(tmp_path / "out") == {"a/b/c": b"1"}
