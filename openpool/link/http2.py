"""One HTTP/2 connection over TLS, for either side, as an asyncio protocol on the `h2` library.

It moves frames, windows and pings, and protects against peers that flood or freeze; what a stream
means is up to the subclasses of `Stream` in `link.server_http2` and `link.registration`.
No task runs per connection: everything happens in callbacks, so that idle workers cost little.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

from openpool.core.errors import Timeout, Unavailable
from openpool.link.floods import FRAMES_MAX, PREFACE_BYTES, Flood, FrameMeter

Fields = Iterable[tuple[str, str | bytes]]

CLOSE_S = 5.0
"""How long a closing connection may take to take its last bytes."""

UNFLUSHED_BYTES_MAX = 256 << 10
"""More than this is written at once, so that a slow transport can say so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Http2Limits:
    """Sizes and times of one connection."""

    stream_window_bytes: int = 4 << 20
    """What a peer may send on a stream before we have read it: also the memory it can use up."""
    connection_window_bytes: int = 16 << 20
    frame_bytes_max: int = 256 << 10
    headers_bytes_max: int = 16 << 10
    streams_max: int = 128
    ping_every_s: float = 15.0
    """A connection that was silent for this long is sent a ping."""
    ping_answer_s: float = 15.0
    """A connection that stays silent this long after a ping is dropped."""
    stall_s: float = 30.0
    """How long a peer may take none of what we want to send."""
    frames_max: Mapping[int, int] = field(default_factory=lambda: FRAMES_MAX)
    """What counts as a flood: frames of each type within `floods.PERIOD_S`."""
    busy: bool = False
    """Made for thousands of short streams and small frames per second: what is to be sent is
    written once per turn of the event loop, and more finished streams are remembered."""


class _H2(H2Connection):
    # The library would remember 65,536 finished streams, megabytes on a long-lived connection. A
    # late frame for one that is not remembered costs the connection.
    MAX_CLOSED_STREAMS = 512


class _BusyH2(_H2):
    MAX_CLOSED_STREAMS = 8192


_CONFIGS = {
    client: H2Configuration(client_side=client, header_encoding=None) for client in (True, False)
}


class Stream:
    """One request with its answer. The callbacks `on_*` come from the connection."""

    def __init__(self, connection: "Http2Connection", stream_id: int) -> None:
        self.connection = connection
        self.id = stream_id
        self.gone = ""
        """Why nothing can be sent or received any more; empty while the stream lives."""
        self.sent_end = False
        self.received_end = False
        self._writable: asyncio.Future[None] | None = None
        connection.streams[stream_id] = self

    def on_headers(self, fields: dict[str, str]) -> None:
        """A block of header fields came after the first one of a request."""

    def on_data(self, data: bytes, size: int) -> None:
        """Data came; `acknowledge(size)` once it is used up."""
        self.acknowledge(size)

    def on_end(self) -> None:
        """The peer has sent everything."""

    def on_writable(self) -> None:
        """There may be room to send again."""
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def on_gone(self, reason: str) -> None:
        """The stream is over, for this reason; nothing else will come."""

    def on_tick(self, now: float) -> None:
        """Some time has passed."""

    def send_headers(self, fields: Fields, *, end: bool = False) -> None:
        """Send header fields; Unavailable if the stream is gone."""
        self._call(self.connection.h2.send_headers, fields, end_stream=end)
        self._flush_and(end)

    def send_now(self, data: bytes, *, end: bool = False) -> bool:
        """Send data if all of it may be sent at once; whether it was. Unavailable if gone."""
        self._require()
        if len(data) > self.room:
            return False
        step = self.connection.h2.max_outbound_frame_size
        for start in range(0, len(data), step) or (0,):
            last = end and start + step >= len(data)
            self._call(self.connection.h2.send_data, data[start : start + step], end_stream=last)
        self.connection.meter.allow(len(data))
        self.connection.unflushed += len(data)
        self._flush_and(end)
        return True

    async def send(self, data: bytes) -> None:
        """Send data as the peer takes it; Unavailable if it is gone, Timeout if it takes none."""
        view = memoryview(data)
        while view:
            size = min(len(view), self.room, 64 << 10)
            if size > 0:
                self.send_now(bytes(view[:size]))
                view = view[size:]
            else:
                await self._wait_writable()

    def acknowledge(self, size: int) -> None:
        """Let the peer send this much more."""
        if size and not self.connection.closed:
            self.connection.h2.acknowledge_received_data(size, self.id)
            self.connection.flush()

    def reset(self, code: ErrorCodes) -> None:
        """Break the stream off. Never use CANCEL towards a stock worker: it would stop for good."""
        if not self.gone:
            with suppress(ProtocolError):
                self.connection.h2.reset_stream(self.id, code)
            self.connection.flush()
            self.lose(f"it was broken off with {code.name}")

    def lose(self, reason: str) -> None:
        """The stream is over; whoever waits for it is told why."""
        if not self.gone:
            self.gone = reason
            self.connection.forget(self)
            self.on_writable()
            self.on_gone(reason)

    @property
    def patience_s(self) -> float:
        """How long the peer may take nothing of this stream."""
        return self.connection.limits.stall_s

    @property
    def room(self) -> int:
        """How many bytes may be sent at once."""
        if self.gone or self.connection.write_paused:
            return 0
        try:
            return max(0, self.connection.h2.local_flow_control_window(self.id))
        except ProtocolError:
            return 0  # the reset that closed it is about to be dispatched

    def _call(self, send: Callable[..., None], *args: object, **options: bool) -> None:
        """Let the library send something, which fails if it knows of a reset that we do not."""
        self._require()
        try:
            send(self.id, *args, **options)
        except ProtocolError:
            self.lose("it is closed")
            self._require()

    def _require(self) -> None:
        if self.gone:
            raise Unavailable(f"the peer is gone: {self.gone}")

    def _flush_and(self, end: bool) -> None:
        self.connection.flush()
        if end:
            self.sent_end = True
            self.settle()

    def settle(self) -> None:
        """Forget the stream once both sides have said everything."""
        if self.sent_end and self.received_end:
            self.lose("it ended")

    async def _wait_writable(self) -> None:
        self._require()
        self._writable = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self.patience_s):
                await self._writable
        except TimeoutError:
            raise Timeout("the peer does not take what it is sent") from None
        finally:
            self._writable = None
        self._require()


