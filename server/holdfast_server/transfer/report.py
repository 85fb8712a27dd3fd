"""What a transfer says: failures on stderr as they happen, and a summary on stdout at the end."""

import json
import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from holdfast_server.transfer.outcome import Done, Note, Outcome, printable

_OTHERS = {
    Outcome.PRESENT: "there already",
    Outcome.KEPT: "left alone, since Holdfast has sealed what is there: --replace-sealed replaces it",
    Outcome.GONE: "deleted since they were listed",
    Outcome.SKIPPED: "skipped",
    Outcome.FAILED: "FAILED",
}
_NOTED = {
    Note.OPAQUE_NAME: "with a name that is no sha256, taken as they are",
    Note.ATTRIBUTES_LOST: "with a content type or metadata, which have no place there",
}
_STDOUT, _STDERR = 1, 2

Say = Callable[[str], None]


class Report:
    """Counts what became of the objects. `say_error` writes a line where errors belong."""

    def __init__(self, *, as_json: bool, dry_run: bool, say_error: Say) -> None:
        self._as_json = as_json
        self._dry_run = dry_run
        self._say_error = say_error
        self._counts: Counter[Outcome] = Counter()
        self._notes: Counter[Note] = Counter()
        self._bytes = 0

    @property
    def objects(self) -> int:
        """How many objects there were so far."""
        return self._counts.total()

    @property
    def has_failures(self) -> bool:
        """Whether any object failed."""
        return bool(self._counts[Outcome.FAILED])

    def tell(self, done: Done) -> None:
        """Count an object, and say what became of it where somebody has to know."""
        self._counts[done.outcome] += 1
        self._notes.update(done.notes)
        if done.outcome in (Outcome.COPIED, Outcome.REPLACED):
            self._bytes += done.size_bytes
            if self._dry_run and not self._as_json:
                verb = "copy" if done.outcome is Outcome.COPIED else "replace"
                say(f"would {verb} {printable(done.name)} ({_counted(done.size_bytes, 'byte')})")
        elif done.why:
            self._say_error(f"{done.outcome}: {printable(done.name)}: {printable(done.why)}")

    def summarize(self, stopped: str = "") -> None:
        """Write the summary. `stopped`: why not all was done."""
        replaced = self._counts[Outcome.REPLACED]
        copied = self._counts[Outcome.COPIED] + replaced
        if self._as_json:
            counts = {str(outcome): self._counts[outcome] for outcome in _OTHERS}
            notes = {str(note): self._notes[note] for note in Note}
            whole = {"dry_run": self._dry_run, "finished": not stopped, "stopped": stopped}
            say(json.dumps({"copied": copied, "replaced": replaced, "bytes": self._bytes, **counts, **notes, **whole}))
            return
        verb = "would be copied" if self._dry_run else "copied"
        say(f"{_counted(copied, 'object')} {verb}, {_counted(self._bytes, 'byte')}")
        if replaced:
            say(f"{replaced} of them in place of something else")
        for outcome, text in _OTHERS.items():
            if self._counts[outcome]:
                say(f"{self._counts[outcome]} {text}")
        for note, text in _NOTED.items():
            if self._notes[note]:
                say(f"{self._notes[note]} {text}")
        if stopped:
            say(f"not finished: {printable(stopped)}; the same command goes on from here")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def say(line: str) -> None:
    """Write a line on stdout; that its reader has gone is no error. Raises `OSError` for a full disk and the like."""
    with suppress(BrokenPipeError):
        _write(_STDOUT, line)


def say_error(line: str) -> None:
    """Write a line on stderr. That it cannot be written ends no copy: failures are counted, too."""
    with suppress(OSError):
        _write(_STDERR, line)


def _write(fd: int, line: str) -> None:
    # Not through Python's streams: what is held back in one whose reader has gone would be complained of at exit.
    left = f"{line}\n".encode(errors="backslashreplace")
    while left:
        left = left[os.write(fd, left) :]
