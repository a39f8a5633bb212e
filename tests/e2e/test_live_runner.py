"""The pool as a Live Runner, over real HTTP: an orchestrator in front, an exchange behind."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction

import aiohttp
import pytest
from aiohttp import web

from openpool.core.call_instructions import SessionLost
from openpool.core.call_requests import CallFailed, CallRequest
from openpool.core.calls import App, Offer
from openpool.core.payment import SURE, Payment
from openpool.core.prices import RunnerPrice
from openpool.demo.live_gateway import LiveGateway, Session
from openpool.demo.live_runner import FACE_VALUE_WEI, LiveRunnerPort
from openpool.link.tls import Trust, client_context
from openpool.link.trickle import ChannelClosed, Publisher, Subscriber
from openpool.pool import live_runner, live_runner_channels, live_runner_http
from openpool.pool.live_runner import Ended, LiveRunner, LiveRunners
from openpool.pool.live_runner_http import RunnerDoor
from openpool.wire import framing
from openpool.wire.live_runner import SESSION_HEADER
from openpool.wire.payments import (
    PAYMENT_HEADER,
    SEGMENT_HEADER,
    Credentials,
    encode_credentials,
    encode_payment,
)

SECRET = "o-secret"
CHAT = App("llm", "org/tiny")
OCR = App("image-to-text", "rapid")
VIDEO = App("live-video-analysis", "grid")
WEI_PER_USD = Fraction(10**18, 3000)

Body = AsyncIterator[bytes]
Serve = Callable[[CallRequest, Body], Awaitable["Served"]]


@dataclass
class Served:
    """What a worker answers."""

    body: Body
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


async def pieces(*chunks: bytes) -> Body:
    for chunk in chunks:
        yield chunk


async def echo(request: CallRequest, body: Body) -> Served:
    """Answers what was asked."""
    data = b"".join([chunk async for chunk in body])
    return Served(pieces(data), headers={"content-type": "text/plain"})


class Workers:
    """The exchange, with one worker that is a function."""

    def __init__(self) -> None:
        self.serve: Serve = echo
        self.calls: list[CallRequest] = []
        self.running = 0
        self.changed = asyncio.Event()

    @asynccontextmanager
    async def call(self, request: CallRequest, body: Body | bytes) -> AsyncIterator[Served]:
        self.calls.append(request)
        self.running += 1
        try:
            yield await self.serve(request, pieces(body) if isinstance(body, bytes) else body)
        finally:
            self.running -= 1
            self.changed.set()

    async def until_idle(self) -> None:
        async with asyncio.timeout(1):  # a customer that hangs up is noticed within a second
            while self.running:
                self.changed.clear()
                await self.changed.wait()


class Pool:
    """The pool's side, and what it would keep on disk."""

    def __init__(self, orchestrators: dict[str, LiveRunnerPort], **door: float) -> None:
        self.urls = {name: port.url for name, port in orchestrators.items()}
        self.store: dict[str, object] = {}
        self.offers: list[Offer] = []
        self.ended: list[Ended] = []
        self.workers = Workers()
        self.prices: dict[App, RunnerPrice] = {}
        self.secret = SECRET
        self._door = door

    @asynccontextmanager
    async def running(self, goodbye_s: float = 2.0) -> AsyncIterator[LiveRunners]:
        """Run it; with a goodbye of 0 it ends as if it were killed."""
        door = RunnerDoor(
            self.workers,  # type: ignore[arg-type]  # a body of a test is a generator
            key=b"of this pool",
            host="127.0.0.1",
            port=0,
            **self._door,
        )
        runners = [
            LiveRunner(
                orchestrator=name,
                url=url,
                secret=self.secret,
                trust=Trust.first_use(),
                door=door,
                price_of=lambda app, lasting: self.prices.get(app),
                recall=self.store.get,
                remember=self.remember,
                ended=self.ended.append,
                goodbye_s=goodbye_s,
            )
            for name, url in self.urls.items()
        ]
        live = LiveRunners(door, runners, lambda: self.offers)
        async with AsyncExitStack() as stack:
            task = asyncio.ensure_future(live.run(listening := asyncio.Event()))
            stack.push_async_callback(asyncio.wait, {task})
            stack.callback(task.cancel)
            await listening.wait()
            yield live

    @property
    def kept(self) -> dict[str, object]:
        """What is kept of the apps at the first orchestrator."""
        kept = self.store.get("live-runner/main", {})
        assert isinstance(kept, dict)
        return kept

    async def remember(self, key: str, value: object) -> None:
        self.store[key] = json.loads(json.dumps(value))


def offer(app: App, capacity: int = 2, **options: bool) -> Offer:
    return Offer(app=app, capacity=capacity, **options)  # type: ignore[arg-type]


def orchestrator(**options: object) -> LiveRunnerPort:
    """One in a hurry."""
    defaults = {"interval_s": 0.25, "ttl_s": 1.0, "keepalive_s": 0.5}
    return LiveRunnerPort(SECRET, **(defaults | options))  # type: ignore[arg-type]


