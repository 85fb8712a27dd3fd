"""Sealed things with every bit flipped and of every length, and what a server says of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc

from holdfast.v1.types_pb2 import ErrorReason, ItemStatus
from holdfast_server.checkpoints import seal
from holdfast_server.checkpoints.names import RoomId
from tests.support.checkpoint_calls import (
    entries,
    hibernate,
    hibernated,
    load,
    load_refused,
    restore,
    restore_refused,
    save,
    stat,
)
from tests.support.statuses import refusal_of

ROOM = RoomId("arena/7")
OTHER = "arena/8"
EPOCH = 7
PAYLOAD = b"the state of the room"

KEYS = {"checkpoint": ROOM.epoch_key(EPOCH), "pointer": ROOM.pointer_key, "snapshot": ROOM.snapshot_key}
"""Where the three kinds of sealed things lie."""

REASONS = {"checkpoint": "SEAL_INVALID", "pointer": "POINTER_INVALID", "snapshot": "SEAL_INVALID"}
"""Why they are refused where only the seal can notice."""

LOST = ("DATA_LOSS", "SEAL_INVALID")
NO_KEY = ("FAILED_PRECONDITION", "SEAL_KEY_UNAVAILABLE")

TOO_NEW = ("FAILED_PRECONDITION", "SEAL_TOO_NEW")

_VERSION = range(8, 10)
KEY_ID = range(16, 24)
"""Where a head has the id of its key."""

_CODES = {15: "DATA_LOSS", 9: "FAILED_PRECONDITION"}
_OTHERS_EACH = 50


@dataclass
class Place:
    """A server that was filled, and the way around it to one of its objects, which is a `kind` of `KEYS`."""

    stub: Any
    kind: str
    intact: bytes
    lay: Callable[[bytes], object]
    reasons: set[str] = field(default_factory=set)
    """The reasons that were given."""

    @property
    def footer(self) -> int:
        """Where the footer begins."""
        return len(self.intact) - seal.footer_length(self.intact)

    def told_of(self, at: int) -> set[tuple[str, str]]:
        """Return what who reads the footer alone may say where it is damaged at this position of the object."""
        if at - self.footer in KEY_ID:
            return {NO_KEY}
        return {LOST, TOO_NEW} if at - self.footer in _VERSION else {LOST}

    def check_all(self, damages: Iterator[bytes]) -> None:
        """Check that nothing of a damaged object is served, and that of the other room all is."""
        count = 0
        for count, damaged in enumerate(damages, 1):
            self.lay(damaged)
            self._check_refused()
            if count % _OTHERS_EACH == 0:
                self._check_that_others_are_served()
        assert count >= len(self.intact)
        self._check_that_others_are_served()
        self.check_that_it_was_the_damage()

    def _check_refused(self) -> None:
        refuse = restore_refused if self.kind == "snapshot" else load_refused
        refusal = refuse(self.stub, ROOM.text)
        assert refusal.code == "DATA_LOSS", refusal
        assert refusal.names["room_id"] == ROOM.text
        if self.kind == "checkpoint":
            assert refusal.names["epoch"] == str(EPOCH)
        self.reasons.add(refusal.reason)

    def _check_that_others_are_served(self) -> None:
        assert load(self.stub, OTHER)[1] == PAYLOAD
        assert restore(self.stub, OTHER)[1] == PAYLOAD

    def check_that_it_was_the_damage(self) -> None:
        """Mend the object, and check that it is served."""
        self.lay(self.intact)
        if self.kind == "snapshot":
            assert restore(self.stub, ROOM.text)[1] == PAYLOAD
        else:
            assert load(self.stub, ROOM.text)[1] == PAYLOAD


def fill(stub: Any) -> None:
    """Save two checkpoints and a snapshot of each of two rooms."""
    for room in (ROOM.text, OTHER):
        for epoch in (EPOCH - 1, EPOCH):
            save(stub, room, epoch, PAYLOAD, metadata={"map": "dust"}, writer_id="node-1")
        hibernate(stub, room, PAYLOAD, metadata={"map": "dust"}, writer_id="node-1")


def flipped(data: bytes, at: int, mask: int) -> bytes:
    """Return the data with the bits of the mask flipped at one position."""
    return data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :]


def flips(data: bytes, bits: int = 1) -> Iterator[bytes]:
    """Yield the data with a bit flipped at each position; with 8 `bits` each bit, with 1 another one at each."""
    for at in range(len(data)):
        for bit in range(at, at + bits):
            yield flipped(data, at, 1 << bit % 8)


def lengths(data: bytes) -> Iterator[bytes]:
    """Yield the data cut to every length, beheaded, and with some more."""
    yield from (data[:length] for length in range(len(data)))
    yield from (data[start:] for start in range(1, len(data), 7))
    yield from (data + b"\0", b"\0" + data, data + data)


def reason(name: str) -> int:
    """Return the number of a reason, as statuses have it."""
    return ErrorReason.Value(f"ERROR_REASON_{name}")


def told_of_checkpoint(stub: Any) -> list[tuple[str, str] | None]:
    """Return what stat and list say is wrong with the checkpoint; None: nothing."""
    entry = entries(stub, ROOM.text)[-1]
    assert entry.epoch == EPOCH
    assert entry.HasField("checkpoint") is (entry.status.code == 0)
    try:
        info = stat(stub, ROOM.text)
    except grpc.RpcError as error:
        refusal = refusal_of(error)
        return [(refusal.code, refusal.reason), _told(entry.status)]
    for each in (info, entry.checkpoint):
        assert (each.size_bytes, each.writer_id, dict(each.metadata)) == (len(PAYLOAD), "node-1", {"map": "dust"})
    return [None, _told(entry.status)]


def told_of_snapshot(stub: Any) -> tuple[str, str] | None:
    """Return what the list says is wrong with the snapshot; None: nothing."""
    entry, other = hibernated(stub)
    assert (entry.room_id, other.room_id, other.status.code) == (ROOM.text, OTHER, 0)
    assert entry.HasField("snapshot") is (entry.status.code == 0)
    return _told(entry.status)


def _told(status: ItemStatus) -> tuple[str, str] | None:
    if not status.code:
        return None
    return _CODES[status.code], ErrorReason.Name(status.reason).removeprefix("ERROR_REASON_")
