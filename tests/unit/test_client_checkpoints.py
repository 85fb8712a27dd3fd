"""Checkpoints through the client: what is saved, loaded, listed, watched and deleted."""

import io
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import Checkpoints, CheckpointSavers, SaveOutcome
from tests.support.log_marks import mark
from tests.support.ports import held_port
from tests.support.rooms import damage, emptied
from tests.support.samples import MIB, sample
from tests.support.server_process import ServerProcess
from tests.support.tombstones import anew_after

_ROOM = "duel/7"


@pytest.fixture(scope="module", params=["memory", "filesystem"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server on each backend that hides no room's past for long."""
    data_dir = tmp_path_factory.mktemp("data") if request.param == "filesystem" else None
    with ServerProcess(data_dir) as server:
        yield server


@pytest.fixture
def checkpoints(server: ServerProcess) -> Iterator[Checkpoints]:
    """Its checkpoints: at first none, and new rooms."""
    with emptied(server) as checkpoints:
        yield checkpoints


@pytest.fixture
def room(request: pytest.FixtureRequest) -> str:
    """A room that no other test had: a deleted one's epochs go on."""
    return f"{_ROOM}/{request.node.name[:100].replace('/', '-')}"


def _loaded(checkpoints: Checkpoints, room: str, epoch: int | None = None) -> bytes:
    with checkpoints.load(room, epoch) as reader:
        return reader.read()


@pytest.mark.parametrize("size", [0, 1, MIB, 2 * MIB + 1, 9 * MIB + 3])
def test_what_was_saved_is_what_is_loaded(checkpoints: Checkpoints, room: str, tmp_path: Path, size: int) -> None:
    data = sample(size)
    path = tmp_path / "file"
    path.write_bytes(data)
    sources: list[Any] = [data, path, io.BytesIO(data), iter([data])]
    for epoch, given in enumerate(sources):
        saved = checkpoints.save(room, epoch, given, metadata={"map": "ü"}, writer_id="node-1")
        assert (saved.outcome, saved.is_there, saved.pointer_moved) == (SaveOutcome.STORED, True, True)
        assert (saved.latest_epoch, saved.next_epoch) == (epoch, epoch + 1)
        with checkpoints.load(room) as reader:
            chunks = list(reader)
            assert reader.is_complete
        assert b"".join(chunks) == data
        assert all(0 < len(chunk) <= MIB for chunk in chunks)
        info = reader.info
        assert (info.room_id, info.epoch, info.size_bytes) == (room, epoch, size)
        assert info.sha256 == sha256(data).digest()
        assert (info.writer_id, info.metadata, info.legacy, info.encrypted) == ("node-1", {"map": "ü"}, False, False)
        assert (info.latest_epoch, info.next_epoch, info.skipped) == (epoch, epoch + 1, ())
        assert saved.checkpoint is not None
        assert (saved.checkpoint.etag, saved.checkpoint.sha256) == (info.etag, info.sha256)


def test_an_epoch_keeps_its_first_payload_and_says_so(checkpoints: Checkpoints, room: str) -> None:
    checkpoints.save(room, 3, b"first")
    same = checkpoints.save(room, 3, b"first")
    assert (same.outcome, same.is_there, same.pointer_moved) == (SaveOutcome.EXISTS_SAME, True, False)
    other = checkpoints.save(room, 3, b"other")
    assert (other.outcome, other.is_there) == (SaveOutcome.EXISTS_DIFFERENT, False)
    assert (other.latest_epoch, other.next_epoch) == (3, 4)
    assert _loaded(checkpoints, room) == b"first"
    with pytest.raises(holdfast.AlreadyExists):
        checkpoints.save(room, 3, b"first", require_new=True)


def test_a_lower_epoch_leaves_the_pointer(checkpoints: Checkpoints, room: str) -> None:
    checkpoints.save(room, 10, b"ten")
    late = checkpoints.save(room, 9, b"nine")
    assert (late.outcome, late.pointer_moved, late.latest_epoch) == (SaveOutcome.STORED, False, 10)
    assert (_loaded(checkpoints, room), _loaded(checkpoints, room, 9)) == (b"ten", b"nine")


def test_the_latest_can_be_a_condition(checkpoints: Checkpoints, room: str) -> None:
    checkpoints.save(room, 0, b"a", if_latest_epoch=-1)
    checkpoints.save(room, 1, b"b", if_latest_epoch=0)
    again = checkpoints.save(room, 1, b"b", if_latest_epoch=0)  # as after a lost answer
    assert again.outcome is SaveOutcome.EXISTS_SAME
    for expected in (-1, 0, 2):
        with pytest.raises(holdfast.ConcurrentModification):
            checkpoints.save(room, 2, b"c", if_latest_epoch=expected)
    assert _loaded(checkpoints, room) == b"b"


def test_a_source_that_fails_leaves_no_checkpoint(checkpoints: Checkpoints, room: str) -> None:
    def chunks() -> Iterator[bytes]:
        yield sample(2 * MIB)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(room, 0, chunks())
    with pytest.raises(holdfast.BrokenUpload):
        checkpoints.save(room, 0, b"abc", size_bytes=4)
    assert list(checkpoints.list(room)) == []
    assert checkpoints.next_epoch(room) == 0


def test_progress_is_told(checkpoints: Checkpoints, room: str) -> None:
    told: list[tuple[int, int | None]] = []
    checkpoints.save(room, 0, sample(MIB + 1), progress=lambda sent, total: told.append((sent, total)))
    assert told == [(MIB, MIB + 1), (MIB + 1, MIB + 1)]


@pytest.mark.parametrize(
    ("room_id", "epoch", "options", "field"),
    [
        ("", 0, {}, "room_id"),
        ("a/../b", 0, {}, "room_id"),
        ("a/latest", 0, {}, "room_id"),
        ("a/00000000000000000007", 0, {}, "room_id"),
        ("a" * 1024, 0, {}, "room_id"),
        ("a", -1, {}, "epoch"),
        ("a", 0, {"metadata": {"x": "y" * 1025}}, "metadata"),
        ("a", 0, {"writer_id": "ü"}, "writer_id"),
    ],
)
def test_what_breaks_a_rule_is_told_with_its_field(
    checkpoints: Checkpoints, room_id: str, epoch: int, options: dict[str, str], field: str
) -> None:
    with pytest.raises(holdfast.InvalidArgument) as caught:
        checkpoints.save(room_id, epoch, b"", **options)  # type: ignore[arg-type]  # as given
    assert caught.value.field == field


def test_what_no_message_can_hold_is_an_invalid_argument(checkpoints: Checkpoints) -> None:
    for room_id, epoch in (("\ud800", 0), ("a", 1 << 63)):
        with pytest.raises(holdfast.InvalidArgument):
            checkpoints.save(room_id, epoch, b"")
        with pytest.raises(holdfast.InvalidArgument):
            checkpoints.load(room_id, epoch)
        with pytest.raises(holdfast.InvalidArgument):
            checkpoints.stat(room_id, epoch)


def test_what_is_missing_is_not_found(checkpoints: Checkpoints, room: str) -> None:
    for call in (checkpoints.load, checkpoints.stat):
        with pytest.raises(holdfast.NotFound) as caught:
            call(room)
        assert caught.value.reason == "ROOM_NOT_FOUND"
    checkpoints.save(room, 5, b"")
    for call in (checkpoints.load, checkpoints.stat):
        with pytest.raises(holdfast.NotFound) as caught:
            call(room, 4)
        assert caught.value.reason == "CHECKPOINT_NOT_FOUND"


def test_a_rollback_is_noticed_by_who_remembers_an_epoch(checkpoints: Checkpoints, room: str) -> None:
    checkpoints.save(room, 5, b"")
    assert checkpoints.stat(room, min_epoch=5).epoch == 5
    for call in (checkpoints.load, checkpoints.stat):
        with pytest.raises(holdfast.EpochTooOld):
            call(room, min_epoch=6)


def test_stat_says_what_a_load_says_but_for_the_digest(checkpoints: Checkpoints, room: str) -> None:
    checkpoints.save(room, 5, b"five", writer_id="node")
    with checkpoints.load(room) as reader:
        loaded = reader.info
    info = checkpoints.stat(room)
    assert info.sha256 is None
    for name in ("room_id", "epoch", "size_bytes", "etag", "writer_id", "create_time", "key_id", "next_epoch"):
        assert getattr(info, name) == getattr(loaded, name), name
    for time in (info.create_time, info.update_time):
        assert time is not None
        assert time.tzinfo is UTC
        assert abs(datetime.now(UTC) - time) < timedelta(minutes=5)


@pytest.mark.parametrize("page_size", [0, 1, 2, 100])
def test_lists_are_whole_whatever_their_pages(checkpoints: Checkpoints, room: str, page_size: int) -> None:
    for epoch in (0, 3, 4, 11):
        checkpoints.save(room, epoch, bytes(epoch))
    found = list(checkpoints.list(room, page_size=page_size))
    assert [(entry.epoch, entry.checkpoint and entry.checkpoint.size_bytes, entry.error) for entry in found] == [
        (epoch, epoch, None) for epoch in (0, 3, 4, 11)
    ]
    assert [entry.epoch for entry in checkpoints.list(room, from_epoch=4, page_size=page_size)] == [4, 11]
    for name in ("a", "b/c", "b", "ö"):
        checkpoints.save(f"{room}-{name}", 2, b"")
    rooms = list(checkpoints.rooms(f"{room}-", page_size))
    assert [entry.room_id.removeprefix(f"{room}-") for entry in rooms] == ["a", "b", "b/c", "ö"]
    assert [entry.room_id for entry in checkpoints.rooms(f"{room}-b/", page_size)] == [f"{room}-b/c"]
    assert all((entry.latest_epoch, entry.error) == (2, None) for entry in rooms)
    assert all(entry.update_time is not None for entry in rooms)


def test_a_list_asks_for_a_page_only_when_it_is_reached(
    server: ServerProcess, checkpoints: Checkpoints, room: str
) -> None:
    for epoch in range(5):
        checkpoints.save(room, epoch, b"")
    before = mark(server, checkpoints.stat, f"{room}/before")
    assert [entry.epoch for entry in islice(checkpoints.list(room, page_size=2), 3)] == [0, 1, 2]
    after = mark(server, checkpoints.stat, f"{room}/after")
    assert sum("ListCheckpoints" in line for line in server.log[before:after]) == 2


def test_old_checkpoints_are_pruned_and_never_the_latest(checkpoints: Checkpoints, room: str) -> None:
    for epoch in range(5):
        checkpoints.save(room, epoch, b"x")
    told = checkpoints.prune(room, keep_last=2, dry_run=True)
    assert (told.rooms, told.deleted, told.kept, told.failed) == (1, 3, 2, ())
    assert checkpoints.prune(room, keep_last=2, older_than=timedelta(days=1)).deleted == 0
    assert len(list(checkpoints.list(room))) == 5
    pruned = checkpoints.prune(room, keep_last=2)
    assert (pruned.deleted, pruned.kept, pruned.deleted_bytes) == (3, 2, told.deleted_bytes)
    assert [entry.epoch for entry in checkpoints.list(room)] == [3, 4]
    with pytest.raises(holdfast.InvalidArgument):
        checkpoints.prune(room, keep_last=0)


def test_all_rooms_are_pruned_with_none_for_a_room(checkpoints: Checkpoints, room: str) -> None:
    for name in ("a", "b"):
        for epoch in range(3):
            checkpoints.save(f"{room}/{name}", epoch, b"")
    pruned = checkpoints.prune(None, keep_last=1)
    assert (pruned.rooms, pruned.deleted, pruned.kept) == (2, 4, 2)


def test_the_epochs_of_a_deleted_room_go_on(checkpoints: Checkpoints, room: str) -> None:
    for epoch in range(3):
        checkpoints.save(room, epoch, b"x")
    anew = anew_after(2)
    assert checkpoints.delete_room(room) == holdfast.DeletedRoom(3, existed=True, next_epoch=anew)
    assert not checkpoints.delete_room(room).existed
    with pytest.raises(holdfast.EpochTooOld) as caught:
        checkpoints.save(room, 1, b"x")
    assert caught.value.next_epoch == checkpoints.next_epoch(room) == anew
    assert checkpoints.save(room, anew, b"x").pointer_moved


def test_a_room_that_lost_its_pointer_goes_on_above_what_it_has(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "data") as server, holdfast.connect(server.address) as client:
        for epoch in range(3):
            client.checkpoints.save("a", epoch, str(epoch).encode())
    (pointer,) = (tmp_path / "data").rglob("latest.f")
    pointer.unlink()
    with ServerProcess(tmp_path / "data") as server, holdfast.connect(server.address) as client:
        with pytest.raises(holdfast.NotFound) as caught:
            client.checkpoints.load("a")
        assert caught.value.next_epoch == client.checkpoints.next_epoch("a") == 3
        assert client.checkpoints.load("a", fallback=True).read() == b"2"
        with pytest.raises(holdfast.NotFound) as caught:
            client.checkpoints.load("b")
        assert caught.value.next_epoch is None
        for start_epoch in (0, 2, None):
            blank = holdfast.CheckpointSaver(client.checkpoints, "a", lambda: b"blank", start_epoch=start_epoch)
            with blank:
                pass
            assert isinstance(blank.last_error, holdfast.EpochTooOld)
            assert (blank.last_saved, blank.last_error.deleted, blank.last_error.next_epoch) == (None, False, 3)
        assert [entry.epoch for entry in client.checkpoints.list("a")] == [0, 1, 2]
        saver = holdfast.CheckpointSaver(client.checkpoints, "a", lambda: b"state", start_epoch=3)
        saver.step()
        assert (saver.last_error, saver.epoch) == (None, 4)
        assert _loaded(client.checkpoints, "a") == b"state"


def test_a_watch_begins_with_what_is_and_rises(checkpoints: Checkpoints, room: str) -> None:
    checkpoints.save(room, 4, b"")
    events = checkpoints.watch([room, f"{room}/none"])
    first = {event.room_id: event.epoch for event in islice(events, 2)}
    assert first == {room: 4, f"{room}/none": None}
    checkpoints.save(room, 3, b"")
    checkpoints.save(room, 7, b"")
    assert next(events) == holdfast.Watched(room, 7)
    checkpoints.save(f"{room}/none", 0, b"")
    assert next(events) == holdfast.Watched(f"{room}/none", 0)
    events.close()  # type: ignore[attr-defined]  # a generator


def test_a_watch_outlives_its_server(tmp_path: Path) -> None:
    with held_port() as port:  # which nobody else is given while it is away
        with ServerProcess(tmp_path / "data", listen=f"127.0.0.1:{port}") as first:
            client = holdfast.connect(first.address, retries=100)
            client.checkpoints.save("a", 1, b"")
            events = client.checkpoints.watch(["a"])
            assert next(events).epoch == 1
            seen: list[int | None] = []
            watching = threading.Thread(target=lambda: seen.append(next(events).epoch))
            watching.start()
            first.kill()
        with client, ServerProcess(tmp_path / "data", listen=first.address):
            client.checkpoints.save("a", 2, b"")
            watching.join(60)
            assert seen == [2]


def test_results_are_frozen_values(checkpoints: Checkpoints, room: str) -> None:
    checkpoints.save(room, 0, b"")
    info = checkpoints.stat(room)
    assert hash(info) == hash(checkpoints.stat(room))
    with pytest.raises(AttributeError):
        info.epoch = 1  # type: ignore[misc]  # the point


def test_the_rooms_of_a_node_are_saved_and_drained(checkpoints: Checkpoints, room: str) -> None:
    names = [f"{room}/{number}" for number in range(20)]
    with CheckpointSavers(checkpoints, period_seconds=0.2, writer_id="node") as savers:
        for name in names:
            savers.add(name, name.encode)
        drained = savers.drain()
    assert all(one.error is None for one in drained.values())
    for name in names:
        assert _loaded(checkpoints, name) == name.encode()
        assert checkpoints.stat(name).writer_id == "node"


class TestDamage:
    @pytest.fixture
    def damaged(self, tmp_path: Path) -> Iterator[Checkpoints]:
        """The checkpoints of a room with the epochs 0 to 2, the last of which is damaged at rest."""
        with ServerProcess(tmp_path / "data") as server, holdfast.connect(server.address) as client:
            for epoch in range(3):
                client.checkpoints.save("a", epoch, str(epoch).encode() * 100, writer_id="the-writer")
            damage(tmp_path / "data", "a", 2, where=b"the-writer")
            yield client.checkpoints

    def test_it_is_loss_of_data_and_not_one_byte_comes(self, damaged: Checkpoints) -> None:
        with pytest.raises(holdfast.IntegrityFailed) as caught:
            damaged.load("a")
        assert caught.value.details["room_id"] == "a"
        assert damaged.next_epoch("a") == 3

    def test_a_fallback_tells_what_it_passed_over(self, damaged: Checkpoints) -> None:
        with damaged.load("a", fallback=True) as reader:
            assert reader.read() == b"1" * 100
        assert (reader.info.epoch, reader.info.next_epoch) == (1, 3)
        (skipped,) = reader.info.skipped
        assert skipped.epoch == 2
        assert isinstance(skipped.error, holdfast.IntegrityFailed)

    def test_a_list_shows_it_among_the_others(self, damaged: Checkpoints) -> None:
        *good, bad = damaged.list("a")
        assert all(entry.checkpoint is not None for entry in good)
        assert (bad.epoch, bad.checkpoint) == (2, None)
        assert isinstance(bad.error, holdfast.IntegrityFailed)

    def test_it_is_saved_above(self, damaged: Checkpoints) -> None:
        saved = damaged.save("a", 2, b"2" * 100)
        assert (saved.outcome, saved.checkpoint, saved.next_epoch) == (SaveOutcome.EXISTS_DAMAGED, None, 3)
        with holdfast.CheckpointSaver(damaged, "a", lambda: b"new") as saver:
            assert saver.drain().error is None
        assert _loaded(damaged, "a") == b"new"

    def test_a_damaged_pointer_is_replaced_only_if_that_is_said(self, tmp_path: Path) -> None:
        with ServerProcess(tmp_path / "data") as server, holdfast.connect(server.address) as client:
            client.checkpoints.save("a", 0, b"0")
            damage(tmp_path / "data", "a", None)
            server.stop()
        with ServerProcess(tmp_path / "data") as server, holdfast.connect(server.address) as client:
            checkpoints = client.checkpoints
            with pytest.raises(holdfast.PointerInvalid):
                checkpoints.load("a")
            with pytest.raises(holdfast.PointerInvalid):
                checkpoints.save("a", 1, b"1")
            (room,) = checkpoints.rooms()
            assert (room.room_id, room.latest_epoch) == ("a", None)
            assert isinstance(room.error, holdfast.IntegrityFailed)
            with checkpoints.load("a", fallback=True) as reader:
                assert reader.read() == b"0"
            assert (reader.info.latest_epoch, [each.epoch for each in reader.info.skipped]) == (None, [None])
            saved = checkpoints.save("a", 2, b"2", replace_damaged_pointer=True)
            assert saved.pointer_moved
            assert _loaded(checkpoints, "a") == b"2"
