"""What follows when a round has ended: it is settled, and then stated.

Nothing is looked for by a clock. Both follow from the log alone, so whoever hears that the log
says a round has started knows that another one is over.
"""

from collections.abc import AsyncIterator, Collection, Sequence

from openpool.store.interface import Feed, StoredEvent
from openpool.treasury.settle import Settler
from openpool.treasury.statements import Statements

TYPES = ("round-started", "round-settled")
"""After any of these something may be due."""


class RoundEnds:
    """Settles rounds as they end, and makes their statements."""

    def __init__(self, feed: Feed, settler: Settler, statements: Statements) -> None:
        self._feed, self._settler, self._statements = feed, settler, statements

    async def run(self) -> None:
        """Ends by cancellation, or when the store closes."""
        async for _ in heard(self._feed, TYPES):
            await self._settler.settle_due()
            await self._statements.make_due()


async def heard(feed: Feed, types: Collection[str]) -> AsyncIterator[None]:
    """At once, and whenever the log may have gained an event of these types."""
    news, seq = feed.subscribe(), 0
    yield
    async for batch in news:
        missed = seq and batch[0].seq != seq + 1
        seq = batch[-1].seq
        if missed or _any(batch, types):
            yield


def _any(batch: Sequence[StoredEvent], types: Collection[str]) -> bool:
    return any(stored.event.type in types for stored in batch)
