"""Where the tombstone of a deleted room lies, written once more without the code under test."""

GAP = 1_000_000
"""Between the highest epoch that was deleted and the tombstone."""


def tombstone_of(highest: int) -> int:
    """Return the epoch of the tombstone of a room whose highest epoch that was."""
    return highest + GAP


def anew_after(highest: int) -> int:
    """Return the first epoch at which such a room can be begun anew."""
    return tombstone_of(highest) + 1
