"""What is in a file of the spool: what was written, for its owner alone, and gone when nobody has it open."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast_server.objects.spool import Spool
from tests.support.child_processes import killed_on_failure
from tests.support.samples import MIB, sample

DATA = sample(10_000)

real_pwrite = os.pwrite


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
    with killed_on_failure(
        subprocess.Popen(
            [sys.executable, "-c", SPOOLING, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "spooled\n"
        process.send_signal(signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []
