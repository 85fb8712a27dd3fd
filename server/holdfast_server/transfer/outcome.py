"""What became of one object."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """What became of one object; the texts are the names in the JSON summary."""

    COPIED = "copied"
    REPLACED = "replaced"
    """Copied, in place of another one."""
    PRESENT = "present"
    """It was there already."""
    KEPT = "kept"
    """Another one is there, which Holdfast has sealed, and stays."""
    SKIPPED = "skipped"
    """It does not belong to what is copied."""
    GONE = "gone"
    """It was deleted after it was listed."""
    FAILED = "failed"


class Note(StrEnum):
    """What is counted besides; the texts are the names in the JSON summary."""

    OPAQUE_NAME = "opaque_names"
    """Its name is not the digest of its bytes, so that nothing says what they must be."""
    ATTRIBUTES_LOST = "attributes_lost"
    """It had a content type or metadata, which have no place where it went."""


@dataclass(frozen=True, slots=True)
class Done:
    """What became of the object called `name`. `why` is for those that were skipped or failed."""

    name: str
    outcome: Outcome
    size_bytes: int = 0
    why: str = ""
    notes: tuple[Note, ...] = ()


Task = Callable[[], Done]

Moved = Callable[[int], None]
"""Is told of bytes as they are read."""


def nobody(_size: int) -> None:
    """Be told, and do nothing."""


def printable(name: str) -> str:
    """Return a name for a terminal: what moves its cursor, or cannot be seen, is escaped.

    So is what was no UTF-8 in a file name: lone surrogates, as `os.fsdecode` makes them.
    """
    return "".join(char if char.isprintable() else _escaped(char) for char in name)


def _escaped(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # noqa: PLR2004 (PEP 383)
        return f"\\x{code - 0xDC00:02x}"
    return char.encode("unicode_escape").decode()