@asynccontextmanager
async def network(
    *offers: Offer, door: dict[str, float] | None = None, **options: object
) -> AsyncIterator[tuple[LiveRunnerPort, Pool, LiveGateway]]:
    """An orchestrator, a pool whose workers offer this, and a customer."""
    async with orchestrator(**options) as port, LiveGateway(port.url) as gateway:
        pool = Pool({"main": port}, **(door or {}))
        pool.offers = list(offers)
        async with pool.running():
            await port.until(lambda: len(port.runners()) == len({each.app for each in offers}))
            yield port, pool, gateway


# --- registration --------------------------------------------------------------------------------


async def test_apps_are_registered_as_workers_offer_them() -> None:
    """Each app is one runner, with the capacity of all workers and the mode of its work."""
    async with network(
        offer(CHAT, 2), offer(CHAT, 3), offer(OCR, 1), offer(VIDEO, 1, session=True)
    ) as (_, _, gateway):
        shown = {each["app"]: (each["mode"], each["capacity"]) for each in await gateway.discover()}
    assert shown == {
        "llm/org/tiny": ("single-shot", 5),
        "image-to-text/rapid": ("single-shot", 1),
        "live-video-analysis/grid": ("persistent", 1),
    }


async def test_prices_come_from_the_price_list() -> None:
    """On-chain, each app is offered at its price, converted by the orchestrator."""
    async with orchestrator(wei_per_usd=WEI_PER_USD) as port, LiveGateway(port.url) as gateway:
        pool = Pool({"main": port})
        pool.offers = [offer(CHAT), offer(VIDEO, session=True)]
        pool.prices = {
            CHAT: RunnerPrice(usd="0.003", unit="fixed"),
            VIDEO: RunnerPrice(usd="0.36", unit="hour"),
        }
        async with pool.running():
            await port.until(lambda: len(port.runners()) == 2)
            shown = {each["app"]: each["price_info"] for each in await gateway.discover()}
    assert shown == {
        "llm/org/tiny": {"price": 10**12, "currency": "wei", "unit": "fixed"},
        "live-video-analysis/grid": {
            "price": 10**14 // 3000,
            "currency": "wei",
            "unit": "seconds",
        },
    }


async def test_an_app_without_a_price_is_explained() -> None:
    """On-chain an app needs a price; the pool says so instead of trying silently for ever."""
    async with orchestrator(wei_per_usd=WEI_PER_USD) as port:
        pool = Pool({"main": port})
        pool.offers = [offer(CHAT)]
        async with pool.running() as live:
            await port.until(lambda: port.refusals)
            await eventually(lambda: live.runners["main"].problem)
            problem = live.runners["main"].problem
    assert problem == (
        "the orchestrator does not take llm/org/tiny: price_info.price must be a positive decimal; "
        "ai.prices needs a row for it with unit request, or second for sessions"
    )


