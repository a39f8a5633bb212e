"""The pages about money: what came in, what is owed and was paid, and what proves it.

`/money` is the operator's, `/statements` is open to everybody. All figures are made elsewhere; a
page shows them. Deeds about payouts are plain forms over the same calls as the REST API.
"""

import asyncio
from collections.abc import Sequence
from itertools import groupby
from typing import Annotated, Literal
from urllib.parse import quote

from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import QueryParameter, URLEncodedBody
from litestar.response import Redirect, Template
from msgspec import Meta, Struct

from openpool.core.customers import amount_wei
from openpool.core.money.accounts import holdback_account, in_asset, worker_account
from openpool.core.money.disputes import Dispute
from openpool.core.money.events import Asset
from openpool.core.money.payout_views import OrderView
from openpool.core.money.revenue_views import (
    PublicRevenue,
    PublicRound,
    RevenueView,
    RoundView,
    public,
)
from openpool.store.interface import Balance
from openpool.web.alerts import money_alerts
from openpool.web.api_payouts import POOLS_THRESHOLD
from openpool.web.api_statements import BeforeRound, owned_address, rows_before
from openpool.web.bars import Bars, Row, beside
from openpool.web.context import FromVisitor, FromWeb, Web
from openpool.web.door import need_operator
from openpool.web.format import ether_text
from openpool.web.interface import Payouts
from openpool.web.owner_pages import owners_page
from openpool.web.payout_pages import PAYOUT_PAGES
from openpool.web.problems import Asked, NotFound
from openpool.web.shapes import TransferView
from openpool.web.show import show

STATEMENTS_SHOWN = 50
ROUNDS_SHOWN = 30
ENTRIES_SHOWN = 50
ORDERS_PAGE = 50
ORDERS_SHOWN = 10
ROWS_SHOWN = 5
"""Of a table on the page of money; the rest is folded away below it."""

Address = Annotated[str, QueryParameter(max_length=42)]
Before = Annotated[str, QueryParameter(max_length=400)]


class ChoiceForm(Struct, frozen=True, kw_only=True):
    address: Annotated[str, Meta(max_length=42)] = ""
    threshold: Annotated[str, Meta(max_length=40)] = ""
    """Empty or `pool`: the pool's own."""
    asset: Asset = "ETH"
    hand_over: Literal["", "liquid", "staked"] = ""
    """LPT; empty: as before."""


@get("/money", include_in_schema=False)
async def money_page(
    request: Asked, web: FromWeb, visitor: FromVisitor, before: Before = ""
) -> Template:
    """What the pool has, owes and paid; `before` shows older payouts."""
    need_operator(visitor)
    revenue = await web.deps.revenue.view() if web.deps.revenue else None
    payouts = await web.deps.payouts.view() if web.deps.payouts else None
    orders = await _orders(web, before)
    disputes = [each for each in await _disputes(web) if each.open]
    return show(
        request,
        web,
        visitor,
        "money",
        "Money",
        alerts=money_alerts(revenue, payouts),
        balances=await _balances(web),
        revenue=revenue,
        payouts=payouts,
        orders=orders[:ORDERS_PAGE],
        older=orders[ORDERS_PAGE - 1].order if len(orders) > ORDERS_PAGE else "",
        before=before,
        charts=_charts(revenue),
        rounds_shown=ROUNDS_SHOWN,
        rows_shown=ROWS_SHOWN,
        disputes=sorted(disputes, key=lambda each: -each.opened_ms),
    )


async def _orders(web: Web, before: str) -> tuple[OrderView, ...]:
    """A page of payouts, and one more where there are older ones."""
    payouts = web.deps.payouts
    return await payouts.orders("", "", ORDERS_PAGE + 1, before) if payouts else ()


@get("/statements", include_in_schema=False)
async def statements_page(
    request: Asked, web: FromWeb, visitor: FromVisitor, before: BeforeRound = 0
) -> Template:
    """Statements, terms and luck: what anybody may check; `before` shows older statements."""
    proofs = web.deps.proofs
    revenue = public(await web.deps.revenue.view()) if web.deps.revenue else None
    rows = rows_before(proofs.statements.rows, before, STATEMENTS_SHOWN + 1) if proofs else []
    return show(
        request,
        web,
        visitor,
        "statements",
        "Statements",
        proofs=proofs,
        rows=rows[:STATEMENTS_SHOWN],
        older=rows[STATEMENTS_SHOWN - 1].round if len(rows) > STATEMENTS_SHOWN else 0,
        before=before,
        terms=proofs.terms.in_force() if proofs else None,
        pending=proofs.terms.pending() if proofs else None,
        revenue=revenue,
        charts=_charts(revenue),
    )


