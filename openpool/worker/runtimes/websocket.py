"""A session over the WebSocket of somebody else's server: messages pass as they are, both ways.

Texts stay texts and bytes stay bytes (`wire.framing`). Whichever side ends, the other is told.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import aiohttp

from openpool.core.errors import OpenPoolError, Unavailable
from openpool.wire import framing
from openpool.worker.runtimes.body import Body

IN_ORDER = (None, 1000, 1001, 1005)
"""Codes of a server that has no more to say."""


class SocketBody(Body):
    """What the server says, as a framed body. Closing it, even unread, hangs up."""

    def __init__(
        self, socket: aiohttp.ClientWebSocketResponse, released: Callable[[], None]
    ) -> None:
        """`released` hears once that it is over."""
        self._socket = socket
        self._released = released
        self._is_open = True
        self._leaving = False
        """Whether the server is being told that the client has left."""
        self._listening: asyncio.Task[None] | None = None

    def listen(self, body: AsyncIterator[bytes], tasks: asyncio.TaskGroup) -> None:
        """Hand on from now on what the client says."""
        self._listening = tasks.create_task(self._listen(body))

    async def _listen(self, body: AsyncIterator[bytes]) -> None:
        """Until the client has no more to say, or is gone."""
        unpacker = framing.Unpacker()
        with suppress(OpenPoolError, aiohttp.ClientError, OSError):
            async for chunk in body:
                for message in unpacker.told(chunk):
                    if isinstance(message, str):
                        await self._socket.send_str(message)
                    else:
                        await self._socket.send_bytes(message)
        self._leaving = True
        await self._socket.close()

    async def __anext__(self) -> bytes:
        message = await self._socket.receive()
        if message.type is aiohttp.WSMsgType.TEXT:
            return framing.pack(str(message.data))
        if message.type is aiohttp.WSMsgType.BINARY:
            return framing.pack(bytes(message.data))
        self._end()
        if self._socket.close_code in IN_ORDER:  # none is known when we are closing it
            raise StopAsyncIteration
        raise Unavailable("the server broke its session off")

    async def aclose(self) -> None:
        self._end()
        await self._socket.close()

    def _end(self) -> None:
        if self._is_open:
            self._is_open = False
            self._released()
            if self._listening is not None and not self._leaving:
                self._listening.cancel()
