"""The REST API about revenue: `/api/v1/revenue`. How lucky the pool is may be seen by everybody."""

from typing import Annotated

from litestar import Router, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody, PathParameter, QueryParameter
from msgspec import Meta, Struct

from openpool.core.money.revenue_views import PublicRevenue, RevenueView, RoundView
from openpool.core.money.revenue_views import public as public_part
from openpool.web.answers import Recorded
from openpool.web.api import Limit
from openpool.web.context import FromVisitor, FromWeb, Web
from openpool.web.door import need_operator
from openpool.web.interface import Revenue
from openpool.web.problems import NotSetUp, documented

Line = Annotated[str, Meta(max_length=200)]
Name = Annotated[str, PathParameter(min_length=1, max_length=60)]
SIGNED_IN: list[dict[str, list[str]]] = [{"bearer": []}, {"session": []}]


class RecordRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    amount: Line
    """Like `0.5 ETH`."""
    reference: Line
    """The operator's own name for it; each counts once per orchestrator."""


@get("/revenue", responses=documented(404), tags=["revenue"])
async def revenue(web: FromWeb) -> PublicRevenue:
    """Rounds, what they brought, and how lucky that was; no sign-in needed."""
    return public_part(await revenue_of(web).view())


@get("/revenue/details", responses=documented(401, 403, 404), security=SIGNED_IN, tags=["revenue"])
async def details(web: FromWeb, visitor: FromVisitor) -> RevenueView:
    """The same with claims, tickets, rewards and wallets. Operator only."""
    need_operator(visitor)
    return await revenue_of(web).view()


@get(
    "/revenue/{orchestrator:str}/rounds",
    responses=documented(401, 403, 404),
    security=SIGNED_IN,
    tags=["revenue"],
)
async def rounds(
    web: FromWeb,
    visitor: FromVisitor,
    orchestrator: Name,
    before: Annotated[
        int | None, QueryParameter(ge=0, le=2**53, description="The last one seen.")
    ] = None,
    limit: Limit = 100,
) -> list[RoundView]:
    """Rounds of an orchestrator, the newest first, the last 1,000 of them. Page with `before` =
    the last `round` seen. Operator only."""
    need_operator(visitor)
    return await revenue_of(web).rounds(orchestrator, before, limit)


@post(
    "/revenue/{orchestrator:str}/records",
    status_code=200,
    responses=documented(401, 403, 404, 503),
    tags=["revenue"],
)
async def record(
    web: FromWeb, visitor: FromVisitor, orchestrator: Name, data: JSONBody[RecordRequest]
) -> Recorded:
    """Book what an orchestrator brought that is not followed on chain. Operator only."""
    need_operator(visitor)
    new = await revenue_of(web).record(orchestrator, data.amount, data.reference)
    return Recorded(new=new)


def revenue_of(web: Web) -> Revenue:
    """Raises NotSetUp if the pool keeps none."""
    if web.deps.revenue is None:
        raise NotSetUp("This pool follows no revenue.")
    return web.deps.revenue


REVENUE: list[HTTPRouteHandler] = [revenue, details, rounds, record]


def revenue_router() -> Router:
    return Router("/api/v1", route_handlers=REVENUE)
