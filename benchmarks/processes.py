"""Server processes, ours and the ceiling: started on free loopback ports, watched from outside, and ended."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.02
_READY = re.compile(r"Server ready .*grpc=(\S+)")
_PASSED_ON = ("HOLDFAST_ALLOCATOR__", "HOLDFAST_RPC__")
"""Variables that both servers get, so that a setting can be tried; all other settings are the defaults."""

_REPOSITORY = Path(__file__).parents[1]


class Cpu:
    """The CPU time of a process."""

    def __init__(self, pid: int) -> None:
        # What clock_getcpuclockid(3) of Linux returns, from the kernel's posix-timers.h: CPUCLOCK_SCHED, per process.
        # It tells nanoseconds where /proc counts ticks of 10 ms.
        self._clock = (~pid << 3) | 2

    def cpu_seconds(self) -> float:
        """Return the CPU seconds, of user and system, that it has used so far."""
        return time.clock_gettime(self._clock)


class ServerProcess:
    """A server as a process. It logs to `log`, a file, as one under a supervisor does; `settings` are variables.

    Raises `RuntimeError` with the log if it does not become ready.
    """

    def __init__(self, command: list[str], log: Path, settings: Mapping[str, str] | None = None) -> None:
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("HOLDFAST_") or name.startswith(_PASSED_ON)
        }
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=_REPOSITORY,
                env=environment | dict(settings or {}),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
        self._cpu = Cpu(self._process.pid)
        self._memory = psutil.Process(self._process.pid)
        try:
            self.address = self._wait_until_ready(log)
        except BaseException:
            self.stop()
            raise

    def cpu_seconds(self) -> float:
        """Return the CPU seconds, of user and system, that it has used so far."""
        return self._cpu.cpu_seconds()

    def resident_bytes(self) -> int:
        """Return how much of it is in memory now."""
        return int(self._memory.memory_info().rss)

    def peak_bytes(self) -> int:
        """Return the most of it that has been in memory at once."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024  # which it calls kB

    def stop(self) -> None:
        """End it, and wait until it is gone."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait_until_ready(self, log: Path) -> str:
        end = time.monotonic() + _START_SECONDS
        while self._process.poll() is None and time.monotonic() < end:
            if ready := _READY.search(log.read_text()):
                return ready[1]
            time.sleep(_POLL_SECONDS)
        raise RuntimeError("a server did not start:\n" + log.read_text())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def ceiling(directory: Path) -> ServerProcess:
    """Start the bare server; its log is in `directory`."""
    return ServerProcess(["benchmarks.ceiling"], directory / "ceiling.log")


def memory_server(directory: Path, settings: Mapping[str, str] | None = None) -> ServerProcess:
    """Start our server on the memory backend; its log is in `directory`, `settings` are variables."""
    return ServerProcess(_holdfast(), directory / "memory.log", settings)


def filesystem_server(directory: Path, data: Path | None = None) -> ServerProcess:
    """Start our server on files below `data`, else below `directory`, where its log is, too."""
    data = data or directory / "data"
    return ServerProcess([*_holdfast(), "--data-dir", str(data)], directory / f"{data.name}.log")


def s3_server(directory: Path, settings: Mapping[str, str]) -> ServerProcess:
    """Start our server on the bucket that the settings name; its log and its spool are in `directory`."""
    spool = {"HOLDFAST_SPOOL_DIR": str(directory / "spool")}
    return ServerProcess(_holdfast(), directory / "s3.log", {**settings, **spool})


def relay(directory: Path, settings: Mapping[str, str]) -> ServerProcess:
    """Start the server that hands on what is in the bucket that the settings name; its log is in `directory`."""
    return ServerProcess(["benchmarks.s3.relay"], directory / "relay.log", settings)


def _holdfast() -> list[str]:
    return ["holdfast_server", "serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
