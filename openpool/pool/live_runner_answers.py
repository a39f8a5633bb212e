"""How an answer goes back to an orchestrator: as plain HTTP, or over a WebSocket.

Both end a failure in words: as a status while nothing was sent, as an error event where a stream
or a WebSocket has begun, and by breaking off where neither is possible. None of a worker's own
words about a failure, and none of its headers but a few, leave the pool.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import Protocol

import aiohttp
import msgspec
from aiohttp import web

from openpool.core.errors import BadMessage, OpenPoolError, Timeout, Unavailable
from openpool.wire import framing

PASSED = {
    "content-type", "content-encoding", "content-disposition", "content-language",
    "cache-control", "retry-after",
}  # fmt: skip
"""The answer headers that leave the pool."""
FULL = "insufficient capacity"
FAULTS: dict[str, tuple[int, str]] = {
    "insufficient-capacity": (503, FULL),
    "no-such-app": (503, FULL),
    "no-capacity": (503, FULL),
    "worker-failed": (502, "The worker failed; send the request again."),
    "timeout": (504, "This took too long; send the request again."),
    "pool-restarted": (503, "The pool is restarted; send the request again."),
    "cancelled": (502, "The request was cancelled."),
    "session-ended": (410, "The session has ended; reserve another one."),
    "too-large": (413, ""),
    "too-slow": (408, ""),
    "bad-message": (400, ""),
}
"""Status and text of a failure; an empty text is the error's own, which is about the request."""
OUR_FAULT = (502, "The pool cannot serve this at the moment; send the request again.")
CLOSE = {503: aiohttp.WSCloseCode.TRY_AGAIN_LATER, 410: aiohttp.WSCloseCode.GOING_AWAY}
LINE_BYTES_MAX = 16 << 20


class Head(Protocol):
    """The answer of a worker, its body perhaps still on its way."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def body(self) -> AsyncIterator[bytes]: ...


class Whole:
    """An answer of the pool's own."""

    def __init__(self, status: int, headers: Mapping[str, str], data: bytes) -> None:
        self.status = status
        self.headers = headers
        self._data = data

    @property
    def body(self) -> AsyncIterator[bytes]:
        return self._chunks()

    async def _chunks(self) -> AsyncIterator[bytes]:
        yield self._data


class Outlet(Protocol):
    """Where one answer goes."""

    response: web.StreamResponse | None

    async def send(self, answer: Head) -> None:
        """Pass the whole answer on."""

    async def fail(self, error: OpenPoolError) -> web.StreamResponse:
        """End it with an error, in the way that is left."""


class Plain:
    """An ordinary answer, streamed as it comes."""

    def __init__(self, request: web.Request, idle_s: float) -> None:
        self.response: web.StreamResponse | None = None
        self._request = request
        self._idle_s = idle_s

    async def send(self, answer: Head) -> None:
        if not 200 <= answer.status <= 599:
            raise Unavailable
        self.response = response = web.StreamResponse(status=answer.status)
        passed = ((name, value) for name, value in answer.headers.items() if name in PASSED)
        response.headers.update(passed)
        await self._in_time(response.prepare(self._request))
        async for chunk in answer.body:
            await self._in_time(response.write(chunk))
        await self._in_time(response.write_eof())

    async def _in_time(self, step: Awaitable[object]) -> None:
        try:
            async with asyncio.timeout(self._idle_s):
                await step
        except TimeoutError:
            raise Timeout("the customer does not read") from None
        except OSError:
            raise Unavailable("the orchestrator hung up") from None

    async def fail(self, error: OpenPoolError) -> web.StreamResponse:
        status, text = told(error)
        response = self.response
        if response is None or not response.prepared:
            return web.Response(status=status, text=f"{text}\n")
        event = _error_event(response.content_type, error.code, text)
        try:
            if not event:
                raise Unavailable
            await self._in_time(response.write(event))
            await self._in_time(response.write_eof())
        except OpenPoolError:
            # a broken connection is the only sign left that this is not the whole answer
            if self._request.transport is not None:
                self._request.transport.abort()
        return response


