"""What the customers of the pool's own API owe: read from the books, followed in the log.

The shell around `core.money.spending`. Fees and payments are facts of the log; here they are added
up in memory, with what is held for calls under way. Must not know keys or limits: `pool.customers`
does.
"""

import asyncio
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple, Protocol

from openpool.core.calls import App
from openpool.core.customers import payer
from openpool.core.events import CallCompleted, CallFailed, FeeCredited, JobDelivered, JobFailed
from openpool.core.money.events import CustomerPaid
from openpool.core.money.ledger import fees_account
from openpool.core.money.spending import Estimates, Purse
from openpool.core.prices import Quote
from openpool.store.interface import Balance, CustomerCallsRow, EventFilter, StoredEvent

PAYMENTS_MAX = 1_000_000
MISSED_MAX = 10_000
"""Events that are read at once where the log was not followed closely enough."""


class SpendingStore(Protocol):
    """The part of the store that is needed here (see `store.interface`)."""

    def head(self) -> tuple[int, str]: ...
    def balances(self, prefix: str = "") -> list[Balance]: ...
    def events(self, which: EventFilter) -> list[StoredEvent]: ...
    def customer_calls(self) -> list[CustomerCallsRow]: ...


class Running(NamedTuple):
    """A call under way."""

    customer: str
    price_wei: Fraction


class Spending:
    """The purses of all customers."""

    def __init__(self, store: SpendingStore) -> None:
        self._store = store
        self._seq = 0
        """Up to where the log is in these figures."""
        self._purses: dict[str, Purse] = {}
        self._payments: dict[str, dict[str, int]] = {}
        self._calls: dict[str, CustomerCallsRow] = {}
        self._running: dict[str, Running] = {}
        self._estimates = Estimates()

    async def start(self) -> None:
        """Read the books; nothing may be appended meanwhile."""
        await asyncio.to_thread(self._read)

    def _read(self) -> None:
        prefix = fees_account(payer(""))
        paid = EventFilter(types=("customer-paid",), limit=PAYMENTS_MAX)
        self._seq, _ = self._store.head()
        for stored in self._store.events(paid):
            self._take(stored.event.data)
        for balance in self._store.balances(prefix):
            purse = self.purse(balance.account.removeprefix(prefix))
            purse.spent_wei = purse.paid_wei - balance.amount_wei
        self._calls = {row.customer: row for row in self._store.customer_calls()}

    async def follow(self, batch: Sequence[StoredEvent]) -> None:
        """Take what was appended, and what is missing before it."""
        missed: Sequence[StoredEvent] = batch
        while missed and batch and self._seq < batch[0].seq - 1:
            missed = await asyncio.to_thread(self._store.events, self._gap(batch[0].seq))
            self.count(missed)
        self.count(batch)

    def _gap(self, before_seq: int) -> EventFilter:
        return EventFilter(after_seq=self._seq, before_seq=before_seq, limit=MISSED_MAX)

    def count(self, batch: Sequence[StoredEvent]) -> None:
        """Take events in the order of the log; those known already change nothing."""
        for stored in batch:
            if stored.seq > self._seq:
                self._seq = stored.seq
                self._take(stored.event.data)

    def _take(self, data: object) -> None:
        match data:
            case FeeCredited(orchestrator=name) if name.startswith(payer("")):
                customer = name.removeprefix(payer(""))
                self.purse(customer).spent_wei += int(data.fee_wei)
                self._tally(customer, calls=not data.pipeline)  # a segment of video
            case CustomerPaid():
                self.pay(data.customer, data.reference, int(data.amount_wei))
            case CallCompleted():
                self._completed(data)
            case CallFailed():
                self._end(data.job)
                self._tally(data.customer, failed=data.code != "cancelled")
            case JobDelivered() | JobFailed():
                self._end(data.job)

    def _completed(self, data: CallCompleted) -> None:
        self._end(data.job)
        if data.checked:
            self._tally(data.customer, calls=1)
            app = App(data.pipeline, data.model)
            self._estimates.observe(app, data.unit, data.units)

    def _tally(self, customer: str, calls: int = 0, failed: int = 0) -> None:
        if customer:
            row = self.calls(customer)
            self._calls[customer] = CustomerCallsRow(
                customer=customer, calls=row.calls + calls, failed=row.failed + failed
            )

    # --- what is known -------------------------------------------------------------------------

    def purse(self, customer: str) -> Purse:
        """The money of a customer."""
        return self._purses.setdefault(customer, Purse())

    def calls(self, customer: str) -> CustomerCallsRow:
        """What the calls of a customer came to."""
        none = CustomerCallsRow(customer=customer, calls=0, failed=0)
        return self._calls.get(customer, none)

    def payment_wei(self, customer: str, reference: str) -> int | None:
        """What was paid under this reference; None if nothing was."""
        return self._payments.get(customer, {}).get(reference)

    def pay(self, customer: str, reference: str, amount_wei: int) -> None:
        """A payment is in the log; each reference counts once."""
        payments = self._payments.setdefault(customer, {})
        if reference not in payments:
            payments[reference] = amount_wei
            self.purse(customer).paid_wei += amount_wei

    # --- calls under way -----------------------------------------------------------------------

    def begin(
        self, call: str, customer: str, price_wei: Fraction, units: int, limit_wei: int | None
    ) -> bool:
        """Hold what a call may cost, until the log has its end; False if it may not begin."""
        held = self.purse(customer).hold(call, int(price_wei * units), limit_wei)
        if held:
            self._running[call] = Running(customer, price_wei)
        return held

    def expected_units(self, app: App, quote: Quote, request_bytes: int) -> int:
        """How much a call is expected to use, rather too much."""
        return self._estimates.units(app, quote.unit, request_bytes)

    def customer_of(self, call: str) -> str:
        """Who pays for a call under way; "" for others."""
        running = self._running.get(call)
        return running.customer if running else ""

    def grow(self, call: str, units: int, limit_wei: int | None) -> bool:
        """So much a call has used by now; whether it may go on."""
        running = self._running.get(call)
        if running is None:
            return True
        purse = self.purse(running.customer)
        return purse.grow(call, int(running.price_wei * units), limit_wei)

    def _end(self, call: str) -> None:
        if running := self._running.pop(call, None):
            self.purse(running.customer).release(call)
