"""What /money shows, at size: a year of rounds, 1,000 workers and 10,000 payouts in the log.

The log is real; of the chain there is only its number, for a view asks nothing of it.
"""

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import islice
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import msgspec

from benchmarks.report import Row, percentile, report
from openpool.core.events import AnyPayload, Event, FeeCredited
from openpool.core.money import events as money
from openpool.core.money.accounts import WORKER, worker_account
from openpool.core.money.payout_plan import Rules, Standing, plan
from openpool.core.payment import SURE
from openpool.core.units import ETHER, commission
from openpool.store.sqlite import SqliteStore
from openpool.treasury.books import RevenueBooks
from openpool.treasury.desk import RevenueDesk
from openpool.treasury.payer import Payer, PayerOptions
from openpool.treasury.payer_view import PayerView
from openpool.treasury.planner import PlannerOptions

WORKERS = 1_000
ROUNDS = 365
PAYOUTS = 10_000
WORKED_ROUNDS = 30
"""The last rounds, in which every worker earns something. What was earned before stands in the
events that closed those rounds, which is all that is read of them."""
TICKETS = 4
"""Winning ones in a round."""
BATCH = 4_000
LAPS = 30
START_MS = 1_700_000_000_000
DAY_MS = 86_400_000
FACE_WEI = 10**16
FEE_WEI = 10**14
WALLET = "0x" + "aa" * 20
NAME = "main"
RULES = Rules(threshold_wei=FEE_WEI, minimum_wei=FEE_WEI, per_day_max_wei=100 * ETHER)


def address(worker: int) -> str:
    return f"0x{worker:040x}"


# --- the log --------------------------------------------------------------------------------------


