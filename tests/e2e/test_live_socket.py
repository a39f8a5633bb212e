"""Live video over a WebSocket: a whole pool, a worker on a line, a client that talks to both."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from callers import calling_pool, line_worker, offer, until
from msgspec import structs
from network import RunningPool
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from openpool.core.calls import App
from openpool.core.events import CallCompleted, FeeCredited, LineOpened
from openpool.link.line import Handler, LineAnswer, LineRequest
from openpool.store.interface import EventFilter
from openpool.wire.framing import Unpacker

APP = App("live-video-analysis", "colours/nano")
SESSIONS = structs.replace(offer(APP), session=True)
PRICE = "    - {pipeline: live-video-analysis, price: 1000 wei}\n"
LINES = {"content-type": "application/jsonl"}


def seen(frame: int) -> bytes:
    """What a worker says of one picture."""
    box = {"label": "ball", "score": 0.9, "x": 10, "y": 10, "w": 30, "h": 30}
    told = {"t_ms": frame * 200, "frame": frame, "width": 320, "height": 180, "boxes": [box]}
    return msgspec.json.encode(told) + b"\n"


async def watch(request: LineRequest) -> LineAnswer:
    """A worker that answers each picture with a box, as soon as it comes."""

    async def lines() -> AsyncIterator[bytes]:
        unpacker, frame = Unpacker(), 0
        async for chunk in request.body:  # type: ignore[union-attr]  # sessions have a stream
            for _ in unpacker.feed(chunk):
                yield seen(frame)
                frame += 1

    return LineAnswer(200, LINES, lines())


@asynccontextmanager
async def serving(folder: Path, handler: Handler = watch) -> AsyncIterator[RunningPool]:
    """A pool with a worker that serves live video."""
    async with calling_pool(folder, PRICE) as running, line_worker(running, handler, SESSIONS):
        yield running


def address(running: RunningPool, path: str = "live-video-analysis/colours/nano?fps=5") -> str:
    base = running.running.web_url.replace("http://", "ws://")
    return f"{base}/api/v1/live/{path}"


def operator(running: RunningPool) -> dict[str, str]:
    return {"Authorization": f"Bearer {running.process.operator_token}"}


async def told(running: RunningPool, kind: type) -> list[object]:
    """What the log holds of one kind, as soon as there is some."""
    which = EventFilter(types=(kind.__struct_config__.tag,))  # type: ignore[attr-defined]
    await until(lambda: running.store.events(which))
    return [stored.event.data for stored in running.store.events(which)]


async def last_words(socket: ClientConnection) -> dict[str, str]:
    """The error with which a session ends."""
    async with asyncio.timeout(10):
        error = msgspec.json.decode(await socket.recv())["error"]
        with pytest.raises(ConnectionClosed):
            await socket.recv()
    return error  # type: ignore[no-any-return]


async def test_pictures_are_answered_while_the_session_goes_on(tmp_path: Path) -> None:
    """Each picture has its line before the next is sent; the session is paid at its end."""
    async with serving(tmp_path) as running:
        made = await running.process.customers.add("Ann", requests_per_minute=0, spend_limit="none")
        key = Subprotocol(f"openpool.key.{made.secret}")
        protocols = [Subprotocol("openpool.live"), key]
        async with connect(address(running), subprotocols=protocols) as socket:
            assert socket.subprotocol == "openpool.live"
            for frame in range(5):
                await socket.send(b"\xff\xd8 picture")
                async with asyncio.timeout(5):
                    line = msgspec.json.decode(await socket.recv())
                assert line["frame"] == frame
                assert line["boxes"][0]["label"] == "ball"
        (done,) = await told(running, CallCompleted)
        assert isinstance(done, CallCompleted)
        assert (done.customer, done.pipeline) == (made.customer, "live-video-analysis")
        assert done.checked, done.note
        (fee,) = await told(running, FeeCredited)
        assert isinstance(fee, FeeCredited)
        assert fee.orchestrator == f"customer:{made.customer}"


async def test_the_operator_may_watch_and_pays_like_a_customer(tmp_path: Path) -> None:
    """The operator needs no key, and the worker earns all the same."""
    async with serving(tmp_path) as running:
        async with connect(address(running), additional_headers=operator(running)) as socket:
            await socket.send(b"\xff\xd8 picture")
            assert b"ball" in (await socket.recv(decode=False))
        (done,) = await told(running, CallCompleted)
        assert isinstance(done, CallCompleted)
        assert done.customer == "operator"


async def test_a_client_that_vanishes_ends_the_session_at_the_worker(tmp_path: Path) -> None:
    """When the connection breaks the worker stops, and its place is free again."""
    ended = asyncio.Event()

    async def stubborn(request: LineRequest) -> LineAnswer:
        async def lines() -> AsyncIterator[bytes]:
            try:
                yield seen(0)
                async for _ in request.body:  # type: ignore[union-attr]
                    pass
            finally:
                ended.set()

        return LineAnswer(200, LINES, lines())

    async with serving(tmp_path, stubborn) as running:
        async with connect(address(running), additional_headers=operator(running)) as socket:
            await socket.send(b"\xff\xd8 picture")
            await socket.recv()
            socket.transport.abort()
        async with asyncio.timeout(5):
            await ended.wait()
        desk = running.process.driver.desk
        await until(lambda: desk.is_idle and not desk.sessions)


async def test_strangers_are_told_what_is_missing(tmp_path: Path) -> None:
    """No key, a wrong key, another site's page and a worker's token are refused in one sentence."""
    async with serving(tmp_path) as running:
        wrong = f"openpool.key.sk-{'a' * 12}-{'a' * 52}"
        cases: list[tuple[dict[str, str], list[str], str]] = [
            ({}, [], "sign-in-needed"),
            ({}, ["openpool.live", wrong], "unauthorized"),
            ({"Origin": "https://evil.example", **operator(running)}, [], "not-allowed"),
            ({"Authorization": f"Bearer {await running.enroll('w')}"}, [], "not-allowed"),
        ]
        for headers, names, code in cases:
            protocols = [Subprotocol(name) for name in names] or None
            async with connect(
                address(running), additional_headers=headers, subprotocols=protocols
            ) as socket:
                assert (await last_words(socket))["code"] == code
        assert len(await told(running, LineOpened)) == 1


async def test_unknown_models_and_odd_queries_are_refused(tmp_path: Path) -> None:
    """What no worker serves as a session, and a query that is none, cost a sentence only."""
    async with serving(tmp_path) as running:
        for path, code in (
            ("live-video-analysis/nothing", "not-found"),
            ("llm/tiny/chat", "not-found"),
            (
                "live-video-analysis/colours/nano?fps=5%0d%0aevil: 1".replace(" ", "+"),
                "bad-message",
            ),
        ):
            async with connect(
                address(running, path), additional_headers=operator(running)
            ) as socket:
                assert (await last_words(socket))["code"] == code, path


async def test_a_picture_that_is_too_large_ends_the_session_only(tmp_path: Path) -> None:
    """A message above the limit closes its socket; the pool serves the next one."""
    async with serving(tmp_path) as running:
        async with connect(address(running), additional_headers=operator(running)) as socket:
            with pytest.raises(ConnectionClosed):
                await socket.send(bytes(9_000_000))
                async with asyncio.timeout(10):
                    await socket.recv()
        async with connect(address(running), additional_headers=operator(running)) as socket:
            await socket.send(b"\xff\xd8 picture")
            assert b"ball" in (await socket.recv(decode=False))


async def test_a_worker_that_dies_ends_the_session_with_a_reason(tmp_path: Path) -> None:
    """A session whose worker is gone says so; it is not silently taken elsewhere."""
    async with calling_pool(tmp_path, PRICE) as running:
        async with line_worker(running, watch, SESSIONS) as worker:
            async with connect(address(running), additional_headers=operator(running)) as socket:
                await socket.send(b"\xff\xd8 picture")
                await socket.recv()
                await worker.die()
                assert (await last_words(socket))["code"] == "worker-failed"
