"""The pool dies, or is stopped, in the middle of a session: its worker is paid, once."""

import asyncio
import contextlib
import json
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from callers import PRICES, offer
from msgspec import structs
from network import write_config
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from openpool.core.calls import App
from openpool.core.events import CallAttemptFailed, CallCheckpointed, CallCompleted, FeeCredited
from openpool.link.line import LineAnswer, LineRequest, OfferBoard, serve_line
from openpool.link.tls import Trust
from openpool.store.replay import check
from openpool.store.sqlite import SqliteStore

VIDEO = App("live-video-analysis", "colours/nano")
OWN = App("mirror", "box")
SETTINGS = """    - {pipeline: live-video-analysis, unit: pixel, price: 1 wei, per: 7}
    - {pipeline: mirror, unit: second, price: 1000 wei}
  checkpoint_ms: 1000
"""
DYING = """
import asyncio, os, signal, sys
from openpool.app import PoolProcess
from openpool.store.sqlite import SqliteStore
from tests.pool_process import main

append, start = SqliteStore.append, PoolProcess._append

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

def before(self, events):
    if any(event.type == "fee-credited" for event in events):
        kill()
    return append(self, events)

async def after(self, data, name):
    if name == "started":
        await self.store.append([]).durable()
        kill()
    await start(self, data, name)

if sys.argv[2] == "before":
    SqliteStore.append = before
else:
    PoolProcess._append = after
asyncio.run(main())
"""
"""A pool that dies in its start: before it writes the fee, or right after that is on disk."""


async def start_pool(config: Path) -> tuple[Process, dict[str, str]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.pool_process", str(config), stdout=PIPE
    )
    assert process.stdout is not None
    return process, json.loads(await asyncio.wait_for(process.stdout.readline(), 30))


async def start_and_stop(config: Path) -> None:
    process, _ = await start_pool(config)
    process.terminate()
    assert await process.wait() == 0


async def talk(_: LineRequest) -> LineAnswer:
    """A line of live video each 20 ms, for ever."""

    async def lines() -> AsyncIterator[bytes]:
        frame = 0
        while True:
            seen = {"t_ms": frame * 20, "frame": frame, "width": 320, "height": 180, "boxes": []}
            yield msgspec.json.encode(seen) + b"\n"
            frame += 1
            await asyncio.sleep(0.02)  # the pace of its camera

    return LineAnswer(200, {"content-type": "application/jsonl"}, lines())


@contextlib.asynccontextmanager
async def box(join: dict[str, str]) -> AsyncIterator[None]:
    """A worker of sessions."""
    trust = Trust.exact(join["pin"])
    board = OfferBoard([structs.replace(offer(app), session=True) for app in (VIDEO, OWN)])
    port, token = int(join["port"]), join["token"]
    serving = asyncio.ensure_future(
        serve_line(join["host"], port, trust, token=token, offers=board, handler=talk)
    )
    try:
        yield
    finally:
        serving.cancel()
        await asyncio.wait({serving})


async def watch(web: str, key: str, app: App) -> dict[str, Any]:
    """Read a session to its end; its last line."""
    url = f"{web.replace('http', 'ws', 1)}/api/v1/live/{app.pipeline}/{app.model}"
    last: dict[str, Any] = {}
    while not last or last.get("error", {}).get("code") == "not-found":  # not on its line yet
        async with connect(url, subprotocols=[Subprotocol(f"openpool.key.{key}")]) as socket:
            with contextlib.suppress(ConnectionClosed):
                await socket.send(b"\xff\xd8 picture")
                while True:
                    last = msgspec.json.decode(await socket.recv())
        await asyncio.sleep(0.02)
    return last


