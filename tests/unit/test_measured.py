"""The outcome that an operation is counted under tells whose fault it was."""

from collections.abc import Callable, Iterator

import pytest
from prometheus_client import CollectorRegistry

from holdfast_server.errors import (
    BrokenUpload,
    Cancelled,
    DeadlineExceeded,
    IntegrityFailed,
    ReadOnly,
    Reason,
    StorageFull,
    Unavailable,
)
from holdfast_server.objects.base import ObjectStore
from holdfast_server.objects.body import Body, Chunk
from holdfast_server.objects.conditions import CreateOnly, IfMatch
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.measured import MeasuredStore, ObjectMetrics
from holdfast_server.objects.memory import MemoryStore
from holdfast_server.objects.ranges import ByteRange
from tests.support.meddled_store import MeddledStore, meanwhile

KEY = ObjectKey("key")
MISSING = ObjectKey("missing")
ABSENT_ETAG = IfMatch("an etag that nothing has")


def failing(error: Exception) -> MeddledStore:
    """Return a store of which the first stat fails."""

    def fail() -> None:
        raise error

    store = MeddledStore(MemoryStore())
    store.before = meanwhile("stat", "", fail)
    return store


class StreamBroke(Exception):
    """What the wire's own library raises where a sender goes away: nothing that the store knows."""


def outcomes(store: ObjectStore, call: Callable[[ObjectStore], object]) -> dict[tuple[str, str], float]:
    """Return the operations that a failing call is counted as."""
    registry = CollectorRegistry()
    measured = MeasuredStore(store, ObjectMetrics(registry))
    with pytest.raises(Exception):  # noqa: B017, PT011 (which one is the caller's business)
        call(measured)
    return {
        (sample.labels["operation"], sample.labels["outcome"]): sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "holdfast_object_operations_total" and sample.value
    }


def interrupted(error: Exception) -> Body:
    def parts() -> Iterator[Chunk]:
        yield Chunk(b"data")
        raise error

    return Body(parts())


@pytest.mark.parametrize(
    "error",
    [
        ReadOnly(),
        StorageFull("full"),
        Unavailable(Reason.BACKEND_UNAVAILABLE, "the file system failed: EIO"),
        IntegrityFailed("key", "its record is damaged"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_an_operator_has_to_mend_counts_as_failed(error: Exception) -> None:
    assert outcomes(failing(error), lambda store: store.stat(KEY)) == {("stat", "failed"): 1}


GAVE_UP = [Cancelled(), DeadlineExceeded("too late")]


@pytest.mark.parametrize("error", GAVE_UP, ids=lambda error: type(error).__name__)
def test_a_caller_that_gave_up_is_nobodys_failure(error: Exception) -> None:
    assert outcomes(failing(error), lambda store: store.stat(KEY)) == {("stat", "cancelled"): 1}


@pytest.mark.parametrize("error", [*GAVE_UP, StreamBroke()], ids=lambda error: type(error).__name__)
def test_a_sender_that_went_away_is_nobodys_failure(error: Exception) -> None:
    assert outcomes(MemoryStore(), lambda store: store.put(KEY, interrupted(error))) == {("put", "cancelled"): 1}


@pytest.mark.parametrize("operation", ["get", "stat"])
def test_a_missing_key_is_an_answer(operation: str) -> None:
    found = outcomes(MemoryStore(), lambda store: getattr(store, operation)(MISSING))
    assert found == {(operation, "missing"): 1}


def test_a_condition_that_does_not_hold_is_a_conflict() -> None:
    store = MemoryStore()
    store.put(KEY, Body.of(b"data"))
    calls: dict[str, Callable[[ObjectStore], object]] = {
        "put": lambda measured: measured.put(KEY, Body.of(b""), condition=CreateOnly()),
        "delete": lambda measured: measured.delete(KEY, condition=ABSENT_ETAG),
        "get": lambda measured: measured.get(KEY, condition=ABSENT_ETAG),
    }
    for operation, call in calls.items():
        assert outcomes(store, call) == {(operation, "conflict"): 1}


def test_what_the_caller_did_wrong_is_refused() -> None:
    store = MemoryStore()
    store.put(KEY, Body.of(b"data"))
    incomplete = BrokenUpload(Reason.UPLOAD_INCOMPLETE, "size_bytes", "cut off")
    assert outcomes(store, lambda measured: measured.put(KEY, interrupted(incomplete))) == {("put", "refused"): 1}
    assert outcomes(store, lambda measured: measured.get(KEY, ByteRange(9))) == {("get", "refused"): 1}
