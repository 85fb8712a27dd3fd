"""Batches as clients in other languages meet them: the limits of one request, and statuses by position."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import google_crc32c
import grpc
import psutil
import pytest

from holdfast.v1 import blob_store_pb2 as pb
from holdfast.v1 import blob_store_pb2_grpc
from holdfast.v1.types_pb2 import ErrorReason, ItemStatus
from tests.support import statuses
from tests.support.server_metrics import metric
from tests.support.server_process import ServerProcess

MAX_DATA = 1_835_008
MAX_ANSWER = 2_097_152
Stub = blob_store_pb2_grpc.BlobStoreStub


@pytest.fixture(scope="module", params=["memory", "filesystem"])
def stub(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stub]:
    data_dir: Path | None = tmp_path_factory.mktemp("batches") / "data" if request.param == "filesystem" else None
    with ServerProcess(data_dir) as server, grpc.insecure_channel(server.address) as channel:
        yield Stub(channel)


def reason(status: ItemStatus) -> str:
    return ErrorReason.Name(status.reason).removeprefix("ERROR_REASON_")


@contextmanager
def refused_as(reason: str, field: str) -> Iterator[None]:
    """Expect the call as a whole to be refused."""
    with statuses.refused() as refusal:
        yield
    assert (refusal.code, refusal.reason, refusal.fields) == ("INVALID_ARGUMENT", reason, [field])


def put(stub: Stub, **blobs: bytes) -> None:
    items = [pb.BatchPutBlobsItem(key=key, data=data) for key, data in blobs.items()]
    assert not any(result.status.code for result in stub.BatchPutBlobs(pb.BatchPutBlobsRequest(items=items)).results)


def get(stub: Stub, *keys: str) -> list[pb.BatchGetBlobsResult]:
    request = pb.BatchGetBlobsRequest(items=[pb.BlobAddress(key=key) for key in keys])
    return list(stub.BatchGetBlobs(request).results)


def test_a_batch_of_more_than_a_thousand_is_refused_as_a_whole(stub: Stub) -> None:
    put(stub, there=b"1")
    key = "there"
    for call in (
        partial(stub.BatchGetBlobs, pb.BatchGetBlobsRequest(items=[pb.BlobAddress(key=key)] * 1001)),
        partial(stub.BatchPutBlobs, pb.BatchPutBlobsRequest(items=[pb.BatchPutBlobsItem(key=key)] * 1001)),
        partial(stub.BatchDeleteBlobs, pb.BatchDeleteBlobsRequest(items=[pb.BatchDeleteBlobsItem(key=key)] * 1001)),
    ):
        with refused_as("TOO_LARGE", "items"):
            call()
    assert get(stub, "there")[0].data == b"1"


@pytest.mark.parametrize("method", ["BatchGetBlobs", "BatchPutBlobs", "BatchDeleteBlobs", "FindMissingBlobs"])
def test_two_million_items_are_refused_before_any_is_looked_at(method: str) -> None:
    """In 4 MiB; each took 20 us and a kilobyte, also after its caller had gone."""
    with ServerProcess() as server, grpc.insecure_channel(server.address) as channel:
        process = psutil.Process(server.pid)
        before = process.memory_info().rss
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/holdfast.v1.BlobStore/{method}")
        with statuses.refused() as refusal:
            call(b"\x0a\x00" * ((2 << 20) - 8), timeout=60)
        assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "TOO_LARGE")
        assert process.memory_info().rss - before < 512 << 20


def test_a_thousand_items_are_taken(stub: Stub) -> None:
    items = [pb.BatchPutBlobsItem(key=f"thousand/{number}", data=b"x") for number in range(1000)]
    assert not any(result.status.code for result in stub.BatchPutBlobs(pb.BatchPutBlobsRequest(items=items)).results)
    assert [result.data for result in get(stub, *(item.key for item in items))] == [b"x"] * 1000
    deleted = stub.BatchDeleteBlobs(
        pb.BatchDeleteBlobsRequest(items=[pb.BatchDeleteBlobsItem(key=item.key) for item in items])
    )
    assert all(result.existed for result in deleted.results)


def test_more_than_ten_thousand_keys_are_refused_and_ten_thousand_are_not(stub: Stub) -> None:
    with refused_as("TOO_LARGE", "keys"):
        stub.FindMissingBlobs(pb.FindMissingBlobsRequest(keys=["k"] * 10_001))
    with refused_as("TOO_LARGE", "sha256"):
        stub.FindMissingBlobs(pb.FindMissingBlobsRequest(sha256=[bytes(32)] * 10_001))
    found = stub.FindMissingBlobs(pb.FindMissingBlobsRequest(keys=[f"missing/{number}" for number in range(10_000)]))
    assert list(found.missing) == list(range(10_000))


def test_a_request_of_more_than_two_mebibytes_of_keys_is_refused(stub: Stub) -> None:
    keys = ["/".join(["k" * 200] * 4)] * 2700
    with refused_as("TOO_LARGE", "keys"):
        stub.FindMissingBlobs(pb.FindMissingBlobsRequest(keys=keys))


def test_too_much_data_is_refused_as_a_whole_and_just_enough_is_stored(stub: Stub) -> None:
    half = bytes(MAX_DATA // 2)
    two = [pb.BatchPutBlobsItem(key="big/1", data=half), pb.BatchPutBlobsItem(key="big/2", data=half)]
    with refused_as("TOO_LARGE", "items"):
        stub.BatchPutBlobs(pb.BatchPutBlobsRequest(items=[*two, pb.BatchPutBlobsItem(key="big/3", data=b"x")]))
    found = stub.FindMissingBlobs(pb.FindMissingBlobsRequest(keys=["big/1", "big/2", "big/3"]))
    assert list(found.missing) == [0, 1, 2]
    put(stub, **{item.key: item.data for item in two})


def test_too_much_metadata_is_refused_as_a_whole(stub: Stub) -> None:
    items = [pb.BatchPutBlobsItem(key=f"meta/{n}", metadata={"k" * 64: "x" * 900}) for n in range(1000)]
    items += [pb.BatchPutBlobsItem(key="meta/data", data=bytes(1_000_000))]
    with refused_as("TOO_LARGE", "items"):
        stub.BatchPutBlobs(pb.BatchPutBlobsRequest(items=items[1:]))


def test_what_does_not_fit_any_more_is_told_and_fits_into_another_batch(stub: Stub) -> None:
    put(stub, first=bytes(1_000_000))
    put(stub, second=bytes(1_000_000))
    put(stub, small=b"fits")
    results = get(stub, "first", "second", "small")
    assert (len(results[0].data), results[2].data) == (1_000_000, b"fits")
    status = results[1].status
    assert (status.code, reason(status), status.details["size_bytes"]) == (3, "BATCH_FULL", "1000000")
    assert not results[1].data
    assert len(get(stub, "second")[0].data) == 1_000_000


def test_what_never_fits_is_too_large(stub: Stub) -> None:
    large = bytes(MAX_DATA + 1)
    header = pb.PutBlobHeader(key="large", size_bytes=len(large))
    chunks = [large[at : at + (1 << 20)] for at in range(0, len(large), 1 << 20)]
    requests = [pb.PutBlobRequest(header=header)]
    for chunk in chunks:
        requests.append(pb.PutBlobRequest())
        requests[-1].chunk.data = chunk
    stub.PutBlob(iter(requests))
    [result] = get(stub, "large")
    assert (result.status.code, reason(result.status)) == (3, "TOO_LARGE")
    assert result.status.details["size_bytes"] == str(MAX_DATA + 1)


def test_an_answer_stays_below_two_mebibytes_whatever_its_items_say(stub: Stub) -> None:
    """The longest keys and the most metadata beside the most data; and errors with the longest texts."""
    keys = ["/".join(["é" * 100] * 4) + f"/{number:03}" for number in range(1000)]
    metadata = {"k" * 64: "x" * 900}
    for at in range(0, 1000, 500):
        items = [pb.BatchPutBlobsItem(key=key, data=bytes(1000), metadata=metadata) for key in keys[at : at + 500]]
        answer = stub.BatchPutBlobs(pb.BatchPutBlobsRequest(items=items))
        assert answer.ByteSize() < MAX_ANSWER
        assert not any(result.status.code for result in answer.results)
    got = stub.BatchGetBlobs(pb.BatchGetBlobsRequest(items=[pb.BlobAddress(key=key) for key in keys]))
    assert got.ByteSize() <= MAX_ANSWER
    reasons = [reason(result.status) for result in got.results if result.status.code]
    assert reasons
    assert set(reasons) == {"BATCH_FULL"}
    conflicts = [pb.BatchPutBlobsItem(key=key, create_only=True) for key in keys]
    refused = stub.BatchPutBlobs(pb.BatchPutBlobsRequest(items=conflicts))
    assert refused.ByteSize() <= MAX_ANSWER
    assert {reason(result.status) for result in refused.results} == {"ALREADY_EXISTS"}
    assert refused.results[0].status.details["etag"]
    bad = stub.FindMissingBlobs(pb.FindMissingBlobsRequest(keys=["é" * 101 + "x" * 2] * 9000))
    assert bad.ByteSize() <= MAX_ANSWER
    assert [failure.position for failure in bad.failures] == list(range(9000))
    assert bad.failures[0].status.message
    assert {reason(failure.status) for failure in bad.failures} == {"INVALID_KEY"}


def test_a_repeated_key_fails_where_it_is_repeated(stub: Stub) -> None:
    items = [pb.BatchPutBlobsItem(key="twice", data=data) for data in (b"1", b"2")]
    items.insert(1, pb.BatchPutBlobsItem(key="once", data=b"3"))
    results = stub.BatchPutBlobs(pb.BatchPutBlobsRequest(items=items)).results
    assert [reason(result.status) for result in results] == ["UNSPECIFIED", "UNSPECIFIED", "INVALID_BATCH"]
    assert "position 0" in results[2].status.message
    assert get(stub, "twice")[0].data == b"1"


def test_a_key_that_a_content_of_the_batch_has_is_not_stored_too(stub: Stub) -> None:
    digest = hashlib.sha256(b"data").digest()
    for content in (pb.ContentAddress(prefix="both/"), pb.ContentAddress(prefix="both/", sha256=digest)):
        items = [
            pb.BatchPutBlobsItem(content=content, data=b"data"),
            pb.BatchPutBlobsItem(content=content, data=b"data"),
            pb.BatchPutBlobsItem(key=f"both/{digest.hex()}", data=b"other"),
        ]
        results = stub.BatchPutBlobs(pb.BatchPutBlobsRequest(items=items)).results
        assert [reason(result.status) for result in results] == ["INVALID_BATCH", "INVALID_BATCH", "UNSPECIFIED"]
        again = stub.BatchPutBlobs(pb.BatchPutBlobsRequest(items=items[:2])).results
        assert [reason(result.status) for result in again] == ["CONTENT_CONFLICT"] * 2
        stub.DeleteBlob(pb.DeleteBlobRequest(key=f"both/{digest.hex()}"))


def test_what_was_there_already_is_told_without_its_attributes(stub: Stub) -> None:
    """They are somebody else's, and may be larger than all that was sent."""
    content = pb.ContentAddress(prefix="/".join(["p" * 200] * 4) + "/")
    digests = [hashlib.sha256(b"%d" % number).digest() for number in range(900)]
    for at in range(0, 900, 450):
        items = [
            pb.BatchPutBlobsItem(content=content, data=b"%d" % number, metadata={"k" * 64: "x" * 900})
            for number in range(at, at + 450)
        ]
        stub.BatchPutBlobs(pb.BatchPutBlobsRequest(items=items))
    items = [pb.BatchPutBlobsItem(content=content, data=b"%d" % number) for number in range(900)]
    answer = stub.BatchPutBlobs(pb.BatchPutBlobsRequest(items=items))
    assert answer.ByteSize() <= MAX_ANSWER
    assert [result.blob.sha256 for result in answer.results] == digests
    assert not any(result.created or result.blob.metadata for result in answer.results)


