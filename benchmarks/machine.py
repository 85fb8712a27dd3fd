"""What the numbers were measured on, and what else ran there meanwhile."""

import os
import platform
import sys
import time

import google.protobuf
import grpc
import psutil

import holdfast_server

_QUIET_CORES = 0.15
"""Above it the neighbours are heard in the numbers."""


def facts() -> str:
    """Return one line that says what the numbers depend on."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    libc = " ".join(platform.libc_ver())
    busy = f"load {os.getloadavg()[0]:.2f} at start"
    return ", ".join(
        (
            f"holdfast {holdfast_server.__version__}",
            f"{cores} cores ({platform.machine()})",
            f"Python {platform.python_version()}",
            f"grpcio {grpc.__version__}",
            f"protobuf {google.protobuf.__version__}",
            libc or sys.platform,
            busy,
        )
    )


class Neighbours:
    """How busy other programs keep the machine from here on: what they take, the measured servers cannot have."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._busy = _busy_seconds()
        self._own = _own_seconds()

    def told(self) -> str:
        """Return a sentence about it. To be asked when all processes of ours have ended: until then they are others."""
        others = (_busy_seconds() - self._busy) - (_own_seconds() - self._own)
        cores = max(others, 0.0) / (time.monotonic() - self._begun)
        warning = " (a noisy run: trust CPU seconds before rates)" if cores > _QUIET_CORES else ""
        return f"other programs kept {cores:.2f} of {psutil.cpu_count()} cores busy meanwhile{warning}"


def _busy_seconds() -> float:
    """Return the seconds that all cores together have been busy; those of a host that took them away included."""
    times = psutil.cpu_times()
    return float(sum(getattr(times, name, 0.0) for name in ("user", "system", "nice", "irq", "softirq", "steal")))


def _own_seconds() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    return sum(os.times()[:4])
