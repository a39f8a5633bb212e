"""The HTTP/2 side of the worker port: registration streams, uploads and downloads.

Right endings matter most here: a stock worker stops for good on CANCELLED or RST_STREAM(CANCEL)
and hangs for ever on a stream that never ends, so every registration ends with trailers.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol

from h2.errors import ErrorCodes

from openpool.core.errors import BadMessage, Unavailable
from openpool.link.answers import (
    REPLY_CHARS_MAX,
    PortLimits,
    bad_method,
    ending_of,
    refusal_of,
    too_large,
    too_many_uploads,
    too_slow,
)
from openpool.link.http2 import Http2Connection, Stream
from openpool.link.interface import (
    AiHandler,
    Caller,
    Download,
    Ended,
    GrpcStatus,
    PortHandler,
    Reply,
)
from openpool.wire.ai_messages import (
    REGISTER_AI_PATH,
    AiJob,
    decode_register_ai,
    encode_ai_job,
)
from openpool.wire.grpc import CONTENT_TYPE, REGISTER_PATH, Deframer, frame, trailers
from openpool.wire.messages import Notification, decode_register, encode_notification

QUEUE_MAX = 256
"""Notifications that wait for a worker that does not read."""


_Method = Callable[[bytes], Callable[[], Coroutine[None, None, None]]]
"""What serves a call whose request is this message; raises BadMessage if it cannot be read."""


class Port(Protocol):
    """What a connection needs from its port."""

    handler: PortHandler
    ai: AiHandler | None
    limits: PortLimits
    closing: bool
    uploads: int
    """Under way now, over all connections."""

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run under the port's task group."""

    def on_lost(self, connection: "ServerConnection") -> None:
        """The connection is over."""

    def leave(self, ip: str) -> None:
        """A socket from there is closed."""


class ServerConnection(Http2Connection):
    """One connection of a worker (or of somebody who pretends to be one)."""

    def __init__(self, port: Port, peer: tuple[str, int]) -> None:
        super().__init__(client=False, limits=port.limits.http2)
        self.port = port
        self.peer = peer
        self._idle_since = self.loop.time()
        self._used = False

    def on_request(self, stream_id: int, fields: dict[str, str]) -> None:
        self._used = True
        with suppress(Unavailable):  # it may reset the stream in the same breath
            self._route(stream_id, fields)

    def on_idle_tick(self, now: float) -> None:
        if self.streams:
            self._idle_since = now
        elif now - self._idle_since > self._patience:
            self.close("it asked for nothing")

    def on_closed(self) -> None:
        self.port.leave(self.peer[0])
        self.port.on_lost(self)

    def stop_registrations(self) -> None:
        """End the registrations so that their workers come back."""
        for stream in list(self.streams.values()):
            if isinstance(stream, RegistrationStream):
                stream.stop()

    @property
    def _patience(self) -> float:
        return self.port.limits.idle_s if self._used else self.port.limits.headers_s

    def _route(self, stream_id: int, fields: dict[str, str]) -> None:
        headers = {k: v for k, v in fields.items() if not k.startswith(":")}
        authority = fields.get(":authority", headers.get("host", ""))
        caller = Caller(peer=peer_text(self.peer), authority=authority, headers=headers)
        method, path = fields.get(":method", ""), fields.get(":path", "")
        if headers.get("content-type", "").startswith(CONTENT_TYPE):
            stream = RegistrationStream(self, stream_id, caller)
            stream.open(path if method == "POST" else "")
        elif method == "POST":
            UploadStream(self, stream_id, caller).open(path)
        elif method == "GET":
            DownloadStream(self, stream_id, caller).open(path)
        else:
            RequestStream(self, stream_id, caller).reply(bad_method(method))


class ServerStream(Stream):
    """What all requests have in common: a port, a caller, and how a rest is thrown away."""

    connection: ServerConnection

    def __init__(self, connection: ServerConnection, stream_id: int, caller: Caller) -> None:
        super().__init__(connection, stream_id)
        self.port = connection.port
        self.caller = caller
        self._linger_until = 0.0

    def on_tick(self, now: float) -> None:
        """After our answer the peer may finish sending, but not for ever."""
        if self.sent_end and now > self._linger_until:
            self.reset(ErrorCodes.NO_ERROR)

    def _linger(self) -> None:
        self._linger_until = self.connection.loop.time() + self.port.limits.linger_s


