"""The HTTP/1.1 side of the worker port, on aiohttp's server: downloads and uploads only.

Stock workers fetch segments without ALPN, and our own workers post their results this way.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from aiohttp import web

from openpool.core.errors import OpenPoolError, Timeout, Unavailable
from openpool.link.answers import (
    REPLY_CHARS_MAX,
    bad_method,
    refusal_of,
    too_large,
    too_many_uploads,
    too_slow,
)
from openpool.link.interface import Caller, Download, Reply
from openpool.link.server_http2 import Port, close_body, peer_text

PIECE_BYTES = 64 << 10
"""Downloads go out in pieces, so that the peer decrypts one while the next is encrypted."""


class Http1Server(web.Server):
    """Makes the protocol of each HTTP/1.1 connection."""

    def __init__(self, port: Port) -> None:
        async def serve(request: web.BaseRequest) -> web.StreamResponse:
            return await _serve(port, request)

        super().__init__(
            serve,
            handler_cancellation=True,
            access_log=None,
            # Bounds the time for a whole request head, too: it starts when the connection opens.
            keepalive_timeout=port.limits.headers_s,
            lingering_time=port.limits.linger_s,
            auto_decompress=False,
            max_line_size=4096,
            max_field_size=4096,
            read_bufsize=256 << 10,
        )
        self._port = port
        self._ips: dict[web.RequestHandler, str] = {}

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        self._ips[handler] = transport.get_extra_info("peername")[0]
        super().connection_made(handler, transport)

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        super().connection_lost(handler, exc)
        self._port.leave(self._ips.pop(handler))


async def _serve(port: Port, request: web.BaseRequest) -> web.StreamResponse:
    headers = {name.lower(): value for name, value in request.headers.items()}
    peer = peer_text(request.protocol.peername or ("unknown", 0))
    caller = Caller(peer=peer, authority=headers.get("host", ""), headers=headers)
    path = request.rel_url.raw_path_qs
    try:
        if request.method == "GET":
            return await _download(port, request, path, caller)
        if request.method == "POST":
            return _response(await _upload(port, request, path, caller))
        return _response(bad_method(request.method))
    except ConnectionError:
        raise  # the peer is gone; aiohttp hangs up
    except Exception as error:
        return _response(refusal_of(error))


async def _upload(port: Port, request: web.BaseRequest, path: str, caller: Caller) -> Reply:
    if port.closing:
        return refusal_of(asyncio.CancelledError())
    if port.uploads >= port.limits.uploads_max:
        return too_many_uploads()
    if (request.content_length or 0) > port.limits.body_bytes_max:
        return refusal_of(too_large(port.limits.body_bytes_max))
    # A sender that hangs up cancels its request, but must not tear the handler out of its work.
    answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    port.spawn(_read_upload(port, request, path, caller, answer))
    return await answer


async def _read_upload(
    port: Port,
    request: web.BaseRequest,
    path: str,
    caller: Caller,
    answer: "asyncio.Future[Reply]",
) -> None:
    port.uploads += 1
    try:
        async with aclosing(_body(port, request)) as body:
            reply = await port.handler.upload(path, caller, body)
    except (Exception, asyncio.CancelledError) as error:
        reply = refusal_of(error)
        if isinstance(error, asyncio.CancelledError):
            raise
    finally:
        port.uploads -= 1
        if not answer.done():
            answer.set_result(reply)


async def _body(port: Port, request: web.BaseRequest) -> AsyncGenerator[bytes, None]:
    limits = port.limits
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    received = 0
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + limits.body_s
    while True:
        try:
            async with asyncio.timeout_at(min(loop.time() + limits.body_idle_s, give_up_at)):
                chunk, ends_part = await request.content.readchunk()  # as it came, not joined
        except TimeoutError:
            raise too_slow() from None
        except (ConnectionError, web.RequestPayloadError) as error:
            raise Unavailable(f"the sender is gone: {error}") from None
        received += len(chunk)
        if received > limits.body_bytes_max:
            raise too_large(limits.body_bytes_max)
        if chunk:
            yield chunk
        elif not ends_part:
            return


async def _download(
    port: Port, request: web.BaseRequest, path: str, caller: Caller
) -> web.StreamResponse:
    answer = await port.handler.download(path, caller)
    if isinstance(answer, Reply):
        return _response(answer)
    response = web.StreamResponse(headers={"Content-Type": answer.content_type})
    response.content_length = answer.length
    await response.prepare(request)
    try:
        await _send(port, response, answer)
    except (OpenPoolError, OSError):
        raise ConnectionResetError("the download cannot be completed") from None
    finally:
        await close_body(answer.body)
    return response


async def _send(port: Port, response: web.StreamResponse, download: Download) -> None:
    async for chunk in download.body:
        view = memoryview(chunk)
        for start in range(0, len(chunk), PIECE_BYTES):
            try:
                async with asyncio.timeout(port.limits.http2.stall_s):
                    await response.write(view[start : start + PIECE_BYTES])
            except TimeoutError:
                raise Timeout("the peer does not take what it is sent") from None
    await response.write_eof()


def _response(reply: Reply) -> web.Response:
    return web.Response(status=reply.status, text=reply.text[:REPLY_CHARS_MAX])
