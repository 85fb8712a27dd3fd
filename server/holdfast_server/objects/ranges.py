"""Which bytes of an object a reader wants, and which it gets."""

from dataclasses import dataclass

from holdfast_server.errors import InvalidArgument, RangeNotSatisfiable, Reason


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of bytes that exists: `offset` from 0, `length` >= 0, both in bytes."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Whole:
    """All bytes."""

    def of(self, size_bytes: int) -> Extent:
        """Return all of an object."""
        return Extent(0, size_bytes)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """`length` bytes from `offset`, or to the end where `length` is None.

    Past the end is clamped, or refused if `exact`. An offset at or past the end is refused, but 0 of an empty object is
    answered. Raises `InvalidArgument` (INVALID_RANGE) for an offset < 0 or a length <= 0.
    """

    offset: int = 0
    length: int | None = None
    exact: bool = False

    def __post_init__(self) -> None:
        """Check the rules that hold for every object."""
        if self.offset < 0:
            raise InvalidArgument(Reason.INVALID_RANGE, "offset", f"offset {self.offset} is negative")
        if self.length is not None and self.length <= 0:
            raise InvalidArgument(Reason.INVALID_RANGE, "length", f"length {self.length} is not above 0")

    def of(self, size_bytes: int) -> Extent:
        """Return the bytes meant in an object of this size, or raise `RangeNotSatisfiable`."""
        left = size_bytes - self.offset
        if left <= 0 and not (self.offset == 0 and (self.length is None or not self.exact)):
            message = f"offset {self.offset} is not inside the object of {size_bytes} bytes"
            raise RangeNotSatisfiable(message, size_bytes)
        if self.length is None or (self.length > left and not self.exact):
            return Extent(self.offset, left)
        if self.length > left:
            message = f"bytes {self.offset} to {self.offset + self.length} end past the object of {size_bytes} bytes"
            raise RangeNotSatisfiable(message, size_bytes)
        return Extent(self.offset, self.length)


@dataclass(frozen=True, slots=True)
class Suffix:
    """The last `length` bytes; more than there are is clamped, or refused if `exact`.

    Raises `InvalidArgument` (INVALID_RANGE) for a length <= 0.
    """

    length: int
    exact: bool = False

    def __post_init__(self) -> None:
        """Check the rule that holds for every object."""
        if self.length <= 0:
            raise InvalidArgument(Reason.INVALID_RANGE, "suffix_length", f"suffix_length {self.length} is not above 0")

    def of(self, size_bytes: int) -> Extent:
        """Return the bytes meant in an object of this size, or raise `RangeNotSatisfiable`."""
        if self.exact and self.length > size_bytes:
            message = f"the last {self.length} bytes are more than the object of {size_bytes} bytes has"
            raise RangeNotSatisfiable(message, size_bytes)
        length = min(self.length, size_bytes)
        return Extent(size_bytes - length, length)


MAX_TAIL_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Tail:
    """The last `length` bytes as they are stored, unverified; more than there are is clamped.

    For what carries a cryptographic check of its own at its end: nothing else is read, where a `Suffix` costs the
    whole pieces of 1 MiB that it touches. Raises `ValueError` unless the length is from 1 to `MAX_TAIL_BYTES`.
    """

    length: int

    def __post_init__(self) -> None:
        """Check the rule that holds for every object."""
        if not 0 < self.length <= MAX_TAIL_BYTES:
            raise ValueError(f"length {self.length} is not from 1 to {MAX_TAIL_BYTES}")

    def of(self, size_bytes: int) -> Extent:
        """Return the bytes meant in an object of this size."""
        length = min(self.length, size_bytes)
        return Extent(size_bytes - length, length)


Range = Whole | ByteRange | Suffix | Tail
