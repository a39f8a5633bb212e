"""Hostile and sick ends of a line: each costs its own line, and nobody else anything."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import msgspec
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, RequestReceived, StreamReset
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openpool.core.errors import NoCapacity, OpenPoolError, Unavailable
from openpool.link import line_server
from openpool.link.line import BrokenOff, Line, NotAnswered, OfferBoard, serve_line
from openpool.link.line_stream import CLIENT_LIMITS, SERVER_LIMITS
from openpool.link.server import PortLimits, WorkerPort
from openpool.link.tls import LINE_ALPN, Identity, Trust, server_context
from tests.wire.kit import PATIENCE_S, eventually, raw_tls
from tests.wire.linekit import OFFER, LineDesk, ask, echo, line_worker, soon

OFFERS = msgspec.json.encode([OFFER]) + b"\n"
HELLO = [(":status", "200"), ("authorization", "raw")]
IMPATIENT = PortLimits(
    line=replace(CLIENT_LIMITS, ping_every_s=0.1, ping_answer_s=0.1), handshake_s=1, drain_s=1
)


class RawWorker:
    """A worker made of the h2 library alone, which does whatever a test wants."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.h2 = H2Connection(H2Configuration(client_side=False, validate_outbound_headers=False))
        self.h2.initiate_connection()
        self.requests: asyncio.Queue[int] = asyncio.Queue()
        self.resets: list[int] = []
        self.taken = 0
        self.last = 0

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    def send_raw(self, *frames: Frame) -> None:
        self.writer.write(b"".join(frame.serialize() for frame in frames))

    def head(self, stream_id: int, *fields: tuple[str, str]) -> HeadersFrame:
        """A frame with these fields, whether they make sense or not."""
        return HeadersFrame(stream_id, self.h2.encoder.encode(fields), flags=["END_HEADERS"])

    async def read_to_end(self) -> None:
        """Do what HTTP/2 asks for, and note what the pool wants, until it hangs up."""
        while data := await self.read():
            for event in self.h2.receive_data(data):
                match event:
                    case RequestReceived():
                        self.last = event.stream_id
                        self.requests.put_nowait(event.stream_id)
                    case DataReceived():
                        self.taken += len(event.data)
                        self.h2.acknowledge_received_data(
                            event.flow_controlled_length, event.stream_id
                        )
                    case StreamReset():
                        self.resets.append(event.stream_id)
            self.flush()

    async def read(self) -> bytes:
        try:
            return await self.reader.read(1 << 16)
        except (ConnectionError, ssl.SSLError):
            return b""

    async def request(self) -> int:
        return await soon(self.requests.get())

    async def say_hello(self, offers: bytes = OFFERS) -> int:
        hello = await self.request()
        self.h2.send_headers(hello, HELLO)
        self.h2.send_data(hello, offers)
        self.flush()
        return hello


@asynccontextmanager
async def raw_worker(port: WorkerPort) -> AsyncIterator[RawWorker]:
    """A worker that has dialled, and has said nothing yet; it must be let go before the end."""
    async with raw_tls(port.port, LINE_ALPN) as (reader, writer):
        worker = RawWorker(reader, writer)
        worker.flush()
        reading = asyncio.create_task(worker.read_to_end())
        try:
            yield worker
        finally:
            reading.cancel()
            await asyncio.wait([reading])
            if not reading.cancelled():
                reading.result()


@pytest.fixture
def desk() -> LineDesk:
    return LineDesk()


@pytest.fixture
async def port(identity: Identity, desk: LineDesk) -> AsyncIterator[WorkerPort]:
    port = WorkerPort(
        desk, server_context(identity), host="127.0.0.1", limits=PortLimits(drain_s=1)
    )
    async with port.running():
        yield port


Break = Callable[[RawWorker], list[Frame]]


async def assert_costs_its_line(
    port: WorkerPort, identity: Identity, desk: LineDesk, harm: Break
) -> str:
    """After this harm the line is gone, with its call; another worker is served as before."""
    async with line_worker(port, identity) as honest, raw_worker(port) as worker:
        await worker.say_hello()
        line = await desk.next_line()
        calling = asyncio.create_task(ask(line))
        await worker.request()
        worker.send_raw(*harm(worker))
        with pytest.raises((NotAnswered, BrokenOff)):
            await soon(calling)
        reason = await soon(line.wait_closed())
        assert not line.open
        assert await ask(honest.line) == b"ping"
        return reason


# Floods


def pings(worker: RawWorker) -> list[Frame]:
    return [PingFrame(0, b"12345678")] * 5_000


