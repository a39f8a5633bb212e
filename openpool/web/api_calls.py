"""The REST API about calls and models: `/api/v1/models`, `/runners`, `/calls`, `/series/pipelines`.

Who may see what is as in `web.api`. Making calls is another thing: `web.direct`, for customers.
"""

from typing import Annotated

from litestar import Router, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import PathParameter, QueryParameter

from openpool.core.desk_views import CallView, RunnerView
from openpool.web.api import SIGNED_IN, Ms
from openpool.web.call_shapes import Call, Model, PipelineSeries
from openpool.web.context import FromVisitor, FromWeb
from openpool.web.door import need_operator, need_sign_in
from openpool.web.problems import NotFound, documented
from openpool.web.shapes import DAY_MS

PathId = Annotated[str, PathParameter(min_length=1, max_length=200)]


@get("/models", responses=documented(401, 403), security=SIGNED_IN, tags=["calls"])
async def models(web: FromWeb, visitor: FromVisitor) -> list[Model]:
    """Every model: who serves it, how busy they are, its price, and its totals. Operator only."""
    need_operator(visitor)
    return await web.calls.models()


@get("/runners", responses=documented(401, 403), security=SIGNED_IN, tags=["calls"])
async def runners(web: FromWeb, visitor: FromVisitor) -> list[RunnerView]:
    """Every model at every orchestrator that is to sell it through Live Runner, and why one does
    not. Operator only."""
    need_operator(visitor)
    return web.calls.runners()


@get("/calls", responses=documented(401, 403), security=SIGNED_IN, tags=["calls"])
async def calls(web: FromWeb, visitor: FromVisitor) -> list[CallView]:
    """Calls in flight, oldest first. Operator only."""
    need_operator(visitor)
    return web.calls.in_flight()


@get("/calls/{call:str}", responses=documented(401, 404), security=SIGNED_IN, tags=["calls"])
async def call(web: FromWeb, visitor: FromVisitor, call: PathId) -> Call:
    """One call: who tried it, what came of it, and how its fee came about, step by step."""
    need_sign_in(visitor)
    found = await web.calls.call(call, visitor.may_see)
    if found is None:
        raise NotFound("There is no such call, or your workers had nothing to do with it.")
    return found


@get("/series/pipelines", responses=documented(401, 403), security=SIGNED_IN, tags=["calls"])
async def pipelines(
    web: FromWeb,
    visitor: FromVisitor,
    start_ms: Ms = 0,
    end_ms: Ms = 0,
    step: Annotated[int, QueryParameter(ge=60, le=366 * 86_400, description="Seconds.")] = 300,
) -> PipelineSeries:
    """Calls and fees by pipeline in equal steps, the last 24 hours unless a span is given.
    Operator only."""
    need_operator(visitor)
    end_ms = end_ms or web.views.now_ms()
    return await web.calls.pipelines(start_ms or max(end_ms - DAY_MS, 0), end_ms, step)


CALLS: list[HTTPRouteHandler] = [models, runners, calls, call, pipelines]


def calls_router() -> Router:
    return Router("/api/v1", route_handlers=CALLS)
