"""Where a key stands in a list: itself, rolled up into a common prefix, or passed over.

The rules of `ListQuery`, once, for every backend that can seek to a position in byte order.
"""

from typing import Final

from holdfast_server.objects.base import CommonPrefix, Entry, ListQuery

_AFTER_SLASH = "0"
"""The character after `/`: `a0` is the first position behind everything that starts with `a/`."""


def past(prefix: str) -> str:
    """Return the first position behind all keys that start with `prefix`, which ends in `/`."""
    return prefix[:-1] + _AFTER_SLASH


def first_position(query: ListQuery) -> str:
    """Return the first position that can hold something for the query."""
    if not query.after:
        return query.prefix
    behind = past(query.after) if query.after.endswith("/") else query.after + "\0"
    return max(behind, query.prefix)


def common_prefix(query: ListQuery, name: str) -> str:
    """Return the common prefix that a key or position of this name is rolled up into; empty: none."""
    slash = name.find("/", len(query.prefix)) if query.delimiter and name.startswith(query.prefix) else -1
    return name[: slash + 1]


class Roller:
    """Places keys that come in byte order from the query's first position on."""

    END: Final = "\U0010ffff\U0010ffff"
    """A position behind every key."""

    def __init__(self, query: ListQuery) -> None:
        self._query = query

    def place(self, key: str) -> tuple[Entry | CommonPrefix | None, str]:
        """Return what the key is in the list (None: not in it), and the first position that can hold something else.

        An `Entry` comes without its record. At the end of the list the position is `END`.
        """
        query = self._query
        if not key.startswith(query.prefix):
            return None, self.END
        for skipped in query.skip:
            if key.startswith(skipped):
                return None, past(skipped)
        if common := common_prefix(query, key):
            return CommonPrefix(common), past(common)
        return Entry(key, None), key + "\0"
