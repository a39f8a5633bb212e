"""The runtime that is a server elsewhere: vLLM, Ollama, any container that speaks HTTP.

Requests and answers stream through it in both directions and are never kept whole, except that a
JSON request is read to change the model's name in it. It is offered while its health check
succeeds. Nothing of the pool's or the customer's identity is passed on.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from urllib.parse import unquote, urlencode

import aiohttp
import msgspec
import structlog
from msgspec import Struct

from openpool.core.calls import App, Offer
from openpool.core.errors import NoCapacity, SetupError, Unavailable
from openpool.link.line import LineAnswer, LineRequest
from openpool.wire import framing
from openpool.worker.runtimes.asking import read_json
from openpool.worker.runtimes.body import Body
from openpool.worker.runtimes.download import host_of
from openpool.worker.runtimes.options import by_name, number, switch, text, whole
from openpool.worker.runtimes.spool import TooLarge, check_announced, too_large
from openpool.worker.runtimes.websocket import SocketBody

log = structlog.get_logger()

URL = text("url", "where the server is, like http://127.0.0.1:8000")
UPSTREAM_MODEL = text("upstream_model", "what the model is called there; as here, if left out")
TOKEN_FILE = text("token_file", "a file with the bearer token that the server wants")
HEALTH = text("health", "the path that answers 200 when all is well (/v1/models)")
PATHS = text("paths", "beginnings of the paths that may be asked for, with commas (/)")
SESSION = switch("session", "true if calls are long sessions")
WEBSOCKET = text("websocket", "the path of its WebSocket, if sessions are to be held over one")
REQUEST_MB = whole("request_mb", "the largest request (64)", 1, 1024, 64)
IDLE_S = number("idle_s", "how long the server may say nothing (300)", 1, 86_400, 300)
OPTIONS = by_name(
    URL, UPSTREAM_MODEL, TOKEN_FILE, HEALTH, PATHS, SESSION, WEBSOCKET, REQUEST_MB, IDLE_S
)
"""What can be set."""

HEALTH_EVERY_S = 10.0
HEALTH_S = 5.0
CONNECT_S = 5.0
JSON_BYTES_MAX = 32 << 20
PASSED_ON = frozenset({"accept", "content-type", "content-length", "user-agent"})
"""What the server hears of the client."""
NOT_THE_CLIENTS = frozenset({401, 403, 407, 502, 503, 504})
"""What a server says when the worker's settings or the server itself are at fault."""
MESSAGES = {"content-type": framing.CONTENT_TYPE}
PASSED_BACK = frozenset(
    {"cache-control", "content-disposition", "content-length", "content-type", "retry-after"}
)


class ProxySettings(Struct, frozen=True, kw_only=True):
    """Where a server is, and how to ask it."""

    url: str
    upstream_model: str = ""
    token_file: Path | None = None
    health: str = "/v1/models"
    paths: tuple[str, ...] = ("/",)
    session: bool = False
    websocket: str = ""
    """Where messages of sessions go, as they are; empty: in the body of a request."""
    request_bytes_max: int = 64_000_000
    idle_s: float = 300.0

    @classmethod
    def from_options(cls, options: Mapping[str, str]) -> "ProxySettings":
        """The settings that the texts of the file mean. Raises SetupError."""
        url = URL.of(options).rstrip("/")
        if not host_of(url):
            raise SetupError("an http runtime needs `url`, like http://127.0.0.1:8000")
        paths = tuple(path.strip() for path in (PATHS.of(options) or "/").split(","))
        health = HEALTH.of(options) or "/v1/models"
        websocket = WEBSOCKET.of(options)
        if not all(path.startswith("/") for path in (*paths, health, websocket or "/")):
            raise SetupError("`paths`, `health` and `websocket` must begin with a slash")
        token_file = TOKEN_FILE.of(options)
        return cls(
            url=url,
            upstream_model=UPSTREAM_MODEL.of(options),
            token_file=Path(token_file).expanduser() if token_file else None,
            health=health,
            paths=paths,
            session=SESSION.of(options) or bool(websocket),
            websocket=websocket,
            request_bytes_max=REQUEST_MB.of(options) * 1_000_000,
            idle_s=IDLE_S.of(options),
        )

    def token(self) -> str:
        """The bearer token, read anew each time so that it can be changed. Raises Unavailable."""
        if self.token_file is None:
            return ""
        try:
            token = self.token_file.read_text().strip()
        except (OSError, UnicodeDecodeError):
            raise Unavailable(f"The token file {self.token_file} cannot be read.") from None
        if not (token.isascii() and token.isprintable()):
            raise Unavailable(f"The token file {self.token_file} must hold one line of text.")
        return token


