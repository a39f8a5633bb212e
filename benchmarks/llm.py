"""Tokens per second of one language model process: for one request, and for many at once.

The weights are random, so the text is nonsense; what a token costs depends on the shape alone.
`python -m benchmarks.llm FILE.gguf` measures a real model instead.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from benchmarks._random_llm import write_random_llm
from benchmarks.report import Row, report
from openpool.core.calls import App
from openpool.link.line import LineRequest
from openpool.worker.offers import RuntimeSettings, WorkerOffers
from openpool.worker.runtimes.host import Host, call_path

APP = App("llm", "benchmark")
TOKENS = 96
AT_ONCE = (1, 4, 8)


def main() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as folder:
        file, what = Path(folder) / "random.gguf", "the model of the file"
        if sys.argv[1:]:
            file = Path(sys.argv[1])
        else:
            what = f"{write_random_llm(file):.0f} million weights"
        rates = {n: asyncio.run(_tokens_per_s(file, n, Path(folder))) for n in AT_ONCE}
    base = f"{rates[1]:.0f} one after another"
    rows = [
        Row(
            f"tokens/s, {n} at once",
            f"{rates[n]:.0f} ({rates[n] / n:.0f} each)",
            "> one alone" if n == max(AT_ONCE) else "",
            base,
        )
        for n in AT_ONCE
    ]
    report(f"Language model, {what}, {TOKENS} tokens an answer", rows)


async def _tokens_per_s(file: Path, at_once: int, cache: Path) -> float:
    entry = RuntimeSettings(
        runtime="llm",
        model=APP.model,
        pipeline=APP.pipeline,
        parallel=at_once,
        options={"file": str(file), "context": "512"},
    )
    async with Host(WorkerOffers(runtimes=(entry,), cache=cache)).running() as host:
        while not any(offer.warm for offer in host.offers()):
            await asyncio.sleep(0.05)
        await _ask(host, 0)
        started = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(_ask(host, number)) for number in range(at_once)]
        seconds = time.perf_counter() - started
        return sum(each.result() for each in asked) / seconds


async def _ask(host: Host, number: int) -> int:
    """One answer; how many tokens it has."""
    fields = {
        "messages": [{"role": "user", "content": f"Request {number} of a benchmark."}],
        "max_tokens": TOKENS,
        "seed": number,
        "logit_bias": {"2": -100},  # no end before its time
    }

    async def body() -> AsyncIterator[bytes]:
        yield msgspec.json.encode(fields)

    headers = {"content-type": "application/json"}
    answer = await host.answer(
        LineRequest("POST", call_path(APP, "/v1/chat/completions"), headers, body())
    )
    assert not isinstance(answer.body, bytes)
    whole = b"".join([piece async for piece in answer.body])
    assert answer.status == 200, whole[:300]
    tokens: int = msgspec.json.decode(whole)["usage"]["completion_tokens"]
    return tokens


if __name__ == "__main__":
    main()
