"""The REST API about payouts: `/api/v1/payouts`.

The operator sees all and holds the brake. An owner sees and chooses for one address, their own; a
worker's token speaks for it as well.
"""

from typing import Annotated, Literal

from litestar import Router, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody, QueryParameter
from msgspec import Meta, Struct

from openpool.core.customers import amount_wei
from openpool.core.enrolment import checked_address
from openpool.core.money.payout_views import Chosen, NextPayout, OrderView, OwnerView, PayoutsView
from openpool.web.answers import Done
from openpool.web.api import Limit
from openpool.web.api_statements import owned_address
from openpool.web.context import FromVisitor, FromWeb, Web
from openpool.web.door import need_operator
from openpool.web.interface import Payouts
from openpool.web.problems import NotFound, NotSetUp, documented

Line = Annotated[str, Meta(max_length=200)]
Address = Annotated[
    str, QueryParameter(max_length=60, description="A payout address; the operator must say it.")
]
SIGNED_IN: list[dict[str, list[str]]] = [{"bearer": []}, {"session": []}]
POOLS_THRESHOLD = "pool"


class PauseRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    reason: Line = ""
    """Shown to everybody who waits."""


class UnblockRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    address: Line


class ChoiceRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    asset: Literal["ETH", "LPT"] = "ETH"
    threshold: Line = POOLS_THRESHOLD
    """Pay when this much is owed, like `0.01 ETH`; `pool` is what the pool says."""
    staked: bool | None = None
    """LPT as stake with the orchestrator, instead of liquid; left out, it stays as it is."""
    address: Line = ""
    """Whose choice; only the operator must say it."""


@get("/payouts", responses=documented(401, 403, 404), security=SIGNED_IN, tags=["payouts"])
async def payouts(web: FromWeb, visitor: FromVisitor) -> PayoutsView:
    """What is owed and sent, what the wallet holds, and who is paid next. Operator only."""
    need_operator(visitor)
    return await payouts_of(web).view()


@get("/payouts/orders", responses=documented(401, 403, 404), security=SIGNED_IN, tags=["payouts"])
async def orders(
    web: FromWeb,
    visitor: FromVisitor,
    only: Annotated[
        str, QueryParameter(name="state", max_length=20, description="Only this state.")
    ] = "",
    address: Annotated[str, QueryParameter(max_length=60, description="Only to it.")] = "",
    before: Annotated[str, QueryParameter(max_length=200, description="The last one seen.")] = "",
    limit: Limit = 50,
) -> tuple[OrderView, ...]:
    """Orders: open ones, then the last 1,000 that ended. Page with `before` = the last `order`
    seen. Operator only."""
    need_operator(visitor)
    wanted = checked_address(address) if address else ""
    return await payouts_of(web).orders(only, wanted, limit, before)


@get("/payouts/next", responses=documented(401, 403, 404), security=SIGNED_IN, tags=["payouts"])
async def next_payouts(
    web: FromWeb,
    visitor: FromVisitor,
    after: Annotated[
        str, QueryParameter(max_length=60, description="The last one seen, as `asset/address`.")
    ] = "",
    limit: Limit = 50,
) -> tuple[NextPayout, ...]:
    """Who is owed something: those that are paid next, then those that are owed most. Page with
    `after` = the last `asset/address` seen. Operator only."""
    need_operator(visitor)
    return await payouts_of(web).next(after, limit)


@get("/payouts/order", responses=documented(401, 403, 404), security=SIGNED_IN, tags=["payouts"])
async def order(
    web: FromWeb,
    visitor: FromVisitor,
    name: Annotated[str, QueryParameter(max_length=200, description="Like `payout-17`.")],
) -> OrderView:
    """One order, with every transaction that was signed for it. Operator only."""
    need_operator(visitor)
    found = await payouts_of(web).order(name)
    if found is None:
        raise NotFound("There is no such order among the open ones and those that ended lately.")
    return found


@post("/payouts/plan", status_code=200, responses=documented(401, 403, 404, 503), tags=["payouts"])
async def plan(web: FromWeb, visitor: FromVisitor) -> tuple[NextPayout, ...]:
    """Whom a run would pay now, and why nobody else; nothing is signed or sent. Operator only."""
    need_operator(visitor)
    return await payouts_of(web).plan_now()


@post("/payouts/run", status_code=200, responses=documented(401, 403, 404), tags=["payouts"])
async def run(web: FromWeb, visitor: FromVisitor) -> Done:
    """Start a run now instead of at its time. Operator only."""
    need_operator(visitor)
    await payouts_of(web).run_soon()
    return await _done(web)


@post("/payouts/pause", status_code=200, responses=documented(401, 403, 404), tags=["payouts"])
async def pause(web: FromWeb, visitor: FromVisitor, data: JSONBody[PauseRequest]) -> Done:
    """Sign nothing new; what is on its way is followed to its end. Operator only."""
    need_operator(visitor)
    await payouts_of(web).pause(data.reason)
    return await _done(web)


@post("/payouts/resume", status_code=200, responses=documented(401, 403, 404), tags=["payouts"])
async def resume(web: FromWeb, visitor: FromVisitor) -> Done:
    """Go on paying. Operator only."""
    need_operator(visitor)
    await payouts_of(web).resume()
    return await _done(web)


@post("/payouts/unblock", status_code=200, responses=documented(401, 403, 404), tags=["payouts"])
async def unblock(web: FromWeb, visitor: FromVisitor, data: JSONBody[UnblockRequest]) -> Done:
    """Send to an address again that could not be paid. Operator only."""
    need_operator(visitor)
    await payouts_of(web).unblock(checked_address(data.address))
    return await _done(web)


@get("/payouts/mine", responses=documented(401, 403, 404), security=SIGNED_IN, tags=["payouts"])
async def mine(web: FromWeb, visitor: FromVisitor, address: Address = "") -> OwnerView:
    """What is owed to your address, when it is paid, and what was paid; your own only."""
    return await payouts_of(web).owner(await owned_address(web, visitor, address))


@post("/payouts/choice", status_code=200, responses=documented(401, 403, 404), tags=["payouts"])
async def choose(web: FromWeb, visitor: FromVisitor, data: JSONBody[ChoiceRequest]) -> Chosen:
    """How your address is to be paid. It also frees an address that was blocked."""
    owner = await owned_address(web, visitor, data.address)
    threshold = 0 if data.threshold == POOLS_THRESHOLD else amount_wei(data.threshold, 0)
    return await payouts_of(web).choose(owner, data.asset, threshold, data.staked)


def payouts_of(web: Web) -> Payouts:
    """Raises NotSetUp if the pool pays nobody."""
    if web.deps.payouts is None:
        raise NotSetUp("This pool has no wallet to pay from; set chain.endpoints and payouts.")
    return web.deps.payouts


async def _done(web: Web) -> Done:
    return Done(paused=(await payouts_of(web).view()).paused)


PAYOUTS: list[HTTPRouteHandler] = [
    payouts,
    orders,
    next_payouts,
    order,
    plan,
    run,
    pause,
    resume,
    unblock,
    mine,
    choose,
]


def payouts_router() -> Router:
    return Router("/api/v1", route_handlers=PAYOUTS)
