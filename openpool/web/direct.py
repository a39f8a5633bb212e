"""The API for customers: what OpenAI's clients speak, and a few routes of our own. An ASGI app.

A request is authenticated by its key, its model is found, and the exchange has it served by a
worker; bodies stream both ways. Only a few headers pass in either direction: no key reaches a
worker, and no worker can make a browser believe anything. Errors have OpenAI's shape.
The routes are in `ROUTES`; docs/how-to/use-the-api.md describes them.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from urllib.parse import parse_qs

import msgspec
import structlog
from litestar.types import HTTPScope, Receive, Send
from msgspec import Struct

from openpool.core.call_requests import CallRequest
from openpool.core.calls import App
from openpool.core.errors import (
    BadMessage,
    Timeout,
    Unauthorized,
)
from openpool.web import transcode
from openpool.web.asked_model import WAITING_BYTES_MAX, FormReader, Wanted, checked, read_json
from openpool.web.direct_errors import NoSuchModel, Wrong, error_event, wrong_of
from openpool.web.interface import CallAnswer, Customers, Exchange, Transcoder

log = structlog.get_logger("web")

ERROR_BYTES_MAX = 64 << 10
"""Of a worker's words about a bad request."""
EVENT_BYTES_MAX = 1 << 20
"""A server-sent event is passed on whole, unless it is longer than this."""
UNREAD = "The answer was left unread for too long."
DRAIN_BYTES_MAX = 512 << 20
"""How much of a refused upload is thrown away, so that its client reads the answer."""
TYPES = ("application/json", "application/jsonl", "text/event-stream", "text/plain", "text/vtt")
"""Content types that a worker may claim, beside sound and pictures; others become bytes."""


class Route(Struct, frozen=True):
    """What a path stands for."""

    pipeline: str
    asks: str = ""
    """The path that the worker's runtime knows, if it is another."""
    streams: bool = False
    """Whether the client may ask for the answer piece by piece."""
    any_model: bool = False
    """Whether a request without a model gets whichever there is."""


ROUTES: dict[str, Route] = {
    "/v1/chat/completions": Route("llm", streams=True),
    "/v1/completions": Route("llm", streams=True),
    "/v1/embeddings": Route("embeddings"),
    "/v1/audio/transcriptions": Route("speech-to-text", streams=True),
    "/v1/audio/speech": Route("text-to-speech"),
    "/v1/images/generations": Route("text-to-image"),
    "/v1/images/edits": Route("image-to-image"),
    "/v1/moderations": Route("moderation", any_model=True),
    "/v1/ocr": Route("image-to-text", "/v1/images/ocr", any_model=True),
    "/v1/segment": Route("segmentation", "/v1/images/segment", any_model=True),
    "/v1/detect": Route("object-detection", "/v1/images/detect", any_model=True),
    transcode.PATH: Route(transcode.PIPELINE),
}


