"""Live Runner through a whole pool: orchestrator, exchange, lines, books; small workers."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from fractions import Fraction
from pathlib import Path

import msgspec
import pytest
from callers import EVENTS, chat, event, for_ever, line_worker, stream, until
from callers import offer as chat_offer
from network import RunningPool, pool, write_config

from openpool.core.calls import App, Offer
from openpool.core.events import CallCompleted, CallReceived, FeeCredited
from openpool.demo.live_gateway import SENDER, LiveGateway
from openpool.demo.live_runner import LiveRunnerPort
from openpool.link.line import Handler, LineAnswer, LineRequest
from openpool.store.interface import EventFilter
from openpool.wire import framing

CHAT = "llm/tiny/chat"
VIDEO = App("live-video-analysis", "grid")
PRICES = """
ai:
  usd_per_eth: 2000
  live_runner: {enabled: true, listen: '127.0.0.1:0'}
  prices:  # what is sold as requests may have a price as sessions, too, and the other way round
    - {pipeline: llm, price: 3 wei, per: 2}
    - {pipeline: llm, price: 9 USD, unit: second}
    - {pipeline: llm, price: 0.004 USD, unit: request}
    - {pipeline: live-video-analysis, price: 9 USD, unit: request}
    - {pipeline: live-video-analysis, price: 0.72 USD, per: 3600, unit: second}
"""


@asynccontextmanager
async def sold(port: LiveRunnerPort, folder: Path) -> AsyncIterator[RunningPool]:
    """A pool that sells through this orchestrator."""
    async with pool(write_config(folder, [f"127.0.0.1:{port.port}"], PRICES)) as running:
        yield running


def orchestrator() -> LiveRunnerPort:
    return LiveRunnerPort("o-secret", interval_s=0.25, ttl_s=5.0)


def told(running: RunningPool, kind: type) -> list[object]:
    name = kind.__struct_config__.tag  # type: ignore[attr-defined]
    found = running.store.events(EventFilter(types=(name,), limit=100))
    return [stored.event.data for stored in found]


async def settled(running: RunningPool, kind: type) -> object:
    """The one event of this kind, once it is there."""
    async with asyncio.timeout(10):
        while True:
            await running.settled()
            if found := told(running, kind):
                (one,) = found
                return one
            await asyncio.sleep(0.01)


async def test_a_request_earns_the_fixed_price(tmp_path: Path) -> None:
    """A request that an orchestrator sold is served by a worker and credited at the fixed price."""
    async with orchestrator() as port, LiveGateway(port.url) as gateway:

        async def answer(_: LineRequest) -> LineAnswer:
            return chat()

        async with sold(port, tmp_path) as running, line_worker(running, answer) as worker:
            await port.until(port.runners)
            reply = await gateway.request(
                CHAT,
                "/v1/chat/completions",
                b'{"model": "tiny/chat", "messages": []}',
                headers={"Content-Type": "application/json", "Authorization": "Bearer mine"},
            )
            assert reply.status == 200, reply.text
            assert "Hello there." in reply.text
            (asked,) = worker.asked
            assert asked.path == "/call/llm/tiny%2Fchat/v1/chat/completions"
            (sold_app,) = running.process.live_runners.views()  # type: ignore[union-attr]
            assert (sold_app.registered, sold_app.capacity, sold_app.problem) == (True, 4, "")
            names = set(asked.headers)
            assert not {name for name in names if "livepeer" in name or name == "authorization"}
            received = await settled(running, CallReceived)
            assert isinstance(received, CallReceived)
            assert (received.source, received.orchestrator) == ("live-runner", "orch0")
            fee = await settled(running, FeeCredited)
            assert isinstance(fee, FeeCredited)
            assert (fee.unit, fee.pixels, fee.fee_wei) == ("request", 1, str(2 * 10**12))
        await port.until(lambda: not port.runners())


async def test_tickets_stand_beside_the_fee(tmp_path: Path) -> None:
    """What a customer paid the orchestrator is in the event log, to be compared with the fee."""
    async with (
        LiveRunnerPort("o-secret", interval_s=0.25, wei_per_usd=Fraction(10**18, 2000)) as port,
        LiveGateway(port.url, tickets=3) as gateway,
    ):

        async def answer(_: LineRequest) -> LineAnswer:
            return chat()

        async with sold(port, tmp_path) as running, line_worker(running, answer):
            await port.until(port.runners)
            assert (await gateway.request(CHAT, "/v1/chat/completions", b"{}")).status == 200
            received = await settled(running, CallReceived)
    assert isinstance(received, CallReceived)
    assert (received.payer, received.tickets) == (SENDER, 3)
    assert int(received.tickets_wei) == int(port.value_wei[CHAT]) == 3 * 2 * 10**12 - 1
    assert port.debited_wei[CHAT] == 2 * 10**12


async def test_a_stream_breaks_with_an_error_event(tmp_path: Path) -> None:
    """A worker that dies in mid-stream ends the stream in words; nobody else repeats it."""
    go_on = asyncio.Event()

    async def tokens() -> AsyncIterator[bytes]:
        yield event("one")
        await go_on.wait()
        await for_ever()

    async with orchestrator() as port, LiveGateway(port.url) as gateway:
        async with sold(port, tmp_path) as running:
            async with line_worker(running, stream(tokens)) as worker:
                await port.until(port.runners)
                asked = b'{"model": "tiny/chat", "messages": [], "stream": true}'
                headers = {"Content-Type": "application/json"}
                async with gateway.stream(
                    CHAT, "/v1/chat/completions", asked, headers=headers
                ) as response:
                    assert b"one" in await response.content.readany()
                    await worker.die()
                    rest = await response.content.read()
    assert b"event: error" in rest
    assert b"worker-failed" in rest


async def test_another_worker_takes_over_before_the_first_byte(tmp_path: Path) -> None:
    """A customer does not notice that the first worker failed."""
    failed: list[str] = []

    async def answer(request: LineRequest) -> LineAnswer:
        if not failed:
            failed.append(request.path)
            return LineAnswer(500, {}, b"Traceback")
        return chat()

    async with orchestrator() as port, LiveGateway(port.url) as gateway:
        async with (
            sold(port, tmp_path) as running,
            line_worker(running, answer, name="a"),
            line_worker(running, answer, name="b"),
        ):
            await port.until(lambda: [each.beat.capacity for _, each in port.runners()] == [8])
            reply = await gateway.request(CHAT, "/v1/chat/completions", b'{"messages": []}')
    assert (reply.status, len(failed)) == (200, 1)


async def test_a_full_pool_says_so_at_once(tmp_path: Path) -> None:
    """Beyond the workers' capacity the answer is 503 in the words that gateways know."""
    begun = asyncio.Event()

    async def answer(_: LineRequest) -> LineAnswer:
        begun.set()
        await for_ever()
        raise AssertionError

    async with orchestrator() as port, LiveGateway(port.url) as gateway:
        async with (
            sold(port, tmp_path) as running,
            line_worker(running, answer, chat_offer(capacity=1)),
        ):
            await port.until(port.runners)
            first = asyncio.ensure_future(gateway.request(CHAT, "/x", b"{}"))
            await begun.wait()
            # the orchestrator counts for itself, so somebody behind another one must be refused
            url = port.runners()[0][1].beat.runner_url
            headers = {"Livepeer-Session-Id": "s2"}
            async with gateway.http.post(f"{url}/x", data=b"{}", headers=headers) as response:
                assert response.status == 503
                assert await response.text() == "insufficient capacity\n"
            first.cancel()
            await asyncio.wait({first})


