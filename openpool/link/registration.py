"""The client's end of a registration: a gRPC call on a connection of its own.

There is no acknowledgement: silence after the request means success. Notifications may come within
milliseconds. See docs/protocol.md.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Generic, TypeVar

from h2.errors import ErrorCodes

from openpool.core.errors import BadMessage, Unavailable
from openpool.link.dialling import DialledConnection, dial_with
from openpool.link.http2 import Http2Connection, Http2Limits, Stream
from openpool.link.interface import Ended, GrpcStatus
from openpool.link.tls import Trust
from openpool.wire.grpc import CONTENT_TYPE, REGISTER_PATH, Deframer, frame, read_status
from openpool.wire.messages import (
    BadTask,
    Notification,
    RegisterRequest,
    decode_notification,
    encode_register,
)
from openpool.wire.reading import MESSAGE_BYTES_MAX

log = logging.getLogger(__name__)

OnBadTask = Callable[[BadTask], None]
T = TypeVar("T")

CLIENT_LIMITS = Http2Limits(stream_window_bytes=1 << 20, connection_window_bytes=1 << 20)
"""A megabyte of unread notifications is thousands; then the orchestrator has to wait."""


class ClientConnection(DialledConnection):
    """A connection to a server of transcoders."""

    def __init__(self, trust: Trust, limits: Http2Limits) -> None:
        foreign = "the server does not speak HTTP/2: is this an orchestrator?"
        super().__init__(trust, client=True, alpn="h2", foreign=foreign, limits=limits)


async def dial(
    host: str, port: int, trust: Trust, *, limits: Http2Limits, timeout_s: float
) -> ClientConnection:
    """Connect and check the certificate; Unauthorized if it is wrong, Unavailable if it fails."""
    return await dial_with(
        lambda: ClientConnection(trust, limits), host, port, trust, alpn="h2", timeout_s=timeout_s
    )


class Registration(AsyncIterator[T], Generic[T]):
    """An open registration; iterate over its notifications.

    The iteration ends with `Ended` when the server ends the call (with OK, too), with `Unavailable`
    when the connection breaks, and quietly after `close`.
    """

    def __init__(self, call: "_Call[T]", fingerprint: str) -> None:
        self.fingerprint = fingerprint
        """Of the server's certificate, 64 hex digits."""
        self._call = call

    async def __anext__(self) -> T:
        return await self._call.next()

    @property
    def is_open(self) -> bool:
        return self._call.end is None

    def close(self) -> None:
        """Unregister. Running tasks may still be answered."""
        self._call.close()


def open_registration(
    connection: ClientConnection,
    request: RegisterRequest,
    *,
    authority: str,
    headers: dict[str, str],
    on_bad_task: OnBadTask | None,
) -> Registration[Notification]:
    """Send the request; what the server thinks of it is learned from the iteration."""
    return open_stream(
        connection,
        REGISTER_PATH,
        encode_register(request),
        decode_notification,
        authority=authority,
        headers=headers,
        on_bad_task=on_bad_task,
    )


def open_stream(
    connection: ClientConnection,
    path: str,
    request: bytes,
    decode: Callable[[bytes], T],
    *,
    authority: str,
    headers: dict[str, str],
    on_bad_task: OnBadTask | None,
) -> Registration[T]:
    """The same for any method: one message goes out, and many come back."""
    stream_id = connection.h2.get_next_available_stream_id()
    call = _Call(connection, stream_id, decode, on_bad_task)
    fields = [
        (":method", "POST"),
        (":scheme", "https"),
        (":path", path),
        (":authority", authority),
        ("te", "trailers"),
        ("content-type", CONTENT_TYPE),
        *headers.items(),
    ]
    call.send_headers(fields)
    call.send_now(frame(request), end=True)
    return Registration(call, connection.fingerprint)


class _Call(Stream, Generic[T]):
    """Turns the frames of the call into notifications and one ending."""

    def __init__(
        self,
        connection: Http2Connection,
        stream_id: int,
        decode: Callable[[bytes], T],
        on_bad_task: OnBadTask | None,
    ) -> None:
        super().__init__(connection, stream_id)
        self.end: Exception | None = None
        self._decode = decode
        self._deframer = Deframer(MESSAGE_BYTES_MAX)
        self._messages: deque[bytes] = deque()
        self._unread = 0
        self._waiter: asyncio.Future[None] | None = None
        self._on_bad_task = on_bad_task
        self._answered = False

    async def next(self) -> T:
        while True:
            while not self._messages:
                if self.end is not None:
                    raise self.end
                await self._wait()
            notification = self._read(self._messages.popleft())
            if notification is not None:
                return notification

    def close(self) -> None:
        if self.end is None:
            self._messages.clear()
            self._finish(StopAsyncIteration())
        if not self.connection.closed:
            self.reset(ErrorCodes.CANCEL)
            self.connection.close("we closed it")

    def on_headers(self, fields: dict[str, str]) -> None:
        status = read_status(fields)
        if status is not None:
            self._finish(_ended(*status))
        elif not self._answered and not _is_grpc(fields):
            http_status = fields.get(":status", "nothing")
            self._finish(Unavailable(f"the server answered HTTP {http_status} instead of gRPC"))
        self._answered = True

    def on_data(self, data: bytes, size: int) -> None:
        self._unread += size
        try:
            messages = self._deframer.feed(data)
        except BadMessage as error:
            self._finish(error)
            self.reset(ErrorCodes.PROTOCOL_ERROR)
            return
        self._messages.extend(messages)
        if not self._messages:
            self._acknowledge_all()
        self._wake()

    def on_end(self) -> None:
        self._finish(Unavailable("the server ended the call without a status"))

    def on_gone(self, reason: str) -> None:
        self._finish(Unavailable(f"the connection to the server is gone: {reason}"))

    def _read(self, message: bytes) -> T | None:
        """A bad message costs nobody but its task."""
        if not self._messages:
            self._acknowledge_all()
        try:
            return self._decode(message)
        except BadTask as bad:
            if self._on_bad_task is not None:
                self._on_bad_task(bad)
            log.warning("task %d cannot be read: %s", bad.task_id, bad)
        except BadMessage as error:
            log.warning("a notification cannot be read: %s", error)
        return None

    def _acknowledge_all(self) -> None:
        """Only now: a server that sends faster than we read has to wait."""
        self.acknowledge(self._unread)
        self._unread = 0

    def _finish(self, end: Exception) -> None:
        if self.end is None:
            self.end = end
            self._wake()

    async def _wait(self) -> None:
        self._waiter = self.connection.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _is_grpc(fields: dict[str, str]) -> bool:
    content_type = fields.get("content-type", "")
    return fields.get(":status") == "200" and content_type.startswith(CONTENT_TYPE)


def _ended(status: int, message: str) -> Ended:
    if status in GrpcStatus.__members__.values():
        return Ended(GrpcStatus(status), message)
    return Ended(GrpcStatus.UNKNOWN, f"gRPC status {status}: {message}")
