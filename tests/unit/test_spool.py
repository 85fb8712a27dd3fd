"""The spool holds what it was given, up to its cap, and leaves nothing behind."""

import errno
import gc
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import google_crc32c
import pytest

from holdfast_server.errors import HoldfastError, Reason, StorageFull, Unavailable
from holdfast_server.objects.spool import Spool, SpooledFile
from tests.support.faulty_disk import open_files_below
from tests.support.samples import MIB, sample
from tests.support.small_disk import NoNamespace, SmallDisk
from tests.support.spoiled_spool import SPOILS, Spoil, flip

DATA = sample(10_000)

real_open = os.open
real_pwrite = os.pwrite


def open_without_o_tmpfile(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
    """Fail as the file systems do that have no files without a name."""
    if flags & os.O_TMPFILE == os.O_TMPFILE:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), path)
    return real_open(path, flags, *args, **kwargs)


@pytest.fixture(params=["O_TMPFILE", "unlinked"])
def directory(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for spools, of a file system that has files without a name, and of one that has not."""
    if request.param == "unlinked":
        monkeypatch.setattr(os, "open", open_without_o_tmpfile)
    return tmp_path / "spool"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk of 2 MiB."""
    try:
        small = SmallDisk(tmp_path, "size=2m")
    except NoNamespace as missing:
        pytest.skip(f"a full disk needs a mount namespace: {missing}")
    with small:
        yield small


def fail_writes(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Have every write that reaches the disk from now on write half of its bytes, and then fail."""

    def write(fd: int, data: memoryview, offset: int) -> int:
        if len(data) == 1:
            raise OSError(number, os.strerror(number), "/a/secret/path")
        return real_pwrite(fd, data[: len(data) // 2], offset)

    monkeypatch.setattr(os, "pwrite", write)


def test_what_was_written_is_read_back_in_any_order(directory: Path) -> None:
    with Spool(directory).open() as file:
        file.write(DATA[:7000])
        file.write(b"")
        file.write(DATA[7000:])
        assert file.size_bytes == 10_000
        assert file.read_at(6999, 3) == DATA[6999:7002]
        assert file.read_at(0, 10_000) == DATA


def test_reads_are_short_only_at_the_end(directory: Path) -> None:
    with Spool(directory).open() as file:
        file.write(DATA)
        assert file.read_at(9_990, 100) == DATA[-10:]
        assert file.read_at(10_000, 1) == file.read_at(20_000, 1) == file.read_at(0, 0) == b""
        assert list(file.chunks(10_000, 1)) == list(file.chunks(0, 0)) == []


def test_reads_and_writes_that_the_kernel_cuts_short_are_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pread = os.pread
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real_pwrite(fd, data[:999], offset))
    monkeypatch.setattr(os, "pread", lambda fd, length, offset: pread(fd, min(length, 999), offset))
    with Spool(tmp_path).open() as file:
        file.write(DATA)
        assert file.read_at(0, 10_000) == DATA


def test_chunks_are_cut_at_each_mebibyte_of_the_file_and_know_their_sums(tmp_path: Path) -> None:
    data = sample(3 * MIB + 7)
    with Spool(tmp_path).open() as file:
        for start in range(0, len(data), 700_001):
            piece = data[start : start + 700_001]
            file.write(piece if start % 2 else memoryview(bytearray(piece)))
        chunks = list(file.chunks(5, 3 * MIB))
        assert [len(chunk.data) for chunk in chunks] == [MIB - 5, MIB, MIB, 5]
        assert b"".join(chunk.data for chunk in chunks) == data[5 : 3 * MIB + 5]
        whole = [google_crc32c.value(data[start : start + MIB]) for start in (MIB, 2 * MIB)]
        assert [chunk.crc32c for chunk in chunks] == [None, *whole, None]
        assert list(file.chunks(3 * MIB, 10)) == [(data[3 * MIB :], google_crc32c.value(data[3 * MIB :]))]
        assert len(file._crcs) * file._crcs.itemsize == 12, "four bytes for each MiB"


@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
def test_what_the_disk_has_lost_is_not_given_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Spoil
) -> None:
    data = sample(2 * MIB + 500)
    message = "^the server's spool did not give back what was put there$"
    with Spool(tmp_path).open() as file:
        file.write(data)
        spoil(file._fd)
        for use in (
            lambda: file.read_at(0, len(data)),
            lambda: list(file.chunks(0, len(data))),
            lambda: file.read_at(2 * MIB - 1, 2),  # both pieces of it are looked at whole
        ):
            caplog.clear()
            with pytest.raises(Unavailable, match=message) as lost:
                use()
            assert lost.value.reason is Reason.BACKEND_UNAVAILABLE
            (record,) = caplog.records
            assert (record.levelname, record.message) == ("WARNING", "The spool did not give back what was put there")
        assert file.read_at(10, 1000) == data[10:1010], "what is not lost is there"


@pytest.mark.parametrize("at", [0, MIB - 1, MIB, 2 * MIB - 1, 2 * MIB, 2 * MIB + 499])
def test_a_bit_that_the_disk_has_lost_anywhere_is_noticed(tmp_path: Path, at: int) -> None:
    data = sample(2 * MIB + 500)
    with Spool(tmp_path).open() as file:
        file.write(data)
        flip(file._fd, at)
        with pytest.raises(Unavailable):
            list(file.chunks(0, len(data)))
        flip(file._fd, at)
        assert file.read_at(0, len(data)) == data


def test_bytes_that_are_gone_are_noticed_where_their_sum_is_that_of_none(tmp_path: Path) -> None:
    data = bytes.fromhex("ab9be09b")
    assert google_crc32c.value(data) == google_crc32c.value(b"")
    with Spool(tmp_path).open() as file:
        file.write(data)
        os.ftruncate(file._fd, 0)
        with pytest.raises(Unavailable, match="did not give back"):
            file.read_at(0, 4)


@pytest.mark.parametrize("more", [1, MIB - 100, 2 * MIB])
def test_who_reads_while_more_is_written_gets_what_was_there_at_the_beginning(tmp_path: Path, more: int) -> None:
    data = sample(MIB + 100)
    with Spool(tmp_path).open() as file:
        file.write(data)
        chunks = file.chunks(0, 3 * MIB)
        found = [next(chunks)]
        file.write(bytes(more))
        found += chunks
        assert b"".join(chunk.data for chunk in found) == data
        assert file.read_at(0, 4 * MIB) == data + bytes(more)


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


def test_files_are_kept_apart(directory: Path) -> None:
    spool = Spool(directory)
    with spool.open() as first, spool.open() as second:
        first.write(b"first")
        second.write(b"second")
        assert (first.read_at(0, 9), second.read_at(0, 9)) == (b"first", b"second")


def test_files_have_no_name_and_are_their_owners_alone(directory: Path) -> None:
    with Spool(directory).open() as file:
        file.write(DATA)
        status = os.fstat(file._fd)
        assert status.st_nlink == 0
        assert stat.S_IMODE(status.st_mode) == 0o600
        assert not os.get_inheritable(file._fd)
        assert list(directory.iterdir()) == []


def test_a_missing_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    Spool(tmp_path / "new" / "spool")
    for made in (tmp_path / "new", tmp_path / "new" / "spool"):
        assert stat.S_IMODE(made.stat().st_mode) == 0o700
    Spool(tmp_path / "new" / "spool")


def test_without_a_directory_the_systems_own_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Spool().open():
        assert len(open_files_below(tmp_path)) == 1


@pytest.mark.parametrize("path", ["file", "file/below", "/proc"])
def test_a_directory_that_cannot_be_used_is_told_at_once(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"Not a directory|File exists|No such file or directory") as refused:
        Spool(tmp_path / path)
    assert (refused.value.strerror or "").startswith(f"the spool directory {tmp_path / path} cannot be used: ")


def test_the_cap_counts_over_all_open_files(directory: Path) -> None:
    spool = Spool(directory, max_bytes=100)
    with spool.open() as first, spool.open() as second:
        first.write(bytes(60))
        second.write(bytes(40))
        assert spool.used_bytes == 100
        with pytest.raises(StorageFull) as full:
            second.write(b"x")
        assert full.value.reason is Reason.SPOOL_FULL
        assert "100" in full.value.message
        assert str(directory) not in full.value.message
        assert (spool.used_bytes, second.size_bytes) == (100, 40)
    assert spool.used_bytes == 0


def test_a_write_that_does_not_fit_writes_nothing_and_a_smaller_one_still_may(directory: Path) -> None:
    spool = Spool(directory, max_bytes=100)
    with spool.open() as file:
        with pytest.raises(StorageFull):
            file.write(bytes(101))
        assert os.fstat(file._fd).st_size == 0
        file.write(bytes(100))


def test_closing_gives_the_room_back_once(directory: Path) -> None:
    spool = Spool(directory, max_bytes=100)
    with spool.open() as other:
        other.write(bytes(10))
        file = spool.open()
        file.write(bytes(90))
        file.close()
        file.close()
        assert spool.used_bytes == 10
        with spool.open() as again:
            again.write(bytes(90))


def test_an_error_in_the_block_gives_the_room_back(directory: Path) -> None:
    spool = Spool(directory)

    def fail() -> None:
        with spool.open() as file:
            file.write(DATA)
            assert spool.used_bytes == 10_000
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert spool.used_bytes == 0
    assert open_files_below(directory) == []


def test_a_forgotten_file_gives_its_room_back(directory: Path) -> None:
    spool = Spool(directory)
    file = spool.open()
    file.write(DATA)
    circle: list[Any] = [file]
    circle.append(circle)
    del file
    assert spool.used_bytes == 10_000
    del circle
    gc.collect()
    assert spool.used_bytes == 0
    assert open_files_below(directory) == []


def test_garbage_collection_in_the_middle_of_accounting_neither_hangs_nor_miscounts(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    file = spool.open()
    file.write(DATA)

    def collect() -> None:
        with spool._room._lock:
            file.__del__()

    thread = threading.Thread(target=collect, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert spool.used_bytes == 0


def test_a_closed_file_is_not_read_or_written_under_anothers_number(directory: Path) -> None:
    spool = Spool(directory)
    closed = spool.open()
    closed.write(DATA)
    closed.close()
    with spool.open() as other:  # which has the same descriptor
        other.write(DATA)
        for use in (
            lambda: closed.write(b"x"),
            lambda: closed.read_at(0, 1),
            lambda: list(closed.chunks(0, 1)),
        ):
            with pytest.raises(ValueError, match="closed"):
                use()
        assert spool.used_bytes == 10_000


def test_threads_together_get_all_of_the_cap_and_no_byte_more(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=50_000)
    files = [spool.open() for _ in range(8)]

    def fill(file: SpooledFile) -> None:
        while True:
            file.write(b"x")

    with ThreadPoolExecutor(8) as pool:
        filled = [pool.submit(fill, file) for file in files]
        assert {type(one.exception(30)) for one in filled} == {StorageFull}
        assert sum(file.size_bytes for file in files) == spool.used_bytes == 50_000
        list(pool.map(lambda file: file.close(), files))
    assert spool.used_bytes == 0


def test_the_last_of_the_room_goes_to_one_of_two_that_ask_at_the_same_moment(tmp_path: Path) -> None:
    both_look = threading.Barrier(2)

    class Cap(int):
        """A cap that is looked at by two at once, if they can."""

        def __lt__(self, other: object) -> bool:
            with suppress(threading.BrokenBarrierError):
                both_look.wait(0.2)
            return int(self) < other  # type: ignore[operator]

    spool = Spool(tmp_path, max_bytes=Cap(1))
    with spool.open() as first, spool.open() as second, ThreadPoolExecutor(2) as pool:
        written = [pool.submit(file.write, b"x") for file in (first, second)]
        assert {type(one.exception(30)) for one in written} == {StorageFull, type(None)}
        assert spool.used_bytes == 1


def test_what_is_being_written_is_not_read_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[bytes] = []

    def write(fd: int, data: memoryview, offset: int) -> int:
        written = real_pwrite(fd, data[: len(data) // 2 + 1], offset)
        found.append(file.read_at(0, 20_000))
        return written

    with Spool(tmp_path).open() as file:
        file.write(DATA)
        monkeypatch.setattr(os, "pwrite", write)
        file.write(b"xyz")
        assert found == [DATA] * 2
        assert file.read_at(0, 20_000) == DATA + b"xyz"


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


SPOOLING = """
import sys
from pathlib import Path
from holdfast_server.objects.spool import Spool
spool = Spool(Path(sys.argv[1]))
files = [spool.open() for _ in range(3)]
for file in files:
    file.write(bytes(1 << 20))
print("spooled", flush=True)
sys.stdin.read()
"""


def test_nothing_is_left_of_a_process_that_was_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SPOOLING, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "spooled\n"
        process.send_signal(signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []
