"""The REST API for delegators, open to everybody: `/api/v1/delegation`.

It tells what the chain says and builds transactions for the asker's own wallet to sign. It holds
no key, asks for none, and sends nothing. Questions that make the pool read the chain are limited
per client.
"""

from typing import Annotated

from litestar import Router, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody, PathParameter, QueryParameter

from openpool.core.livepeer.amounts import amount
from openpool.core.livepeer.delegation import Profile, Wish
from openpool.core.livepeer.outlook import ROUNDS_MAX
from openpool.web.context import FromWeb, Web
from openpool.web.delegation import (
    AccountView,
    Delegation,
    Estimates,
    OrchestratorProfile,
    PlanView,
    WishRequest,
    account_view,
    estimates,
    plan_view,
    profile_view,
)
from openpool.web.problems import Asked, NotFound, NotSetUp, documented

NO_CHAIN = "This pool has no chain configured, so it cannot say anything about delegating."
Address = Annotated[str, QueryParameter(max_length=42, description="Empty: the pool's first.")]
PathAddress = Annotated[str, PathParameter(min_length=42, max_length=42)]


def delegation_of(web: Web) -> Delegation:
    """Raises NotFound if this pool has no chain."""
    if web.deps.delegation is None:
        raise NotSetUp(NO_CHAIN)
    return web.deps.delegation


def profile_of(known: Delegation, address: str) -> Profile:
    """The orchestrator asked for, or the first. Raises NotFound."""
    for profile in known.profiles():
        if not address or profile.address.lower() == address.lower():
            return profile
    raise NotFound(known.problem or "Nothing is known about such an orchestrator of this pool.")


@get("/", responses=documented(404), tags=["delegation"])
async def profiles(web: FromWeb) -> list[OrchestratorProfile]:
    """The pool's orchestrators as delegators see them: cuts, stake, rank, past rounds."""
    return [profile_view(each) for each in delegation_of(web).profiles()]


@get("/estimates", responses=documented(404), tags=["delegation"])
async def estimate(
    web: FromWeb,
    stake: Annotated[str, QueryParameter(max_length=40, description="LPT, like 12.5.")],
    orchestrator: Address = "",
    rounds: Annotated[int, QueryParameter(ge=1, le=ROUNDS_MAX)] = 1,
) -> Estimates:
    """What new stake would earn if cuts, fees and everybody else's stake stayed as they are."""
    profile = profile_of(delegation_of(web), orchestrator)
    return estimates(profile, amount(stake), [rounds])


@get("/accounts/{address:str}", responses=documented(404, 503), tags=["delegation"])
async def account(request: Asked, web: FromWeb, address: PathAddress) -> AccountView:
    """What a delegator has, claimed or not, and what it can withdraw now."""
    known = delegation_of(web)
    web.door.count_lookup(request)
    return account_view(await known.account(address))


@post("/plan", status_code=200, responses=documented(403, 404, 503), tags=["delegation"])
async def plan(request: Asked, web: FromWeb, data: JSONBody[WishRequest]) -> PlanView:
    """The unsigned transactions of a wish, what each does, and what to beware of."""
    known = delegation_of(web)
    web.door.count_lookup(request)
    return plan_view(await known.plan(wish_of(data)))


def wish_of(request: WishRequest) -> Wish:
    """Raises BadMessage if the amount is none."""
    return Wish(
        deed=request.deed,
        address=request.address,
        amount=amount(request.amount) if request.amount else None,
        to=request.to,
        lock=request.lock,
    )


HANDLERS: list[HTTPRouteHandler] = [profiles, estimate, account, plan]


def delegation_router() -> Router:
    return Router(path="/api/v1/delegation", route_handlers=HANDLERS)