def test_data_comes_with_its_checksum_and_is_verified_against_what_was_sent(stub: Stub) -> None:
    right, wrong = google_crc32c.value(b"data"), google_crc32c.value(b"other")
    digest = hashlib.sha256(b"other").digest()
    items = [
        pb.BatchPutBlobsItem(key="crc/right", data=b"data", crc32c=right),
        pb.BatchPutBlobsItem(key="crc/wrong", data=b"data", crc32c=wrong),
        pb.BatchPutBlobsItem(key="crc/empty", crc32c=wrong),
        pb.BatchPutBlobsItem(key="crc/sha", data=b"data", sha256=digest),
        pb.BatchPutBlobsItem(key="crc/short", data=b"data", sha256=b"short"),
    ]
    results = stub.BatchPutBlobs(pb.BatchPutBlobsRequest(items=items)).results
    assert [reason(result.status) for result in results] == [
        "UNSPECIFIED",
        "CHECKSUM_MISMATCH",
        "CHECKSUM_MISMATCH",
        "CHECKSUM_MISMATCH",
        "INVALID_DIGEST",
    ]
    assert [result.status.field for result in results] == ["", "crc32c", "crc32c", "sha256", "sha256"]
    first, *others = get(stub, *(item.key for item in items))
    assert (first.data, first.crc32c) == (b"data", right)
    assert {reason(result.status) for result in others} == {"BLOB_NOT_FOUND"}
    put(stub, empty=b"")
    [empty] = get(stub, "empty")
    assert empty.HasField("crc32c")


