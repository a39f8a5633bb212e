"""Settles rounds that are over: reads the log, has the shares computed, appends them.

A round's settlement is one transaction and a function of the log before it, so a crash at any
moment means that it is made again, the same, or was there already. What is decided and why is in
`core.money.rounds` and `core.money.settlement`. Must not decide anything itself.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol

import structlog

from openpool.core.events import Event
from openpool.core.money.events import RoundSettled, RoundStarted, RuleRefused, Scheme
from openpool.core.money.ledger import Balances, transfers_of
from openpool.core.money.rounds import RARE_TYPES, TYPES, Closing, Rounds
from openpool.core.money.rules import Rule
from openpool.core.money.settlement import settle
from openpool.store.interface import Appender, Balance, EventFilter, StoredEvent

log = structlog.get_logger()

PAGE = 2_000


class Store(Appender, Protocol):
    """The part of the store that is needed here (see `store.interface`)."""

    def events(self, which: EventFilter) -> list[StoredEvent]: ...
    def balances(self, prefix: str = "") -> list[Balance]: ...
    def head(self) -> tuple[int, str]: ...


class AskedRule(Rule, Protocol):
    """A rule behind a process (`rules.process`)."""

    def close(self) -> None:
        """Forget everything; the next question starts anew."""


class Settler:
    """Settles the rounds of all orchestrators."""

    def __init__(
        self,
        *,
        store: Store,
        scheme: Scheme,
        window_rounds: int,
        rules: Sequence[AskedRule] = (),
        spending: asyncio.Lock | None = None,
    ) -> None:
        """`spending` is held by whoever takes money from workers or from commission, from looking
        at a balance until the log has what follows from it."""
        self._store, self._rules = store, rules
        self._spending = spending or asyncio.Lock()
        self._turn = asyncio.Lock()
        self._settled_seq = 0
        self._begin(scheme, window_rounds)

    def _begin(self, scheme: Scheme, window_rounds: int) -> None:
        self._rounds = Rounds(scheme=scheme, window_rounds=window_rounds)
        self._window_rounds = window_rounds
        self._seq = 0
        self._busy_seq = -1
        """Where the busy types begin to count; below 0 while that is not known."""

    async def change(
        self, *, scheme: Scheme, window_rounds: int, rules: Sequence[AskedRule]
    ) -> None:
        """Other terms are for rounds that end from now on; those that are over are settled first.
        The log is read again, as after a restart, so that it makes no difference when that was."""
        await self.settle_due()
        async with self._turn:
            self._rules = rules
            self._begin(scheme, window_rounds)

    async def settle_due(self) -> int:
        """Settle every round that is over; how many that were. Raises Unavailable if the disk
        failed."""
        async with self._turn:
            await asyncio.to_thread(self._catch_up)
            made = 0
            while closings := self._rounds.due():
                async with self._spending:
                    events = await asyncio.to_thread(self._settled, closings)
                    await self._store.append(events).durable()
                self._say(events)
                await asyncio.to_thread(self._catch_up)
                made += 1
            self._settled_seq = self._seq
        return made

    def is_settled(self, seq: int) -> bool:
        """Whether every round that ended up to this event of the log is settled."""
        return self._settled_seq >= seq

    def _settled(self, closings: Sequence[Closing]) -> list[Event]:
        balances = Balances({each.account: each.amount_wei for each in self._store.balances()})
        made = []
        try:
            for closing in closings:
                events = settle(closing, self._rules, balances.amounts)
                for event in events:
                    for transfer in transfers_of(event):
                        balances.post(transfer)
                made += events
        finally:
            for rule in self._rules:
                rule.close()
        return made

    def _say(self, events: Sequence[Event]) -> None:
        for event in events:
            match event.data:
                case RuleRefused() as data:
                    log.error(
                        "rule-refused",
                        orchestrator=data.orchestrator,
                        round=data.round,
                        rule=data.rule,
                        reason=data.reason,
                    )
                case RoundSettled() as data:
                    log.info(
                        "round-settled",
                        orchestrator=data.orchestrator,
                        round=data.round,
                        scheme=data.scheme,
                        shared_wei=data.shared_wei,
                    )

    # --- reading -------------------------------------------------------------------------------

    def _catch_up(self) -> None:
        """Fold what is new in the log."""
        head, _ = self._store.head()
        if self._busy_seq < 0:
            self._busy_seq = self._first_needed()
            self._fold(RARE_TYPES, min(self._busy_seq, head))
        self._fold(TYPES, head)

    def _fold(self, types: tuple[str, ...], last_seq: int) -> None:
        while True:
            which = EventFilter(
                after_seq=self._seq, before_seq=last_seq + 1, types=types, limit=PAGE
            )
            page = self._store.events(which)
            for stored in page:
                self._rounds.apply(stored.event)
            if len(page) < PAGE:
                self._seq = max(self._seq, last_seq)
                return
            self._seq = page[-1].seq

    def _first_needed(self) -> int:
        """The event after which fees are read: before the oldest round of the window, seen from
        the oldest round that is not settled. So a start reads a window, not the whole log.
        Rounds are settled in order; one before a settled one had nothing to settle."""
        settled = {
            stored.event.data.round
            for stored in self._pages("round-settled")
            if isinstance(stored.event.data, RoundSettled)
        }
        starts = [
            (stored.seq, stored.event.data.round)
            for stored in self._pages("round-started")
            if isinstance(stored.event.data, RoundStarted)
        ]
        done = max((n for n, (_, number) in enumerate(starts, 1) if number in settled), default=0)
        first = done - self._window_rounds
        return starts[first][0] - 1 if first > 0 else 0

    def _pages(self, kind: str) -> list[StoredEvent]:
        found: list[StoredEvent] = []
        while True:
            after = found[-1].seq if found else 0
            page = self._store.events(EventFilter(after_seq=after, types=(kind,), limit=PAGE))
            found += page
            if len(page) < PAGE:
                return found
