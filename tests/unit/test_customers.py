"""Customers of the pool's own API on the real store: keys, limits, and what they have spent."""

from collections.abc import AsyncIterator
from fractions import Fraction
from pathlib import Path

import pytest

from openpool.core.customers import (
    RequestMeter,
    SpendLimitReached,
    amount_wei,
    payer,
)
from openpool.core.errors import BadMessage, LimitReached, NotAllowed, OpenPoolError, Unauthorized
from openpool.core.events import CallFailed, CommissionTaken, Event, FeeCredited
from openpool.core.units import ETHER
from openpool.pool.customers import Customers
from openpool.pool.spending import Spending
from openpool.store.interface import EventFilter
from openpool.store.sqlite import SqliteStore

HOUR_MS = 3_600_000


class Clock:
    """Time that stands still unless it is moved."""

    def __init__(self) -> None:
        self.now_ms = 1_790_000_000_000

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(tmp_path) as store:
        yield store


async def started(store: SqliteStore, clock: Clock, *, per_minute: int = 600) -> Customers:
    """What a start of the pool makes over the one store."""
    customers = Customers(
        store=store,
        clock_ms=clock,
        secret_key=b"k" * 32,
        requests_per_minute=per_minute,
        wei_per_usd=lambda: ETHER // 2000,
        grace_ms=HOUR_MS,
    )
    await customers.start()
    return customers


async def test_a_key_is_recognised_after_a_restart_and_never_stored(
    store: SqliteStore, clock: Clock
) -> None:
    """A customer's key works at once and after a restart; the disk holds only a hash of it."""
    customers = await started(store, clock)
    made = await customers.add("Ann")
    assert customers.admit(made.secret) == made.customer
    again = await started(store, clock)
    assert again.admit(made.secret) == made.customer
    (row,) = store.tokens(made.customer)
    assert made.secret.encode() not in row.secret_hash
    assert row.token == made.key


@pytest.mark.parametrize(
    "secret", ["", "sk-", "op_abc", "sk-" + "a" * 12 + "-" + "b" * 52, "sk-\x00é", "x" * 10_000]
)
async def test_a_wrong_key_is_refused_in_one_sentence(
    store: SqliteStore, clock: Clock, secret: str
) -> None:
    """Whatever is shown instead of a key is Unauthorized."""
    customers = await started(store, clock)
    with pytest.raises(Unauthorized, match="API key"):
        customers.admit(secret)


async def test_a_rotated_key_works_for_a_grace_period(store: SqliteStore, clock: Clock) -> None:
    """Rotation needs no downtime: the old key works on for a while, the new one at once."""
    customers = await started(store, clock)
    old = await customers.add("Ann")
    new = await customers.rotate(old.customer)
    assert customers.admit(old.secret) == customers.admit(new.secret) == old.customer
    clock.now_ms += HOUR_MS
    with pytest.raises(Unauthorized, match="replaced"):
        customers.admit(old.secret)
    assert customers.admit(new.secret) == old.customer


async def test_a_revoked_key_is_worthless_at_once_and_for_ever(
    store: SqliteStore, clock: Clock
) -> None:
    """Revoking one key leaves the others; revoking all leaves none, also after a restart."""
    customers = await started(store, clock)
    first = await customers.add("Ann")
    second = await customers.rotate(first.customer)
    assert await customers.revoke(first.customer, first.key) == 1
    with pytest.raises(Unauthorized, match="revoked"):
        customers.admit(first.secret)
    assert customers.admit(second.secret)
    assert await customers.revoke(first.customer) == 1
    again = await started(store, clock)
    with pytest.raises(Unauthorized, match="revoked"):
        again.admit(second.secret)
    with pytest.raises(NotAllowed, match="no key"):
        await again.revoke(first.customer, "nope")


async def test_requests_per_minute_are_limited_per_customer(
    store: SqliteStore, clock: Clock
) -> None:
    """A minute's worth may come at once; then one per interval, and others are not touched."""
    customers = await started(store, clock, per_minute=3)
    ann, ben = await customers.add("Ann"), await customers.add("Ben", requests_per_minute=60)
    for _ in range(3):
        customers.admit(ann.secret)
    with pytest.raises(LimitReached, match="3 requests a minute; try again in 20"):
        customers.admit(ann.secret)
    customers.admit(ben.secret)
    clock.now_ms += 20_001
    customers.admit(ann.secret)
    with pytest.raises(LimitReached):
        customers.admit(ann.secret)
    await customers.set_limits(ann.customer, requests_per_minute=60)
    clock.now_ms += 1_000
    customers.admit(ann.secret)


