"""The REST API that reads: `/api/v1/…`, JSON, wei as decimal strings, times in ms since 1970.

The operator sees everything, a worker its own data, the public only totals. Joining, signing in
and the operator's deeds are in `web.api_join`. Every answer's shape is in `web.shapes`.
"""

from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
from litestar import Router, get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import PathParameter, QueryParameter
from litestar.response import Stream

from openpool.core.errors import BadMessage
from openpool.core.views import JobView
from openpool.store.interface import EventFilter, StoredEvent
from openpool.web import LIST_MAX
from openpool.web.context import FromVisitor, FromWeb, seen_worker
from openpool.web.door import need_operator, need_sign_in
from openpool.web.feed import Feed
from openpool.web.problems import Asked, NotFound, documented
from openpool.web.shapes import (
    DAY_MS,
    Balances,
    Earning,
    EventView,
    OrchestratorView,
    PublicTotals,
    Series,
    Status,
    TransferView,
    Worker,
    WorkerDetail,
    event_view,
)

Limit = Annotated[int, QueryParameter(ge=1, le=LIST_MAX, description="At most so many.")]
Seq = Annotated[int, QueryParameter(ge=0, le=2**62, description="A sequence number of the log.")]
Ms = Annotated[
    int, QueryParameter(ge=0, le=2**45, description="Time in ms since 1970; 0 is not given.")
]
Id = Annotated[str, QueryParameter(max_length=200, description="A worker's id.")]
PathId = Annotated[str, PathParameter(min_length=1, max_length=200)]
Text = Annotated[str, QueryParameter(max_length=300)]
Types = Annotated[
    str,
    QueryParameter(name="type", max_length=500, description="Event types, separated by commas."),
]
SIGNED_IN: list[dict[str, list[str]]] = [{"bearer": []}, {"session": []}]


@get("/public", responses=documented(), tags=["public"])
async def public(web: FromWeb) -> PublicTotals:
    """The pool's totals; no sign-in needed."""
    return await web.views.public()


@get("/status", responses=documented(401, 403), security=SIGNED_IN, tags=["pool"])
async def status(web: FromWeb, visitor: FromVisitor) -> Status:
    """The pool at this moment, with alerts. Operator only."""
    need_operator(visitor)
    return await web.views.status()


@get("/workers", responses=documented(401), security=SIGNED_IN, tags=["workers"])
async def workers(web: FromWeb, visitor: FromVisitor) -> list[Worker]:
    """All workers, or the visitor's own."""
    need_sign_in(visitor)
    return await web.views.workers(None if visitor.role == "operator" else visitor.workers)


@get("/workers/{worker:str}", responses=documented(401, 404), security=SIGNED_IN, tags=["workers"])
async def worker(web: FromWeb, visitor: FromVisitor, worker: PathId) -> WorkerDetail:
    """One worker: now, its last 24 hours, all time, and why it gets work or not."""
    found = await web.views.worker(seen_worker(visitor, worker))
    if found is None:
        raise NotFound("There is no such worker, or it is not yours.")
    return found


@get(
    "/workers/{worker:str}/earnings",
    responses=documented(401, 404),
    security=SIGNED_IN,
    tags=["workers"],
)
async def earnings(
    web: FromWeb, visitor: FromVisitor, worker: PathId, before: Seq = 0, limit: Limit = 100
) -> list[Earning]:
    """What each job paid, newest first. Page with `before` = the last `seq` seen."""
    return await web.views.earnings(seen_worker(visitor, worker), before, limit)


@get("/series", responses=documented(401, 404), security=SIGNED_IN, tags=["pool"])
async def series(
    web: FromWeb,
    visitor: FromVisitor,
    start_ms: Ms = 0,
    end_ms: Ms = 0,
    step: Annotated[int, QueryParameter(ge=60, le=366 * 86_400, description="Seconds.")] = 300,
    worker: Id = "",
) -> Series:
    """Work and earnings in equal steps of time, the last 24 hours unless a span is given."""
    end_ms = end_ms or web.views.now_ms()
    start_ms = start_ms or max(end_ms - DAY_MS, 0)
    return await web.views.series(start_ms, end_ms, step, seen_worker(visitor, worker))


