"""The pool's end of a line: it makes the calls, although the worker dialled.

A `Line` is handed to `PortHandler.line` for as long as the worker stays. It asks who the worker is
(`hello`) and carries calls; which call goes where is decided by others. A worker that breaks the
rules loses its line and nothing else does.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple

import msgspec
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError

from openpool.core.calls import Offer
from openpool.core.decoding import UNREADABLE
from openpool.core.errors import BadMessage, NoCapacity, OpenPoolError, Timeout, Unavailable
from openpool.link.floods import DATA, HEADERS, RESET
from openpool.link.http2 import Http2Connection, Http2Limits
from openpool.link.line_stream import (
    CALLS_MAX,
    FAILED,
    FIELDS_MAX,
    HELLO_PATH,
    OFFERS_BYTES_MAX,
    SENTENCE_CHARS_MAX,
    Body,
    BrokenOff,
    Fields,
    LineStream,
    NotAnswered,
    Waiter,
    announced,
    once,
    received,
    request_fields,
)

HELLO_S = 10.0
"""For a worker to say who it is."""
OFFERS_MAX = 256
OFFERS_EVERY_S = 0.2
"""A worker that changes its offers more often than this is heard later."""
NAME_CHARS_MAX = 200
TOKEN_CHARS_MAX = 512
_IDS_END = 2**31 - 1000
"""Near the last stream id a line takes no more calls; the worker dials anew."""
_SMALL_FRAMES_PER_TICK = 500
"""Nearly empty frames that an open call may bring in every few seconds, tokens for example."""

_offers = msgspec.json.Decoder(list[Offer])


class Hello(NamedTuple):
    """Who the worker is and what it offers."""

    token: str
    offers: AsyncIterator[list[Offer]]
    """The whole list whenever it changes. Ends when the worker wants no more calls; Unavailable
    when the line breaks, BadMessage if the list cannot be read."""


class Answer(NamedTuple):
    """The head of an answer, and its body as it comes."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case; repeated ones joined with commas."""
    body: AsyncIterator[bytes]
    """Raises BrokenOff (Timeout at the deadline) if it does not come to its end."""


class Line:
    """A worker that can be called."""

    def __init__(self, connection: "LineConnection") -> None:
        self._connection = connection
        self._calls = 0
        self._draining = False

    @property
    def open(self) -> bool:
        """Whether calls can be made."""
        return not (self._draining or self._connection.closed)

    @property
    def calls(self) -> int:
        """Calls under way."""
        return self._calls

    async def hello(self) -> Hello:
        """Ask the worker for its token; NotAnswered, Timeout or BadMessage if it gives none."""
        stream = self._connection.open_call()
        try:
            async with asyncio.timeout(HELLO_S):
                stream.send_headers(request_fields("GET", HELLO_PATH, {}), end=True)
                answer = await stream.answer()
            token = answer.headers.get("authorization", "")
            if answer.status != 200 or not 0 < len(token) <= TOKEN_CHARS_MAX:
                raise BadMessage("the worker did not say who it is; update it")
        except TimeoutError:
            stream.cancel(ErrorCodes.CANCEL)
            raise Timeout(f"the worker did not say within {HELLO_S:g} s who it is") from None
        except BaseException:
            stream.cancel(ErrorCodes.CANCEL)
            raise
        return Hello(token, _read_offers(answer.body, self._connection.over))

    def call(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: Body = b"",
        *,
        deadline_s: float | None = None,
    ) -> "Call":
        """Make a call: `async with line.call(...) as answer`. Leaving the block ends the call.

        Entering raises NotAnswered (try elsewhere), Timeout (after `deadline_s` seconds, which
        covers the body of the answer, too), NoCapacity (too many calls on this line), BadMessage
        (it cannot be sent), or whatever `body` raised. A body that is an iterator goes out while
        the answer comes in.
        """
        fields = request_fields(method, path, headers)
        length = announced(headers)
        if length is not None and isinstance(body, bytes) and length != len(body):
            raise BadMessage("the body is not as long as was announced")
        return Call(self._connection, fields, body, length, deadline_s)

    async def wait_closed(self) -> str:
        """Wait until the line is gone; returns why, in words."""
        return await asyncio.shield(self._connection.over)

    def drain(self) -> None:
        """Make no more calls, and hang up when those under way have ended."""
        self._draining = True
        self._hang_up_if_done()

    def close(self, error: OpenPoolError | None = None) -> None:
        """Hang up at once; the worker is told this error."""
        self._connection.dismiss(error)

    # For calls

    def enter(self) -> None:
        if self._connection.closed:
            raise NotAnswered(f"the worker is gone: {self._connection.closed}")
        if self._draining:
            raise NotAnswered("the line to this worker is closing")
        if self._calls >= CALLS_MAX:
            raise NoCapacity(f"{CALLS_MAX} calls are open on the line to this worker")
        self._calls += 1

    def leave(self) -> None:
        self._calls -= 1
        self._hang_up_if_done()

    def _hang_up_if_done(self) -> None:
        if self._draining and self._calls <= 0:
            self.close(Unavailable("the pool is closing this line; dial again"))