class RegistrationStream(ServerStream):
    """A gRPC call; after the request it is the `interface.RegistrationStream` of the handler."""

    def __init__(self, connection: ServerConnection, stream_id: int, caller: Caller) -> None:
        super().__init__(connection, stream_id, caller)
        self._deframer: Deframer | None = Deframer(self.port.limits.request_bytes_max)
        self._give_up_at = connection.loop.time() + self.port.limits.headers_s
        self._queue: deque[bytes] = deque()
        self._closed: asyncio.Future[str] = connection.loop.create_future()
        self._task: asyncio.Task[None] | None = None
        self._serve: _Method | None = None

    def open(self, path: str) -> None:
        self.send_headers([(":status", "200"), ("content-type", CONTENT_TYPE)])
        if path == REGISTER_PATH:
            self._serve = self._serve_transcoder
        elif path == REGISTER_AI_PATH and self.port.ai is not None:
            self._serve = partial(self._serve_ai_worker, self.port.ai)
        if self._serve is None:
            self.finish(Ended(GrpcStatus.UNIMPLEMENTED, "only RegisterTranscoder is offered here"))
        elif self.port.closing:
            self.finish(ending_of(asyncio.CancelledError()))

    def notify(self, notification: Notification) -> None:
        self._notify(encode_notification(notification))

    def notify_ai(self, job: AiJob) -> None:
        self._notify(encode_ai_job(job))

    def _notify(self, encoded: bytes) -> None:
        if self.gone or self.sent_end:
            raise Unavailable(f"the worker is gone: {self.gone or 'its stream has ended'}")
        message = frame(encoded)
        if not self._queue and self.send_now(message):
            return
        if len(self._queue) >= QUEUE_MAX:
            raise Unavailable("the worker does not read its notifications")
        self._queue.append(message)

    async def wait_closed(self) -> str:
        return await asyncio.shield(self._closed)

    def stop(self) -> None:
        """End the call because the port closes, whatever the handler is doing."""
        self.finish(ending_of(asyncio.CancelledError()))
        if self._task is not None:
            self._task.cancel()

    def finish(self, ended: Ended) -> None:
        """End the call with this status; the worker then acts as docs/protocol.md tells."""
        if self.gone or self.sent_end:
            return
        self._queue.clear()
        self._deframer = None
        self._linger()
        self.send_headers(trailers(ended.status, ended.message), end=True)

    def on_data(self, data: bytes, size: int) -> None:
        self.acknowledge(size)
        if self._deframer is None:
            return  # a second message, which no honest client sends
        try:
            messages = self._deframer.feed(data)
            if messages:
                self._deframer = None
                self._start(messages[0])
        except BadMessage as error:
            self.finish(ending_of(error))

    def on_end(self) -> None:
        if self._deframer is not None:
            self.finish(ending_of(BadMessage("the call ended before its request was complete")))

    def on_writable(self) -> None:
        super().on_writable()
        while self._queue and not self.gone and self.send_now(self._queue[0]):
            self._queue.popleft()

    def on_tick(self, now: float) -> None:
        super().on_tick(now)
        if self._deframer is not None and now > self._give_up_at:
            self.finish(ending_of(BadMessage("the request did not come in time")))

    def on_gone(self, reason: str) -> None:
        if not self._closed.done():
            self._closed.set_result(reason)

    def _serve_transcoder(self, message: bytes) -> Callable[[], Coroutine[None, None, None]]:
        return partial(self.port.handler.register, decode_register(message), self, self.caller)

    def _serve_ai_worker(
        self, ai: AiHandler, message: bytes
    ) -> Callable[[], Coroutine[None, None, None]]:
        return partial(ai.register_ai, decode_register_ai(message), self, self.caller)

    def _start(self, message: bytes) -> None:
        assert self._serve is not None  # or the call would have ended
        serving = self._serve(message)

        async def serve() -> None:
            error: BaseException | None = None
            try:
                await serving()
            except Exception as failure:
                error = failure
            except asyncio.CancelledError as cancelled:
                error = cancelled
                raise
            finally:
                self.finish(ending_of(error))

        self._task = self.port.spawn(serve())


class RequestStream(ServerStream):
    """A plain HTTP request that gets a plain answer."""

    _begun = False
    """Whether the header fields of an answer were sent already."""

    def reply(self, reply: Reply) -> None:
        """Answer, if anybody still listens; the rest of the request is thrown away."""
        if self.gone or self.sent_end:
            return
        body = reply.text[:REPLY_CHARS_MAX].encode()
        self._linger()
        self.send_headers(
            [
                (":status", str(reply.status)),
                ("content-type", "text/plain; charset=utf-8"),
                ("content-length", str(len(body))),
            ]
        )
        if not self.send_now(body, end=True):
            self.reset(ErrorCodes.NO_ERROR)  # no room even for one sentence: it does not listen

    def fail(self, error: BaseException) -> None:
        """Answer that something went wrong, as far as that is still possible."""
        answer = refusal_of(error)
        if not self._begun:
            with suppress(Unavailable):
                self.reply(answer)