class Http2Connection(asyncio.Protocol):
    """The part of a connection that client and server share."""

    def __init__(self, *, client: bool, limits: Http2Limits) -> None:
        self.limits = limits
        self.streams: dict[int, Stream] = {}
        self.closed = ""
        """Why the connection is over; empty while it lives."""
        self.write_paused = False
        self.h2 = _new_h2(client, limits)
        self.loop = asyncio.get_running_loop()
        self.received_at = self.loop.time()
        skip = 0 if client else PREFACE_BYTES
        self.meter = FrameMeter(self.received_at, skip=skip, frames_max=limits.frames_max)
        self.last_words = b""
        """What the peer said when it said goodbye."""
        self.unflushed = 0
        """Bytes of DATA that the library still has."""
        self._flush_due = False
        self._pinged_at = 0.0
        self._paused_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._tick_s = min(limits.ping_every_s, limits.ping_answer_s, limits.stall_s, 10.0) / 4

    # What subclasses fill in

    def on_request(self, stream_id: int, fields: dict[str, str]) -> None:
        """A peer opened a stream."""

    def on_idle_tick(self, now: float) -> None:
        """Some time has passed."""

    def on_closed(self) -> None:
        """The connection is over; all its streams have been told."""

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=1 << 20)
        self.h2.initiate_connection()
        extra = self.limits.connection_window_bytes - self.h2.inbound_flow_control_window
        if extra > 0:
            self.h2.increment_flow_control_window(extra)
        self.flush()
        self._timer = self.loop.call_later(self._tick_s, self._tick)

    def data_received(self, data: bytes) -> None:
        if self.closed:
            return
        self.received_at = self.loop.time()
        self._pinged_at = 0.0
        try:
            self.meter.feed(data, self.received_at)
            received = self.h2.receive_data(data)
        except Flood as flood:
            self.close(str(flood), ErrorCodes.ENHANCE_YOUR_CALM)
            return
        except ProtocolError as error:
            self.close(f"it broke HTTP/2: {error}", None)
            return
        except Exception as error:  # whatever strange bytes do inside the parser
            self.close(f"it broke HTTP/2: {type(error).__name__}", ErrorCodes.PROTOCOL_ERROR)
            return
        for event in received:
            self._dispatch(event)
        self.flush()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self.write_paused = True
        self._paused_at = self.loop.time()

    def resume_writing(self) -> None:
        self.write_paused = False
        self._wake_all()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(f"the connection broke: {exc}" if exc else "it closed the connection")
        self.on_closed()

    # What streams use

    def flush(self) -> None:
        """Hand over to the transport what the library has prepared, soon or now."""
        if not self.limits.busy or self.unflushed > UNFLUSHED_BYTES_MAX:
            self.flush_now()
        elif not self._flush_due:
            self._flush_due = True
            self.loop.call_soon(self.flush_now)

    def flush_now(self) -> None:
        """Hand over to the transport what the library has prepared."""
        self._flush_due = False
        self.unflushed = 0
        data = self.h2.data_to_send()
        if data and not self.transport.is_closing():
            self.transport.write(data)

    def forget(self, stream: Stream) -> None:
        self.streams.pop(stream.id, None)

    def close(
        self, reason: str, code: ErrorCodes | None = ErrorCodes.NO_ERROR, words: bytes = b""
    ) -> None:
        """Say goodbye with this code (None: the library has done so already) and hang up."""
        if self.closed:
            return
        if code is not None:
            self.h2.close_connection(code, additional_data=words or None)
        self.flush_now()
        self._end(reason)
        self.transport.close()
        # A peer that does not read would keep its connection for ever.
        self.loop.call_later(CLOSE_S, self.transport.abort)

    def abort(self, reason: str) -> None:
        """Hang up at once."""
        self._end(reason)
        self.transport.abort()

    # Inside

    def _end(self, reason: str) -> None:
        if self.closed:
            return
        self.closed = reason
        if self._timer is not None:
            self._timer.cancel()
        for stream in list(self.streams.values()):
            stream.lose(reason)

    def _tick(self) -> None:
        now = self.loop.time()
        if self._pinged_at and now - self._pinged_at >= self.limits.ping_answer_s:
            self.abort(f"it did not answer a ping for {self.limits.ping_answer_s:g} s")
            return
        if not self._pinged_at and now - self.received_at >= self.limits.ping_every_s:
            self._pinged_at = now
            self.h2.ping(b"openpool")
            self.flush()
        if self.write_paused and now - self._paused_at >= self.limits.stall_s:
            self.abort("it does not read what it is sent")
            return
        for stream in list(self.streams.values()):
            stream.on_tick(now)
        self.on_idle_tick(now)
        if not self.closed:
            self._timer = self.loop.call_later(self._tick_s, self._tick)

    def _wake_all(self) -> None:
        for stream in list(self.streams.values()):
            stream.on_writable()

    def _dispatch(self, event: events.Event) -> None:
        handle = _HANDLERS.get(type(event))
        if handle is not None and not self.closed:
            handle(self, event)

    def _on_request(self, event: events.RequestReceived) -> None:
        self.on_request(event.stream_id, fields_of(event.headers))

    def _on_fields(self, event: events.ResponseReceived | events.TrailersReceived) -> None:
        if stream := self.streams.get(event.stream_id):
            stream.on_headers(fields_of(event.headers))

    def _on_data(self, event: events.DataReceived) -> None:
        if stream := self.streams.get(event.stream_id):
            stream.on_data(event.data, event.flow_controlled_length)
        else:
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)

    def _on_end(self, event: events.StreamEnded) -> None:
        if stream := self.streams.get(event.stream_id):
            stream.received_end = True
            stream.on_end()
            stream.settle()

    def _on_reset(self, event: events.StreamReset) -> None:
        if stream := self.streams.get(event.stream_id):
            stream.lose(f"it reset the stream ({code_name(event.error_code)})")

    def _on_window(self, event: events.WindowUpdated) -> None:
        if event.stream_id == 0:
            self._wake_all()
        elif stream := self.streams.get(event.stream_id):
            stream.on_writable()

    def _on_settings(self, event: events.RemoteSettingsChanged) -> None:
        self._wake_all()

    def _on_goaway(self, event: events.ConnectionTerminated) -> None:
        self.last_words = event.additional_data or b""
        self.flush_now()
        self._end(f"it said goodbye ({code_name(event.error_code)})")
        self.transport.close()


