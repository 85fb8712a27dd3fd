"""A file system of a few MiB, mounted for a test in a namespace of its own: root's rights are not needed."""

import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self


class NoNamespace(Exception):
    """This machine gives no mount namespace; the message says what was missing."""


class SmallDisk:
    """A tmpfs over `directory`, seen by those who run under `wrapper` alone. `options` are mount's.

    A context manager; it is gone at the end of the block. Raises `NoNamespace`.
    """

    def __init__(self, directory: Path, options: str) -> None:
        self._directory = directory
        script = 'mount -t tmpfs -o "$1" tmpfs "$2" && echo mounted && exec cat'
        command = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", options, str(directory)]
        try:
            self._holder = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        except FileNotFoundError as error:
            raise NoNamespace("there is no command `unshare`") from error
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "mounted\n":
            _out, said = self._holder.communicate()
            raise NoNamespace(f"`unshare` and `mount` say: {said.strip()}")

    @property
    def wrapper(self) -> list[str]:
        """The command to run a server under, so that it sees the disk."""
        return ["nsenter", "--target", str(self._holder.pid), "--user", "--mount", "--preserve-credentials"]

    @property
    def seen_from_outside(self) -> Path:
        """The path of the disk for this process."""
        return Path(f"/proc/{self._holder.pid}/root{self._directory}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the namespace, and with it the disk."""
        self._holder.communicate()
