"""Ports of the loopback that are known before their servers start, and stay theirs while they are down."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_port() -> Iterator[int]:
    """Yield a free port that nobody who asks for any free one is given.

    A socket is bound to it and never listens: connecting is refused. Linux lets a listener that names the port in
    beside it, if both sockets say SO_REUSEADDR, as servers do.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]