@get("/events", responses=documented(401, 404), security=SIGNED_IN, tags=["events"])
async def events(
    web: FromWeb,
    visitor: FromVisitor,
    kinds: Types = "",
    worker: Id = "",
    job: Text = "",
    after: Annotated[Seq | None, QueryParameter(ge=0, le=2**62)] = None,
    before: Seq = 0,
    limit: Limit = 100,
) -> list[EventView]:
    """Events of the log: newest first, or in order from `after` on where that is given."""
    which = EventFilter(
        types=split_types(kinds),
        worker=seen_worker(visitor, worker),
        job=job,
        after_seq=after or 0,
        before_seq=before,
        newest_first=after is None,
        limit=limit,
    )
    return [event_view(stored) for stored in await web.views.events(which)]


@get(
    "/events/stream",
    responses=documented(401, 404, 503)
    | {
        200: ResponseSpec(
            data_container=str,
            description="Server-sent events: `id` is the sequence number, `event` the type.",
            media_type="text/event-stream",
            generate_examples=False,
        )
    },
    security=SIGNED_IN,
    tags=["events"],
)
async def event_stream(
    request: Asked,
    web: FromWeb,
    visitor: FromVisitor,
    kinds: Types = "",
    worker: Id = "",
    job: Text = "",
    after: Annotated[Seq | None, QueryParameter(ge=0, le=2**62)] = None,
) -> Stream:
    """Events as they are committed (server-sent events); resumes from `Last-Event-ID`."""
    which = EventFilter(
        types=split_types(kinds),
        worker=seen_worker(visitor, worker),
        job=job,
        after_seq=_cursor(request, after, web.feed),
    )
    web.feed.check_room()
    return sse(_messages(web.feed, which))


def _cursor(request: Asked, after: int | None, feed: Feed) -> int:
    last = request.headers.get("last-event-id", "")
    if last:
        if not (last.isascii() and last.isdigit() and len(last) < 20):
            raise BadMessage("Last-Event-ID must be a sequence number.")
        return int(last)
    return feed.head if after is None else after


async def _messages(feed: Feed, which: EventFilter) -> AsyncIterator[bytes]:
    yield b"retry: 2000\n\n"
    async for batch in feed.follow(which):
        yield b"".join(map(_message, batch)) or b": still here\n\n"


def _message(stored: StoredEvent) -> bytes:
    data = msgspec.json.encode(event_view(stored))
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (stored.seq, stored.event.type.encode(), data)


def sse(messages: AsyncIterator[bytes]) -> Stream:
    """An answer that goes on for as long as both sides like."""
    return Stream(
        messages,
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


def split_types(kinds: str) -> tuple[str, ...]:
    return tuple(kind for kind in kinds.replace(" ", "").split(",") if kind)[:20]


@get("/ledger/balances", responses=documented(401, 403), security=SIGNED_IN, tags=["ledger"])
async def balances(web: FromWeb, visitor: FromVisitor) -> Balances:
    """Every account's balance; they sum to zero. Operator only."""
    need_operator(visitor)
    return await web.views.balances()


@get("/ledger/transfers", responses=documented(401, 403), security=SIGNED_IN, tags=["ledger"])
async def transfers(
    web: FromWeb, visitor: FromVisitor, account: Text = "", before: Text = "", limit: Limit = 100
) -> list[TransferView]:
    """Transfers, newest first; page with `before` = the last `id` seen. Operator only."""
    need_operator(visitor)
    return await web.views.transfers(account, before, limit)


@get("/orchestrators", responses=documented(401, 403), security=SIGNED_IN, tags=["pool"])
async def orchestrators(web: FromWeb, visitor: FromVisitor) -> list[OrchestratorView]:
    """The orchestrators that this pool works for, and its slot groups there. Operator only."""
    need_operator(visitor)
    return await web.views.orchestrators()


@get("/jobs", responses=documented(401, 403), security=SIGNED_IN, tags=["pool"])
async def jobs(web: FromWeb, visitor: FromVisitor) -> list[JobView]:
    """Jobs in flight. Operator only."""
    need_operator(visitor)
    return web.views.jobs()


READING: list[HTTPRouteHandler] = [
    public,
    status,
    workers,
    worker,
    earnings,
    series,
    events,
    event_stream,
    balances,
    transfers,
    orchestrators,
    jobs,
]


def reading_router() -> Router:
    return Router("/api/v1", route_handlers=READING)
