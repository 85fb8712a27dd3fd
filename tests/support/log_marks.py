"""Marks in the log of a server, which has a line for each call: a test counts the calls between two of them."""

import re
from collections.abc import Callable

import pytest

import holdfast
from tests.support.server_process import ServerProcess


def mark(server: ServerProcess, stat: Callable[[str], object], name: str) -> int:
    """Ask for what is not there, under a name that nobody else asks for; return which line of the log tells of it.

    The lines come in the order in which calls end.
    """
    with pytest.raises(holdfast.NotFound):
        stat(name)
    assert server.wait_for_log(f"Call finished .*{re.escape(name)}")
    return next(number for number, line in enumerate(server.log) if name in line)
