"""A worker process for calls: HOST PORT PIN TOKEN, or no arguments for its plain server alone.

Both its line and its plain HTTP server answer a chat completion at once, or stream tokens at the
pace that the path asks for. Prints the port of the plain server.
"""

import asyncio
import sys
from collections.abc import AsyncIterator

import uvloop
from aiohttp import web

from openpool.core.calls import App, Offer
from openpool.link.line import LineAnswer, LineRequest, OfferBoard, serve_line
from openpool.link.tls import Trust

APP = App("llm", "tiny")
TOKENS_PER_S = 50
STREAM_S = 6
DONE = b"data: [DONE]\n\n"
ANSWER = (
    b'{"id":"c","object":"chat.completion","created":1,"model":"tiny","choices":[{"index":0,'
    b'"finish_reason":"stop","message":{"role":"assistant","content":"Hello there."}}],'
    b'"usage":{"prompt_tokens":4,"completion_tokens":3,"total_tokens":7}}'
)


def token(number: int) -> bytes:
    """One event of a streamed completion."""
    return (
        b'data: {"id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk","created":1,'
        b'"model":"tiny","choices":[{"index":0,"delta":{"content":" word %d"},'
        b'"finish_reason":%s}]}\n\n'
    ) % (number, b'"stop"' if number == TOKENS_PER_S * STREAM_S - 1 else b"null")


TOKENS = [token(number) for number in range(TOKENS_PER_S * STREAM_S)]


async def tokens() -> AsyncIterator[bytes]:
    """A stream at the pace of a language model."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number, data in enumerate(TOKENS):
        yield data
        await asyncio.sleep(began + (number + 1) / TOKENS_PER_S - loop.time())
    yield DONE


async def on_line(request: LineRequest) -> LineAnswer:
    """A call of the pool."""
    body = b"".join([chunk async for chunk in request.body])
    if b'"stream":true' in body:
        return LineAnswer(200, {"content-type": "text/event-stream"}, tokens())
    return LineAnswer(200, {"content-type": "application/json"}, ANSWER)


async def on_http(request: web.Request) -> web.StreamResponse:
    """The same, asked directly."""
    body = await request.read()
    if b'"stream":true' not in body:
        return web.Response(body=ANSWER, content_type="application/json")
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    async for data in tokens():
        await response.write(data)
    return response


async def main() -> None:
    """Serve until terminated."""
    app = web.Application()
    app.router.add_post("/v1/chat/completions", on_http)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    if len(sys.argv) == 1:
        await asyncio.Event().wait()
    host, port, pin, secret = sys.argv[1:]
    offer = Offer(app=APP, capacity=250, warm=True, streaming=True)
    await serve_line(
        host,
        int(port),
        Trust.exact(pin),
        token=secret,
        offers=OfferBoard([offer]),
        handler=on_line,
    )


if __name__ == "__main__":
    uvloop.run(main())