class Socket:
    """A WebSocket: messages in become a framed body, the answer's messages or lines go out."""

    def __init__(self, request: web.Request, idle_s: float, silent_s: float) -> None:
        """`idle_s` bounds each message out, `silent_s` the wait for the next one in."""
        self.response: web.WebSocketResponse | None = None
        self._request = request
        self._idle_s, self._silent_s = idle_s, silent_s

    async def open(self) -> "Messages":
        """Accept it; what comes in is the body of the call."""
        self.response = web.WebSocketResponse(
            max_msg_size=framing.MESSAGE_BYTES_MAX, heartbeat=self._idle_s / 2, compress=False
        )
        await self.response.prepare(self._request)
        return Messages(self.response, self._silent_s)

    async def send(self, answer: Head) -> None:
        if answer.status != 200:
            raise Unavailable
        assert self.response is not None
        async for message in messages_of(answer):
            await self._say(message)
        await self.response.close()

    async def _say(self, message: bytes | str) -> None:
        assert self.response is not None
        response = self.response
        try:
            async with asyncio.timeout(self._idle_s):
                if isinstance(message, str):
                    await response.send_str(message)
                else:
                    await response.send_bytes(message)
        except TimeoutError:
            raise Timeout("the customer does not read") from None
        except (OSError, aiohttp.ClientError):
            raise Unavailable("the customer hung up") from None

    async def fail(self, error: OpenPoolError) -> web.StreamResponse:
        status, text = told(error)
        if self.response is None or not self.response.prepared:
            return web.Response(status=status, text=f"{text}\n")
        code = CLOSE.get(status, aiohttp.WSCloseCode.INTERNAL_ERROR)
        try:
            await self._say(error_line(error.code, text).decode())
            await self.response.close(code=code, message=text.encode()[:120])
        except OpenPoolError:
            if self._request.transport is not None:
                self._request.transport.abort()
        return self.response


class Messages(AsyncIterator[bytes]):
    """The messages of a WebSocket as a framed body. A cancelled wait loses nothing."""

    def __init__(self, socket: web.WebSocketResponse, silent_s: float) -> None:
        self._socket = socket
        self._silent_s = silent_s

    async def __anext__(self) -> bytes:
        try:
            async with asyncio.timeout(self._silent_s):
                message = await self._socket.receive()
        except TimeoutError:
            raise Timeout("The session was silent for too long.") from None
        if message.type is aiohttp.WSMsgType.TEXT:
            return framing.pack(str(message.data))
        if message.type is aiohttp.WSMsgType.BINARY:
            return framing.pack(bytes(message.data))
        if message.type is aiohttp.WSMsgType.ERROR:
            raise BadMessage("A WebSocket frame cannot be read.")
        raise StopAsyncIteration


def told(error: OpenPoolError) -> tuple[int, str]:
    """What a customer is told of a failure."""
    status, text = FAULTS.get(error.code, OUR_FAULT)
    return status, text or str(error)


def error_line(code: str, text: str) -> bytes:
    """A failure as JSON."""
    return msgspec.json.encode({"error": {"code": code, "message": text}})


async def messages_of(answer: Head) -> AsyncIterator[bytes | str]:
    """What a worker tells in a session: its messages, or the lines of its answer as texts."""
    if answer.headers.get("content-type") != framing.CONTENT_TYPE:
        async for line in whole_lines(answer.body):
            yield line.decode(errors="replace")
        return
    unpacker = framing.Unpacker()
    async for chunk in answer.body:
        try:
            messages = unpacker.told(chunk)
        except BadMessage:
            raise Unavailable from None
        for message in messages:
            yield message


async def whole_lines(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The lines of an answer that are not empty, without their ends."""
    lines = framing.Lines(LINE_BYTES_MAX)
    async for chunk in body:
        try:
            for line in lines.feed(chunk):
                yield line
        except BadMessage:
            raise Unavailable from None
    if lines.rest:
        yield bytes(lines.rest)


def _error_event(content_type: str, code: str, text: str) -> bytes:
    """The last words of a stream, if its kind knows any."""
    if content_type == "text/event-stream":
        return b"\n\nevent: error\ndata: " + error_line(code, text) + b"\n\n"
    if content_type in ("application/jsonl", "application/x-ndjson"):
        return b"\n" + error_line(code, text) + b"\n"
    return b""