def settings_frames(worker: RawWorker) -> list[Frame]:
    return [SettingsFrame(0, {4: 65_535})] * 200


def tiny_data(worker: RawWorker) -> list[Frame]:
    return [worker.head(worker.last, (":status", "200")), *[DataFrame(worker.last, b"x")] * 20_000]


def empty_data(worker: RawWorker) -> list[Frame]:
    return [DataFrame(1, b"")] * 20_000


def interim_answers(worker: RawWorker) -> list[Frame]:
    return [worker.head(worker.last, (":status", "103"))] * 3_000


def window_updates(worker: RawWorker) -> list[Frame]:
    return [WindowUpdateFrame(0, 1)] * 10_000


def continuations(worker: RawWorker) -> list[Frame]:
    return [HeadersFrame(worker.last, b"\0"), *[ContinuationFrame(worker.last, b"")] * 1_000]


def priorities(worker: RawWorker) -> list[Frame]:
    return [PriorityFrame(1, depends_on=0, stream_weight=1)] * 1_000


def resets(worker: RawWorker) -> list[Frame]:
    return [RstStreamFrame(worker.last, ErrorCodes.CANCEL)] * 5_000


@pytest.mark.parametrize(
    "flood",
    [
        pings,
        settings_frames,
        tiny_data,
        empty_data,
        interim_answers,
        window_updates,
        continuations,
        priorities,
        resets,
    ],
)
async def test_a_flood_is_cut_off(
    port: WorkerPort, identity: Identity, desk: LineDesk, flood: Break
) -> None:
    """Too many frames of any type end the line of who sends them."""
    assert "frames in a row" in await assert_costs_its_line(port, identity, desk, flood)


async def test_a_worker_that_refuses_every_call_is_no_flood(
    port: WorkerPort, desk: LineDesk
) -> None:
    """Each call entitles to one answer or one reset, however many calls there are."""
    async with raw_worker(port) as worker:
        await worker.say_hello()
        line = await desk.next_line()
        for _ in range(1_500):
            call = line.call("GET", "/x", {})
            entering = asyncio.create_task(call.__aenter__())
            worker.h2.reset_stream(await worker.request(), ErrorCodes.REFUSED_STREAM)
            worker.flush()
            with pytest.raises(NotAnswered, match="REFUSED_STREAM"):
                await entering
        assert line.open
        assert line.calls == 0


async def test_offers_that_change_all_the_time_are_heard_now_and_then(
    port: WorkerPort, desk: LineDesk
) -> None:
    """A thousand lists in a row are a few for the pool, and the last one is among them."""
    last = msgspec.json.encode([replace_capacity(77)]) + b"\n"
    async with raw_worker(port) as worker:
        hello = await worker.say_hello()
        await desk.next_line()
        for _ in range(1_000):
            worker.h2.send_data(hello, OFFERS)
        worker.h2.send_data(hello, last)
        worker.flush()
        heard = [await desk.next_offers()]
        while heard[-1][0].capacity != 77:
            heard.append(await desk.next_offers())
        assert len(heard) < 10


def replace_capacity(capacity: int):
    return msgspec.structs.replace(OFFER, capacity=capacity)


# Garbage


def no_status(worker: RawWorker) -> list[Frame]:
    return [worker.head(worker.last, ("content-type", "text/plain"))]


def odd_status(worker: RawWorker) -> list[Frame]:
    return [worker.head(worker.last, (":status", "OK"))]


def low_status(worker: RawWorker) -> list[Frame]:
    return [worker.head(worker.last, (":status", "099"))]


def two_statuses(worker: RawWorker) -> list[Frame]:
    return [worker.head(worker.last, (":status", "200"), (":status", "201"))]


def large_head(worker: RawWorker) -> list[Frame]:
    return [worker.head(worker.last, (":status", "200"), *[("x", "y" * 9_000)] * 3)]


def many_fields(worker: RawWorker) -> list[Frame]:
    fields = [(f"x-{n}", "") for n in range(150)]
    return [worker.head(worker.last, (":status", "200"), *fields)]


def bad_block(worker: RawWorker) -> list[Frame]:
    return [HeadersFrame(worker.last, b"\xff\xff\xff\xff", flags=["END_HEADERS"])]


def data_first(worker: RawWorker) -> list[Frame]:
    return [DataFrame(worker.last, b"x" * 100)]


def data_for_nobody(worker: RawWorker) -> list[Frame]:
    return [DataFrame(worker.last + 100, b"x" * 100)]


def pushed(worker: RawWorker) -> list[Frame]:
    block = worker.h2.encoder.encode([(":method", "GET"), (":path", "/")])
    return [PushPromiseFrame(worker.last, 2, block, flags=["END_HEADERS"])]


