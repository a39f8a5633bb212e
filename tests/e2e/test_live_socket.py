"""Live video over a WebSocket: a whole pool, a worker on a line, a client that talks to both."""

import asyncio
import base64
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from callers import calling_pool, for_ever, line_worker, offer, until
from msgspec import structs
from network import RunningPool
from runtimes import host_of
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from openpool.core.calls import App
from openpool.core.events import CallCompleted, FeeCredited, LineOpened
from openpool.demo import scenes
from openpool.link.line import Handler, LineAnswer, LineRequest
from openpool.store.interface import EventFilter
from openpool.web import live_socket
from openpool.wire.framing import Unpacker
from openpool.worker.offers import RuntimeSettings

APP = App("live-video-analysis", "colours/nano")
SESSIONS = structs.replace(offer(APP), session=True)
PRICE = "    - {pipeline: live-video-analysis, price: 1000 wei}\n"
LINES = {"content-type": "application/jsonl"}


def seen(frame: int, **more: str) -> bytes:
    """What a worker says of one picture."""
    box = {"label": "ball", "score": 0.9, "x": 10, "y": 10, "w": 30, "h": 30}
    told = {"t_ms": frame * 200, "frame": frame, "width": 320, "height": 180, "boxes": [box]}
    told |= more
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


async def test_a_key_that_is_revoked_ends_its_session(tmp_path: Path) -> None:
    """Not only new sessions are refused: the one that goes on ends at its next picture, and what
    was seen before is paid."""
    async with serving(tmp_path) as running:
        made = await running.process.customers.add("Ann", spend_limit="none")
        protocols = [Subprotocol(f"openpool.key.{made.secret}")]
        async with connect(address(running), subprotocols=protocols) as socket:
            await socket.send(b"\xff\xd8 picture")
            assert b"ball" in (await socket.recv(decode=False))
            await running.process.customers.revoke(made.customer)
            await socket.send(b"\xff\xd8 picture")
            error = await last_words(socket)
        assert error["code"] == "unauthorized"
        assert "revoked" in error["message"]
        (done,) = await told(running, CallCompleted)
        assert isinstance(done, CallCompleted)
        assert (done.checked, done.blamed) == (True, False)
        assert "1 frame analysed" in done.note


