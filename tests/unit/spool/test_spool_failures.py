"""A spool on a disk that fails, or is full."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast_server.errors import HoldfastError, Reason, StorageFull, Unavailable
from holdfast_server.objects.spool import Spool
from tests.support.samples import MIB, sample
from tests.support.small_disk import NoNamespace, SmallDisk

DATA = sample(10_000)

real_pwrite = os.pwrite


def fail_writes(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Have every write that reaches the disk from now on write half of its bytes, and then fail."""

    def write(fd: int, data: memoryview, offset: int) -> int:
        if len(data) == 1:
            raise OSError(number, os.strerror(number), "/a/secret/path")
        return real_pwrite(fd, data[: len(data) // 2], offset)

    monkeypatch.setattr(os, "pwrite", write)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk of 2 MiB."""
    try:
        small = SmallDisk(tmp_path, "size=2m")
    except NoNamespace as missing:
        pytest.skip(f"a full disk needs a mount namespace: {missing}")
    with small:
        yield small


def test_a_write_that_fails_across_pieces_leaves_the_sums_of_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Spool(tmp_path).open() as file:
        file.write(DATA)
        with monkeypatch.context() as patch:
            fail_writes(patch, errno.ENOSPC)
            with pytest.raises(StorageFull):
                file.write(bytes(3 * MIB))
        assert file.read_at(0, 20_000) == DATA
        more = sample(2 * MIB)
        file.write(more)
        assert file.read_at(0, 3 * MIB) == DATA + more


@pytest.mark.parametrize(
    ("number", "expected", "reason"),
    [
        (errno.ENOSPC, StorageFull, Reason.SPOOL_FULL),
        (errno.EDQUOT, StorageFull, Reason.SPOOL_FULL),
        (errno.EIO, Unavailable, Reason.BACKEND_UNAVAILABLE),
    ],
)
def test_a_write_that_fails_takes_no_room_and_keeps_what_was_there(
    directory: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[HoldfastError], reason: Reason
) -> None:
    spool = Spool(directory)
    with spool.open() as file:
        file.write(DATA)
        with monkeypatch.context() as patch:
            fail_writes(patch, number)
            with pytest.raises(expected) as failed:
                file.write(bytes(5000))
        assert failed.value.reason is reason
        assert "/" not in failed.value.message
        assert spool.used_bytes == file.size_bytes == os.fstat(file._fd).st_size == 10_000
        file.write(b"more")
        assert file.read_at(0, 20_000) == DATA + b"more"


def test_a_read_that_fails_is_told_without_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise OSError(errno.EIO, "broken", "/a/secret/path")

    with Spool(tmp_path).open() as file:
        file.write(DATA)
        monkeypatch.setattr(os, "pread", fail)
        with pytest.raises(Unavailable, match=r"^the spool failed: EIO$"):
            file.read_at(0, 1)


def test_a_file_that_cannot_be_opened_is_told_as_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: Any, **_kwargs: Any) -> int:
        raise OSError(errno.EMFILE, "too many", "/a/secret/path")

    spool = Spool(tmp_path)
    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(Unavailable, match=r"^the spool failed: EMFILE$"):
        spool.open()


def test_a_full_disk_is_a_full_spool_until_there_is_room(small_disk: SmallDisk) -> None:
    spool = Spool(small_disk.seen_from_outside)
    with spool.open() as file:
        file.write(bytes(MIB))
        with spool.open() as other:
            with pytest.raises(StorageFull) as full:
                other.write(bytes(2 * MIB))
            assert full.value.reason is Reason.SPOOL_FULL
            assert spool.used_bytes == MIB
            other.write(bytes(MIB // 2))
        file.write(bytes(MIB // 2))
