"""Customers of the pool's own API: their keys, their limits, and their payments.

The shell around `core.customers`. Everything is held in memory, so that recognising a key never
waits for a disk; every change is on disk before it is answered. What somebody owes is in
`pool.spending`. Must not know HTTP.
"""

import asyncio
import hmac
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from fractions import Fraction
from typing import Protocol

import msgspec

from openpool.core.calls import App
from openpool.core.customers import (
    Customer,
    NewKey,
    RequestMeter,
    SpendLimitReached,
    amount_wei,
    checked_name,
    checked_reference,
    customer_id,
    key_id,
    key_text,
)
from openpool.core.enrolment import token_hash
from openpool.core.errors import BadMessage, LimitReached, NoCapacity, NotAllowed, Unauthorized
from openpool.core.events import Event
from openpool.core.money.events import CustomerPaid
from openpool.core.prices import Quote
from openpool.pool.spending import Spending, SpendingStore
from openpool.pool.token_rows import is_over, replaced_ms, token_row
from openpool.store.interface import Appender, CustomerRow, StoredEvent, TokenRow

CUSTOMERS_MAX = 10_000
KEYS_PER_CUSTOMER = 50
REQUESTS_PER_MINUTE_MAX = 1_000_000
LAST_USED_EVERY_S = 60.0
NO_LIMIT = "none"
ALL_HELD = (
    "What your spend limit leaves is held for your calls that run now; try again when they are "
    "done, or ask the operator for a higher limit."
)


class CustomerStore(SpendingStore, Appender, Protocol):
    """The part of the store that is needed here (see `store.interface`)."""

    def customers(self) -> list[CustomerRow]: ...
    def tokens(self, worker: str = "") -> list[TokenRow]: ...
    def subscribe(self) -> AsyncIterator[Sequence[StoredEvent]]: ...
    async def put_customer(self, row: CustomerRow) -> None: ...
    async def put_token(self, row: TokenRow) -> None: ...
    async def touch_token(self, token: str, now_ms: int) -> None: ...
    async def expire_token(self, token: str, expires_ms: int) -> None: ...
    async def revoke_token(self, token: str, now_ms: int) -> bool: ...