class DirectApi:
    """Everything below `/v1`."""

    def __init__(
        self,
        customers: Customers,
        exchange: Exchange,
        *,
        body_bytes_max: int,
        idle_s: float,
        headers: Mapping[str, str],
        transcoder: Transcoder | None = None,
    ) -> None:
        """`headers` go with every answer; `idle_s` is how long one may be left unread."""
        self._customers = customers
        self._exchange = exchange
        self._transcoder = transcoder
        self._uploads = transcode.Uploads()
        self._body_bytes_max = body_bytes_max
        self._idle_s = idle_s
        self._headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: HTTPScope, receive: Receive, send: Send, path: str) -> None:
        """Serve one request."""
        client = Client(path, scope, receive, send, self._headers, self._idle_s)
        try:
            await self._serve(client)
        except Gone:
            pass
        except Exception as error:
            await client.refuse(wrong_of(error))

    async def _serve(self, client: "Client") -> None:
        customer = self._customers.admit(client.key())
        if client.path.startswith("/v1/models") and client.method == "GET":
            await client.reply(200, self._models(client.path.removeprefix("/v1/models")))
            return
        route = self._route(client)
        self._check_declared(client)
        if route.pipeline == transcode.PIPELINE:
            await self._transcode(client, customer)
            return
        wanted, begun = await _wanted(client)
        body = begun if client.body_ended else Continued(begun, client)
        call = self._exchange_with(self._request(client, route, wanted, customer), body, client)
        await _watched(client, call)

    def _check_declared(self, client: "Client") -> None:
        declared = client.headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > self._body_bytes_max:
            raise Wrong(413, f"A request may have {self._body_bytes_max} bytes at most; send less.")

    def _route(self, client: "Client") -> Route:
        route = ROUTES.get(client.path)
        if route is not None and client.method == "POST":
            return route
        if route is not None:
            raise Wrong(405, f"{client.path} takes POST.", code="method_not_allowed")
        known = ", ".join([*ROUTES, "/v1/models"])
        raise Wrong(404, f"There is nothing at {client.path[:100]}; known: {known}.")

    # --- models --------------------------------------------------------------------------------

    def _models(self, which: str) -> object:
        entries = [_model(app, sum(each.capacity for each in offers), any(o.warm for o in offers))
                   for app, offers in sorted(self._exchange.apps().items())]  # fmt: skip
        if not which.strip("/"):
            return {"object": "list", "data": entries}
        for entry in entries:
            if entry["id"] == which[1:]:
                return entry
        raise NoSuchModel(which[1:], [str(entry["id"]) for entry in entries])

    def _app(self, route: Route, model: str) -> App:
        """The app that is asked for. Raises NoSuchModel, which names those that exist."""
        offered = sorted(app for app in self._exchange.apps() if app.pipeline == route.pipeline)
        if not model and route.any_model and offered:
            return offered[0]
        app = App(route.pipeline, model)
        if app not in offered:
            raise NoSuchModel(model, [each.model for each in offered])
        return app

    # --- the exchange --------------------------------------------------------------------------

    def _request(
        self, client: "Client", route: Route, wanted: Wanted, customer: str
    ) -> CallRequest:
        return CallRequest(
            app=self._app(route, wanted.model),
            source="direct",
            customer=customer,
            path=route.asks or client.path,
            headers={
                name: client.headers[name]
                for name in ("content-type", "accept")
                if name in client.headers
            },
            streaming=route.streams and bool(wanted.stream),
        )

    async def _exchange_with(
        self, request: CallRequest, body: AsyncIterator[bytes] | bytes, client: "Client"
    ) -> None:
        async with self._exchange.call(request, body) as answer:
            await _pass_on(client, answer)

    # --- transcoding ---------------------------------------------------------------------------

    async def _transcode(self, client: "Client", customer: str) -> None:
        if self._transcoder is None:
            raise Wrong(404, "This pool transcodes for orchestrators only.")
        with self._uploads.one_more():
            body = await transcode.read_body(client, self._body_bytes_max, self._idle_s)
            await _watched(client, self._transcoded(client, customer, body, self._transcoder))

    async def _transcoded(
        self, client: "Client", customer: str, body: bytes, transcoder: Transcoder
    ) -> None:
        query = {name: values[0] for name, values in client.query.items()}
        kind = client.headers.get("content-type", "")
        made = await transcoder.transcode(customer, kind, query, body)
        wants_json = "application/json" in client.headers.get("accept", "")
        kind, chunks = transcode.as_json(made) if wants_json else transcode.as_parts(made)
        await client.start(200, {"content-type": kind}, sum(map(len, chunks)))
        for chunk in chunks:
            await client.write(chunk)
        await client.end()


class Gone(Exception):
    """The client hung up."""


