"""What reading costs: every byte passes here, whatever the backend."""

import google_crc32c
import pytest

from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.ranges import Extent
from holdfast_server.objects.reading import verified_chunks
from tests.support.samples import MIB


def test_a_piece_that_is_read_whole_is_summed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    piece = b"x" * MIB
    crc: int = google_crc32c.value(piece)
    summed: list[int] = []

    def value(data: bytes) -> int:
        summed.append(len(data))
        return crc

    monkeypatch.setattr(google_crc32c, "value", value)
    for chunk in verified_chunks(ObjectKey("key"), 3 * MIB, Extent(0, 3 * MIB), lambda *_: (piece, crc)):
        assert chunk.data is piece
    assert summed == [MIB, MIB, MIB]