def story() -> Iterator[Event]:
    """The log of a year, as far as money reads it."""
    claim = money.ClaimOpened(
        orchestrator=NAME, address=address(10**6), round=0, block=1, pending_wei="0"
    )
    yield Event(id="opened", time_ms=START_MS, data=claim)
    for number in range(ROUNDS):
        at_ms = START_MS + number * DAY_MS
        for place, data in enumerate(a_round(number)):
            yield Event(id=f"round/{number}/{place}", time_ms=at_ms, data=data)
        for payout in range(number * PAYOUTS // ROUNDS, (number + 1) * PAYOUTS // ROUNDS):
            for place, data in enumerate(a_payout(payout, payout % WORKERS, FEE_WEI // 2)):
                yield Event(id=f"payout/{payout}/{place}", time_ms=at_ms, data=data)


def a_round(number: int) -> Iterator[AnyPayload]:
    """Work, winning tickets, and the end of the round before."""
    random = Random(number)
    yield money.RoundStarted(round=number, source="chain", block=number * 1_000 + 1)
    if number:
        yield closed(number - 1)
    for worker in range(WORKERS if number >= ROUNDS - WORKED_ROUNDS else 0):
        yield credited(f"j{number}.{worker}", worker, FEE_WEI + random.randrange(FEE_WEI))
    for ticket in range(TICKETS):
        yield money.TicketRedeemed(
            orchestrator=NAME,
            round=number,
            gateway=address(10**7),
            face_value_wei=str(FACE_WEI),
            paid_wei=str(FACE_WEI),
            win_prob=str(SURE // 40_000),
            tx=f"0x{number:060x}{ticket:04x}",
            log_index=ticket,
        )
    yield money.RevenueRealised(
        orchestrator=NAME,
        round=number,
        from_block=number * 1_000 + 1,
        to_block=number * 1_000 + 1_000,
        amount_wei=str(TICKETS * FACE_WEI),
        paid_wei=str(TICKETS * FACE_WEI),
        tickets=TICKETS,
        pending_wei=str((number + 1) * TICKETS * FACE_WEI),
    )


def credited(job: str, worker: int, fee_wei: int) -> FeeCredited:
    _, paid = commission(fee_wei, 250_000)
    return FeeCredited(
        job=job,
        orchestrator=NAME,
        worker=f"w{worker}",
        address=address(worker),
        pixels=fee_wei,
        price_wei="1",
        price_source="config",
        fee_wei=str(fee_wei),
        carry="0/1",
        commission_ppm=250_000,
        worker_wei=str(paid),
    )


def closed(number: int) -> money.RevenueReconciled:
    return money.RevenueReconciled(
        orchestrator=NAME,
        round=number,
        expected_wei=str(WORKERS * FEE_WEI * 3 // 2),
        realised_wei=str(TICKETS * FACE_WEI),
        claim_chain_wei="0",
        claim_books_wei="0",
        difference_wei="0",
        explanation="What tickets brought differs from the work's worth by luck alone.",
    )


def a_payout(number: int, worker: int, amount_wei: int) -> Iterator[AnyPayload]:
    """From the plan to the final block."""
    order, tx, where = f"payout-{number}", f"0x{number:064x}", f"0x{number:064x}"
    line = money.OrderLine(
        account=worker_account(address(worker)),
        address=address(worker),
        amount_wei=str(amount_wei),
        send_wei=str(amount_wei),
    )
    yield money.OrderPlanned(
        order=order,
        wallet=WALLET,
        chain_id=1,
        kind="payout",
        asset="ETH",
        to=address(worker),
        value_wei=str(amount_wei),
        data="0x",
        lines=(line,),
        note="",
    )
    yield money.OrderSigned(
        order=order,
        wallet=WALLET,
        attempt=1,
        nonce=number,
        tx=tx,
        raw="0x" + "ab" * 120,
        gas_limit=21_000,
        max_fee_wei="100000000",
        priority_fee_wei="0",
    )
    yield money.OrderSent(order=order, tx=tx, answer="ok")
    yield money.OrderMined(order=order, tx=tx, block=number, block_hash=where)
    yield money.OrderConfirmed(
        order=order,
        wallet=WALLET,
        kind="payout",
        asset="ETH",
        tx=tx,
        block=number,
        block_hash=where,
        fee_wei="1000000",
        lines=(line,),
    )


def write(store: SqliteStore) -> None:
    log = story()
    while batch := list(islice(log, BATCH)):
        store.append(batch).wait()


# --- the views ------------------------------------------------------------------------------------


def clock_ms() -> int:
    return START_MS + ROUNDS * DAY_MS


def desk_of(store: SqliteStore) -> RevenueDesk:
    return RevenueDesk(
        books=RevenueBooks(store), orchestrators={NAME: ""}, clock_ms=clock_ms, wallets=[WALLET]
    )


async def payer_of(store: SqliteStore) -> Payer:
    """A payer that has read the log and made a plan for everybody, of whom half must wait."""
    chain: Any = SimpleNamespace(chain_id=1)
    signer: Any = SimpleNamespace(address=WALLET)
    options = PayerOptions(planner=PlannerOptions(rules=RULES))
    payer = Payer(chain=chain, signer=signer, store=store, clock_ms=clock_ms, options=options)
    await payer.start()
    owed = await payer.journal.owed(WORKER)
    total_wei = sum(owed.values())
    standing = Standing(owed=owed, funds_wei=total_wei // 2, gas_wei=1, gas_most_wei=2)
    payer.last_plan = plan("ETH", RULES, standing)
    return payer


async def laps_ms(
    work: Callable[[], Awaitable[object]], between: Callable[[int], Awaitable[object]] | None = None
) -> list[float]:
    """How long each of some runs took; `between` happens before each, outside the time."""
    took = []
    for lap in range(LAPS):
        if between:
            await between(lap)
        start = time.perf_counter()
        await work()
        took.append((time.perf_counter() - start) * 1_000)
    return took


def told(took: list[float]) -> str:
    return f"{percentile(took, 50):.1f} and {percentile(took, 95):.1f} ms"


async def measure(store: SqliteStore) -> list[Row]:
    async def more_work(lap: int) -> None:
        data = credited(f"late{lap}", lap, FEE_WEI)
        event = Event(id=f"late/{lap}", time_ms=clock_ms(), data=data)
        await store.append([event]).durable()

    begun = time.perf_counter()
    desk = desk_of(store)
    revenue = await desk.view()
    desk_ms = (time.perf_counter() - begun) * 1_000
    begun = time.perf_counter()
    payer = await payer_of(store)
    payer_ms = (time.perf_counter() - begun) * 1_000
    payouts, owner = PayerView(payer), address(7)
    shown = await payouts.view()
    scan = told(await laps_ms(lambda: asyncio.to_thread(store.balances)))
    anew = told(await laps_ms(lambda: PayerView(payer).view()))
    return [
        Row(
            "revenue.view(), p50 and p95",
            told(await laps_ms(desk.view)),
            "<= 2 and 10 ms",
            f"{scan} to read all balances",
        ),
        Row("the same, after each fee", told(await laps_ms(desk.view, more_work))),
        Row(
            "payouts.view(), p50 and p95",
            told(await laps_ms(payouts.view)),
            "<= 2 and 10 ms",
            f"{anew} with the plan put in order anew",
        ),
        Row("the same, after each fee", told(await laps_ms(payouts.view, more_work))),
        Row("payouts.owner(), p50 and p95", told(await laps_ms(lambda: payouts.owner(owner)))),
        Row("reading the log at a start: revenue, orders", f"{desk_ms:.0f} and {payer_ms:.0f} ms"),
        Row(
            "size of the answers",
            f"{len(msgspec.json.encode(revenue)) // 1000} and "
            f"{len(msgspec.json.encode(shown)) // 1000} kB",
        ),
    ]


def main() -> None:
    """Write the log, then ask as pages do."""
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(Path(folder))
        begun = time.perf_counter()
        write(store)
        events, _ = store.head()
        written = f"{events:,} events, written in {time.perf_counter() - begun:.0f} s"
        rows = asyncio.run(measure(store))
        store.close()
    size = f"{WORKERS:,} workers, {ROUNDS} rounds, {PAYOUTS:,} payouts: {written}"
    report(f"Views of money, {size}", rows)


if __name__ == "__main__":
    main()
