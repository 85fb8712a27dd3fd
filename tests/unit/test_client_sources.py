"""Where the bytes of uploads come from."""

import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.sources import PIECE_BYTES, Source, source_of
from tests.support.samples import MIB, sample


def _read(source: Source) -> tuple[list[bytes], int | None]:
    with source.open() as opened:
        return list(opened.pieces), opened.size_bytes


def _path(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "source"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB, 3 * MIB + 7])
@pytest.mark.parametrize("kind", ["bytes", "bytearray", "memoryview", "path", "file", "unbuffered", "iterable"])
def test_every_kind_of_source_yields_its_bytes_in_pieces_of_a_mebibyte(tmp_path: Path, kind: str, size: int) -> None:
    data = sample(size)
    path = _path(tmp_path, data)
    with path.open("rb") as buffered, path.open("rb", buffering=0) as unbuffered:
        given: dict[str, Any] = {
            "bytes": data,
            "bytearray": bytearray(data),
            "memoryview": memoryview(data),
            "path": path,
            "file": buffered,
            "unbuffered": unbuffered,
            "iterable": (data[at : at + 300_001] for at in range(0, size, 300_001)),
        }
        pieces, _ = _read(source_of(given[kind]))
    assert b"".join(pieces) == data
    assert [len(piece) for piece in pieces] == [min(PIECE_BYTES, size - at) for at in range(0, size, PIECE_BYTES)]


def test_chunks_larger_than_a_piece_and_empty_ones_are_cut_and_dropped() -> None:
    data = sample(5 * MIB + 3)
    pieces, size = _read(source_of([b"", data[: 4 * MIB + 1], b"", data[4 * MIB + 1 :], b""]))
    assert b"".join(pieces) == data
    assert [len(piece) for piece in pieces] == [MIB] * 5 + [3]
    assert size is None


def test_an_iterable_may_use_its_buffer_again() -> None:
    def chunks() -> Iterator[bytearray]:
        buffer = bytearray(1000)
        for number in range(10):
            buffer[:] = bytes([number]) * 1000
            yield buffer

    pieces, _ = _read(source_of(chunks()))
    assert b"".join(pieces) == b"".join(bytes([number]) * 1000 for number in range(10))


def test_elements_wider_than_a_byte_count_by_their_bytes() -> None:
    pieces, size = _read(source_of(memoryview(sample(16)).cast("Q")))
    assert (b"".join(pieces), size) == (sample(16), 16)


def test_a_file_is_read_from_where_it_stands_and_again_from_there() -> None:
    file = io.BytesIO(b"0123456789")
    file.seek(4)
    source = source_of(file)
    assert source.can_rewind
    assert _read(source) == ([b"456789"], 6)
    assert _read(source) == ([b"456789"], 6)


def test_a_path_can_be_read_again(tmp_path: Path) -> None:
    source = source_of(_path(tmp_path, b"bytes"))
    assert source.can_rewind
    assert _read(source) == _read(source) == ([b"bytes"], 5)


def test_a_pipe_has_no_size_and_is_read_once() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as file, os.fdopen(writing, "wb") as other:
        other.write(b"through a pipe")
        other.close()
        source = source_of(file)
        assert not source.can_rewind
        assert _read(source) == ([b"through a pipe"], None)


def test_a_named_pipe_has_no_size_and_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    source = source_of(path)
    assert not source.can_rewind
    writer = threading.Thread(target=path.write_bytes, args=(b"through a pipe",))
    writer.start()
    assert _read(source) == ([b"through a pipe"], None)
    writer.join()


@pytest.mark.parametrize("name", ["/proc/self/status", "/proc/cpuinfo"])
def test_files_that_claim_to_be_empty_have_no_size(name: str) -> None:
    pieces, size = _read(source_of(Path(name)))
    assert pieces
    assert size is None


def test_only_what_has_bytes_is_a_source(tmp_path: Path) -> None:
    for wrong in ("a text", 7, None):
        with pytest.raises(TypeError, match="data is"):
            source_of(wrong)  # type: ignore[arg-type]  # the point
    for wrong_inside in (io.StringIO("text"), ["text"]):
        with pytest.raises(TypeError):
            _read(source_of(wrong_inside))  # type: ignore[arg-type]  # the point
    with pytest.raises(FileNotFoundError):
        source_of(tmp_path / "missing")
