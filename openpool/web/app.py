"""The web application: REST API, pages, metrics and one live stream, made from `Deps`.

`create_app` is all that others call; `web.serve` runs what it returns. Every answer carries strict
security headers: nothing is loaded from other hosts, nothing may frame a page, no inline script
or style runs.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from litestar import Litestar, Response, asgi, get
from litestar.datastructures import CacheControlHeader
from litestar.di import Provide
from litestar.handlers import ASGIRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.plugins.jinja import JinjaTemplateEngine
from litestar.static_files import create_static_files_router
from litestar.template import TemplateConfig
from litestar.types import HTTPScope, Receive, Send

from openpool.web import direct_schema
from openpool.web.api import reading_router
from openpool.web.api_calls import calls_router
from openpool.web.api_customers import customers_router
from openpool.web.api_delegation import delegation_router
from openpool.web.api_join import changing_router
from openpool.web.api_payouts import payouts_router
from openpool.web.api_revenue import revenue_router
from openpool.web.api_statements import statement_routes
from openpool.web.auth import COOKIE, RateLimit, Sessions, Visitor
from openpool.web.bidi import visible
from openpool.web.call_views import CallViews
from openpool.web.context import FromVisitor, FromWeb, Web
from openpool.web.direct import DirectApi
from openpool.web.door import Door, need_operator, refuse_foreign_origin
from openpool.web.feed import Feed
from openpool.web.interface import Deps
from openpool.web.live_socket import live_socket
from openpool.web.metrics import Metrics
from openpool.web.pages import PAGES, filters
from openpool.web.problems import Answer, Asked, answer, documented
from openpool.web.views import Views

HERE = Path(__file__).parent
BODY_BYTES_MAX = 64 * 1024

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}
Hardened = TypeVar("Hardened", bound=Response[Any])


def create_app(deps: Deps) -> Litestar:
    """The application. While it runs it follows the event feed; `app.state.feed` can end that."""
    web = _web(deps)

    def answered(request: Asked, error: Exception) -> Answer:
        return _harden(answer(request, error, web.door.of_cookie(request)))

    async def provide_visitor(request: Asked) -> Visitor:
        return await web.door.visitor(request)

    @asynccontextmanager
    async def follow_feed(_: Litestar) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            following = group.create_task(web.feed.run())
            try:
                yield
            finally:
                web.feed.close()
                following.cancel()

    app = Litestar(
        route_handlers=[
            reading_router(),
            changing_router(),
            customers_router(),
            calls_router(),
            *statement_routes(),
            revenue_router(),
            payouts_router(),
            delegation_router(),
            live_socket,
            *_direct_api(deps),
            metrics,
            *PAGES,
            create_static_files_router(
                path="/static",
                directories=[HERE / "static"],
                cache_control=CacheControlHeader(max_age=3600, public=True),
                include_in_schema=False,
            ),
        ],
        dependencies={
            "web": Provide(lambda: web, sync_to_thread=False),
            "visitor": Provide(provide_visitor),
        },
        lifespan=[follow_feed],
        before_request=refuse_foreign_origin,
        after_request=_harden,
        exception_handlers={Exception: answered},
        template_config=TemplateConfig(instance=_templates(deps)),
        openapi_config=_openapi(deps),
        request_max_body_size=BODY_BYTES_MAX,
        logging_config=None,
    )
    app.state.feed = web.feed
    if deps.customers is not None and deps.exchange is not None:
        # one mounted application, of which the document would know nothing
        document = app.openapi_schema
        document.paths = {**(document.paths or {}), **direct_schema.paths()}
    return app


def _direct_api(deps: Deps) -> list[ASGIRouteHandler]:
    """The API for customers, if the pool has one."""
    if deps.customers is None or deps.exchange is None:
        return []
    api = DirectApi(
        deps.customers,
        deps.exchange,
        body_bytes_max=deps.body_bytes_max,
        idle_s=deps.idle_s,
        headers=HEADERS,
        transcoder=deps.transcoder,
    )

    @asgi("/v1", is_mount=True, copy_scope=False)
    async def direct(scope: HTTPScope, receive: Receive, send: Send) -> None:
        await api(scope, receive, send, "/v1" + scope["path"].rstrip("/"))

    return [direct]


def _web(deps: Deps) -> Web:
    feed = Feed(deps.reader, deps.subscribe)
    metrics_ = Metrics(deps)
    feed.observe(metrics_.observe)
    tries = RateLimit(per_minute=deps.tries_per_minute, burst=deps.tries_per_minute)
    lookups = RateLimit(per_minute=deps.tries_per_minute, burst=deps.tries_per_minute)
    door = Door(deps=deps, sessions=Sessions(), tries=tries, lookups=lookups)
    calls = CallViews(deps)
    return Web(
        deps=deps,
        views=Views(deps, calls),
        calls=calls,
        feed=feed,
        door=door,
        metrics=metrics_,
    )


@get("/metrics", responses=documented(401, 403), tags=["metrics"], media_type="text/plain")
async def metrics(web: FromWeb, visitor: FromVisitor) -> Response[bytes]:
    """Prometheus metrics; needs the operator's token unless the settings make them public."""
    if not web.deps.metrics_public:
        need_operator(visitor)
    body = await web.metrics.render(web.feed.viewers)
    return Response(body, media_type="text/plain; version=0.0.4; charset=utf-8")


def _harden(response: Hardened) -> Hardened:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _templates(deps: Deps) -> JinjaTemplateEngine:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        finalize=visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters())
    environment.globals.update(
        pool=deps.pool_name,
        version=deps.version,
        public_url=deps.public_url,
        delegation=deps.delegation is not None,
        explorer=deps.explorer,
    )
    return JinjaTemplateEngine.from_environment(environment)


def _openapi(deps: Deps) -> OpenAPIConfig:
    return OpenAPIConfig(
        title=f"{deps.pool_name}: Open Pool API",
        version=deps.version,
        description="Wei are decimal strings, times ms since 1970, rates parts per million.",
        path="/schema",
        use_handler_docstrings=True,
        render_plugins=[JsonRenderPlugin(path="/openapi.json")],
        components=Components(
            security_schemes={
                "bearer": SecurityScheme(
                    type="http",
                    scheme="bearer",
                    description="The operator's token, or a worker's token.",
                ),
                direct_schema.SECURITY: direct_schema.SCHEME,
                "session": SecurityScheme(
                    type="apiKey",
                    name=COOKIE,
                    security_scheme_in="cookie",
                    description="Set by POST /api/v1/session.",
                ),
            }
        ),
    )
