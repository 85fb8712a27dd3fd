"""Which keys lie below another key: `a/b` below `a`."""


class Nesting:
    """Is shown keys in byte order. Remembers those only that others can still lie below."""

    def __init__(self) -> None:
        self._above: list[str] = []
        """Keys of which each is the beginning of the next one: what begins with them follows without a gap."""

    def parent_of(self, key: str) -> str | None:
        """Return the longest key that was shown before and that this one lies below."""
        while self._above and not key.startswith(self._above[-1]):
            self._above.pop()
        parent = next((above for above in reversed(self._above) if key.startswith(above + "/")), None)
        self._above.append(key)
        return parent
