"""Spend limits hold while calls run, and sessions are checked to their last line: a whole pool."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import openai
import pytest
from callers import (
    CHAT,
    calling_pool,
    chat,
    customer,
    event,
    line_worker,
    offer,
    stream,
    until,
)
from msgspec import structs
from network import RunningPool
from openai import AsyncOpenAI
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from openpool.core.calls import App
from openpool.core.events import CallCompleted, FeeCredited
from openpool.link.line import Handler, LineAnswer, LineRequest
from openpool.store.interface import EventFilter

APP = App("live-video-analysis", "colours/nano")
SESSIONS = structs.replace(offer(APP), session=True)
SIDE = (320, 180)
PRICE = "    - {pipeline: live-video-analysis, unit: pixel, price: 1 wei, per: 100}\n"
FRAME_WEI = SIDE[0] * SIDE[1] // 100
LINES = {"content-type": "application/jsonl"}
ASK = [{"role": "user", "content": "Say hello."}]


async def told(running: RunningPool, kind: type, count: int = 1) -> list[object]:
    """What the log holds of one kind, once there are so many."""
    which = EventFilter(types=(kind.__struct_config__.tag,))  # type: ignore[attr-defined]
    await until(lambda: len(running.store.events(which)) >= count)
    await running.settled()
    return [stored.event.data for stored in running.store.events(which)]


def seen(frame: int) -> bytes:
    shown = {"t_ms": frame * 200, "frame": frame, "width": SIDE[0], "height": SIDE[1], "boxes": []}
    return msgspec.json.encode(shown) + b"\n"


def lines(*told: bytes) -> Handler:
    """A worker that tells this of a session, and then nothing more."""

    async def answer(_: LineRequest) -> LineAnswer:
        async def body() -> AsyncIterator[bytes]:
            for line in told:
                yield line
            await asyncio.Event().wait()

        return LineAnswer(200, LINES, body())

    return answer


@asynccontextmanager
async def watching(running: RunningPool, spend_limit: str = "none") -> AsyncIterator[
    tuple[ClientConnection, str]
]:  # fmt: skip
    """A session of live video of a new customer; and who it is."""
    made = await running.process.customers.add("Ann", spend_limit=spend_limit)
    base = running.running.web_url.replace("http://", "ws://")
    url = f"{base}/api/v1/live/{APP.pipeline}/{APP.model}"
    async with connect(url, subprotocols=[Subprotocol(f"openpool.key.{made.secret}")]) as socket:
        await socket.send(b"\xff\xd8 picture")
        yield socket, made.customer


async def error_of(socket: ClientConnection) -> dict[str, str]:
    """The error with which a session ends; lines before it are read over."""
    async with asyncio.timeout(10):
        while "error" not in (line := msgspec.json.decode(await socket.recv())):
            pass
        with pytest.raises(ConnectionClosed):
            await socket.recv()
    return line["error"]  # type: ignore[no-any-return]


async def test_a_session_that_turns_to_garbage_ends_there(tmp_path: Path) -> None:
    """More than a megabyte of good lines is paid, the first bad one ends the session and is the
    worker's fault, and the client gets none of it."""
    good = [seen(frame) for frame in range(20_000)]
    assert sum(map(len, good)) > 1 << 20
    worker = lines(*good, b'{"frame": "garbage"}\n', seen(20_000))
    async with calling_pool(tmp_path, PRICE) as running:
        async with line_worker(running, worker, SESSIONS) as box:
            async with watching(running) as (socket, who):
                assert (await error_of(socket))["code"] == "worker-failed"
            (done,) = await told(running, CallCompleted)
            assert isinstance(done, CallCompleted)
            assert (done.checked, done.blamed) == (True, True)
            assert "then a line has not the right shape" in done.note
            await asyncio.wait_for(box.cancelled.wait(), 5)
        (fee,) = await told(running, FeeCredited)
        assert isinstance(fee, FeeCredited)
        assert int(fee.fee_wei) == 20_000 * FRAME_WEI
        await until(lambda: running.process.customers.get(who).calls == 1)
        (row,) = running.store.workers()
        assert (row.calls, row.calls_failed) == (1, 1)


async def test_a_session_of_garbage_earns_nothing(tmp_path: Path) -> None:
    """Where not one line is right nothing is paid."""
    async with (
        calling_pool(tmp_path, PRICE) as running,
        line_worker(running, lines(b"garbage\n"), SESSIONS),
    ):
        async with watching(running) as (socket, _):
            assert (await error_of(socket))["code"] == "worker-failed"
        (done,) = await told(running, CallCompleted)
        assert isinstance(done, CallCompleted)
        assert (done.checked, done.blamed, done.units) == (False, True, 0)
        assert running.store.events(EventFilter(types=("fee-credited",))) == []