@asynccontextmanager
async def container(folder: Path, tasks: list[str]) -> AsyncIterator[RunningPool]:
    """A pool whose worker offers a server with a WebSocket protocol of its own."""

    async def talk(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str(f"welcome {request.query_string}")
        async for message in socket:
            if message.data == "bye":
                break
            answer = message.data[::-1]
            is_text = isinstance(answer, str)
            await (socket.send_str(answer) if is_text else socket.send_bytes(answer))
        tasks.append("ended")
        return socket

    async def well(request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_get("/own/talk", talk)
    app.router.add_get("/health", well)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    entry = RuntimeSettings(
        runtime="http",
        pipeline=BOX.pipeline,
        model=BOX.model,
        options={
            "url": f"http://127.0.0.1:{runner.addresses[0][1]}",
            "health": "/health",
            "websocket": "/own/talk",
        },
    )
    offers = structs.replace(offer(BOX), session=True)
    try:
        async with (
            host_of(entry, cache=folder).running() as host,
            calling_pool(folder, "    - {pipeline: mirror, price: 1000 wei}\n") as running,
            line_worker(running, host.answer, offers),
        ):
            await until(host.offers)
            assert host.offers()[0].session
            yield running
    finally:
        await runner.cleanup()


BOX = App("mirror", "box")


async def test_a_container_speaks_its_own_protocol(tmp_path: Path) -> None:
    """Texts and bytes reach a worker's own WebSocket server and come back as they are."""
    ended: list[str] = []
    async with container(tmp_path, ended) as running:
        where = address(running, "mirror/box?fps=5")
        async with connect(where, additional_headers=operator(running)) as socket:
            async with asyncio.timeout(10):
                assert await socket.recv() == "welcome fps=5"
                for message in ("caf\u00e9", b"\x00\n\x01", "", b"\xff" * 100_000):
                    await socket.send(message)
                    if message:  # an empty one says nothing
                        assert await socket.recv() == message[::-1]
                await socket.send("bye")
                with pytest.raises(ConnectionClosed) as closed:
                    await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1000
        (done,) = await told(running, CallCompleted)
        assert isinstance(done, CallCompleted)
        assert (done.pipeline, done.checked) == ("mirror", True)


async def test_whoever_leaves_a_container_ends_its_session(tmp_path: Path) -> None:
    """The server hears that its client has hung up, and its place is free again."""
    ended: list[str] = []
    async with container(tmp_path, ended) as running:
        for _ in range(6):  # more than it has places
            where = address(running, "mirror/box")
            async with connect(where, additional_headers=operator(running)) as socket:
                async with asyncio.timeout(10):
                    assert await socket.recv() == "welcome "
        await until(lambda: len(ended) == 6)


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


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (scenes.to_file(scenes.draw(64, 48), "JPEG"), "the JPEG of frame 1 is 64x48, not 320x180"),
        (scenes.to_file(scenes.draw(320, 180), "PNG"), "the picture of frame 1 is no whole JPEG"),
    ],
)
async def test_a_wrong_picture_is_never_passed_on_and_ends_the_session(
    tmp_path: Path, wrong: bytes, reason: str
) -> None:
    """The client gets what came before; that is paid, and the log says what was wrong."""
    right = scenes.to_file(scenes.draw(320, 180), "JPEG")

    async def paint(request: LineRequest) -> LineAnswer:
        async def lines() -> AsyncIterator[bytes]:
            for frame, picture in enumerate((right, wrong, right)):
                yield seen(frame, jpeg=base64.b64encode(picture).decode())
            await for_ever()

        return LineAnswer(200, LINES, lines())

    prices = PRICE.replace("price:", "unit: pixel, price:")
    async with calling_pool(tmp_path, prices) as running, line_worker(running, paint, SESSIONS):
        where = address(running, "live-video-analysis/colours/nano?annotate=true")
        async with connect(where, additional_headers=operator(running)) as socket:
            await socket.send(b"\xff\xd8 picture")
            line = msgspec.json.decode(await socket.recv())
            assert (line["frame"], base64.b64decode(line["jpeg"])) == (0, right)
            error = await last_words(socket)
        assert error["code"] == "worker-failed"
        assert "not right any more" in error["message"]
        (done,) = await told(running, CallCompleted)
        assert isinstance(done, CallCompleted)
        assert (done.units, done.blamed) == (320 * 180, True)
        assert done.note.endswith(f"; then {reason}")
        (fee,) = await told(running, FeeCredited)
        assert isinstance(fee, FeeCredited)
        assert int(fee.fee_wei) == 320 * 180 * 1000


@pytest.mark.parametrize("drip", [0, 1])
async def test_a_client_that_hardly_reads_ends_its_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drip: int
) -> None:
    """Whoever takes nothing, or a byte now and then, holds neither a worker nor memory for long."""
    monkeypatch.setattr(live_socket, "UNREAD_S", 0.5)
    told_bytes = 0

    async def flood(request: LineRequest) -> LineAnswer:
        async def lines() -> AsyncIterator[bytes]:
            nonlocal told_bytes
            frame = 0
            while True:
                line = seen(frame, more="x" * 100_000)
                told_bytes += len(line)
                yield line
                frame += 1

        return LineAnswer(200, LINES, lines())

    async with calling_pool(tmp_path, PRICE) as running:
        async with line_worker(running, flood, SESSIONS) as worker:
            where = address(running)
            async with connect(where, additional_headers=operator(running), max_queue=1) as socket:
                await socket.send(b"\xff\xd8 picture")
                transport = socket.transport
                transport.pause_reading()
                raw = transport.get_extra_info("socket")
                dripping = asyncio.ensure_future(_drip(raw.fileno(), drip))
                try:
                    async with asyncio.timeout(10):
                        await worker.cancelled.wait()
                finally:
                    dripping.cancel()
                transport.abort()
            (done,) = await told(running, CallCompleted)
            assert isinstance(done, CallCompleted)
            assert (done.cancelled, done.blamed) == (True, False)
        desk = running.process.driver.desk
        await until(lambda: desk.is_idle and not desk.sessions)
    assert told_bytes < 30_000_000


async def _drip(descriptor: int, size: int) -> None:
    """Read so many bytes, again and again."""
    while size:
        with contextlib.suppress(BlockingIOError):
            os.read(descriptor, size)
        await asyncio.sleep(0.02)  # a reader's own pace
