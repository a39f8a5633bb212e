"""What the pool costs a customer: calls through it, beside the same calls to the runtime's server.

Customers speak plain HTTP to the pool's API; a worker in a process of its own answers over its
line. Baselines of the same run: the worker's own HTTP server asked directly, and for streams a
plain aiohttp proxy. Every answer is checked, counted, paid and logged; all share this machine.
"""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
import uvloop

from benchmarks._call_worker import DONE, STREAM_S, TOKENS, TOKENS_PER_S
from benchmarks.report import Row, percentile, report
from tests.network import write_config

RATE_PER_S = 200
PACED_S = 6
AT_ONCE = 64
BUSY_S = 5
STREAMS = 200
PRICES = "ai: {prices: [{pipeline: llm, price: 3 wei, per: 2}]}"


class Target(NamedTuple):
    """Whom to ask, and the process to be charged for it."""

    port: int
    key: str
    pid: int


class Customer:
    """One kept connection that asks as cheaply as can be: the load must not be the measure."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def open(self) -> "Customer":
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._target.port)
        return self

    async def ask(self) -> float:
        """Ask for a completion; how long it took in ms."""
        began = time.perf_counter()
        self._send(b'{"model":"tiny","messages":[{"role":"user","content":"Hello"}]}')
        head = await self._reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await self._reader.readexactly(length)
        return (time.perf_counter() - began) * 1000

    async def stream(self) -> tuple[float, int]:
        """Ask for a stream: ms to the first token, and the tokens that came whole and in order."""
        began = time.perf_counter()
        self._send(b'{"model":"tiny","messages":[],"stream":true}')
        await self._reader.readuntil(b"\r\n\r\n")
        body, first_ms = b"", 0.0
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            body += await self._reader.readexactly(size)
            await self._reader.readexactly(2)
            first_ms = first_ms or (time.perf_counter() - began) * 1000
        await self._reader.readexactly(2)
        assert body == b"".join(TOKENS) + DONE, "the stream is not what was sent"
        return first_ms, len(TOKENS)

    def _send(self, body: bytes) -> None:
        self._writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"authorization: Bearer %s\r\ncontent-length: %d\r\n\r\n%s"
            % (self._target.key.encode(), len(body), body)
        )

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


@asynccontextmanager
async def customers(target: Target, count: int) -> AsyncIterator[list[Customer]]:
    """So many open connections."""
    opened = [await Customer(target).open() for _ in range(count)]
    try:
        yield opened
    finally:
        for each in opened:
            await each.close()


async def paced(target: Target) -> list[float]:
    """An open-loop load: each request goes out on time, whatever became of those before."""
    took_ms: list[float] = []

    async def one(idle: asyncio.Queue[Customer], counts: bool) -> None:
        each = await idle.get()
        taken = await each.ask()
        idle.put_nowait(each)
        if counts:
            took_ms.append(taken)

    async with customers(target, AT_ONCE) as opened:
        idle: asyncio.Queue[Customer] = asyncio.Queue()
        for each in opened:
            idle.put_nowait(each)
        start = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(RATE_PER_S * PACED_S):
                due = start + number / RATE_PER_S
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                group.create_task(one(idle, due - start >= 1))
    return took_ms


async def busy(target: Target) -> float:
    """Calls per second with many asking at once."""
    done = 0

    async def ask_on(each: Customer, until: float) -> None:
        nonlocal done
        while time.perf_counter() < until:
            await each.ask()
            done += 1

    async with customers(target, AT_ONCE) as opened:
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for each in opened:
                group.create_task(ask_on(each, began + BUSY_S))
        return done / (time.perf_counter() - began)


class Streamed(NamedTuple):
    """What many streams at once came to."""

    first_ms: list[float]
    cpu_us_per_token: float


async def streams(target: Target) -> Streamed:
    """Many streams at once; the CPU time of the process in the middle, per token."""
    process = psutil.Process(target.pid)

    async def one(each: Customer, number: int) -> tuple[float, int]:
        await asyncio.sleep(number / STREAMS)  # not all at the same instant
        return await each.stream()

    async with customers(target, STREAMS) as opened:
        before = cpu_s(process)
        ended = await asyncio.gather(*(one(each, n) for n, each in enumerate(opened)))
        used_s = cpu_s(process) - before
    count = sum(tokens for _, tokens in ended)
    return Streamed([first for first, _ in ended], used_s / count * 1e6)


def cpu_s(process: psutil.Process) -> float:
    used = process.cpu_times()
    return float(used.user + used.system)


@asynccontextmanager
async def child(name: str, *arguments: str) -> AsyncIterator[tuple[str, int]]:
    """A process of the benchmark: its first line, and its id."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        f"benchmarks.{name}",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode(), process.pid
    finally:
        process.stdin.close()
        if name != "_calling_pool":
            process.terminate()
        await process.wait()


