"""The dashboard's pages, rendered on the server.

Each page has a live part: the same address, asked for by htmx, answers with that part alone, and
the browser merges it in whenever the `/live` stream ticks. Deeds (forms) are in `web.deeds`.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.params import PathParameter, QueryParameter
from litestar.response import Redirect, Stream, Template

from openpool.core.capabilities import names as capability_names
from openpool.core.livepeer.amounts import eth_text
from openpool.core.texts import plural
from openpool.store.interface import EventFilter
from openpool.web import format as text
from openpool.web import words
from openpool.web.api import split_types, sse
from openpool.web.bidi import described
from openpool.web.call_pages import CALL_PAGES
from openpool.web.context import FromVisitor, FromWeb, seen_worker
from openpool.web.customer_pages import CUSTOMER_PAGES
from openpool.web.deeds import DEEDS
from openpool.web.delegator_pages import DELEGATOR_PAGES
from openpool.web.door import need_operator, need_sign_in
from openpool.web.feed import Feed
from openpool.web.money_pages import MONEY_PAGES
from openpool.web.problems import Asked, NotFound
from openpool.web.shapes import Worker
from openpool.web.show import show

ROWS = 50
JOBS = 5
"""Jobs in flight shown on the first page."""
EVENT_TYPES = (
    "job-delivered",
    "job-failed",
    "job-hedged",
    "attempt-failed",
    "result-refused",
    "fee-credited",
    "call-completed",
    "call-failed",
    "call-attempt-failed",
    "line-opened",
    "line-closed",
    "worker-connected",
    "worker-disconnected",
    "worker-cooled-down",
    "worker-enrolled",
    "orchestrator-up",
    "orchestrator-down",
    "group-opened",
    "group-closed",
    "price-changed",
)
"""Those offered in the filter of the feed."""

TROUBLE = (
    "attempt-failed",
    "call-attempt-failed",
    "result-refused",
    "worker-cooled-down",
    "worker-disconnected",
)
"""What the page of a worker shows of what went wrong."""

RANGES = {
    "1h": (3_600, 60),
    "6h": (6 * 3_600, 300),
    "24h": (86_400, 900),
    "7d": (7 * 86_400, 7_200),
    "30d": (30 * 86_400, 28_800),
}
"""Span and step of the charts, in seconds."""

STATUS_ORDER = ("pending", "cooling", "offline", "full", "working", "ready", "away", "banned")
SORTS: dict[str, Callable[[Worker], object]] = {
    "name": lambda w: (w.name.lower(), w.worker),
    "status": lambda w: (STATUS_ORDER.index(w.status), w.name.lower()),
    "load": lambda w: (w.used, w.capacity),
    "rtf": lambda w: w.day.busy_ms * 1000 // w.day.media_ms if w.day.media_ms else 10**9,
    "success": lambda w: success_ppm(w),
    "segments": lambda w: w.day.segments,
    "calls": lambda w: w.day.calls,
    "credited": lambda w: int(w.day.worker_wei),
    "total": lambda w: int(w.credited_wei),
    "seen": lambda w: w.last_seen_ms,
}
FALLING = {"load", "segments", "calls", "credited", "total", "seen"}
"""Sorted with the largest first when chosen."""

Range = Annotated[str, QueryParameter(name="range", max_length=4)]
Types = Annotated[str, QueryParameter(name="type", max_length=500)]
Name = Annotated[str, QueryParameter(max_length=200)]
PathId = Annotated[str, PathParameter(min_length=1, max_length=200)]
Seq = Annotated[int, QueryParameter(ge=0, le=2**62)]
Number = Annotated[int, QueryParameter(ge=1, le=10_000)]


def filters() -> dict[str, Callable[..., object]]:
    """What templates may call."""
    return {
        "ago": text.ago,
        "amount": words.amount,
        "capabilities": capability_names,
        "describe": described,
        "duration": text.duration,
        "ether": lambda wei, top=0: text.ether(int(wei), int(top)),
        "counted": words.counted,
        "entry": words.entry,
        "ether_exact": lambda wei: eth_text(int(wei)),
        "grouped": text.grouped,
        "iso": text.iso,
        "job_of": words.job_of,
        "order_of": words.order_of,
        "large": text.large,
        "marked": text.marked,
        "lpt": lambda amount: text.lpt(int(amount)),
        "middle": text.middle,
        "level": words.level,
        "precise": text.precise,
        "usd": words.usd,
        "percent": text.percent_text,
        "money": text.price_text,
        "ppm": text.ppm_text,
        "ratio": text.ratio_text,
        "short": text.short,
        "short_text": text.short_text,
        "spark": spark,
        "subject": words.subject,
        "times": plural,
    }


def success_ppm(worker: Worker) -> int:
    tried = worker.day.segments + worker.day.failed + worker.day.refused
    return worker.day.segments * 1_000_000 // tried if tried else -1


def spark(values: Sequence[int], width: int = 100, height: int = 24) -> str:
    """The path of a sparkline as SVG coordinates."""
    top = max(values, default=0) or 1
    steps = max(len(values) - 1, 1)
    points = [
        f"{i * width // steps},{height - 1 - value * (height - 2) // top}"
        for i, value in enumerate(values)
    ]
    return "M" + " L".join(points)


@get("/", include_in_schema=False)
async def home(request: Asked, web: FromWeb, visitor: FromVisitor) -> Template:
    """What the pool is, its totals, how to join."""
    return show(
        request,
        web,
        visitor,
        "home",
        web.deps.pool_name,
        totals=await web.views.public(),
        terms=web.deps.enrolment.terms(),
        join_link=web.deps.join_link(),
        worker_port=web.deps.worker_port,
    )


@get("/overview", include_in_schema=False)
async def overview(
    request: Asked, web: FromWeb, visitor: FromVisitor, span: Range = "24h"
) -> Template | Redirect:
    """The operator's first page."""
    if visitor.role == "worker":
        return Redirect("/workers", status_code=303)
    need_operator(visitor)
    return show(
        request,
        web,
        visitor,
        "overview",
        "Overview",
        status=await web.views.status(),
        orchestrators=await web.views.orchestrators(),
        jobs=web.views.jobs()[:JOBS],
        calls=web.calls.in_flight()[:JOBS],
        models=await web.calls.models(),
        names=await web.views.names(),
        **_range(span),
    )