@get("/earnings", include_in_schema=False)
async def earnings_page(
    request: Asked, web: FromWeb, visitor: FromVisitor, address: Address = "", before: Before = ""
) -> Template:
    """What one payout address earned, is owed and was paid, down to each job."""
    if visitor.role == "operator" and not address:
        return await owners_page(request, web, visitor)
    owner = await owned_address(web, visitor, address)
    account = worker_account(owner)
    entries = await web.views.transfers(account, before, ENTRIES_SHOWN + 1)
    balances = await asyncio.to_thread(web.deps.reader.balances)
    workers = [
        row for row in await asyncio.to_thread(web.deps.reader.workers) if row.address == owner
    ]
    return show(
        request,
        web,
        visitor,
        "earnings",
        "Earnings",
        owner=owner,
        account=account,
        workers=workers,
        money=await web.deps.payouts.owner(owner) if web.deps.payouts else None,
        orders_shown=ORDERS_SHOWN,
        pending=_held(balances, account),
        pending_lpt=_held(balances, in_asset("LPT", account)),
        accrued=_held(balances, f":{owner}", "accrued:"),
        holdback=_held(balances, holdback_account(owner)),
        entries=entries[:ENTRIES_SHOWN],
        runs=runs_of(entries[:ENTRIES_SHOWN], account),
        older=entries[ENTRIES_SHOWN - 1].id if len(entries) > ENTRIES_SHOWN else "",
        before=before,
        terms=web.deps.proofs.terms.in_force().terms.promise if web.deps.proofs else None,
        coming=web.deps.proofs.terms.pending() if web.deps.proofs else None,
        disputes=[d for d in await _disputes(web, owner) if d.open],
    )


class Run(Struct, frozen=True, kw_only=True):
    """Entries of one kind in a row: a few that are shown, and the others."""

    shown: list[TransferView]
    folded: list[TransferView]


def runs_of(entries: Sequence[TransferView], account: str) -> list[Run]:
    """The same entries in the same order, long repetitions folded."""
    alike = groupby(entries, key=lambda each: (each.kind, each.credit == account))
    return [_run(list(row)) for _, row in alike]


def _run(row: list[TransferView]) -> Run:
    shown = ROWS_SHOWN if len(row) > ROWS_SHOWN + 2 else len(row)
    return Run(shown=row[:shown], folded=row[shown:])


def _held(balances: Sequence[Balance], account: str, prefix: str = "") -> int:
    """What an account holds; with a prefix, what all that start so and end in `account` hold."""
    return sum(
        row.amount_wei
        for row in balances
        if (
            row.account.startswith(prefix) and row.account.endswith(account)
            if prefix
            else row.account == account
        )
    )


async def _balances(web: Web) -> dict[str, int]:
    """What the accounts hold, those of one kind together."""
    found = await asyncio.to_thread(web.deps.reader.balances)
    sums: dict[str, int] = {}
    for row in found:
        kind = row.account.partition(":")[0]
        sums[kind] = sums.get(kind, 0) + row.amount_wei
    return sums


async def _disputes(web: Web, address: str = "") -> list[Dispute]:
    return await web.deps.proofs.disputes.all(address) if web.deps.proofs else []


def _charts(revenue: RevenueView | PublicRevenue | None) -> dict[str, Bars]:
    """The luck of each orchestrator."""
    return {
        each.orchestrator: luck_bars(each.rounds)
        for each in (revenue.orchestrators if revenue else ())
    }


def luck_bars(rounds: Sequence[RoundView | PublicRound]) -> Bars:
    """Expected and realised, round by round, the oldest first."""
    return beside([_row(each) for each in reversed(rounds[:ROUNDS_SHOWN])])


def _row(row: RoundView | PublicRound) -> Row:
    expected_wei, realised_wei = int(row.luck.expected_wei), int(row.realised_wei)
    about = (
        f"Round {row.round}: expected {ether_text(expected_wei)}, "
        f"realised {ether_text(realised_wei)}"
    )
    return Row(
        name=str(row.round), about=about, amounts=(("kept", expected_wei), ("shared", realised_wei))
    )


@post("/money/pause", include_in_schema=False)
async def pause_form(web: FromWeb, visitor: FromVisitor) -> Redirect:
    """Sign nothing new."""
    need_operator(visitor)
    await _payouts(web).pause("")
    return Redirect("/money", status_code=303)


@post("/money/resume", include_in_schema=False)
async def resume_form(web: FromWeb, visitor: FromVisitor) -> Redirect:
    """Go on."""
    need_operator(visitor)
    await _payouts(web).resume()
    return Redirect("/money", status_code=303)


@post("/earnings/choose", include_in_schema=False)
async def choose_form(
    web: FromWeb, visitor: FromVisitor, data: URLEncodedBody[ChoiceForm]
) -> Redirect:
    """How an owner wants to be paid."""
    address = await owned_address(web, visitor, data.address)
    own = data.threshold.strip() not in ("", POOLS_THRESHOLD)
    threshold_wei = amount_wei(data.threshold, 0) if own else 0
    staked = data.hand_over == "staked" if data.hand_over else None
    await _payouts(web).choose(address, data.asset, threshold_wei, staked)
    return Redirect(f"/earnings?address={quote(address)}", status_code=303)


def _payouts(web: Web) -> Payouts:
    if web.deps.payouts is None:
        raise NotFound("This pool makes no payouts.")
    return web.deps.payouts


MONEY_PAGES: list[HTTPRouteHandler] = [
    money_page,
    statements_page,
    earnings_page,
    pause_form,
    resume_form,
    choose_form,
    *PAYOUT_PAGES,
]
