"""Sessions over a WebSocket, such as live video: pictures or segments in, lines of JSON out.

What a session's messages mean is between the client and the worker's runtime.
`/api/v1/live/{pipeline}/{model}`, for a customer's key or the signed-in operator. Browsers cannot
send headers with a WebSocket, so a key may come as a subprotocol beside ours. A failure is told
as a last message, then the socket is closed with a code that says the same.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Annotated

import msgspec
import structlog
from litestar import WebSocket, websocket
from litestar.datastructures import State
from litestar.exceptions import WebSocketDisconnect
from litestar.params import PathParameter

from openpool.core.calls import App
from openpool.core.errors import BadMessage, NotAllowed, OpenPoolError, Timeout, Unavailable
from openpool.web.context import FromWeb, Web
from openpool.web.door import need_operator
from openpool.web.interface import OPERATOR_CUSTOMER
from openpool.web.problems import NotFound

Socket = WebSocket[None, None, State]
Name = Annotated[str, PathParameter(min_length=1, max_length=200)]

PROTOCOL = "openpool.live"
KEY_PREFIX = "openpool.key."
KEY_START = "sk-"
"""What a customer's key begins with; other secrets are the operator's."""
SILENT_S = 60.0
"""How long a session may send nothing."""
UNREAD_S = 20.0
"""How long a line may be left unread."""
LAST_WORDS_S = 10.0
"""How long a worker may still talk when its client is gone."""
QUERY = re.compile(r"[\w=&.%-]{0,200}", re.ASCII)
CLOSE_CODES = {
    "insufficient-capacity": 1013,
    "no-capacity": 1013,
    "pool-restarted": 1012,
    "unauthorized": 4401,
}
OTHER_CLOSE_CODE = 1011

log = structlog.get_logger("web")


@websocket("/api/v1/live/{pipeline:str}/{model:path}")
async def live_socket(socket: Socket, web: FromWeb, pipeline: Name, model: Name) -> None:
    """One session, from its first picture to its last."""
    offered = socket.headers.get("sec-websocket-protocol", "")
    await socket.accept(subprotocols=PROTOCOL if PROTOCOL in offered else None)
    try:
        await _serve(socket, web, App(pipeline, model.strip("/")))
        await socket.close(1000)
    except (WebSocketDisconnect, ConnectionError):
        pass
    except OpenPoolError as error:
        await _refuse(socket, error.code, str(error))
    except Exception:
        log.exception("live-session-failed")
        await _refuse(socket, "bug", "Something went wrong inside the pool; its log says what.")


async def _serve(socket: Socket, web: Web, app: App) -> None:
    customer = await _payer(socket, web)
    video, exchange = web.deps.live_video, web.deps.exchange
    if video is None or exchange is None:
        raise NotFound("This pool takes no calls; set ai.enabled.")
    if not any(offer.session for offer in exchange.apps().get(app, ())):
        raise NotFound(f"No worker serves sessions of {str(app)[:200]} at the moment.")
    query = socket.scope["query_string"].decode("latin-1")
    if not QUERY.fullmatch(query):
        raise BadMessage("The query may hold options such as `fps=5&threshold=0.4` only.")
    try:
        async with asyncio.timeout(None) as ending:
            pictures = Pictures(socket, ending, partial(_still_good, web, _key(socket)))
            async with video.watch(app, customer, query, pictures) as answers:
                async for answer in answers:
                    await _say(socket, answer)
    except TimeoutError:
        raise Unavailable("The client is gone.") from None


async def _payer(socket: Socket, web: Web) -> str:
    """Who pays for the session. Raises what is wrong with the key, the cookie or the origin."""
    key = _key(socket)
    if key:
        if web.deps.customers is None:
            raise NotFound("This pool has no API for customers; set ai.enabled.")
        return web.deps.customers.admit(key)
    origin = socket.headers.get("origin", "")
    if origin and origin.partition("://")[2] != socket.headers.get("host", ""):
        raise NotAllowed("This session came from another site and was not begun.")
    need_operator(await web.door.visitor(socket))
    return OPERATOR_CUSTOMER


def _still_good(web: Web, key: str) -> None:
    """Raises Unauthorized once a key that was good has been revoked, or has expired."""
    if key and web.deps.customers is not None:
        web.deps.customers.owner(key)


def _key(socket: Socket) -> str:
    """The customer's key that was shown, or ""."""
    for each in socket.headers.get("sec-websocket-protocol", "").split(","):
        if each.strip().startswith(KEY_PREFIX):
            return each.strip().removeprefix(KEY_PREFIX)
    secret = socket.headers.get("authorization", "").partition(" ")[2].strip()
    return secret if secret.startswith(KEY_START) else ""


class Pictures(AsyncIterator[bytes | str]):
    """What a client sends; a wait for the next message may be cancelled."""

    def __init__(
        self, socket: Socket, ending: asyncio.Timeout, still_good: Callable[[], None]
    ) -> None:
        """`ending` is set to run out soon when the client is gone; `still_good` raises what is
        wrong with a client who may not send any more."""
        self._socket = socket
        self._ending = ending
        self._still_good = still_good
        self._over = False

    async def __anext__(self) -> bytes | str:
        while not self._over:
            try:
                async with asyncio.timeout(SILENT_S):
                    message = await self._socket.receive()
            except TimeoutError:
                raise Timeout(f"Nothing came for {SILENT_S:g} s; send pictures.") from None
            if message["type"] != "websocket.receive":
                self._over = True
                self._ending.reschedule(asyncio.get_running_loop().time() + LAST_WORDS_S)
            elif data := message.get("bytes") or message.get("text"):
                self._still_good()
                return data
        raise StopAsyncIteration


async def _say(socket: Socket, message: bytes | str) -> None:
    try:
        async with asyncio.timeout(UNREAD_S):
            if isinstance(message, str):
                await socket.send_text(message)
            else:
                await socket.send_bytes(message)
    except TimeoutError:
        raise Timeout("The answer was left unread for too long.") from None


async def _refuse(socket: Socket, code: str, text: str) -> None:
    """Say what is wrong and close, if somebody still listens."""
    try:
        told = msgspec.json.encode({"error": {"code": code, "message": text}})
        await _say(socket, told.decode())
        await socket.close(CLOSE_CODES.get(code, OTHER_CLOSE_CODE), reason=text[:100])
    except (WebSocketDisconnect, ConnectionError, OpenPoolError, RuntimeError):
        log.debug("live-session-gone", code=code)
