"""The trickle server of the orchestrator stand-in: numbered segments, kept for a little while.

Odd corners are the real one's: five segments are kept, a missing one is 470, a closed channel
answers 200 with a text (docs/protocol.md). Channels are made by the orchestrator only.
"""

import asyncio
from dataclasses import dataclass, field

from aiohttp import web

from openpool.link.trickle import CHANNEL_LATEST, CLOSED, LATEST, NEXT, NO_SUCH_SEGMENT, SEQ

KEPT = 5


@dataclass(slots=True)
class _Piece:
    seq: int
    chunks: list[bytes] = field(default_factory=list)
    closed: bool = False


@dataclass(slots=True)
class Channel:
    """One row of segments."""

    mime_type: str
    next_write: int = 0
    closed: bool = False
    pieces: dict[int, _Piece] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set, and replaced, whenever anything has happened."""

    def write(self, data: bytes) -> None:
        """A whole segment."""
        piece = self.begin(NEXT)
        self.feed(piece, data)
        self.finish(piece)

    def begin(self, seq: int) -> _Piece:
        """The segment to be written, which readers may wait for already."""
        seq = self.next_write if seq == NEXT else seq
        return self._piece(seq)

    def feed(self, piece: _Piece, data: bytes) -> None:
        self.next_write = piece.seq + 1
        piece.chunks.append(data)
        self._tell()

    def finish(self, piece: _Piece) -> None:
        self.next_write = max(self.next_write, piece.seq + 1)
        piece.closed = True
        self._tell()

    def close(self) -> None:
        self.closed = True
        for piece in self.pieces.values():
            piece.closed = True
        self.pieces.clear()
        self._tell()

    def find(self, seq: int) -> tuple[int, _Piece | None]:
        """The number that is meant, and its segment if it is kept or the next one."""
        if seq == NEXT:
            seq = self.next_write
        elif seq == LATEST:
            seq = max(self.next_write - 1, 0)
        ahead = seq == self.next_write or (self.next_write == 0 and seq == 1)
        if seq not in self.pieces and ahead and not self.closed:
            return seq, self._piece(seq)
        return seq, self.pieces.get(seq)

    def _piece(self, seq: int) -> _Piece:
        piece = self.pieces.setdefault(seq, _Piece(seq))
        for old in [number for number in self.pieces if number <= seq - KEPT]:
            self.pieces.pop(old).closed = True
        return piece

    def _tell(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class TrickleServer:
    """All channels under one path."""

    def __init__(self) -> None:
        self.channels: dict[str, Channel] = {}

    def create(self, name: str, mime_type: str) -> Channel:
        return self.channels.setdefault(name, Channel(mime_type))

    def close(self, name: str) -> None:
        """End a channel; ending it twice is no error."""
        if channel := self.channels.pop(name, None):
            channel.close()

    def close_all(self) -> None:
        for name in list(self.channels):
            self.close(name)

    def routes(self, base: str) -> list[web.RouteDef]:
        return [
            web.post(f"{base}/{{name}}", self._create),
            web.delete(f"{base}/{{name}}", self._delete),
            web.get(f"{base}/{{name}}/next", self._next, allow_head=False),
            web.get(f"{base}/{{name}}/{{seq}}", self._read, allow_head=False),
            web.post(f"{base}/{{name}}/{{seq}}", self._write),
        ]

    def _channel(self, request: web.Request) -> Channel:
        channel = self.channels.get(request.match_info["name"])
        if channel is None:
            raise web.HTTPNotFound(text="Stream not found\n", headers={"Connection": "close"})
        return channel

    async def _create(self, request: web.Request) -> web.Response:
        self._channel(request)  # others may not make channels
        return web.Response()

    async def _delete(self, request: web.Request) -> web.Response:
        if request.match_info["name"] not in self.channels:
            raise web.HTTPBadRequest(text="Invalid stream\n")
        self.close(request.match_info["name"])
        return web.Response()

    async def _next(self, request: web.Request) -> web.Response:
        number = str(self._channel(request).next_write)
        return web.Response(text=number, headers={CHANNEL_LATEST: number})

    async def _read(self, request: web.Request) -> web.StreamResponse:
        channel = self._channel(request)
        latest = channel.next_write
        seq, piece = channel.find(_number(request))
        if piece is None:
            headers = {CHANNEL_LATEST: str(latest), SEQ: str(seq)}
            if channel.closed:
                headers[CLOSED] = "terminated"
            status = 200 if channel.closed else NO_SUCH_SEGMENT
            return web.Response(status=status, text="Entry not found", headers=headers)
        return await self._send(request, channel, piece)

    async def _send(
        self, request: web.Request, channel: Channel, piece: _Piece
    ) -> web.StreamResponse:
        while not (piece.chunks or piece.closed):
            await channel.changed.wait()
        headers = {SEQ: str(piece.seq), "Content-Type": channel.mime_type}
        if not piece.chunks:
            headers[CHANNEL_LATEST] = str(channel.next_write)
            if channel.closed:
                headers[CLOSED] = "terminated"
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        sent = 0
        while True:
            while sent < len(piece.chunks):
                sent += 1
                await response.write(piece.chunks[sent - 1])
            if piece.closed:  # and everything is sent
                return response
            while not (len(piece.chunks) > sent or piece.closed):
                await channel.changed.wait()

    async def _write(self, request: web.Request) -> web.Response:
        channel = self._channel(request)
        piece = channel.begin(_number(request))
        async for chunk in request.content.iter_any():
            channel.feed(piece, chunk)
        channel.finish(piece)
        closed = {CLOSED: "terminated"} if channel.closed else {}
        return web.Response(headers={SEQ: str(piece.seq)} | closed)


def _number(request: web.Request) -> int:
    try:
        return int(request.match_info["seq"])
    except ValueError:
        raise web.HTTPBadRequest(text="Invalid idx\n") from None
