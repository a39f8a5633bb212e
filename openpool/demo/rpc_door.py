"""A door before the demo's chain, through which the pool speaks to it.

It lets the demo do something between a transaction's arrival on the chain and the answer to whoever
sent it: the one moment in which a payout could be lost or made twice. Changes nothing that passes.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import msgspec
from aiohttp import web

BODY_BYTES_MAX = 10_000_000
SEND = "eth_sendRawTransaction"


class _Request(msgspec.Struct):
    method: str = ""


_decode = msgspec.json.Decoder(_Request | list[_Request]).decode


class RpcDoor:
    """Forwards JSON-RPC to a chain."""

    def __init__(self, upstream: str, session: aiohttp.ClientSession) -> None:
        self.url = ""
        self.sent = 0
        """Transactions that arrived on the chain through this door."""
        self.on_sent: Callable[[], Awaitable[None]] | None = None
        """Called once, when the next transaction has arrived, before anybody is told."""
        self._upstream = upstream
        self._session = session

    async def answer(self, request: web.Request) -> web.Response:
        """Forward one request."""
        body = await request.read()
        headers = {"content-type": "application/json"}
        async with self._session.post(self._upstream, data=body, headers=headers) as answer:
            content = await answer.read()
        if SEND in _methods(body):
            self.sent += 1
            await self._tell()
        return web.Response(body=content, status=answer.status, content_type="application/json")

    async def _tell(self) -> None:
        told, self.on_sent = self.on_sent, None
        if told is not None:
            await told()


def _methods(body: bytes) -> list[str]:
    asked = _decode(body)
    return [each.method for each in asked] if isinstance(asked, list) else [asked.method]


@asynccontextmanager
async def rpc_door(upstream: str) -> AsyncIterator[RpcDoor]:
    """A door on a free port of this machine."""
    async with aiohttp.ClientSession() as session:
        door = RpcDoor(upstream, session)
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.router.add_post("/", door.answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            door.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield door
        finally:
            await runner.cleanup()
