"""Every system call of the filesystem backend fails once, in turn: the error is ours, and nothing is lost or left."""

import errno
import itertools
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from holdfast_server.errors import HoldfastError, Reason
from holdfast_server.objects.body import Body
from holdfast_server.objects.filesystem import FilesystemStore
from holdfast_server.objects.key import ObjectKey
from tests.support.disk_operations import KEY, OPERATIONS, Operation, content
from tests.support.faulty_disk import CALLS, SECRET_PATH, FaultyDisk, open_files_below

NEIGHBOUR = ObjectKey("some/neighbour")

REASONS = {
    errno.EIO: Reason.BACKEND_UNAVAILABLE,
    errno.EMFILE: Reason.BACKEND_UNAVAILABLE,
    errno.ENOSPC: Reason.STORAGE_FULL,
    errno.EDQUOT: Reason.QUOTA_EXCEEDED,
    errno.EROFS: Reason.READ_ONLY,
}
WRITING_CALLS = {"write", "write_at", "copy", "fsync", "rename", "unlink", "mkdir", "rmdir"}


@dataclass(frozen=True)
class Fault:
    """One call that failed: what the caller was told, and what the fault left."""

    calls: list[str]
    failed_call: str
    answer: object
    error: Exception | None
    found: bytes | None
    files_left_open: list[str]
    files_closed_twice: list[int]
    scratch_files: list[str]
    hashing_threads: int
    works_on: bool
    left_at_close: list[str]

    def __str__(self) -> str:
        """Return where it was in the sequence of calls."""
        return f"a failing {self.failed_call} in {' '.join(self.calls)}"


@dataclass(frozen=True, repr=False)
class Sweep:
    """An operation, and what came of every fault in it."""

    operation: Operation
    number: int
    faults: list[Fault]


def faults_of(root: Path, operation: Operation, number: int) -> Iterator[Fault]:
    """Do the operation with its 1st, 2nd, 3rd ... call failing, until none does."""
    for nth in itertools.count(1):
        with TemporaryDirectory(dir=root) as directory:
            disk = FaultyDisk()
            store = FilesystemStore(Path(directory), disk=disk)
            operation.prepare(store)
            open_before = open_files_below(root)
            disk.fail(nth, number)
            answer, error = attempt(operation, store)
            calls = list(disk.calls)
            disk.heal()
            if disk.failed_call is None:
                assert (answer, content(store, KEY)) == (operation.answer, operation.after)
                store.close()
                return
            yield Fault(
                calls,
                disk.failed_call,
                answer,
                error,
                found=content(store, KEY),
                files_left_open=list((Counter(open_files_below(root)) - Counter(open_before)).elements()),
                files_closed_twice=list(disk.bad_closes),
                scratch_files=names_below(Path(directory, "scratch"), "*/*"),
                hashing_threads=sum(thread.name == "sha256" for thread in threading.enumerate()),
                works_on=works(store),
                left_at_close=left_at_close(store, Path(directory)),
            )


def attempt(operation: Operation, store: FilesystemStore) -> tuple[object, Exception | None]:
    try:
        return operation.run(store), None
    except Exception as error:  # noqa: BLE001 (which one it is, is the question)
        return None, error


def works(store: FilesystemStore) -> bool:
    store.put(NEIGHBOUR, Body.of(b"goes on"))
    return content(store, NEIGHBOUR) == b"goes on" and store.delete(NEIGHBOUR)


def names_below(directory: Path, pattern: str) -> list[str]:
    return [str(path.relative_to(directory)) for path in directory.glob(pattern)]


def left_at_close(store: FilesystemStore, directory: Path) -> list[str]:
    store.close()
    return names_below(directory / "scratch", "**/*")


def changes(calls: list[str]) -> bool:
    """Tell whether the calls had got as far as to change what is under the key."""
    return "rename" in calls or "unlink" in calls


