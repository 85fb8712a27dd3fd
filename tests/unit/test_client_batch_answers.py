"""What the client makes of the answers to its batches: of failures that pass, of wrong bytes, and of nonsense."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import google_crc32c
import grpc
import pytest

import holdfast
from holdfast import Content, NewBlob, PutResult
from holdfast.retrying import Retrier
from holdfast.v1 import blob_store_pb2 as pb
from holdfast.v1.types_pb2 import ItemStatus
from tests.support.batch_store import BatchStore, info_of, outcomes, serving, sha256_of, status_of


@pytest.fixture
def store() -> BatchStore:
    """What answers."""
    return BatchStore()  # type: ignore[abstract]  # the other calls are not made


@pytest.fixture
def pauses() -> list[float]:
    """The pauses that the client would have made."""
    return []


@pytest.fixture
def blobs(store: BatchStore, pauses: list[float]) -> Iterator[holdfast.Blobs]:
    """A client that makes up to three more tries, and does not sleep between them."""
    retrier = Retrier(retries=3, sleep=pauses.append, random=lambda: 0.0)
    with serving(store) as address, holdfast.Client(address, retrier) as client:
        yield client.blobs


_MANY: dict[str, Callable[[holdfast.Blobs, Sequence[str]], Iterable[object]]] = {
    "find": lambda blobs, keys: blobs.find_missing(keys),
    "get": lambda blobs, keys: blobs.get_many(keys),
    "put": lambda blobs, keys: blobs.put_many(NewBlob(key, key.encode(errors="replace")) for key in keys),
    "delete": lambda blobs, keys: blobs.delete_many(keys),
}
_GOOD: dict[str, list[object]] = {
    "find": [False, False, False],
    "get": [b"a", b"b", b"c"],
    "put": ["a", "b", "c"],
    "delete": [True, True, True],
}


@pytest.fixture(params=_MANY)
def kind(request: pytest.FixtureRequest, store: BatchStore) -> str:
    """Each kind of batch, on a store that has the blobs a, b and c."""
    store.blobs = {name: name.encode() for name in "abc"}
    return str(request.param)


class TestTries:
    def test_items_whose_failure_may_pass_are_tried_again_alone(
        self, store: BatchStore, blobs: holdfast.Blobs, kind: str, pauses: list[float]
    ) -> None:
        store.failures = {"a": ["BACKEND_UNAVAILABLE"] * 2, "c": ["BACKEND_UNAVAILABLE"]}
        assert outcomes(_MANY[kind](blobs, "abc")) == _GOOD[kind]
        assert store.asked() == [["a", "b", "c"], ["a", "c"], ["a"]]
        assert len(pauses) == 2

    def test_an_item_that_stays_away_is_given_up_and_the_others_are_not(
        self, store: BatchStore, blobs: holdfast.Blobs, kind: str
    ) -> None:
        store.failures = {"b": ["BACKEND_UNAVAILABLE"] * 100}
        first, _, last = _GOOD[kind]
        assert outcomes(_MANY[kind](blobs, "abc")) == [first, "BACKEND_UNAVAILABLE", last]
        assert store.asked() == [["a", "b", "c"], ["b"], ["b"], ["b"]]

    def test_what_will_not_pass_is_not_tried_again(self, store: BatchStore, blobs: holdfast.Blobs, kind: str) -> None:
        store.failures = {"b": ["INVALID_KEY"], "c": ["INTEGRITY_FAILED"]}
        assert outcomes(_MANY[kind](blobs, "abc")) == [_GOOD[kind][0], "INVALID_KEY", "INTEGRITY_FAILED"]
        assert len(store.requests) == 1

    def test_a_call_that_fails_is_repeated_whole_and_then_raised(
        self, store: BatchStore, blobs: holdfast.Blobs, kind: str
    ) -> None:
        store.answer = lambda _, context: context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        with pytest.raises(holdfast.Unavailable):
            list(_MANY[kind](blobs, "abc"))
        assert store.asked() == [["a", "b", "c"]] * 4

    @pytest.mark.parametrize("condition", [{"create_only": True}, {"if_match_etag": "e"}])
    def test_puts_with_conditions_are_not_repeated(
        self, store: BatchStore, blobs: holdfast.Blobs, condition: dict[str, Any]
    ) -> None:
        store.failures = {"a": ["BACKEND_UNAVAILABLE"], "b": ["BACKEND_UNAVAILABLE"]}
        new = [NewBlob("a", b"a", **condition), NewBlob("b", b"b")]
        assert outcomes(blobs.put_many(new)) == ["BACKEND_UNAVAILABLE", "b"]
        store.requests.clear()
        store.answer = lambda _, context: context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        with pytest.raises(holdfast.Unavailable):
            list(blobs.put_many(new[:1]))
        assert len(store.requests) == 1

    def test_deletes_with_an_etag_are_not_repeated(self, store: BatchStore, blobs: holdfast.Blobs) -> None:
        store.blobs = {"b": b""}
        store.failures = {"a": ["BACKEND_UNAVAILABLE"], "b": ["BACKEND_UNAVAILABLE"]}
        assert outcomes(blobs.delete_many(["a", "b"], ["e", None])) == ["BACKEND_UNAVAILABLE", True]
        store.requests.clear()
        store.answer = lambda _, context: context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        with pytest.raises(holdfast.Unavailable):
            list(blobs.delete_many(["a"], ["e"]))
        assert len(store.requests) == 1

    def test_a_put_with_a_condition_does_not_cost_the_others_their_tries(
        self, store: BatchStore, blobs: holdfast.Blobs
    ) -> None:
        def away_once(request: pb.BatchPutBlobsRequest, context: grpc.ServicerContext) -> None:
            store.answer = None
            context.abort(grpc.StatusCode.UNAVAILABLE, "away")

        store.answer = away_once
        assert outcomes(blobs.put_many([NewBlob("a", b"a"), NewBlob("b", b"b", create_only=True)])) == ["a", "b"]

    def test_a_content_address_may_be_repeated_whatever_its_condition(
        self, store: BatchStore, blobs: holdfast.Blobs
    ) -> None:
        store.failures = {"": ["BACKEND_UNAVAILABLE"]}
        assert outcomes(blobs.put_many([NewBlob(Content("c/"), b"a", create_only=True)])) == [""]
        assert len(store.requests) == 2


def _spoiled(response: Any, spoil: Callable[[Any], None]) -> Any:
    spoil(response.results[1])
    return response


class TestWrongAnswers:
    @pytest.mark.parametrize(
        ("spoil", "said"),
        [
            (lambda result: setattr(result, "data", b"B"), "not those that were sent"),
            (lambda result: setattr(result, "crc32c", 7), "not those that were sent"),
            (lambda result: result.ClearField("crc32c"), "not those that were sent"),
            (lambda result: setattr(result.blob, "size_bytes", 2), "not those that were sent"),
            (lambda result: setattr(result.blob, "sha256", bytes(32)), f"not {bytes(32).hex()}"),
        ],
        ids=["data", "crc32c", "no crc32c", "size", "sha256"],
    )
    def test_bytes_that_are_not_what_was_sent_fail_their_item(
        self, store: BatchStore, blobs: holdfast.Blobs, spoil: Callable[[Any], None], said: str
    ) -> None:
        store.blobs = {name: name.encode() for name in "abc"}
        right = store.BatchGetBlobs(pb.BatchGetBlobsRequest(items=[pb.BlobAddress(key=key) for key in "abc"]), None)  # type: ignore[arg-type]  # it needs none
        store.answer = lambda *_: _spoiled(right, spoil)
        first, second, third = blobs.get_many("abc")
        assert outcomes([first, third]) == [b"a", b"c"]
        assert isinstance(second, holdfast.IntegrityFailed)
        assert re.search(f"key 'b': .*{said}", second.message)
        assert second.details == {"key": "b"}

    def test_other_content_than_was_asked_for_fails_its_item(self, store: BatchStore, blobs: holdfast.Blobs) -> None:
        store.answer = lambda *_: pb.BatchGetBlobsResponse(
            results=[pb.BatchGetBlobsResult(blob=info_of("c/x", b"a"), data=b"a", crc32c=google_crc32c.value(b"a"))]
        )
        assert outcomes(blobs.get_many([Content("c/", sha256=sha256_of(b"a"))])) == [b"a"]
        assert outcomes(blobs.get_many([Content("c/", sha256=sha256_of(b"b"))])) == ["INTEGRITY_FAILED"]

    def test_bytes_that_were_stored_otherwise_fail_their_item(self, store: BatchStore, blobs: holdfast.Blobs) -> None:
        store.answer = lambda *_: pb.BatchPutBlobsResponse(
            results=[pb.BatchPutBlobsResult(blob=info_of(key, b"1"), created=True) for key in "ab"]
        )
        first, second = blobs.put_many([NewBlob("a", b"1"), NewBlob("b", b"2")])
        assert isinstance(first, PutResult)
        assert isinstance(second, holdfast.IntegrityFailed)
        assert second.message == "key 'b': the server stored other bytes than those sent"

    @pytest.mark.parametrize("kind", ["get", "put", "delete"])
    @pytest.mark.parametrize("results", [0, 2, 4])
    def test_an_answer_with_another_number_of_results_is_an_error(
        self, store: BatchStore, blobs: holdfast.Blobs, kind: str, results: int
    ) -> None:
        answers = {
            "get": pb.BatchGetBlobsResponse,
            "put": pb.BatchPutBlobsResponse,
            "delete": pb.BatchDeleteBlobsResponse,
        }
        answer = answers[kind]()
        for _ in range(results):
            answer.results.add()
        store.answer = lambda *_: answer
        with pytest.raises(holdfast.InternalError, match=f"the server gave {results} results for 3 items"):
            list(_MANY[kind](blobs, "abc"))

    @pytest.mark.parametrize("position", [-1, 3])
    @pytest.mark.parametrize("field", ["missing", "failures"])
    def test_a_position_that_was_not_asked_about_is_an_error(
        self, store: BatchStore, blobs: holdfast.Blobs, field: str, position: int
    ) -> None:
        answer = pb.FindMissingBlobsResponse()
        if field == "missing":
            answer.missing.append(position)
        else:
            answer.failures.add(position=position, status=status_of("INVALID_KEY"))
        store.answer = lambda *_: answer
        with pytest.raises(holdfast.InternalError, match=f"told of position {position}"):
            list(blobs.find_missing("abc"))

    def test_a_reason_of_a_newer_server_goes_by_its_code(self, store: BatchStore, blobs: holdfast.Blobs) -> None:
        status = ItemStatus(code=grpc.StatusCode.NOT_FOUND.value[0], message="no such room")
        status.ParseFromString(status.SerializeToString() + b"\x10\xe7\x07")  # reason = 999
        store.answer = lambda *_: pb.BatchDeleteBlobsResponse(results=[pb.BatchDeleteBlobsResult(status=status)])
        (error,) = blobs.delete_many(["a"])
        assert isinstance(error, holdfast.NotFound)
        assert (error.reason, error.message) == ("NOT_FOUND", "no such room")


class TestWhatNoMessageCanHold:
    def test_it_fails_its_item_and_not_the_others(self, store: BatchStore, blobs: holdfast.Blobs, kind: str) -> None:
        results = list(_MANY[kind](blobs, ["a", "\udcff", "b", "c", "\udcfe"]))
        first, second, third = _GOOD[kind]
        assert outcomes(results) == [first, "INVALID_ARGUMENT", second, third, "INVALID_ARGUMENT"]
        assert isinstance(results[1], holdfast.InvalidArgument)
        assert "cannot be sent" in results[1].message
        assert [key for keys in store.asked() for key in keys] == ["a", "b", "c"]

    def test_what_the_server_refuses_as_a_whole_is_raised(
        self, store: BatchStore, blobs: holdfast.Blobs, kind: str
    ) -> None:
        store.answer = lambda _, context: context.abort(grpc.StatusCode.INVALID_ARGUMENT, "too many")
        with pytest.raises(holdfast.InvalidArgument, match="too many"):
            list(_MANY[kind](blobs, "abc"))
        assert len(store.requests) == 1

    def test_it_may_be_a_content_address_too(self, blobs: holdfast.Blobs) -> None:
        bad, good = Content("\udcff", sha256=bytes(32)), Content("c/", sha256=bytes(32))
        assert outcomes(blobs.get_many([bad, good, bad])) == ["INVALID_ARGUMENT", "BLOB_NOT_FOUND", "INVALID_ARGUMENT"]
        assert outcomes(blobs.find_missing([bad])) == ["INVALID_ARGUMENT"]
