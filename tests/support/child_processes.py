"""Processes that a test starts and that end by themselves, or by the test's hand."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import AnyStr


@contextmanager
def killed_on_failure(process: "subprocess.Popen[AnyStr]") -> Iterator["subprocess.Popen[AnyStr]"]:
    """Wait for the end of `process` at the end of the block. If the block raises it is killed, and nobody hangs."""
    with process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise
