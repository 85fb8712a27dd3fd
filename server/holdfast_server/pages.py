"""Pages of lists: how long they may be, and where they end."""

from holdfast_server.errors import InvalidArgument, Reason

DEFAULT_PAGE_SIZE = 1000
MAX_PAGE_SIZE = 10_000

PAGE_BYTES = 1 << 20
"""A page ends at about 1 MiB, so that its message stays far below every client's limit of 4 MiB."""


def checked_page_size(page_size: int) -> int:
    """Return how many entries a page may have, where 0 asks for 1,000. Raises `InvalidArgument` (INVALID_PAGE_SIZE)."""
    if not 0 <= page_size <= MAX_PAGE_SIZE:
        message = f"page_size {page_size} is not between 0 and {MAX_PAGE_SIZE}"
        raise InvalidArgument(Reason.INVALID_PAGE_SIZE, "page_size", message)
    return page_size or DEFAULT_PAGE_SIZE