def _range(span: str) -> dict[str, object]:
    chosen = span if span in RANGES else "24h"
    return {"ranges": list(RANGES), "range": chosen, "span": RANGES[chosen]}


@get("/workers", include_in_schema=False)
async def workers(
    request: Asked,
    web: FromWeb,
    visitor: FromVisitor,
    sort: Name = "credited",
    order: Name = "",
    number: Annotated[int, QueryParameter(name="page", ge=1, le=10_000)] = 1,
) -> Template | Redirect:
    """All workers for the operator; a worker's own, or its page if it has one."""
    need_sign_in(visitor)
    if visitor.role == "worker" and len(visitor.workers) == 1:
        return Redirect(f"/workers/{visitor.workers[0]}", status_code=303)
    sort = sort if sort in SORTS else "credited"
    order = order if order in ("up", "down") else ("down" if sort in FALLING else "up")
    found = await web.views.workers(None if visitor.role == "operator" else visitor.workers)
    found.sort(key=SORTS[sort], reverse=order == "down")  # type: ignore[arg-type]  # comparable
    start = (number - 1) * ROWS
    return show(
        request,
        web,
        visitor,
        "workers",
        "Workers",
        workers=found[start : start + ROWS],
        total=len(found),
        number=number,
        more=len(found) > start + ROWS,
        sort=sort,
        order=order,
        falling=FALLING,
        join_link=web.deps.join_link(),
        public=web.deps.enrolment.terms().public,
    )


