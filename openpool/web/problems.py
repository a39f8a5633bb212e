"""Every error as one sentence: problem+json for programs, a small page for people. No traces.

What an error of `core.errors` means in HTTP is the table below. An error that is not ours is our
bug: it is logged with its trace, and the visitor is told that the fault is the pool's.
"""

import traceback
from http import HTTPStatus

import structlog
from litestar import MediaType, Request, Response
from litestar.datastructures import State
from litestar.exceptions import HTTPException, ValidationException
from litestar.openapi.datastructures import ResponseSpec
from litestar.response import Redirect, Template
from msgspec import Struct

from openpool.core.errors import (
    BadMessage,
    NoCapacity,
    NotAllowed,
    OpenPoolError,
    PeerError,
    Refusal,
    Timeout,
    Unauthorized,
    Unavailable,
)

Asked = Request[None, None, State]

STATUS: dict[type[OpenPoolError], int] = {}
"""The most exact class wins; filled below, after the classes that the web adds."""


class NotFound(Refusal):
    """There is nothing at this address that you may see."""

    code = "not-found"


class NotSetUp(NotFound):
    """This pool is not set up for that; its operator would have to change the settings."""

    code = "setup"


class SignInNeeded(Refusal):
    """Sign in first: with the operator's token, a worker's token or a wallet."""

    code = "sign-in-needed"


class TooMany(Refusal):
    """Too many tries; wait a minute and try again."""

    code = "too-many"


STATUS |= {
    OpenPoolError: 500,
    PeerError: 400,
    BadMessage: 400,
    Unauthorized: 401,
    SignInNeeded: 401,
    Refusal: 409,
    NotAllowed: 403,
    NotFound: 404,
    TooMany: 429,
    NoCapacity: 503,
    Unavailable: 503,
    Timeout: 504,
}


class Problem(Struct, frozen=True, kw_only=True):
    """What is wrong, and what to do (RFC 9457)."""

    title: str
    status: int
    detail: str
    code: str


def documented(*statuses: int) -> dict[int, ResponseSpec]:
    """The problems that a route may answer with, for the OpenAPI document."""
    return {
        status: ResponseSpec(
            data_container=Problem,
            description=HTTPStatus(status).phrase,
            media_type="application/problem+json",
            generate_examples=False,
        )
        for status in sorted({400, 429, *statuses})
    }


def problem_of(error: Exception) -> Problem:
    """What to tell the visitor about an error."""
    if isinstance(error, OpenPoolError):
        kind = next(each for each in type(error).__mro__ if each in STATUS)
        status, detail, code = STATUS[kind], str(error), error.code
    elif isinstance(error, ValidationException):
        status, detail, code = 400, _invalid(error), "bad-message"
    elif isinstance(error, HTTPException):
        status, code = error.status_code, "http"
        detail = _DETAILS.get(status) or error.detail or HTTPStatus(status).phrase
    else:
        # without the values of variables, among which secrets may be
        trace = "".join(traceback.format_exception(error, limit=-8))
        structlog.get_logger("web").error("request-failed", trace=trace)
        status, code = 500, "bug"
        detail = "Something went wrong inside the pool; its log says what."
    return Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, code=code)


_DETAILS = {
    404: "There is nothing at this address.",
    405: "This address does not take that method.",
    413: "The request is too large.",
}


def _invalid(error: ValidationException) -> str:
    extra = error.extra if isinstance(error.extra, list) else []
    faults = [
        f"{each.get('key', 'request')}: {each.get('message', 'not valid')}"
        for each in extra
        if isinstance(each, dict)
    ]
    return ("The request is not valid. " + "; ".join(faults[:5])).strip()[:600]


Answer = Response[Problem] | Template | Redirect


def answer(request: Asked, error: Exception, visitor: object) -> Answer:
    """The handler of all exceptions; the page says what went wrong to this `Visitor`."""
    problem = problem_of(error)
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if problem.status == 429:
        headers["Retry-After"] = "60"
    if _is_program(request):
        if problem.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return Response(
            problem,
            status_code=problem.status,
            media_type="application/problem+json",
            headers=headers,
        )
    if isinstance(error, SignInNeeded):
        return Redirect(f"/login?next={request.url.path}", status_code=303)
    context = {"problem": problem, "title": problem.title, "visitor": visitor, "page": ""}
    return Template(
        "error.html",
        context=context,
        status_code=problem.status,
        media_type=MediaType.HTML,
        headers=headers,
    )


def _is_program(request: Asked) -> bool:
    path = request.url.path
    if path.startswith(("/api/", "/schema", "/metrics")) or path == "/live":
        return True
    return "text/html" not in request.headers.get("accept", "")
