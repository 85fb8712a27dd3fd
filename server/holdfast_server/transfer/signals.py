"""The first SIGINT or SIGTERM asks for an end; the second one is as rude as ever."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_NUMBERS = (signal.SIGINT, signal.SIGTERM)
_EXIT_BY_SIGNAL = 128
"""What shells add the signal's number to."""


class Stopping:
    """Whether a signal has come. Without a lock: a handler comes in the middle of anything."""

    def __init__(self) -> None:
        self._number = 0

    def note(self, number: int, _frame: FrameType | None) -> None:
        """Be the handler of a signal."""
        self._number = number
        for each in _NUMBERS:
            signal.signal(each, signal.SIG_DFL)

    def is_set(self) -> bool:
        """Tell whether one has come."""
        return bool(self._number)

    @property
    def name(self) -> str:
        """Which one."""
        return signal.Signals(self._number).name

    @property
    def exit_code(self) -> int:
        """What a process ends with that it has ended."""
        return _EXIT_BY_SIGNAL + self._number


@contextmanager
def stopping_on_signals() -> Iterator[Stopping]:
    """Yield what knows of the first signal within the block."""
    stopping = Stopping()
    handled = [number for number in _NUMBERS if signal.getsignal(number) is not signal.SIG_IGN]  # as nohup has it
    before = {number: signal.signal(number, stopping.note) for number in handled}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
