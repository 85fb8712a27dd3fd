"""CheckpointStore against a dictionary: any calls in any order, through two servers on one backend, which restart.

The dictionary (`tests/support/room_model.py`) has the rules written once more, without the code under test. A failure
shows the calls as a program. With `CHECKPOINT_MODEL_EXAMPLES=500` it looks for longer than a run of all tests can.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from holdfast.v1.types_pb2 import ErrorReason
from tests.support.any_checkpoints import Checkpoints, epoch_name, opened, refused, tried
from tests.support.meddled_store import once
from tests.support.room_model import Found, Pruned, Reason, Room, Rooms, Snapshot
from tests.support.s3_servers import S3Server
from tests.support.state_machines import run_machine
from tests.support.statuses import Refusal
from tests.support.tombstones import GAP

STEPS = 40
EXAMPLES = {"direct memory": 400, "grpc memory": 40, "direct filesystem": 40, "direct moto": 12, "direct minio": 12}
FEW_EXAMPLES = 4
HOUR = 3600

names = st.sampled_from(["a", "a/b", "a-b", "é/🎲"])
servers = st.integers(0, 1)
payloads = st.sampled_from([b"", b"one", b"two"])
above = st.sampled_from([*range(-4, 5), *range(-4, 5), -GAP - 1, -GAP])
"""An epoch, counted from the highest that there is, the tombstone's included."""