def line(frame: int) -> dict[str, object]:
    """What a worker says about a frame in which it saw nothing."""
    return {"t_ms": frame * 200, "frame": frame, "width": 64, "height": 36, "boxes": []}


def video(name: str) -> Handler:
    """A worker of sessions that says who it is and how large each message was."""

    async def lines(request: LineRequest) -> AsyncIterator[bytes]:
        unpacker, frame = framing.Unpacker(), 0
        async for chunk in request.body:
            for message in unpacker.feed(chunk):
                yield msgspec.json.encode(line(frame) | {"by": name, "size": len(message)}) + b"\n"
                frame += 1

    async def answer(request: LineRequest) -> LineAnswer:
        assert request.headers["content-type"] == framing.CONTENT_TYPE
        return LineAnswer(200, {"content-type": "application/jsonl"}, lines(request))

    return answer


VIDEO_OFFER = Offer(app=VIDEO, capacity=2, warm=True, streaming=True, session=True)


async def test_a_session_stays_on_its_worker_and_ends_with_it(tmp_path: Path) -> None:
    """Both WebSockets of a session reach one worker; when that is gone the session is released."""
    async with orchestrator() as port, LiveGateway(port.url) as gateway:
        async with (
            sold(port, tmp_path) as running,
            line_worker(running, video("a"), VIDEO_OFFER, name="a") as a,
            line_worker(running, video("b"), VIDEO_OFFER, name="b") as b,
        ):
            await port.until(lambda: [each.beat.capacity for _, each in port.runners()] == [4])
            async with gateway.session(str(VIDEO)) as session:
                seen = set()
                for size in (5, 70_000):
                    async with gateway.http.ws_connect(f"{session.app_url}/live?fps=5") as socket:
                        await socket.send_bytes(bytes(size))
                        line = await socket.receive_json()
                        assert line["size"] == size
                        seen.add(line["by"])
                assert len(seen) == 1
                await (a if seen == {"a"} else b).die()
                await port.until(lambda: not port.runners()[0][1].sessions)


