"""What both ends of a line share: its limits, its errors, header fields, and bodies.

A line is an HTTP/2 connection that a worker dials and on which the roles then turn round: the pool
makes the requests (`line_client`), the worker answers them (`line_server`). `link.line` has the
names that others use. Bodies are never kept whole: each side reads when it wants to, and the other
one waits.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping

from h2.errors import ErrorCodes

from openpool.core.errors import BadMessage, Unavailable
from openpool.link.floods import CONTINUATION, DATA, FRAMES_MAX, HEADERS, RESET
from openpool.link.http2 import Http2Connection, Http2Limits, Stream

HELLO_PATH = "/hello"
FAILED = "openpool-failed"
"""Header field of an answer that is none: why the worker failed, as `code: sentence`."""

CALLS_MAX = 256
"""Open calls on one line."""
OFFERS_BYTES_MAX = 256 << 10
"""One list of offers."""
FIELDS_MAX = 100
FIELDS_BYTES_MAX = 16 << 10
PATH_BYTES_MAX = 8 << 10
SENTENCE_CHARS_MAX = 500

_STREAM_WINDOW_BYTES = 256 << 10

CLIENT_LIMITS = Http2Limits(
    stream_window_bytes=_STREAM_WINDOW_BYTES,
    # As much as all calls together: one that is read slowly never holds up another.
    connection_window_bytes=_STREAM_WINDOW_BYTES * CALLS_MAX,
    frame_bytes_max=64 << 10,
    headers_bytes_max=FIELDS_BYTES_MAX + FIELDS_MAX * 32,
    streams_max=CALLS_MAX + 16,
    # What the calls themselves entitle a worker to is added to these, see `line_client`.
    frames_max={**FRAMES_MAX, HEADERS: 1_000, RESET: 1_000},
    busy=True,
)
"""What the pool puts up with from a worker."""

SERVER_LIMITS = Http2Limits(
    stream_window_bytes=_STREAM_WINDOW_BYTES,
    connection_window_bytes=_STREAM_WINDOW_BYTES * CALLS_MAX,
    frame_bytes_max=64 << 10,
    headers_bytes_max=FIELDS_BYTES_MAX + FIELDS_MAX * 32,
    streams_max=CALLS_MAX + 16,
    frames_max={
        **FRAMES_MAX,
        DATA: 200_000,
        HEADERS: 100_000,
        RESET: 20_000,
        CONTINUATION: 1_000,
    },
    busy=True,
)
"""What a worker puts up with from its pool, whose certificate it knows: 10,000 calls a second."""

FRAME_BYTES = 16 << 10
"""Small chunks are put together up to this size."""
BODY_STALL_S = 300.0
"""How long a body may wait for its reader, such as a runtime that loads its model first."""

Body = bytes | AsyncIterator[bytes]

_METHOD = re.compile(r"[A-Z]{1,20}")
_PATH = re.compile(r"/[\x21-\x7e]*")
_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
_OWN = frozenset({"connection", "host", "keep-alive", "proxy-connection", "te", "trailer"}) | {
    "transfer-encoding",
    "upgrade",
}
"""Fields that belong to one connection, not to a call."""


class NotAnswered(Unavailable):
    """Nothing of an answer came from the worker; the call may be made elsewhere."""

    code = "not-answered"

    def __init__(self, message: str, cause: str = "unavailable") -> None:
        super().__init__(message)
        self.cause = cause
        """The `code` of the worker's own error, or `unavailable` if it said nothing."""


class BrokenOff(Unavailable):
    """The answer broke off after it had begun."""

    code = "broken-off"