class UploadStream(RequestStream):
    """A POST whose body is read by the handler, piece by piece."""

    def __init__(self, connection: ServerConnection, stream_id: int, caller: Caller) -> None:
        super().__init__(connection, stream_id, caller)
        self._body: UploadBody | None = None

    def open(self, path: str) -> None:
        limit = self.port.limits.body_bytes_max
        length = self.caller.headers.get("content-length", "")
        if length.isdigit() and int(length) > limit:
            self.reply(refusal_of(too_large(limit)))
        elif self.port.closing:
            self.reply(refusal_of(asyncio.CancelledError()))
        elif self._is_one_too_many:
            self.reply(too_many_uploads())
        else:
            self._body = UploadBody(self)
            self.port.uploads += 1
            self.port.spawn(self._serve(path, self._body))

    @property
    def _is_one_too_many(self) -> bool:
        limits = self.port.limits
        here = sum(isinstance(stream, UploadStream) for stream in self.connection.streams.values())
        return here > limits.uploads_per_connection_max or self.port.uploads >= limits.uploads_max

    def on_data(self, data: bytes, size: int) -> None:
        if self._body is None:
            self.acknowledge(size)
        else:
            self._body.feed(data, size)

    def on_end(self) -> None:
        if self._body is not None:
            self._body.end(None)

    def on_gone(self, reason: str) -> None:
        if self._body is not None:
            self._body.end(Unavailable(f"the sender is gone: {reason}"))

    async def _serve(self, path: str, body: "UploadBody") -> None:
        try:
            self.reply(await self.port.handler.upload(path, self.caller, body))
        except asyncio.CancelledError as stopped:
            self.fail(stopped)
            raise
        except Exception as error:
            self.fail(error)
        finally:
            self.port.uploads -= 1
            self._body = None
            body.discard()


class UploadBody(AsyncIterator[bytes]):
    """The body of an upload. Reading it is what lets the sender go on."""

    def __init__(self, stream: UploadStream) -> None:
        self._stream = stream
        self._limits = stream.port.limits
        self._chunks: deque[tuple[bytes, int]] = deque()
        self._received = 0
        self._ended = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._give_up_at = stream.connection.loop.time() + self._limits.body_s

    def feed(self, data: bytes, size: int) -> None:
        """Keep the data until it is read, unless the body has become too long."""
        self._received += len(data)
        if self._received > self._limits.body_bytes_max:
            self.end(too_large(self._limits.body_bytes_max))
        if self._error is not None:
            self._stream.acknowledge(size)
        else:
            self._chunks.append((data, size))
            self._wake()

    def end(self, error: Exception | None) -> None:
        """Nothing more will come, because of this error if it came too early."""
        if not self._ended:
            self._ended, self._error = True, error
            if error is not None:
                self.discard()
            self._wake()

    def discard(self) -> None:
        """Throw away what nobody will read."""
        while self._chunks:
            self._stream.acknowledge(self._chunks.popleft()[1])

    async def __anext__(self) -> bytes:
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            await self._wait()
        data, size = self._chunks.popleft()
        self._stream.acknowledge(size)
        return data

    async def _wait(self) -> None:
        loop = self._stream.connection.loop
        self._waiter = loop.create_future()
        patience = min(loop.time() + self._limits.body_idle_s, self._give_up_at)
        try:
            async with asyncio.timeout_at(patience):
                await self._waiter
        except TimeoutError:
            raise too_slow() from None
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class DownloadStream(RequestStream):
    """A GET. Once the peer is gone, nobody needs its body any more."""

    _task: asyncio.Task[None] | None = None

    def open(self, path: str) -> None:
        self._task = self.port.spawn(self._serve(path))

    def on_gone(self, reason: str) -> None:
        if self._task is not None and not self.sent_end:
            self._task.cancel()

    async def _serve(self, path: str) -> None:
        try:
            answer = await self.port.handler.download(path, self.caller)
            if isinstance(answer, Reply):
                self.reply(answer)
            else:
                await self._send(answer)
        except Exception as error:
            self.fail(error)
        finally:
            if not self.sent_end:  # a length was announced that cannot be kept any more
                self.reset(ErrorCodes.INTERNAL_ERROR)

    async def _send(self, download: Download) -> None:
        self._begun = True
        fields = [(":status", "200"), ("content-type", download.content_type)]
        if download.length is not None:
            fields.append(("content-length", str(download.length)))
        self.send_headers(fields)
        try:
            async for chunk in download.body:
                await self.send(chunk)
        finally:
            await close_body(download.body)
        self._linger()
        self.send_now(b"", end=True)


async def close_body(body: AsyncIterator[bytes]) -> None:
    """Let a generator clean up after a download that was broken off."""
    if isinstance(body, AsyncGenerator):
        await body.aclose()


def peer_text(peer: Sequence[object]) -> str:
    """`ip:port` of a socket address, which has more parts for IPv6."""
    host, port = str(peer[0]), peer[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
