"""What the tests of lines share: a pool's handler that keeps its lines, and workers for them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from openpool.core.calls import App, Offer
from openpool.core.errors import OpenPoolError
from openpool.link.interface import Caller
from openpool.link.line import Handler, Line, LineAnswer, LineRequest, OfferBoard, serve_line
from openpool.link.server import WorkerPort
from openpool.link.tls import Identity, Trust
from tests.wire.kit import PATIENCE_S, Desk

OFFER = Offer(app=App("llm", "tiny/chat"), capacity=2, warm=True, streaming=True)
OTHER = Offer(app=App("embeddings", "minilm"), capacity=1)


@dataclass
class LineDesk(Desk):
    """A pool's side of the port: keeps every line, its token and its offers."""

    on_line: Callable[[str], Awaitable[None]] | None = None
    """Admits a token."""
    lines: "asyncio.Queue[Line]" = field(default_factory=asyncio.Queue)
    tokens: list[str] = field(default_factory=list)
    offers: "asyncio.Queue[list[Offer]]" = field(default_factory=asyncio.Queue)
    endings: "asyncio.Queue[str]" = field(default_factory=asyncio.Queue)

    async def line(self, line: Line, caller: Caller) -> None:
        try:
            token, offers = await line.hello()
            self.tokens.append(token)
            if self.on_line is not None:
                await self.on_line(token)
            self.lines.put_nowait(line)
            async for offered in offers:
                self.offers.put_nowait(offered)
        except OpenPoolError as error:
            self.endings.put_nowait(f"{type(error).__name__}: {error}")
            raise
        else:
            self.endings.put_nowait("no more offers")

    async def next_line(self) -> Line:
        return await soon(self.lines.get())

    async def next_offers(self) -> list[Offer]:
        return await soon(self.offers.get())

    async def ending(self) -> str:
        """How the next line ended, from the pool's point of view."""
        return await soon(self.endings.get())


async def soon(what: Awaitable):
    """Wait for this, but not for ever."""
    return await asyncio.wait_for(what, PATIENCE_S)


async def echo(request: LineRequest) -> LineAnswer:
    """Answers with the body of the request, piece by piece."""
    kept = {k: v for k, v in request.headers.items() if k.startswith(("x-", "content-"))}
    return LineAnswer(200, {**kept, "x-path": request.path}, pass_on(request.body))


async def pass_on(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for chunk in body:
        yield chunk


@dataclass
class LineWorker:
    """A worker on its line."""

    line: Line
    """The pool's end of it."""
    board: OfferBoard
    serving: "asyncio.Task[None]"


def dial(
    port: WorkerPort, identity: Identity, handler: Handler, board: OfferBoard, **options: float
):
    """A worker's end of a line."""
    return serve_line(
        "127.0.0.1",
        port.port,
        Trust.exact(identity.fingerprint),
        token="token",
        offers=board,
        handler=handler,
        **options,
    )


@asynccontextmanager
async def line_worker(
    port: WorkerPort, identity: Identity, handler: Handler = echo, **options: float
) -> AsyncIterator[LineWorker]:
    """A worker that serves its line while the block runs."""
    board = OfferBoard([OFFER])
    serving = asyncio.create_task(dial(port, identity, handler, board, **options))
    try:
        assert isinstance(port.handler, LineDesk)
        yield LineWorker(await port.handler.next_line(), board, serving)
    finally:
        serving.cancel()
        with suppress(asyncio.CancelledError, OpenPoolError):
            await serving


async def ask(line: Line, body: bytes = b"ping", **options: float) -> bytes:
    """One whole call."""
    async with line.call("POST", "/call/llm/tiny", {}, body, **options) as answer:
        assert answer.status == 200
        return await soon(answer.body.read(100_000_000))
