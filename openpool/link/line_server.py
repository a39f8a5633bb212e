"""The worker's end of a line: it dials the pool, says who it is, and answers the pool's calls.

`serve_line` lasts as long as one connection; when to dial again is the caller's decision. The
token goes out only after the pool's certificate was checked. `OfferBoard` is what a worker keeps
its offers on.
"""

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import msgspec
from h2.errors import ErrorCodes

from openpool.core.calls import Offer
from openpool.core.errors import (
    BadMessage,
    Banned,
    NotAllowed,
    OpenPoolError,
    Unauthorized,
    Unavailable,
)
from openpool.link.dialling import DialledConnection, dial_with
from openpool.link.http2 import Http2Limits
from openpool.link.line_stream import (
    FAILED,
    HELLO_PATH,
    SENTENCE_CHARS_MAX,
    SERVER_LIMITS,
    Body,
    Fields,
    LineStream,
    announced,
    close_body,
    once,
    plain_fields,
    received,
)
from openpool.link.tls import LINE_ALPN, Trust

log = logging.getLogger(__name__)

HELLO_WITHIN_S = 20.0
"""For the pool to ask who we are."""
DRAIN_S = 600.0
"""How long calls may go on once the offers have ended."""
_FOREIGN = "this pool takes no AI calls: it is too old for this worker, or no pool at all"
_OUR_MISTAKE = "the worker made a mistake; it is written down there"
_RESERVED = "openpool-"
_WITHOUT_BODY = frozenset({204, 205, 304})


@dataclass(frozen=True, slots=True)
class LineRequest:
    """A call as it arrives."""

    method: str
    path: str
    headers: Mapping[str, str]
    """Names in lower case; repeated ones joined with commas."""
    body: AsyncIterator[bytes]
    """May be read while the answer goes out already; raises Unavailable if the pool leaves."""


@dataclass(frozen=True, slots=True)
class LineAnswer:
    """What a handler answers. A content-length that it gives is held to."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body = b""


Handler = Callable[[LineRequest], Awaitable[LineAnswer]]
"""Answers a call. It is cancelled, or its body closed, as soon as the pool has left the call.

An error before it returns tells the pool that the call may be made elsewhere, with the sentence of
an `OpenPoolError`; an error of its body breaks the answer off.
"""


class OfferBoard(AsyncIterable[Sequence[Offer]]):
    """The offers of a worker. Whoever iterates gets them as they are now, and at every change."""

    def __init__(self, offers: Sequence[Offer] = ()) -> None:
        self._offers = tuple(offers)
        self._version = 0
        self._ended = False
        self._changed = asyncio.Event()

    def set(self, offers: Sequence[Offer]) -> None:
        """Offer this from now on."""
        if tuple(offers) != self._offers:
            self._offers = tuple(offers)
            self._change()

    def end(self) -> None:
        """Take no more calls: lines end once their calls have."""
        self._ended = True
        self._change()

    async def __aiter__(self) -> AsyncIterator[Sequence[Offer]]:
        seen = -1
        while not self._ended:
            changed = self._changed
            if seen != self._version:
                seen = self._version
                yield self._offers
            else:
                await changed.wait()

    def _change(self) -> None:
        self._version += 1
        self._changed.set()
        self._changed = asyncio.Event()


async def serve_line(
    host: str,
    port: int,
    trust: Trust,
    *,
    token: str,
    offers: AsyncIterable[Sequence[Offer]],
    handler: Handler,
    opened: Callable[[], None] | None = None,
    limits: Http2Limits = SERVER_LIMITS,
    connect_s: float = 5.0,
    drain_s: float = DRAIN_S,
) -> None:
    """Serve the pool's calls on one line. Returns after `offers` has ended and the calls have, too.

    Raises Unauthorized (a wrong certificate, or a token that the pool refuses for good: dialling
    again does not help) or Unavailable (dial again later). Cancelling it cancels its calls.
    `opened` is called once the pool has asked who we are.
    """
    desk = _Desk(token, offers, handler, opened)
    make = partial(_Connection, trust, limits, desk)
    try:
        connection = await dial_with(make, host, port, trust, alpn=LINE_ALPN, timeout_s=connect_s)
    except BadMessage as error:  # the pool may learn it
        raise Unavailable(str(error)) from None
    try:
        wanted = await _until_over(connection, desk, drain_s)
    finally:
        connection.close("the worker closed the line")
        await desk.stop()
    if not wanted:
        raise _why(connection)


async def _until_over(connection: "_Connection", desk: "_Desk", drain_s: float) -> bool:
    """Whether we want the line to end, when nothing is left to be done on it."""
    drained = asyncio.ensure_future(desk.drained(drain_s))
    try:
        await asyncio.wait({drained, connection.over}, return_when=asyncio.FIRST_COMPLETED)
        return desk.hello_ended.is_set()
    finally:
        drained.cancel()


def _why(connection: "_Connection") -> OpenPoolError:
    """Why the line ended although we did not want it to."""
    code, _, sentence = connection.last_words.decode(errors="replace").partition(": ")
    if code in (Unauthorized.code, NotAllowed.code, Banned.code):
        return Unauthorized(sentence)
    return Unavailable(sentence or f"the line to the pool broke: {connection.closed}")


class _Desk:
    """What a line serves, and the tasks that serve it."""

    def __init__(
        self,
        token: str,
        offers: AsyncIterable[Sequence[Offer]],
        handler: Handler,
        opened: Callable[[], None] | None,
    ) -> None:
        self.asked = False
        """Whether the pool has asked who we are."""
        self.hello_ended = asyncio.Event()
        self._token = token
        self._offers = offers
        self._handler = handler
        self._opened = opened
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()

    def serve(self, stream: "_Served") -> asyncio.Task[None]:
        task = stream.connection.loop.create_task(stream.serve(self._answer))
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def stop(self) -> None:
        """Cancel what is left, and wait until it has cleaned up."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def drained(self, drain_s: float) -> None:
        """Wait until there is nothing to offer any more and the calls have ended."""
        await self.hello_ended.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(drain_s):
                while self._tasks:
                    self._idle.clear()
                    await self._idle.wait()

    async def _answer(self, request: LineRequest) -> LineAnswer:
        if request.path != HELLO_PATH:
            return await self._handler(request)
        self.asked = True
        if self._opened is not None:
            self._opened()
        return LineAnswer(headers={"authorization": self._token}, body=self._lines())

    async def _lines(self) -> AsyncIterator[bytes]:
        async for offers in self._offers:
            yield msgspec.json.encode(offers) + b"\n"
        yield b"[]\n"  # or else the pool would go on calling while we drain
        self.hello_ended.set()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not self._tasks:
            self._idle.set()


