"""Watching the epochs of rooms: taken up again where the connection breaks, and never going back."""

from collections.abc import Callable, Iterable, Iterator

from holdfast.calls import Calls, checked
from holdfast.checkpoint_results import Watched, watched
from holdfast.errors import Cancelled, InternalError
from holdfast.incoming import Call
from holdfast.retrying import MAX_BACKOFF_SECONDS, PASSING, Tries
from holdfast.v1 import checkpoint_store_pb2 as pb


def watch(
    calls: Calls,
    method: Callable[[pb.WatchCheckpointsRequest], Call[pb.WatchCheckpointsResponse]],
    room_ids: Iterable[str],
) -> Iterator[Watched]:
    """Yield what is new of rooms, without end. Raises what ends the stream once the tries are used up."""
    if isinstance(room_ids, str):
        raise TypeError("room_ids is a str: give several room ids, such as [room_id]")
    with checked():
        request = pb.WatchCheckpointsRequest(room_ids=room_ids)
    return _events(calls, method, request)


def _events(
    calls: Calls,
    method: Callable[[pb.WatchCheckpointsRequest], Call[pb.WatchCheckpointsResponse]],
    request: pb.WatchCheckpointsRequest,
) -> Iterator[Watched]:
    news = _News()
    tries: Tries | None = None
    cancelled: Cancelled | None = None
    while True:
        began = calls.retrier.clock()
        try:
            call = method(request)
        except ValueError as error:
            if cancelled is None:
                raise
            raise cancelled from error  # the channel is closed: that has ended the call, not the server
        try:
            with calls.translated():
                for message in call:
                    if news.is_new(event := watched(message)):
                        tries = None
                        yield event
        except (*PASSING, Cancelled) as error:  # nobody here cancels a call while its news are awaited: it had stalled
            cancelled = error if isinstance(error, Cancelled) else None
            # However long the rooms were quiet: what counts is the time without a connection.
            if tries is None or calls.retrier.clock() - began > MAX_BACKOFF_SECONDS:
                tries = calls.retrier.begin()
            tries.pause_after(error)
        else:
            raise InternalError("INTERNAL", f"{calls.address} ended a watch without an error")
        finally:
            call.cancel()


class _News:
    """What was told of each room: a new connection begins with what is known already."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[int | None, str]] = {}
        self._highest: dict[str, int] = {}

    def is_new(self, event: Watched) -> bool:
        """Whether to tell it, and note that it was told. A lower epoch than before is none that the room still has."""
        told = event.epoch, event.error.reason if event.error else ""
        last = self._last.get(event.room_id)
        if last == told:
            return False
        highest = self._highest.get(event.room_id, -1)
        if event.epoch is not None:
            # After a failure the epoch that was told before is told once more: it is good again.
            if event.epoch < highest or (event.epoch == highest and not (last and last[1])):
                return False
            self._highest[event.room_id] = event.epoch
        elif event.error is None:
            self._highest.pop(event.room_id, None)  # the room is begun anew, wherever that is
        self._last[event.room_id] = told
        return True
