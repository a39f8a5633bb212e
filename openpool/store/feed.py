"""Committed events for listeners in this process, such as the live pages.

Each subscription keeps the newest events up to a bound; a listener that falls behind loses the
oldest, sees `seq` jump, and finds the missing ones in the log. Lives in the event loop only.
Read next: `store.interface.Feed`.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence

from openpool.store.interface import StoredEvent

WAITING_MAX = 10_000
"""Events kept for one listener."""


class Subscription(AsyncIterator[Sequence[StoredEvent]]):
    """One listener's view; iterate over it, and `close` it when done."""

    def __init__(self, forget: Callable[["Subscription"], None], waiting_max: int) -> None:
        self._forget = forget
        self._waiting: deque[StoredEvent] = deque(maxlen=waiting_max)
        self._news = asyncio.Event()
        self._closed = False

    def put(self, events: Sequence[StoredEvent]) -> None:
        self._waiting.extend(events)
        self._news.set()

    def close(self) -> None:
        """Stop listening; what waits can still be read."""
        self._closed = True
        self._news.set()
        self._forget(self)

    async def __anext__(self) -> Sequence[StoredEvent]:
        while not self._waiting:
            if self._closed:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        batch = tuple(self._waiting)
        self._waiting.clear()
        return batch


class Subscriptions:
    """All listeners of a store."""

    def __init__(self, waiting_max: int = WAITING_MAX) -> None:
        self._waiting_max = waiting_max
        self._all: set[Subscription] = set()
        self._closed = False

    def __bool__(self) -> bool:
        return bool(self._all)

    def subscribe(self) -> Subscription:
        subscription = Subscription(self._all.discard, self._waiting_max)
        if self._closed:
            subscription.close()
        else:
            self._all.add(subscription)
        return subscription

    def publish(self, events: Sequence[StoredEvent]) -> None:
        if events:
            for subscription in self._all:
                subscription.put(events)

    def close(self) -> None:
        self._closed = True
        for subscription in tuple(self._all):
            subscription.close()