async def eventually(condition: Callable[[], object]) -> None:
    """Wait for what no event announces."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  # what is waited for has no event
            await asyncio.sleep(0.01)


async def test_a_wrong_secret_is_explained() -> None:
    """The operator reads which setting is wrong; nothing else is told to the orchestrator."""
    async with orchestrator() as port:
        pool = Pool({"main": port})
        pool.secret = "another"
        pool.offers = [offer(CHAT)]
        async with pool.running() as live:
            await eventually(lambda: live.runners["main"].problem)
            problem = live.runners["main"].problem
            (view,) = live.views()
    assert "set orchestrators[].secret" in problem
    assert (view.orchestrator, view.model, view.registered) == ("main", "org/tiny", False)
    assert view.problem == problem
    assert not port.beats


async def test_a_silent_runner_is_forgotten_with_its_sessions() -> None:
    """A pool that was killed disappears from discovery after the time to live."""
    async with orchestrator() as port, LiveGateway(port.url) as gateway:
        pool = Pool({"main": port})
        pool.offers = [offer(CHAT)]
        async with pool.running(goodbye_s=0):
            await port.until(port.runners)
        assert len(port.runners()) == 1
        await port.until(lambda: not port.runners())
        assert await gateway.discover() == []


@pytest.mark.parametrize("goodbye_s", [0.0, 2.0], ids=["killed", "stopped"])
async def test_a_restarted_pool_is_who_it_was(goodbye_s: float) -> None:
    """After our restart, asked for or not, customers find apps under the same address."""
    async with orchestrator(ttl_s=5.0) as port:
        pool = Pool({"main": port})
        pool.offers = [offer(CHAT), offer(VIDEO, session=True)]
        async with pool.running(goodbye_s):
            await port.until(lambda: len(port.runners()) == 2)
            await eventually(lambda: len(pool.kept) == 2)
            before = {runner.beat.app: runner_id for runner_id, runner in port.runners()}
        assert len(port.runners()) == (0 if goodbye_s else 2)
        seen = len(port.beats)
        async with pool.running():
            await port.until(lambda: len(port.beats) >= seen + 2)
            after = {runner.beat.app: runner_id for runner_id, runner in port.runners()}
    assert len(after) == 2
    assert after == before


async def test_a_session_outlives_our_restart() -> None:
    """A session that was sold before the pool was killed is still served after it is back."""
    async with orchestrator(ttl_s=5.0) as port, LiveGateway(port.url) as gateway:
        pool = Pool({"main": port})
        pool.offers = [offer(VIDEO, session=True)]
        async with AsyncExitStack() as stack:
            async with pool.running(goodbye_s=0):
                await port.until(port.runners)
                await eventually(lambda: pool.store)
                session = await stack.enter_async_context(gateway.session(str(VIDEO)))
            beats = len(port.beats)
            async with pool.running():
                await port.until(lambda: len(port.beats) > beats)
                async with gateway.http.post(f"{session.app_url}/x", data=b"again") as response:
                    assert await response.read() == b"again"


async def test_an_orchestrator_restarts() -> None:
    """Forgotten by a new process, the pool registers again with the first secret, as who it was."""
    async with network(offer(CHAT)) as (port, _, gateway):
        (before, _), *_ = port.runners()
        await port.restart()
        await port.until(port.runners)
        assert [runner_id for runner_id, _ in port.runners()] == [before]
        assert (await gateway.request(str(CHAT), "/v1/x", b"hi")).text == "hi"


async def test_an_orchestrator_is_away() -> None:
    """While it cannot be reached the pool goes on trying, and says so."""
    async with network(offer(CHAT)) as (port, pool, _):
        await port.stop()
        await asyncio.sleep(0.6)
        await port.restart()
        await port.until(port.runners)
        assert len(pool.kept) == 1


async def test_capacity_follows_the_workers() -> None:
    """Capacity is lowered when workers leave; without any the app is unregistered."""
    async with network(offer(CHAT, 2), offer(CHAT, 3)) as (port, pool, _):
        pool.offers = [offer(CHAT, 3)]
        await port.until(lambda: [each.beat.capacity for _, each in port.runners()] == [3])
        pool.offers = []
        await port.until(lambda: not port.runners())
        pool.offers = [offer(CHAT, 7)]
        await port.until(lambda: [each.beat.capacity for _, each in port.runners()] == [7])
    assert all(beat.status == "" for beat in port.beats)


async def test_a_session_is_not_cut_off_by_draining() -> None:
    """An app without workers stays registered, full, until its last session has ended."""
    async with network(offer(VIDEO, 3, session=True)) as (port, pool, gateway):
        async with gateway.session(str(VIDEO)):
            pool.offers = []
            await port.until(lambda: [each.beat.capacity for _, each in port.runners()] == [1])
            (shown,) = await gateway.discover()
            assert shown["capacity_available"] == 0
            beats = len(port.beats)
            await port.until(lambda: len(port.beats) > beats + 2)
            assert port.runners()
        await port.until(lambda: not port.runners())


async def test_stopping_drains_first() -> None:
    """Before the pool stops, it sells nothing more and waits for what runs."""
    async with orchestrator() as port, LiveGateway(port.url) as gateway:
        pool = Pool({"main": port})
        pool.offers = [offer(VIDEO, 3, session=True), offer(CHAT)]
        async with pool.running() as live:
            await port.until(lambda: len(port.runners()) == 2)
            async with gateway.session(str(VIDEO)) as session:
                draining = asyncio.ensure_future(live.drain())
                await port.until(lambda: [each.beat.capacity for _, each in port.runners()] == [1])
                assert not draining.done()
                async with gateway.http.post(f"{session.app_url}/x", data=b"on") as response:
                    assert await response.read() == b"on"
            await draining
            assert port.runners() == []


async def test_two_orchestrators_are_kept_apart() -> None:
    """Each sells the same apps under secrets and addresses of its own; one restarts alone."""
    async with orchestrator() as one, orchestrator() as two:
        pool = Pool({"one": one, "two": two})
        pool.offers = [offer(CHAT)]
        async with (
            pool.running(),
            LiveGateway(one.url) as gateway_one,
            LiveGateway(two.url) as gateway_two,
        ):
            await one.until(one.runners)
            await two.until(two.runners)
            await one.restart()
            assert (await gateway_two.request(str(CHAT), "/x", b"2")).text == "2"
            await one.until(one.runners)
            assert (await gateway_one.request(str(CHAT), "/x", b"1")).text == "1"
            urls = {port.runners()[0][1].beat.runner_url for port in (one, two)}
    assert len(urls) == 2
    assert [call.orchestrator for call in pool.workers.calls] == ["two", "one"]


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (200, b"garbage"),
        (200, b'{"runner_id": ""}'),
        (200, b'{"runner_id": "x", "heartbeat_secret": "a\\r\\nHost: evil"}'),
        (200, b'{"runner_id": "' + b"x" * 5000 + b'"}'),
        (200, b" " * 3_000_000),
        (302, b""),
        (418, b"\xff\x00"),
        (500, b"Traceback"),
    ],
    ids=["garbage", "empty", "injection", "long", "huge", "elsewhere", "odd", "broken"],
)
async def test_an_orchestrator_that_makes_no_sense(status: int, text: bytes) -> None:
    """Odd answers are told in a sentence and harm neither the pool nor other orchestrators."""

    async def odd(request: web.Request) -> web.Response:
        return web.Response(status=status, body=text, headers={"Location": "http://127.0.0.1:9/"})

    app = web.Application()
    app.router.add_post("/runners/heartbeat", odd)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with orchestrator() as fair:
            pool = Pool({"fair": fair})
            pool.urls["odd"] = f"http://127.0.0.1:{runner.addresses[0][1]}"
            pool.offers = [offer(CHAT)]
            async with pool.running() as live:
                await eventually(lambda: live.runners["odd"].problem)
                await fair.until(fair.runners)
                assert live.runners["fair"].problem == ""
                assert live.runners["odd"].registered() == {}
    finally:
        await runner.cleanup()


# --- requests ------------------------------------------------------------------------------------


async def test_a_request_is_served() -> None:
    """Method, path, query and body arrive as sent; status, type and body come back."""

    async def serve(request: CallRequest, body: Body) -> Served:
        data = b"".join([chunk async for chunk in body])
        text = f"{request.method} {request.path} {request.headers['content-type']} ".encode()
        return Served(pieces(text, data), 201, {"content-type": "text/plain"})

    async with network(offer(CHAT)) as (_, pool, gateway):
        pool.workers.serve = serve
        reply = await gateway.request(
            str(CHAT),
            "/v1/chat%20x?a=b%26c&d",
            b"\0\1",
            method="PUT",
            headers={"Content-Type": "application/x-mine"},
        )
    assert (reply.status, reply.content_type) == (201, "text/plain")
    assert reply.body == b"PUT /v1/chat%20x?a=b%26c&d application/x-mine \0\1"
    (call,) = pool.workers.calls
    assert (call.app, call.source, call.orchestrator) == (CHAT, "live-runner", "main")
    assert (call.session, call.lasting, call.streaming) == ("", False, False)


async def test_an_answer_streams() -> None:
    """A chunk is with the customer before the next one exists."""
    seen = asyncio.Event()

    async def tokens() -> Body:
        yield b"data: one\n\n"
        await seen.wait()
        yield b"data: two\n\n"

    async def serve(request: CallRequest, body: Body) -> Served:
        assert request.streaming
        return Served(tokens(), headers={"content-type": "text/event-stream"})

    async with network(offer(CHAT)) as (_, pool, gateway):
        pool.workers.serve = serve
        asked = json.dumps({"stream": True, "messages": []}).encode()
        headers = {"Content-Type": "application/json"}
        async with gateway.stream(str(CHAT), "/v1/x", asked, headers=headers) as response:
            assert await response.content.readany() == b"data: one\n\n"
            seen.set()
            assert await response.content.read() == b"data: two\n\n"


async def test_a_request_streams() -> None:
    """A worker reads the first part of a body before the customer has sent the second."""
    seen = asyncio.Event()

    async def parts() -> Body:
        yield b"one"
        await seen.wait()
        yield b"two"

    async def serve(request: CallRequest, body: Body) -> Served:
        assert await anext(body) == b"one"
        seen.set()
        return await echo(request, body)

    async with network(offer(CHAT)) as (_, pool, gateway):
        pool.workers.serve = serve
        assert (await gateway.request(str(CHAT), "/x", parts())).body == b"two"


async def test_a_customer_hangs_up() -> None:
    """When the customer is gone the call is cancelled at the worker within a second."""

    async def for_ever() -> Body:
        while True:
            yield b"data: more\n\n"
            await asyncio.sleep(0.01)

    async def serve(request: CallRequest, body: Body) -> Served:
        return Served(for_ever(), headers={"content-type": "text/event-stream"})

    async with network(offer(CHAT)) as (_, pool, gateway):
        pool.workers.serve = serve
        async with gateway.stream(str(CHAT), "/x") as response:
            await response.content.readany()
        await pool.workers.until_idle()


# --- what goes wrong -----------------------------------------------------------------------------


def failing(failure: str, *chunks: bytes, kind: str = "text/event-stream") -> Serve:
    """A worker that fails after these chunks, in words that are nobody's business."""
    error = CallFailed(failure, "10.0.0.7 said: Traceback (most recent call last)")  # type: ignore[arg-type]

    async def answer() -> Body:
        for chunk in chunks:
            yield chunk
        raise error

    async def serve(request: CallRequest, body: Body) -> Served:
        if not chunks:
            raise error
        return Served(answer(), headers={"content-type": kind, "x-worker": "10.0.0.7"})

    return serve