class Client(AsyncIterator[bytes]):
    """One request: its head, its body chunk by chunk, and the way back."""

    def __init__(
        self,
        path: str,
        scope: HTTPScope,
        receive: Receive,
        send: Send,
        headers: list[tuple[bytes, bytes]],
        idle_s: float,
    ) -> None:
        self.method: str = scope["method"]
        self.path = path
        self.query = parse_qs(scope["query_string"].decode("latin-1"))
        self.headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        self.began = False
        """Whether an answer is under way."""
        self.events = False
        """Whether it is one of server-sent events."""
        self._receive, self._send = receive, send
        self._own_headers, self._idle_s = headers, idle_s
        self._waiting = 0
        self._writing_since = 0.0
        """When a piece of a stream was handed over that is not taken yet; else 0."""
        self._body_ended = asyncio.Event()

    def key(self) -> str:
        """The API key that was shown. Raises Unauthorized."""
        scheme, _, secret = self.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not secret:
            raise Unauthorized("Show your API key: `Authorization: Bearer sk-…`.")
        return secret.strip()

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    async def __anext__(self) -> bytes:
        """The next chunk of the body; a wait for it may be cancelled."""
        while not self._body_ended.is_set():
            message = await self._receive()
            if message["type"] != "http.request":
                raise Gone
            if not message.get("more_body"):
                self._body_ended.set()
            if chunk := message["body"]:
                return chunk
        raise StopAsyncIteration

    async def next_waiting(self) -> bytes:
        """The next chunk while the model is not known yet; empty at the end. Raises Wrong."""
        try:
            async with asyncio.timeout(self._idle_s):
                chunk = await anext(self, b"")
        except TimeoutError:
            raise Wrong(408, "The request came too slowly; send it again.") from None
        self._waiting += len(chunk)
        if self._waiting > WAITING_BYTES_MAX:
            raise Wrong(413, "This request is too large; in a form, put `model` before the file.")
        return chunk

    async def waiting(self) -> AsyncIterator[bytes]:
        """The whole body, while the model is not known yet. Raises Wrong."""
        while chunk := await self.next_waiting():
            yield chunk

    @property
    def body_ended(self) -> bool:
        """Whether all of the request was read."""
        return self._body_ended.is_set()

    async def hang_up(self) -> None:
        """Wait until the client hangs up. Raises Gone."""
        await self._body_ended.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass
        raise Gone

    async def reply(self, status: int, value: object) -> None:
        """A whole answer in JSON."""
        body = msgspec.json.encode(value)
        await self.start(status, {"content-type": "application/json"}, len(body))
        await self.write(body)
        await self.end()

    async def start(self, status: int, headers: Mapping[str, str], length: int | None) -> None:
        """The head of an answer."""
        self.began = True
        self.events = headers.get("content-type", "").startswith("text/event-stream")
        fields = [(name.encode(), value.encode("latin-1", "replace"))
                  for name, value in headers.items()]  # fmt: skip
        if length is not None:
            fields.append((b"content-length", b"%d" % length))
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [*fields, *self._own_headers],
            }
        )

    async def write(self, chunk: bytes) -> None:
        """A piece of the body, as fast as the client takes it. Raises Timeout if it does not."""
        try:
            async with asyncio.timeout(self._idle_s):
                await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
        except TimeoutError:
            raise Timeout(UNREAD) from None

    async def pass_on(self, chunk: bytes) -> None:
        """A piece of a stream, like `write`; how long it takes is watched by `left_unread`, which
        costs less than a timeout for each of thousands of pieces."""
        self._writing_since = asyncio.get_running_loop().time()
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
        self._writing_since = 0.0

    async def left_unread(self) -> None:
        """Wait until the client leaves a piece of a stream unread. Raises Timeout."""
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(self._idle_s / 4)
            if self._writing_since and clock() - self._writing_since >= self._idle_s:
                raise Timeout(UNREAD)

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def refuse(self, wrong: Wrong) -> None:
        """Say what is wrong: as the answer, or as the last event of one that has begun."""
        if not self.began:
            await self._refuse_politely(wrong)
        elif self.events and not isinstance(wrong.cause, Timeout):
            await self.write(error_event(wrong))
            await self.end()
        # an answer of another kind that breaks off must not look whole: nothing ends it

    async def _refuse_politely(self, wrong: Wrong) -> None:
        """Answer, and throw away the rest of the request: a client that is still sending would
        otherwise see a broken connection, not the answer."""
        body = msgspec.json.encode(wrong.shape())
        await self.start(
            wrong.status, {"content-type": "application/json", **wrong.headers}, len(body)
        )
        await self.write(body)
        drained = 0
        try:
            async with asyncio.timeout(self._idle_s):
                async for chunk in self:
                    drained += len(chunk)
                    if drained > DRAIN_BYTES_MAX:
                        break
        except (Gone, TimeoutError):
            pass
        await self.end()


