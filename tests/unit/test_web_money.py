"""The pages about money: who may see what, what they say without a chain, hostile text in notes."""

import dataclasses
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from test_payout_views import orders
from webpool import NOW_MS, OPERATOR, WebPool, bearer, served, web_pool

from openpool.core import events as e
from openpool.core.events import Event
from openpool.core.money.events import Asset, OrderLine, OrderPlanned
from openpool.core.money.orders import STATES, OrderBook
from openpool.core.money.payout_plan import Plan, Rules, Waiting
from openpool.core.money.payout_views import (
    Chosen,
    NextPayout,
    NextPayouts,
    OrderView,
    OwnerView,
    PayoutsView,
    chosen_by,
    in_flight,
    orders_shown,
    owner_view,
)
from openpool.web.app import create_app

HOSTILE = '"><script>alert(1)</script>'
RULES = Rules(threshold_wei=10**15, minimum_wei=10**14)


class Payouts:
    """A window on an order book that nobody works on."""

    def __init__(self, owner: str) -> None:
        self.book = OrderBook()
        self.paused = ""
        self.plan = Plan(
            asset="ETH",
            payments=(),
            waiting=(Waiting(address=owner, amount_wei=5 * 10**14, why="Less than 0.001 ETH."),),
        )
        line = OrderLine(
            account=f"worker:{owner}", address=owner, amount_wei="7000", send_wei="7000"
        )
        planned = OrderPlanned(
            order="payout-1",
            wallet="0xw",
            chain_id=1,
            kind="payout",
            asset="ETH",
            to=owner,
            value_wei="7000",
            data="0x",
            lines=(line,),
            note=HOSTILE,
        )
        self.book.apply(Event(id="order/payout-1/planned", time_ms=NOW_MS, data=planned))

    async def view(self) -> PayoutsView:
        return PayoutsView(
            mode="on",
            wallet="0xw",
            chain_id=1,
            paused=self.paused,
            paused_by="operator" if self.paused else "",
            problem="",
            held="",
            funds_wei="0",
            missing_wei="12",
            owed_wei="7000",
            owed_lpt="0",
            paid_wei="0",
            in_flight_wei=str(in_flight(self.book)),
            spent_today_wei="0",
            per_day_max_wei="1",
            spent_today_lpt="3000000000000000000",
            per_day_max_lpt="2500000000000000000000",
            runway_days=None,
            next_run_ms=NOW_MS,
            counts=dict(self.book.counts),
            orders=orders_shown(self.book),
            next=self.nexts.page(self.book),
            next_addresses=self.nexts.addresses,
            blocked={},
        )

    @property
    def nexts(self) -> NextPayouts:
        return NextPayouts([(self.plan, RULES)])

    async def orders(
        self, state: str, address: str, limit: int, before: str = ""
    ) -> tuple[OrderView, ...]:
        assert state in ("", *STATES)
        return orders_shown(self.book, address, state, limit, before)

    async def next(self, after: str, limit: int) -> tuple[NextPayout, ...]:
        return self.nexts.page(self.book, after, limit)

    async def order(self, order: str) -> OrderView | None:
        return next((o for o in orders_shown(self.book) if o.order == order), None)

    async def owner(self, address: str) -> OwnerView:
        return owner_view(address, self.nexts.of(address, self.book), RULES, self.book)

    async def plan_now(self) -> tuple[NextPayout, ...]:
        return self.nexts.page(self.book)

    async def run_soon(self) -> None: ...

    async def pause(self, reason: str) -> None:
        self.paused = reason or "The operator paused them."

    async def resume(self) -> None:
        self.paused = ""

    async def unblock(self, address: str) -> None: ...

    async def choose(self, address: str, asset: Asset, threshold_wei: int, staked: bool) -> Chosen:
        return chosen_by(address, RULES, self.book)


@asynccontextmanager
async def money(directory: Path) -> AsyncIterator[tuple[WebPool, httpx.AsyncClient, Payouts, str]]:
    """A pool with one worker that earned something, and its payouts."""
    async with web_pool(directory) as pool:
        worker = await pool.enrol("aurora")
        row = pool.store.worker(worker)
        assert row is not None
        fee = e.FeeCredited(
            job="o.1.7",
            orchestrator="o",
            worker=worker,
            address=row.address,
            pixels=9000,
            price_wei="1",
            price_source="config",
            fee_wei="9000",
            carry="0/1",
            commission_ppm=250_000,
            worker_wei="7000",
        )
        await pool.store.append(
            [Event(id="o.1.7/fee-credited", time_ms=NOW_MS, data=fee)]
        ).durable()
        payouts = Payouts(row.address)
        app = create_app(dataclasses.replace(pool.deps, payouts=payouts))
        async with (
            served(dataclasses.replace(pool, app=app)) as base,
            httpx.AsyncClient(base_url=base, timeout=10) as client,
        ):
            yield pool, client, payouts, row.address


