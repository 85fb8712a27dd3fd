"""When housekeeping seals anew what another key sealed, and where it leaves that."""

import logging
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from holdfast_server.checkpoints.housekeeping import Housekeeping
from holdfast_server.checkpoints.names import RoomId
from holdfast_server.objects.base import ALL_ATOMIC, ConditionMode, Description
from holdfast_server.objects.memory import MemoryStore
from tests.support.any_checkpoints import ChangingKeys, Checkpoints, pointer_name, snapshot_name
from tests.support.meddled_store import MeddledStore

WEEK = 7 * 24 * 3600.0
SIX_HOURS = 6 * 3600.0


class Weak(MeddledStore):
    """Says of itself how it keeps the conditions of puts."""

    mode = ConditionMode.ATOMIC

    def describe(self) -> Description:
        return replace(super().describe(), conditions=replace(ALL_ATOMIC, put=self.mode))


@pytest.fixture
def checkpoints() -> Iterator[Checkpoints]:
    with closing(Checkpoints(Weak(MemoryStore()), ChangingKeys())) as opened:
        yield opened


def fill(checkpoints: Checkpoints) -> None:
    checkpoints.save("room", 1, b"1")
    info = checkpoints.hibernate("slept", b"night", writer_id="a")
    checkpoints.confirm("slept", info.etag, info.sha256, "b")


def keys_of(checkpoints: Checkpoints) -> set[bytes]:
    return {checkpoints.stored(name)[16:24] for name in (pointer_name("room"), snapshot_name("slept"))}


def test_it_is_done_when_tombstones_are_looked_at(checkpoints: Checkpoints, caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    housekeeping = Housekeeping(
        checkpoints.store, retention=None, interval_seconds=600, tombstone_seconds=WEEK, clock=lambda: now
    )
    fill(checkpoints)
    housekeeping.tidy()
    old = checkpoints.keys.rotate()
    now = SIX_HOURS - 1
    housekeeping.tidy()
    assert keys_of(checkpoints) == {old}
    now = SIX_HOURS
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            housekeeping.tidy()
            now += SIX_HOURS
    assert keys_of(checkpoints) == {checkpoints.keys.ring.signing.id}
    (line,) = [record for record in caplog.records if record.message == "Pointers were sealed with the signing key"]
    assert line.__dict__["fields"] == {"objects": 2}


def test_what_was_done_is_told_where_the_rest_broke_off(
    checkpoints: Checkpoints, caplog: pytest.LogCaptureFixture
) -> None:
    fill(checkpoints)
    checkpoints.keys.rotate()

    def fail(operation: str, name: str) -> None:
        if (operation, name) == ("list", "hibernated/"):
            raise ConnectionError

    checkpoints.objects.before = fail
    housekeeping = Housekeeping(checkpoints.store, retention=None, interval_seconds=600, tombstone_seconds=WEEK)
    with caplog.at_level(logging.INFO), pytest.raises(ConnectionError):
        housekeeping.tidy()
    assert [record.__dict__["fields"] for record in caplog.records] == [{"objects": 1}]


def test_without_another_key_no_wake_mark_is_read(checkpoints: Checkpoints) -> None:
    info = checkpoints.hibernate("slept", b"night", writer_id="a")
    checkpoints.confirm("slept", info.etag, info.sha256, "b")
    housekeeping = Housekeeping(checkpoints.store, retention=None, interval_seconds=1, tombstone_seconds=WEEK)
    with checkpoints.objects.costing(list=2):
        housekeeping.tidy()


def test_without_a_ring_tidying_goes_on(checkpoints: Checkpoints) -> None:
    fill(checkpoints)
    checkpoints.keys.now = None
    checkpoints.objects.calls.clear()
    housekeeping = Housekeeping(checkpoints.store, retention=None, interval_seconds=1, tombstone_seconds=WEEK)
    housekeeping.tidy()
    assert checkpoints.objects.calls["list"] == 2


@pytest.mark.parametrize("mode", [ConditionMode.UNKNOWN, ConditionMode.UNSUPPORTED, ConditionMode.CHECKED])
def test_where_conditions_are_not_kept_among_all_nothing_is_written(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch, mode: ConditionMode
) -> None:
    fill(checkpoints)
    old = checkpoints.keys.rotate()
    monkeypatch.setattr(Weak, "mode", mode)
    resealing = checkpoints.store.resealing()
    assert not resealing.is_of_use
    pointer = checkpoints.store.pointers.read(RoomId("room"))
    assert pointer is not None
    assert not resealing.pointer(pointer)
    assert keys_of(checkpoints) == {old}