class Continued(AsyncIterator[bytes]):
    """A body of which some was read already; no generator, so that waits can be cancelled."""

    def __init__(self, begun: bytes, rest: AsyncIterator[bytes]) -> None:
        self._begun = begun
        self._rest = rest

    async def __anext__(self) -> bytes:
        if self._begun:
            begun, self._begun = self._begun, b""
            return begun
        return await anext(self._rest)


async def _watched(client: Client, work: Coroutine[object, object, None]) -> None:
    """Do the work; a client that hangs up ends it at once, one that does not read in time."""
    try:
        async with asyncio.TaskGroup() as group:
            watching = [group.create_task(each()) for each in (client.hang_up, client.left_unread)]
            await work
            for each in watching:
                each.cancel()
    except* Gone:
        log.debug("customer-gone", path=client.path)
    except* Exception as group:
        await client.refuse(wrong_of(_first(group)))


async def _wanted(client: Client) -> tuple[Wanted, bytes]:
    """The model that is asked for, whether to stream, and as much of the body as was read.

    Raises BadMessage, Wrong, Timeout.
    """
    named = client.query.get("model", [""])[0]
    wanted, begun = Wanted(), b""
    if client.content_type == "multipart/form-data":
        form, chunks = FormReader(client.headers["content-type"]), list[bytes]()
        while not (named or form.wanted.model) and (chunk := await client.next_waiting()):
            chunks.append(chunk)
            form.feed(chunk)
        wanted, begun = form.wanted, b"".join(chunks)
    elif client.content_type == "application/json":
        begun = b"".join([chunk async for chunk in client.waiting()])
        wanted = read_json(begun)
    elif not client.content_type:
        raise BadMessage("Say what you send: a Content-Type of application/json or a form's.")
    return (checked(Wanted(named, wanted.stream)) if named else wanted), begun


async def _pass_on(client: Client, answer: CallAnswer) -> None:
    if 400 <= answer.status < 500:
        raise await _said_no(answer)
    kind = answer.headers.get("content-type", "")
    headers = {"content-type": _believed(kind)}
    await client.start(answer.status, headers, answer.length)
    whole = _events if client.events else _as_it_comes
    async for chunk in whole(answer.body):
        await client.pass_on(chunk)
    await client.end()


async def _as_it_comes(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for chunk in body:
        yield chunk


async def _events(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Whole events only, so that an error can follow as an event of its own."""
    rest = b""
    async for chunk in body:
        if not rest and chunk.endswith(b"\n\n"):
            yield chunk
            continue
        rest += chunk
        end = _last_end(rest) if len(rest) < EVENT_BYTES_MAX else len(rest)
        if end:
            yield rest[:end]
            rest = rest[end:]
    if rest:
        yield rest


def _last_end(events: bytes) -> int:
    """Where the last whole event ends; 0 if there is none."""
    ends = [at + len(mark) for mark in (b"\n\n", b"\r\n\r\n") if (at := events.rfind(mark)) >= 0]
    return max(ends, default=0)


async def _said_no(answer: CallAnswer) -> Wrong:
    """What a worker says about a bad request, in OpenAI's shape whatever shape it had."""
    text = b""
    async for chunk in answer.body:
        text += chunk[: ERROR_BYTES_MAX - len(text)]
    return Wrong.from_worker(answer.status, text)


def _believed(content_type: str) -> str:
    kind = content_type.partition(";")[0].strip().lower()
    harmless = kind.startswith(("audio/", "video/", "image/")) and kind != "image/svg+xml"
    if kind in TYPES or harmless:
        return content_type if content_type.isprintable() and len(content_type) < 200 else kind
    return "application/octet-stream"


def _model(app: App, capacity: int, warm: bool) -> dict[str, object]:
    return {
        "id": app.model,
        "object": "model",
        "created": 0,
        "owned_by": "openpool",
        "pipeline": app.pipeline,
        "capacity": capacity,
        "warm": warm,
    }


def _first(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group
