"""The page of one payout, or of whatever else an order of the pool's wallet does.

It is told from the log, so it is there for every order that ever was. The operator sees all of it;
an owner sees the orders that pay them, and of those only their own line.
"""

import asyncio
from collections.abc import Sequence
from typing import Annotated

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.params import PathParameter, QueryParameter
from litestar.response import Template
from msgspec import Struct

from openpool.core.enrolment import checked_address
from openpool.core.money.accounts import in_asset
from openpool.core.money.events import OrderLine
from openpool.core.money.orders import Order, OrderBook
from openpool.store.interface import EventFilter, Reader
from openpool.web.api_statements import owned_address
from openpool.web.auth import Visitor
from openpool.web.context import FromVisitor, FromWeb, Web
from openpool.web.door import need_sign_in
from openpool.web.payout_sources import Sources, sources_of
from openpool.web.payout_words import fate, purpose, standing
from openpool.web.problems import Asked, NotFound
from openpool.web.show import show

EVENTS_MAX = 2_000
"""Far more than an order can have."""
LINES_SHOWN = 10
PARTS_SHOWN = 10

Address = Annotated[str, QueryParameter(max_length=42)]
PathOrder = Annotated[str, PathParameter(min_length=1, max_length=100)]


class Told(Struct, frozen=True, kw_only=True):
    """An order as the log tells it, and the name of the event that planned it."""

    order: Order
    planned: str


@get("/payouts/{order:str}", include_in_schema=False)
async def payout_page(
    request: Asked, web: FromWeb, visitor: FromVisitor, order: PathOrder, address: Address = ""
) -> Template:
    """What it pays to whom, out of what, and every transaction that was signed for it."""
    need_sign_in(visitor)
    only = await _whose(web, visitor, address)
    told = await asyncio.to_thread(_told, web.deps.reader, order)
    lines = _lines(told.order, only) if told else []
    if told is None or (only and not lines):
        raise NotFound("There is no such payout, or it is not yours.")
    return show(
        request,
        web,
        visitor,
        "payout",
        order,
        order=told.order,
        only=only,
        lines=lines,
        purpose=purpose(told.order),
        attempts=[(each, fate(told.order, each)) for each in reversed(told.order.attempts)],
        standing=standing(told.order, await _paused(web, told.order)),
        amount_wei=sum(int(line.amount_wei) for line in lines),
        sources=await _sources(web, told, lines),
        stated={row.round for row in web.deps.proofs.statements.rows} if web.deps.proofs else (),
        lines_shown=LINES_SHOWN,
        parts_shown=PARTS_SHOWN,
    )


async def _whose(web: Web, visitor: Visitor, address: str) -> str:
    """The address whose part is shown; "" is all, for the operator."""
    if visitor.role == "operator":
        return checked_address(address) if address else ""
    return await owned_address(web, visitor, address)


def _told(reader: Reader, name: str) -> Told | None:
    events = reader.events(EventFilter(id_prefix=f"order/{name}/", limit=EVENTS_MAX))
    book = OrderBook()
    for stored in events:
        book.apply(stored.event)
    order = book.get(name)
    return Told(order=order, planned=events[0].event.id) if order else None


def _lines(order: Order, only: str) -> list[OrderLine]:
    """The largest first."""
    mine = [line for line in order.lines if only in ("", line.address)]
    return sorted(mine, key=lambda line: (-int(line.amount_wei), line.address))


async def _paused(web: Web, order: Order) -> str:
    """Why payouts are paused, if this one waits for that."""
    if order.state != "planned" or web.deps.payouts is None:
        return ""
    return (await web.deps.payouts.view()).paused


async def _sources(web: Web, told: Told, lines: Sequence[OrderLine]) -> Sources | None:
    """Of a single line; of many, each has a page of its own."""
    if len(lines) != 1:
        return None
    number = told.order.lines.index(lines[0]) + 1
    account = in_asset(told.order.asset, lines[0].account)
    set_aside = f"{told.planned}/set-aside/{number}"
    return await asyncio.to_thread(
        sources_of, web.deps.reader, account, set_aside, int(lines[0].amount_wei)
    )


PAYOUT_PAGES: list[HTTPRouteHandler] = [payout_page]