async def test_a_session_is_counted_as_the_orchestrator_debits_it(tmp_path: Path) -> None:
    """What a session told is checked when it ends, and only whole intervals of 5 s are counted."""
    async with orchestrator() as port, LiveGateway(port.url) as gateway:
        async with sold(port, tmp_path) as running, line_worker(running, video("a"), VIDEO_OFFER):
            await port.until(port.runners)
            async with gateway.session(str(VIDEO)) as session:
                async with gateway.http.ws_connect(f"{session.app_url}/live") as socket:
                    await socket.send_bytes(b"frame")
                    await socket.receive_json()
            done = await settled(running, CallCompleted)
    assert isinstance(done, CallCompleted)
    assert done.checked, done.note
    assert "1 frame analysed" in done.note
    assert (done.unit, done.units) == ("second", done.took_ms // 5000 * 5)


@pytest.mark.parametrize(
    ("answer", "checked"),
    [
        ({"width": 64, "height": 48, "boxes": []}, True),
        ({"width": 64, "height": 48, "boxes": "none"}, False),
    ],
)
async def test_a_single_picture_in_a_session_is_no_stream(
    tmp_path: Path, answer: dict[str, object], checked: bool
) -> None:
    """An app of live video answers a picture that is posted, too: that is no session gone wrong,
    and only an answer of the wrong shape is the worker's fault."""

    async def detect(request: LineRequest) -> LineAnswer:
        async for _ in request.body:  # type: ignore[union-attr]  # sessions have a stream
            pass
        return LineAnswer(200, {"content-type": "application/json"}, msgspec.json.encode(answer))

    async with orchestrator() as port, LiveGateway(port.url) as gateway:
        async with sold(port, tmp_path) as running, line_worker(running, detect, VIDEO_OFFER):
            await port.until(port.runners)
            async with gateway.session(str(VIDEO)) as session:
                async with gateway.http.post(
                    f"{session.app_url}/detect",
                    data=b"\xff\xd8 picture",
                    headers={"Content-Type": "image/jpeg"},
                ) as response:
                    assert response.status == 200
                    assert await response.json() == answer
                done = await settled(running, CallCompleted)
    assert isinstance(done, CallCompleted)
    assert (done.checked, done.blamed) == (checked, not checked), done.note


async def test_two_clients_in_one_session_are_paid_its_time_once(tmp_path: Path) -> None:
    """An orchestrator is paid for a session's time, whatever number of connections it has; so is
    the worker."""
    async with orchestrator() as port, LiveGateway(port.url) as gateway:
        async with sold(port, tmp_path) as running, line_worker(running, video("a"), VIDEO_OFFER):
            await port.until(port.runners)
            async with gateway.session(str(VIDEO)) as session, AsyncExitStack() as stack:
                sockets = []
                for _ in range(2):
                    socket = await gateway.http.ws_connect(f"{session.app_url}/live")
                    sockets.append(await stack.enter_async_context(socket))
                    await socket.send_bytes(b"frame")
                    await socket.receive_json()
                await sockets[1].close()
                await until(lambda: told(running, CallCompleted))
            await until(lambda: len(told(running, CallCompleted)) == 2)
            second, first = told(running, CallCompleted)
    assert isinstance(second, CallCompleted)
    assert second.note == (
        "1 frame analysed in 0 ms; its session's time is counted in another call"
    )
    assert isinstance(first, CallCompleted)
    match = re.fullmatch("1 frame analysed in ([0-9]+) ms", first.note)
    assert match
    assert int(match[1]) >= second.took_ms


@pytest.mark.parametrize("count", [200])
async def test_many_requests_at_once(tmp_path: Path, count: int) -> None:
    """Hundreds of requests at once are all answered right, none mixed up."""

    async def answer(request: LineRequest) -> LineAnswer:
        body = b"".join([chunk async for chunk in request.body])
        return LineAnswer(200, EVENTS, body)

    async with orchestrator() as port, LiveGateway(port.url) as gateway:
        async with (
            sold(port, tmp_path) as running,
            line_worker(running, answer, chat_offer(capacity=count)),
        ):
            await until(lambda: [each.beat.capacity for _, each in port.runners()] == [count])
            replies = await asyncio.gather(
                *(
                    gateway.request(CHAT, "/x", f"data: {number}\n\n".encode())
                    for number in range(count)
                )
            )
    assert [reply.body for reply in replies] == [
        f"data: {number}\n\n".encode() for number in range(count)
    ]
