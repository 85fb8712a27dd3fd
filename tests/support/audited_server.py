"""A server process that notes which directories it reads, by whatever means.

As a program: `audited_server.py REPORT PYTHON -m MODULE ARGUMENT...` runs the module in this interpreter, and writes
the path of each directory that was read to REPORT at its end.
"""

import os
import runpy
import sys
from pathlib import Path
from typing import Any

_READINGS = ("os.listdir", "os.scandir")
"""What Python itself tells of every such reading; the names are those of its table of audit events."""


def audited(report: Path) -> list[str]:
    """Return the command to run a server under that writes down which directories it has read."""
    return [sys.executable, __file__, str(report)]


def _main() -> None:
    report, _python, _dash_m, module, *arguments = sys.argv[1:]
    noted: list[str] = []

    def note(event: str, args: tuple[Any, ...]) -> None:
        if event in _READINGS:
            (read,) = args
            noted.append(
                str(Path(f"/proc/self/fd/{read}").readlink()) if isinstance(read, int) else os.fspath(read or ".")
            )

    sys.argv = [module, *arguments]
    sys.addaudithook(note)  # it cannot be taken away again, so this is a process of its own
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        Path(report).write_text("".join(f"{line}\n" for line in noted))


if __name__ == "__main__":
    _main()