def fee(customer: str, amount_wei: int) -> list[Event]:
    job = f"j{amount_wei}"
    data = FeeCredited(
        job=job,
        orchestrator=payer(customer),
        worker="w",
        address="0xw",
        pixels=amount_wei,
        price_wei="1",
        price_source="config",
        fee_wei=str(amount_wei),
        carry="0/1",
        commission_ppm=250_000,
        worker_wei=str(amount_wei - amount_wei // 4),
    )
    kept = CommissionTaken(
        job=job,
        orchestrator=payer(customer),
        worker="w",
        commission_wei=str(amount_wei // 4),
    )
    return [
        Event(id=f"{job}/{each.type}", time_ms=1_790_000_000_000, data=each)
        for each in (data, kept)
    ]


async def test_spending_is_what_the_ledger_says(store: SqliteStore, clock: Clock) -> None:
    """Fees count against the limit as they are recorded, and again after a restart, exactly."""
    customers = await started(store, clock)
    ann = await customers.add("Ann", spend_limit="1000 wei")
    feed = store.subscribe()
    await store.append(fee(ann.customer, 999)).durable()
    customers.count(await anext(feed))
    assert customers.get(ann.customer).spent_wei == 999
    assert customers.get(ann.customer).calls == 1, "a segment of video"
    customers.admit(ann.secret)
    await store.append(fee(ann.customer, 1)).durable()
    again = await started(store, clock)
    assert (again.get(ann.customer).spent_wei, again.get(ann.customer).calls) == (1000, 2)
    with pytest.raises(SpendLimitReached, match="higher limit"):
        again.admit(ann.secret)
    await again.paid(ann.customer, "1 wei", "INV-1", "operator")
    again.admit(ann.secret)
    await again.set_limits(ann.customer, spend_limit="none")
    again.admit(ann.secret)


async def test_a_payment_counts_once_and_lowers_what_is_owed(
    store: SqliteStore, clock: Clock
) -> None:
    """A payment moves from the operator's account to the customer's, once for each reference, at
    once and after a restart; what was paid in advance may be spent beside the limit."""
    customers = await started(store, clock)
    ann = await customers.add("Ann", spend_limit="1 wei")
    feed = store.subscribe()
    await store.append(fee(ann.customer, 1000)).durable()
    customers.count(await anext(feed))
    with pytest.raises(SpendLimitReached):
        customers.admit(ann.secret)
    for _ in range(2):
        found = await customers.paid(ann.customer, "0.000005 gwei", " INV-7 ", "operator")
        assert (found.spent_wei, found.paid_wei, found.owed_wei) == (1000, 5000, -4000)
    customers.count(await anext(feed))
    customers.admit(ann.secret)
    again = await started(store, clock)
    assert again.get(ann.customer) == customers.get(ann.customer) == found
    balances = {each.account: each.amount_wei for each in store.balances()}
    assert balances["operator"] == -5000
    assert balances[f"customer:{ann.customer}"] == 4000
    assert sum(balances.values()) == 0
    with pytest.raises(NotAllowed, match="INV-7 is in the books with 5000 wei"):
        await again.paid(ann.customer, "6000 wei", "INV-7", "operator")


@pytest.mark.parametrize(
    ("amount", "reference", "words"),
    [
        ("0 wei", "x", "more than nothing"),
        ("-1 wei", "x", "number and a unit"),
        ("1 wei", "  ", "reference"),
        ("1 wei", "a\nb", "reference"),
        ("1 wei", "x" * 61, "reference"),
    ],
)
async def test_what_is_no_payment_is_refused(
    store: SqliteStore, clock: Clock, amount: str, reference: str, words: str
) -> None:
    """A payment has an amount above nothing and a reference; nothing is stored of others."""
    customers = await started(store, clock)
    ann = await customers.add("Ann")
    with pytest.raises(BadMessage, match=words):
        await customers.paid(ann.customer, amount, reference, "operator")
    with pytest.raises(NotAllowed, match="no customer"):
        await customers.paid("c_nobody", "1 wei", "INV-1", "operator")
    assert store.events(EventFilter(types=("customer-paid",))) == []


async def test_fees_that_a_slow_follower_missed_are_found_in_the_log(
    store: SqliteStore, clock: Clock
) -> None:
    """Where the numbers of events jump, what is missing is read from the log, and nothing counts
    twice."""
    customers = await started(store, clock)
    ann = await customers.add("Ann")
    spending = Spending(store)
    await spending.start()
    feed, batches = store.subscribe(), []
    for amount in (100, 20, 3):
        await store.append(fee(ann.customer, amount)).durable()
        batches.append(await anext(feed))
    await spending.follow(batches[2])
    assert spending.purse(ann.customer).spent_wei == 123
    await spending.follow(batches[1])
    assert spending.purse(ann.customer).spent_wei == 123


async def test_calls_side_by_side_hold_what_they_may_cost(store: SqliteStore, clock: Clock) -> None:
    """Of many calls at once only so many begin as the limit can pay; an end in the log frees what
    was held, and the fee takes its place."""
    customers = await started(store, clock)
    ann = await customers.add("Ann", spend_limit="1000 wei")
    price = Fraction(3, 2)
    customers.begin("a", ann.customer, price, 400)
    with pytest.raises(SpendLimitReached, match="held for your calls that run"):
        customers.begin("b", ann.customer, price, 300)
    customers.begin("c", ann.customer, price, 266)
    customers.so_far("c", 200)
    with pytest.raises(SpendLimitReached):
        customers.so_far("c", 267)
    with pytest.raises(SpendLimitReached):
        customers.admit(ann.secret)
    feed = store.subscribe()
    await store.append([failed("a", ann.customer), failed("c", ann.customer)]).durable()
    customers.count(await anext(feed))
    customers.admit(ann.secret)
    customers.begin("d", ann.customer, price, 5000)  # alone it may, whatever the estimate says
    assert customers.get(ann.customer).calls_failed == 2


def failed(job: str, customer: str) -> Event:
    data = CallFailed(
        job=job, source="direct", customer=customer, orchestrator="", pipeline="llm", model="m",
        code="timeout", reason="late", started=False, attempts=1, took_ms=1,
    )  # fmt: skip
    return Event(id=f"{job}/failed", time_ms=1_790_000_000_000, data=data)


@pytest.mark.parametrize(
    ("text", "wei"),
    [
        ("20 USD", 20 * ETHER // 2000),
        ("0.5 ETH", ETHER // 2),
        ("3gwei", 3 * 10**9),
        ("7 wei", 7),
        ("0.000000000000000001 ETH", 1),
    ],
)
def test_amounts_are_exact(text: str, wei: int) -> None:
    """Amounts are read as fractions, never as floats."""
    assert amount_wei(text, ETHER // 2000) == wei


@pytest.mark.parametrize("text", ["", "20", "-1 ETH", "1e3 wei", "20 EUR", "1/2 ETH", "٣ wei"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    """A limit that cannot be read is one sentence with examples."""
    with pytest.raises(BadMessage, match="number and a unit"):
        amount_wei(text, 1)


def test_usd_needs_a_rate() -> None:
    """Without a rate nothing is guessed."""
    with pytest.raises(BadMessage, match="no rate"):
        amount_wei("1 USD", 0)


def test_the_meter_gives_back_evenly() -> None:
    """Over ten minutes of asking all the time, exactly the burst and the rate come through."""
    meter, taken = RequestMeter(), 0
    for now_ms in range(0, 600_000, 100):
        taken += meter.take(now_ms, 30) == 0
    assert taken == 30 + 299


@pytest.mark.parametrize("name", ["", "   ", "x" * 61, "a\nb"])
async def test_a_bad_name_makes_no_customer(store: SqliteStore, clock: Clock, name: str) -> None:
    """Names are short and printable; nothing is stored of others."""
    customers = await started(store, clock)
    with pytest.raises(OpenPoolError, match="name"):
        await customers.add(name)
    assert customers.all() == store.customers() == []
