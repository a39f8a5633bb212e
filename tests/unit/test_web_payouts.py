"""The page of one payout: what it says, to whom, and how its amount came together, to the wei."""

import dataclasses
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from webpool import NOW_MS, OPERATOR, WebPool, bearer, running, served, web_pool

from openpool.core import events as e
from openpool.core.events import Event
from openpool.core.money import events as m
from openpool.core.money.accounts import in_asset, worker_account
from openpool.core.money.events import OrderLine
from openpool.store.interface import EventFilter
from openpool.store.sqlite import SqliteStore
from openpool.treasury.journal import event_id
from openpool.web import payout_sources
from openpool.web.app import create_app
from openpool.web.money_pages import runs_of
from openpool.web.money_story import MoneyStory
from openpool.web.payout_sources import sources_of
from openpool.web.shapes import TransferView
from openpool.web.storybook import Story

OTHER = "0x" + "22" * 20
WALLET = "0x" + "33" * 20
TXS = tuple(f"0x{n:064x}" for n in (17, 18))
HTML = {"accept": "text/html"}
EXPLORER = "https://scan.example/arb"
ROUND_MS = 1_000


def credit(job: str, address: str, wei: int, time_ms: int) -> Event:
    fee = e.FeeCredited(
        job=job, orchestrator="o", worker="w", address=address, pixels=wei, price_wei="1",
        price_source="config", fee_wei=str(wei), carry="0/1", commission_ppm=0,
        worker_wei=str(wei),
    )  # fmt: skip
    return Event(id=f"{job}/fee-credited", time_ms=time_ms, data=fee)


def line(address: str, wei: int) -> OrderLine:
    return OrderLine(
        account=worker_account(address), address=address, amount_wei=str(wei), send_wei=str(wei)
    )


def planned(order: str, lines: Sequence[OrderLine]) -> m.OrderPlanned:
    total = str(sum(int(each.send_wei) for each in lines))
    return m.OrderPlanned(
        order=order, wallet=WALLET, chain_id=42161, kind="batch-payout", asset="ETH", to=OTHER,
        value_wei=total, data="0x", lines=tuple(lines), note="run",
    )  # fmt: skip


def signed(order: str, attempt: int) -> m.OrderSigned:
    return m.OrderSigned(
        order=order, wallet=WALLET, attempt=attempt, nonce=41, tx=TXS[attempt - 1], raw="0x",
        gas_limit=60_000, max_fee_wei=str(10**8 * attempt), priority_fee_wei="0",
    )  # fmt: skip


def confirmed(order: str, lines: Sequence[OrderLine], tx: str) -> m.OrderConfirmed:
    return m.OrderConfirmed(
        order=order, wallet=WALLET, kind="batch-payout", asset="ETH", tx=tx, block=77,
        block_hash="0x7", fee_wei="4000", lines=tuple(lines),
    )  # fmt: skip


def told(*facts: e.AnyPayload, time_ms: int = NOW_MS) -> list[Event]:
    return [Event(id=event_id(data, 0), time_ms=time_ms, data=data) for data in facts]


def history(owner: str) -> list[Event]:
    """Two rounds of work, and two payouts to two addresses; one is on its way."""
    first, second = [line(owner, 500), line(OTHER, 900)], [line(OTHER, 100), line(owner, 70)]
    starts = [
        Event(
            id=f"round/{number}", time_ms=NOW_MS + n * ROUND_MS,
            data=m.RoundStarted(round=number, source="clock"),
        )
        for n, number in enumerate((31, 32))
    ]  # fmt: skip
    return [
        starts[0],
        credit("a", owner, 300, NOW_MS + 10),
        credit("b", owner, 200, NOW_MS + 20),
        credit("c", OTHER, 1000, NOW_MS + 20),
        *told(planned("batch-1", first), signed("batch-1", 1), confirmed("batch-1", first, TXS[0])),
        credit("d", owner, 30, NOW_MS + ROUND_MS),  # booked for the very end of round 31
        starts[1],
        credit("e", owner, 45, NOW_MS + ROUND_MS + 10),
        *told(
            planned("batch-2", second),
            *(signed("batch-2", 1), m.OrderSent(order="batch-2", tx=TXS[0], answer="underpriced")),
            *(signed("batch-2", 2), m.OrderSent(order="batch-2", tx=TXS[1], answer="ok")),
        ),
    ]


@asynccontextmanager
async def paying(
    directory: Path, explorer: str = ""
) -> AsyncIterator[tuple[WebPool, httpx.AsyncClient, str]]:
    """A pool with that history, of which a worker's owner is part; and the owner's address."""
    async with web_pool(directory) as pool:
        row = pool.store.worker(await pool.enrol("aurora"))
        assert row is not None
        await pool.append(*history(row.address))
        app = create_app(dataclasses.replace(pool.deps, explorer=explorer))
        async with (
            served(dataclasses.replace(pool, app=app)) as base,
            httpx.AsyncClient(base_url=base, timeout=10) as client,
        ):
            yield pool, client, row.address