@contextlib.asynccontextmanager
async def in_session(folder: Path, app: App) -> AsyncIterator[
    tuple[Path, Process, str, asyncio.Task[dict[str, Any]]]
]:  # fmt: skip
    """A pool in a process of its own, in mid-session, with a checkpoint; and who watches."""
    config = write_config(folder, ["127.0.0.1:9"], PRICES + SETTINGS)
    config.write_text(re.sub("drain_ms: [0-9]+", "drain_ms: 0", config.read_text()))
    process, join = await start_pool(config)
    token = (folder / "data" / "operator.token").read_text().strip()
    api = f"{join['web']}/api/v1"
    headers = {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(headers=headers) as operator, box(join):
        wanted = {"name": "Ann", "spend_limit": "none"}
        made = (await operator.post(f"{api}/customers", json=wanted)).json()
        watching = asyncio.ensure_future(watch(join["web"], made["secret"], app))
        async with asyncio.timeout(20):
            while "call-checkpointed" not in (await operator.get(f"{api}/events")).text:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        yield config, process, made["customer"], watching
        await asyncio.wait({watching})


async def told(folder: Path) -> tuple[list[Any], dict[str, int]]:
    """What the log holds, and the balances that follow from it."""
    assert check(folder / "data" / "openpool.db").ok
    async with SqliteStore(folder / "data") as store:
        balances = {row.account: row.amount_wei for row in store.balances()}
        return [stored.event.data for stored in store.all_events()], balances


def only(events: list[Any], kind: type) -> Any:
    (found,) = [each for each in events if isinstance(each, kind)]
    return found


@pytest.mark.timeout(90)
async def test_a_session_that_died_with_the_pool_is_paid_once(tmp_path: Path) -> None:
    """Kill -9 in mid-session, and twice more while the pool starts: before the fee is written, and
    when it just was. The worker has its fee up to the last checkpoint, once; the books agree."""
    async with in_session(tmp_path, VIDEO) as (config, process, who, _):
        process.send_signal(signal.SIGKILL)
        await process.wait()
    for when in ("before", "after"):
        dying = await asyncio.create_subprocess_exec(sys.executable, "-c", DYING, config, when)
        assert await asyncio.wait_for(dying.wait(), 30) == -signal.SIGKILL
        events, _ = await told(tmp_path)
        paid = sum(isinstance(each, FeeCredited) for each in events)
        assert paid == (when == "after")
    for _ in range(2):
        await start_and_stop(config)
    events, balances = await told(tmp_path)
    saved = [each for each in events if isinstance(each, CallCheckpointed)]
    done, fee = only(events, CallCompleted), only(events, FeeCredited)
    assert done.units == fee.pixels == saved[-1].units > 0
    assert (done.customer, done.job) == (who, saved[-1].call)
    assert int(fee.fee_wei) == fee.pixels // 7
    assert "before the pool stopped" in done.note
    assert "the pool stopped" in only(events, CallAttemptFailed).reason
    assert balances[f"customer:{who}"] == -int(fee.fee_wei)
    assert balances[f"worker:{fee.address}"] == int(fee.worker_wei)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("app", [VIDEO, OWN])
async def test_a_session_is_paid_in_full_when_the_pool_is_stopped(tmp_path: Path, app: App) -> None:
    """SIGTERM in mid-session: the client is told, the worker is paid until then and not only up to
    the last checkpoint, and the next start adds nothing. So also for a protocol of one's own."""
    async with in_session(tmp_path, app) as (config, process, who, watching):
        process.terminate()
        assert await process.wait() == 0
    assert watching.result()["error"]["code"] == "pool-restarted"
    before, _ = await told(tmp_path)
    saved = [each for each in before if isinstance(each, CallCheckpointed)]
    done, fee = only(before, CallCompleted), only(before, FeeCredited)
    assert done.units == fee.pixels >= saved[-1].units > 0
    assert (done.customer, fee.orchestrator) == (who, f"customer:{who}")
    assert "before the pool stopped" in done.note
    await start_and_stop(config)
    after, _ = await told(tmp_path)
    assert only(after, FeeCredited) == fee