def too_much_data(worker: RawWorker) -> list[Frame]:
    chunk = DataFrame(worker.last, bytes(16_000))
    return [worker.head(worker.last, (":status", "200")), *[chunk] * 20]


def short_body(worker: RawWorker) -> list[Frame]:
    head = worker.head(worker.last, (":status", "200"), ("content-length", "100"))
    return [head, DataFrame(worker.last, b"x" * 99, flags=["END_STREAM"])]


def goodbye(worker: RawWorker) -> list[Frame]:
    return [GoAwayFrame(0, worker.last, ErrorCodes.NO_ERROR)]


@pytest.mark.parametrize(
    "harm",
    [
        no_status,
        odd_status,
        low_status,
        two_statuses,
        large_head,
        many_fields,
        bad_block,
        data_first,
        data_for_nobody,
        pushed,
        short_body,
        goodbye,
    ],
)
async def test_what_breaks_the_rules_ends_the_line(
    port: WorkerPort, identity: Identity, desk: LineDesk, harm: Break
) -> None:
    """Heads without sense, data out of order, broken promises: never a call that looks complete."""
    assert await assert_costs_its_line(port, identity, desk, harm)


async def test_more_than_a_window_ends_the_line(
    port: WorkerPort, identity: Identity, desk: LineDesk
) -> None:
    """Nobody reads the body, so more than a window of it is against the rules."""
    async with line_worker(port, identity) as honest, raw_worker(port) as worker:
        await worker.say_hello()
        line = await desk.next_line()
        call = line.call("GET", "/x", {})
        entering = asyncio.create_task(call.__aenter__())
        await worker.request()
        worker.send_raw(*too_much_data(worker))
        answer = await soon(entering)
        assert await soon(line.wait_closed())
        with pytest.raises(BrokenOff):
            await soon(answer.body.read(1 << 30))
        await call.leave()
        assert await ask(honest.line) == b"ping"


@given(st.binary(min_size=1, max_size=400), st.booleans())
@settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_garbage_costs_only_its_line(identity: Identity, garbage: bytes, greeted: bool) -> None:
    """Random bytes, instead of the greeting or after it, never disturb the port."""

    async def story() -> None:
        port = WorkerPort(
            LineDesk(), server_context(identity), host="127.0.0.1", limits=PortLimits(drain_s=0.1)
        )
        async with port.running():
            async with raw_tls(port.port, LINE_ALPN) as (_, writer):
                worker = RawWorker(_, writer)
                if greeted:
                    worker.flush()
                writer.write(garbage)
                await writer.drain()
            async with line_worker(port, identity) as honest:
                assert await ask(honest.line) == b"ping"

    asyncio.run(story())


# Who it is, and what it offers


@pytest.mark.parametrize(
    "fields",
    [
        [(":status", "404")],
        [(":status", "200")],
        [(":status", "500"), ("authorization", "raw")],
        [(":status", "200"), ("authorization", "x" * 600)],
    ],
)
async def test_a_worker_without_a_token_is_let_go(
    port: WorkerPort, desk: LineDesk, fields: list[tuple[str, str]]
) -> None:
    """No token, a strange one, or no hello at all end the line with a sentence."""
    async with raw_worker(port) as worker:
        worker.h2.send_headers(await worker.request(), fields)
        worker.flush()
        assert "did not say who it is" in await desk.ending()
    await eventually(lambda: port.connections == 0)


@pytest.mark.parametrize(
    "offers",
    [
        b"garbage\n",
        b'{"app": "x"}\n',
        b"[" * 5000 + b"\n",
        b'[{"app":{"pipeline":"llm","model":"x"},"capacity":-1}]\n',
        b'[{"app":{"pipeline":"llm","model":"x"},"capacity":1000000}]\n',
        b'[{"app":{"pipeline":"","model":"x"},"capacity":1}]\n',
        b'[{"app":{"pipeline":"a/b","model":"x"},"capacity":1}]\n',
        b'[{"app":{"pipeline":"llm","model":"x\\u0000"},"capacity":1}]\n',
        b'[{"app":{"pipeline":"llm","model":"' + b"x" * 300 + b'"},"capacity":1}]\n',
        msgspec.json.encode([OFFER] * 300) + b"\n",
        b"x" * 300_000,
    ],
)
async def test_offers_that_cannot_be_read_end_the_line(
    port: WorkerPort, desk: LineDesk, offers: bytes
) -> None:
    """Wrong JSON, shape, size, number and names are told in one sentence."""
    async with raw_worker(port) as worker:
        hello = await worker.say_hello(b"[]\n")
        for start in range(0, len(offers), 10_000):
            await eventually(lambda: worker.h2.local_flow_control_window(hello) > 10_000)
            worker.h2.send_data(hello, offers[start : start + 10_000])
            worker.flush()
        assert (await desk.ending()).startswith("BadMessage: ")
    await eventually(lambda: port.connections == 0)


