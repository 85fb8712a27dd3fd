"""Where a list goes on: an opaque token, bound to its query."""

import base64
import binascii
import hashlib

from holdfast_server.errors import InvalidArgument, Reason

_VERSION = b"\x01"
_BINDING_BYTES = 8


def encode(query: tuple[str, ...], last: str) -> str:
    """Return the token that continues `query` after the item `last`."""
    return base64.urlsafe_b64encode(_VERSION + _binding(query, last) + last.encode()).decode()


def decode(query: tuple[str, ...], token: str) -> str:
    """Return the item that `token` continues after. Raises `InvalidArgument` (INVALID_PAGE_TOKEN)."""
    try:
        raw = base64.b64decode(token, altchars=b"-_", validate=True)
        binding, last = raw[1 : 1 + _BINDING_BYTES], raw[1 + _BINDING_BYTES :].decode()
    except (binascii.Error, ValueError):
        raise refusal() from None
    if raw[:1] != _VERSION or binding != _binding(query, last):
        raise refusal()
    return last


def _binding(query: tuple[str, ...], last: str) -> bytes:
    """Return a checksum: it tells a damaged token, or one of another query, and is no secret."""
    return hashlib.sha256("\0".join((*query, last)).encode()).digest()[:_BINDING_BYTES]


def refusal() -> InvalidArgument:
    """Return the refusal of a token."""
    message = "page_token is damaged, or belongs to a list with other fields"
    return InvalidArgument(Reason.INVALID_PAGE_TOKEN, "page_token", message)
