"""Conditions among the callers of two servers on one bucket, for objects in one request and in parts."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import grpc
import pytest

from holdfast.v1 import blob_store_pb2 as pb
from holdfast_server.errors import AlreadyExists
from holdfast_server.objects.body import Body
from holdfast_server.objects.conditions import CreateOnly
from holdfast_server.objects.info import Attributes
from holdfast_server.objects.key import ObjectKey
from tests.support.raw_blobs import (
    TIMEOUT_SECONDS,
    chunk,
    delete,
    get,
    get_with_etag,
    header,
    put,
    stat,
    stub_of,
    trailer,
)
from tests.support.s3_servers import S3Server
from tests.support.s3_stores import OpenedStore, fresh_bucket, s3_environment
from tests.support.samples import MIB, sample
from tests.support.server_process import ServerProcess
from tests.support.statuses import refusal_of, refused

WRITERS = 8
INCREMENTS = 24


@pytest.fixture(scope="module", params=["moto", "minio"])
def store(request: pytest.FixtureRequest) -> S3Server:
    """What keeps the conditions."""
    server: S3Server = request.getfixturevalue(request.param)
    return server


@pytest.fixture(scope="module")
def stubs(store: S3Server) -> Iterator[list[Any]]:
    """A stub of each of two servers on one bucket."""
    environment = s3_environment(store, fresh_bucket())
    with ExitStack() as stack:
        servers = [stack.enter_context(ServerProcess(env=environment)) for _ in range(2)]
        yield [stub_of(stack.enter_context(grpc.insecure_channel(server.address))) for server in servers]


def content(writer: int, size: int) -> Iterator[bytes]:
    """Yield what a writer writes, without holding it all."""
    piece = sample(min(size, MIB), seed=writer)
    for start in range(0, size, MIB):
        yield piece[: size - start]


def sha256(writer: int, size: int) -> bytes:
    digest = hashlib.sha256()
    for piece in content(writer, size):
        digest.update(piece)
    return digest.digest()


def outcome(stub: Any, key: str, writer: int, size: int, **fields: Any) -> str:
    """Put what a writer writes; half of them say beforehand what it is, and need no spool for it."""
    if writer % 4 < 2:
        fields |= {"sha256": sha256(writer, size), "size_bytes": size}

    def messages() -> Iterator[pb.PutBlobRequest]:
        yield header(key, **fields)
        yield from map(chunk, content(writer, size))
        yield trailer()

    try:
        stub.PutBlob(messages(), timeout=TIMEOUT_SECONDS)
    except grpc.RpcError as error:
        return refusal_of(error).reason
    return "OK"


@pytest.mark.parametrize(("size", "rounds"), [(1024, 10), (64 * MIB, 1)])
def test_of_eight_who_create_through_both_one_wins(stubs: list[Any], size: int, rounds: int) -> None:
    def create(key: str, writer: int) -> str:
        return outcome(stubs[writer % 2], key, writer, size, create_only=True)

    with ThreadPoolExecutor(WRITERS) as pool:
        for key in (f"created/{size}/{number}" for number in range(rounds)):
            came = list(pool.map(create, [key] * WRITERS, range(WRITERS)))
            assert Counter(came) == {"OK": 1, "ALREADY_EXISTS": WRITERS - 1}
            winner = came.index("OK")
            blobs = [stat(stub, key) for stub in stubs]
            assert blobs[0] == blobs[1]
            assert (blobs[0].size_bytes, blobs[0].sha256) == (size, sha256(winner, size))
            assert get(stubs[1 - winner % 2], key) == b"".join(content(winner, size))


def count_up(stubs: list[Any], key: str, increments: int, filling: bytes = b"") -> None:
    """Count from 0 by compare-and-set, in turns through all servers, and check that no step is lost."""
    put(stubs[0], key, b"0 " + filling)

    def increment(writer: int) -> None:
        stub = stubs[writer % 2]
        came = ""
        while came != "OK":
            data, etag = get_with_etag(stub, key)
            number = int(data.partition(b" ")[0])
            try:
                put(stub, key, b"%d " % (number + 1) + filling, if_match_etag=etag)
                came = "OK"
            except grpc.RpcError as error:
                came = refusal_of(error).reason
                assert came == "PRECONDITION_FAILED"

    with ThreadPoolExecutor(WRITERS) as pool:
        for _ in pool.map(increment, range(increments)):
            pass
    assert [int(get(stub, key).partition(b" ")[0]) for stub in stubs] == [increments] * 2


def test_a_counter_by_compare_and_set_through_both_is_exact(stubs: list[Any]) -> None:
    count_up(stubs, "counter", INCREMENTS)


def test_a_counter_in_an_object_in_parts_is_exact_where_the_store_keeps_that(store: S3Server, stubs: list[Any]) -> None:
    if store.name == "moto":
        stubs = stubs[:1] * 2  # among the callers of one server, in that case
    count_up(stubs, "large counter", WRITERS // 2, bytes(6 * MIB))


@pytest.mark.parametrize("size", [10, 6 * MIB])
class TestIfMatch:
    def test_the_right_etag_replaces(self, stubs: list[Any], size: int) -> None:
        here, there = stubs
        old = put(here, "right", sample(size))
        new = put(there, "right", sample(size, seed=1), if_match_etag=old.etag)
        assert get(here, "right") == sample(size, seed=1)
        assert stat(here, "right").etag == new.etag != old.etag

    def test_another_etag_does_not_and_the_answer_has_the_right_one(self, stubs: list[Any], size: int) -> None:
        here, there = stubs
        old = put(here, "wrong", sample(size))
        new = put(here, "wrong", sample(size, seed=1))
        for etag in (old.etag, "another", "*", 'with"quote'):
            with refused() as refusal:
                put(there, "wrong", sample(size, seed=2), if_match_etag=etag)
            assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "PRECONDITION_FAILED")
            assert refusal.names == {"key": "wrong", "etag": new.etag, "sha256": new.sha256.hex()}
        assert get(there, "wrong") == sample(size, seed=1)

    def test_an_etag_of_what_is_gone_matches_nothing(self, stubs: list[Any], size: int) -> None:
        here, there = stubs
        gone = put(here, "gone", sample(size))
        assert delete(here, "gone")
        with refused() as refusal:
            put(there, "gone", sample(size), if_match_etag=gone.etag)
        assert (refusal.reason, refusal.names) == ("PRECONDITION_FAILED", {"key": "gone"})
        with refused() as refusal:
            stat(here, "gone")
        assert refusal.code == "NOT_FOUND"

    def test_a_read_takes_it_too(self, stubs: list[Any], size: int) -> None:
        here, there = stubs
        blob = put(here, "read", sample(size))
        assert get(there, "read", if_match_etag=blob.etag) == sample(size)
        with refused() as refusal:
            get(there, "read", if_match_etag="another")
        assert refusal.reason == "PRECONDITION_FAILED"

    def test_a_deletion_takes_it_or_says_that_it_cannot(self, store: S3Server, stubs: list[Any], size: int) -> None:
        here, there = stubs
        blob = put(here, "deleted", sample(size))

        def deletion(etag: str) -> str:
            request = pb.DeleteBlobRequest(key="deleted", if_match_etag=etag)
            try:
                there.DeleteBlob(request, timeout=TIMEOUT_SECONDS)
            except grpc.RpcError as error:
                return refusal_of(error).reason
            return "OK"

        came = [deletion(etag) for etag in ("another", blob.etag, blob.etag)]
        if store.name == "minio":
            assert came == ["CONDITION_UNSUPPORTED"] * 3
            assert stat(here, "deleted").etag == blob.etag
        else:
            assert came == ["PRECONDITION_FAILED", "OK", "PRECONDITION_FAILED"]


@pytest.mark.parametrize("size", [10, 6 * MIB])
def test_of_eight_who_copy_to_one_place_through_both_one_wins(store: S3Server, size: int) -> None:
    source, target = ObjectKey("source"), ObjectKey("target")
    with OpenedStore(store) as one, OpenedStore(store, bucket=one.bucket) as other:
        one.store.put(source, Body.of(sample(size)))

        def copy(writer: int) -> str:
            through = (one, other)[writer % 2]
            try:
                through.store.copy(source, target, condition=CreateOnly(), attributes=Attributes(f"by/{writer}"))
            except AlreadyExists:
                return "exists"
            return "won"

        with ThreadPoolExecutor(WRITERS) as pool:
            came = list(pool.map(copy, range(WRITERS)))
        assert Counter(came) == {"won": 1, "exists": WRITERS - 1}
        assert other.store.stat(target).attributes.content_type == f"by/{came.index('won')}"
        with other.store.get(target) as reader:
            assert b"".join(read.data for read in reader) == sample(size)
