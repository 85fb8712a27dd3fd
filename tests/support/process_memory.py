"""How much memory a process takes."""

import threading
from typing import Self

import psutil

_LOOK_SECONDS = 0.01


class Memory:
    """The memory of a process, looked at all the time within the block."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._before = self._most = self._now()

    @property
    def grown_bytes(self) -> int:
        """How much more it was than at the beginning, at the most."""
        return self._most - self._before

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _now(self) -> int:
        return int(self._process.memory_info().rss)

    def _look(self) -> None:
        while not self._ended.wait(_LOOK_SECONDS):
            self._most = max(self._most, self._now())