async def test_money_is_the_operators(tmp_path: Path) -> None:
    """A visitor is sent to sign in, a worker is refused; the operator sees what is owed, what the
    wallet lacks and who waits for what, and markup in a note stays text."""
    async with money(tmp_path) as (pool, client, _, address):
        html = {"accept": "text/html"}
        assert (await client.get("/money", headers=html)).status_code in (303, 401)
        worker = bearer(pool.tokens["aurora"])
        assert (await client.get("/money", headers=html | worker)).status_code == 403
        page = (await client.get("/money", headers=html | bearer(OPERATOR))).text
        assert "The hot wallet holds too little." in page
        assert page.index("The hot wallet holds too little.") < page.index("Owed to workers")
        assert "Less than 0.001 ETH." in page
        assert re.search('title="3 LPT">.* of .*title="2500 LPT">', page)
        assert address[:6] in page
        assert HOSTILE not in page
        assert "&lt;script&gt;" in page


async def test_payouts_come_in_pages(tmp_path: Path) -> None:
    """Fifty on a page, which goes on with a link; an older page stands still."""
    async with money(tmp_path) as (_, client, payouts, _):
        payouts.book = orders(60, 55)
        page = (await client.get("/money", headers=bearer(OPERATOR))).text
        assert 'href="/money?before=payout-10"' in page
        assert 'data-live="/live"' in page
        page = (await client.get("/money?before=payout-10", headers=bearer(OPERATOR))).text
        assert "payout-9<" in page
        assert "payout-10<" not in page
        assert "/money?before=" not in page
        assert "data-live" not in page


async def test_the_brake_is_a_button(tmp_path: Path) -> None:
    """Pause and resume are forms for the operator alone."""
    async with money(tmp_path) as (pool, client, payouts, _):
        refused = await client.post("/money/pause", headers=bearer(pool.tokens["aurora"]))
        assert (refused.status_code, payouts.paused) == (403, "")
        await client.post("/money/pause", headers=bearer(OPERATOR))
        assert payouts.paused
        page = (await client.get("/money", headers=bearer(OPERATOR))).text
        assert "Payouts are paused" in page
        await client.post("/money/resume", headers=bearer(OPERATOR))
        assert payouts.paused == ""


async def test_an_owner_sees_its_own_earnings(tmp_path: Path) -> None:
    """What is pending, on its way, and why it is not paid; each entry leads to its receipt. Nobody
    sees another's."""
    async with money(tmp_path) as (pool, client, _, address):
        worker = bearer(pool.tokens["aurora"])
        page = (await client.get("/earnings", headers=worker)).text
        assert address in page
        assert "Less than 0.001 ETH." in page
        assert "/api/v1/receipts/one?job=o.1.7&amp;address=" in page
        other = "0x" + "22" * 20
        assert (await client.get(f"/earnings?address={other}", headers=worker)).status_code == 403
        chosen = {"address": other, "threshold": "1 ETH", "asset": "ETH"}
        answer = await client.post("/earnings/choose", data=chosen, headers=worker)
        assert answer.status_code == 403


async def test_pages_without_a_chain_say_so(tmp_path: Path) -> None:
    """No payouts, no statements, no revenue: a sentence each, never a fault."""
    async with (
        web_pool(tmp_path) as pool,
        served(pool) as base,
        httpx.AsyncClient(base_url=base, timeout=10) as client,
    ):
        page = (await client.get("/money", headers=bearer(OPERATOR))).text
        assert "Payouts are off" in page
        page = (await client.get("/statements")).text
        assert "makes no statements" in page


async def test_what_keeps_workers_from_being_paid_is_an_alert_and_a_gauge(tmp_path: Path) -> None:
    """On the overview, in the API and for Prometheus."""
    async with money(tmp_path) as (_, client, payouts, _):
        await payouts.pause("a look at the books")
        status = (await client.get("/api/v1/status", headers=bearer(OPERATOR))).json()
        told = {alert["title"]: alert["text"] for alert in status["alerts"]}
        assert told["Payouts are paused."] == "a look at the books"
        assert "12" in told["The hot wallet holds too little."]
        metrics = (await client.get("/metrics", headers=bearer(OPERATOR))).text
        assert "openpool_payouts_paused 1.0" in metrics
        assert 'openpool_orders{state="planned"} 1.0' in metrics
        assert "openpool_wallet_missing_gwei 1.2e-08" in metrics
