"""What people do on the pages: sign in and out, decide about workers, change tokens.

Plain forms that end in a redirect, so that they work without scripts. A new secret is shown once,
on the answer to its form, and nowhere else.
"""

from typing import Annotated
from urllib.parse import quote

from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import PathParameter, QueryParameter, URLEncodedBody
from litestar.response import Redirect, Template
from msgspec import Meta, Struct

from openpool.core.errors import OpenPoolError
from openpool.web.auth import Visitor
from openpool.web.context import FromVisitor, FromWeb, Web, seen_worker
from openpool.web.door import need_operator
from openpool.web.interface import DEFAULT_GROUP
from openpool.web.problems import Asked, problem_of

Text = Annotated[str, Meta(max_length=512)]
PathId = Annotated[str, PathParameter(min_length=1, max_length=200)]


class LoginForm(Struct, frozen=True, kw_only=True):
    secret: Text = ""
    next: Text = ""


class ReasonForm(Struct, frozen=True, kw_only=True):
    reason: Text = ""


After = Annotated[str, QueryParameter(name="next", max_length=500)]
Login = URLEncodedBody[LoginForm]
Why = URLEncodedBody[ReasonForm]


@get("/login", include_in_schema=False)
async def login_page(
    web: FromWeb,
    visitor: FromVisitor,
    after: After = "",
) -> Template:
    """Where one signs in."""
    return _login(web, visitor, after, "")


def _login(web: Web, visitor: Visitor, after: str, error: str) -> Template:
    context = {
        "after": after,
        "error": error,
        "now_ms": web.views.now_ms(),
        "page": "login",
        "title": "Sign in",
        "visitor": visitor,
    }
    return Template("login.html", context=context)


@post("/login", include_in_schema=False)
async def sign_in(
    request: Asked, web: FromWeb, visitor: FromVisitor, data: Login
) -> Template | Redirect:
    """Sign in with the operator's or a worker's secret."""
    try:
        known = await web.door.by_secret(data.secret.strip(), request)
    except OpenPoolError as error:
        answer = _login(web, visitor, data.next, str(error))
        answer.status_code = problem_of(error).status
        return answer
    _, cookie = web.door.open_session(known, request)
    start = "/overview" if known.role == "operator" else "/workers"
    return Redirect(_local(data.next) or start, status_code=303, cookies=[cookie])


def _local(path: str) -> str:
    """A path of our own pages, or "" if it would lead elsewhere."""
    safe = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return quote(path, safe="/?&=%:,") if safe and "\\" not in path else ""


@post("/logout", include_in_schema=False)
async def sign_out(request: Asked, web: FromWeb) -> Redirect:
    """End the session."""
    return Redirect("/", status_code=303, cookies=[web.door.close_session(request)])


@post("/workers/{worker:str}/approve", include_in_schema=False)
async def approve(web: FromWeb, visitor: FromVisitor, worker: PathId) -> Redirect:
    """Let a worker work."""
    need_operator(visitor)
    await web.deps.enrolment.approve(worker)
    return _back(worker)


@post("/workers/{worker:str}/ban", include_in_schema=False)
async def ban(web: FromWeb, visitor: FromVisitor, worker: PathId, data: Why) -> Redirect:
    """Shut a worker out."""
    need_operator(visitor)
    await web.deps.enrolment.ban(worker, data.reason.strip() or "the operator decided so")
    return _back(worker)


def _back(worker: str) -> Redirect:
    return Redirect(f"/workers/{quote(worker, safe='')}", status_code=303)


@post("/workers/{worker:str}/rotate", include_in_schema=False)
async def rotate(web: FromWeb, visitor: FromVisitor, worker: PathId) -> Template:
    """A new token, shown once."""
    enrolled = await web.deps.enrolment.rotate_token(seen_worker(visitor, worker), "dashboard")
    return show_secret(
        web,
        visitor,
        title="New token",
        secret=enrolled.secret,
        text="Give it to the worker now; it is shown this once. The older tokens stay good for a "
        "grace period, so nothing stops.",
        back=f"/workers/{worker}",
    )


@post("/workers/{worker:str}/revoke/{token:str}", include_in_schema=False)
async def revoke(web: FromWeb, visitor: FromVisitor, worker: PathId, token: PathId) -> Redirect:
    """End a token."""
    await web.deps.enrolment.revoke_token(seen_worker(visitor, worker), token)
    return _back(worker)


@post("/invites", include_in_schema=False)
async def invite(web: FromWeb, visitor: FromVisitor) -> Template:
    """An invitation, shown once."""
    need_operator(visitor)
    code = await web.deps.enrolment.invite("dashboard", DEFAULT_GROUP)
    return show_secret(
        web,
        visitor,
        title="Invitation",
        secret=web.deps.join_link(code),
        text="A join link that is good for one worker. Send it to whoever is to join; it is shown "
        "this once.",
        back="/workers",
    )


def show_secret(
    web: Web, visitor: Visitor, *, title: str, secret: str, text: str, back: str
) -> Template:
    """A page that shows a secret, this once."""
    context = {
        "back": back,
        "now_ms": web.views.now_ms(),
        "page": "secret",
        "secret": secret,
        "text": text,
        "title": title,
        "visitor": visitor,
    }
    return Template("secret.html", context=context)


DEEDS: list[HTTPRouteHandler] = [
    login_page,
    sign_in,
    sign_out,
    approve,
    ban,
    rotate,
    revoke,
    invite,
]
