"""docs/operations.md on backup and on taking over is run: its commands as printed, in order, do what it shows."""

import hashlib
import sys
from pathlib import Path

from tests.support.documents import blocks, run, steps
from tests.support.transfers import environment, fill, flatfs_path, write_flatfs, write_tree

ROOT = Path(__file__).parents[2]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
WASM = f"artifacts/{hashlib.sha256(b'wasm').hexdigest()}.wasm"
SHELLCADE = {
    WASM: b"wasm",
    "snapshots/ada/maze-1/latest": b"7",
    "snapshots/ada/maze-1/00000000000000000007": b"sealed",
    ".tmp-12": b"",
}


def test_its_commands_do_what_they_show(tmp_path: Path) -> None:
    maps = {f"maps/{number:03}": b"map %d" % number * 1000 for number in range(40)}
    fill(tmp_path / "data", {**maps, "worlds/one": b"w" * 1_000_000})
    piri = write_flatfs(tmp_path / "piri", b"hello world", b"another blob", b"", *(b"blob %d" % n for n in range(20)))
    write_tree(piri, {"notes.txt": b"x", "uu/quux.data": b"opaque", flatfs_path(b"another blob"): b"another bloc"})
    write_tree(tmp_path / "shellcade-blobs", SHELLCADE)
    env = environment()
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    ran = 0
    sections = OPERATIONS[OPERATIONS.index("## Backup and restore") : OPERATIONS.index("## Taking over from shellcade")]
    for block in blocks(sections, "console"):
        for step in steps(block):
            # What fails is named as it happens, in no order.
            assert sorted(run(step.command, tmp_path, env).splitlines()) == sorted(step.output.splitlines())
            ran += 1
    assert ran == 7
