"""Says of what cannot be opened, for its key or its form, whose it is: that is no damage, and an operator can help."""

from collections.abc import Iterator
from contextlib import contextmanager

from holdfast_server.checkpoints.names import RoomId
from holdfast_server.errors import SealKeyUnavailable, SealTooNew


@contextmanager
def unreadable_named(what: str, room: RoomId, **known: str) -> Iterator[None]:
    """Begin the message of `SealKeyUnavailable` and `SealTooNew` with what it is about; the details have the room."""
    try:
        yield
    except (SealKeyUnavailable, SealTooNew) as error:
        if "room_id" not in error.details:
            error.message = f"{what}: {error.message}"
        error.details |= {"room_id": room.text, **known}
        raise