async def test_the_operator_sees_all_of_it(tmp_path: Path) -> None:
    """Everybody it pays, every attempt with its nonce and fate, and how it stands in a sentence."""
    async with paying(tmp_path) as (pool, client, owner):
        page = (await client.get("/payouts/batch-2", headers=HTML | bearer(OPERATOR))).text
        assert "It was sent 2 times, each with more fee, and waits for a block" in page
        assert "Pays many addresses in one transaction." in page
        assert f"/payouts/batch-2?address={owner}" in page
        assert f"/payouts/batch-2?address={OTHER}" in page
        assert all(tx in page for tx in TXS)
        assert page.index(">sent<") < page.index(">replaced<")
        assert "the chain says: underpriced" in page
        assert "pool:tick" in page
        lines = [line(OTHER, 100), line(owner, 70)]
        await pool.append(*told(confirmed("batch-2", lines, TXS[1])))
        page = (await client.get("/payouts/batch-2", headers=HTML | bearer(OPERATOR))).text
        assert "It is done: in final block 77" in page
        assert "pool:tick" not in page  # nothing changes any more
        assert ">never mined<" in page


async def test_owners_see_their_own_part(tmp_path: Path) -> None:
    """An owner sees their line of a payout to many and nothing of others; nobody else sees any of
    it, and what is not theirs is as if it were not there."""
    async with paying(tmp_path) as (pool, client, owner):
        answer = await client.get("/payouts/batch-1", headers=HTML)
        assert answer.status_code in (303, 401)
        mine = HTML | bearer(pool.tokens["aurora"])
        page = (await client.get("/payouts/batch-1", headers=mine)).text
        assert owner in page
        assert "of a payout to 2 addresses" in page
        assert worker_account(OTHER) not in page
        assert "900" not in page
        answer = await client.get(f"/payouts/batch-1?address={OTHER}", headers=mine)
        assert answer.status_code == 403
        await pool.append(*told(planned("payout-3", [line(OTHER, 1)])))
        other = await client.get("/payouts/payout-3", headers=mine)
        nothing = await client.get("/payouts/payout-4", headers=mine)
        assert (other.status_code, nothing.status_code) == (404, 404)
        assert other.text.replace("payout-3", "payout-4") == nothing.text
        lists = [(await client.get(path, headers=mine)).text for path in ("/earnings", "/events")]
        assert 'href="/payouts/batch-1"' in lists[0]


async def test_what_a_payout_is_made_of(tmp_path: Path) -> None:
    """Entries since the payout before, by rounds; what is booked for the end of a round is its."""
    async with paying(tmp_path) as (pool, _, owner):
        account = worker_account(owner)
        found = sources_of(pool.store, account, "order/batch-2/planned/set-aside/2", 70)
        assert [(part.round, part.entries, part.amount_wei) for part in found.parts] == [
            (32, 1, 45),
            (31, 1, 30),
        ]
        assert (found.left_wei, found.payout_before, found.is_whole) == (-5, "batch-1", True)
        first = sources_of(pool.store, account, "order/batch-1/planned/set-aside/1", 500)
        assert (first.left_wei, first.payout_before) == (0, "")
        part = sources_of(
            pool.store, worker_account(OTHER), "order/batch-2/planned/set-aside/1", 100
        )
        assert (part.parts, part.left_wei) == ((), 100)