class _Connection(DialledConnection):
    """Turns requests of the pool into tasks."""

    def __init__(self, trust: Trust, limits: Http2Limits, desk: _Desk) -> None:
        super().__init__(trust, client=False, alpn=LINE_ALPN, foreign=_FOREIGN, limits=limits)
        self.over: asyncio.Future[None] = self.loop.create_future()
        self._desk = desk
        self._ask_by = self.loop.time() + HELLO_WITHIN_S

    def on_request(self, stream_id: int, fields: dict[str, str]) -> None:
        stream = _Served(self, stream_id, fields)
        stream.task = self._desk.serve(stream)

    def on_idle_tick(self, now: float) -> None:
        if not self._desk.asked and now > self._ask_by:
            self.abort("the pool did not ask who we are")

    def on_closed(self) -> None:
        if not self.over.done():
            self.over.set_result(None)


class _Served(LineStream):
    """One call on the worker."""

    def __init__(self, connection: _Connection, stream_id: int, fields: dict[str, str]) -> None:
        super().__init__(connection, stream_id)
        self.task: asyncio.Task[None] | None = None
        self._fields = fields
        self._method = fields.get(":method", "")
        self._begun = False

    def on_gone(self, reason: str) -> None:
        self.body.end(Unavailable(f"the pool has left the call: {reason}"))
        if self.task is not None and not self.sent_end:
            self.task.cancel()

    async def serve(self, answer: Handler) -> None:
        """Answer the call; what goes wrong costs this call only."""
        path = self._fields.get(":path", "")
        request = LineRequest(self._method, path, received(self._fields), self.body)
        try:
            given = await answer(request)
            try:
                await self._send(given)
            finally:
                await close_body(given.body)
        except OpenPoolError as error:
            self._fail(error.code, str(error))
        except Exception as error:
            log.error("a call failed", exc_info=error)
            self._fail("error", _OUR_MISTAKE)
        finally:
            self.task = None
            # NO_ERROR: the answer is whole, the rest of the request is not wanted.
            self.cancel(ErrorCodes.NO_ERROR if self.sent_end else ErrorCodes.INTERNAL_ERROR)

    async def _send(self, answer: LineAnswer) -> None:
        bare = self._method == "HEAD" or answer.status in _WITHOUT_BODY
        body = b"" if bare else answer.body
        fields, length = self._head(answer), None if bare else announced(answer.headers)
        if isinstance(body, bytes) and length not in (None, len(body)):
            raise BadMessage("the body is not as long as was announced")
        self._begun = True
        self.send_headers(fields, end=body == b"")
        if isinstance(body, bytes):
            if not body or self.send_now(body, end=True):
                return
            body = once(body)
        await self.send_body(body, length)

    def _head(self, answer: LineAnswer) -> Fields:
        if not 200 <= answer.status <= 599:
            raise BadMessage("the status of an answer is between 200 and 599")
        headers = {k: v for k, v in answer.headers.items() if not k.lower().startswith(_RESERVED)}
        if answer.status in _WITHOUT_BODY:
            headers = {k: v for k, v in headers.items() if k.lower() != "content-length"}
        return [(":status", str(answer.status)), *plain_fields(headers)]

    def _fail(self, code: str, sentence: str) -> None:
        """Tell the pool, as far as that is still possible, that there will be no answer."""
        if self._begun or self.gone:
            return
        words = f"{code}: {sentence[:SENTENCE_CHARS_MAX]}".encode(errors="replace")
        words = bytes(c if 32 <= c != 127 else 32 for c in words)
        with suppress(Unavailable):
            self.send_headers([(":status", "503"), (FAILED, words)], end=True)
