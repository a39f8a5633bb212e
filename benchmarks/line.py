"""Lines: what a call costs on its way to a worker that dialled, and what a streamed chunk costs.

The worker runs in a process of its own. Baseline: the same handler on a plain aiohttp server in
that process, called by aiohttp's client from here: the same roles, without TLS and without a line.
"""

import asyncio
import json
import multiprocessing
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import aiohttp
import psutil
import uvloop
from aiohttp import web

from benchmarks.report import Row, percentile, report
from openpool.core.calls import App, Offer
from openpool.link.interface import Caller
from openpool.link.line import Line, LineAnswer, LineRequest, OfferBoard, serve_line
from openpool.link.server import WorkerPort
from openpool.link.tls import Trust, load_or_create_identity, server_context

RATE_PER_S = 200
PACED_S = 5
AT_ONCE = 64
BUSY_S = 4
STREAMS = 200
CHUNKS_PER_S = 50
STREAM_S = 6
UPLOAD = bytes(64 << 20)

Ask = Callable[[str], AsyncIterator[bytes]]
Chunks = AsyncIterator[bytes]


# The worker


def chunk(number: int) -> bytes:
    """A token as language models stream it, about 200 bytes."""
    delta = {"index": 0, "delta": {"content": f" word {number}"}, "finish_reason": None}
    event = {"id": "chatcmpl-0123456789abcdef", "object": "chat.completion.chunk"}
    return f"data: {json.dumps(event | {'n': number, 'choices': [delta]})}\n\n".encode()


CHUNKS = [chunk(number) for number in range(CHUNKS_PER_S * STREAM_S)]


async def tokens() -> Chunks:
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number, data in enumerate(CHUNKS):
        yield data
        await asyncio.sleep(began + (number + 1) / CHUNKS_PER_S - loop.time())


def content(path: str) -> bytes | Chunks:
    """What the handler answers, over either way."""
    if path == "/tokens":
        return tokens()
    return json.dumps(cpu_s()).encode() if path == "/cpu" else b'{"ok":true}'


def cpu_s() -> float:
    times = psutil.Process().cpu_times()
    return times.user + times.system


async def on_line(request: LineRequest) -> LineAnswer:
    if request.path == "/upload":
        size = 0
        async for data in request.body:
            size += len(data)
        return LineAnswer(body=b"%d" % size)
    return LineAnswer(headers={"content-type": "application/json"}, body=content(request.path))


async def on_plain(request: web.Request) -> web.StreamResponse:
    body = content(request.path)
    if isinstance(body, bytes):
        return web.Response(body=body, content_type="application/json")
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    async for data in body:
        await response.write(data)
    return response


def work(number: int, fingerprint: str, pipe: Connection) -> None:
    """The process of the worker."""

    async def run() -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", on_plain)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        pipe.send(runner.addresses[0][1])
        board = OfferBoard([Offer(app=App("llm", "tiny"), capacity=256)])
        await serve_line(
            "127.0.0.1",
            number,
            Trust.exact(fingerprint),
            token="token",
            offers=board,
            handler=on_line,
        )

    with open("/dev/null", "w"):
        try:
            uvloop.run(run())
        except Exception:
            return


# The pool


class Desk:
    """Keeps the one line that comes."""

    def __init__(self) -> None:
        self.came: asyncio.Future[Line] = asyncio.get_running_loop().create_future()

    async def line(self, line: Line, caller: Caller) -> None:
        hello = await line.hello()
        self.came.set_result(line)
        async for _ in hello.offers:
            pass


def over_line(line: Line) -> Ask:
    async def ask(path: str) -> Chunks:
        async with line.call("GET", path, {"accept": "*/*"}) as answer:
            async for data in answer.body:
                yield data

    return ask


def over_http(session: aiohttp.ClientSession, port: int) -> Ask:
    async def ask(path: str) -> Chunks:
        async with session.get(f"http://127.0.0.1:{port}{path}") as answer:
            async for data in answer.content.iter_any():
                yield data

    return ask


async def whole(ask: Ask, path: str) -> bytes:
    return b"".join([data async for data in ask(path)])


class Cost(NamedTuple):
    """Processor time per piece of work, in microseconds."""

    here_us: float
    there_us: float


async def costing(ask: Ask, work: Callable[[], Awaitable[int]]) -> tuple[int, Cost]:
    """Do it, and count what it took on both sides per piece."""
    there, here = float(await whole(ask, "/cpu")), cpu_s()
    pieces = await work()
    here = cpu_s() - here
    there = float(await whole(ask, "/cpu")) - there
    return pieces, Cost(here / pieces * 1e6, there / pieces * 1e6)


