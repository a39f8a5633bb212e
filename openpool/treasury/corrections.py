"""Makes corrections: looks up what they mend, checks them and writes them down, once.

The rules are in `core.money.corrections`. Works in a running pool and, over a store that nobody
else has, without one.
"""

import asyncio
from collections.abc import Callable
from hashlib import sha256
from typing import Protocol, get_args

from openpool.core.events import Event
from openpool.core.money.accounts import COMMISSION, OPERATOR, worker_account
from openpool.core.money.corrections import check_correction, correction_id
from openpool.core.money.events import CorrectionMade, MoneyPayload
from openpool.store.interface import Appender, Balance, EventFilter, StoredEvent, WorkerRow

PAGE = 5_000
MONEY_TYPES = tuple(str(kind.__struct_config__.tag) for kind in get_args(MoneyPayload))


class Store(Appender, Protocol):
    """The part of the store that is needed here (see `store.interface`)."""

    def events(self, which: EventFilter) -> list[StoredEvent]: ...
    def balances(self, prefix: str = "") -> list[Balance]: ...
    def workers(self) -> list[WorkerRow]: ...


class Corrections:
    """The operator's way to mend an entry."""

    def __init__(
        self, *, store: Store, clock_ms: Callable[[], int], spending: asyncio.Lock | None = None
    ) -> None:
        """`spending` is held by whoever takes money from workers or from commission, from looking
        at a balance until the log has what follows from it."""
        self._store, self._clock_ms = store, clock_ms
        self._spending = spending or asyncio.Lock()

    async def make(
        self,
        *,
        corrects: str,
        debit: str,
        credit: str,
        amount_wei: str,
        reason: str,
        correction: str = "",
        dispute: str = "",
    ) -> tuple[str, bool]:
        """Move an amount, to mend the event `corrects` (its id, or its number in the log).

        The name of the correction, and whether it is new: the same one again counts once. The
        name is made from its content unless it is given. Raises NotAllowed, Unavailable.
        """
        mended = await asyncio.to_thread(self._find, corrects)
        content = (mended.event.id if mended else corrects, debit, credit, amount_wei, reason)
        name = correction or sha256("\n".join(content).encode()).hexdigest()[:16]
        if await asyncio.to_thread(self._is_made, name):
            return name, False
        data = CorrectionMade(
            correction=name,
            corrects=content[0],
            debit=debit,
            credit=credit,
            amount_wei=amount_wei,
            reason=reason.strip(),
            dispute=dispute,
        )
        async with self._spending:
            balances = await asyncio.to_thread(self._balances)
            check_correction(data, balances=balances, event_known=mended is not None)
            event = Event(id=correction_id(name), time_ms=self._clock_ms(), data=data)
            await self._store.append([event]).durable()
        return name, True

    def _balances(self) -> dict[str, int]:
        """Of every account that there may be, those that never moved too."""
        known = [COMMISSION, OPERATOR]
        known += [worker_account(row.address) for row in self._store.workers()]
        balances = dict.fromkeys(known, 0)
        return balances | {each.account: each.amount_wei for each in self._store.balances()}

    def _is_made(self, name: str) -> bool:
        return any(
            isinstance(found.event.data, CorrectionMade) and found.event.data.correction == name
            for found in self._pages(("correction-made",))
        )

    def _find(self, name: str) -> StoredEvent | None:
        """The event with this number or id."""
        if name.isascii() and name.isdigit() and len(name) < 19:
            seq = int(name)
            found = self._store.events(EventFilter(after_seq=max(seq - 1, 0), limit=1))
            return found[0] if found and found[0].seq == seq else None
        job = name.rpartition("/")[0]
        of_job = self._store.events(EventFilter(job=job, limit=PAGE)) if job else []
        return next(
            (each for each in of_job if each.event.id == name),
            next((each for each in self._pages(MONEY_TYPES) if each.event.id == name), None),
        )

    def _pages(self, types: tuple[str, ...]) -> list[StoredEvent]:
        found: list[StoredEvent] = []
        while True:
            after = found[-1].seq if found else 0
            page = self._store.events(EventFilter(after_seq=after, types=types, limit=PAGE))
            found += page
            if len(page) < PAGE:
                return found