class LineConnection(Http2Connection):
    """The connection under a `Line`."""

    def __init__(
        self,
        peer: tuple[str, int],
        *,
        opened: Callable[["LineConnection"], None],
        lost: Callable[["LineConnection"], None],
        limits: Http2Limits,
    ) -> None:
        super().__init__(client=True, limits=limits)
        self.peer = peer
        self.line = Line(self)
        self.over: asyncio.Future[str] = self.loop.create_future()
        self._opened, self._lost = opened, lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._opened(self)

    def on_idle_tick(self, now: float) -> None:
        self.meter.expect(DATA, _SMALL_FRAMES_PER_TICK * len(self.streams))

    def on_closed(self) -> None:
        if not self.over.done():
            self.over.set_result(self.closed)
        self._lost(self)

    def dismiss(self, error: OpenPoolError | None) -> None:
        """Hang up and tell the worker why, so that it knows whether to come back."""
        words = f"{error.code}: {error}" if error is not None else ""
        reason = str(error) if error is not None else "the pool closed the line"
        self.close(reason, words=words[:SENTENCE_CHARS_MAX].encode())

    def open_call(self) -> "_Call":
        """A new stream. NotAnswered if there can be none."""
        try:
            stream_id = self.h2.get_next_available_stream_id()
        except ProtocolError:
            stream_id = _IDS_END
        if stream_id >= _IDS_END:
            self.line.drain()
            raise NotAnswered("the line to this worker is used up; it dials a new one")
        self.meter.expect(HEADERS, 2)
        self.meter.expect(RESET, 1)
        self.meter.expect(DATA, 64)
        return _Call(self, stream_id)

    def blame(self, reason: str) -> None:
        """The worker broke the rules: hang up."""
        self.close(f"it broke the rules of the line: {reason}", ErrorCodes.PROTOCOL_ERROR)


class Call:
    """One call, as an asynchronous context manager that gives its answer."""

    def __init__(
        self,
        connection: LineConnection,
        fields: Fields,
        body: Body,
        length: int | None,
        deadline_s: float | None,
    ) -> None:
        self._line = connection.line
        self._connection = connection
        self._fields = fields
        self._body = body
        self._length = length
        self._deadline_s = deadline_s
        self._sender: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._stream: _Call | None = None

    async def __aenter__(self) -> Answer:
        self._line.enter()
        try:
            stream = self._stream = self._connection.open_call()
            if self._deadline_s is not None:
                self._timer = stream.connection.loop.call_later(
                    self._deadline_s, stream.fail, Timeout("the call took too long")
                )
            self._start(stream)
            return await stream.answer()
        except BaseException:
            await self.leave()
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.leave()

    def fail(self, error: Exception) -> None:
        """Break the call off from elsewhere: whoever waits for its answer is told this error."""
        if self._stream is not None:
            self._stream.fail(error)

    async def leave(self) -> None:
        """End the call, whatever its state; the worker stops what it was doing for it."""
        if self._timer is not None:
            self._timer.cancel()
        if self._stream is not None:
            self._stream.cancel(ErrorCodes.CANCEL)
        try:
            if self._sender is not None:
                self._sender.cancel()
                await asyncio.wait([self._sender])
        finally:
            self._line.leave()

    def _start(self, stream: "_Call") -> None:
        body = self._body
        with suppress(Unavailable):  # then `answer` knows why
            stream.send_headers(self._fields, end=not body)
            if isinstance(body, bytes) and (not body or stream.send_now(body, end=True)):
                return
        chunks = once(body) if isinstance(body, bytes) else body
        self._sender = self._connection.loop.create_task(stream.send_all(chunks, self._length))


