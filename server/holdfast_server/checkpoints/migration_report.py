"""What a migration says: failures on stderr as they happen, and a summary on stdout at the end."""

import json
from collections import Counter
from enum import StrEnum

from holdfast_server.checkpoints.names import SNAPSHOTS, room_in
from holdfast_server.transfer.outcome import Done, Outcome, printable
from holdfast_server.transfer.report import Say, say


class Kind(StrEnum):
    """What was rewritten; the texts are the names in the JSON summary."""

    CHECKPOINT = "checkpoints"
    POINTER = "pointers"
    SNAPSHOT = "snapshots"


_SINGULAR = {Kind.CHECKPOINT: "checkpoint", Kind.POINTER: "pointer", Kind.SNAPSHOT: "snapshot"}
_COUNTED = {
    Outcome.REPLACED: "rewritten",
    Outcome.PRESENT: "new already",
    Outcome.GONE: "gone",
    Outcome.FAILED: "failed",
}


class MigrationReport:
    """Counts what became of the objects. `say_error` writes a line where errors belong."""

    def __init__(self, *, as_json: bool, dry_run: bool, say_error: Say) -> None:
        self._as_json = as_json
        self._dry_run = dry_run
        self._say_error = say_error
        self._counts: Counter[tuple[Kind, Outcome]] = Counter()
        self._failures: list[dict[str, object]] = []
        self._bytes = 0

    @property
    def objects(self) -> int:
        """How many objects there were so far."""
        return self._counts.total()

    @property
    def has_failures(self) -> bool:
        """Whether any object failed."""
        return bool(self._failures)

    def tell(self, done: Done) -> None:
        """Count an object, and say what became of it where somebody has to know."""
        kind, room, epoch = _read(done.name)
        self._counts[kind, done.outcome] += 1
        if done.outcome is Outcome.REPLACED:
            self._bytes += done.size_bytes
            if self._dry_run and not self._as_json:
                say(f"would rewrite {printable(done.name)}")
        elif done.outcome is Outcome.FAILED:
            self._failures.append(
                {"kind": _SINGULAR[kind], "room_id": room, "epoch": epoch, "key": done.name, "why": done.why}
            )
            self._say_error(f"failed: {printable(done.name)}: {printable(done.why)}")

    def summarize(self, stopped: str = "") -> None:
        """Write the summary. `stopped`: why not all was done."""
        if self._as_json:
            counts = {
                str(kind): {text.replace(" ", "_"): self._counts[kind, outcome] for outcome, text in _COUNTED.items()}
                for kind in Kind
            }
            whole = {"dry_run": self._dry_run, "finished": not stopped, "stopped": stopped}
            say(json.dumps({**counts, "bytes": self._bytes, "failures": self._failures, **whole}))
            return
        verb = "would be rewritten" if self._dry_run else "rewritten"
        say(f"{self._of(Outcome.REPLACED)} {verb}, {_counted(self._bytes, 'byte')}")
        for outcome, text in (
            (Outcome.PRESENT, "in the new form already"),
            (Outcome.GONE, "deleted since they were listed"),
            (Outcome.FAILED, "FAILED"),
        ):
            if any(self._counts[kind, outcome] for kind in Kind):
                say(f"{self._of(outcome)} {text}")
        if stopped:
            say(f"not finished: {printable(stopped)}; the same command goes on from here")

    def _of(self, outcome: Outcome) -> str:
        return ", ".join(_counted(self._counts[kind, outcome], _SINGULAR[kind]) for kind in Kind)


def _read(name: str) -> tuple[Kind, str, int | None]:
    """Return what lies under a name, of which room, and at which epoch."""
    found = room_in(name)
    if found is None:
        return Kind.SNAPSHOT, name.removeprefix(SNAPSHOTS), None
    room, is_epoch = found
    return (Kind.CHECKPOINT, room, int(name.rpartition("/")[2])) if is_epoch else (Kind.POINTER, room, None)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
