"""What the worker and its transcoding processes say to each other over a socket pair.

A message is its two lengths, a header in MessagePack, and raw bytes: the source one way, all
renditions one after another the other way. Video is never parsed or copied on the way.
"""

import asyncio
import socket
from collections.abc import Sequence
from struct import Struct as Layout

import msgspec
from msgspec import Struct

from openpool.core.decoding import UNREADABLE
from openpool.core.model import Container, Segment
from openpool.worker.terms import EncodedRendition, EngineSettings, TranscodeResult

LENGTHS = Layout("<IQ")
HEADER_BYTES_MAX = 1 << 20
BODY_BYTES_MAX = 4 << 30
ENCODER = msgspec.msgpack.Encoder()


class Request(Struct, frozen=True, kw_only=True):
    """Transcode the source in the body. `fresh` asks to forget the session before it."""

    segment: Segment
    settings: EngineSettings
    fresh: bool = False


class Part(Struct, frozen=True, kw_only=True):
    """A rendition without its bytes, which lie in the body."""

    name: str
    container: Container
    width: int
    height: int
    frames: int
    pixels: int
    bytes: int


class Reply(Struct, frozen=True, kw_only=True):
    """A result whose renditions lie in the body, or what went wrong."""

    parts: tuple[Part, ...] = ()
    source_pixels: int = 0
    source_frames: int = 0
    media_ms: int = 0
    took_ms: int = 0
    error: str = ""
    input_fault: bool = False


REQUESTS = msgspec.msgpack.Decoder(Request)
REPLIES = msgspec.msgpack.Decoder(Reply)


def to_reply(result: TranscodeResult) -> tuple[Reply, list[bytes]]:
    """A result as header and body."""
    parts = tuple(
        Part(
            name=rendition.name,
            container=rendition.container,
            width=rendition.width,
            height=rendition.height,
            frames=rendition.frames,
            pixels=rendition.pixels,
            bytes=len(rendition.data),
        )
        for rendition in result.renditions
    )
    reply = Reply(
        parts=parts,
        source_pixels=result.source_pixels,
        source_frames=result.source_frames,
        media_ms=result.media_ms,
        took_ms=result.took_ms,
    )
    return reply, [rendition.data for rendition in result.renditions]


def to_result(reply: Reply, bodies: Sequence[bytes]) -> TranscodeResult:
    """The result that `to_reply` took apart."""
    return TranscodeResult(
        renditions=tuple(
            EncodedRendition(
                name=part.name,
                container=part.container,
                data=data,
                width=part.width,
                height=part.height,
                frames=part.frames,
                pixels=part.pixels,
            )
            for part, data in zip(reply.parts, bodies, strict=True)
        ),
        source_pixels=reply.source_pixels,
        source_frames=reply.source_frames,
        media_ms=reply.media_ms,
        took_ms=reply.took_ms,
    )


def send(sock: socket.socket, header: Struct, body: Sequence[bytes]) -> None:
    """Send one message, blocking."""
    encoded = ENCODER.encode(header)
    sock.sendall(LENGTHS.pack(len(encoded), sum(map(len, body))) + encoded)
    for part in body:
        sock.sendall(part)


def receive_request(sock: socket.socket) -> tuple[Request, bytes] | None:
    """The next request, blocking; None when the other side has hung up."""
    lengths = _receive(sock, LENGTHS.size)
    if lengths is None:
        return None
    header_size, body_size = LENGTHS.unpack(lengths)
    header, body = _receive(sock, header_size), _receive(sock, body_size)
    if header is None or body is None:
        return None
    return REQUESTS.decode(header), bytes(body)


def _receive(sock: socket.socket, size: int) -> bytearray | None:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        count = sock.recv_into(view)
        if not count:
            return None
        view = view[count:]
    return data


async def write_request(writer: asyncio.StreamWriter, request: Request, source: bytes) -> None:
    """Send one request."""
    encoded = ENCODER.encode(request)
    writer.write(LENGTHS.pack(len(encoded), len(source)) + encoded)
    writer.write(source)
    await writer.drain()


async def read_reply(reader: asyncio.StreamReader) -> tuple[Reply, list[bytes]]:
    """The next reply. Raises asyncio.IncompleteReadError if the process has gone, ValueError if
    what it says makes no sense."""
    header_size, body_size = LENGTHS.unpack(await reader.readexactly(LENGTHS.size))
    if header_size > HEADER_BYTES_MAX or body_size > BODY_BYTES_MAX:
        raise ValueError("the reply is too large")
    try:
        reply = REPLIES.decode(await reader.readexactly(header_size))
    except UNREADABLE as error:
        raise ValueError("the reply cannot be read") from error
    if sum(part.bytes for part in reply.parts) != body_size:
        raise ValueError("the reply does not add up")
    return reply, [await reader.readexactly(part.bytes) for part in reply.parts]
