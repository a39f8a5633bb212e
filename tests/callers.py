"""Workers that take calls and customers that make them, for tests: real lines, small handlers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from network import RunningPool, pool, write_config
from openai import AsyncOpenAI

from openpool.core.calls import App, Offer
from openpool.link.line import Handler, LineAnswer, LineRequest, OfferBoard, serve_line
from openpool.link.tls import Trust

PRICES = """
ai:
  usd_per_eth: 2000
  prices:
    - {pipeline: llm, price: 3 wei, per: 2}
    - {pipeline: embeddings, price: 5 wei}
    - {pipeline: moderation, price: 1 wei}
    - {pipeline: speech-to-text, price: 7 wei}
    - {pipeline: text-to-speech, price: 11 wei}
    - {pipeline: image-to-text, price: 1 wei, per: 1000}
    - {pipeline: object-detection, price: 1 wei, per: 1000}
"""
CHAT = App("llm", "tiny/chat")
JSON = {"content-type": "application/json"}
EVENTS = {"content-type": "text/event-stream"}


def offer(app: App = CHAT, capacity: int = 4) -> Offer:
    return Offer(app=app, capacity=capacity, warm=True, streaming=True)


@dataclass(slots=True)
class LineWorker:
    """A worker under test: what it was asked, and how its calls ended."""

    token: str
    board: OfferBoard
    asked: list[LineRequest] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the pool leaves an answer before its end."""
    serving: "asyncio.Task[None] | None" = None

    async def die(self) -> None:
        """Vanish as a crash would have it."""
        assert self.serving is not None
        self.serving.cancel()
        await asyncio.wait({self.serving})


@asynccontextmanager
async def line_worker(
    running: RunningPool,
    answer: Handler,
    *offers: Offer,
    name: str = "box",
    enrolled: str = "",
) -> AsyncIterator[LineWorker]:
    """A worker that answers calls, known to the pool when the block begins."""
    token = enrolled or await running.enroll(name)
    worker = LineWorker(token, OfferBoard(offers or [offer()]))
    exchange = running.process.exchange
    assert exchange is not None

    async def handle(request: LineRequest) -> LineAnswer:
        worker.asked.append(request)
        return watched(await answer(request), worker.cancelled)

    address = running.running.worker_port
    known = len(exchange.offers)
    worker.serving = asyncio.ensure_future(
        serve_line(
            address.host,
            address.port,
            Trust.exact(running.process.identity.fingerprint),
            token=token,
            offers=worker.board,
            handler=handle,
        )
    )
    try:
        await until(lambda: len(exchange.offers) > known or worker.serving.done())
        assert not worker.serving.done(), worker.serving
        yield worker
    finally:
        await worker.die()


def watched(answer: LineAnswer, cancelled: asyncio.Event) -> LineAnswer:
    """The same answer, with a note if it is left before its end."""
    if isinstance(answer.body, bytes):
        return answer
    chunks = answer.body

    async def body() -> AsyncIterator[bytes]:
        ended = False
        try:
            async for chunk in chunks:
                yield chunk
            ended = True
        finally:
            if not ended:
                cancelled.set()

    return LineAnswer(answer.status, answer.headers, body())


@asynccontextmanager
async def calling_pool(folder: Path, extra: str = "") -> AsyncIterator[RunningPool]:
    """A pool without an orchestrator that answers, with prices."""
    async with pool(write_config(folder, ["127.0.0.1:9"], PRICES + extra)) as running:
        yield running


@asynccontextmanager
async def customer(
    running: RunningPool, **limits: int | str
) -> AsyncIterator[tuple[AsyncOpenAI, str]]:
    """The official client with a new customer's key, which never tries again; and who it is."""
    made = await running.process.customers.add("Ann", **limits)  # type: ignore[arg-type] - by name
    async with AsyncOpenAI(
        base_url=f"{running.running.web_url}/v1", api_key=made.secret, max_retries=0, timeout=20
    ) as client:
        yield client, made.customer


# --- answers -----------------------------------------------------------------------------------


def chat(text: str = "Hello there.", tokens: tuple[int, int] = (3, 4)) -> LineAnswer:
    """A whole completion."""
    return LineAnswer(200, JSON, msgspec.json.encode(completion(text, tokens)))


def completion(text: str, tokens: tuple[int, int]) -> dict[str, object]:
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "tiny/chat",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": text},
            }
        ],
        "usage": {
            "prompt_tokens": tokens[0],
            "completion_tokens": tokens[1],
            "total_tokens": sum(tokens),
        },
    }


def event(text: str, finish: str | None = None, **more: object) -> bytes:
    """One piece of a streamed completion."""
    piece = {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "tiny/chat",
        "choices": [
            {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": finish}
        ],
        **more,
    }
    return b"data: %s\n\n" % msgspec.json.encode(piece)


def stream(chunks: Callable[[], AsyncIterator[bytes]]) -> Handler:
    """A worker that answers with these events."""

    async def answer(_: LineRequest) -> LineAnswer:
        return LineAnswer(200, EVENTS, chunks())

    return answer


async def until(condition: Callable[[], object]) -> None:
    """Wait until it holds: for what a running pool tells nobody about."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def for_ever() -> None:
    await asyncio.Event().wait()
