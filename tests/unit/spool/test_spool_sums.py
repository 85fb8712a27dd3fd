"""The sums of what is in a spool: what the disk has lost is not given back."""

import os
from pathlib import Path

import google_crc32c
import pytest

from holdfast_server.errors import Reason, Unavailable
from holdfast_server.objects.spool import Spool
from tests.support.samples import MIB, sample
from tests.support.spoiled_spool import SPOILS, Spoil, flip


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
