"""The reverse proxy of the orchestrator stand-in: a customer's request to a runner and back.

Streams both ways, passes WebSockets, adds the orchestrator's headers and removes none of the
customer's but those of the connection. A runner that cannot be reached is 502 with the reason.
"""

import asyncio
from collections.abc import Mapping

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

HOP_BY_HOP = {
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer",
    "transfer-encoding", "upgrade", "host",
}  # fmt: skip
OF_A_WEBSOCKET = {
    "sec-websocket-key", "sec-websocket-version", "sec-websocket-extensions",
    "sec-websocket-protocol", "sec-websocket-accept",
}  # fmt: skip
HIDDEN = frozenset({"x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded"})
MESSAGE_BYTES_MAX = 64 << 20


class Proxy:
    """Passes requests on."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http

    async def forward(
        self, request: web.Request, url: str, own: Mapping[str, str]
    ) -> web.StreamResponse:
        """Serve `request` from `url`, with the headers `own` set."""
        headers = _passed(request.headers, HIDDEN)
        headers.update(own)
        upgrade = request.headers.get("Upgrade", "").lower()
        try:
            if upgrade == "websocket":
                return await self._websocket(request, url, headers)
            return await self._plain(request, url, headers)
        except (aiohttp.ClientError, OSError) as error:
            return web.Response(status=502, text=f"{error}\n")

    async def _plain(
        self, request: web.Request, url: str, headers: CIMultiDict[str]
    ) -> web.StreamResponse:
        async with self._http.request(
            request.method,
            URL(url, encoded=True),
            headers=headers,
            data=request.content if request.body_exists else None,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
            skip_auto_headers=["User-Agent", "Accept", "Accept-Encoding", "Content-Type"],
        ) as answer:
            response = web.StreamResponse(status=answer.status, reason=answer.reason)
            response.headers.update(_passed(answer.headers))
            await response.prepare(request)
            try:
                async for chunk, _ in answer.content.iter_chunks():
                    await response.write(chunk)
            except aiohttp.ClientError:
                # the head is gone already: all that is left is to break off
                if request.transport is not None:
                    request.transport.abort()
            return response

    async def _websocket(
        self, request: web.Request, url: str, headers: CIMultiDict[str]
    ) -> web.StreamResponse:
        for name in OF_A_WEBSOCKET:
            headers.popall(name, None)
        async with self._http.ws_connect(
            URL(url, encoded=True), headers=headers, max_msg_size=MESSAGE_BYTES_MAX
        ) as inner:
            outer = web.WebSocketResponse(max_msg_size=MESSAGE_BYTES_MAX)
            await outer.prepare(request)
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(outer, inner))
                group.create_task(_pump(inner, outer))
            return outer


Socket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse


async def _pump(source: Socket, sink: Socket) -> None:
    """Pass messages on until one side closes, then close the other in the same words."""
    async for message in source:
        if message.type is aiohttp.WSMsgType.TEXT:
            await sink.send_str(message.data)
        elif message.type is aiohttp.WSMsgType.BINARY:
            await sink.send_bytes(message.data)
    await sink.close(code=source.close_code or 1000)


def _passed(headers: Mapping[str, str], also: frozenset[str] = frozenset()) -> CIMultiDict[str]:
    named = {each.strip().lower() for each in headers.get("Connection", "").split(",")}
    dropped = HOP_BY_HOP | named | also
    return CIMultiDict(
        (name, value) for name, value in headers.items() if name.lower() not in dropped
    )
