"""The pool dies by kill -9 in the middle of a call: the log tells its end, once."""

import asyncio
import contextlib
import json
import signal
import sqlite3
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from callers import EVENTS, PRICES, event, offer
from network import write_config

from openpool.core.events import CallAssigned, CallCompleted, CallFailed
from openpool.link.line import LineAnswer, LineRequest, OfferBoard, serve_line
from openpool.link.tls import Trust
from openpool.store.replay import check
from openpool.store.sqlite import SqliteStore


async def start_pool(config: Path) -> tuple[Process, dict[str, str]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.pool_process", str(config), stdout=PIPE
    )
    assert process.stdout is not None
    return process, json.loads(await asyncio.wait_for(process.stdout.readline(), 30))


async def endless(_: LineRequest) -> LineAnswer:
    async def tokens() -> AsyncIterator[bytes]:
        yield event("Once ")
        await asyncio.Event().wait()

    return LineAnswer(200, EVENTS, tokens())


@contextlib.asynccontextmanager
async def box(join: dict[str, str]) -> AsyncIterator[None]:
    """A worker whose answers never end."""
    trust, board = Trust.exact(join["pin"]), OfferBoard([offer()])
    port = int(join["port"])
    serving = asyncio.ensure_future(
        serve_line(join["host"], port, trust, token=join["token"], offers=board, handler=endless)
    )
    try:
        yield
    finally:
        serving.cancel()
        await asyncio.wait({serving})


async def hang_on(web: str, key: str, began: asyncio.Event) -> None:
    """Ask for a stream and read it until the pool is gone."""
    body = {"model": "tiny/chat", "messages": [], "stream": True}
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=web, headers=headers, timeout=20) as http:
        while True:
            async with http.stream("POST", "/v1/chat/completions", json=body) as answer:
                if answer.status_code == 200:
                    async for _ in answer.aiter_bytes():
                        began.set()
            await asyncio.sleep(0.02)  # the worker is not on its line yet


def noted(log: Path, kind: type) -> bool:
    """Whether the log on disk holds an event of this kind."""
    name = kind.__struct_config__.tag  # type: ignore[attr-defined]
    with contextlib.closing(sqlite3.connect(f"file:{log}?mode=ro", uri=True)) as reader:
        return reader.execute("SELECT 1 FROM event WHERE type = ?", (name,)).fetchone() is not None


@pytest.mark.timeout(90)
async def test_a_call_that_died_with_the_pool_fails_once(tmp_path: Path) -> None:
    """After kill -9 within a stream the next start notes that this call failed, the one after
    that notes nothing more, and log and books agree."""
    config = write_config(tmp_path, ["127.0.0.1:9"], PRICES)
    process, join = await start_pool(config)
    token = (tmp_path / "data" / "operator.token").read_text().strip()
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {token}"}) as operator:
        made = await operator.post(f"{join['web']}/api/v1/customers", json={"name": "Ann"})
    began = asyncio.Event()
    async with box(join):
        reading = asyncio.ensure_future(hang_on(join["web"], made.json()["secret"], began))
        await asyncio.wait_for(began.wait(), 20)
        # the log is written in groups, a moment after
        while not noted(tmp_path / "data" / "openpool.db", CallAssigned):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        await process.wait()
        await asyncio.wait({reading})
    assert isinstance(reading.exception(), httpx.TransportError)
    for _ in range(2):
        process, _ = await start_pool(config)
        process.terminate()
        assert await process.wait() == 0
    assert check(tmp_path / "data" / "openpool.db").ok
    async with SqliteStore(tmp_path / "data") as store:
        events = [stored.event.data for stored in store.all_events()]
    assert not any(isinstance(each, CallCompleted) for each in events)
    (asked,) = [each for each in events if isinstance(each, CallAssigned)]
    (failed,) = [each for each in events if isinstance(each, CallFailed) and each.attempts]
    assert (failed.job, failed.code, failed.attempts) == (asked.job, "pool-restarted", 1)
    assert failed.customer == made.json()["customer"]