class Customers:
    """Recognises keys, holds everybody to their limits, and lets the operator decide."""

    def __init__(
        self,
        *,
        store: CustomerStore,
        clock_ms: Callable[[], int],
        secret_key: bytes,
        requests_per_minute: int,
        wei_per_usd: Callable[[], int] = lambda: 0,
        grace_ms: int = 86_400_000,
    ) -> None:
        """`secret_key` (32 bytes) keys the stored hashes. `requests_per_minute` is for customers
        without a limit of their own; a rotated key stays good for `grace_ms`."""
        self._store = store
        self._clock_ms = clock_ms
        self._key = secret_key
        self._requests_per_minute = requests_per_minute
        self._wei_per_usd = wei_per_usd
        self._grace_ms = grace_ms
        self._changing = asyncio.Lock()
        self._rows: dict[str, CustomerRow] = {}
        self._keys: dict[str, TokenRow] = {}
        self._spending = Spending(store)
        self._meters: dict[str, RequestMeter] = {}
        self._touched: set[str] = set()

    async def start(self) -> None:
        """Read who is known, and what they owe; to be awaited before anything else."""
        rows, tokens = await asyncio.to_thread(
            lambda: (self._store.customers(), self._store.tokens())
        )
        self._rows = {row.customer: row for row in rows}
        self._keys = {row.token: row for row in tokens if row.worker in self._rows}
        await self._spending.start()

    async def run(self) -> None:
        """Follow what is spent, and note when keys were last used; ends by cancellation."""
        events = self._store.subscribe()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._note_used())
            async for batch in events:
                await self._spending.follow(batch)

    def count(self, batch: Sequence[StoredEvent]) -> None:
        """Take these events into account."""
        self._spending.count(batch)

    async def _note_used(self) -> None:
        while True:
            await asyncio.sleep(LAST_USED_EVERY_S)
            touched, self._touched = self._touched, set()
            for key in sorted(touched):
                await self._store.touch_token(key, self._keys[key].last_used_ms)

    # --- requests ------------------------------------------------------------------------------

    def admit(self, secret: str) -> str:
        """The customer whose request this is, which counts it.

        Raises Unauthorized for a wrong, expired or revoked key, LimitReached where too much was
        asked or spent.
        """
        customer = self.owner(secret)
        row = self._rows[customer]
        if self._spending.purse(customer).is_empty(row.spend_limit_wei):
            raise self._refusal(customer)
        per_minute = row.requests_per_minute or self._requests_per_minute
        wait_ms = self._meters.setdefault(customer, RequestMeter()).take(
            self._clock_ms(), per_minute
        )
        if wait_ms:
            raise LimitReached(
                f"You may send {per_minute} requests a minute; try again in {wait_ms} ms."
            )
        return customer

    def owner(self, secret: str) -> str:
        """Whose key this is. Raises Unauthorized for a wrong, expired or revoked one."""
        row = self._keys.get(key_id(secret))
        stored = row.secret_hash if row else bytes(32)
        if not hmac.compare_digest(stored, token_hash(secret, self._key)) or row is None:
            raise Unauthorized("This API key is not known here; ask the pool's operator for one.")
        now_ms = self._clock_ms()
        if is_over(row, now_ms):
            raise Unauthorized("This API key was revoked or replaced; use the new one.")
        if now_ms > row.last_used_ms:
            self._change_key(row.token, last_used_ms=now_ms)
            self._touched.add(row.token)
        return row.worker

    def _change_key(self, key: str, **changes: int) -> None:
        self._keys[key] = msgspec.structs.replace(self._keys[key], **changes)

    # --- calls under way -----------------------------------------------------------------------

    def begin(self, call: str, customer: str, price_wei: Fraction, units: int) -> None:
        """A call, or a job, begins that is expected to cost so much; until its end is in the log
        others have the less. Raises SpendLimitReached if it may not."""
        limit_wei = self._limit_of(customer)
        if not self._spending.begin(call, customer, price_wei, units, limit_wei):
            raise self._refusal(customer)

    def expected_units(self, app: App, quote: Quote, request_bytes: int) -> int:
        """How much a call is expected to use, from its size and from calls before it."""
        return self._spending.expected_units(app, quote, request_bytes)

    def so_far(self, call: str, units: int) -> None:
        """A call has used so much by now. Raises SpendLimitReached if it must end."""
        limit_wei = self._limit_of(self._spending.customer_of(call))
        if not self._spending.grow(call, units, limit_wei):
            raise SpendLimitReached

    def _refusal(self, customer: str) -> SpendLimitReached:
        """Why nothing more may begin: all is spent, or what is left is held."""
        owed_wei, limit_wei = self._spending.purse(customer).owed_wei, self._limit_of(customer)
        if limit_wei is None or owed_wei >= limit_wei:
            return SpendLimitReached()
        return SpendLimitReached(ALL_HELD)

    def _limit_of(self, customer: str) -> int | None:
        row = self._rows.get(customer)
        return row.spend_limit_wei if row else None

    # --- the operator's decisions --------------------------------------------------------------

    def all(self) -> list[Customer]:
        """All customers, in the order in which they came."""
        return [self._customer(row) for row in self._rows.values()]

    def get(self, customer: str) -> Customer:
        """One customer. Raises NotAllowed if there is none of this id."""
        return self._customer(self._row(customer))

    def _customer(self, row: CustomerRow) -> Customer:
        purse, calls = self._spending.purse(row.customer), self._spending.calls(row.customer)
        return Customer(
            customer=row.customer,
            name=row.name,
            created_ms=row.created_ms,
            requests_per_minute=row.requests_per_minute or self._requests_per_minute,
            spend_limit_wei=row.spend_limit_wei,
            spent_wei=purse.spent_wei,
            paid_wei=purse.paid_wei,
            calls=calls.calls,
            calls_failed=calls.failed,
        )

    def _row(self, customer: str) -> CustomerRow:
        row = self._rows.get(customer)
        if row is None:
            raise NotAllowed(
                f"There is no customer `{customer[:40]}`; `openpool customers list` shows them."
            )
        return row

    def keys(self, customer: str) -> list[TokenRow]:
        """All keys of a customer, oldest first, the revoked too."""
        self._row(customer)
        mine = (row for row in self._keys.values() if row.worker == customer)
        return sorted(mine, key=lambda row: (row.created_ms, row.token))

    async def add(
        self, name: str, *, requests_per_minute: int = 0, spend_limit: str = NO_LIMIT
    ) -> NewKey:
        """A new customer and its first key. Raises BadMessage, or NoCapacity."""
        async with self._changing:
            if len(self._rows) >= CUSTOMERS_MAX:
                raise NoCapacity(f"The pool has {CUSTOMERS_MAX} customers, which is the most.")
            row = CustomerRow(
                customer=customer_id(secrets.token_bytes(8)),
                name=checked_name(name),
                created_ms=self._clock_ms(),
                requests_per_minute=_checked_rate(requests_per_minute),
                spend_limit_wei=self._limit_wei(spend_limit),
            )
            await self._store.put_customer(row)
            self._rows[row.customer] = row
            return await self._issue(row.customer, "first")

    async def set_limits(
        self, customer: str, *, requests_per_minute: int | None = None, spend_limit: str = ""
    ) -> Customer:
        """Change what a customer may do; None and "" leave as it is, 0 is the pool's default.

        `spend_limit` is an amount like `20 USD`, or `none`. Raises BadMessage, NotAllowed.
        """
        async with self._changing:
            row = self._row(customer)
            if requests_per_minute is not None:
                rate = _checked_rate(requests_per_minute)
                row = msgspec.structs.replace(row, requests_per_minute=rate)
            if spend_limit:
                limit_wei = self._limit_wei(spend_limit)
                row = msgspec.structs.replace(row, spend_limit_wei=limit_wei)
            await self._store.put_customer(row)
            self._rows[customer] = row
        return self._customer(row)

    async def paid(self, customer: str, amount: str, reference: str, by: str) -> Customer:
        """The customer paid `amount`, like `20 USD`, to the operator. The same reference again
        changes nothing. Raises BadMessage, NotAllowed."""
        async with self._changing:
            row, reference = self._row(customer), checked_reference(reference)
            paid_wei = amount_wei(amount, self._wei_per_usd())
            if not paid_wei:
                raise BadMessage("A payment is more than nothing.")
            before_wei = self._spending.payment_wei(customer, reference)
            if before_wei not in (None, paid_wei):
                raise NotAllowed(
                    f"{reference} is in the books with {before_wei} wei; take another reference."
                )
            event = self._payment(customer, paid_wei, reference, by)
            await self._store.append([event]).durable()
            self._spending.pay(customer, reference, paid_wei)
        return self._customer(row)

    def _payment(self, customer: str, paid_wei: int, reference: str, by: str) -> Event:
        data = CustomerPaid(customer=customer, amount_wei=str(paid_wei), reference=reference, by=by)
        event_id = f"{customer}/paid/{reference}"
        return Event(id=event_id, time_ms=self._clock_ms(), data=data)

    def _limit_wei(self, text: str) -> int | None:
        return None if text == NO_LIMIT else amount_wei(text, self._wei_per_usd())

    async def rotate(self, customer: str, label: str = "") -> NewKey:
        """A new key; the old ones stay good for the grace period. Raises NotAllowed."""
        async with self._changing:
            now_ms = self._clock_ms()
            live = [row for row in self.keys(customer) if not is_over(row, now_ms)]
            if len(live) >= KEYS_PER_CUSTOMER:
                raise NotAllowed(f"This customer has {len(live)} keys already; revoke one first.")
            new = await self._issue(customer, label or "rotated")
            for row in live:
                ends_ms = replaced_ms(row, now_ms, self._grace_ms)
                await self._store.expire_token(row.token, ends_ms)
                self._change_key(row.token, expires_ms=ends_ms)
            return new

    async def revoke(self, customer: str, key: str = "") -> int:
        """End one key of a customer, or all of them, at once; how many. Raises NotAllowed."""
        async with self._changing:
            mine = [row for row in self.keys(customer) if key in ("", row.token)]
            if not mine:
                raise NotAllowed(f"The customer {customer[:40]} has no key `{key[:40]}`.")
            good = [row.token for row in mine if not row.revoked_ms]
            now_ms = self._clock_ms()
            for token in good:
                self._change_key(token, revoked_ms=now_ms)  # at once, whatever the disk does
            for token in good:
                await self._store.revoke_token(token, now_ms)
            return len(good)

    async def _issue(self, customer: str, label: str) -> NewKey:
        secret = key_text(secrets.token_bytes(8), secrets.token_bytes(32))
        row = token_row(
            key_id(secret),
            secret,
            owner=customer,
            hash_key=self._key,
            now_ms=self._clock_ms(),
            label=label,
        )
        await self._store.put_token(row)
        self._keys[row.token] = row
        return NewKey(customer=customer, key=row.token, secret=secret)


def _checked_rate(per_minute: int) -> int:
    if not 0 <= per_minute <= REQUESTS_PER_MINUTE_MAX:
        raise NotAllowed(f"Requests per minute go from 0 to {REQUESTS_PER_MINUTE_MAX}.")
    return per_minute