@pytest.mark.parametrize(
    ("failure", "status", "text"),
    [
        ("insufficient-capacity", 503, "insufficient capacity\n"),
        ("no-such-app", 503, "insufficient capacity\n"),
        ("timeout", 504, "This took too long; send the request again.\n"),
        ("worker-failed", 502, "The worker failed; send the request again.\n"),
    ],
)
async def test_a_failure_has_a_status_and_a_sentence(failure: str, status: int, text: str) -> None:
    """Customers read what happened, and nothing about the worker it happened to."""
    async with network(offer(CHAT)) as (_, pool, gateway):
        pool.workers.serve = failing(failure)
        reply = await gateway.request(str(CHAT), "/x", b"?")
    assert (reply.status, reply.text) == (status, text)


async def test_a_stream_that_breaks_ends_with_an_error_event() -> None:
    """A stream that has begun tells its reader that it is not whole, in words of the pool."""
    async with network(offer(CHAT)) as (_, pool, gateway):
        pool.workers.serve = failing("worker-failed", b"data: one\n\n")
        async with gateway.stream(str(CHAT), "/x") as response:
            assert "x-worker" not in response.headers
            first, last = (await response.content.read()).split(b"\n\n\n\n", 1)
    assert first == b"data: one"
    kind, data = last.decode().strip().split("\n")
    assert kind == "event: error"
    assert json.loads(data.removeprefix("data: "))["error"]["code"] == "worker-failed"