async def test_a_worker_may_take_fewer_calls_than_we_would_make(
    port: WorkerPort, desk: LineDesk
) -> None:
    """Its own limit on streams fails the calls beyond it, and nothing else."""
    async with raw_worker(port) as worker:
        await worker.say_hello()
        worker.h2.update_settings({3: 2})
        worker.flush()
        line = await desk.next_line()
        first = line.call("GET", "/x", {})
        entering = asyncio.create_task(first.__aenter__())
        await worker.request()
        await eventually(lambda: limit_of(port) == 2)
        with pytest.raises((NotAnswered, NoCapacity)):
            await soon(line.call("GET", "/x", {}).__aenter__())
        worker.h2.send_headers(worker.last, [(":status", "200")], end_stream=True)
        worker.flush()
        assert (await soon(entering)).status == 200
        await first.leave()
        assert line.open


def limit_of(port: WorkerPort) -> int:
    (connection,) = port._lines
    return connection.h2.remote_settings.max_concurrent_streams


# Sickness


async def test_a_frozen_worker_loses_its_line(identity: Identity, desk: LineDesk) -> None:
    """A worker that answers no ping is given up, with its calls."""
    port = WorkerPort(desk, server_context(identity), host="127.0.0.1", limits=IMPATIENT)
    async with port.running(), raw_tls(port.port, LINE_ALPN) as (reader, writer):
        worker = RawWorker(reader, writer)
        worker.flush()
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(worker.read_to_end())
            await worker.say_hello()
            line = await desk.next_line()
            calling = group.create_task(fails(line))
            await worker.request()
            reading.cancel()
        assert "did not answer a ping" in calling.result()
        assert "did not answer a ping" in await desk.ending()


async def fails(line: Line) -> str:
    with pytest.raises(NotAnswered) as caught:
        await soon(ask(line))
    return str(caught.value)


async def test_a_worker_that_never_says_hello_is_given_up(
    port: WorkerPort, desk: LineDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who answers pings but not the first question does not stay."""
    monkeypatch.setattr("openpool.link.line_client.HELLO_S", 0.05)
    async with raw_worker(port) as worker:
        await worker.request()
        assert (await desk.ending()).startswith("Timeout: ")
    await eventually(lambda: port.connections == 0)


# A worker whose pool is sick


@asynccontextmanager
async def strange_pool(
    identity: Identity, talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]
) -> AsyncIterator[int]:
    """Something that listens like a pool; the number of its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)  # type: ignore[misc]
        except (ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_context(identity))
    async with server:
        yield server.sockets[0].getsockname()[1]


async def serving_ends(number: int, identity: Identity) -> OpenPoolError:
    limits = replace(SERVER_LIMITS, ping_every_s=0.1, ping_answer_s=0.1)
    with pytest.raises(Unavailable) as caught:
        await asyncio.wait_for(
            serve_line(
                "127.0.0.1",
                number,
                Trust.exact(identity.fingerprint),
                token="token",
                offers=OfferBoard([OFFER]),
                handler=echo,
                limits=limits,
            ),
            PATIENCE_S,
        )
    return caught.value


async def test_a_pool_that_talks_garbage_is_left(identity: Identity) -> None:
    """A worker goes away from a pool that breaks HTTP/2, to dial again later."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(range(256)) * 10)
        await reader.read()

    async with strange_pool(identity, talk) as number:
        assert "broke HTTP/2" in str(await serving_ends(number, identity))


async def test_a_frozen_pool_is_left(identity: Identity) -> None:
    """A pool that takes connections and answers no ping is no pool."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(PATIENCE_S)

    async with strange_pool(identity, talk) as number:
        assert "did not answer a ping" in str(await serving_ends(number, identity))


async def test_a_pool_that_never_asks_is_left(
    identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pool that only answers pings is left after a while."""
    monkeypatch.setattr(line_server, "HELLO_WITHIN_S", 0.3)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        h2 = H2Connection(H2Configuration(client_side=True))
        h2.initiate_connection()
        writer.write(h2.data_to_send())
        while data := await reader.read(1 << 16):
            h2.receive_data(data)
            writer.write(h2.data_to_send())

    async with strange_pool(identity, talk) as number:
        assert "did not ask who we are" in str(await serving_ends(number, identity))