def test_an_item_that_names_no_blob_fails_its_position(stub: Stub) -> None:
    put(stub, there=b"1")
    nameless = stub.BatchGetBlobs(pb.BatchGetBlobsRequest(items=[pb.BlobAddress(), pb.BlobAddress(key="there")]))
    assert [reason(result.status) for result in nameless.results] == ["INVALID_ADDRESS", "UNSPECIFIED"]
    deleted = stub.BatchDeleteBlobs(
        pb.BatchDeleteBlobsRequest(
            items=[
                pb.BatchDeleteBlobsItem(),
                pb.BatchDeleteBlobsItem(key="there", if_match_etag=""),
                pb.BatchDeleteBlobsItem(key="there", if_match_etag="wrong"),
                pb.BatchDeleteBlobsItem(key="there", if_match_etag=nameless.results[1].blob.etag),
            ]
        )
    )
    reasons = [reason(result.status) for result in deleted.results[:3]]
    assert reasons[:2] == ["INVALID_ADDRESS", "INVALID_CONDITION"]
    assert get(stub, "there")[0].status.code == 5  # NOT_FOUND: the last one deleted it


@pytest.mark.parametrize(
    ("request_", "reason_", "field"),
    [
        (pb.FindMissingBlobsRequest(keys=["a", "b"], sha256=[bytes(32)]), "INVALID_DIGEST", "sha256"),
        (pb.FindMissingBlobsRequest(keys=["a"], content=pb.ContentAddress()), "INVALID_ADDRESS", "content"),
        (
            pb.FindMissingBlobsRequest(content=pb.ContentAddress(sha256=bytes(32))),
            "INVALID_DIGEST",
            "content.sha256",
        ),
        (
            pb.FindMissingBlobsRequest(content=pb.ContentAddress(prefix="/"), sha256=[bytes(32)]),
            "INVALID_KEY",
            "content.prefix",
        ),
        (
            pb.FindMissingBlobsRequest(content=pb.ContentAddress(layout=99), sha256=[bytes(32)]),  # type: ignore[arg-type]
            "INVALID_ADDRESS",
            "content.layout",
        ),
    ],
)
def test_a_search_that_contradicts_itself_is_refused(
    stub: Stub, request_: pb.FindMissingBlobsRequest, reason_: str, field: str
) -> None:
    with refused_as(reason_, field):
        stub.FindMissingBlobs(request_)


