"""The table of earnings: years, pages, payouts that came back, LPT, and US dollars."""

import csv
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace
from statement_log import BOB, HOT, MoneyLog

from openpool.core.events import CallReceived, Event
from openpool.core.money import events as money
from openpool.core.money.events import OrderLine
from openpool.store.sqlite import SqliteStore
from openpool.web import earnings
from openpool.web.earnings import Row, csv_text, decimal, rows


@asynccontextmanager
async def store_of(folder: Path, log: MoneyLog) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(folder / "data") as store:
        await store.append([event for _, event in log.entries]).durable()
        yield store


async def test_pages_and_balances_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many pages it takes, each balance is the one before plus the amount."""
    monkeypatch.setattr(earnings, "PAGE", 7)
    log = MoneyLog()
    log.round(1)
    log.work(60)
    log.paid("p", BOB, 500)
    async with store_of(tmp_path, log) as store:
        found = rows(store, BOB)
        owed = {b.account: b.amount_wei for b in store.balances()}[f"worker:{BOB}"]
    balance = 0
    for row in found:
        balance += row.amount_wei
        assert row.balance_wei == balance
    assert balance == owed
    assert found[-1].kind == "payout"


async def test_a_year_has_its_own_rows_and_goes_on_from_the_last(tmp_path: Path) -> None:
    """Rows of other years are left out, and the balance still counts them."""
    log = MoneyLog()
    log.work(20)
    old = [
        (seq, replace(event, time_ms=int(datetime(2024, 7, 1, tzinfo=UTC).timestamp()) * 1000))
        for seq, event in log.entries
    ]
    log.entries = list(old)
    log.work(20)
    async with store_of(tmp_path, log) as store:
        every, before, after = (rows(store, BOB, year) for year in (0, 2024, 2026))
        assert rows(store, BOB, 2025) == []
    assert before + after == every
    assert after[0].balance_wei == before[-1].balance_wei + after[0].amount_wei


async def test_a_payout_that_was_voided_comes_back(tmp_path: Path) -> None:
    """Both movements are there, and no transaction is named for what never happened."""
    log = MoneyLog()
    log.work(20)
    line = OrderLine(account=f"worker:{BOB}", address=BOB, amount_wei="9", send_wei="9")
    planned = money.OrderPlanned(
        order="x",
        wallet=HOT,
        chain_id=1,
        kind="payout",
        asset="ETH",
        to=BOB,
        value_wei="9",
        data="0x",
        lines=(line,),
    )
    log.add("order/x/planned", planned)
    voided = money.OrderVoided(
        order="x", wallet=HOT, kind="payout", asset="ETH", reason="gone", lines=(line,)
    )
    log.add("order/x/ended", voided)
    async with store_of(tmp_path, log) as store:
        last = rows(store, BOB)[-2:]
    assert [(row.kind, row.amount_wei, row.tx) for row in last] == [
        ("payout", -9, ""),
        ("payout returned", 9, ""),
    ]


async def test_rewards_in_lpt_have_a_balance_of_their_own(tmp_path: Path) -> None:
    """They stand before the ETH and do not mix with it."""
    log = MoneyLog()
    log.work(3)
    log.add("r", money.RewardShared(orchestrator="o", round=1, address=BOB, amount_lpt="77"))
    async with store_of(tmp_path, log) as store:
        found = rows(store, BOB)
    assert (found[0].asset, found[0].kind, found[0].balance_wei) == ("LPT", "reward", 77)
    assert {row.asset for row in found[1:]} <= {"ETH"}


async def test_a_call_with_a_price_in_usd_is_told_in_usd(tmp_path: Path) -> None:
    """At the rate that was recorded with the call; other work has none."""
    log = MoneyLog()
    log.work(30)
    fee = next(fee for fee in log.fees_since(0) if fee.address == BOB and int(fee.worker_wei) > 999)
    call = CallReceived(
        job=fee.job,
        source="direct",
        customer="c",
        orchestrator="",
        pipeline="llm",
        model="m",
        session="",
        streaming=False,
        deadline_ms=0,
        unit="token",
        price_wei="1",
        price_source="config",
        usd="1 per 1",
        wei_per_usd=fee.worker_wei,
    )
    log.entries.append((log.seq + 1, Event(id="c", time_ms=1, data=call)))
    async with store_of(tmp_path, log) as store:
        table = list(csv.DictReader(io.StringIO(csv_text(rows(store, BOB)))))
    assert {row["usd"] for row in table if row["reference"] == fee.job} == {"1.000000"}
    assert {row["usd"] for row in table if row["reference"] != fee.job} == {""}


def test_a_reference_cannot_become_a_formula() -> None:
    """Whatever a job is called."""
    row = Row(
        time_ms=0,
        kind="work",
        reference='=HYPERLINK("http://x","y")',
        asset="ETH",
        amount_wei=-5,
        usd="",
        balance_wei=0,
        tx="",
    )
    (shown,) = csv.DictReader(io.StringIO(csv_text([row])))
    assert shown["reference"] == "'" + row.reference
    assert (shown["amount_wei"], shown["amount"]) == ("-5", "-0.000000000000000005")


@pytest.mark.parametrize(
    ("wei", "text"),
    [(0, "0.000000000000000000"), (10**18, "1.000000000000000000"), (-1, "-0.000000000000000001")],
)
def test_decimals_are_exact(wei: int, text: str) -> None:
    """All 18 digits, whatever the sign."""
    assert decimal(wei) == text