_HANDLERS: dict[type[events.Event], Callable[[Http2Connection, Any], None]] = {
    events.RequestReceived: Http2Connection._on_request,
    events.ResponseReceived: Http2Connection._on_fields,
    events.TrailersReceived: Http2Connection._on_fields,
    events.DataReceived: Http2Connection._on_data,
    events.StreamEnded: Http2Connection._on_end,
    events.StreamReset: Http2Connection._on_reset,
    events.WindowUpdated: Http2Connection._on_window,
    events.RemoteSettingsChanged: Http2Connection._on_settings,
    events.ConnectionTerminated: Http2Connection._on_goaway,
}


def fields_of(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Header fields by lower-case name; a repeated one is joined with commas."""
    fields: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return fields


def code_name(code: ErrorCodes | int | None) -> str:
    """The name of an HTTP/2 error code."""
    return code.name if isinstance(code, ErrorCodes) else str(code)


def _new_h2(client: bool, limits: Http2Limits) -> H2Connection:
    connection = (_BusyH2 if limits.busy else _H2)(_CONFIGS[client])
    values: dict[SettingCodes, int] = {
        SettingCodes.INITIAL_WINDOW_SIZE: limits.stream_window_bytes,
        SettingCodes.MAX_FRAME_SIZE: limits.frame_bytes_max,
        SettingCodes.MAX_HEADER_LIST_SIZE: limits.headers_bytes_max,
        SettingCodes.MAX_CONCURRENT_STREAMS: limits.streams_max,
    }
    if client:
        values[SettingCodes.ENABLE_PUSH] = 0
    connection.local_settings = Settings(client=client, initial_values=values)
    connection.max_inbound_frame_size = limits.frame_bytes_max
    connection.decoder.max_header_list_size = limits.headers_bytes_max
    return connection
