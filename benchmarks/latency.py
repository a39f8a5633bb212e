"""What the pool adds to a segment: a no-op worker behind the pool, and attached directly.

Both runs send 1 MB segments through the same orchestrator stand-in over real TLS, at 50 per
second; the worker answers at once with two renditions of 0.75 MB each. The bytes are no video, so
the check of results is left out (benchmarks.verify measures that). Orchestrator and worker run in
processes of their own; all share this machine's cores.
"""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop

from benchmarks.report import Row, percentile, report
from openpool.core.model import Rendition, Segment, Verdict
from openpool.demo.orchestrator import StandIn
from openpool.wire.results import RenditionData
from tests.network import PROFILES, write_config

SOURCE = b"\x47" + bytes(1_000_000 - 1)
RENDITION = RenditionData(data=bytes(750_000), pixels=320 * 180 * 60)
RATE_PER_S = 50
SECONDS = 12
WARM_UP_S = 2
STREAMS = 25


async def no_op(_source: bytes, segment: Segment) -> list[RenditionData]:
    """A worker that has the answer already."""
    return [RENDITION] * len(segment.profiles)


async def believe(*args: object) -> Verdict:
    """A check that takes no time."""
    one = Rendition(
        name="", width=1, height=1, frames=1, pixels=1, bytes=RENDITION.pixels, sha256=""
    )
    return Verdict(ok=True, renditions=(one, one))


async def load(orchestrator: StandIn) -> list[float]:
    """Round trips in ms of an open-loop load, without the warm-up."""
    took_ms: list[float] = []

    async def one(number: int, counts: bool) -> None:
        began = time.perf_counter()
        outcome = await orchestrator.submit(
            f"stream{number % STREAMS}", number // STREAMS, SOURCE, 2000, PROFILES
        )
        assert outcome.ok, outcome.error
        if counts:
            took_ms.append((time.perf_counter() - began) * 1000)

    start = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(RATE_PER_S * SECONDS):
            due = start + number / RATE_PER_S
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(one(number, due - start >= WARM_UP_S))
    return took_ms


@asynccontextmanager
async def worker_process(host: str, port: int, pin: str, secret: str) -> AsyncIterator[None]:
    """A no-op worker in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks._noop_worker", host, str(port), pin, secret
    )
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


async def direct() -> list[float]:
    """Round trips with the worker attached to the orchestrator."""
    async with StandIn("o-secret") as orchestrator:
        async with worker_process(orchestrator.host, orchestrator.port, "", "o-secret"):
            await orchestrator.wait_registered(1)
            return await load(orchestrator)


async def pooled(folder: Path) -> list[float]:
    """Round trips with a pool between them."""
    async with StandIn("o-secret") as orchestrator:
        config = write_config(folder, [orchestrator])
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "benchmarks._pool",
            str(config),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        join = json.loads(await process.stdout.readline())
        try:
            async with worker_process(join["host"], join["port"], join["pin"], join["token"]):
                while sum(member.capacity for member in orchestrator.members()) < STREAMS:
                    await asyncio.sleep(0.05)
                return await load(orchestrator)
        finally:
            process.stdin.close()
            await process.wait()


def main() -> None:
    """Direct, pooled, direct, pooled; each second one against the first beside it."""
    before, behind = [], []
    for _ in range(2):
        before += uvloop.run(direct())
        with tempfile.TemporaryDirectory() as folder:
            behind += uvloop.run(pooled(Path(folder)))
    rows = [
        Row(
            f"added to a segment, p{percent}",
            f"{percentile(behind, percent) - percentile(before, percent):.1f} ms",
            target,
            f"direct {percentile(before, percent):.1f} ms, "
            f"behind the pool {percentile(behind, percent):.1f} ms",
        )
        for percent, target in ((50, "<= 5 ms"), (99, "<= 25 ms"))
    ]
    report(f"Latency at {RATE_PER_S} segments/s, 1 MB in and 1.5 MB out", rows)


if __name__ == "__main__":
    main()
