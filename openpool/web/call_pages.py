"""The dashboard's pages about calls: models, one call with its fee, and live video."""

from typing import Annotated

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.params import PathParameter
from litestar.response import Template

from openpool.web.call_shapes import sold
from openpool.web.context import FromVisitor, FromWeb
from openpool.web.door import need_operator, need_sign_in
from openpool.web.interface import DEFAULT_LIVE_FPS
from openpool.web.problems import Asked, NotFound
from openpool.web.show import show

ROWS = 15
PathId = Annotated[str, PathParameter(min_length=1, max_length=200)]
CAMERA_HEADERS = {
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; media-src 'self' blob:; object-src 'none'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
}
"""One page may ask for the camera and play a file that was chosen, which never leaves as a file."""


@get("/models", include_in_schema=False)
async def models_page(request: Asked, web: FromWeb, visitor: FromVisitor) -> Template:
    """Who serves what."""
    need_operator(visitor)
    return show(
        request,
        web,
        visitor,
        "models",
        "Models",
        models=await web.calls.models(),
        sold=sold(web.calls.runners()),
        in_flight=web.calls.in_flight()[:ROWS],
        recent=await web.calls.recent(ROWS),
        names=await web.views.names(),
    )


@get("/calls/{call:str}", include_in_schema=False)
async def call_page(request: Asked, web: FromWeb, visitor: FromVisitor, call: PathId) -> Template:
    """One call, and how its fee came about."""
    need_sign_in(visitor)
    found = await web.calls.call(call, visitor.may_see)
    if found is None:
        raise NotFound("There is no such call, or your workers had nothing to do with it.")
    return show(
        request,
        web,
        visitor,
        "call",
        f"Call {call}",
        call=found,
        names=await web.views.names(),
    )


@get("/live-video", include_in_schema=False)
async def live_video_page(request: Asked, web: FromWeb, visitor: FromVisitor) -> Template:
    """A camera or a file, and what a worker sees in it. Customers use it with their key."""
    exchange = web.deps.exchange
    apps = exchange.apps() if exchange else {}
    shown = show(
        request,
        web,
        visitor,
        "live_video",
        "Live video",
        apps=sorted(app for app, offers in apps.items() if any(each.session for each in offers)),
        fps=DEFAULT_LIVE_FPS,
    )
    shown.headers.update(CAMERA_HEADERS)
    return shown


CALL_PAGES: list[HTTPRouteHandler] = [models_page, call_page, live_video_page]
