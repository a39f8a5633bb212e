"""Where orchestrators' requests for apps arrive: plain HTTP on a private address.

Each app has an address of its own at each orchestrator, with a part that nobody else can guess:
who knows it is the orchestrator, and only then are its `Livepeer-*` headers believed. None of
these headers, no credentials and no address of a worker passes through here, in either direction.
A WebSocket becomes one request whose body is its messages (`wire.framing`).
Read next: `pool.live_runner`, which tells orchestrators these addresses.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Protocol
from urllib.parse import unquote

import aiohttp
import msgspec
import structlog
from aiohttp import web
from msgspec import Struct, structs

from openpool.core.call_requests import CallFailed, CallRequest
from openpool.core.calls import App
from openpool.core.decoding import UNREADABLE
from openpool.core.errors import BadMessage, OpenPoolError, SetupError, Unavailable, cannot_listen
from openpool.core.payment import Payment
from openpool.pool.live_runner_answers import FULL, Head, Outlet, Plain, Socket
from openpool.pool.spool import ClientTooSlow, TooLarge
from openpool.wire import framing
from openpool.wire.live_runner import SESSION_HEADER, TOKEN_HEADER
from openpool.wire.payments import (
    HEADER_CHARS_MAX,
    PAYMENT_HEADER,
    SEGMENT_HEADER,
    decode_credentials,
    decode_payment,
)

log = structlog.get_logger()

TO_WORKERS = {"accept", "accept-language", "content-type", "content-encoding", "content-language"}
"""The request headers that a worker gets to see."""
PEEK_BYTES = 1 << 20
"""A JSON request of this size is read whole, to see whether it asks for a stream."""
APPS_MAX = 10_000
REQUESTS_MAX = 5_000
SESSIONS_MAX = 100_000
SESSION_REQUESTS_MAX = 32
"""Requests of one session at once: they share one place, and must not take a whole worker."""
SESSION_CHARS_MAX = 256
CHANNELS_PATH = "/channels"
"""A `POST` here, within a session, asks for trickle channels (`pool.live_runner_channels`)."""


class Exchange(Protocol):
    """Whoever has calls served by workers (`pool.exchange`)."""

    def call(
        self, request: CallRequest, body: AsyncIterator[bytes] | bytes
    ) -> AbstractAsyncContextManager[Head]:
        """Raises CallFailed before or within the answer; leaving the block cancels the call."""


OpenChannels = Callable[[CallRequest, str, str], Awaitable[Head]]


class SessionOver(OpenPoolError):
    """The session has ended; reserve another one."""

    code = "session-ended"


@dataclass(frozen=True, slots=True)
class Place:
    """What one address stands for."""

    orchestrator: str
    app: App
    lasting: bool
    """Whether its requests belong to sessions that may last."""


@dataclass(slots=True)
class OpenSession:
    """A session in which at least one request came."""

    place: Place
    id: str
    """As the orchestrator has it. Who knows it may use the session: workers are not told."""
    token: str
    """By which the orchestrator knows that we speak for the session."""
    requests: set[asyncio.Timeout] = field(default_factory=set)


class RunnerDoor:
    """The HTTP server for orchestrators. Serve it with `async with door.running():`."""

    def __init__(
        self,
        exchange: Exchange,
        *,
        key: bytes,
        host: str,
        port: int,
        public_url: str = "",
        body_bytes_max: int = 100_000_000,
        idle_s: float = 60.0,
        silent_s: float = 300.0,
    ) -> None:
        """`key` makes the addresses: with the same one they are the same after a restart.

        `idle_s` bounds each wait for a customer to send or take the next piece of a request or an
        answer, `silent_s` that for the next message of a WebSocket.
        """
        self.sessions: dict[str, OpenSession] = {}
        """By the name under which the exchange knows them."""
        self.open_channels: OpenChannels = _no_channels
        """Makes channels for a call in a session with this id and token."""
        self.exchange = exchange
        self._key = blake2b(key, digest_size=32, person=b"live-runner").digest()
        self._host, self._port = host, port
        self._public_url = public_url.rstrip("/")
        self._body_bytes_max = body_bytes_max
        self._idle_s, self._silent_s = idle_s, silent_s
        self._places: dict[str, Place] = {}
        self._requests = 0

    # --- addresses -----------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """How orchestrators reach this."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return self._public_url or f"http://{host}:{self._port}"

    def address(self, place: Place) -> str:
        """The URL that stands for an app at an orchestrator, served from now on."""
        code = self._hash(place.orchestrator, str(place.app), str(place.lasting))
        if code not in self._places and len(self._places) >= APPS_MAX:
            raise SetupError(f"there are more than {APPS_MAX} apps")
        self._places[code] = place
        return f"{self.url}/r/{place.orchestrator}/{code}"

    def session_name(self, orchestrator: str, session: str) -> str:
        """What the exchange and workers know a session by."""
        return self._hash("session", orchestrator, session)

    def _hash(self, *texts: str) -> str:
        return blake2b("\0".join(texts).encode(), key=self._key, digest_size=16).hexdigest()

    # --- sessions ------------------------------------------------------------------------------

    def end_session(self, orchestrator: str, session: str) -> str:
        """Break off what still runs in a session that was released; returns its name."""
        name = self.session_name(orchestrator, session)
        if found := self.sessions.pop(name, None):
            now = asyncio.get_running_loop().time()
            for scope in found.requests:
                scope.reschedule(now)
        return name

    def tidy(self, place: Place, known: Container[str]) -> None:
        """Forget the sessions of an app that are not known and in which nothing runs: a request
        that came just after the end of its session leaves one behind."""
        for name, found in list(self.sessions.items()):
            if found.place == place and found.id not in known and not found.requests:
                del self.sessions[name]

    # --- serving -------------------------------------------------------------------------------

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen while the block runs. SetupError if the port cannot be had."""
        app = web.Application()
        app.router.add_route("*", "/r/{orchestrator}/{code}{rest:(/.*)?}", self._answer)
        runner = web.AppRunner(
            app,
            access_log=None,
            handler_cancellation=True,
            max_field_size=HEADER_CHARS_MAX,  # a hundred tickets are long
            max_line_size=16 << 10,
            shutdown_timeout=1.0,
        )
        await runner.setup()
        try:
            await self._listen(runner)
            yield
        finally:
            await runner.cleanup()

    async def _listen(self, runner: web.AppRunner) -> None:
        try:
            await web.TCPSite(runner, self._host, self._port, backlog=1024).start()
        except OSError as error:
            raise cannot_listen("ai.live_runner.listen", self._host, self._port, error) from None
        self._port = runner.addresses[0][1]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        place = self._places.get(request.match_info["code"])
        if place is None or place.orchestrator != request.match_info["orchestrator"]:
            return web.Response(status=404, text="There is nothing here.\n")
        if self._requests >= REQUESTS_MAX:
            return web.Response(status=503, text=f"{FULL}\n")
        is_socket = request.headers.get("Upgrade", "").lower() == "websocket"
        outlet: Plain | Socket = (
            Socket(request, self._idle_s, self._silent_s)
            if is_socket
            else Plain(request, self._idle_s)
        )
        self._requests += 1
        try:
            await self._serve(request, place, outlet)
            assert outlet.response is not None
            return outlet.response
        except OpenPoolError as error:
            return await outlet.fail(error)
        except Exception:
            log.exception("runner-request-failed", orchestrator=place.orchestrator)
            return await outlet.fail(Unavailable())
        finally:
            self._requests -= 1

    async def _serve(self, request: web.Request, place: Place, outlet: Plain | Socket) -> None:
        session = request.headers.get(SESSION_HEADER, "")
        if not 0 < len(session) <= SESSION_CHARS_MAX:
            raise BadMessage("Requests for an app come through an orchestrator; this one did not.")
        token = request.headers.get(TOKEN_HEADER, "")
        async with self.in_session(place, session, token):
            call = CallRequest(
                app=place.app,
                source="live-runner",
                orchestrator=place.orchestrator,
                session=self.session_name(place.orchestrator, session) if place.lasting else "",
                method=request.method,
                path=_path(request),
                headers=_for_worker(request),
                lasting=place.lasting,
                payment=None if place.lasting else read_payment(request, session),
            )
            if isinstance(outlet, Socket):
                await self._serve_socket(call, outlet)
            elif _wants_channels(call):
                await outlet.send(await self.open_channels(_messages(call), session, token))
            else:
                await self._serve_plain(request, call, outlet)

    async def _serve_plain(self, request: web.Request, call: CallRequest, outlet: Outlet) -> None:
        body = Body(request, self._body_bytes_max, self._idle_s)
        data: AsyncIterator[bytes] | bytes
        if not request.body_exists:
            data = b""
        elif _is_small_json(request):
            data = b"".join([chunk async for chunk in body])
        else:
            data = body
        streaming = call.lasting or _wants_stream(request, data)
        async with self.exchange.call(structs.replace(call, streaming=streaming), data) as answer:
            await outlet.send(answer)

    async def _serve_socket(self, call: CallRequest, outlet: Socket) -> None:
        messages = await outlet.open()
        async with self.exchange.call(_messages(call), messages) as answer:
            await outlet.send(answer)

    @asynccontextmanager
    async def in_session(self, place: Place, session: str, token: str) -> AsyncIterator[None]:
        """Run something so that the end of its session ends it too, as SessionOver."""
        name = self.session_name(place.orchestrator, session)
        found = self.sessions.get(name)
        if found is None:
            if len(self.sessions) >= SESSIONS_MAX:
                raise CallFailed("insufficient-capacity", "there are too many sessions")
            found = self.sessions[name] = OpenSession(place, session, "")
        if len(found.requests) >= SESSION_REQUESTS_MAX:
            raise CallFailed("insufficient-capacity", "the session has too many requests at once")
        found.token = token
        scope = asyncio.timeout(None)
        try:
            async with scope:
                found.requests.add(scope)
                yield
        except TimeoutError:
            if not scope.expired():
                raise
            raise SessionOver from None
        finally:
            found.requests.discard(scope)
            if not place.lasting and not found.requests:
                self.sessions.pop(name, None)


async def _no_channels(call: CallRequest, session: str, token: str) -> Head:
    raise Unavailable


class Body(AsyncIterator[bytes]):
    """The body of a request, as it comes. A cancelled wait loses nothing."""

    def __init__(self, request: web.Request, bytes_max: int, idle_s: float) -> None:
        """Raises TooLarge at once if too much is announced."""
        self._chunks = request.content.iter_any()
        self._left = self._bytes_max = bytes_max
        self._idle_s = idle_s
        self._count(request.content_length or 0)
        self._left = bytes_max

    async def __anext__(self) -> bytes:
        try:
            async with asyncio.timeout(self._idle_s):
                chunk = await anext(self._chunks)
        except TimeoutError:
            raise ClientTooSlow from None
        except (aiohttp.ClientError, OSError):
            raise BadMessage("The request broke off.") from None
        self._count(len(chunk))
        return chunk

    def _count(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise TooLarge(f"A request may have {self._bytes_max} bytes at most; send less.")


def _wants_channels(call: CallRequest) -> bool:
    path = call.path.partition("?")[0]
    return call.lasting and (call.method, path) == ("POST", CHANNELS_PATH)


def _messages(call: CallRequest) -> CallRequest:
    """The call whose body is a row of messages."""
    headers = dict(call.headers) | {"content-type": framing.CONTENT_TYPE}
    return structs.replace(call, method="POST", headers=headers, streaming=True, lasting=True)


class _Wish(Struct):
    stream: bool = False


def _is_small_json(request: web.Request) -> bool:
    length = request.content_length
    return request.content_type == "application/json" and 0 < (length or 0) <= PEEK_BYTES


def _wants_stream(request: web.Request, body: AsyncIterator[bytes] | bytes) -> bool:
    """Whether the customer asked for an answer in pieces."""
    if "text/event-stream" in request.headers.get("Accept", ""):
        return True
    if not isinstance(body, bytes) or not body:
        return False
    try:
        return msgspec.json.decode(body, type=_Wish).stream
    except UNREADABLE:
        return False


def _path(request: web.Request) -> str:
    """The path below the app with its query, which cannot climb out of it."""
    path = request.rel_url.raw_path.split("/", 4)
    below = "/" + (path[4] if len(path) > 4 else "")
    if any(unquote(part) in (".", "..") for part in below.split("/")):
        raise BadMessage("A path may not hold . or .. as a part.")
    query = request.rel_url.raw_query_string
    return f"{below}?{query}" if query else below


def _for_worker(request: web.Request) -> Mapping[str, str]:
    return {
        name.lower(): value for name, value in request.headers.items() if name.lower() in TO_WORKERS
    }


def read_payment(request: web.Request, session: str) -> Payment | None:
    """What the customer paid for this single request, as far as the orchestrator looked at it.

    An orchestrator that took a payment has named the session after what was paid for; tickets
    that somebody sends along to one that asks for none do not fit its session and do not count.
    """
    try:
        payment = decode_payment(request.headers.get(PAYMENT_HEADER, ""))
        if payment is None:
            return None
        credentials = decode_credentials(request.headers.get(SEGMENT_HEADER, ""))
    except BadMessage as error:
        log.info("payment-unreadable", reason=str(error))
        return None
    return payment if credentials.manifest == session else None