async def test_an_answer_that_breaks_is_not_taken_for_whole() -> None:
    """Where no error can be told in words, the connection is broken off."""
    async with network(offer(CHAT)) as (_, pool, gateway):
        pool.workers.serve = failing("worker-failed", b"\x89PNG", kind="image/png")
        with pytest.raises(aiohttp.ClientError):
            await gateway.request(str(CHAT), "/x")
        await pool.workers.until_idle()


async def test_a_worker_that_answers_nonsense_is_not_passed_on() -> None:
    """A status that HTTP does not know for an answer is the pool's error to tell."""

    async def serve(request: CallRequest, body: Body) -> Served:
        return Served(pieces(), status=102)

    async with network(offer(CHAT)) as (_, pool, gateway):
        pool.workers.serve = serve
        reply = await gateway.request(str(CHAT), "/x")
    assert reply.status == 502


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
async def test_a_request_that_is_too_large(announced: bool) -> None:
    """A body over the limit is refused, announced or not, and takes no memory."""

    async def endless() -> Body:
        for _ in range(100):
            yield bytes(1000)

    body = bytes(100_000) if announced else endless()
    async with network(offer(CHAT), door={"body_bytes_max": 50_000}) as (_, _, gateway):
        reply = await gateway.request(str(CHAT), "/x", body)
    assert reply.status == 413
    assert reply.text == "A request may have 50000 bytes at most; send less.\n"


async def test_a_customer_who_sends_nothing() -> None:
    """Who stops in the middle of a body does not hold a place for ever."""

    async def stuck() -> Body:
        yield b"one"
        await asyncio.sleep(60)

    async with network(offer(CHAT), door={"idle_s": 0.2}) as (_, pool, gateway):
        reply = await gateway.request(str(CHAT), "/x", stuck())
    assert reply.status == 408
    assert pool.workers.running == 0


async def test_a_customer_who_reads_nothing() -> None:
    """Who does not read an answer loses it after a while, and the worker is free again."""
    begun = asyncio.Event()

    async def flood() -> Body:
        while True:
            begun.set()
            yield bytes(1 << 20)

    async def serve(request: CallRequest, body: Body) -> Served:
        return Served(flood(), headers={"content-type": "application/octet-stream"})

    async with network(offer(CHAT), door={"idle_s": 0.2}) as (_, pool, gateway):
        pool.workers.serve = serve
        async with gateway.stream(str(CHAT), "/x"):
            await begun.wait()
            await eventually(lambda: not pool.workers.running)


# --- headers and addresses -----------------------------------------------------------------------


async def test_the_orchestrators_headers_stay_in_the_pool() -> None:
    """A worker sees no session, token, payment or credential, forged or not."""
    forged = {
        "Livepeer-Session-Id": "mine",
        "Livepeer-Session-Token": "mine",
        "Livepeer-Session-Control": "http://evil/",
        "Livepeer-Anything": "x",
        "Authorization": "Bearer secret",
        "Cookie": "a=b",
        "X-Forwarded-For": "1.2.3.4",
        "Accept": "text/plain",
    }
    async with network(offer(CHAT)) as (_, pool, gateway):
        await gateway.request(str(CHAT), "/x", b"1", headers=forged)
    (call,) = pool.workers.calls
    assert call.headers == {"accept": "text/plain", "content-type": "application/octet-stream"}
    assert call.payment is None


async def test_an_address_cannot_be_guessed() -> None:
    """Without the secret part of the path nothing is served, whatever headers are sent."""
    async with network(offer(CHAT)) as (port, pool, gateway):
        url = port.runners()[0][1].beat.runner_url
        base, _, code = url.rpartition("/")
        wrong = f"{base}/{'0' * len(code)}", f"{base}", url.replace("/main/", "/other/")
        for each in wrong:
            async with gateway.http.post(each, headers={SESSION_HEADER: "s"}) as response:
                assert response.status == 404
        async with gateway.http.post(f"{url}/x") as response:  # right, but not from there
            assert response.status == 400
        async with gateway.http.post(
            aiohttp.client.URL(f"{url}/%2e%2e/x", encoded=True), headers={SESSION_HEADER: "s"}
        ) as response:
            assert response.status == 400
    assert pool.workers.calls == []


async def test_tickets_reach_the_books() -> None:
    """What a customer paid for a request, in a hundred tickets, is read to the wei."""
    async with (
        orchestrator(wei_per_usd=WEI_PER_USD) as port,
        LiveGateway(port.url, tickets=100) as gateway,
    ):
        pool = Pool({"main": port})
        pool.offers = [offer(CHAT)]
        pool.prices = {CHAT: RunnerPrice(usd="0.003", unit="fixed")}
        async with pool.running():
            await port.until(port.runners)
            assert (await gateway.request(str(CHAT), "/x", b"paid")).text == "paid"
        (call,) = pool.workers.calls
        assert call.payment is not None
        assert (call.payment.tickets, call.payment.price_wei) == (100, 10**12)
        assert call.payment.face_value_wei == FACE_VALUE_WEI
        assert call.payment.expected_value_wei == port.value_wei[str(CHAT)]
        assert round(call.payment.expected_value_wei) == 100 * 10**12
        assert port.debited_wei[str(CHAT)] == 10**12
        assert {name for name in call.headers if "livepeer" in name} == set()