async def run(folder: Path) -> None:
    """Everything, in turns: the pool and its baseline right after one another."""
    config = write_config(folder, ["127.0.0.1:9"], PRICES)
    async with child("_calling_pool", str(config)) as (line, pool_pid):
        join = json.loads(line)
        where = (join["host"], str(join["port"]), join["pin"], join["token"])
        async with child("_call_worker", *where) as (plain, worker_pid):
            behind = Target(int(join["web"].rpartition(":")[2]), join["key"], pool_pid)
            direct = Target(int(plain), "none", worker_pid)
            async with child("_http_proxy", plain) as (port, proxy_pid):
                proxy = Target(int(port), "none", proxy_pid)
                await wait_served(behind)
                await measure(behind, direct, proxy)


async def wait_served(pool: Target) -> None:
    """Until the pool knows its worker."""
    while True:
        async with customers(pool, 1) as (each,):
            try:
                await each.ask()
                return
            except AssertionError:
                await asyncio.sleep(0.05)


async def measure(pool: Target, direct: Target, proxy: Target) -> None:
    took: dict[Target, list[float]] = {pool: [], direct: [], proxy: []}
    for _ in range(2):
        for target in (direct, pool, proxy):
            took[target] += await paced(target)
    rates = {target: await busy(target) for target in (direct, pool, proxy)}
    flows = {target: await streams(target) for target in (proxy, pool, direct)}
    rows = [
        Row(
            f"added to a call at {RATE_PER_S}/s, p{percent}",
            f"{percentile(took[pool], percent) - percentile(took[direct], percent):.2f} ms",
            target,
            f"direct {percentile(took[direct], percent):.2f} ms, "
            f"proxy {percentile(took[proxy], percent):.2f} ms, "
            f"pool {percentile(took[pool], percent):.2f} ms",
        )
        for percent, target in ((50, "<= 3 ms"), (90, ""), (99, "<= 15 ms"))
    ]
    rows += [
        Row(
            "tiny calls",
            f"{rates[pool]:,.0f} /s",
            ">= 1,000 /s",
            f"direct {rates[direct]:,.0f} /s, proxy {rates[proxy]:,.0f} /s",
        ),
        Row(
            "added to the first token, p50",
            f"{percentile(flows[pool].first_ms, 50) - percentile(flows[direct].first_ms, 50):.2f} "
            "ms",
            "<= 5 ms",
            f"direct {percentile(flows[direct].first_ms, 50):.2f} ms",
        ),
        Row(
            f"CPU per token, {STREAMS} streams of {TOKENS_PER_S}/s for {STREAM_S} s",
            f"{flows[pool].cpu_us_per_token:.0f} us",
            "<= 2 x a proxy",
            f"proxy {flows[proxy].cpu_us_per_token:.0f} us "
            f"({flows[pool].cpu_us_per_token / flows[proxy].cpu_us_per_token:.2f} x)",
        ),
    ]
    report("Calls of customers", rows)


def main() -> None:
    """Run it all."""
    with tempfile.TemporaryDirectory() as folder:
        uvloop.run(run(Path(folder)))


if __name__ == "__main__":
    main()
