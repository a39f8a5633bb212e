"""Rounds by the clock, where there is no chain to give them."""

import asyncio
from collections.abc import Callable

from openpool.core.events import Event
from openpool.core.money.events import RoundStarted
from openpool.core.money.revenue import is_round_due
from openpool.treasury.books import RevenueBooks
from openpool.treasury.closing import Closing

LOOKS_PER_ROUND = 20
LOOK_S_MAX = 30.0


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
        """Look at the clock until cancelled."""
        pause_s = min(self._round_ms / 1000 / LOOKS_PER_ROUND, LOOK_S_MAX)
        while True:
            await self.look()
            await asyncio.sleep(pause_s)

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
