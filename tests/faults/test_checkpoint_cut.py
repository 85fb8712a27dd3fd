"""Saves and hibernations that are cut off or are not what was declared: none of them leaves anything, anywhere."""

import hashlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import google_crc32c
import grpc
import pytest

from holdfast.v1 import checkpoint_store_pb2 as pb
from holdfast.v1.types_pb2 import DataChunk, UploadTrailer
from holdfast_server.checkpoints import key_file
from holdfast_server.checkpoints.key_ring import KeyRing
from holdfast_server.checkpoints.names import RoomId
from tests.support.checkpoint_calls import (
    hibernate,
    hibernated,
    load,
    load_refused,
    pieces,
    restore,
    restore_refused,
    rooms,
    save,
    stub_of,
)
from tests.support.child_processes import killed_on_failure
from tests.support.s3_faults import uploads
from tests.support.s3_servers import MinioServer
from tests.support.s3_stores import PART_BYTES, fresh_bucket, s3_environment
from tests.support.samples import MIB, sample
from tests.support.server_metrics import metric
from tests.support.server_process import ServerProcess
from tests.support.stalled_calls import LITTLE_AHEAD
from tests.support.statuses import refusal_of
from tests.support.waiting import wait_until

ROOM = RoomId("arena/7")
OTHER = "arena/8"
SIZES = [10, MIB + 1, 2 * PART_BYTES + MIB]
"""In one message, in several, and in several parts."""
SECONDS = 60
RPCS = ["SaveCheckpoint", "HibernateRoom"]


@dataclass
class Place:
    """A server on a backend where two things lie: a checkpoint and a snapshot of the room `OTHER`."""

    server: ServerProcess
    stub: Any
    files: Callable[[], list[str]]
    """What lies in the backend and its scratch."""

    def is_idle(self) -> bool:
        ended = metric(self.server, "grpc_server_handled_total") == metric(self.server, "grpc_server_started_total")
        return ended and metric(self.server, "holdfast_calls_at_work") == 0

    def check_that_nothing_is_left(self, before: list[str]) -> None:
        wait_until(self.is_idle)
        wait_until(lambda: self.files() == before)
        wait_until(lambda: metric(self.server, "holdfast_spool_used_bytes") == 0)
        assert load_refused(self.stub, ROOM.text).reason == "ROOM_NOT_FOUND"
        assert [each.room_id for each in rooms(self.stub)] == [OTHER]
        assert [each.room_id for each in hibernated(self.stub)] == [OTHER]
        assert metric(self.server, "grpc_server_handled_total", grpc_code="INTERNAL") == 0
        assert [line for line in self.server.log if " ERROR " in line] == []