class _Call(LineStream):
    """The stream of a call."""

    connection: LineConnection

    def __init__(self, connection: LineConnection, stream_id: int) -> None:
        super().__init__(connection, stream_id)
        self._head: tuple[int, Mapping[str, str]] | None = None
        self._failure: Exception | None = None
        self._waiter = Waiter(connection.loop)

    async def answer(self) -> Answer:
        """Wait for the head."""
        while self._head is None:
            if self._failure is not None:
                raise self._failure
            await self._waiter.wait()
        return Answer(*self._head, self.body)

    async def send(self, data: bytes) -> None:
        try:
            await super().send(data)
        except Timeout as error:  # the worker's fault, unlike what `body` itself may raise
            raise self._ending(str(error)) from None

    async def send_all(self, body: AsyncIterator[bytes], length: int | None) -> None:
        """The task that sends a body; what goes wrong in it is what the call fails with."""
        try:
            await self.send_body(body, length)
        except Exception as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """Break off because of something on our side."""
        if not self.gone and not self.body.ended:
            self._give_up(error)
            self.reset(ErrorCodes.CANCEL)

    def on_headers(self, fields: dict[str, str]) -> None:
        if self._head is not None:
            return  # trailers
        if len(fields) > FIELDS_MAX + 1:
            self.connection.blame(f"an answer has more than {FIELDS_MAX} header fields")
            return
        status = fields.get(":status", "")
        if not (status.isascii() and status.isdigit() and "200" <= status <= "599"):
            self.connection.blame("an answer has no valid status")
            return
        if FAILED in fields:
            cause, _, sentence = received(fields)[FAILED].partition(": ")
            self._give_up(NotAnswered(sentence[:SENTENCE_CHARS_MAX], cause[:50]))
            self.reset(ErrorCodes.CANCEL)
            return
        self._head = (int(status), received(fields))
        self._waiter.wake()

    def on_gone(self, reason: str) -> None:
        self._give_up(self._ending(reason))

    def _ending(self, reason: str) -> Unavailable:
        """An end of the call that is not ours."""
        if self._head is None:
            return NotAnswered(f"the worker gave no answer: {reason}")
        return BrokenOff(f"the worker broke off its answer: {reason}")

    def _give_up(self, error: Exception) -> None:
        if self._failure is None:
            self._failure = error
            self._waiter.wake()
            self.body.end(error)


async def _read_offers(
    body: AsyncIterator[bytes], over: asyncio.Future[str]
) -> AsyncIterator[list[Offer]]:
    """Only the last list counts where several have come, so that nobody is kept busy by them."""
    rest = b""
    async for chunk in body:
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > OFFERS_BYTES_MAX or any(len(line) > OFFERS_BYTES_MAX for line in lines):
            raise BadMessage(f"a list of offers is larger than {OFFERS_BYTES_MAX} bytes")
        if lines:
            yield _parse_offers(lines[-1])
            await asyncio.wait([over], timeout=OFFERS_EVERY_S)


def _parse_offers(line: bytes) -> list[Offer]:
    try:
        offers = _offers.decode(line)
    except UNREADABLE as error:
        raise BadMessage(f"a list of offers cannot be read: {error}") from None
    if len(offers) > OFFERS_MAX:
        raise BadMessage(f"a worker offers at most {OFFERS_MAX} apps")
    for offer in offers:
        _check_offer(offer)
    return offers


def _check_offer(offer: Offer) -> None:
    names = (offer.app.pipeline, offer.app.model, offer.gpu)
    if max(map(len, names)) > NAME_CHARS_MAX or not (offer.app.pipeline and offer.app.model):
        raise BadMessage(f"pipeline and model are names of at most {NAME_CHARS_MAX} characters")
    if not all(name.isprintable() for name in names) or "/" in offer.app.pipeline:
        raise BadMessage("pipeline and model have characters that names cannot have")
    if not (0 <= offer.capacity <= CALLS_MAX and 0 <= offer.vram_mb < 2**31):
        raise BadMessage(f"an app takes 0 to {CALLS_MAX} calls at once")
