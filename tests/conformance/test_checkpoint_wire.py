"""CheckpointStore on the wire, as a client in any language meets it: orders of messages, frames, fields, limits.

Uploads and rules are the same for checkpoints and snapshots, so each row is tried on both.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from holdfast.v1 import checkpoint_store_pb2 as pb
from holdfast.v1 import checkpoint_store_pb2_grpc
from holdfast.v1.types_pb2 import DataChunk, UploadTrailer
from holdfast_server.checkpoints import key_file
from tests.support.s3_stores import s3_environment
from tests.support.samples import MIB, sample
from tests.support.server_process import ServerProcess
from tests.support.statuses import refused

DATA = b"hello world"
SHA256 = hashlib.sha256(DATA).digest()
TIMEOUT_SECONDS = 60
MAX_EPOCH = (1 << 63) - 2


@pytest.fixture(scope="module", params=["memory", "filesystem", "moto", "minio"])
def stub(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    directory = tmp_path_factory.mktemp("wire")
    data_dir: Path | None = directory / "data" if request.param == "filesystem" else None
    env = {"HOLDFAST_CHECKPOINT_STORE__MAX_CHECKPOINT_BYTES": str(8 * MIB)}
    if request.param in {"moto", "minio"}:
        # moto does not keep the conditions of uploads in parts.
        env |= s3_environment(request.getfixturevalue(request.param), single_writer=request.param == "moto")
        env["HOLDFAST_CHECKPOINT_STORE__KEY_RING"] = str(directory / "keys.json")
        key_file.make_if_missing(directory / "keys.json")
    with ServerProcess(data_dir, env=env) as server, grpc.insecure_channel(server.address) as channel:
        yield checkpoint_store_pb2_grpc.CheckpointStoreStub(channel)


@pytest.fixture
def room(request: pytest.FixtureRequest) -> str:
    """A room that no other test has."""
    return "t/" + hashlib.sha256(request.node.name.encode()).hexdigest()


class Kind(NamedTuple):
    """What is uploaded, and how it is had back."""

    save: str
    load: str
    message: Any
    header: Any
    request: Any


CHECKPOINT = Kind(
    "SaveCheckpoint",
    "LoadCheckpoint",
    pb.SaveCheckpointRequest,
    lambda **fields: pb.SaveCheckpointHeader(**{"epoch": 7} | fields),
    pb.LoadCheckpointRequest,
)
SNAPSHOT = Kind("HibernateRoom", "RestoreRoom", pb.HibernateRoomRequest, pb.HibernateRoomHeader, pb.RestoreRoomRequest)


@pytest.fixture(params=[CHECKPOINT, SNAPSHOT], ids=["checkpoint", "snapshot"])
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


Part = tuple[str, dict[str, Any]]


def header(**fields: Any) -> Part:
    return "header", fields


def chunk(data: bytes = DATA, **fields: Any) -> Part:
    return "chunk", {"data": data} | fields


def trailer(**fields: Any) -> Part:
    return "trailer", fields


NOTHING: Part = ("", {})


def upload(stub: Any, kind: Kind, room: str, parts: list[Part]) -> Any:
    def messages() -> Iterator[Any]:
        for part, fields in parts:
            if part == "header":
                yield kind.message(header=kind.header(**{"room_id": room} | fields))
            elif part == "chunk":
                yield kind.message(chunk=DataChunk(**fields))
            elif part == "trailer":
                yield kind.message(trailer=UploadTrailer(**fields))
            else:
                yield kind.message()

    return getattr(stub, kind.save)(messages(), timeout=TIMEOUT_SECONDS)


def load(stub: Any, kind: Kind, room: str) -> tuple[Any, bytes]:
    first, *rest = getattr(stub, kind.load)(kind.request(room_id=room), timeout=TIMEOUT_SECONDS)
    assert first.WhichOneof("part") == "info"
    for message in rest:
        assert message.WhichOneof("part") == "chunk"
        assert message.chunk.crc32c == google_crc32c.value(message.chunk.data)
        assert 0 < len(message.chunk.data) <= MIB
    return first.info, b"".join(message.chunk.data for message in rest)


COMPLETE = {
    "a trailer": [header(), chunk(), trailer()],
    "the declared size": [header(size_bytes=11), chunk()],
    "both": [header(size_bytes=11), chunk(), trailer()],
    "everything declared twice": [
        header(size_bytes=11, sha256=SHA256),
        chunk(crc32c=google_crc32c.value(DATA)),
        trailer(size_bytes=11, sha256=SHA256),
    ],
    "several chunks": [header(), chunk(b"hello"), chunk(b" "), chunk(b"world"), trailer()],
}


@pytest.mark.parametrize("parts", COMPLETE.values(), ids=COMPLETE)
def test_a_complete_upload_is_stored(stub: Any, kind: Kind, room: str, parts: list[Part]) -> None:
    upload(stub, kind, room, parts)
    info, data = load(stub, kind, room)
    assert (info.room_id, info.size_bytes, info.sha256, data) == (room, 11, SHA256, DATA)


@pytest.mark.parametrize("parts", [[header(size_bytes=0)], [header(), trailer()]], ids=["size", "trailer"])
def test_an_empty_payload_is_legal_and_has_no_chunk(stub: Any, kind: Kind, room: str, parts: list[Part]) -> None:
    upload(stub, kind, room, parts)
    messages = list(getattr(stub, kind.load)(kind.request(room_id=room), timeout=TIMEOUT_SECONDS))
    assert len(messages) == 1
    assert messages[0].info.size_bytes == 0


def test_chunks_have_a_mebibyte_and_their_sum(stub: Any, kind: Kind, room: str) -> None:
    data = sample(5 * MIB + 3)
    chunks = [chunk(data[start : start + 2 * MIB]) for start in range(0, len(data), 2 * MIB)]
    upload(stub, kind, room, [header(), *chunks, trailer()])
    messages = list(getattr(stub, kind.load)(kind.request(room_id=room), timeout=TIMEOUT_SECONDS))[1:]
    sizes = [len(message.chunk.data) for message in messages]
    assert (max(sizes), sum(sizes)) == (MIB, len(data))
    assert len(sizes) <= 7, "whole ones, but for the first and the last"
    assert load(stub, kind, room)[1] == data


REFUSED_UPLOADS = {
    "nothing": ([], "UPLOAD_INCOMPLETE", "header"),
    "no trailer and no size": ([header(), chunk()], "UPLOAD_INCOMPLETE", "trailer"),
    "only a header": ([header()], "UPLOAD_INCOMPLETE", "trailer"),
    "less than declared": ([header(size_bytes=12), chunk()], "UPLOAD_INCOMPLETE", "size_bytes"),
    "less than declared, with a trailer": ([header(size_bytes=12), chunk(), trailer()], "SIZE_MISMATCH", "size_bytes"),
    "more than declared": ([header(size_bytes=10), chunk(), trailer()], "SIZE_MISMATCH", "size_bytes"),
    "another size in the trailer": ([header(), chunk(), trailer(size_bytes=10)], "SIZE_MISMATCH", "size_bytes"),
    "another sha256": ([header(sha256=bytes(32), size_bytes=11), chunk()], "CHECKSUM_MISMATCH", "sha256"),
    "another sha256 in the trailer": ([header(), chunk(), trailer(sha256=bytes(32))], "CHECKSUM_MISMATCH", "sha256"),
    "another crc32c": ([header(), chunk(crc32c=1), trailer()], "CHECKSUM_MISMATCH", "chunk.crc32c"),
    "a short sha256": ([header(sha256=b"short"), chunk(), trailer()], "INVALID_DIGEST", "sha256"),
    "a negative size": ([header(size_bytes=-1), trailer()], "INVALID_SIZE", "size_bytes"),
    "a chunk first": ([chunk(), header(), trailer()], "INVALID_UPLOAD", "part"),
    "a trailer first": ([trailer()], "INVALID_UPLOAD", "part"),
    "an empty message first": ([NOTHING], "INVALID_UPLOAD", "part"),
    "an empty message": ([header(), NOTHING, trailer()], "INVALID_UPLOAD", "part"),
    "a second header": ([header(), header(), trailer()], "INVALID_UPLOAD", "part"),
    "a chunk after the trailer": ([header(), trailer(), chunk()], "INVALID_UPLOAD", "part"),
    "a second trailer": ([header(), trailer(), trailer()], "INVALID_UPLOAD", "part"),
    "a chunk without data": ([header(), chunk(b""), trailer()], "INVALID_UPLOAD", "chunk.data"),
    "a chunk above 2 MiB": ([header(), chunk(bytes(2 * MIB + 1)), trailer()], "TOO_LARGE", "chunk.data"),
    "a declared size above the limit": ([header(size_bytes=8 * MIB + 1)], "TOO_LARGE", "size_bytes"),
    "more bytes than the limit": ([header(), *[chunk(bytes(2 * MIB))] * 5, trailer()], "TOO_LARGE", "size_bytes"),
    "a metadata key with a capital": ([header(metadata={"Who": "x"}), trailer()], "INVALID_METADATA", "metadata"),
    "more than 1 KiB of metadata": ([header(metadata={"who": "é" * 171}), trailer()], "INVALID_METADATA", "metadata"),
    "a writer of 129 characters": ([header(writer_id="w" * 129), trailer()], "INVALID_WRITER", "writer_id"),
    "a writer with a line break": ([header(writer_id="a\n"), trailer()], "INVALID_WRITER", "writer_id"),
    "a writer beyond ASCII": ([header(writer_id="é"), trailer()], "INVALID_WRITER", "writer_id"),
}


@pytest.mark.parametrize(("parts", "reason", "field"), REFUSED_UPLOADS.values(), ids=REFUSED_UPLOADS)
def test_a_refused_upload_says_why_and_leaves_the_room_as_it_was(
    stub: Any, kind: Kind, room: str, *, parts: list[Part], reason: str, field: str
) -> None:
    for is_there in (False, True):
        with refused() as refusal:
            upload(stub, kind, room, parts)
        assert (refusal.code, refusal.reason, refusal.fields) == ("INVALID_ARGUMENT", reason, [field])
        if is_there:
            assert load(stub, kind, room)[1] == b"old"
            continue
        with refused() as refusal:
            load(stub, kind, room)
        assert refusal.code == "NOT_FOUND"
        upload(stub, kind, room, [header(), chunk(b"old"), trailer()])


BAD_ROOMS = {
    "empty": "",
    "..": "..",
    "a segment ..": "a/../b",
    "the name of a pointer": "a/latest",
    "the name of a checkpoint": "a/00000000000000000007",
    "like the name of a checkpoint": "0000000000x/a",
    "a leading slash": "/a",
    "a trailing slash": "a/",
    "a doubled slash": "a//b",
    "a NUL": "a\0b",
    "1 KiB": "/".join(["r" * 127] * 8),
    "a segment of 201 bytes": "r" * 201,
}


@pytest.mark.parametrize("bad", BAD_ROOMS.values(), ids=BAD_ROOMS)
def test_a_room_that_cannot_be_is_refused_by_every_call(stub: Any, bad: str) -> None:
    watched = pb.WatchCheckpointsRequest(room_ids=["good", bad])
    for call in (
        lambda: upload(stub, CHECKPOINT, bad, [header(), trailer()]),
        lambda: upload(stub, SNAPSHOT, bad, [header(), trailer()]),
        lambda: list(stub.LoadCheckpoint(pb.LoadCheckpointRequest(room_id=bad), timeout=60)),
        lambda: stub.StatCheckpoint(pb.StatCheckpointRequest(room_id=bad), timeout=60),
        lambda: stub.ListCheckpoints(pb.ListCheckpointsRequest(room_id=bad), timeout=60),
        lambda: list(stub.PruneCheckpoints(pb.PruneCheckpointsRequest(room_id=bad or "/", keep_last=1), timeout=60)),
        lambda: list(stub.DeleteRoom(pb.DeleteRoomRequest(room_id=bad), timeout=60)),
        lambda: list(stub.RestoreRoom(pb.RestoreRoomRequest(room_id=bad), timeout=60)),
        lambda: stub.ConfirmRestore(pb.ConfirmRestoreRequest(room_id=bad, etag="e", sha256=SHA256), timeout=60),
        lambda: list(stub.WatchCheckpoints(watched, timeout=60)),
    ):
        with refused() as refusal:
            call()
        assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "INVALID_ROOM")
        assert refusal.fields in (["room_id"], ["room_ids"])
    assert refusal.fields == ["room_ids"]


BAD_REQUESTS = {
    "no epoch to save": ("SaveCheckpoint", pb.SaveCheckpointHeader(room_id="r"), "INVALID_EPOCH", "epoch"),
    "epoch -1 to save": ("SaveCheckpoint", pb.SaveCheckpointHeader(room_id="r", epoch=-1), "INVALID_EPOCH", "epoch"),
    "an epoch too high": (
        "SaveCheckpoint",
        pb.SaveCheckpointHeader(room_id="r", epoch=MAX_EPOCH + 1),
        "INVALID_EPOCH",
        "epoch",
    ),
    "if_latest_epoch -2": (
        "SaveCheckpoint",
        pb.SaveCheckpointHeader(room_id="r", epoch=1, if_latest_epoch=-2),
        "INVALID_EPOCH",
        "if_latest_epoch",
    ),
    "epoch -1 to load": ("LoadCheckpoint", {"room_id": "r", "epoch": -1}, "INVALID_EPOCH", "epoch"),
    "min_epoch -1 to load": ("LoadCheckpoint", {"room_id": "r", "min_epoch": -1}, "INVALID_EPOCH", "min_epoch"),
    "epoch -1 to stat": ("StatCheckpoint", {"room_id": "r", "epoch": -1}, "INVALID_EPOCH", "epoch"),
    "min_epoch -1 to stat": ("StatCheckpoint", {"room_id": "r", "min_epoch": -1}, "INVALID_EPOCH", "min_epoch"),
    "from_epoch -1": ("ListCheckpoints", {"room_id": "r", "from_epoch": -1}, "INVALID_EPOCH", "from_epoch"),
    "page_size -1": ("ListCheckpoints", {"room_id": "r", "page_size": -1}, "INVALID_PAGE_SIZE", "page_size"),
    "page_size 10,001": ("ListRooms", {"page_size": 10_001}, "INVALID_PAGE_SIZE", "page_size"),
    "page_size -1 of the hibernated": ("ListHibernatedRooms", {"page_size": -1}, "INVALID_PAGE_SIZE", "page_size"),
    "a token": ("ListRooms", {"page_token": "x"}, "INVALID_PAGE_TOKEN", "page_token"),
    "a prefix of 513 bytes": ("ListRooms", {"prefix": "p" * 513}, "INVALID_ROOM", "prefix"),
    "a prefix with a line break": ("ListHibernatedRooms", {"prefix": "a\n"}, "INVALID_ROOM", "prefix"),
    "nothing to keep": ("PruneCheckpoints", {}, "INVALID_RETENTION", "keep_last"),
    "keep_last -1": ("PruneCheckpoints", {"keep_last": -1}, "INVALID_RETENTION", "keep_last"),
    "a negative age": (
        "PruneCheckpoints",
        {"keep_last": 1, "older_than": Duration(seconds=-1)},
        "INVALID_RETENTION",
        "older_than",
    ),
    "no room to watch": ("WatchCheckpoints", {}, "INVALID_ROOM", "room_ids"),
    "10,001 rooms to watch": ("WatchCheckpoints", {"room_ids": ["r"] * 10_001}, "TOO_LARGE", "room_ids"),
    "more than 2 MiB to watch": ("WatchCheckpoints", {"room_ids": ["/".join(["r" * 100] * 5)] * 4500}, "TOO_LARGE",
                                 "room_ids"),
    "no etag": ("ConfirmRestore", {"room_id": "r", "sha256": SHA256}, "INVALID_CONDITION", "etag"),
    "no digest": ("ConfirmRestore", {"room_id": "r", "etag": "e"}, "INVALID_DIGEST", "sha256"),
    "a writer who cannot be": (
        "ConfirmRestore",
        {"room_id": "r", "etag": "e", "sha256": SHA256, "writer_id": "\0"},
        "INVALID_WRITER",
        "writer_id",
    ),
    "an empty etag to match": (
        "HibernateRoom",
        pb.HibernateRoomHeader(room_id="r", if_match_etag=""),
        "INVALID_CONDITION",
        "if_match_etag",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("rpc", "fields", "reason", "field"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_a_request_that_breaks_a_rule_is_refused_with_the_field(
    stub: Any, rpc: str, fields: Any, reason: str, field: str
) -> None:
    method = pb.DESCRIPTOR.services_by_name["CheckpointStore"].methods_by_name[rpc]
    request_type = getattr(pb, method.input_type.name)
    if isinstance(fields, dict):
        request = request_type(**fields)
    else:
        request = iter([request_type(header=fields), request_type(trailer=UploadTrailer())])
    with refused() as refusal:
        answers = getattr(stub, rpc)(request, timeout=TIMEOUT_SECONDS)
        for _ in answers if method.server_streaming else ():
            pass
    assert (refusal.code, refusal.reason, refusal.fields) == ("INVALID_ARGUMENT", reason, [field])


def test_an_age_beyond_all_counting_keeps_everything(stub: Any, room: str) -> None:
    for epoch in range(3):
        upload(stub, CHECKPOINT, room, [header(epoch=epoch), chunk(), trailer()])
    request = pb.PruneCheckpointsRequest(room_id=room, keep_last=1, older_than=Duration(seconds=1 << 62))
    *_, summary = stub.PruneCheckpoints(request, timeout=TIMEOUT_SECONDS)
    assert (summary.done, summary.deleted, summary.kept) == (True, 0, 3)


def test_the_largest_names_are_taken_whole(stub: Any, kind: Kind) -> None:
    room = "/".join(["é" * 100, "~" * 200, "%" * 110])
    said = {"writer_id": "~" * 128, "metadata": {"k" * 64: "v" * 960}}
    upload(stub, kind, room, [header(**said), chunk(), trailer()])
    info, data = load(stub, kind, room)
    assert (info.room_id, info.writer_id, dict(info.metadata), data) == (
        room,
        said["writer_id"],
        said["metadata"],
        DATA,
    )


def test_what_is_refused_names_the_room_in_a_way_a_header_can_carry(stub: Any, kind: Kind) -> None:
    room = "/".join(["🎲" * 50, "é" * 100, "x" * 110])
    with refused() as refusal:
        load(stub, kind, room)
    assert (refusal.code, refusal.names) == ("NOT_FOUND", {"room_id": room})


def test_pages_over_the_wire_are_the_whole_list(stub: Any, room: str) -> None:
    for epoch in range(5):
        upload(stub, CHECKPOINT, room, [header(epoch=epoch), chunk(), trailer()])
    found, sizes, token = [], [], ""
    while True:
        page = stub.ListCheckpoints(
            pb.ListCheckpointsRequest(room_id=room, page_size=2, page_token=token), timeout=TIMEOUT_SECONDS
        )
        found += [entry.epoch for entry in page.checkpoints]
        sizes.append(len(page.checkpoints))
        token = page.next_page_token
        if not token:
            break
    assert (found, sizes) == ([0, 1, 2, 3, 4], [2, 2, 1])


def test_a_full_last_page_has_no_token(stub: Any, room: str) -> None:
    for name in ("a", "b"):
        upload(stub, CHECKPOINT, f"{room}/{name}", [header(), chunk(), trailer()])
        upload(stub, SNAPSHOT, f"{room}/{name}", [header(), chunk(), trailer()])
    for rpc, request in (
        (stub.ListRooms, pb.ListRoomsRequest(prefix=room + "/", page_size=2)),
        (stub.ListHibernatedRooms, pb.ListHibernatedRoomsRequest(prefix=room + "/", page_size=2)),
    ):
        assert rpc(request, timeout=TIMEOUT_SECONDS).next_page_token == ""


def test_a_client_that_leaves_in_the_middle_of_an_upload_leaves_nothing(stub: Any, kind: Kind, room: str) -> None:
    def messages() -> Iterator[Any]:
        yield kind.message(header=kind.header(room_id=room))
        yield kind.message(chunk=DataChunk(data=sample(MIB)))
        call.cancel()
        yield kind.message(chunk=DataChunk(data=sample(MIB)))

    call: Any = getattr(stub, kind.save).future(messages(), timeout=TIMEOUT_SECONDS)
    with pytest.raises((grpc.RpcError, grpc.FutureCancelledError)):
        call.result(TIMEOUT_SECONDS)
    upload(stub, kind, room, [header(), chunk(b"whole"), trailer()])
    assert load(stub, kind, room)[1] == b"whole"
    listed = stub.ListCheckpoints(pb.ListCheckpointsRequest(room_id=room), timeout=TIMEOUT_SECONDS).checkpoints
    assert [entry.epoch for entry in listed] == ([7] if kind is CHECKPOINT else [])