async def test_forged_tickets_do_not_count() -> None:
    """Tickets sent along to an orchestrator that asks for none are not believed."""
    payment = Payment(sender="0x" + "ab" * 20, tickets=9, face_value_wei=10**18, win_prob=SURE)
    forged = {
        PAYMENT_HEADER: encode_payment(payment),
        SEGMENT_HEADER: encode_credentials(Credentials(manifest="m", session="m")),
    }
    async with network(offer(CHAT)) as (_, pool, gateway):
        await gateway.request(str(CHAT), "/x", b"1", headers=forged)
        await gateway.request(str(CHAT), "/x", b"1", headers={PAYMENT_HEADER: "garbage"})
    assert [call.payment for call in pool.workers.calls] == [None, None]


# --- sessions ------------------------------------------------------------------------------------


async def test_requests_of_a_session_belong_together() -> None:
    """All requests of a session carry one name, which is not the key to the session."""
    async with network(offer(VIDEO, 2, session=True)) as (_, pool, gateway):
        async with gateway.session(str(VIDEO)) as one, gateway.session(str(VIDEO)) as two:
            for session in (one, two, one):
                async with gateway.http.post(f"{session.app_url}/x", data=b"1") as response:
                    assert response.status == 200
            first, second, third = pool.workers.calls
            assert first.session == third.session != second.session
            assert first.lasting
            assert one.id not in first.session
        await eventually(lambda: len(pool.ended) == 2)
    assert {each.session for each in pool.ended} == {first.session, second.session}