@get("/workers/{worker:str}", include_in_schema=False)
async def worker_page(
    request: Asked,
    web: FromWeb,
    visitor: FromVisitor,
    worker: PathId,
    span: Range = "24h",
    before: Seq = 0,
) -> Template:
    """Everything about one worker."""
    found = await web.views.worker(seen_worker(visitor, worker))
    if found is None:
        raise NotFound("There is no such worker, or it is not yours.")
    trouble = EventFilter(
        types=TROUBLE,
        worker=worker,
        newest_first=True,
        limit=8,
    )
    earnings = await web.views.earnings(worker, before, ROWS // 2 + 1)
    return show(
        request,
        web,
        visitor,
        "worker",
        found.worker.name or worker,
        worker=found.worker,
        detail=found,
        success=success_ppm(found.worker),
        earnings=earnings[: ROWS // 2],
        older=earnings[ROWS // 2 - 1].seq if len(earnings) > ROWS // 2 else 0,
        before=before,
        trouble=await web.views.events(trouble),
        tokens=await web.deps.enrolment.tokens(worker),
        **_range(span),
    )


@get("/events", include_in_schema=False)
async def event_page(
    request: Asked,
    web: FromWeb,
    visitor: FromVisitor,
    kinds: Types = "",
    worker: Name = "",
    job: Name = "",
    before: Seq = 0,
) -> Template | Redirect:
    """The event feed: the newest, live, or older ones; owners of several workers choose."""
    if len(visitor.workers) > 1 and not worker:
        return Redirect("/workers", status_code=303)
    seen = seen_worker(visitor, worker)
    which = EventFilter(
        types=split_types(kinds),
        worker=seen,
        job=job,
        before_seq=before,
        newest_first=True,
        limit=ROWS + 1,
    )
    found = await web.views.events(which)
    return show(
        request,
        web,
        visitor,
        "events",
        "Events",
        events=found[:ROWS],
        names=await web.views.names() if visitor.role == "operator" else {},
        older=found[ROWS - 1].seq if len(found) > ROWS else 0,
        before=before,
        kinds=kinds,
        types=EVENT_TYPES,
        worker=seen,
        job=job,
    )


@get("/ledger", include_in_schema=False)
async def ledger(
    request: Asked, web: FromWeb, visitor: FromVisitor, account: Name = "", before: Name = ""
) -> Template:
    """Balances and the latest transfers."""
    need_operator(visitor)
    balances = await web.views.balances()
    shown = [row for row in balances.balances if account in ("", row.account)]
    transfers = await web.views.transfers(account, before, ROWS + 1)
    return show(
        request,
        web,
        visitor,
        "ledger",
        "Ledger",
        balances=shown[:200],
        accounts=len(balances.balances),
        sum_wei=balances.sum_wei,
        transfers=transfers[:ROWS],
        older=transfers[ROWS - 1].id if len(transfers) > ROWS else "",
        account=account,
        before=before,
    )


@get("/api", include_in_schema=False)
async def api_page(request: Asked, web: FromWeb, visitor: FromVisitor) -> Template:
    """The API at a glance, from its own OpenAPI document."""
    paths = request.app.openapi_schema.to_schema()["paths"]
    groups: dict[str, list[dict[str, object]]] = {}
    for path, item in sorted(paths.items()):
        for method, operation in item.items():
            if method in ("get", "post", "put", "delete"):
                tag = (operation.get("tags") or ["others"])[0]
                asked = {"path": path, "method": method.upper(), **operation}
                groups.setdefault(tag, []).append(asked)
    return show(request, web, visitor, "api", "API", groups=sorted(groups.items()))


TICK_S = 2.0
"""At most so often does a page refresh itself; less often when many are watching."""


@get("/live", include_in_schema=False)
async def live(web: FromWeb, visitor: FromVisitor) -> Stream:
    """Ticks when there is something new for this visitor (server-sent events)."""
    need_sign_in(visitor)
    web.feed.check_room()
    worker = visitor.workers[0] if len(visitor.workers) == 1 else ""
    which = EventFilter(after_seq=web.feed.head, worker=worker)
    return sse(_ticks(web.feed, which))


async def _ticks(feed: Feed, which: EventFilter) -> AsyncIterator[bytes]:
    yield b"retry: 2000\n\n"
    async for _ in feed.follow(which):
        yield b"event: tick\ndata: %d\n\n" % feed.head
        await feed.pause(max(TICK_S, feed.viewers * 0.02))


PAGES: list[HTTPRouteHandler] = [
    home,
    overview,
    workers,
    worker_page,
    event_page,
    ledger,
    api_page,
    live,
    *CALL_PAGES,
    *CUSTOMER_PAGES,
    *DELEGATOR_PAGES,
    *MONEY_PAGES,
    *DEEDS,
]