def test_a_bad_digest_fails_its_position(stub: Stub) -> None:
    found = stub.FindMissingBlobs(pb.FindMissingBlobsRequest(sha256=[bytes(32), b"short", b""]))
    assert list(found.missing) == [0]
    assert [(one.position, reason(one.status), one.status.field) for one in found.failures] == [
        (1, "INVALID_DIGEST", "sha256"),
        (2, "INVALID_DIGEST", "sha256"),
    ]


@pytest.mark.parametrize(
    ("request_", "reason_", "field"),
    [
        (pb.CopyBlobRequest(target=pb.BlobAddress(key="b")), "INVALID_ADDRESS", "source.address"),
        (pb.CopyBlobRequest(source=pb.BlobAddress(key="a")), "INVALID_ADDRESS", "target.address"),
        (
            pb.CopyBlobRequest(source=pb.BlobAddress(key="/a"), target=pb.BlobAddress(key="b")),
            "INVALID_KEY",
            "source.key",
        ),
        (
            pb.CopyBlobRequest(source=pb.BlobAddress(key="a"), target=pb.BlobAddress(key="b"), source_if_match_etag=""),
            "INVALID_CONDITION",
            "source_if_match_etag",
        ),
        (
            pb.CopyBlobRequest(
                source=pb.BlobAddress(key="a"),
                target=pb.BlobAddress(key="b"),
                attributes=pb.BlobAttributes(content_type="é"),
            ),
            "INVALID_CONTENT_TYPE",
            "attributes.content_type",
        ),
    ],
)
def test_a_copy_that_breaks_a_rule_names_the_field(
    stub: Stub, request_: pb.CopyBlobRequest, reason_: str, field: str
) -> None:
    with refused_as(reason_, field):
        stub.CopyBlob(request_)


def test_items_that_failed_are_logged_and_counted_though_the_call_was_ok() -> None:
    with ServerProcess() as server, grpc.insecure_channel(server.address) as channel:
        items = [pb.BlobAddress(key=key) for key in ("missing/1", "missing/2", "../escape")]
        Stub(channel).BatchGetBlobs(pb.BatchGetBlobsRequest(items=items))
        line = server.wait_for_log("Call finished.*BatchGetBlobs.*")
        assert line is not None
        assert "code=OK" in line[0]
        assert "failed_items=3" in line[0]
        assert "reason=BLOB_NOT_FOUND" in line[0]
        assert "missing/1" in line[0]
        for cause, count in {"BLOB_NOT_FOUND": 2, "INVALID_KEY": 1}.items():
            assert metric(server, "holdfast_failed_items_total", grpc_method="BatchGetBlobs", reason=cause) == count