async def paced(ask: Ask) -> list[float]:
    """Milliseconds of calls that begin at a steady rate."""
    loop = asyncio.get_running_loop()
    took: list[float] = []

    async def once() -> None:
        began = time.perf_counter()
        await whole(ask, "/tiny")
        took.append((time.perf_counter() - began) * 1000)

    began = loop.time()
    async with asyncio.TaskGroup() as group:
        for number in range(RATE_PER_S * PACED_S):
            await asyncio.sleep(began + number / RATE_PER_S - loop.time())
            group.create_task(once())
    return took


async def busy(ask: Ask) -> int:
    """Calls made in `BUSY_S` by clients that call one after the other."""
    until = time.perf_counter() + BUSY_S
    calls = 0

    async def client() -> None:
        nonlocal calls
        while time.perf_counter() < until:
            await whole(ask, "/tiny")
            calls += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(client())
    return calls


async def streaming(ask: Ask) -> int:
    """Chunks that came over all streams; fails if one is missing or in another's place."""
    expected = b"".join(CHUNKS)

    async def follow() -> None:
        assert await whole(ask, "/tokens") == expected

    async with asyncio.TaskGroup() as group:
        for _ in range(STREAMS):
            group.create_task(follow())
    return STREAMS * len(CHUNKS)


async def upload(line: Line) -> float:
    """Megabytes per second of one large body."""
    began = time.perf_counter()
    async with line.call("POST", "/upload", {}, UPLOAD) as answer:
        assert await answer.body.read(100) == b"%d" % len(UPLOAD)
    return len(UPLOAD) / 1e6 / (time.perf_counter() - began)


async def measure(line: Line, plain_port: int) -> list[Row]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        ways = [over_line(line), over_http(session, plain_port)]
        for way in ways:
            await whole(way, "/tiny")
        rows = latency_rows(*[await paced(way) for way in ways])
        rows += call_rows(*[await costing(way, lambda w=way: busy(w)) for way in ways])
        rows += chunk_rows(*[await costing(way, lambda w=way: streaming(w)) for way in ways])
    rows.append(Row("upload over one line, MB/s", f"{await upload(line):.0f}"))
    return rows


def latency_rows(line: list[float], plain: list[float]) -> list[Row]:
    rows = []
    for percent, target in ((50, "3"), (99, "15")):
        ours, theirs = percentile(line, percent), percentile(plain, percent)
        name = f"added at {RATE_PER_S} calls/s, p{percent}, ms"
        rows.append(Row(name, f"{ours - theirs:.2f}", f"≤ {target}", f"{theirs:.2f} in all"))
    return rows


def call_rows(line: tuple[int, Cost], plain: tuple[int, Cost]) -> list[Row]:
    (calls, cost), (plain_calls, plain_cost) = line, plain
    ours = f"{calls / BUSY_S:.0f} ({1e6 / cost.here_us:.0f})"
    theirs = f"{plain_calls / BUSY_S:.0f} ({1e6 / plain_cost.here_us:.0f})"
    return [
        Row("tiny calls/s (per core of the pool)", ours, "≥ 2000", theirs),
        Row("pool's CPU per call, µs", f"{cost.here_us:.0f}", "", f"{plain_cost.here_us:.0f}"),
        Row("worker's CPU per call, µs", f"{cost.there_us:.0f}", "", f"{plain_cost.there_us:.0f}"),
    ]


def chunk_rows(line: tuple[int, Cost], plain: tuple[int, Cost]) -> list[Row]:
    (chunks, cost), (_, plain_cost) = line, plain
    name = f"chunks of {STREAMS} streams, in order"
    here, there = f"{cost.here_us:.1f}", f"{cost.there_us:.1f}"
    return [
        Row(name, f"{chunks}", f"{STREAMS * len(CHUNKS)}"),
        Row("pool's CPU per chunk, µs", here, "≤ 2×", f"{plain_cost.here_us:.1f}"),
        Row("worker's CPU per chunk, µs", there, "≤ 2×", f"{plain_cost.there_us:.1f}"),
    ]


async def run(folder: str) -> list[Row]:
    identity = load_or_create_identity(Path(folder), ["127.0.0.1"])
    desk = Desk()
    port = WorkerPort(desk, server_context(identity), host="127.0.0.1")
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    async with port.running():
        worker = context.Process(target=work, args=(port.port, identity.fingerprint, theirs))
        worker.start()
        try:
            line = await asyncio.wait_for(desk.came, 30)
            return await measure(line, ours.recv())
        finally:
            worker.terminate()
            worker.join()


def main() -> None:
    """Print the figures of lines."""
    with tempfile.TemporaryDirectory() as folder:
        report("Calls over a line", uvloop.run(run(folder)))


if __name__ == "__main__":
    main()