@pytest.fixture(scope="module", params=REASONS, ids=errno.errorcode.get)
def number(request: pytest.FixtureRequest) -> int:
    """What the call fails with."""
    return int(request.param)


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in OPERATIONS])
def sweep(request: pytest.FixtureRequest, number: int, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """An operation done as often as it has system calls, each of them failing once."""
    operation = OPERATIONS[request.param]
    return Sweep(operation, number, list(faults_of(tmp_path_factory.mktemp("sweep"), operation, number)))


def test_a_fault_is_told_as_an_error_of_ours(sweep: Sweep) -> None:
    assert [f"{fault.error!r} after {fault}" for fault in sweep.faults if type(fault.error) is OSError] == []
    assert all(isinstance(fault.error, HoldfastError | None) for fault in sweep.faults)


def test_a_fault_is_told_with_its_reason(sweep: Sweep) -> None:
    for fault in sweep.faults:
        if not isinstance(fault.error, HoldfastError):
            continue
        expected = {REASONS[sweep.number]}
        if sweep.number == errno.EROFS and fault.failed_call not in WRITING_CALLS:
            # No disk says so to one who reads; a writer may be told, others have to hear that the disk is ill.
            expected = {Reason.BACKEND_UNAVAILABLE, *(expected if sweep.operation.writes else ())}
        assert fault.error.reason in expected, fault


def test_no_path_gets_out(sweep: Sweep) -> None:
    told = [
        f"{fault.error.message} {fault.error.details}"
        for fault in sweep.faults
        if isinstance(fault.error, HoldfastError)
    ]
    assert [text for text in told if SECRET_PATH in text or "/tree" in text or "/scratch" in text] == []


def test_a_fault_names_the_key_or_the_list(sweep: Sweep) -> None:
    named = (f"key {KEY.text!r}", f"to {KEY.text!r}", "key 'source'", "the list of '", "named by its content")
    told = [f"{fault.error} after {fault}" for fault in sweep.faults if isinstance(fault.error, HoldfastError)]
    assert [text for text in told if not any(name in text for name in named)] == []


def test_an_answer_in_spite_of_a_fault_is_the_right_one(sweep: Sweep) -> None:
    right = (sweep.operation.answer, sweep.operation.after)
    assert [str(fault) for fault in sweep.faults if fault.error is None and (fault.answer, fault.found) != right] == []


def test_what_failed_left_the_old_object_or_the_new_one_whole(sweep: Sweep) -> None:
    either = (sweep.operation.before, sweep.operation.after)
    assert [str(fault) for fault in sweep.faults if fault.found not in either] == []


def test_what_failed_changed_nothing_unless_it_was_the_last_fsync(sweep: Sweep) -> None:
    changed = [fault for fault in sweep.faults if fault.error is not None and fault.found != sweep.operation.before]
    assert [str(fault) for fault in changed if fault.failed_call != "fsync" or not changes(fault.calls)] == []


def test_a_fault_leaves_no_scratch_file(sweep: Sweep) -> None:
    left = [fault for fault in sweep.faults if fault.scratch_files and fault.failed_call != "unlink"]
    assert [str(fault) for fault in left] == []
    assert [fault.left_at_close for fault in sweep.faults if fault.left_at_close] == []


def test_a_fault_leaves_no_file_open_and_closes_none_twice(sweep: Sweep) -> None:
    assert [str(fault) for fault in sweep.faults if fault.files_left_open] == []
    assert [str(fault) for fault in sweep.faults if fault.files_closed_twice] == []


def test_a_fault_leaves_no_hashing_thread(sweep: Sweep) -> None:
    assert [str(fault) for fault in sweep.faults if fault.hashing_threads] == []


def test_the_store_works_on_after_a_fault(sweep: Sweep) -> None:
    assert [str(fault) for fault in sweep.faults if not fault.works_on] == []


def test_the_sweeps_reach_every_call_of_a_disk(tmp_path: Path) -> None:
    reached: set[str] = set()
    for name, operation in OPERATIONS.items():
        disk = FaultyDisk()
        store = FilesystemStore(tmp_path / name, disk=disk)
        operation.prepare(store)
        disk.calls.clear()
        operation.run(store)
        reached.update(disk.calls)
        store.close()
    assert reached == set(CALLS) - {"begin_writing"}  # a hint for large objects, which reports no error