async def test_what_was_right_of_a_lost_session_is_paid(tmp_path: Path) -> None:
    """A worker that vanishes in the middle of a session is paid for what the pool had checked by
    then, and its client is told."""
    frames = [seen(frame) for frame in range(5)]
    async with calling_pool(tmp_path, PRICE) as running:
        async with line_worker(running, lines(*frames), SESSIONS) as box:
            async with watching(running) as (socket, who):
                calls = running.process.driver.desk.calls
                await until(lambda: any(call.used for call in calls.values()))
                await box.die()
                assert (await error_of(socket))["code"] == "worker-failed"
        (fee,) = await told(running, FeeCredited)
        assert isinstance(fee, FeeCredited)
        assert int(fee.fee_wei) == 5 * FRAME_WEI
        (done,) = await told(running, CallCompleted)
        assert isinstance(done, CallCompleted)
        assert "before it broke off" in done.note
        await until(lambda: running.process.customers.get(who).owed_wei == 5 * FRAME_WEI)


async def test_a_session_ends_at_the_spend_limit(tmp_path: Path) -> None:
    """A session is looked at while it runs: at the limit it ends with an error that says so, what
    was seen is paid, and the next one does not begin."""
    worker = lines(*(seen(frame) for frame in range(10)))
    async with (
        calling_pool(tmp_path, PRICE) as running,
        line_worker(running, worker, SESSIONS) as box,
    ):
        async with watching(running, f"{10 * FRAME_WEI} wei") as (socket, who):
            assert (await error_of(socket))["code"] == "spend-limit-reached"
        await asyncio.wait_for(box.cancelled.wait(), 5)
        (fee,) = await told(running, FeeCredited)
        assert isinstance(fee, FeeCredited)
        assert int(fee.fee_wei) == 10 * FRAME_WEI
        (done,) = await told(running, CallCompleted)
        assert isinstance(done, CallCompleted)
        assert "spend limit" in done.note
        assert done.blamed is False
        await until(lambda: running.process.customers.get(who).owed_wei == 10 * FRAME_WEI)


async def test_a_stream_ends_at_the_spend_limit(tmp_path: Path) -> None:
    """An answer that goes on and on ends with an error event once it has cost what may be owed."""

    async def tokens() -> AsyncIterator[bytes]:
        while True:
            yield event("more ")
            await asyncio.sleep(0.001)

    async with calling_pool(tmp_path) as running, line_worker(running, stream(tokens)) as box:
        async with customer(running, spend_limit="900 wei") as (client, who):
            pieces = await ask(client, stream=True)
            with pytest.raises(openai.APIError, match="spend limit is reached") as caught:
                async for _ in pieces:
                    pass
            assert caught.value.code == "insufficient_quota"
            await asyncio.wait_for(box.cancelled.wait(), 5)
            (fee,) = await told(running, FeeCredited)
            assert isinstance(fee, FeeCredited)
            await until(lambda: running.process.customers.get(who).owed_wei >= 900)
            with pytest.raises(openai.RateLimitError, match="spend limit"):
                await ask(client)
            await running.process.customers.paid(who, "1 ETH", "INV-7", "operator")
            await anext(aiter(await ask(client, stream=True)))


def ask(client: AsyncOpenAI, **more: object) -> object:
    """A completion, to be awaited."""
    return client.chat.completions.create(model=CHAT.model, messages=ASK, **more)  # type: ignore[call-overload]


async def test_many_calls_at_once_cannot_owe_more_than_the_limit(tmp_path: Path) -> None:
    """Of a hundred calls at once only so many begin as the limit can pay; once they are over, and
    the pool knows what they cost, others may."""
    go_on = asyncio.Event()

    async def answer(_: LineRequest) -> LineAnswer:
        await go_on.wait()
        return chat(tokens=(200, 200))

    limit_wei = 4_000
    many = offer(capacity=200)
    async with calling_pool(tmp_path) as running, line_worker(running, answer, many) as box:
        async with customer(running, spend_limit=f"{limit_wei} wei") as (client, who):
            calls = [asyncio.ensure_future(ask(client)) for _ in range(100)]
            await until(lambda: sum(call.done() for call in calls) + len(box.asked) == 100)
            refused = [call.exception() for call in calls if call.done()]
            assert all(isinstance(each, openai.RateLimitError) for each in refused)
            assert 1 < len(box.asked) < 10
            go_on.set()
            await asyncio.wait(calls)
            fees = await told(running, FeeCredited, len(box.asked))
            spent = sum(int(fee.fee_wei) for fee in fees if isinstance(fee, FeeCredited))
            assert 0 < spent <= limit_wei
            await until(lambda: running.process.customers.get(who).spent_wei == spent)
            await ask(client)
        assert not running.store.events(EventFilter(types=("call-failed",)))
