"""Containers without a Docker engine: an image's file tree, entered as the image says, with one process and its log."""

import re
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from tests.support.file_trees import Entry
from tests.support.images import Image
from tests.support.waiting import wait_until

_START_SECONDS = 180
_STOP_SECONDS = 60
_HEALTH_SECONDS = 60


class Container:
    """A process in an image; `command` stands in for the image's own. A context manager that ends it."""

    def __init__(self, image: Image, entry: Entry, command: Sequence[str] = ()) -> None:
        self._image = image
        self._entry = entry
        with ExitStack() as undo:
            self._log = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="holdfast-container-"))) / "log"
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    image.tree.command(command or image.command, entry),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            self._undo = undo.pop_all()

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text(errors="replace")

    def wait_for_log(self, pattern: str) -> None:
        """Wait until its log has a match. Raises `RuntimeError` with the log if it ends before."""

        def said() -> bool:
            running = self._process.poll() is None
            if re.search(pattern, self.log):
                return True
            if not running:
                raise RuntimeError(f"the container has ended:\n{self.log}")
            return False

        wait_until(said, _START_SECONDS)

    def run(self, command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        """Run a command beside it: the same files, volumes, user and variables."""
        return self._image.tree.run(command, self._entry)

    def health(self) -> "subprocess.CompletedProcess[str]":
        """Run Holdfast's health check as its image says, but with more time than Docker would give it."""
        return self.run([*self._image.stage.health_command(), "--timeout", str(_HEALTH_SECONDS)])

    def process(self) -> psutil.Process:
        """Return its process 1."""
        # Two `unshare` stand before it, one for each namespace.
        return psutil.Process(self._process.pid).children()[0].children()[0]

    def stop(self) -> int:
        """Stop it as Docker does, by the signal that the image names, and return its exit code."""
        self.process().send_signal(signal.Signals[self._image.stage.last("STOPSIGNAL").text])
        return self._process.wait(_STOP_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill it, if it is still there: what started it takes process 1 and with it the others along."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(_STOP_SECONDS)
        self._undo.close()
