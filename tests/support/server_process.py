"""A real server process: started on free ports, told where it listens by its own log, and stopped with the test."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_START_SECONDS = 60
_READY = r"Server ready .*grpc=(\S+) http=(\S+)"


class ServerProcess:
    """`holdfast-server serve` as a process. `args` are further flags, `env` further variables.

    `wrapper` is a command to run it under, `ready` the log line that tells its addresses. Raises `RuntimeError` with
    the log if it does not become ready.
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        wrapper: Sequence[str] = (),
        listen: str = "127.0.0.1:0",
        ready: str = _READY,
    ) -> None:
        command = [
            *wrapper,
            sys.executable,
            "-m",
            "holdfast_server",
            "serve",
            "--listen",
            listen,
            "--http",
            "127.0.0.1:0",
        ]
        if data_dir is not None:
            command += ["--data-dir", str(data_dir)]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
        self._process = subprocess.Popen(
            [*command, *args],
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env={**inherited, **(env or {})},
        )
        self.log: list[str] = []
        """The lines of its log so far."""
        self._changed = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        found = self.wait_for_log(ready)
        if found is None:
            self.kill()
            raise RuntimeError("the server did not start:\n" + "".join(self.log))
        self.address, self.http = found.groups()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def wait_for_log(self, pattern: "re.Pattern[str] | str", seconds: float = _START_SECONDS) -> "re.Match[str] | None":
        """Wait until a line of the log matches, and return the match; None if that never comes."""
        compiled = re.compile(pattern)
        seen = 0
        with self._changed:
            while True:
                for line in self.log[seen:]:
                    if match := compiled.search(line):
                        return match
                seen = len(self.log)
                if self._ended or not self._changed.wait(seconds):
                    return None

    def signal(self, number: int) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it at once, and wait until it is gone."""
        self._process.kill()
        self.wait()

    def stop(self) -> int:
        """Ask it to stop, and return its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self, seconds: float = _START_SECONDS) -> int:
        """Wait until it is gone, and return its exit code."""
        code = self._process.wait(seconds)
        self._reader.join()
        if self._process.stderr is not None:
            self._process.stderr.close()
        return code

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it, if it has not been."""
        if self.is_running:
            self._process.terminate()
            try:
                self.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()
        elif self._process.stderr is not None and not self._process.stderr.closed:
            self.wait()

    def _read(self) -> None:
        stream = self._process.stderr
        for line in stream or ():
            with self._changed:
                self.log.append(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()
