"""BlobStore on the wire, as a client in any language meets it: orders of messages, declarations, refusals.

Each row of the table of errors that applies is here, seen from outside by code, reason and field.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import grpc
import pytest

from holdfast.v1 import blob_store_pb2 as pb
from holdfast.v1 import blob_store_pb2_grpc
from holdfast.v1.types_pb2 import DataChunk, UploadTrailer
from tests.support.s3_stores import s3_environment
from tests.support.samples import MIB, sample
from tests.support.server_process import ServerProcess
from tests.support.statuses import refused

Stub = blob_store_pb2_grpc.BlobStoreStub
DATA = b"hello world"
SHA256 = hashlib.sha256(DATA).digest()


@pytest.fixture(scope="module", params=["memory", "filesystem", "moto", "minio"])
def address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    data_dir: Path | None = tmp_path_factory.mktemp("wire") / "data" if request.param == "filesystem" else None
    env = {"HOLDFAST_BLOB_STORE__MAX_BLOB_BYTES": str(8 * MIB)}
    if request.param in {"moto", "minio"}:
        env |= s3_environment(request.getfixturevalue(request.param))
    with ServerProcess(data_dir, env=env) as server:
        yield server.address


@pytest.fixture
def stub(address: str) -> Iterator[Stub]:
    with grpc.insecure_channel(address) as channel:
        stub = Stub(channel)
        yield stub
        for blob in stub.ListBlobs(pb.ListBlobsRequest()).blobs:
            stub.DeleteBlob(pb.DeleteBlobRequest(key=blob.key))


def header(**fields: Any) -> pb.PutBlobRequest:
    return pb.PutBlobRequest(header=pb.PutBlobHeader(**{"key": "k"} | fields))


def chunk(data: bytes = DATA, **fields: Any) -> pb.PutBlobRequest:
    return pb.PutBlobRequest(chunk=DataChunk(data=data, **fields))


def trailer(**fields: Any) -> pb.PutBlobRequest:
    return pb.PutBlobRequest(trailer=UploadTrailer(**fields))


def put(stub: Stub, *parts: pb.PutBlobRequest) -> pb.PutBlobResponse:
    return stub.PutBlob(iter(parts))


def get(stub: Stub, **fields: Any) -> tuple[pb.BlobInfo, bytes]:
    first, *rest = stub.GetBlob(pb.GetBlobRequest(**{"key": "k"} | fields))
    assert first.WhichOneof("part") == "info"
    for message in rest:
        assert message.chunk.crc32c == google_crc32c.value(message.chunk.data)
        assert 0 < len(message.chunk.data) <= MIB
    return first.info, b"".join(message.chunk.data for message in rest)


def keys(stub: Stub) -> list[str]:
    return [blob.key for blob in stub.ListBlobs(pb.ListBlobsRequest()).blobs]


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
def test_a_complete_upload_is_stored(stub: Stub, parts: list[pb.PutBlobRequest]) -> None:
    answer = put(stub, *parts)
    assert (answer.blob.key, answer.blob.size_bytes, answer.blob.sha256, answer.created) == ("k", 11, SHA256, True)
    assert get(stub)[1] == DATA


@pytest.mark.parametrize("parts", [[header(size_bytes=0)], [header(), trailer()]], ids=["size", "trailer"])
def test_an_empty_blob_is_legal(stub: Stub, parts: list[pb.PutBlobRequest]) -> None:
    put(stub, *parts)
    info, data = get(stub)
    assert (info.size_bytes, info.range.length, data) == (0, 0, b"")


REFUSED_UPLOADS = {
    "nothing": ([], "UPLOAD_INCOMPLETE", "header"),
    "no trailer and no size": ([header(), chunk()], "UPLOAD_INCOMPLETE", "trailer"),
    "only a header": ([header()], "UPLOAD_INCOMPLETE", "trailer"),
    "less than declared": ([header(size_bytes=12), chunk()], "UPLOAD_INCOMPLETE", "size_bytes"),
    "less than declared, with a trailer": ([header(size_bytes=12), chunk(), trailer()], "SIZE_MISMATCH", "size_bytes"),
    "more than declared": ([header(size_bytes=10), chunk(), trailer()], "SIZE_MISMATCH", "size_bytes"),
    "another size in the trailer": ([header(), chunk(), trailer(size_bytes=10)], "SIZE_MISMATCH", "size_bytes"),
    "another sha256 in the header": (
        [header(sha256=bytes(32), size_bytes=11), chunk()],
        "CHECKSUM_MISMATCH",
        "sha256",
    ),
    "another sha256 in the trailer": ([header(), chunk(), trailer(sha256=bytes(32))], "CHECKSUM_MISMATCH", "sha256"),
    "another crc32c": ([header(), chunk(crc32c=1), trailer()], "CHECKSUM_MISMATCH", "chunk.crc32c"),
    "a crc32c of zero": ([header(), chunk(crc32c=0), trailer()], "CHECKSUM_MISMATCH", "chunk.crc32c"),
    "a short sha256": ([header(sha256=b"short"), chunk(), trailer()], "INVALID_DIGEST", "sha256"),
    "a short sha256 in the trailer": ([header(), chunk(), trailer(sha256=b"short")], "INVALID_DIGEST", "sha256"),
    "a negative size": ([header(size_bytes=-1), trailer()], "INVALID_SIZE", "size_bytes"),
    "a negative size in the trailer": ([header(), trailer(size_bytes=-1)], "INVALID_SIZE", "size_bytes"),
    "a chunk first": ([chunk(), header(), trailer()], "INVALID_UPLOAD", "part"),
    "a trailer first": ([trailer()], "INVALID_UPLOAD", "part"),
    "an empty message first": ([pb.PutBlobRequest()], "INVALID_UPLOAD", "part"),
    "an empty message": ([header(), pb.PutBlobRequest(), trailer()], "INVALID_UPLOAD", "part"),
    "a second header": ([header(), header(), trailer()], "INVALID_UPLOAD", "part"),
    "a chunk after the trailer": ([header(), trailer(), chunk()], "INVALID_UPLOAD", "part"),
    "a second trailer": ([header(), trailer(), trailer()], "INVALID_UPLOAD", "part"),
    "a chunk without data": ([header(), chunk(b""), trailer()], "INVALID_UPLOAD", "chunk.data"),
    "a chunk above 2 MiB": ([header(), chunk(bytes(2 * MIB + 1)), trailer()], "TOO_LARGE", "chunk.data"),
    "a declared size above the limit": ([header(size_bytes=8 * MIB + 1)], "TOO_LARGE", "size_bytes"),
    "more bytes than the limit": ([header(), *[chunk(bytes(2 * MIB))] * 5, trailer()], "TOO_LARGE", "size_bytes"),
    "no address": ([pb.PutBlobRequest(header=pb.PutBlobHeader()), trailer()], "INVALID_ADDRESS", "address"),
    "an unknown layout": (
        [header(content=pb.ContentAddress(layout=99)), trailer()],  # type: ignore[arg-type]
        "INVALID_ADDRESS",
        "content.layout",
    ),
    "an empty key": ([header(key=""), trailer()], "INVALID_KEY", "key"),
    "a key that leads out": ([header(key="../../etc/passwd"), trailer()], "INVALID_KEY", "key"),
    "a reserved key": ([header(key="snapshots/room/latest"), trailer()], "INVALID_KEY", "key"),
    "a key of 901 bytes": ([header(key="/".join(["k" * 99] * 9) + "kk"), trailer()], "INVALID_KEY", "key"),
    "a segment of 201 bytes": ([header(key="é" * 100 + "x"), trailer()], "INVALID_KEY", "key"),
    "a metadata key with a capital": ([header(metadata={"Who": "x"}), trailer()], "INVALID_METADATA", "metadata"),
    "more than 1 KiB of metadata": ([header(metadata={"who": "é" * 171}), trailer()], "INVALID_METADATA", "metadata"),
    "a content type with a line break": (
        [header(content_type="text/plain\r\nx: y"), trailer()],
        "INVALID_CONTENT_TYPE",
        "content_type",
    ),
    "an empty etag": ([header(if_match_etag=""), trailer()], "INVALID_CONDITION", "if_match_etag"),
    "if-match on a content address": (
        [header(content=pb.ContentAddress(), if_match_etag="x"), trailer()],
        "INVALID_CONDITION",
        "if_match_etag",
    ),
    "two digests that differ": (
        [header(content=pb.ContentAddress(sha256=bytes(32)), sha256=SHA256), trailer()],
        "INVALID_DIGEST",
        "sha256",
    ),
    "a digest that is not the content's": (
        [header(content=pb.ContentAddress(sha256=bytes(32))), chunk(), trailer()],
        "CHECKSUM_MISMATCH",
        "sha256",
    ),
}


@pytest.mark.parametrize(("parts", "reason", "field"), REFUSED_UPLOADS.values(), ids=REFUSED_UPLOADS)
def test_a_refused_upload_says_why_and_leaves_the_store_as_it_was(
    stub: Stub, parts: list[pb.PutBlobRequest], reason: str, field: str
) -> None:
    for old in ((), (header(), chunk(b"old"), trailer())):
        if old:
            put(stub, *old)
        with refused() as refusal:
            put(stub, *parts)
        assert (refusal.code, refusal.reason, refusal.fields) == ("INVALID_ARGUMENT", reason, [field])
        assert refusal.message
        assert keys(stub) == ["k"] * bool(old)
        if old:
            assert get(stub)[1] == b"old"


def test_the_largest_chunk_metadata_and_key_are_taken(stub: Stub) -> None:
    key = "/".join(["k" * 99] * 9) + "k"
    put(stub, header(key=key, metadata={"who": "é" * 170}, content_type="x" * 255), chunk(bytes(2 * MIB)), trailer())
    info, data = get(stub, key=key)
    assert (len(key), len(data), info.metadata["who"], info.content_type) == (900, 2 * MIB, "é" * 170, "x" * 255)


def test_a_message_above_the_limit_of_grpc_is_refused_and_leaves_nothing(stub: Stub) -> None:
    with refused() as refusal:
        put(stub, header(), chunk(bytes(4 * MIB)), trailer())
    assert refusal.code == "RESOURCE_EXHAUSTED"
    assert keys(stub) == []


REFUSED_READS = {
    "a negative offset": ({"offset": -1}, "INVALID_ARGUMENT", "INVALID_RANGE", ["offset"]),
    "a length of zero": ({"length": 0}, "INVALID_ARGUMENT", "INVALID_RANGE", ["length"]),
    "a negative length": ({"length": -1}, "INVALID_ARGUMENT", "INVALID_RANGE", ["length"]),
    "a suffix of zero": ({"suffix_length": 0}, "INVALID_ARGUMENT", "INVALID_RANGE", ["suffix_length"]),
    "a suffix and an offset": (
        {"suffix_length": 1, "offset": 1},
        "INVALID_ARGUMENT",
        "INVALID_RANGE",
        ["suffix_length"],
    ),
    "a suffix and a length": (
        {"suffix_length": 1, "length": 1},
        "INVALID_ARGUMENT",
        "INVALID_RANGE",
        ["suffix_length"],
    ),
    "an offset at the end": ({"offset": 11}, "OUT_OF_RANGE", "RANGE_NOT_SATISFIABLE", []),
    "an exact range past the end": (
        {"offset": 1, "length": 11, "exact": True},
        "OUT_OF_RANGE",
        "RANGE_NOT_SATISFIABLE",
        [],
    ),
    "another etag": ({"if_match_etag": "other"}, "FAILED_PRECONDITION", "PRECONDITION_FAILED", []),
    "an empty etag": ({"if_match_etag": ""}, "INVALID_ARGUMENT", "INVALID_CONDITION", ["if_match_etag"]),
    "a missing key": ({"key": "missing"}, "NOT_FOUND", "BLOB_NOT_FOUND", []),
    "a missing key with if-match": (
        {"key": "missing", "if_match_etag": "x"},
        "NOT_FOUND",
        "BLOB_NOT_FOUND",
        [],
    ),
    "a bad key": ({"key": "a//b"}, "INVALID_ARGUMENT", "INVALID_KEY", ["key"]),
    "a content address without its digest": (
        {"content": pb.ContentAddress(prefix="a/")},
        "INVALID_ARGUMENT",
        "INVALID_DIGEST",
        ["content.sha256"],
    ),
    "a content address that is not there": (
        {"content": pb.ContentAddress(sha256=bytes(32))},
        "NOT_FOUND",
        "BLOB_NOT_FOUND",
        [],
    ),
}


@pytest.mark.parametrize(("fields", "code", "reason", "names"), REFUSED_READS.values(), ids=REFUSED_READS)
def test_a_refused_read_sends_no_message(
    stub: Stub, fields: dict[str, Any], code: str, reason: str, names: list[str]
) -> None:
    put(stub, header(), chunk(), trailer())
    named = fields if "content" in fields else {"key": "k"} | fields
    request = pb.GetBlobRequest(**named)
    received: list[pb.GetBlobResponse] = []
    with refused() as refusal:
        received.extend(stub.GetBlob(request))
    assert (refusal.code, refusal.reason, refusal.fields) == (code, reason, names)
    assert received == []


def test_ranges_tell_what_is_served_and_the_size_of_the_whole(stub: Stub) -> None:
    put(stub, header(), chunk(), trailer())
    for fields, expected in (
        ({}, DATA),
        ({"offset": 6}, b"world"),
        ({"offset": 6, "length": 100}, b"world"),
        ({"length": 5}, b"hello"),
        ({"suffix_length": 3}, b"rld"),
        ({"suffix_length": 99}, DATA),
        ({"offset": 10, "length": 1, "exact": True}, b"d"),
    ):
        info, data = get(stub, **fields)
        assert data == expected
        assert (info.size_bytes, info.range.length) == (11, len(expected))
        assert DATA[info.range.offset :].startswith(expected)


def test_a_create_only_conflict_tells_what_is_there(stub: Stub) -> None:
    there = put(stub, header(create_only=True), chunk(), trailer()).blob
    with refused() as refusal:
        put(stub, header(create_only=True), chunk(b"other"), trailer())
    assert (refusal.code, refusal.reason) == ("ALREADY_EXISTS", "ALREADY_EXISTS")
    assert refusal.names == {"key": "k", "etag": there.etag, "sha256": SHA256.hex()}
    put(stub, header(create_only=False), chunk(b"other"), trailer())


def test_if_match_tells_what_is_there(stub: Stub, request: pytest.FixtureRequest) -> None:
    with refused() as refusal:
        put(stub, header(if_match_etag="x"), chunk(), trailer())
    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "PRECONDITION_FAILED")
    assert refusal.names == {"key": "k"}
    with refused() as refusal:
        stub.DeleteBlob(pb.DeleteBlobRequest(key="k", if_match_etag="x"))
    if request.node.callspec.params["address"] == "minio":  # which ignores the condition of a deletion
        assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "CONDITION_UNSUPPORTED")
    else:
        assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "PRECONDITION_FAILED")
        assert refusal.names == {"key": "k"}
    there = put(stub, header(), chunk(), trailer()).blob
    with refused() as refusal:
        put(stub, header(if_match_etag="x"), chunk(b"other"), trailer())
    assert refusal.names == {"key": "k", "etag": there.etag, "sha256": SHA256.hex()}
    put(stub, header(if_match_etag=there.etag), chunk(b"other"), trailer())
    assert get(stub)[1] == b"other"


def test_a_content_address_is_made_by_the_server_or_checked_by_it(stub: Stub) -> None:
    content = pb.ContentAddress(prefix="artifacts/", suffix=".wasm")
    first = put(stub, header(content=content), chunk(), trailer())
    assert (first.blob.key, first.created) == (f"artifacts/{SHA256.hex()}.wasm", True)
    content.sha256 = SHA256
    again = put(stub, header(content=content, size_bytes=11), chunk())
    assert (again.blob.etag, again.created) == (first.blob.etag, False)
    assert get(stub, content=content)[1] == DATA
    assert stub.StatBlob(pb.StatBlobRequest(content=content)).blob.key == first.blob.key
    assert stub.DeleteBlob(pb.DeleteBlobRequest(content=content)).existed is True


def test_a_broken_upload_to_a_content_address_that_is_there_is_still_refused(stub: Stub) -> None:
    content = pb.ContentAddress(sha256=SHA256)
    put(stub, header(content=content), chunk(), trailer())
    for parts in ([chunk(b"hell")], [chunk(b"jello world"), trailer()], []):
        with refused() as refusal:
            put(stub, header(content=content), *parts)
        assert refusal.code == "INVALID_ARGUMENT"


def test_other_bytes_under_a_content_address_are_a_conflict(stub: Stub) -> None:
    put(stub, header(key=SHA256.hex()), chunk(b"not those"), trailer())
    for declared in (b"", SHA256):
        with refused() as refusal:
            put(stub, header(content=pb.ContentAddress(sha256=declared)), chunk(), trailer())
        assert (refusal.code, refusal.reason) == ("ALREADY_EXISTS", "CONTENT_CONFLICT")
        assert refusal.names["sha256"] == hashlib.sha256(b"not those").hexdigest()


def test_delete_says_whether_there_was_something(stub: Stub) -> None:
    put(stub, header(), chunk(), trailer())
    assert stub.DeleteBlob(pb.DeleteBlobRequest(key="k")).existed is True
    assert stub.DeleteBlob(pb.DeleteBlobRequest(key="k")).existed is False


def test_lists_page_and_roll_up(stub: Stub) -> None:
    for key in ("a", "b/1", "b/2", "c"):
        put(stub, header(key=key), chunk(), trailer())
    first = stub.ListBlobs(pb.ListBlobsRequest(delimiter="/", page_size=2))
    assert ([blob.key for blob in first.blobs], list(first.common_prefixes)) == (["a"], ["b/"])
    assert first.blobs[0].size_bytes == 11
    rest = stub.ListBlobs(pb.ListBlobsRequest(delimiter="/", page_token=first.next_page_token))
    assert ([blob.key for blob in rest.blobs], rest.next_page_token) == (["c"], "")
    for fields, reason, field in (
        ({"page_token": first.next_page_token}, "INVALID_PAGE_TOKEN", "page_token"),
        ({"page_token": "x"}, "INVALID_PAGE_TOKEN", "page_token"),
        ({"page_size": -1}, "INVALID_PAGE_SIZE", "page_size"),
        ({"page_size": 10_001}, "INVALID_PAGE_SIZE", "page_size"),
        ({"delimiter": "-"}, "INVALID_DELIMITER", "delimiter"),
        ({"prefix": "\0"}, "INVALID_KEY", "prefix"),
        ({"start_after": "k" * 901}, "INVALID_KEY", "start_after"),
    ):
        with refused() as refusal:
            stub.ListBlobs(pb.ListBlobsRequest(**fields))
        assert (refusal.code, refusal.reason, refusal.fields) == ("INVALID_ARGUMENT", reason, [field])


def test_a_blob_of_several_mebibytes_comes_back_in_verified_chunks(stub: Stub) -> None:
    data = sample(5 * MIB + 321)
    parts = [chunk(data[at : at + 700_000]) for at in range(0, len(data), 700_000)]
    put(stub, header(), *parts, trailer(size_bytes=len(data), sha256=hashlib.sha256(data).digest()))
    assert get(stub)[1] == data
    assert get(stub, offset=MIB - 3, length=MIB + 6)[1] == data[MIB - 3 : 2 * MIB + 3]
