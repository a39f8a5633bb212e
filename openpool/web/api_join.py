"""The REST API that changes something: joining, signing in, tokens, and the operator's deeds.

Each is decided by the pool's enrolment; here only the right to ask is checked. Routes that try a
secret or a signature are limited per client.
"""

from typing import Annotated

from litestar import Response, Router, delete, get, post
from litestar.datastructures import Cookie
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody, PathParameter
from msgspec import Meta, Struct

from openpool.core.enrolment import Enrolled, Terms
from openpool.core.errors import BadMessage
from openpool.web.answers import Invitation, TokenView
from openpool.web.context import FromVisitor, FromWeb, seen_worker
from openpool.web.door import SignedInView, need_operator
from openpool.web.interface import DEFAULT_GROUP
from openpool.web.problems import Asked, documented

Line = Annotated[str, Meta(max_length=200)]
Message = Annotated[str, Meta(max_length=4000)]
Signature = Annotated[str, Meta(max_length=400)]
PathId = Annotated[str, PathParameter(min_length=1, max_length=200)]
SIGNED_IN: list[dict[str, list[str]]] = [{"bearer": []}, {"session": []}]


class NonceRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    address: Line
    """The Ethereum address that will be paid."""


class NonceAnswer(Struct, frozen=True, kw_only=True):
    message: str
    """To be signed as it is (EIP-191, `personal_sign`)."""


class EnrollRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    message: Message
    signature: Signature
    name: Line
    terms: Line
    """Digest of the terms that the worker accepts."""
    invite: Line = ""


class SessionRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Either a secret, or a message with its signature."""

    secret: Annotated[str, Meta(max_length=512)] = ""
    message: Message = ""
    signature: Signature = ""


class RotateRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    label: Line = ""


class BanRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    reason: Annotated[str, Meta(min_length=1, max_length=200)]


class InviteRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    note: Line = ""
    group: Line = DEFAULT_GROUP
    """The group of workers that it admits to."""


@get("/terms", responses=documented(), tags=["join"])
async def terms(web: FromWeb) -> Terms:
    """What a worker accepts when it joins."""
    return web.deps.enrolment.terms()


@post("/enroll/nonce", status_code=200, responses=documented(), tags=["join"])
async def nonce(request: Asked, web: FromWeb, data: JSONBody[NonceRequest]) -> NonceAnswer:
    """The message that proves an address when its wallet signs it; good once."""
    web.door.count_try(request)
    return NonceAnswer(message=await web.deps.enrolment.nonce(data.address))


@post("/enroll", responses=documented(401, 403, 409), tags=["join"])
async def enroll(request: Asked, web: FromWeb, data: JSONBody[EnrollRequest]) -> Enrolled:
    """Join the pool. The secret in the answer is shown this once."""
    web.door.count_try(request)
    return await web.deps.enrolment.enroll(
        message=data.message,
        signature=data.signature,
        name=data.name,
        terms=data.terms,
        invite=data.invite,
    )


@post("/session", responses=documented(401, 403), tags=["session"])
async def sign_in(
    request: Asked, web: FromWeb, data: JSONBody[SessionRequest]
) -> Response[SignedInView]:
    """Sign in with a secret (operator or worker) or a wallet; the answer sets a cookie."""
    if data.secret:
        visitor = await web.door.by_secret(data.secret, request)
    elif data.message and data.signature:
        web.door.count_try(request)
        visitor = await web.door.by_wallet(data.message, data.signature)
    else:
        raise BadMessage("Send `secret`, or `message` and `signature`.")
    view, cookie = web.door.open_session(visitor, request)
    return Response(view, cookies=[cookie])


@delete("/session", responses=documented(), tags=["session"])
async def sign_out(request: Asked, web: FromWeb) -> Response[None]:
    """End the session of this cookie."""
    gone: Cookie = web.door.close_session(request)
    return Response(None, status_code=204, cookies=[gone])


@get("/workers/{worker:str}/tokens", responses=documented(401, 404), tags=["tokens"])
async def tokens(web: FromWeb, visitor: FromVisitor, worker: PathId) -> list[TokenView]:
    """The tokens of a worker, without their secrets."""
    rows = await web.deps.enrolment.tokens(seen_worker(visitor, worker))
    return [
        TokenView(
            token=row.token,
            worker=row.worker,
            label=row.label,
            created_ms=row.created_ms,
            last_used_ms=row.last_used_ms,
            expires_ms=row.expires_ms,
            revoked_ms=row.revoked_ms,
        )
        for row in rows
    ]


@post("/workers/{worker:str}/tokens", responses=documented(401, 403, 404), tags=["tokens"])
async def rotate_token(
    web: FromWeb, visitor: FromVisitor, worker: PathId, data: JSONBody[RotateRequest]
) -> Enrolled:
    """A new secret. The old ones stay good for a grace period, so that nothing stands still."""
    return await web.deps.enrolment.rotate_token(seen_worker(visitor, worker), data.label)


@delete(
    "/workers/{worker:str}/tokens/{token:str}", responses=documented(401, 403, 404), tags=["tokens"]
)
async def revoke_token(web: FromWeb, visitor: FromVisitor, worker: PathId, token: PathId) -> None:
    """Make a token worthless at once."""
    await web.deps.enrolment.revoke_token(seen_worker(visitor, worker), token)


@post(
    "/workers/{worker:str}/approve",
    status_code=204,
    responses=documented(401, 403, 404, 409),
    tags=["operator"],
)
async def approve(web: FromWeb, visitor: FromVisitor, worker: PathId) -> None:
    """Let a pending worker work. Operator only."""
    need_operator(visitor)
    await web.deps.enrolment.approve(worker)


@post(
    "/workers/{worker:str}/ban",
    status_code=204,
    responses=documented(401, 403, 404, 409),
    tags=["operator"],
)
async def ban(
    web: FromWeb, visitor: FromVisitor, worker: PathId, data: JSONBody[BanRequest]
) -> None:
    """Shut a worker out; what it has earned stays its own. Operator only."""
    need_operator(visitor)
    await web.deps.enrolment.ban(worker, data.reason)


@post("/invites", responses=documented(401, 403), tags=["operator"])
async def invite(web: FromWeb, visitor: FromVisitor, data: JSONBody[InviteRequest]) -> Invitation:
    """An invitation that is good once, and the join link that holds it. Operator only."""
    need_operator(visitor)
    code = await web.deps.enrolment.invite(data.note, data.group)
    return Invitation(invite=code, join_link=web.deps.join_link(code))


CHANGING: list[HTTPRouteHandler] = [
    terms,
    nonce,
    enroll,
    sign_in,
    sign_out,
    tokens,
    rotate_token,
    revoke_token,
    approve,
    ban,
    invite,
]


def changing_router() -> Router:
    return Router("/api/v1", route_handlers=CHANGING)