async def test_a_session_cannot_take_a_whole_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its requests share one place, so there is a most of them at once; others are not affected."""
    monkeypatch.setattr(live_runner_http, "SESSION_REQUESTS_MAX", 3)

    async def waits(_: CallRequest, body: Body) -> Served:
        async def answer() -> Body:
            yield b"begun"
            await asyncio.Event().wait()

        return Served(answer(), headers={"content-type": "text/plain"})

    async with network(offer(VIDEO, session=True)) as (_, pool, gateway), AsyncExitStack() as stack:
        pool.workers.serve = waits
        one = await stack.enter_async_context(gateway.session(str(VIDEO)))
        other = await stack.enter_async_context(gateway.session(str(VIDEO)))
        for session, status in ((one, 200), (one, 200), (one, 200), (one, 503), (other, 200)):
            asked = gateway.http.post(session.app_url + "/talk", data=b"x")
            response = await stack.enter_async_context(asked)
            assert response.status == status
        assert pool.workers.running == 4


async def test_the_end_of_a_session_ends_what_runs_in_it() -> None:
    """When a session is released, by whomever, its requests are over at once."""

    async def for_ever() -> Body:
        yield b"data: one\n\n"
        await asyncio.sleep(60)

    async def serve(request: CallRequest, body: Body) -> Served:
        return Served(for_ever(), headers={"content-type": "text/event-stream"})

    async with network(offer(VIDEO, session=True)) as (_, pool, gateway):
        pool.workers.serve = serve
        async with AsyncExitStack() as stack:
            async with gateway.session(str(VIDEO)) as session:
                response = await stack.enter_async_context(
                    gateway.http.post(f"{session.app_url}/x", data=b"1")
                )
                assert await response.content.readany() == b"data: one\n\n"
            assert b"session-ended" in await response.content.read()
            await pool.workers.until_idle()


async def test_a_session_without_its_worker_is_stopped() -> None:
    """When the worker of a session is gone, the orchestrator releases it: nobody pays on."""
    async with orchestrator() as port, LiveGateway(port.url) as gateway:
        pool = Pool({"main": port})
        pool.offers = [offer(VIDEO, session=True)]
        async with pool.running() as live:
            await port.until(port.runners)
            async with gateway.session(str(VIDEO)) as session:
                async with gateway.http.post(f"{session.app_url}/x", data=b"1"):
                    pass
                (call,) = pool.workers.calls
                live.session_lost(
                    SessionLost(
                        app=VIDEO,
                        session=call.session,
                        customer="",
                        orchestrator="main",
                        reason="gone",
                    )
                )
                await port.until(lambda: not port.runners()[0][1].sessions)
                async with gateway.http.post(f"{session.app_url}/x") as response:
                    assert response.status == 404
            assert [each.session for each in pool.ended] == [call.session]


async def test_a_websocket_is_a_row_of_messages() -> None:
    """Messages in are the framed body of one call; lines of its answer are messages out."""

    async with network(offer(VIDEO, session=True)) as (_, pool, gateway):
        pool.workers.serve = measuring
        async with gateway.session(str(VIDEO)) as session:
            async with gateway.http.ws_connect(f"{session.app_url}/live?fps=5") as socket:
                for size in (1, 100_000, 3):
                    await socket.send_bytes(bytes(size))
                    assert await socket.receive_json() == {"size": size}
                await socket.send_str("text")
                assert await socket.receive_json() == {"size": 4}
            await pool.workers.until_idle()
            (call,) = pool.workers.calls
            assert (call.method, call.path, call.lasting) == ("POST", "/live?fps=5", True)


async def test_a_websocket_carries_a_servers_own_messages() -> None:
    """An answer that is framed goes out message by message: texts as texts, bytes as bytes."""

    async def mirror(request: CallRequest, body: Body) -> Served:
        async def answer() -> Body:
            unpacker = framing.Unpacker()
            async for chunk in body:
                for message in unpacker.told(chunk):
                    yield framing.pack(message[::-1])

        return Served(answer(), headers={"content-type": framing.CONTENT_TYPE})

    async with network(offer(VIDEO, session=True)) as (_, pool, gateway):
        pool.workers.serve = mirror
        async with gateway.session(str(VIDEO)) as session:
            async with gateway.http.ws_connect(f"{session.app_url}/own") as socket:
                await socket.send_str("caf\u00e9")
                assert await socket.receive_str() == "\u00e9fac"
                await socket.send_bytes(b"\x00\n\xff")
                assert await socket.receive_bytes() == b"\xff\n\x00"


@pytest.mark.parametrize("politely", [True, False])
async def test_a_worker_that_never_ends_is_let_go_after_its_websocket(politely: bool) -> None:
    """Whether the customer says goodbye or just vanishes, and although the worker says nothing."""
    reading = asyncio.Event()

    async def mute(_: CallRequest, body: Body) -> Served:
        async def read() -> None:
            async for _ in body:
                reading.set()

        async def answer() -> Body:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(read())
                yield b""
                await asyncio.Event().wait()

        return Served(answer(), headers={"content-type": "application/jsonl"})

    async with network(offer(VIDEO, session=True)) as (_, pool, gateway):
        pool.workers.serve = mute
        async with gateway.session(str(VIDEO)) as session:
            socket = await gateway.http.ws_connect(session.app_url + "/live")
            await socket.send_bytes(b"frame")
            async with asyncio.timeout(5):
                await reading.wait()
            if politely:
                await socket.close()
            else:
                connection = socket._response.connection
                assert connection is not None
                assert connection.transport is not None
                connection.transport.abort()
            await pool.workers.until_idle()


async def test_a_websocket_ends_with_words() -> None:
    """A full pool and a released session are told over a WebSocket too."""
    begun = asyncio.Event()

    async def waits(request: CallRequest, body: Body) -> Served:
        begun.set()
        await asyncio.sleep(60)
        raise AssertionError

    async with network(offer(VIDEO, session=True)) as (_, pool, gateway):
        async with gateway.session(str(VIDEO)) as session:
            pool.workers.serve = failing("insufficient-capacity")
            async with gateway.http.ws_connect(session.app_url + "/live") as socket:
                assert (await socket.receive_json())["error"]["message"] == "insufficient capacity"
                await socket.receive()
                assert socket.close_code == aiohttp.WSCloseCode.TRY_AGAIN_LATER
            pool.workers.serve = waits
            late = await gateway.http.ws_connect(session.app_url + "/live")
            await begun.wait()
        assert (await late.receive_json())["error"]["code"] == "session-ended"
        await late.close()
        await pool.workers.until_idle()


async def measuring(request: CallRequest, body: Body) -> Served:
    """Answers each message with a line that tells its size."""

    async def answer() -> Body:
        unpacker = framing.Unpacker()
        async for chunk in body:
            for message in unpacker.feed(chunk):
                yield json.dumps({"size": len(message)}).encode() + b"\n"

    return Served(answer(), headers={"content-type": "application/jsonl"})


@asynccontextmanager
async def live_channels(
    gateway: LiveGateway, session: Session
) -> AsyncIterator[tuple[Publisher, Subscriber]]:
    """What a customer has of a session with channels: one to write, one to read."""
    async with gateway.http.post(f"{session.app_url}/channels?fps=5") as response:
        assert response.status == 200, await response.text()
        inlet, outlet = (each["url"] for each in (await response.json())["channels"])
    tls = client_context(verify=False, alpn=("http/1.1",))
    publisher = Publisher(gateway.http, inlet, ssl=tls)
    yield publisher, Subscriber(gateway.http, outlet, ssl=tls, start=0)


async def read(subscriber: Subscriber) -> object:
    async with subscriber.piece() as piece:
        assert piece is not None
        return json.loads(b"".join([chunk async for chunk in piece.body]))


async def test_live_video_flows_over_channels() -> None:
    """Segments that a customer publishes reach a worker; what it says comes back as it goes."""
    async with network(offer(VIDEO, session=True)) as (port, pool, gateway):
        pool.workers.serve = measuring
        async with gateway.session(str(VIDEO)) as session:
            async with live_channels(gateway, session) as (publisher, subscriber):
                for size in (1, 200_000, 3):
                    await publisher.publish(bytes(size), "video/MP2T")
                    assert await read(subscriber) == {"size": size}
                await publisher.close()
                with pytest.raises(ChannelClosed):
                    await read(subscriber)
                await pool.workers.until_idle()
            (call,) = pool.workers.calls
            assert (call.path, call.lasting) == ("/live?fps=5", True)
            assert call.headers["content-type"] == framing.CONTENT_TYPE
        await eventually(lambda: port.runners()[0][1].sessions == {})


async def test_a_worker_that_never_ends_is_let_go_after_its_input(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may say its last words, and is not paid for more while the session goes on."""
    monkeypatch.setattr(live_runner_channels, "LAST_WORDS_S", 0.3)

    async def endless(_: CallRequest, body: Body) -> Served:
        async def answer() -> Body:
            yield b'{"words": "first"}\n'
            async for _ in body:
                pass
            yield b'{"words": "last"}\n'
            await asyncio.Event().wait()

        return Served(answer(), headers={"content-type": "application/jsonl"})

    async with network(offer(VIDEO, session=True)) as (_, pool, gateway):
        pool.workers.serve = endless
        async with gateway.session(str(VIDEO)) as session:
            async with live_channels(gateway, session) as (publisher, subscriber):
                assert await read(subscriber) == {"words": "first"}
                await publisher.close()
                assert await read(subscriber) == {"words": "last"}
                await pool.workers.until_idle()
                with pytest.raises(ChannelClosed):
                    await read(subscriber)


