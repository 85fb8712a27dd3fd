"""The file with the sealing keys: who may see it, and how it is read, replaced and made.

It lies outside the bucket, so that who can write there can forge nothing. What it holds is in `key_document.py`.
"""

import fcntl
import logging
import os
import re
import stat
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from holdfast_server.checkpoints.key_document import parsed, written
from holdfast_server.checkpoints.key_ring import KeyRing, KeyRingError, KeyState
from holdfast_server.errors import SealKeyUnavailable
from holdfast_server.objects.filesystem.disk import sync_directory

_log = logging.getLogger(__name__)

FILE_NAME = "keys.json"
"""What it is called in a data directory."""

UNFINISHED = re.compile(re.escape(FILE_NAME) + r"\.[0-9a-f]{32}")
"""What is left of it there by a process that was killed while it wrote."""

_MAX_FILE_BYTES = 1 << 20
"""Far above thousands of keys: what is longer is some other file."""

_LOOK_SECONDS = 1.0
_ROOT = 0
_NONE_OF_OTHERS = stat.S_IRWXO | stat.S_IWGRP | stat.S_IXGRP


class KeyRingMissing(KeyRingError):
    """There is no such file."""


def read(path: Path) -> KeyRing:
    """Return the ring in a file. Links are followed: so Kubernetes mounts secrets.

    Raises `KeyRingError`; `KeyRingMissing` if there is no file.
    """
    return _read(path)[0]


_State = tuple[int, ...]
"""What differs when a file is another one, or has another content or other permissions."""


def _state(status: os.stat_result) -> _State:
    # With the times of both, since a permission that is mended changes the ctime alone.
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _read(path: Path) -> tuple[KeyRing, _State]:
    try:
        # Opened once, so that what is read is what was checked. A pipe must not make us wait for its writer.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(fd)
            if fault := _fault(status, os.geteuid()):
                raise KeyRingError(f"key ring {path} is refused: {fault}")
            with os.fdopen(fd, "rb", closefd=False) as file:
                document = file.read(_MAX_FILE_BYTES + 1)
        finally:
            os.close(fd)
    except FileNotFoundError:
        raise KeyRingMissing(f"key ring {path} does not exist") from None
    except OSError as error:
        raise KeyRingError(f"key ring {path} cannot be read: {error.strerror}") from None
    if len(document) > _MAX_FILE_BYTES:
        raise KeyRingError(f"key ring {path} is refused: it has more than {_MAX_FILE_BYTES} bytes")
    try:
        return parsed(document), _state(status)
    except KeyRingError as error:
        raise KeyRingError(f"key ring {path}: {error}") from None


def _fault(status: os.stat_result, user: int) -> str:
    """Return what is wrong with a file's kind, owner or mode; empty: nothing.

    PostgreSQL's rule for the server's private key (its manual, "Secure TCP/IP Connections with SSL"): the file
    disallows any access to group and others; or it is owned by root and the group may read it, for installations where
    the operating system manages such files.
    """
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode):
        return "it is no regular file"
    if status.st_uid not in {user, _ROOT}:
        return f"it is owned by the user {status.st_uid}, neither by the one who reads it ({user}) nor by root"
    if mode & _NONE_OF_OTHERS:
        return f"its mode is {mode:04o}; only its owner may write it, and others may not read it: chmod 600"
    if mode & stat.S_IRGRP and status.st_uid != _ROOT:
        return f"its mode is {mode:04o}; its group may read it only if it is owned by root: chmod 600"
    return ""


def write(path: Path, ring: KeyRing) -> None:
    """Put a ring in the place of a file, whole or not at all. If `path` is a link, the file that it names is replaced.

    Raises `KeyRingError`.
    """
    try:
        path = path.resolve()
        with _temporary(path, ring) as temporary:
            temporary.replace(path)
            sync_directory(path.parent)
    except (OSError, RuntimeError) as error:  # the latter for links that go round
        raise _not_written(path, error) from None


def create(path: Path, ring: KeyRing) -> bool:
    """Make the file, and tell whether that was us: if there is one, or another process was quicker, it stays.

    Raises `KeyRingError`.
    """
    try:
        with _temporary(path, ring) as temporary:
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            finally:
                sync_directory(path.parent)  # also for one who made it and died before that
    except OSError as error:
        raise _not_written(path, error) from None
    return True


