"""How the client cuts batches into requests, and asks again for what did not fit into an answer."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

import holdfast
from holdfast import Content, NewBlob
from holdfast.batches import MAX_BATCH_BYTES
from holdfast.retrying import DEFAULT_TIMEOUT_SECONDS, Retrier
from holdfast.v1 import blob_store_pb2 as pb
from tests.support.batch_store import BatchStore, outcomes, serving, sha256_of
from tests.support.samples import sample

KIB = 1 << 10
_MAX_FIND_BYTES = 2 << 20
_MAX_PUT_BYTES = 15 << 17


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


def _lengths(requests: Sequence[Any]) -> list[int]:
    return [len(request.items) for request in requests]


class TestCutting:
    def test_a_put_has_at_most_a_thousand_blobs(self, store: BatchStore, blobs: holdfast.Blobs) -> None:
        names = [f"{number:04}" for number in range(2001)]
        assert outcomes(blobs.put_many(NewBlob(name, b"") for name in names)) == names
        assert _lengths(store.requests) == [1000, 1000, 1]
        assert sorted(store.blobs) == names

    def test_a_put_has_at_most_as_much_data_as_a_batch_may(self, store: BatchStore, blobs: holdfast.Blobs) -> None:
        sizes = [MAX_BATCH_BYTES, 1, MAX_BATCH_BYTES - 1, 0, 1, 700 * KIB, 700 * KIB, 700 * KIB]
        new = [NewBlob(str(number), bytes(size)) for number, size in enumerate(sizes)]
        assert outcomes(blobs.put_many(new)) == [str(number) for number in range(len(sizes))]
        assert [[len(item.data) for item in request.items] for request in store.requests] == [
            [MAX_BATCH_BYTES],
            [1, MAX_BATCH_BYTES - 1, 0],
            [1, 700 * KIB, 700 * KIB],
            [700 * KIB],
        ]
        assert store.streamed == []

    def test_a_put_with_much_to_say_is_a_message_of_at_most_its_limit(
        self, store: BatchStore, blobs: holdfast.Blobs
    ) -> None:
        new = [NewBlob(f"{number:0900}", b"x" * 1200, metadata={"a": "ü" * 400}) for number in range(1000)]
        assert len(outcomes(blobs.put_many(new))) == 1000
        sizes = [request.ByteSize() for request in store.requests]
        assert max(sizes) <= _MAX_PUT_BYTES
        assert min(sizes[:-1]) > 0.95 * _MAX_PUT_BYTES

    def test_a_blob_too_large_for_a_batch_is_a_stream_in_its_place(
        self, store: BatchStore, blobs: holdfast.Blobs
    ) -> None:
        large = sample(MAX_BATCH_BYTES + 1)
        new = [NewBlob("a", b"1"), NewBlob("b", large), NewBlob("c", large), NewBlob("d", b"2")]
        assert outcomes(blobs.put_many(new)) == ["a", "b", "c", "d"]
        assert (store.asked(), store.streamed) == ([["a"], ["d"]], ["b", "c"])
        assert store.blobs["b"] == large

    def test_a_search_is_one_that_a_distant_bucket_answers_in_time(
        self, store: BatchStore, blobs: holdfast.Blobs
    ) -> None:
        store.blobs = {"k3": b"", "k3000": b""}
        found = list(blobs.find_missing(f"k{number}" for number in range(4001)))
        assert [number for number, missing in enumerate(found) if not missing] == [3, 3000]
        assert [len(request.keys) for request in store.requests] == [2000, 2000, 1]
        at_once, seconds_each = 16, 0.1
        assert (
            max(len(request.keys) for request in store.requests) / at_once * seconds_each < DEFAULT_TIMEOUT_SECONDS / 4
        )

    @pytest.mark.parametrize("with_digests", [False, True])
    def test_a_search_is_a_message_of_at_most_its_limit(
        self, store: BatchStore, blobs: holdfast.Blobs, with_digests: bool
    ) -> None:
        names = [f"{number:01200}" for number in range(5000)]
        digests = [bytes(32)] * 5000 if with_digests else None
        assert list(blobs.find_missing(names, digests)) == [True] * 5000
        sizes = [request.ByteSize() for request in store.requests]
        assert max(sizes) <= _MAX_FIND_BYTES
        assert min(sizes[:-1]) > 0.95 * _MAX_FIND_BYTES

    def test_a_search_is_cut_by_family(self, store: BatchStore, blobs: holdfast.Blobs) -> None:
        store.answer = lambda *_: pb.FindMissingBlobsResponse(missing=[0])
        digests = [bytes([number]) * 32 for number in range(4)]
        wanted: list[str | Content] = [
            Content("a/", sha256=digests[0]),
            Content("a/", sha256=digests[1]),
            "a/key",
            "another",
            Content("a/", ".wasm", sha256=digests[2]),
            Content("b/", sha256=digests[3]),
        ]
        assert list(blobs.find_missing(wanted)) == [True, False, True, False, True, True]
        assert [(list(r.keys), r.content.prefix, r.content.suffix, list(r.sha256)) for r in store.requests] == [
            ([], "a/", "", digests[:2]),
            (["a/key", "another"], "", "", []),
            ([], "a/", ".wasm", digests[2:3]),
            ([], "b/", "", digests[3:]),
        ]

    def test_digests_stand_beside_the_keys_that_have_one(self, store: BatchStore, blobs: holdfast.Blobs) -> None:
        store.blobs = {"a": b"1", "b": b"2", "c": b"3"}
        found = blobs.find_missing(["a", "b", "c"], [sha256_of(b"1"), sha256_of(b"1"), None])
        assert list(found) == [False, True, False]
        assert list(store.requests[0].sha256) == [sha256_of(b"1"), sha256_of(b"1"), b""]

    def test_deletes_are_cut_at_a_thousand(self, store: BatchStore, blobs: holdfast.Blobs) -> None:
        store.blobs = {"5": b"", "1500": b""}
        found = list(blobs.delete_many(str(number) for number in range(1501)))
        assert [number for number, existed in enumerate(found) if existed] == [5, 1500]
        assert _lengths(store.requests) == [1000, 501]

    def test_deletes_with_etags_are_cut_at_the_size_of_a_message(
        self, store: BatchStore, blobs: holdfast.Blobs
    ) -> None:
        names = [f"{number:0900}" for number in range(1000)]
        assert list(blobs.delete_many(names, ["ü" * 1000] * 1000)) == [False] * 1000
        assert [name for asked in store.asked() for name in asked] == names
        sizes = [request.ByteSize() for request in store.requests]
        assert max(sizes) <= _MAX_FIND_BYTES
        assert min(sizes[:-1]) > 0.95 * _MAX_FIND_BYTES

    def test_gets_are_cut_at_a_thousand(self, store: BatchStore, blobs: holdfast.Blobs) -> None:
        store.blobs = {str(number): str(number).encode() for number in range(1001)}
        assert outcomes(blobs.get_many(store.blobs)) == list(store.blobs.values())
        assert _lengths(store.requests) == [1000, 1]

    def test_items_are_taken_only_as_requests_need_them(self, store: BatchStore, blobs: holdfast.Blobs) -> None:
        taken = []

        def items() -> Iterator[str]:
            for number in range(10_000):
                taken.append(number)
                yield str(number)

        next(blobs.delete_many(items()))
        assert len(taken) <= 1001


class TestRepeatedKeys:
    def test_a_key_that_is_put_again_goes_into_the_next_request(self, store: BatchStore, blobs: holdfast.Blobs) -> None:
        new = [NewBlob("a", b"1"), NewBlob("b", b"2"), NewBlob("a", b"3"), NewBlob("b", b"4"), NewBlob("a", b"5")]
        assert outcomes(blobs.put_many(new)) == ["a", "b", "a", "b", "a"]
        assert store.asked() == [["a", "b"], ["a", "b"], ["a"]]
        assert store.blobs == {"a": b"5", "b": b"4"}

    def test_deletes_have_the_etags_beside_them(self, store: BatchStore, blobs: holdfast.Blobs) -> None:
        store.blobs = {"a": b"", "c": b""}
        assert list(blobs.delete_many(["a", "b", "c", "d"], ["1", "", None, None])) == [True, False, True, False]
        asked = [[(item.key, item.HasField("if_match_etag")) for item in request.items] for request in store.requests]
        assert asked == [[("a", True), ("b", True)], [("c", False), ("d", False)]]
        assert [item.if_match_etag for item in store.requests[0].items] == ["1", ""]

    @pytest.mark.parametrize("etags", [["1"], ["1"] * 3])
    def test_deletes_without_just_one_etag_each_are_refused(
        self, store: BatchStore, blobs: holdfast.Blobs, etags: list[str | None]
    ) -> None:
        store.blobs = {"a": b"", "b": b""}
        with pytest.raises(ValueError, match="zip"):
            list(blobs.delete_many(["a", "b"], etags))
        assert store.requests == []

    def test_of_two_deletes_the_first_tells_that_there_was_one(self, store: BatchStore, blobs: holdfast.Blobs) -> None:
        store.blobs = {"a": b"", "b": b""}
        assert list(blobs.delete_many(["a", "a", "b"])) == [True, False, True]
        assert store.asked() == [["a"], ["a", "b"]]


class TestFullAnswers:
    def test_what_did_not_fit_is_asked_for_again_and_order_is_kept(
        self, store: BatchStore, blobs: holdfast.Blobs
    ) -> None:
        store.blobs = {str(number): sample(600 * KIB + number, number) for number in range(10)}
        assert outcomes(blobs.get_many(store.blobs)) == list(store.blobs.values())
        assert store.streamed == []

    def test_the_next_request_asks_for_about_what_fits(self, store: BatchStore, blobs: holdfast.Blobs) -> None:
        store.blobs = {str(number): bytes(8 * KIB) for number in range(1500)}
        assert outcomes(blobs.get_many(store.blobs)) == list(store.blobs.values())
        assert _lengths(store.requests)[:3] == [1000, 448, 448]

    def test_the_first_blob_may_be_the_one_that_did_not_fit(self, store: BatchStore, blobs: holdfast.Blobs) -> None:
        store.blobs = {name: name.encode() for name in "abc"}
        store.failures = {"a": ["BATCH_FULL"]}
        assert outcomes(blobs.get_many("abc")) == [b"a", b"b", b"c"]
        assert store.asked() == [["a", "b", "c"], ["a"]]

    def test_a_blob_that_never_fits_does_not_let_the_others_pile_up(
        self, store: BatchStore, blobs: holdfast.Blobs
    ) -> None:
        store.blobs = {str(number): bytes(100 * KIB) for number in range(200)}
        store.failures = {"0": ["BATCH_FULL"] * 1000}
        assert outcomes(blobs.get_many(store.blobs)) == list(store.blobs.values())
        assert store.streamed == ["0"]
        assert [request[0] for request in store.asked()[:4]] == ["0"] * 4
        assert store.asked()[3] == ["0"]

    def test_a_server_that_says_full_to_everything_is_not_asked_for_ever(
        self, store: BatchStore, blobs: holdfast.Blobs
    ) -> None:
        store.blobs = {name: name.encode() for name in "abc"}
        store.failures = {name: ["BATCH_FULL"] * 100 for name in "abc"}
        assert outcomes(blobs.get_many("abc")) == [b"a", b"b", b"c"]
        assert store.streamed == ["a", "b", "c"]

    def test_what_is_too_large_comes_as_a_stream_in_its_place(self, store: BatchStore, blobs: holdfast.Blobs) -> None:
        large = sample(MAX_BATCH_BYTES + 1)
        store.blobs = {"a": b"1", "b": large, "c": b"3"}
        assert outcomes(blobs.get_many("abc")) == [b"1", large, b"3"]
        assert (store.asked(), store.streamed) == ([["a", "b", "c"]], ["b"])

    def test_a_stream_that_fails_is_the_result_of_its_item(self, store: BatchStore, blobs: holdfast.Blobs) -> None:
        store.blobs = {"a": b"1", "c": b"3"}
        store.failures = {"b": ["TOO_LARGE"]}
        assert outcomes(blobs.get_many("abc")) == [b"1", "NOT_FOUND", b"3"]