async def test_a_channel_of_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments that are empty, one after the other, hold no worker for ever."""
    monkeypatch.setattr(live_runner, "SILENT_S", 0.5)
    async with network(offer(VIDEO, session=True)) as (_, pool, gateway):
        pool.workers.serve = measuring
        async with gateway.session(str(VIDEO)) as session:
            async with live_channels(gateway, session) as (publisher, subscriber):
                await publisher.publish(b"one", "video/MP2T")
                assert await read(subscriber) == {"size": 3}
                with suppress(ChannelClosed):
                    while pool.workers.running:
                        await publisher.publish(b"", "video/MP2T")
                assert await read(subscriber) == {
                    "error": {
                        "code": "timeout",
                        "message": "This took too long; send the request again.",
                    }
                }


async def test_channels_end_with_their_session() -> None:
    """When the session is released the worker is let go, and nothing is left behind."""
    async with network(offer(VIDEO, session=True)) as (port, pool, gateway):
        pool.workers.serve = measuring
        async with gateway.session(str(VIDEO)) as session:
            async with live_channels(gateway, session) as (publisher, subscriber):
                await publisher.publish(b"one", "video/MP2T")
                assert await read(subscriber) == {"size": 3}
        await pool.workers.until_idle()
        with pytest.raises(ChannelClosed):
            await publisher.publish(b"two", "video/MP2T")
        assert {name.rpartition("-")[2] for name in port.channels} == {"o2r"}


async def test_a_failure_is_told_over_channels() -> None:
    """A customer of channels reads why nothing comes any more."""
    async with network(offer(VIDEO, session=True)) as (_, pool, gateway):
        pool.workers.serve = failing("insufficient-capacity")
        async with gateway.session(str(VIDEO)) as session:
            async with live_channels(gateway, session) as (_, subscriber):
                said = await read(subscriber)
    assert said == {"error": {"code": "insufficient-capacity", "message": "insufficient capacity"}}


async def test_a_hostile_frame_costs_its_sender_only() -> None:
    """A message over the limit closes its WebSocket; the app goes on serving."""
    async with network(offer(VIDEO, 2, session=True)) as (_, pool, gateway):
        async with gateway.session(str(VIDEO)) as session:
            async with gateway.http.ws_connect(session.app_url + "/x") as socket:
                await socket.send_bytes(bytes(framing.MESSAGE_BYTES_MAX + 1), compress=9)
                while not socket.closed:
                    await socket.receive()
            await pool.workers.until_idle()
            async with gateway.http.post(f"{session.app_url}/x", data=b"on") as response:
                assert await response.read() == b"on"


# --- the channel from the orchestrator -----------------------------------------------------------


async def test_a_flood_of_events_is_bounded() -> None:
    """Thousands of events, true or not, take little memory and cost no heartbeat."""
    async with orchestrator(interval_s=0.5, ttl_s=2.0) as port:
        pool = Pool({"main": port})
        pool.offers = [offer(VIDEO, session=True)]
        async with pool.running() as live:
            await port.until(port.runners)
            ((_, runner),) = port.runners()
            beats = len(port.beats)
            for number in range(3_000):
                event = {"event": "reserved", "session": f"forged-{number}"}
                runner.o2r.write(json.dumps(event).encode())
                runner.o2r.write(b"[" * 1000)
                if number % 100 == 0:
                    await asyncio.sleep(0)
            await port.until(lambda: len(port.beats) >= beats + 3)
            assert live.runners["main"].sessions() == {str(VIDEO): 0}
            assert len(port.beats) <= beats + 4


async def test_sessions_are_followed_over_the_channel() -> None:
    """Between heartbeats, the channel tells at once that a session has ended."""
    async with orchestrator(interval_s=30.0, ttl_s=90.0) as port, LiveGateway(port.url) as gateway:
        pool = Pool({"main": port})
        pool.offers = [offer(VIDEO, session=True)]
        async with pool.running() as live:
            await port.until(port.runners)
            await eventually(lambda: port.runners()[0][1].o2r.pieces)  # it listens
            async with gateway.session(str(VIDEO)):
                await eventually(lambda: live.runners["main"].sessions() == {str(VIDEO): 1})
            await eventually(lambda: pool.ended)
            assert len(port.beats) == 1