class CheckpointModel(RuleBasedStateMachine):
    """Asks two servers and the dictionary the same."""

    def __init__(self, first: Checkpoints, second: Checkpoints) -> None:
        super().__init__()
        self._servers = (first, second)
        self._back_door = first
        first.clear()
        second.keys.now = first.keys.now
        second.clear_but_keys()
        for server in self._servers:
            server.objects.clock_ahead = timedelta(hours=1)
        self._model = Rooms()

    def _epoch(self, room: str, offset: int) -> int:
        return max(self._model[room].highest + offset, 0)

    # The checkpoints of a room.

    @rule(
        server=servers,
        room=names,
        offset=above,
        data=payloads,
        expected=st.sampled_from(["any"] * 4 + ["right", "none", "wrong"]),
        require_new=st.sampled_from([False, False, False, True]),
    )
    def save(self, *, server: int, room: str, offset: int, data: bytes, expected: str, require_new: bool) -> None:
        epoch, model = self._epoch(room, offset), self._model[room]
        if_latest = {"any": None, "right": model.latest, "none": -1, "wrong": model.latest + 1}[expected]
        writer = f"w{server}"
        wanted = model.save(epoch, data, if_latest, require_new=require_new, writer=writer)
        saved = tried(
            lambda: self._servers[server].save(
                room, epoch, data, if_latest_epoch=if_latest, require_new=require_new, writer_id=writer
            )
        )
        if isinstance(saved, Refusal):
            assert wanted == saved.reason
            self._note_leftover(room, epoch, data, writer)
            return
        assert not isinstance(wanted, Reason), wanted
        assert (saved.outcome, saved.pointer_moved) == (wanted.outcome.value, wanted.moved)
        assert (saved.latest_epoch, saved.next_epoch) == (wanted.latest, wanted.next_epoch)

    def _note_leftover(self, room: str, epoch: int, data: bytes, writer: str) -> None:
        """Note what a server left that did not know of a deletion: below the tombstone nobody is shown it."""
        model = self._model[room]
        if epoch <= max(model.buried, model.floor) and epoch_name(room, epoch) in self._back_door.names():
            model.payloads.setdefault(epoch, data)
            model.writers.setdefault(epoch, writer)

    @rule(server=servers, room=names, offset=st.integers(1, 4), data=payloads)
    def save_and_fail_at_the_pointer(self, server: int, room: str, offset: int, data: bytes) -> None:
        epoch = self._epoch(room, offset)
        self._servers[server].objects.before = once("put", "/latest")
        with refused("BACKEND_UNAVAILABLE"):
            self._servers[server].save(room, epoch, data)
        self._servers[server].objects.before = lambda _operation, _name: None
        self._model[room].payloads[epoch] = data

    @rule(
        server=servers,
        room=names,
        offset=st.none() | above,
        lowest=st.none() | above,
        fallback=st.booleans(),
    )
    def load(self, server: int, room: str, offset: int | None, lowest: int | None, fallback: bool) -> None:
        fields = self._wanted(room, offset, lowest)
        wanted = self._model[room].load(fields.get("epoch"), fields.get("min_epoch"), fallback=fallback)
        loaded = tried(lambda: self._servers[server].load(room, fallback=fallback, **fields))
        if isinstance(loaded, Refusal):
            assert wanted == loaded.reason
            return
        assert isinstance(wanted, Found), wanted
        assert loaded.data == wanted.data
        assert loaded.info.sha256 == hashlib.sha256(wanted.data).digest()
        self._is_found(loaded.info, wanted)
        assert [
            (each.epoch if each.HasField("epoch") else None, _reason(each.status.reason))
            for each in loaded.info.skipped
        ] == wanted.skipped

    @rule(server=servers, room=names, offset=st.none() | above, lowest=st.none() | above)
    def stat(self, server: int, room: str, offset: int | None, lowest: int | None) -> None:
        fields = self._wanted(room, offset, lowest)
        wanted = self._model[room].load(fields.get("epoch"), fields.get("min_epoch"), fallback=False)
        info = tried(lambda: self._servers[server].stat(room, **fields))
        if isinstance(info, Refusal):
            assert wanted == info.reason
            return
        assert isinstance(wanted, Found), wanted
        self._is_found(info, wanted)

    def _wanted(self, room: str, offset: int | None, lowest: int | None) -> dict[str, int]:
        fields = {}
        if offset is not None:
            fields["epoch"] = self._epoch(room, offset)
        if lowest is not None:
            fields["min_epoch"] = self._epoch(room, lowest)
        return fields

    def _is_found(self, info: Any, wanted: Found) -> None:
        latest = info.latest_epoch if info.HasField("latest_epoch") else None
        found = (info.epoch, info.size_bytes, latest, info.next_epoch)
        assert found == (wanted.epoch, len(wanted.data), wanted.latest, wanted.next_epoch)

    @rule(server=servers, room=names, start=st.integers(0, 5), page_size=st.integers(0, 4))
    def list_checkpoints(self, server: int, room: str, start: int, page_size: int) -> None:
        model = self._model[room]
        tried(lambda: self._servers[server].stat(room))  # a list does not ask whether the room was deleted elsewhere
        entries = self._servers[server].listed(room, from_epoch=start, page_size=page_size)
        assert [entry.epoch for entry in entries] == sorted(epoch for epoch in model.shown if epoch >= start)
        for entry in entries:
            if entry.epoch in model.damaged:
                assert _reason(entry.status.reason) == "SEAL_INVALID"
            else:
                assert entry.checkpoint.size_bytes == len(model.payloads[entry.epoch])

    @rule(server=servers, prefix=st.sampled_from(["", "a", "a/", "é", "x"]), page_size=st.integers(0, 3))
    def list_rooms(self, server: int, prefix: str, page_size: int) -> None:
        found = [
            (entry.room_id, entry.latest_epoch)
            for entry in self._servers[server].rooms(prefix=prefix, page_size=page_size)
        ]
        assert found == [each for each in self._model.listed().items() if each[0].startswith(prefix)]

    # What removes.

    @rule(
        server=servers,
        room=names | st.just(""),
        keep_last=st.integers(1, 4),
        is_old=st.sampled_from([True, True, False]),
        dry_run=st.booleans(),
    )
    def prune(self, server: int, room: str, keep_last: int, is_old: bool, dry_run: bool) -> None:
        model: Room | Rooms = self._model[room] if room else self._model
        wanted = model.prune(keep_last, is_old=is_old, dry_run=dry_run)
        answers = tried(
            lambda: self._servers[server].prune(
                room, keep_last=keep_last, older_than=0 if is_old else 2 * HOUR, dry_run=dry_run
            )
        )
        if isinstance(answers, Refusal):
            assert wanted == answers.reason
            return
        failed = [entry.room_id for answer in answers for entry in answer.failed]
        assert isinstance(wanted, Pruned), wanted
        summary = answers[-1]
        assert (summary.rooms, summary.deleted, failed) == (wanted.rooms, wanted.deleted, wanted.failed)
        assert failed or summary.kept == wanted.kept

    @rule(server=servers, room=names)
    def delete_room(self, server: int, room: str) -> None:
        done = self._servers[server].delete_room(room)
        wanted = self._model[room].delete()
        assert (done.deleted, done.existed, done.next_epoch) == wanted

    # Snapshots.

    @rule(
        server=servers,
        room=names,
        data=payloads,
        condition=st.sampled_from(["", "", "new", "right", "wrong"]),
        writer=st.sampled_from(["", "one", "one/1", "one/2"]),
    )
    def hibernate(self, *, server: int, room: str, data: bytes, condition: str, writer: str) -> None:
        there = self._model.snapshots.get(room)
        etag = {"right": "x" if there is None else there.etag, "wrong": "wrong"}.get(condition)
        fields: dict[str, Any] = {"create_only": True} if condition == "new" else {}
        if etag is not None:
            fields, writer = {"if_match_etag": etag}, ""  # who both repeats and names another is refused for either
        wanted = self._model.hibernate(room, data, writer, create_only=condition == "new", etag=etag)
        info = tried(lambda: self._servers[server].hibernate(room, data, writer_id=writer, **fields))
        if isinstance(info, Refusal):
            assert wanted == info.reason
            return
        assert isinstance(wanted, Snapshot), wanted
        wanted.etag = info.etag

    @precondition(lambda self: any(self._model.given_away.values()))
    @rule(server=servers, number=st.integers(0, 20))
    def hibernate_once_more_what_others_have(self, server: int, number: int) -> None:
        there = [(room, *each) for room, given in self._model.given_away.items() for each in given]
        room, writer, data = there[number % len(there)]
        self.hibernate(server=server, room=room, data=data, condition="", writer=writer)

    @rule(server=servers, room=names)
    def restore(self, server: int, room: str) -> None:
        wanted = self._model.asleep(room)
        restored = tried(lambda: self._servers[server].restore(room))
        if isinstance(restored, Refusal):
            assert (wanted, restored.reason) == (None, "SNAPSHOT_NOT_FOUND")
            return
        assert wanted is not None
        assert (restored.data, restored.info.etag) == (wanted.data, wanted.etag)

    @rule(
        server=servers,
        room=names,
        etag=st.sampled_from(["right", "right", "right", "wrong"]),
        data=st.none() | payloads,
        writer=st.sampled_from(["", "one", "two"]),
    )
    def confirm(self, server: int, room: str, etag: str, data: bytes | None, writer: str) -> None:
        there = self._model.snapshots.get(room)
        sent = there.etag if there is not None and etag == "right" else "wrong"
        arrived = data if data is not None or there is None else there.data
        wanted = self._model.confirm(room, sent, arrived or b"", writer)
        digest = hashlib.sha256(arrived or b"").digest()
        answer = tried(lambda: self._servers[server].confirm(room, sent, digest, writer))
        assert wanted == (answer.reason if isinstance(answer, Refusal) else None)

    @rule(server=servers, page_size=st.integers(0, 3))
    def list_hibernated(self, server: int, page_size: int) -> None:
        found = {entry.room_id: entry.snapshot.etag for entry in self._servers[server].hibernated(page_size=page_size)}
        wanted = {room: self._model.asleep(room) for room in self._model.snapshots}
        assert found == {room: snapshot.etag for room, snapshot in wanted.items() if snapshot is not None}

    # What happens to it.

    @precondition(lambda self: any(room.payloads for room in self._model.rooms.values()))
    @rule(number=st.integers(0, 20))
    def damage(self, number: int) -> None:
        there = [(name, epoch) for name, room in self._model.rooms.items() for epoch in sorted(room.payloads)]
        name, epoch = there[number % len(there)]
        if epoch not in self._model[name].damaged:
            self._back_door.flip(epoch_name(name, epoch), -20)
            self._model[name].damaged.add(epoch)

    @rule(server=servers)
    def restart(self, server: int) -> None:
        self._servers[server].restart()

    @invariant()
    def what_is_stored_is_what_the_dictionary_has(self) -> None:
        wanted = {epoch_name(name, epoch) for name, room in self._model.rooms.items() for epoch in room.payloads}
        there = {name for name in self._back_door.names() if name.startswith("snapshots/")}
        assert {name for name in there if not name.endswith("/latest")} == wanted