@pytest.fixture(params=["filesystem", "minio"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A server, and the way to see what is behind it."""
    environment = {"HOLDFAST_SPOOL_DIR": str(tmp_path / "spool")}
    data: Path | None = tmp_path / "data"
    files = lambda: sorted(str(path) for path in (tmp_path / "data" / "objects").rglob("*") if path.is_file())  # noqa: E731 (so short)
    if request.param == "minio":
        minio: MinioServer = request.getfixturevalue("minio")
        bucket = fresh_bucket()
        key_file.create(tmp_path / "ring.json", KeyRing.fresh())
        environment |= s3_environment(minio, bucket)
        environment["HOLDFAST_CHECKPOINT_STORE__KEY_RING"] = str(tmp_path / "ring.json")
        data = None

        def files() -> list[str]:
            keys = (ROOM.epoch_key(1).text, ROOM.snapshot_key.text)
            pending = [key for key in keys for _ in range(uploads(minio, bucket, key))]
            listed = minio.client().list_objects(bucket, recursive=True)
            return sorted([item.object_name or "" for item in listed] + pending)

    with ExitStack() as stack:
        server = stack.enter_context(ServerProcess(data, env=environment))
        stub = stub_of(stack.enter_context(grpc.insecure_channel(server.address)))
        save(stub, OTHER, 1, b"x")
        hibernate(stub, OTHER, b"x")
        yield Place(server, stub, files)
        assert load(stub, OTHER)[1] == restore(stub, OTHER)[1] == b"x"
        assert list(tmp_path.glob("spool/*")) == []


def header(rpc: str, **fields: Any) -> Any:
    if rpc == "HibernateRoom":
        return pb.HibernateRoomRequest(header=pb.HibernateRoomHeader(room_id=ROOM.text, **fields))
    return pb.SaveCheckpointRequest(header=pb.SaveCheckpointHeader(room_id=ROOM.text, epoch=1, **fields))


def message(rpc: str, **part: Any) -> Any:
    return pb.HibernateRoomRequest(**part) if rpc == "HibernateRoom" else pb.SaveCheckpointRequest(**part)


def chunks(rpc: str, data: bytes) -> Iterator[Any]:
    return (message(rpc, chunk=chunk) for chunk in pieces(data))


def wrong_crc(rpc: str, data: bytes) -> Iterator[Any]:
    """Yield the data; the checksum of the last piece is that of another."""
    *most, last = pieces(data)
    for chunk in most:
        yield message(rpc, chunk=chunk)
    yield message(rpc, chunk=DataChunk(data=last.data, crc32c=google_crc32c.value(last.data) ^ 1))


def broken(rpc: str, data: bytes) -> dict[str, tuple[Iterator[Any], str]]:
    """Return uploads that are not what they say, or not all of it, and how they are refused."""
    size, sha256 = len(data), hashlib.sha256(data).digest()
    other = hashlib.sha256(data[1:]).digest()

    def end(**fields: Any) -> list[Any]:
        return [message(rpc, trailer=UploadTrailer(**fields))]

    def upload(*parts: Any, **fields: Any) -> Iterator[Any]:
        return chain([header(rpc, **fields)], *parts)

    return {
        "no trailer": (upload(chunks(rpc, data)), "UPLOAD_INCOMPLETE"),
        "nothing but a header": (upload(), "UPLOAD_INCOMPLETE"),
        "less than was declared": (upload(chunks(rpc, data), size_bytes=size + 1), "UPLOAD_INCOMPLETE"),
        "more than was declared": (upload(chunks(rpc, data), end(), size_bytes=size - 1), "SIZE_MISMATCH"),
        "less, and a trailer": (upload(chunks(rpc, data), end(), size_bytes=size + 1), "SIZE_MISMATCH"),
        "another size in the trailer": (upload(chunks(rpc, data), end(size_bytes=size - 1)), "SIZE_MISMATCH"),
        "another sha256": (upload(chunks(rpc, data), end(), sha256=other), "CHECKSUM_MISMATCH"),
        "another sha256 in the trailer": (upload(chunks(rpc, data), end(sha256=other)), "CHECKSUM_MISMATCH"),
        "another crc": (upload(wrong_crc(rpc, data), end(sha256=sha256)), "CHECKSUM_MISMATCH"),
    }


@pytest.mark.parametrize("rpc", RPCS)
def test_an_upload_that_is_not_what_it_says_leaves_nothing(place: Place, rpc: str) -> None:
    before = place.files()
    for size in SIZES:
        for name, (upload, why) in broken(rpc, sample(size)).items():
            with pytest.raises(grpc.RpcError) as refused:
                getattr(place.stub, rpc)(upload, timeout=SECONDS)
            refusal = refusal_of(refused.value)
            assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", why), (name, size)
        place.check_that_nothing_is_left(before)


@pytest.mark.parametrize("rpc", RPCS)
def test_an_upload_that_is_given_up_leaves_nothing(place: Place, rpc: str) -> None:
    before = place.files()
    for size in SIZES:
        for give_up in (cancel, let_the_deadline_pass):
            give_up(place.stub, rpc, size)
        place.check_that_nothing_is_left(before)


def cancel(stub: Any, rpc: str, size: int) -> None:
    with begun(rpc, size) as (requests, reached):
        call = getattr(stub, rpc).future(requests, timeout=SECONDS)
        assert reached.wait(SECONDS)
        call.cancel()


def let_the_deadline_pass(stub: Any, rpc: str, size: int) -> None:
    with begun(rpc, size) as (requests, _reached):
        call = getattr(stub, rpc).future(requests, timeout=1.0)
        assert call.exception(SECONDS).code() is grpc.StatusCode.DEADLINE_EXCEEDED


@contextmanager
def begun(rpc: str, size: int) -> Iterator[tuple[Iterator[Any], threading.Event]]:
    """Yield an upload that stops before its end, which comes with the block's, and what tells that it got there."""
    reached, over = threading.Event(), threading.Event()

    def requests() -> Iterator[Any]:
        yield header(rpc)
        yield from chunks(rpc, sample(size))
        reached.set()
        over.wait(SECONDS)

    try:
        yield requests(), reached
    finally:
        over.set()


CLIENT = """
import os
import sys
import threading
import grpc
from tests.faults.test_checkpoint_cut import chunks, header
from tests.support.checkpoint_calls import stub_of
from tests.support.samples import sample

def requests(rpc):
    yield header(rpc)
    yield from chunks(rpc, sample(int(sys.argv[2])))
    os.write(1, f"{rpc}\\n".encode())  # at once: the two threads' lines must not mix
    threading.Event().wait()

stub = stub_of(grpc.insecure_channel(sys.argv[1]))
calls = [getattr(stub, rpc).future(requests(rpc)) for rpc in sys.argv[3:]]
for call in calls:
    call.result()
"""


@pytest.mark.parametrize("size", [SIZES[0], SIZES[-1]])
def test_the_uploads_of_a_client_that_is_killed_leave_nothing(place: Place, size: int) -> None:
    before = place.files()
    command = [sys.executable, "-c", CLIENT, place.server.address, str(size), *RPCS]
    with killed_on_failure(
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    ) as process:
        assert process.stdout is not None
        assert {process.stdout.readline().strip() for _ in RPCS} == set(RPCS)
        wait_until(lambda: metric(place.server, "holdfast_calls_at_work") == len(RPCS))
        process.kill()
    place.check_that_nothing_is_left(before)


def test_these_cuts_do_put_something_somewhere(place: Place) -> None:
    before = place.files()
    data = sample(SIZES[-1])
    over = threading.Event()

    def requests() -> Iterator[Any]:
        yield header("SaveCheckpoint")
        yield from chunks("SaveCheckpoint", data)
        over.wait(SECONDS)
        yield message("SaveCheckpoint", trailer=UploadTrailer())

    call = place.stub.SaveCheckpoint.future(requests(), timeout=SECONDS)
    wait_until(lambda: place.files() != before or metric(place.server, "holdfast_spool_used_bytes") > 0)
    over.set()
    assert call.result(SECONDS).pointer_moved
    assert load(place.stub, ROOM.text)[1] == data


def test_what_does_not_fit_into_the_spool_is_not_sent_and_takes_nothing(tmp_path: Path) -> None:
    environment = {
        "HOLDFAST_SPOOL_DIR": str(tmp_path / "spool"),
        "HOLDFAST_SPOOL_MAX_BYTES": str(2 * MIB),
        "HOLDFAST_CHECKPOINT_STORE__LOAD_MEMORY_BYTES": str(MIB),
    }
    with ServerProcess(tmp_path / "data", env=environment) as server, grpc.insecure_channel(server.address) as channel:
        stub = stub_of(channel)
        for epoch, size in enumerate((10, MIB + 1, 3 * MIB)):
            save(stub, ROOM.text, epoch, sample(size))
        hibernate(stub, ROOM.text, sample(3 * MIB))
        for _ in range(3):
            for refusal in (load_refused(stub, ROOM.text), restore_refused(stub, ROOM.text)):
                assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "SPOOL_FULL")
            for epoch, size in enumerate((10, MIB + 1)):
                assert load(stub, ROOM.text, epoch=epoch)[1] == sample(size)
            wait_until(lambda: metric(server, "holdfast_spool_used_bytes") == 0)
        # It is no damage: an older one is not what the caller wants.
        assert load_refused(stub, ROOM.text, fallback=True).reason == "SPOOL_FULL"
        assert list(tmp_path.glob("spool/*")) == []


def test_a_load_that_is_given_up_takes_nothing(place: Place) -> None:
    save(place.stub, ROOM.text, 1, sample(SIZES[-1]))
    for _ in range(5):
        with grpc.insecure_channel(place.server.address, LITTLE_AHEAD) as channel:
            call = stub_of(channel).LoadCheckpoint(pb.LoadCheckpointRequest(room_id=ROOM.text), timeout=SECONDS)
            assert next(call).info.epoch == 1
            assert metric(place.server, "holdfast_spool_used_bytes") > SIZES[-1]
            call.cancel()
            wait_until(place.is_idle)
            wait_until(lambda: metric(place.server, "holdfast_spool_used_bytes") == 0)
