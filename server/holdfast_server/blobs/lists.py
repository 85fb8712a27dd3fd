"""A page of a list of blobs."""

from dataclasses import dataclass

from holdfast_server import page_token
from holdfast_server.blobs.address import RESERVED_PREFIXES
from holdfast_server.errors import InvalidArgument, Reason
from holdfast_server.objects.base import CommonPrefix, Entry, ListQuery, ObjectStore
from holdfast_server.objects.key import check_text
from holdfast_server.pages import PAGE_BYTES, checked_page_size

_ENTRY_BYTES = 80
"""About what an entry takes on the wire beside its key."""


@dataclass(frozen=True, slots=True)
class BlobQuery:
    """Which blobs to list; valid by construction.

    `delimiter` is empty or `/`; `page_size` is 1 to 10,000, or 0 for 1,000. Raises `InvalidArgument` (INVALID_KEY for
    prefix and start_after, INVALID_DELIMITER, INVALID_PAGE_SIZE).
    """

    prefix: str = ""
    delimiter: str = ""
    start_after: str = ""
    page_size: int = 0
    page_token: str = ""

    def __post_init__(self) -> None:
        """Check the rules."""
        check_text(self.prefix, "prefix")
        check_text(self.start_after, "start_after")
        if self.delimiter not in ("", "/"):
            message = f"delimiter {self.delimiter[:80]!r} is neither empty nor '/'"
            raise InvalidArgument(Reason.INVALID_DELIMITER, "delimiter", message)
        checked_page_size(self.page_size)

    @property
    def first_after(self) -> str:
        """`start_after` as an `after` of `ListQuery`, in which a `/` at the end would pass over all below it."""
        return self.start_after + "\0" if self.start_after.endswith("/") else self.start_after


@dataclass(frozen=True, slots=True)
class BlobPage:
    """One page of a list, in byte order; an empty token means the end."""

    entries: list[Entry]
    common_prefixes: list[str]
    next_page_token: str


def page_of(objects: ObjectStore, query: BlobQuery) -> BlobPage:
    """Return one page of blobs. Raises `InvalidArgument` (INVALID_PAGE_TOKEN)."""
    binding = (query.prefix, query.delimiter, query.start_after)
    after = page_token.decode(binding, query.page_token) if query.page_token else query.first_after
    found = objects.list(ListQuery(query.prefix, after, bool(query.delimiter), RESERVED_PREFIXES))
    entries: list[Entry] = []
    common_prefixes: list[str] = []
    room = checked_page_size(query.page_size)
    size = 0
    last = ""
    for item in found:
        if room == 0 or size > PAGE_BYTES:
            return BlobPage(entries, common_prefixes, page_token.encode(binding, last))
        if isinstance(item, CommonPrefix):
            common_prefixes.append(item.name)
        else:
            entries.append(item)
        last = item.name
        room -= 1
        size += len(last.encode()) + _ENTRY_BYTES
    return BlobPage(entries, common_prefixes, "")
