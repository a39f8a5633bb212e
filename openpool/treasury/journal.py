"""The order book on disk: what is written to the log is folded in, and nothing else is.

An outside step may follow only on `record`, which returns once the events are on disk. After a
failed write nothing is done any more: bytes that might not be on disk must never be sent.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

from openpool.core.errors import Unavailable
from openpool.core.events import AnyPayload, Event
from openpool.core.money import events as money
from openpool.core.money.orders import TYPES, OrderBook
from openpool.store.interface import Appender, Balance, EventFilter, StoredEvent

PAGE = 5_000


class Store(Appender, Protocol):
    """The part of the store that is needed here (see `store.interface`)."""

    def events(self, which: EventFilter) -> list[StoredEvent]: ...
    def balances(self, prefix: str = "") -> list[Balance]: ...


class Journal:
    """The one writer of orders and of what concerns payouts."""

    def __init__(
        self, store: Store, clock_ms: Callable[[], int], spending: asyncio.Lock | None = None
    ) -> None:
        """`spending` is held by everybody who takes money out of workers' accounts, from looking
        at a balance until it is taken."""
        self.spending = spending or asyncio.Lock()
        self.book = OrderBook()
        self.clock_ms = clock_ms
        self._store = store
        self._broken = False

    async def load(self) -> None:
        """Read the log back; to be awaited before anything else."""
        after_seq = 0
        while True:
            which = EventFilter(after_seq=after_seq, types=TYPES, limit=PAGE)
            page = await asyncio.to_thread(self._store.events, which)
            for stored in page:
                self.book.apply(stored.event)
            if len(page) < PAGE:
                return
            after_seq = page[-1].seq

    async def record(self, *facts: AnyPayload) -> None:
        """Write facts in one transaction, and return once they are on disk."""
        self.check()
        now_ms = self.clock_ms()
        numbered = enumerate(facts, self.book.facts)
        events = [Event(id=event_id(data, n), time_ms=now_ms, data=data) for n, data in numbered]
        receipt = self._store.append(events)
        for event in events:
            self.book.apply(event)
        try:
            await receipt.durable()
        except Unavailable:
            self._broken = True
            raise

    def check(self) -> None:
        """Raises Unavailable after a failed write."""
        if self._broken:
            raise Unavailable("The pool's log cannot be written, so no money is moved.")

    async def covers(self, debits: Mapping[str, int]) -> bool:
        """Whether each account still holds what is to be taken from it."""
        for account, amount_wei in debits.items():
            found = await asyncio.to_thread(self._store.balances, account)
            held = {each.account: each.amount_wei for each in found}.get(account, 0)
            if held < amount_wei:
                return False
        return True

    async def owed(self, prefix: str) -> dict[str, int]:
        """What the accounts with this prefix hold, by the rest of their name."""
        found = await asyncio.to_thread(self._store.balances, prefix)
        return {each.account.removeprefix(prefix): each.amount_wei for each in found}


def event_id(data: AnyPayload, number: int) -> str:
    """The name of a fact: the same fact twice has the same name, and counts once. What may be said
    again and again, like a pause, has a number that grows with each (`OrderBook.facts`)."""
    match data:
        case money.OrderPlanned(order=order):
            return f"order/{order}/planned"
        case money.OrderSigned(order=order, tx=tx):
            return f"order/{order}/signed/{tx}"
        case money.OrderSent(order=order, tx=tx, answer=answer):
            return f"order/{order}/sent/{tx}/{answer}"
        case money.OrderMined(order=order, tx=tx, block_hash=block_hash):
            return f"order/{order}/mined/{tx}/{block_hash}"
        case money.OrderConfirmed(order=order) | money.OrderVoided(order=order):
            return f"order/{order}/ended"
        case money.LptConverted(conversion=conversion):
            return f"lpt-converted/{conversion}"
        case _:
            return f"{data.type}/number-{number}"
