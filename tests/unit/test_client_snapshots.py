"""Snapshots of rooms that sleep, through the client: given up only by who has them."""

import io
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import Checkpoints
from tests.support.rooms import damage_snapshot
from tests.support.samples import MIB, sample
from tests.support.server_process import ServerProcess

_DATA = sample(2 * MIB + 17)


@pytest.fixture(scope="module", params=["memory", "filesystem"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server on each backend."""
    data_dir = tmp_path_factory.mktemp("data") if request.param == "filesystem" else None
    with ServerProcess(data_dir) as server:
        yield server


@pytest.fixture
def checkpoints(server: ServerProcess) -> Iterator[Checkpoints]:
    """Its snapshots: at first none."""
    with holdfast.connect(server.address) as client:
        for entry in client.checkpoints.hibernated():
            with client.checkpoints.restoring(entry.room_id) as snapshot:
                snapshot.read()
        yield client.checkpoints


def _sleeping(checkpoints: Checkpoints) -> list[str]:
    return [entry.room_id for entry in checkpoints.hibernated()]


@pytest.mark.parametrize("size", [0, 1, MIB, 2 * MIB + 1, 9 * MIB + 3])
def test_what_was_hibernated_is_what_is_restored(checkpoints: Checkpoints, tmp_path: Path, size: int) -> None:
    data = sample(size)
    path = tmp_path / "file"
    path.write_bytes(data)
    sources: list[Any] = [data, path, io.BytesIO(data), iter([data])]
    for given in sources:
        stored = checkpoints.hibernate("duel/7", given, metadata={"map": "ü"}, writer_id="node-1")
        assert (stored.room_id, stored.size_bytes, stored.sha256) == ("duel/7", size, sha256(data).digest())
        assert (stored.writer_id, stored.metadata) == ("node-1", {"map": "ü"})
        with checkpoints.restore("duel/7") as reader:
            assert reader.read() == data
            assert reader.is_complete
        assert (reader.info.etag, reader.info.sha256) == (stored.etag, stored.sha256)


def test_a_snapshot_stays_until_it_is_confirmed(checkpoints: Checkpoints) -> None:
    stored = checkpoints.hibernate("a", _DATA)
    assert stored.sha256 is not None
    for _ in range(2):
        assert checkpoints.restore("a").read() == _DATA
    with pytest.raises(holdfast.InvalidArgument) as caught:
        checkpoints.confirm_restore("a", stored.etag, bytes(32))
    assert caught.value.reason == "CHECKSUM_MISMATCH"
    with pytest.raises(holdfast.ConcurrentModification):
        checkpoints.confirm_restore("a", "another", stored.sha256)
    assert _sleeping(checkpoints) == ["a"]
    checkpoints.confirm_restore("a", stored.etag, stored.sha256, writer_id="node-1")
    assert _sleeping(checkpoints) == []
    with pytest.raises(holdfast.NotFound):
        checkpoints.restore("a")


def test_of_two_who_confirm_one_is_told_that_the_room_is_theirs(checkpoints: Checkpoints) -> None:
    stored = checkpoints.hibernate("a", _DATA)
    assert stored.sha256 is not None
    checkpoints.confirm_restore("a", stored.etag, stored.sha256, writer_id="node-1")
    checkpoints.confirm_restore("a", stored.etag, stored.sha256, writer_id="node-1")
    with pytest.raises(holdfast.ConcurrentModification):
        checkpoints.confirm_restore("a", stored.etag, stored.sha256, writer_id="node-2")


def test_restoring_confirms_when_the_block_ends_well(checkpoints: Checkpoints) -> None:
    checkpoints.hibernate("a", _DATA)
    with checkpoints.restoring("a") as snapshot:
        assert snapshot.read() == _DATA
        assert not snapshot.is_confirmed
        assert _sleeping(checkpoints) == ["a"]
    assert snapshot.is_confirmed
    assert _sleeping(checkpoints) == []


def test_restoring_chunk_by_chunk_confirms_with_the_last_one(checkpoints: Checkpoints) -> None:
    checkpoints.hibernate("a", _DATA)
    with checkpoints.restoring("a") as snapshot:
        left = len(_DATA)
        while left:
            assert not snapshot.is_complete
            left -= len(next(snapshot))
    assert snapshot.is_confirmed


@pytest.mark.parametrize("flaw", [RuntimeError, KeyboardInterrupt, GeneratorExit])
def test_restoring_confirms_nothing_after_an_exception(checkpoints: Checkpoints, flaw: type[BaseException]) -> None:
    checkpoints.hibernate("a", _DATA)

    def fail() -> None:
        with checkpoints.restoring("a") as snapshot:
            snapshot.read()
            raise flaw

    with pytest.raises(flaw):
        fail()
    assert _sleeping(checkpoints) == ["a"]


def test_restoring_confirms_nothing_that_was_not_read_to_its_end(checkpoints: Checkpoints) -> None:
    checkpoints.hibernate("a", _DATA)
    with checkpoints.restoring("a") as snapshot:
        next(snapshot)
    assert not snapshot.is_confirmed
    checkpoints.hibernate("a", b"")
    with checkpoints.restoring("a") as snapshot:
        pass
    assert not snapshot.is_confirmed
    assert _sleeping(checkpoints) == ["a"]


def test_who_restores_what_was_hibernated_again_is_told_that_the_room_is_not_theirs(checkpoints: Checkpoints) -> None:
    checkpoints.hibernate("a", b"old")

    def restore() -> None:
        with checkpoints.restoring("a") as snapshot:
            assert snapshot.read() == b"old"
            checkpoints.hibernate("a", b"new")

    with pytest.raises(holdfast.ConcurrentModification):
        restore()
    assert checkpoints.restore("a").read() == b"new"


def test_of_many_who_restore_one_has_the_room(checkpoints: Checkpoints) -> None:
    checkpoints.hibernate("a", _DATA)
    barrier = threading.Barrier(8)
    won: list[bool] = []

    def restore() -> None:
        try:
            with checkpoints.restoring("a") as snapshot:
                assert snapshot.read() == _DATA
                barrier.wait(30)
        except holdfast.ConcurrentModification:
            won.append(False)
        else:
            won.append(snapshot.is_confirmed)

    threads = [threading.Thread(target=restore) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 7 + [True]


def test_conditions_are_kept(checkpoints: Checkpoints) -> None:
    first = checkpoints.hibernate("a", b"1", create_only=True)
    with pytest.raises(holdfast.AlreadyExists):
        checkpoints.hibernate("a", b"2", create_only=True)
    with pytest.raises(holdfast.PreconditionFailed):
        checkpoints.hibernate("a", b"2", if_match_etag="another")
    with pytest.raises(holdfast.InvalidArgument):
        checkpoints.hibernate("a", b"2", create_only=True, if_match_etag=first.etag)
    checkpoints.hibernate("a", b"2", if_match_etag=first.etag)
    assert checkpoints.restore("a").read() == b"2"


def test_a_call_that_is_repeated_does_not_bring_back_a_room_that_was_given_away(checkpoints: Checkpoints) -> None:
    checkpoints.hibernate("a", b"state", writer_id="node-3/1")
    with checkpoints.restoring("a", writer_id="node-4") as snapshot:
        snapshot.read()
    with pytest.raises(holdfast.ConcurrentModification, match="the room is theirs"):
        checkpoints.hibernate("a", b"state", writer_id="node-3/1")
    assert _sleeping(checkpoints) == []
    checkpoints.hibernate("a", b"state")  # another call, and so another sleep
    assert _sleeping(checkpoints) == ["a"]


@pytest.mark.parametrize("page_size", [0, 1, 2, 100])
def test_a_list_is_whole_whatever_its_pages(checkpoints: Checkpoints, page_size: int) -> None:
    for name in ("a", "a/b", "ab", "b"):
        checkpoints.hibernate(name, name.encode())
    entries = list(checkpoints.hibernated(page_size=page_size))
    assert [entry.room_id for entry in entries] == ["a", "a/b", "ab", "b"]
    assert all(entry.snapshot and entry.snapshot.size_bytes == len(entry.room_id) for entry in entries)
    assert [entry.room_id for entry in checkpoints.hibernated("a/", page_size)] == ["a/b"]


def test_a_source_that_fails_leaves_the_old_snapshot(checkpoints: Checkpoints) -> None:
    checkpoints.hibernate("a", b"old")

    def chunks() -> Iterator[bytes]:
        yield sample(2 * MIB)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checkpoints.hibernate("a", chunks())
    assert checkpoints.restore("a").read() == b"old"


def test_what_breaks_a_rule_is_told_with_its_field(checkpoints: Checkpoints) -> None:
    for call in (lambda: checkpoints.restore(""), lambda: checkpoints.hibernate("", b"")):
        with pytest.raises(holdfast.InvalidArgument) as caught:
            call()
        assert caught.value.field == "room_id"


def test_a_damaged_snapshot_is_told_and_stays(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as server, holdfast.connect(server.address) as client:
        for name in ("a", "b"):
            client.checkpoints.hibernate(name, b"state", writer_id="the-writer")
        damage_snapshot(tmp_path / "data", "a", b"the-writer")
        with pytest.raises(holdfast.IntegrityFailed):
            client.checkpoints.restore("a")
        bad, good = client.checkpoints.hibernated()
        assert isinstance(bad.error, holdfast.IntegrityFailed)
        assert bad.snapshot is None
        assert good.error is None
        for create_only in (False, True):
            with pytest.raises(holdfast.IntegrityFailed, match="see that it is not, and set replace_damaged"):
                client.checkpoints.hibernate("a", b"new", create_only=create_only)
        client.checkpoints.hibernate("a", b"new", replace_damaged=True)
        assert client.checkpoints.restore("a").read() == b"new"
