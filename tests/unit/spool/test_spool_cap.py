"""The cap of a spool: what is taken of it, what does not fit, and that all is given back."""

import gc
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from holdfast_server.errors import Reason, StorageFull
from holdfast_server.objects.spool import Spool, SpooledFile
from tests.support.faulty_disk import open_files_below
from tests.support.samples import sample

DATA = sample(10_000)


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