def _reason(reason: ErrorReason.ValueType) -> str:
    return ErrorReason.Name(reason).removeprefix("ERROR_REASON_")


@pytest.fixture(
    params=[
        *(f"{how} {backend}" for how in ("direct", "grpc") for backend in ("memory", "filesystem", "moto", "minio")),
        "direct memory encrypted",
    ]
)
def variant(request: pytest.FixtureRequest) -> str:
    """How the store is reached, and what it is."""
    variant: str = request.param
    return variant


@pytest.fixture
def pair(variant: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Checkpoints, Checkpoints]]:
    """Two servers on one empty backend."""
    backend = variant.split()[1]
    s3: S3Server | None = request.getfixturevalue(backend) if backend in {"moto", "minio"} else None
    with ExitStack() as stack:
        first = stack.enter_context(opened(variant, tmp_path, s3))
        yield first, stack.enter_context(first.beside())


@pytest.mark.timeout(0 if "CHECKPOINT_MODEL_EXAMPLES" in os.environ else 600)
def test_the_rooms_are_a_dictionary(variant: str, pair: tuple[Checkpoints, Checkpoints]) -> None:
    examples = int(os.environ.get("CHECKPOINT_MODEL_EXAMPLES", EXAMPLES.get(variant, FEW_EXAMPLES)))
    run_machine(partial(CheckpointModel, *pair), variant, examples=examples, steps=STEPS)
