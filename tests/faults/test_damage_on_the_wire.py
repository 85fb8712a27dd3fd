"""A blob that is damaged in the middle, over gRPC: what is good arrives, and then the call ends with DATA_LOSS."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from holdfast.v1 import blob_store_pb2 as pb
from tests.support.raw_blobs import entries, get, put, stat, stub_of
from tests.support.samples import MIB, sample
from tests.support.server_process import ServerProcess
from tests.support.statuses import refused

KEY = "some/blob"
DATA = sample(3 * MIB)
DAMAGED_AT = MIB + MIB // 2


@pytest.fixture
def stub(filesystem_server: ServerProcess) -> Iterator[Any]:
    """A stub of a server on the filesystem."""
    with grpc.insecure_channel(filesystem_server.address) as channel:
        yield stub_of(channel)


@pytest.fixture
def file(stub: Any, tmp_path: Path) -> Path:
    """The file of a blob of three pieces, the middle one damaged."""
    put(stub, KEY, DATA)
    path = tmp_path / "data" / "objects" / "tree" / "some.d" / "blob.f"
    with path.open("r+b") as file:
        file.seek(DAMAGED_AT)
        file.write(bytes([DATA[DAMAGED_AT] ^ 1]))
    return path


def test_the_chunks_before_the_damage_arrive_and_none_behind_it(stub: Any, file: Path) -> None:
    arrived = b""
    with refused() as refusal:
        for answer in stub.GetBlob(pb.GetBlobRequest(key=KEY), timeout=60):
            arrived += answer.chunk.data
    assert (refusal.code, refusal.reason, refusal.names["key"]) == ("DATA_LOSS", "INTEGRITY_FAILED", KEY)
    assert arrived == DATA[:MIB]


def test_a_range_that_does_not_touch_the_damage_is_served(stub: Any, file: Path) -> None:
    assert get(stub, KEY, length=MIB) == DATA[:MIB]
    assert get(stub, KEY, offset=2 * MIB) == DATA[2 * MIB :]
    assert get(stub, KEY, suffix_length=10) == DATA[-10:]
    with refused() as refusal:
        get(stub, KEY, offset=MIB, length=1)
    assert refusal.code == "DATA_LOSS"


def test_a_damaged_record_is_data_loss_and_shown_as_damaged(stub: Any, file: Path) -> None:
    put(stub, "some/other", b"fine")
    file.write_bytes(file.read_bytes()[:-1])
    for call in (stat, get):
        with refused() as refusal:
            call(stub, KEY)
        assert (refusal.code, refusal.reason) == ("DATA_LOSS", "INTEGRITY_FAILED")
        assert str(file.parent) not in refusal.message
    assert [(entry.key, entry.damaged, entry.size_bytes) for entry in entries(stub)] == [
        (KEY, True, 0),
        ("some/other", False, 4),
    ]