class Waiter:
    """Lets one task wait until something has happened."""

    __slots__ = ("_future", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._future: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        self._future = self._loop.create_future()
        try:
            await self._future
        finally:
            self._future = None

    def wake(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)


class Incoming(AsyncIterator[bytes]):
    """A body as it comes. Reading it is what lets the sender go on.

    Chunks that wait are handed out in one piece, at most a window of them. After the last byte the
    iteration ends, or raises why there is no more.
    """

    def __init__(self, stream: "LineStream") -> None:
        self._stream = stream
        self._waiting = bytearray()
        self._held = 0
        """What `_waiting` takes of the window."""
        self._used = 0
        """Read, but not acknowledged yet: once per quarter of the window is enough."""
        self._acknowledge_at = stream.connection.limits.stream_window_bytes // 4
        self._ended = False
        self._error: Exception | None = None
        self._reader = Waiter(stream.connection.loop)

    @property
    def ended(self) -> bool:
        """Whether all of it has come, or as much as ever will."""
        return self._ended

    def feed(self, data: bytes, size: int) -> None:
        if self._ended:
            self._stream.acknowledge(size)
            return
        self._waiting += data
        self._held += size
        self._reader.wake()

    def end(self, error: Exception | None = None) -> None:
        """Nothing more will come, because of this error if it is too early."""
        if not self._ended:
            self._ended, self._error = True, error
            self._reader.wake()

    def discard(self) -> None:
        """Nobody will read the rest."""
        self.end(BrokenOff("the call was left before its body had come"))
        self._waiting.clear()
        self._release(flush=True)

    async def __anext__(self) -> bytes:
        while not self._waiting:
            if self._held:
                self._release()  # padding alone
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            await self._reader.wait()
        data = bytes(self._waiting)
        self._waiting.clear()
        self._release()
        return data

    async def read(self, limit_bytes: int) -> bytes:
        """The whole body; BadMessage if it is longer than this."""
        parts = bytearray()
        async for chunk in self:
            parts += chunk
            if len(parts) > limit_bytes:
                raise BadMessage(f"the body is larger than {limit_bytes} bytes")
        return bytes(parts)

    def _release(self, *, flush: bool = False) -> None:
        self._used += self._held
        self._held = 0
        if flush or self._used >= self._acknowledge_at or self._stream.gone:
            self._stream.acknowledge(self._used)
            self._used = 0


class LineStream(Stream):
    """A call, seen from either side."""

    def __init__(self, connection: Http2Connection, stream_id: int) -> None:
        super().__init__(connection, stream_id)
        self.body = Incoming(self)
        self._pieces = bytearray()
        """Small chunks that go out together when the event loop comes round."""
        self._emitting = False

    @property
    def patience_s(self) -> float:
        return BODY_STALL_S

    def on_data(self, data: bytes, size: int) -> None:
        self.body.feed(data, size)

    def on_end(self) -> None:
        self.body.end()

    async def send_body(self, body: AsyncIterator[bytes], length: int | None) -> None:
        """Send all of it as the peer takes it, and end; `length` is what was announced."""
        try:
            await self._send_measured(body, length)
        except BaseException:
            self._emit()  # what came before is worth having
            raise
        if not self._emit(end=True):
            await self._send_pieces()
            self.send_now(b"", end=True)

    async def _send_measured(self, body: AsyncIterator[bytes], length: int | None) -> None:
        sent = 0
        async for chunk in body:
            sent += len(chunk)
            if length is not None and sent > length:
                raise BadMessage("the body is longer than was announced")
            await self._push(chunk)
        if length is not None and sent < length:
            raise BadMessage("the body is shorter than was announced")

    def on_writable(self) -> None:
        super().on_writable()
        self._emit()

    async def _push(self, data: bytes) -> None:
        """Send data as the peer takes it, but not every token in a frame of its own."""
        if len(self._pieces) + len(data) > min(FRAME_BYTES, self.room):
            await self._send_pieces()
            await self.send(data)
        else:
            self._pieces += data
            if not self._emitting:
                self._emitting = True
                self.connection.loop.call_soon(self._emit)

    async def _send_pieces(self) -> None:
        pieces = bytes(self._pieces)
        self._pieces.clear()
        await self.send(pieces)

    def _emit(self, *, end: bool = False) -> bool:
        """Send the pieces that wait, if they may be sent now; whether they were."""
        self._emitting = False
        if self.gone or not (self._pieces or end):
            return False
        try:
            if not self.send_now(bytes(self._pieces), end=end):
                return False
        except Unavailable:
            return False
        self._pieces.clear()
        return True

    def cancel(self, code: ErrorCodes) -> None:
        """Break off what is left of the call."""
        self.reset(code)
        self.body.discard()


async def close_body(body: Body) -> None:
    """Let a generator clean up, whether it came to its end or not."""
    if isinstance(body, AsyncGenerator):
        await body.aclose()


async def once(data: bytes) -> AsyncIterator[bytes]:
    """A body of one chunk."""
    yield data


Fields = list[tuple[str, str | bytes]]


def request_fields(method: str, path: str, headers: Mapping[str, str]) -> Fields:
    """The head of a request; BadMessage if it cannot be sent."""
    if not _METHOD.fullmatch(method):
        raise BadMessage("the method of a call is in capital letters")
    if len(path) > PATH_BYTES_MAX or not _PATH.fullmatch(path):
        raise BadMessage(
            f"the path of a call is at most {PATH_BYTES_MAX} plain characters after a slash"
        )
    return [
        (":method", method),
        (":scheme", "https"),
        (":path", path),
        (":authority", "worker"),
        *plain_fields(headers),
    ]


def plain_fields(headers: Mapping[str, str]) -> Fields:
    """Header fields that may be sent, those of a single connection left out.

    BadMessage if they are too many or too large, or no header fields at all.
    """
    fields: Fields = []
    size = 0
    for name, value in headers.items():
        name = name.lower()
        if name in _OWN:
            continue
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise BadMessage(f"the header field {name[:50]!r} cannot be sent")
        # Surrogates stand for bytes that were no UTF-8 where the field came from.
        raw = value.strip(" \t").encode("utf-8", "surrogateescape")
        size += len(name) + len(raw)
        fields.append((name, raw))
    if len(fields) > FIELDS_MAX or size > FIELDS_BYTES_MAX:
        raise BadMessage(
            f"a head has at most {FIELDS_MAX} fields and {FIELDS_BYTES_MAX} bytes; send fewer"
        )
    return fields


def announced(fields: Mapping[str, str]) -> int | None:
    """The length of a body as its head tells it; BadMessage if that is no number."""
    text = fields.get("content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise BadMessage("the content-length is no number")
    return int(text)


def received(fields: Mapping[str, str]) -> dict[str, str]:
    """The header fields of a peer as text, without those that begin with a colon."""
    return {
        name: value if value.isascii() else _text(value)
        for name, value in fields.items()
        if not name.startswith(":")
    }


def _text(value: str) -> str:
    return value.encode("latin-1").decode("utf-8", "surrogateescape")
