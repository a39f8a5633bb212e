"""What the link tests share: a scriptable handler, and a peer that speaks raw HTTP/2 frames."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, ResponseReceived, StreamEnded, TrailersReceived
from hyperframe.frame import Frame

from openpool.core.model import Profile, Segment
from openpool.link.interface import Caller, Download, RegistrationStream, Reply
from openpool.wire.grpc import REGISTER_PATH, frame
from openpool.wire.messages import Notification, RegisterRequest, encode_register

PATIENCE_S = 5.0
SEGMENT = Segment(
    seq=17,
    duration_ms=2000,
    profiles=(Profile(name="360p", width=640, height=360, bitrate_bps=700_000),),
    capabilities=67_112_963,
)
REGISTER = frame(encode_register(RegisterRequest(secret="token", capacity=2, capabilities=7)))

Register = Callable[[RegisterRequest, RegistrationStream, Caller], Awaitable[None]]
E = TypeVar("E", DataReceived, ResponseReceived, StreamEnded, TrailersReceived)
Upload = Callable[[AsyncIterator[bytes]], Awaitable[Reply]]


def task(task_id: int, url: str = "https://pool.example/s") -> Notification:
    return Notification(url=url, task_id=task_id, session="s1", manifest="m", segment=SEGMENT)


async def until_closed(
    request: RegisterRequest, stream: RegistrationStream, caller: Caller
) -> None:
    await stream.wait_closed()


async def read_all(body: AsyncIterator[bytes]) -> Reply:
    size = 0
    async for chunk in body:
        size += len(chunk)
    return Reply(200, f"OK {size}")


@dataclass
class Desk:
    """A port handler that does as told, and remembers who came."""

    on_register: Register = until_closed
    on_upload: Upload = read_all
    source: bytes = b"segment"
    requests: list[RegisterRequest] = field(default_factory=list)
    callers: list[Caller] = field(default_factory=list)
    uploads: list[Caller] = field(default_factory=list)
    downloads: list[str] = field(default_factory=list)
    arrivals: "asyncio.Queue[RegistrationStream]" = field(default_factory=asyncio.Queue)
    departures: "asyncio.Queue[str]" = field(default_factory=asyncio.Queue)

    async def register(
        self, request: RegisterRequest, stream: RegistrationStream, caller: Caller
    ) -> None:
        self.requests.append(request)
        self.callers.append(caller)
        self.arrivals.put_nowait(stream)
        try:
            await self.on_register(request, stream, caller)
        finally:
            self.departures.put_nowait("left")

    async def arrival(self) -> RegistrationStream:
        return await asyncio.wait_for(self.arrivals.get(), PATIENCE_S)

    async def download(self, path: str, caller: Caller) -> Download | Reply:
        self.downloads.append(path)
        self.callers.append(caller)
        if path == "/missing":
            return Reply(404, "no such segment")
        return Download(self._pieces(), len(self.source))

    async def _pieces(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self.source), 100_000):
            yield self.source[start : start + 100_000]

    async def upload(self, path: str, caller: Caller, body: AsyncIterator[bytes]) -> Reply:
        self.uploads.append(caller)
        if caller.headers.get("credentials") != "token":
            return Reply(401, "Unauthorized")
        return await self.on_upload(body)


class RawPeer:
    """A client made of the h2 library alone, which shows every frame that it gets."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.events: list[Event] = []
        self.frames: list[Frame] = []
        self.closed = False
        self._bytes = b""

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    def send_raw(self, *frames: Frame) -> None:
        self.writer.write(b"".join(frame.serialize() for frame in frames))

    def request(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        *,
        end: bool = True,
    ) -> int:
        """Open a stream; the body must fit the windows."""
        stream_id = self.h2.get_next_available_stream_id()
        fields = [
            (":method", method),
            (":scheme", "https"),
            (":path", path),
            (":authority", "pool.example:9000"),
            *(headers or {}).items(),
        ]
        self.h2.send_headers(stream_id, fields, end_stream=end and not body)
        for start in range(0, len(body), 16_384):
            self.h2.send_data(stream_id, body[start : start + 16_384])
        if end and body:
            self.h2.end_stream(stream_id)
        self.flush()
        return stream_id

    def register(self, message: bytes = REGISTER, *, end: bool = True) -> int:
        headers = {"content-type": "application/grpc", "te": "trailers"}
        return self.request("POST", REGISTER_PATH, headers, message, end=end)

    async def read_until(self, done: Callable[[], bool]) -> None:
        """Read frames until this is so; fails if the server closes or is silent before."""
        async with asyncio.timeout(PATIENCE_S):
            while not done():
                assert await self.read_some(), f"the server closed: {self.frames}"

    async def read_to_end(self) -> None:
        """Read until the server hangs up."""
        async with asyncio.timeout(PATIENCE_S):
            while await self.read_some():
                pass

    async def read_some(self) -> bool:
        try:
            data = await self.reader.read(1 << 16)
        except (ConnectionError, ssl.SSLError):
            data = b""
        self.closed = not data
        self._log(data)
        self.events += self.h2.receive_data(data)
        self.flush()
        return not self.closed

    async def answer(self, stream_id: int) -> tuple[str, str]:
        """Status and body of a whole answer."""
        await self.read_until(lambda: self.ended(stream_id))
        (head,) = self.of(ResponseReceived, stream_id)
        body = b"".join(event.data for event in self.of(DataReceived, stream_id))
        return dict(head.headers)[":status"], body.decode()

    async def ending(self, stream_id: int) -> dict[str, str]:
        """The trailers of a call."""
        await self.read_until(lambda: self.ended(stream_id))
        (trailers,) = self.of(TrailersReceived, stream_id)
        return dict(trailers.headers)

    def ended(self, stream_id: int) -> bool:
        return bool(self.of(StreamEnded, stream_id))

    def of(self, kind: type[E], stream_id: int) -> list[E]:
        return [e for e in self.events if isinstance(e, kind) and e.stream_id == stream_id]

    def stream_frames(self, stream_id: int) -> list[str]:
        """The frames of a stream as `TYPE` or `TYPE+END`."""
        names = []
        for each in self.frames:
            if each.stream_id == stream_id and type(each).__name__ != "WindowUpdateFrame":
                name = type(each).__name__.removesuffix("Frame").upper()
                names.append(name + ("+END" if "END_STREAM" in each.flags else ""))
        return names

    def kinds(self) -> list[str]:
        return [type(each).__name__.removesuffix("Frame").upper() for each in self.frames]

    def _log(self, data: bytes) -> None:
        self._bytes += data
        while len(self._bytes) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(self._bytes[:9]))
            if len(self._bytes) < 9 + length:
                return
            frame.parse_body(memoryview(self._bytes[9 : 9 + length]))
            self.frames.append(frame)
            self._bytes = self._bytes[9 + length :]


def loose_tls(*alpn: str) -> ssl.SSLContext:
    """TLS as stock transcoders use it: nothing is verified."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


@asynccontextmanager
async def raw_tls(
    port: int, *alpn: str
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A TLS connection that speaks nothing yet."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=loose_tls(*alpn))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


@asynccontextmanager
async def raw_peer(port: int, *, start: bool = True) -> AsyncIterator[RawPeer]:
    """A raw HTTP/2 peer connected to this port."""
    async with raw_tls(port, "h2") as (reader, writer):
        peer = RawPeer(reader, writer)
        if start:
            peer.h2.initiate_connection()
            peer.flush()
        yield peer


async def eventually(fine: Callable[[], bool]) -> None:
    """Wait until this is so; fails after a while."""
    async with asyncio.timeout(PATIENCE_S):
        while not fine():  # noqa: ASYNC110  what is waited for has no event
            await asyncio.sleep(0.005)
