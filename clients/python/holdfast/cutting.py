"""Cutting many items into requests: as many in each as it may hold."""

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Weight:
    """What a request holds, or may hold: items, bytes of the message, and bytes of data in it."""

    items: int = 0
    message_bytes: int = 0
    data_bytes: int = 0

    def __add__(self, other: "Weight") -> "Weight":
        return Weight(
            self.items + other.items, self.message_bytes + other.message_bytes, self.data_bytes + other.data_bytes
        )

    def exceeds(self, most: "Weight") -> bool:
        """Whether it is more than may be, in any respect."""
        return self.items > most.items or self.message_bytes > most.message_bytes or self.data_bytes > most.data_bytes


@dataclass(frozen=True, slots=True)
class Weighed:
    """An item: its weight, what all of its request must have in common, and what no two of them may."""

    weight: Weight
    group: Hashable = None
    name: Hashable = None


def cut(items: Iterable[T], weigh: Callable[[T], Weighed], most: Weight) -> Iterator[list[T]]:
    """Yield the items in runs that fit into a request each; one that is too large by itself gets its own."""
    run: list[T] = []
    total, group, names = Weight(), None, set[Hashable]()
    for item in items:
        weighed = weigh(item)
        grown = total + weighed.weight
        if run and (grown.exceeds(most) or weighed.group != group or weighed.name in names):
            yield run
            run, grown, names = [], weighed.weight, set()
        run.append(item)
        total, group = grown, weighed.group
        if weighed.name is not None:
            names.add(weighed.name)
    if run:
        yield run