async def test_more_entries_than_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the oldest of them are one sum, and the page says so."""
    monkeypatch.setattr(payout_sources, "PAGE", 1)
    monkeypatch.setattr(payout_sources, "ENTRIES_MAX", 1)
    async with paying(tmp_path) as (pool, client, owner):
        found = sources_of(
            pool.store, worker_account(owner), "order/batch-1/planned/set-aside/1", 500
        )
        assert (found.left_wei, found.is_whole) == (300, False)
        path = f"/payouts/batch-1?address={owner}"
        page = (await client.get(path, headers=HTML | bearer(OPERATOR))).text
        assert "earlier entries, together" in page


async def test_every_payout_of_a_month_adds_up(tmp_path: Path) -> None:
    """Parts and what was left come to the amount, to the wei, and nothing is paid twice: the parts
    of all payouts to an address are no more than what it was ever credited."""
    work = Story(start_ms=NOW_MS - 3_600_000, end_ms=NOW_MS, per_minute=1).events()
    story = [*work, *MoneyStory(end_ms=NOW_MS, work=work).events()]
    async with web_pool(tmp_path, story, money=True) as pool:
        payouts = pool.deps.payouts
        assert payouts
        seen = 0
        for order in await payouts.orders("", "", 200):
            for number, each in enumerate(order.lines, 1):
                account = in_asset(order.asset, each.account)
                set_aside = f"order/{order.order}/0/set-aside/{number}"
                found = sources_of(pool.store, account, set_aside, int(each.amount_wei))
                parts_wei = sum(part.amount_wei for part in found.parts)
                assert parts_wei + found.left_wei == int(each.amount_wei)
                assert parts_wei == moved_between(pool.store, account, set_aside)
                seen += 1
        assert seen > 20


def moved_between(store: SqliteStore, account: str, set_aside: str) -> int:
    """The same, counted by going through all of the account's entries forwards."""
    since_wei = 0
    for entry in reversed(store.transfers(account=account, limit=100_000)):
        if entry.id == set_aside:
            return since_wei
        signed_wei = entry.amount_wei if entry.credit == account else -entry.amount_wei
        paid = entry.kind == "set-aside" and entry.debit == account
        since_wei = 0 if paid else since_wei + signed_wei
    raise AssertionError(f"{set_aside} is not in the books")


@pytest.mark.parametrize("path", ["/money", "/earnings", "/payouts/batch-1"])
async def test_chain_links_where_there_is_an_explorer(tmp_path: Path, path: str) -> None:
    """Addresses and transactions lead to it, without telling it where from; without one no page
    has a link to another host, and the hash is there all the same."""
    who = bearer(OPERATOR)
    async with paying(tmp_path / "with", EXPLORER) as (_, client, owner):
        where = f"{path}?address={owner}" if path != "/money" else path
        page = (await client.get(where, headers=HTML | who)).text
        if path != "/money":  # this pool pays nobody, so the page of money has no orders
            assert f'href="{EXPLORER}/address/{owner}"' in page
        if path.startswith("/payouts"):
            assert f'href="{EXPLORER}/tx/{TXS[0]}"' in page
            assert f'href="{EXPLORER}/block/77"' in page
        links = [part for part in page.split("<a ")[1:] if EXPLORER in part.partition(">")[0]]
        assert all('rel="noopener noreferrer"' in link.partition(">")[0] for link in links)
    async with paying(tmp_path / "without") as (_, client, owner):
        where = f"{path}?address={owner}" if path != "/money" else path
        page = (await client.get(where, headers=HTML | who)).text
        assert 'href="http' not in page
        if path.startswith("/payouts"):
            assert TXS[0] in page


async def test_an_order_is_found_by_its_whole_name(tmp_path: Path) -> None:
    """Not by the beginning of one, nor by what would mean something to a database."""
    async with paying(tmp_path) as (pool, client, _):
        assert pool.store.events(EventFilter(id_prefix="order/batch-"))
        for name in ("batch-", "batch", "batch-%25", "BATCH-1", "batch-11"):
            answer = await client.get(f"/payouts/{name}", headers=HTML | bearer(OPERATOR))
            assert answer.status_code == 404, name


async def test_events_and_ledger_lead_there(tmp_path: Path) -> None:
    """The feed and the ledger link orders to their page."""
    story = told(planned("batch-1", []), m.OrderVoided(
        order="batch-1", wallet=WALLET, kind="reward", asset="ETH", reason="It failed.",
        fee_wei="7",
    ))  # fmt: skip
    async with running(tmp_path, story) as (_, client):
        for path in ("/events", "/ledger"):
            page = (await client.get(path, headers=HTML | bearer(OPERATOR))).text
            assert 'href="/payouts/batch-1"' in page, path
        page = (await client.get("/payouts/batch-1", headers=HTML | bearer(OPERATOR))).text
        assert "It was given up: It failed." in page
        assert "What was set aside went back" not in page


def test_repetitions_are_folded() -> None:
    """Entries stay as they are and in their order; only long rows of one kind fold, and a row of
    little more than what is shown does not."""
    account = worker_account(OTHER)

    def entry(number: int, kind: str) -> TransferView:
        debit, to = (account, "in-flight") if kind == "set-aside" else (f"fees:{number}", account)
        return TransferView(
            id=str(number), event_id=f"{number}", time_ms=0, debit=debit, credit=to,
            amount_wei="1", kind=kind,
        )  # fmt: skip

    entries = [entry(n, "set-aside" if n == 9 else "fee") for n in range(17)]
    runs = runs_of(entries, account)
    assert [each for run in runs for each in run.shown + run.folded] == entries
    assert [(len(run.shown), len(run.folded)) for run in runs] == [(5, 4), (1, 0), (7, 0)]
