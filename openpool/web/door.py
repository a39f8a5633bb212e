"""Turns a request into a visitor, and a sign-in into a session.

Wrong secrets are counted per client, so that guessing is slow. Cookies are SameSite=Strict, and a
request that changes something must come from our own pages (or from a program, which sends no
Origin): that is the whole defence against forged requests.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

from litestar.connection import ASGIConnection
from litestar.datastructures import Cookie
from msgspec import Struct

from openpool.core.errors import NotAllowed, Unauthorized
from openpool.web.auth import (
    COOKIE,
    OPERATOR,
    PUBLIC,
    RateLimit,
    Role,
    Sessions,
    Visitor,
    client_key,
)
from openpool.web.interface import Deps
from openpool.web.problems import Asked, SignInNeeded, TooMany

Connection = ASGIConnection[Any, Any, Any, Any]
"""A request, or a WebSocket."""
SECRET_CHARS_MAX = 512


class SignedInView(Struct, frozen=True, kw_only=True):
    """Who has signed in, and for how long."""

    role: Role
    workers: tuple[str, ...]
    address: str
    expires_ms: int


@dataclass(slots=True)
class Door:
    """Checks secrets. One for the whole application."""

    deps: Deps
    sessions: Sessions
    tries: RateLimit
    lookups: RateLimit
    """Of questions that make the pool read the chain: whoever asks much may still sign in."""

    async def visitor(self, request: Connection) -> Visitor:
        """Who asks: by bearer secret, else by cookie, else the public. Raises Unauthorized."""
        bearer = request.headers.get("authorization", "")
        if bearer:
            scheme, _, secret = bearer.partition(" ")
            if scheme.lower() != "bearer":
                raise Unauthorized("Authorization must be `Bearer` followed by a token.")
            return await self.by_secret(secret.strip(), request)
        return self.of_cookie(request)

    def of_cookie(self, request: Connection) -> Visitor:
        """Who asks, by cookie alone: for pages that say what went wrong."""
        return self.sessions.find(request.cookies.get(COOKIE, ""), self.now_ms()) or PUBLIC

    def now_ms(self) -> int:
        return self.deps.clock_ms()

    async def by_secret(self, secret: str, request: Connection) -> Visitor:
        """The operator or the worker that a secret belongs to. Only wrong ones are counted."""
        client = client_key(request.client.host if request.client else "")
        if self.tries.is_spent(client, self.now_ms()):
            raise TooMany
        try:
            return await self._owner(secret)
        except Unauthorized:
            self.tries.take(client, self.now_ms())
            raise

    async def _owner(self, secret: str) -> Visitor:
        if not secret or len(secret) > SECRET_CHARS_MAX:
            raise Unauthorized("This is not a token of this pool; check that it is complete.")
        if await asyncio.to_thread(self.deps.operator_token_check, secret):
            return OPERATOR
        worker = await self.deps.enrolment.authenticate(secret)
        return Visitor(role="worker", workers=(worker.worker,), address=worker.address)

    async def by_wallet(self, message: str, signature: str) -> Visitor:
        """The workers of the wallet that signed."""
        known = await self.deps.enrolment.sign_in(message, signature)
        return Visitor(role="worker", workers=known.workers, address=known.address)

    def count_try(self, request: Asked) -> None:
        """Raises TooMany if this client has tried too often."""
        client = client_key(request.client.host if request.client else "")
        if not self.tries.take(client, self.now_ms()):
            raise TooMany

    def count_lookup(self, request: Asked) -> None:
        """Raises TooMany if this client has made the pool read the chain too often."""
        client = client_key(request.client.host if request.client else "")
        if not self.lookups.take(client, self.now_ms()):
            raise TooMany

    def open_session(self, visitor: Visitor, request: Asked) -> tuple[SignedInView, Cookie]:
        cookie = Cookie(
            key=COOKIE,
            value=self.sessions.open(visitor, self.now_ms()),
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
            max_age=self.sessions.lifetime_ms // 1000,
            path="/",
        )
        view = SignedInView(
            role=visitor.role,
            workers=visitor.workers,
            address=visitor.address,
            expires_ms=self.now_ms() + self.sessions.lifetime_ms,
        )
        return view, cookie

    def close_session(self, request: Asked) -> Cookie:
        self.sessions.close(request.cookies.get(COOKIE, ""))
        return Cookie(key=COOKIE, value="", max_age=0, path="/", httponly=True, samesite="strict")


def need_sign_in(visitor: Visitor) -> None:
    if visitor.role == "public":
        raise SignInNeeded


def need_operator(visitor: Visitor) -> None:
    """Raises SignInNeeded or NotAllowed unless this is the operator."""
    need_sign_in(visitor)
    if visitor.role != "operator":
        raise NotAllowed("Only the pool's operator may see or do this.")


def refuse_foreign_origin(request: Asked) -> None:
    """Raises NotAllowed if another site made a browser send this change."""
    if request.method in ("GET", "HEAD", "OPTIONS"):
        return
    site = request.headers.get("sec-fetch-site", "")
    origin = request.headers.get("origin", "")
    if site:
        ours = site in ("same-origin", "none")
    else:  # programs and old browsers
        ours = not origin or origin.partition("://")[2] == request.headers.get("host", "")
    if not ours:
        raise NotAllowed("This request came from another site and was not carried out.")