def make_if_missing(path: Path) -> None:
    """Make a file with a fresh ring if there is none, and say so in the log. Raises `KeyRingError`."""
    if not os.path.lexists(path) and create(path, KeyRing.fresh()):
        advice = "back it up, apart from the data: without it no checkpoint can be read"
        _log.warning("A new sealing key ring was made", extra={"fields": {"path": str(path), "advice": advice}})


def change(path: Path, how: Callable[[KeyRing], KeyRing]) -> tuple[KeyRing, KeyRing]:
    """Change the ring in a file, one process at a time, and return what was there and what is.

    Raises `KeyRingError`; `KeyRingMissing` if there is no file.
    """
    with _locked(path):
        before = read(path)
        after = how(before)
        if after != before:
            write(path, after)
    return before, after


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let others who change the file wait. Raises `KeyRingError`.

    The lock is on the directory: a file that is replaced can hold none, and another one beside it would stay.
    """
    with ExitStack() as stack:
        try:
            directory = os.open(path.resolve().parent, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, directory)
            fcntl.flock(directory, fcntl.LOCK_EX)
        except FileNotFoundError:
            raise KeyRingMissing(f"key ring {path} does not exist") from None
        except (OSError, RuntimeError) as error:
            raise _not_written(path, error) from None
        yield


def _not_written(path: Path, error: Exception) -> KeyRingError:
    reason = error.strerror if isinstance(error, OSError) else "its links go round"
    return KeyRingError(f"key ring {path} cannot be written: {reason}")


@contextmanager
def _temporary(path: Path, ring: KeyRing) -> Iterator[Path]:
    """Write a ring to a file beside another one, safe from a loss of power. It is gone after the block."""
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            _keep_group(path, file.fileno())
            file.write(written(ring))
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _keep_group(path: Path, fd: int) -> None:
    """Where root replaces a file of root's that a group may read, let that group read the new one: it is the server."""
    with suppress(FileNotFoundError):
        status = path.stat()
        if os.geteuid() == status.st_uid == _ROOT and status.st_mode & stat.S_IRGRP:
            os.fchown(fd, -1, status.st_gid)
            os.fchmod(fd, 0o640)


class RingFile:
    """The `Keys` in a file. A change of the file is in force about a second later: a rotation needs no restart.

    A change that cannot be used leaves the ring in force that was there before, and the log has one error for it.
    `monotonic` is the clock, in seconds.
    """

    def __init__(self, path: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._ring: KeyRing | None = None
        self._read_state: _State | None = None  # None also after what could not be read: that is tried again
        self._told: tuple[_State | None, str] | None = None
        self._next_look = monotonic()
        self._look()

    @property
    def ring(self) -> KeyRing:
        """The ring in force. Raises `SealKeyUnavailable` if no content of the file could be used yet."""
        self._look()
        if self._ring is None:
            raise _unusable()
        return self._ring

    @property
    def problem(self) -> SealKeyUnavailable | None:
        """Why there is no ring; None if there is one. It goes when the file is mended."""
        self._look()
        return None if self._ring else _unusable()

    def _look(self) -> None:
        """Read the file again if it is time, and it is another one. Who comes while another looks, does not wait."""
        if self._monotonic() < self._next_look or not self._lock.acquire(blocking=False):
            return
        try:
            if self._monotonic() >= self._next_look:  # else another has looked meanwhile
                self._read_if_changed()
                self._next_look = self._monotonic() + _LOOK_SECONDS
        finally:
            self._lock.release()

    def _read_if_changed(self) -> None:
        on_disk = None
        with suppress(OSError):
            on_disk = _state(self._path.stat())
        if on_disk is not None and on_disk == self._read_state:
            return
        try:
            self._ring, self._read_state = _read(self._path)
        except KeyRingError as error:
            self._read_state = None
            if self._told != (on_disk, str(error)):
                self._told = on_disk, str(error)
                in_force = "none" if self._ring is None else "the one that was read before"
                fields = {"path": str(self._path), "error": str(error), "in_force": in_force}
                _log.error("The sealing key ring cannot be used", extra={"fields": fields})
            return
        self._told = None
        ids = {state.value: ",".join(k.id.hex() for k in self._ring.keys if k.state is state) for state in KeyState}
        _log.info("Sealing key ring read", extra={"fields": {"path": str(self._path), **ids}})


def _unusable() -> SealKeyUnavailable:
    return SealKeyUnavailable("the server's key ring cannot be used; its log says why")
