"""The one rule for keys, the same on every backend."""

import re
from dataclasses import dataclass

from holdfast_server.errors import InvalidArgument, Reason

MAX_KEY_BYTES = 900
"""The longest key in bytes of UTF-8: below the 1,024 of S3, with room for a prefix of the bucket's owner."""

MAX_SEGMENT_BYTES = 200
"""The longest segment in bytes of UTF-8: file names end at 255 bytes, and backends append to them."""

_PLAIN = re.compile(r"(?:(?!\.{1,2}(?:/|\Z))[!-.0-~]{1,200}(?:/(?!\Z)|\Z))+\Z")
"""Visible ASCII that keeps all rules but that of the length: nearly every key, in a third of the time."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def _refuse(field: str, message: str) -> InvalidArgument:
    return InvalidArgument(Reason.INVALID_KEY, field, message)


def check_text(text: str, field: str) -> None:
    """Check what keys, prefixes and positions in a list have in common: length and characters.

    Raises `InvalidArgument` (INVALID_KEY) naming `field`.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise _refuse(field, f"{field} {text!r} is not valid Unicode: it has a lone surrogate") from None
    if size > MAX_KEY_BYTES:
        raise _refuse(field, f"{field} of {size} bytes is longer than {MAX_KEY_BYTES} bytes")
    if _CONTROL.search(text):
        raise _refuse(field, f"{field} {text!r} has a control character")


@dataclass(frozen=True, slots=True, order=True)
class ObjectKey:
    """The name of an object, valid by construction.

    UTF-8, 1 to 900 bytes, segments of 1 to 200 bytes joined by `/`; no control characters (C0, DEL, C1), no `.` or
    `..` segment, no leading, trailing or doubled `/`. Keys order by bytes, which for UTF-8 is the order of `str`.
    Raises `InvalidArgument` (INVALID_KEY).
    """

    text: str

    def __post_init__(self) -> None:
        """Check the rules."""
        text = self.text
        if len(text) <= MAX_KEY_BYTES and _PLAIN.match(text):
            return
        if not text:
            raise _refuse("key", "key is empty")
        check_text(text, "key")
        for segment in text.split("/"):
            if segment in ("", ".", ".."):
                what = f"a {segment!r} segment" if segment else "an empty segment (a leading, trailing or doubled '/')"
                raise _refuse("key", f"key {text!r} has {what}")
            if len(segment) * 4 > MAX_SEGMENT_BYTES and (size := len(segment.encode())) > MAX_SEGMENT_BYTES:
                raise _refuse("key", f"key {text!r} has a segment of {size} bytes, above {MAX_SEGMENT_BYTES}")

    def __str__(self) -> str:
        """Return the key as text."""
        return self.text

    @property
    def segments(self) -> list[str]:
        """The parts between the slashes."""
        return self.text.split("/")
