"""The store's clock, as the `Date` of its answers tells it: to the second, like the update times of its objects."""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

_LONGEST_SECONDS = 3600.0
"""How long a date is relied on: clocks drift apart, and ours may stand still while the machine sleeps."""

_RESOLUTION = timedelta(seconds=1)


def date_of(headers: Mapping[str, str]) -> datetime | None:
    """Return when an answer was made, by the clock of who made it; None: its headers (lower-case names) do not say."""
    try:
        found = parsedate_to_datetime(headers.get("date", ""))
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)  # `-0000` is taken for no zone


class StoreClock:
    """Goes on from the last date seen. `clock` counts seconds. May be used by many threads at once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: tuple[datetime, float] | None = None

    def see(self, headers: Mapping[str, str]) -> None:
        """Note the date of an answer that came just now, if it has one."""
        date = date_of(headers)
        if date is not None:
            expected = self.now() or date
            # Dates have whole seconds: where both agree, it goes on, and does not step back within a second.
            agrees = timedelta() <= expected - date < _RESOLUTION
            self._seen = (expected if agrees else date, self._clock())

    def now(self) -> datetime | None:
        """Return the store's time; None if no date came within the last hour."""
        seen = self._seen
        if seen is None:
            return None
        date, at = seen
        passed = self._clock() - at
        return date + timedelta(seconds=passed) if passed <= _LONGEST_SECONDS else None
