"""What is sealed is damaged where it lies, in the backend's files and in a bucket: not a byte of it is served."""

import io
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.support.checkpoint_calls import entries, hibernated, rooms, stub_of
from tests.support.checkpoint_damage import (
    EPOCH,
    KEYS,
    LOST,
    NO_KEY,
    ROOM,
    TOO_NEW,
    Place,
    fill,
    flips,
    lengths,
    told_of_checkpoint,
)
from tests.support.checkpoint_stores import ServedCheckpoints
from tests.support.s3_servers import MotoServer
from tests.support.s3_stores import OpenedStore
from tests.support.server_metrics import metric
from tests.support.server_process import ServerProcess

UNREADABLE = ("DATA_LOSS", "INTEGRITY_FAILED")

FOUND = {
    "checkpoint": {"INTEGRITY_FAILED", "SEAL_INVALID"},
    "pointer": {"POINTER_INVALID"},
    "snapshot": {"INTEGRITY_FAILED", "SEAL_INVALID"},
}
"""Who notices first may differ; that it is lost does not."""


@pytest.fixture(params=["plain", "encrypted"])
def place(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> Iterator[Place]:
    """A server on a directory, and one of the files there."""
    environment = {"HOLDFAST_CHECKPOINT_STORE__ENCRYPT": "true" if request.param == "encrypted" else "false"}
    with ServerProcess(tmp_path, env=environment) as server, grpc.insecure_channel(server.address) as channel:
        fill(stub_of(channel))
        *directories, name = KEYS[kind].segments
        file = Path(tmp_path / "objects" / "tree", *(f"{each}.d" for each in directories), f"{name}.f")
        yield Place(stub_of(channel), kind, file.read_bytes(), file.write_bytes)
        assert server.is_running
        assert metric(server, "grpc_server_handled_total", grpc_code="INTERNAL") == 0
        assert [line for line in server.log if " ERROR " in line] == []


@pytest.mark.parametrize("kind", KEYS)
def test_a_flipped_bit_of_a_file_is_noticed(place: Place) -> None:
    place.check_all(flips(place.intact))
    assert place.reasons <= FOUND[place.kind]


@pytest.mark.parametrize("kind", KEYS)
def test_another_length_of_a_file_is_noticed(place: Place) -> None:
    place.check_all(lengths(place.intact))
    assert place.reasons <= FOUND[place.kind]


@pytest.mark.parametrize("kind", KEYS)
def test_lists_show_the_others_whatever_is_wrong_with_a_file(place: Place) -> None:
    for damaged in (*flips(place.intact), *lengths(place.intact)):
        place.lay(damaged)
        assert [each.room_id for each in rooms(place.stub)] == ["arena/7", "arena/8"]
        assert [each.epoch for each in entries(place.stub, ROOM.text)] == [EPOCH - 1, EPOCH]
        assert [each.room_id for each in hibernated(place.stub)] == ["arena/7", "arena/8"]
        if place.kind == "checkpoint":
            # They read the footer, and the file's own record. With key or version damaged, who could tell?
            assert all(told in (None, LOST, UNREADABLE, NO_KEY, TOO_NEW) for told in told_of_checkpoint(place.stub))


@pytest.fixture(scope="module")
def opened(moto: MotoServer) -> Iterator[OpenedStore]:
    """A store on moto."""
    with OpenedStore(moto) as opened:
        yield opened


@pytest.fixture
def in_bucket(opened: OpenedStore, kind: str) -> Iterator[Place]:
    """A server on a bucket, and one of the objects there."""
    opened.empty()
    client = opened.server.client()
    key = KEYS[kind].text
    with ServedCheckpoints(opened.store) as served:
        fill(served.stub)
        answer = client.get_object(opened.bucket, key)
        intact = answer.read()
        metadata = {name: value for name, value in answer.headers.items() if name.lower().startswith("x-amz-meta-")}
        answer.close()
        answer.release_conn()

        def lay(data: bytes) -> None:
            client.put_object(opened.bucket, key, io.BytesIO(data), len(data), metadata=dict(metadata))

        yield Place(served.stub, kind, intact, lay)


@pytest.mark.parametrize("kind", KEYS)
def test_a_flipped_bit_in_the_bucket_is_noticed(in_bucket: Place) -> None:
    in_bucket.check_all(flips(in_bucket.intact))
    assert in_bucket.reasons <= FOUND[in_bucket.kind]


@pytest.mark.parametrize("kind", KEYS)
def test_another_length_in_the_bucket_is_noticed(in_bucket: Place) -> None:
    in_bucket.check_all(lengths(in_bucket.intact))
    assert in_bucket.reasons <= FOUND[in_bucket.kind]
