"""Revenue as the log has it, kept up to date: reads events, folds them, writes new ones.

One instance is shared by everybody in one process who follows revenue. Must not decide anything;
the fold is `core.money.revenue`.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from openpool.core.events import Event
from openpool.core.money.accounts import claim_account, fees_account, in_asset, wallet_account
from openpool.core.money.events import Asset
from openpool.core.money.revenue import MONEY_TYPES, TYPES, Revenue
from openpool.store.interface import Appender, Balance, EventFilter, StoredEvent

PAGE = 1_000


class BooksStore(Appender, Protocol):
    """The part of the store that is needed here (see `store.interface`)."""

    def events(self, which: EventFilter) -> list[StoredEvent]: ...
    def balances(self, prefix: str = "") -> list[Balance]: ...
    def head(self) -> tuple[int, str]: ...


class RevenueBooks:
    """The fold and the log it comes from."""

    def __init__(self, store: BooksStore) -> None:
        self._store = store
        self._reading = asyncio.Lock()
        self._seq = 0
        self._is_started = False
        self.revenue = Revenue()

    async def refresh(self) -> Revenue:
        """Read what is new in the log; the fold."""
        async with self._reading:
            if not self._is_started:
                await self._catch_up()
                self._is_started = True
            head, _ = await asyncio.to_thread(self._store.head)
            if head > self._seq:
                await self._read(TYPES, head)
        return self.revenue

    async def write(self, events: Sequence[Event]) -> Revenue:
        """Append events as one transaction, wait for the disk, and take them into account."""
        if events:
            await self._store.append(events).durable()
        return await self.refresh()

    async def _catch_up(self) -> None:
        """Fees are many. Those of rounds that are closed are summed up in the event that closed
        them, so only those of the running round and of the one before are read."""
        which = EventFilter(types=("round-started",), newest_first=True, limit=2)
        starts = await asyncio.to_thread(self._store.events, which)
        head, _ = await asyncio.to_thread(self._store.head)
        from_seq = starts[-1].seq if starts else head
        await self._read(MONEY_TYPES, from_seq)
        self._seq = from_seq

    async def _read(self, types: tuple[str, ...], last_seq: int) -> None:
        while True:
            which = EventFilter(
                after_seq=self._seq, before_seq=last_seq + 1, types=types, limit=PAGE
            )
            page = await asyncio.to_thread(self._store.events, which)
            for stored in page:
                self.revenue.apply(stored.event)
                self._seq = stored.seq
            if len(page) < PAGE:
                self._seq = max(self._seq, last_seq)
                return

    # --- balances ------------------------------------------------------------------------------

    async def claim_wei(self, orchestrator: str) -> int:
        """What the books say can be withdrawn from the protocol."""
        return -await self._balance(claim_account(orchestrator))

    async def fees_wei(self, orchestrator: str) -> int:
        """Realised minus expected."""
        return await self._balance(fees_account(orchestrator))

    async def wallet(self, wallet: str, asset: Asset = "ETH") -> int:
        """What the books say that a hot wallet holds."""
        return -await self._balance(in_asset(asset, wallet_account(wallet)))

    async def _balance(self, account: str) -> int:
        rows = await asyncio.to_thread(self._store.balances, account)
        return next((row.amount_wei for row in rows if row.account == account), 0)
