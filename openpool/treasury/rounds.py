"""Rounds by the clock, where there is no chain to give them."""

import asyncio
from collections.abc import Callable

from openpool.core.events import Event
from openpool.core.money.events import RoundStarted
from openpool.core.money.revenue import is_round_due
from openpool.treasury.books import RevenueBooks
from openpool.treasury.closing import Closing

LOOK_MS_MAX = 30_000
"""Longest time between two looks at the clock, which somebody may set meanwhile."""


class ClockRounds:
    """Begins a round whenever one is due, and closes the one before."""

    def __init__(
        self,
        *,
        books: RevenueBooks,
        closing: Closing,
        round_ms: int,
        clock_ms: Callable[[], int],
    ) -> None:
        self._books = books
        self._closing = closing
        self._round_ms = round_ms
        self._clock_ms = clock_ms

    async def run(self) -> None:
        """Look at the clock when a round is due, until cancelled."""
        while True:
            await self.look()
            due_ms = self._round_ms - self._clock_ms() % self._round_ms
            await asyncio.sleep(min(due_ms, LOOK_MS_MAX) / 1000)

    async def look(self) -> None:
        """Begin a round if one is due."""
        last = (await self._books.refresh()).round
        now_ms = self._clock_ms()
        if last is None or is_round_due(last.start_ms, now_ms, self._round_ms):
            number = last.number + 1 if last else 1
            started = RoundStarted(round=number, source="clock")
            await self._books.write(
                [Event(id=f"round/clock/{number}", time_ms=now_ms, data=started)]
            )
        await self._closing.close()
