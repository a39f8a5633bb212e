"""The event log as a live stream.

A viewer is a cursor into the log, never a queue: it reads what is newer than its cursor, from the
ring of the latest events if they reach back far enough and from the store otherwise, then waits.
So a slow or returning viewer loses nothing and costs no memory. `run` keeps the ring filled.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence

from msgspec.structs import replace

from openpool.core.errors import NoCapacity
from openpool.store.interface import EventFilter, Reader, StoredEvent
from openpool.web.interface import Subscribe

RING = 4096
"""Events kept in memory."""
VIEWERS_MAX = 500
HEARTBEAT_S = 15.0
"""A silent stream says something this often, so that both ends notice a dead connection."""
BATCH = 200
"""Events read at once for one viewer."""

Observer = Callable[[StoredEvent], None]


class Feed:
    """Hands committed events to any number of viewers, and to observers such as the metrics."""

    def __init__(self, reader: Reader, subscribe: Subscribe) -> None:
        self.closed = False
        self.head = 0
        """Newest sequence number seen."""
        self.viewers = 0
        self._reader = reader
        self._subscribe = subscribe
        self._ring: deque[StoredEvent] = deque(maxlen=RING)
        self._news = asyncio.Event()
        self._ended = asyncio.Event()
        self._observers: list[Observer] = []

    def observe(self, observer: Observer) -> None:
        """Call `observer` with every event committed from now on."""
        self._observers.append(observer)

    async def run(self) -> None:
        """Fill the ring until the store closes or the task is cancelled."""
        events = self._subscribe()
        self.head, _ = await asyncio.to_thread(self._reader.head)
        async for batch in events:
            self._take(batch)

    def _take(self, batch: Sequence[StoredEvent]) -> None:
        if not batch:
            return
        if self._ring and batch[0].seq != self._ring[-1].seq + 1:
            self._ring.clear()  # some were dropped on the way; viewers find them in the store
        for stored in batch:
            self._ring.append(stored)
            for observer in self._observers:
                observer(stored)
        self.head = max(self.head, batch[-1].seq)
        self._wake()

    def close(self) -> None:
        """End every stream, so that the server can stop."""
        self.closed = True
        self._ended.set()
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def check_room(self) -> None:
        """Raises NoCapacity if nobody more can watch."""
        if self.closed or self.viewers >= VIEWERS_MAX:
            raise NoCapacity("Too many people are watching the events; try again later.")

    async def changed(self, after_seq: int) -> bool:
        """Wait until the log is longer than `after_seq`; False if nothing came for a while."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEARTBEAT_S):
                while self.head <= after_seq and not self.closed:
                    await self._news.wait()
        return self.head > after_seq

    async def pause(self, seconds: float) -> None:
        """Wait that long, or until the feed closes."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ended.wait()

    async def follow(self, which: EventFilter) -> AsyncIterator[list[StoredEvent]]:
        """Batches of matching events after `which.after_seq`, for ever; empty ones as heartbeat."""
        self.viewers += 1
        try:
            cursor = which.after_seq
            while not self.closed:
                seen = self.head
                batch = await self._read(replace(which, after_seq=cursor, limit=BATCH))
                if len(batch) < BATCH:
                    cursor = max(cursor, seen)
                if batch:
                    cursor = max(cursor, batch[-1].seq) if len(batch) < BATCH else batch[-1].seq
                    yield batch
                elif not await self.changed(cursor) and not self.closed:
                    yield []
        finally:
            self.viewers -= 1

    async def _read(self, which: EventFilter) -> list[StoredEvent]:
        if self._ring and self._ring[0].seq <= which.after_seq + 1:
            fresh = (s for s in self._ring if s.seq > which.after_seq and matches(s, which))
            return [stored for stored, _ in zip(fresh, range(which.limit), strict=False)]
        if self.head <= which.after_seq:
            return []
        return await asyncio.to_thread(self._reader.events, which)


def matches(stored: StoredEvent, which: EventFilter) -> bool:
    """Whether an event passes the filter's type, worker and job."""
    data = stored.event.data
    return (
        (not which.types or data.type in which.types)
        and (not which.worker or getattr(data, "worker", "") == which.worker)
        and (not which.job or getattr(data, "job", "") == which.job)
    )