class Proxy:
    """One app that another server serves."""

    def __init__(
        self,
        app: App,
        settings: ProxySettings,
        *,
        capacity: int,
        tasks: asyncio.TaskGroup,
        changed: Callable[[], None],
    ) -> None:
        self.app = app
        self.fault = "It was not reached yet."
        self._settings = settings
        self._capacity = capacity
        self._tasks = tasks
        self._changed = changed
        self._running = 0
        self._session: aiohttp.ClientSession | None = None

    def start(self) -> None:
        """Look after the server from now on."""
        self._tasks.create_task(self._watch(), name=f"health {self.app}")

    def offer(self) -> Offer | None:
        """What can be done; None while the server is not well."""
        if self.fault:
            return None
        return Offer(
            app=self.app,
            capacity=self._capacity,
            warm=True,
            streaming=True,
            session=self._settings.session,
        )

    def serves(self, path: str) -> bool:
        """Whether the path is one of those allowed, and will be to the server, however it reads."""
        plain = unquote(path)
        is_plain = plain.isprintable() and not any(odd in plain for odd in ("..", "//", "\\"))
        return is_plain and any(path.startswith(allowed) for allowed in self._settings.paths)

    async def answer(
        self, path: str, options: Mapping[str, str], request: LineRequest
    ) -> LineAnswer:
        """Hand the call on. Raises BadRequest, TooLarge, NoCapacity and Unavailable."""
        if self._running >= self._capacity:
            raise NoCapacity(f"{self.app} is busy on this worker; try another.")
        self._running += 1
        response: aiohttp.ClientResponse | None = None
        try:
            if self._settings.websocket and _is_messages(request):
                return LineAnswer(200, MESSAGES, await self._converse(options, request))
            response = await self._ask(path, options, request)
            self._check_status(response)
            return LineAnswer(response.status, _passed_back(response), _Body(self, response))
        except BaseException:
            if response is not None:
                response.close()
            self.release()
            raise

    def _check_status(self, response: aiohttp.ClientResponse) -> None:
        """Raises what another worker may do better."""
        if response.status == 429:
            raise NoCapacity(f"{self.app} is busy on this worker; try another.")
        if response.status in NOT_THE_CLIENTS:
            log.warning("server refuses", runtime=str(self.app), status=response.status)
            raise Unavailable(f"The server of {self.app} answered {response.status}.")

    def release(self) -> None:
        """A call has ended."""
        self._running -= 1

    async def _ask(
        self, path: str, options: Mapping[str, str], request: LineRequest
    ) -> aiohttp.ClientResponse:
        headers = {k: v for k, v in request.headers.items() if k in PASSED_ON}
        headers |= self._authorization()
        limit = self._settings.request_bytes_max
        check_announced(headers.get("content-length", ""), limit)
        body: AsyncIterator[bytes] | bytes = _bounded(request.body, limit)
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if self._settings.upstream_model and kind == "application/json":
            body = await self._renamed(_bounded(request.body, JSON_BYTES_MAX))
            headers["content-length"] = str(len(body))
        if request.method in {"GET", "HEAD"}:
            body = b""
            headers.pop("content-length", None)
        query = f"?{urlencode(options)}" if options else ""
        url = f"{self._settings.url}{path}{query}"
        return await self._send(request.method, url, body, headers)

    async def _send(
        self, method: str, url: str, body: AsyncIterator[bytes] | bytes, headers: dict[str, str]
    ) -> aiohttp.ClientResponse:
        try:
            return await self._http().request(
                method, url, data=body or None, headers=headers, allow_redirects=False
            )
        except TimeoutError:
            raise Unavailable(f"The server of {self.app} did not answer in time.") from None
        except aiohttp.ClientConnectorError:
            self._note("its server cannot be reached")
            raise Unavailable(f"The server of {self.app} cannot be reached.") from None
        except aiohttp.ClientError as error:
            for cause in (error, error.__cause__, error.__context__):
                if isinstance(cause, TooLarge):
                    raise cause from None
            raise Unavailable(f"The server of {self.app} failed on this request.") from None

    async def _converse(self, options: Mapping[str, str], request: LineRequest) -> SocketBody:
        """A session over the server's WebSocket."""
        query = f"?{urlencode(options)}" if options else ""
        try:
            socket = await self._http().ws_connect(
                f"{self._settings.url}{self._settings.websocket}{query}",
                headers=self._authorization(),
                timeout=aiohttp.ClientWSTimeout(ws_close=CONNECT_S),
                heartbeat=self._settings.idle_s / 2,
                max_msg_size=framing.MESSAGE_BYTES_MAX,
            )
        except (aiohttp.ClientError, TimeoutError, OSError):
            raise Unavailable(f"The server of {self.app} takes no session.") from None
        said = SocketBody(socket, self.release)
        said.listen(request.body, self._tasks)
        return said

    async def _renamed(self, body: AsyncIterator[bytes]) -> bytes:
        """The JSON of a request, with the model's name as the server knows it."""
        whole = bytearray()
        async for chunk in body:
            whole += chunk
        fields = read_json(whole, dict[str, msgspec.Raw], "a request")
        if "model" in fields:
            fields["model"] = msgspec.Raw(msgspec.json.encode(self._settings.upstream_model))
        return msgspec.json.encode(fields)

    def _authorization(self) -> dict[str, str]:
        token = self._settings.token()
        return {"authorization": f"Bearer {token}"} if token else {}

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            patience = aiohttp.ClientTimeout(
                total=None, sock_connect=CONNECT_S, sock_read=self._settings.idle_s
            )
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                timeout=patience,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=["accept-encoding", "user-agent"],
            )
        return self._session

    # --- health --------------------------------------------------------------------------------

    async def _watch(self) -> None:
        try:
            while True:
                self._note(await self._check())
                await asyncio.sleep(HEALTH_EVERY_S)
        finally:
            if self._session is not None:
                await self._session.close()

    async def _check(self) -> str:
        """What is wrong with the server; empty if nothing is."""
        try:
            async with self._http().get(
                self._settings.url + self._settings.health,
                headers=self._authorization(),
                timeout=aiohttp.ClientTimeout(total=HEALTH_S),
                allow_redirects=False,
            ) as response:
                if response.status < 400:
                    return ""
                return f"its health check answers {response.status}"
        except Unavailable as error:
            return str(error)
        except (aiohttp.ClientError, TimeoutError, OSError):
            return f"{self._settings.url} cannot be reached"

    def _note(self, fault: str) -> None:
        if fault != self.fault:
            self.fault = fault
            if fault:
                log.warning("server not well", runtime=str(self.app), reason=fault)
            self._changed()


class _Body(Body):
    """The body of an answer as it comes. Closing it, even unread, hangs up."""

    def __init__(self, proxy: Proxy, response: aiohttp.ClientResponse) -> None:
        self._proxy = proxy
        self._response = response
        self._chunks = response.content.iter_any()
        self._is_open = True

    async def __anext__(self) -> bytes:
        try:
            return await self._chunks.__anext__()
        except StopAsyncIteration:
            self._end()
            raise
        except (aiohttp.ClientError, OSError, TimeoutError):
            self._end()
            raise Unavailable("the server broke its answer off") from None

    async def aclose(self) -> None:
        self._end()

    def _end(self) -> None:
        if self._is_open:
            self._is_open = False
            self._response.close()
            self._proxy.release()


def _is_messages(request: LineRequest) -> bool:
    return request.headers.get("content-type", "").startswith(framing.CONTENT_TYPE)


def _passed_back(response: aiohttp.ClientResponse) -> dict[str, str]:
    headers = {k.lower(): v for k, v in response.headers.items()}
    return {k: v for k, v in headers.items() if k in PASSED_BACK}


async def _bounded(body: AsyncIterator[bytes], limit: int) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in body:
        size += len(chunk)
        if size > limit:
            raise too_large(limit)
        yield chunk
