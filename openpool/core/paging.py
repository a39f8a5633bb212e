"""Lists that are shown a page at a time."""

from collections.abc import Callable, Iterable, Iterator
from itertools import dropwhile, islice
from typing import TypeVar

T = TypeVar("T")


def behind(items: Iterable[T], is_last_seen: Callable[[T], bool]) -> Iterator[T]:
    """What comes after the one that was seen last; nothing if that is not there."""
    return islice(dropwhile(lambda item: not is_last_seen(item), items), 1, None)
