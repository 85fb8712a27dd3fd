"""Reading the payload of a checkpoint or a snapshot: its last bytes are handed out only if all of it is right."""

import hashlib
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from holdfast.calls import Calls
from holdfast.errors import ConcurrentModification, IntegrityFailed, NotFound, Overloaded, Unavailable
from holdfast.retrying import PASSING


class _Known(Protocol):
    """What is known of a payload."""

    @property
    def room_id(self) -> str: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def etag(self) -> str: ...
    @property
    def sha256(self) -> bytes | None: ...


K = TypeVar("K", bound=_Known)


class Chunks(Protocol):
    """A call that its chunks are to come from: an `Incoming`, of whatever."""

    def next_chunk(self) -> bytes | None: ...  # noqa: D102 (as there)
    def cancel(self) -> None: ...  # noqa: D102 (as there)


class PayloadReader(Iterator[bytes], Generic[K]):
    """The bytes of a payload as they come: chunks of at most 1 MiB, each verified by its CRC-32C.

    `info` is what is known of it. The last chunk is handed out only after size and SHA-256 of the whole were found to
    be those of `info`; so a loop over the chunks, or `read`, ends well only if the caller has all the bytes, and right
    ones. `is_complete` tells that. Where the connection breaks, it is read again from the start, the bytes that came
    before are passed over, and the whole is verified all the same: as often as the client retries without any new byte.
    As long as the caller has neither a byte nor looked at `info`, that is done as if it were opened anew, of what is
    there by then. To be closed, or used as a context manager. Not for several threads at once.

    Iterating raises `IntegrityFailed`, `ConcurrentModification` if it was replaced or deleted meanwhile and so cannot
    be read again (load again), `DeadlineExceeded` for a server that is silent for longer than the client's time-out,
    and other `HoldfastError`s, of a broken connection also those of opening; after that, and once closed, `ValueError`.
    """

    def __init__(self, calls: Calls, start: Callable[[K | None], tuple[K, Chunks]]) -> None:
        """`start(None)` begins a call, `start(info)` one for just the same once more; it tells what it is of."""
        self._calls = calls
        self._start = start
        self._stream: Chunks | None
        self._info, self._stream = calls.retrier.call(lambda _: start(None))
        self._is_known = False  # the caller has some of it, or knows which it is
        self._whole: list[bytes] = []
        """What `read` has by now."""
        self.is_complete = False
        self._is_closed = False
        self._taken = 0  # bytes, with those that are held back
        self._passing_over = 0
        self._sha256 = hashlib.sha256()
        self._held: bytes | None = None
        self._tries = calls.retrier.begin()
        self._tried_at = -1

    @property
    def info(self) -> K:
        """What is known of the payload."""
        self._is_known = True
        return self._info

    def read(self) -> bytes:
        """Return all bytes that are left. Raises what iterating raises."""
        while (chunk := self._advanced()) is not None:
            self._whole.append(chunk)
        whole, self._whole = self._whole, []
        return b"".join(whole)

    def close(self) -> None:
        """Cancel what is left. Closing twice is no error."""
        self._is_closed = True
        self._release()

    def __next__(self) -> bytes:
        if (chunk := self._advanced()) is None:
            raise StopIteration
        self._is_known = True
        return chunk

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _advanced(self) -> bytes | None:
        """Return the next bytes; None at the end."""
        if self._is_closed:
            raise ValueError("the reader is closed")
        try:
            return self._next_chunk()
        except BaseException:
            # Whoever goes on after an error must not take the silence for the end.
            self.close()
            raise

    def _next_chunk(self) -> bytes | None:
        while self._stream is not None:
            chunk = self._arrived(self._stream)
            held, self._held = self._held, chunk
            if chunk is None:
                self._check()
                self._release()
                self.is_complete = True
            if held is not None:
                return held
        return None

    def _arrived(self, stream: Chunks) -> bytes | None:
        """Return the next bytes that did not come before; None at the end."""
        while True:
            try:
                chunk = stream.next_chunk()
            except PASSING as error:
                if self._taken == self._info.size_bytes:
                    return None  # everything came but the status
                self._stream = stream = self._reopened(error)
                continue
            if chunk is None:
                return None
            over = min(self._passing_over, len(chunk))
            self._passing_over -= over
            if fresh := chunk[over:]:
                self._taken += len(fresh)
                if self._taken > self._info.size_bytes:
                    raise self._damage(f"more than its {self._info.size_bytes} bytes came")
                self._sha256.update(fresh)
                return fresh

    def _reopened(self, error: Unavailable | Overloaded) -> Chunks:
        if self._taken > self._tried_at:  # less: it was begun anew in between
            self._tries = self._calls.retrier.begin()
            self._tried_at = self._taken
        while True:
            self._tries.pause_after(error)
            try:
                found, stream = self._start(self._info if self._is_known else None)
            except PASSING as again:
                error = again
                continue
            except NotFound as gone:
                if not self._is_known:
                    raise
                raise self._lost("was deleted", "it is not there") from gone  # which a caller takes for a new room
            if not self._is_known:
                self._begin_anew(found)
            elif found.etag != self._info.etag:
                stream.cancel()
                raise self._lost("was replaced", f"now it is {found.etag!r}")
            self._passing_over = self._taken
            return stream

    def _begin_anew(self, found: K) -> None:
        self._info = found
        self._taken = 0
        self._sha256 = hashlib.sha256()
        self._held = None
        self._whole.clear()

    def _lost(self, what: str, now: str) -> ConcurrentModification:
        room_id = self._info.room_id
        message = (
            f"room {room_id!r}: what was read {what} meanwhile: load again. The connection broke after {self._taken} "
            f"of {self._info.size_bytes} bytes of etag {self._info.etag!r}, and {now}"
        )
        return ConcurrentModification("CONCURRENT_MODIFICATION", message, {"room_id": room_id})

    def _check(self) -> None:
        if self._taken < self._info.size_bytes:
            raise self._damage(f"only {self._taken} of {self._info.size_bytes} bytes came")
        if (found := self._sha256.digest()) != self._info.sha256:
            wanted = self._info.sha256.hex() if self._info.sha256 else "one that was told"
            raise self._damage(f"the bytes that came have sha256 {found.hex()}, not {wanted}")

    def _release(self) -> None:
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None

    def _damage(self, what: str) -> IntegrityFailed:
        room_id = self._info.room_id
        return IntegrityFailed("INTEGRITY_FAILED", f"room {room_id!r}: {what}", {"room_id": room_id})
