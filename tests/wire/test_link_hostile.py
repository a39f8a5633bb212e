"""Hostile and sick peers: each costs only itself, and is told why where that is possible."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress

import pytest
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openpool.core.errors import Unavailable
from openpool.link.answers import PortLimits
from openpool.link.floods import Flood, FrameMeter
from openpool.link.http2 import Http2Limits
from openpool.link.interface import Reply
from openpool.link.server import WorkerPort
from openpool.link.tls import Identity, server_context
from tests.wire.kit import (
    REGISTER,
    Desk,
    RawPeer,
    eventually,
    raw_peer,
    raw_tls,
    read_all,
    task,
)

UPLOAD_HEAD = b"POST /t HTTP/1.1\r\nHost: p\r\nCredentials: token\r\n"
IMPATIENT = PortLimits(
    http2=Http2Limits(ping_every_s=0.1, ping_answer_s=0.1, stall_s=0.2),
    body_bytes_max=100_000,
    handshake_s=0.3,
    headers_s=0.2,
    idle_s=0.3,
    body_idle_s=0.2,
    linger_s=0.2,
    connections_max=5,
    uploads_max=2,
)


@pytest.fixture
async def impatient(identity: Identity, desk: Desk) -> AsyncIterator[WorkerPort]:
    """A port that loses its patience within tenths of a second."""
    port = WorkerPort(desk, server_context(identity), host="127.0.0.1", limits=IMPATIENT)
    async with port.running():
        yield port


async def assert_serves(port: WorkerPort) -> None:
    """An honest upload and an honest download go through."""
    async with raw_peer(port.port) as honest:
        upload = honest.request("POST", "/transcodeResults", {"credentials": "token"}, b"abc")
        assert await honest.answer(upload) == ("200", "OK 3")
        assert await honest.answer(honest.request("GET", "/s")) == ("200", "segment")


# Floods


def resets(peer: RawPeer) -> list[Frame]:
    frames: list[Frame] = []
    for stream_id in range(1, 2001, 2):
        block = peer.h2.encoder.encode(
            [(":method", "GET"), (":scheme", "https"), (":path", "/s"), (":authority", "p")]
        )
        frames.append(HeadersFrame(stream_id, block, flags=["END_HEADERS", "END_STREAM"]))
        frames.append(RstStreamFrame(stream_id, ErrorCodes.CANCEL))
    return frames


def pings(peer: RawPeer) -> list[Frame]:
    return [PingFrame(0, b"12345678")] * 5_000


def settings_frames(peer: RawPeer) -> list[Frame]:
    return [SettingsFrame(0, {4: 65_535})] * 200


def empty_data(peer: RawPeer) -> list[Frame]:
    block = peer.h2.encoder.encode(
        [(":method", "POST"), (":scheme", "https"), (":path", "/s"), (":authority", "p")]
    )
    return [HeadersFrame(1, block, flags=["END_HEADERS"]), *[DataFrame(1, b"")] * 10_000]


def continuations(peer: RawPeer) -> list[Frame]:
    return [HeadersFrame(1, b"\0"), *[ContinuationFrame(1, b"")] * 1_000]


def priorities(peer: RawPeer) -> list[Frame]:
    return [PriorityFrame(n, depends_on=0, stream_weight=1) for n in range(1, 1001, 2)]


def window_updates(peer: RawPeer) -> list[Frame]:
    return [WindowUpdateFrame(0, 1)] * 10_000


@pytest.mark.parametrize(
    "flood",
    [resets, pings, settings_frames, empty_data, continuations, priorities, window_updates],
)
async def test_a_flood_is_cut_off(
    port: WorkerPort, desk: Desk, flood: Callable[[RawPeer], list[Frame]]
) -> None:
    """The flooding connection is closed for it, while another one is served as usual."""
    async with raw_peer(port.port) as honest, raw_peer(port.port) as peer:
        honest_stream = honest.register()
        stream = await desk.arrival()
        peer.send_raw(*flood(peer))
        with suppress(ConnectionError):
            await peer.read_to_end()
        goodbyes = [e for e in peer.events if isinstance(e, ConnectionTerminated)]
        assert [e.error_code for e in goodbyes] in ([ErrorCodes.ENHANCE_YOUR_CALM], [])
        await eventually(lambda: len(port._connections) == 1)
        assert len(desk.downloads) < 300
        stream.notify(task(1))
        await honest.read_until(lambda: "DATA" in honest.stream_frames(honest_stream))
        await assert_serves(port)


def test_an_honest_peer_is_no_flood() -> None:
    """Who answers to what it is sent may do so as often as it must."""
    meter = FrameMeter(now=0.0)
    update = WindowUpdateFrame(0, 1).serialize() + PingFrame(0, bytes(8)).serialize()
    for _ in range(20_000):
        meter.allow(16_384)
        meter.feed(update, 1.0)
    with pytest.raises(Flood, match="PING"):
        meter.feed(PingFrame(0, bytes(8)).serialize() * 2_000, 1.0)


@given(
    st.lists(st.sampled_from([PingFrame(0, bytes(8)), DataFrame(1, b"x" * 100)]), max_size=20),
    st.integers(1, 40),
)
def test_the_meter_follows_frames_through_any_cut(frames: list[Frame], step: int) -> None:
    """However the bytes are cut, the same frames are counted."""
    stream = b"preface!" + b"".join(frame.serialize() for frame in frames)
    meter = FrameMeter(now=0.0, skip=8)
    for start in range(0, len(stream), step):
        meter.feed(stream[start : start + step], 0.0)
    assert meter._counts[6] == sum(isinstance(frame, PingFrame) for frame in frames)
    assert sum(meter._counts) == meter._counts[6]


# Sizes


async def test_an_oversized_header_list_is_refused(port: WorkerPort) -> None:
    """Header fields beyond 16 KiB end the connection, and only that."""
    async with raw_peer(port.port) as peer:
        peer.request("GET", "/s", {f"x-{n}": "y" * 4_000 for n in range(10)})
        await peer.read_to_end()
        assert "GOAWAY" in peer.kinds()
    await assert_serves(port)


@pytest.mark.parametrize("announced", [True, False])
async def test_an_oversized_upload_is_refused_on_http2(
    impatient: WorkerPort, announced: bool
) -> None:
    """413 and one sentence, before the body is complete."""
    headers = {"credentials": "token"} | ({"content-length": "120000"} if announced else {})
    async with raw_peer(impatient.port) as peer:
        await peer.read_until(lambda: peer.h2.remote_settings.initial_window_size > 100_000)
        await peer.read_until(lambda: peer.h2.outbound_flow_control_window > 1_000_000)
        upload = peer.request("POST", "/transcodeResults", headers, bytes(120_000), end=False)
        status, text = await peer.answer(upload)
        assert status == "413"
        assert "larger than 100000 bytes" in text


@pytest.mark.parametrize("announced", [True, False])
async def test_an_oversized_upload_is_refused_on_http1(
    impatient: WorkerPort, announced: bool
) -> None:
    """413 and one sentence over HTTP/1.1, too."""
    framing = b"Content-Length: 120000" if announced else b"Transfer-Encoding: chunked"
    async with raw_tls(impatient.port) as (reader, writer):
        writer.write(
            b"POST /t HTTP/1.1\r\nHost: p\r\nCredentials: token\r\n" + framing + b"\r\n\r\n"
        )
        if not announced:
            writer.write(b"1d4c0\r\n" + bytes(120_000) + b"\r\n")
        answer = await asyncio.wait_for(reader.readuntil(b"renditions"), 5)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"larger than 100000 bytes" in answer


async def test_a_waiting_handler_bounds_what_is_buffered(port: WorkerPort, desk: Desk) -> None:
    """A large upload stops at the stream's window until it is read, then arrives whole."""
    read = asyncio.Event()

    async def patient(body: AsyncIterator[bytes]) -> Reply:
        await read.wait()
        return await read_all(body)

    desk.on_upload = patient
    async with raw_peer(port.port) as peer:
        await peer.read_until(lambda: peer.h2.outbound_flow_control_window > 8_000_000)
        headers = {"credentials": "token"}
        upload = peer.request("POST", "/transcodeResults", headers, end=False)
        window = peer.h2.local_flow_control_window(upload)
        assert window == 4 << 20
        send_up_to(peer, upload, window)
        await peer.writer.drain()
        await eventually(lambda: bool(desk.uploads))
        peer.h2.ping(b"12345678")
        peer.flush()
        await peer.read_until(lambda: "PING" in peer.kinds())
        assert peer.h2.local_flow_control_window(upload) == 0
        read.set()
        await peer.read_until(lambda: peer.h2.local_flow_control_window(upload) > 1_000_000)
        send_up_to(peer, upload, 1_000_000)
        peer.h2.end_stream(upload)
        peer.flush()
        assert await peer.answer(upload) == ("200", f"OK {(4 << 20) + 1_000_000}")


def send_up_to(peer: RawPeer, stream_id: int, size: int) -> None:
    while size:
        piece = min(size, 16_384)
        peer.h2.send_data(stream_id, bytes(piece))
        size -= piece
    peer.flush()


async def test_too_many_uploads_are_put_off(impatient: WorkerPort, desk: Desk) -> None:
    """Beyond the limit an upload is told at once to come again, and then it may."""
    go_on = asyncio.Event()

    async def slow(body: AsyncIterator[bytes]) -> Reply:
        await go_on.wait()
        return Reply(200, "OK")

    desk.on_upload = slow
    async with raw_peer(impatient.port) as peer:
        headers = {"credentials": "token"}
        first, second, third = (peer.request("POST", "/t", headers, b"x") for _ in range(3))
        assert (await peer.answer(third))[0] == "503"
        go_on.set()
        assert await peer.answer(first) == await peer.answer(second) == ("200", "OK")
        assert await peer.answer(peer.request("POST", "/t", headers, b"x")) == ("200", "OK")


async def test_only_so_many_connections_are_let_in(impatient: WorkerPort) -> None:
    """A connection too many is closed, and its place is free again when another one leaves."""
    async with AsyncExitStack() as stack:
        for _ in range(5):
            await stack.enter_async_context(raw_peer(impatient.port))
        await eventually(lambda: impatient.connections == 5)
        async with raw_peer(impatient.port) as sixth:
            await sixth.read_to_end()
            assert sixth.frames == []
    await eventually(lambda: impatient.connections == 0)
    await assert_serves(impatient)


async def test_only_so_many_connections_per_address(identity: Identity, desk: Desk) -> None:
    """One address cannot take all places."""
    limits = PortLimits(connections_per_ip_max=1)
    port = WorkerPort(desk, server_context(identity), host="127.0.0.1", limits=limits)
    async with port.running(), raw_peer(port.port) as first:
        await first.read_until(lambda: bool(first.frames))
        async with raw_tls(port.port) as (reader, _):
            assert await asyncio.wait_for(reader.read(), 5) == b""
        assert port.connections == 1


# Slowness


async def test_silence_before_tls_is_cut_off(impatient: WorkerPort) -> None:
    """Who opens a connection and says nothing is let go after the handshake's time."""
    reader, writer = await asyncio.open_connection("127.0.0.1", impatient.port)
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


@pytest.mark.parametrize("start", [b"", b"GET /s HTTP/1.1\r\nHost: x\r\nX-Slow: "])
async def test_a_slow_http1_head_is_cut_off(impatient: WorkerPort, start: bytes) -> None:
    """A head that comes byte by byte, or not at all, has one deadline."""
    async with raw_tls(impatient.port) as (reader, writer):
        writer.write(start)
        async with asyncio.TaskGroup() as group:
            dribble = group.create_task(drip(writer))
            assert b"200" not in await asyncio.wait_for(reader.read(), 5)
            dribble.cancel()
    await eventually(lambda: impatient.connections == 0)


async def drip(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"x")
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("start", [True, False])
async def test_an_http2_connection_without_a_request_is_cut_off(
    impatient: WorkerPort, start: bool
) -> None:
    """With or without its preface, a connection must ask for something."""
    async with raw_peer(impatient.port, start=start) as peer:
        await peer.read_to_end()
    await eventually(lambda: impatient.connections == 0)


async def test_half_a_registration_is_ended(impatient: WorkerPort, desk: Desk) -> None:
    """A call whose request never completes ends with a sentence, properly."""
    async with raw_peer(impatient.port) as peer:
        stream = peer.register(REGISTER[:10], end=False)
        ending = await peer.ending(stream)
        assert "in time" in ending["grpc-message"]
        assert desk.requests == []


async def test_a_pausing_upload_is_ended(impatient: WorkerPort, desk: Desk) -> None:
    """An upload that stops midway gets 408; its handler is freed."""
    async with raw_peer(impatient.port) as peer:
        upload = peer.request("POST", "/t", {"credentials": "token"}, b"abc", end=False)
        status, text = await peer.answer(upload)
        assert status == "408"
        assert "too slowly" in text
        assert impatient.uploads == 0
    async with raw_tls(impatient.port) as (reader, writer):
        writer.write(
            b"POST /t HTTP/1.1\r\nHost: p\r\nCredentials: token\r\nContent-Length: 9\r\n\r\nx"
        )
        assert b"408" in await asyncio.wait_for(reader.readuntil(b"line"), 5)


async def test_a_download_that_is_not_read_is_broken_off(impatient: WorkerPort, desk: Desk) -> None:
    """A peer that asks for much and takes nothing does not keep it for ever."""
    desk.source = bytes(20_000_000)
    async with raw_peer(impatient.port) as peer:
        stream = peer.request("GET", "/s")
        await peer.read_until(lambda: "RSTSTREAM" in peer.stream_frames(stream))


async def test_a_frozen_worker_is_dropped(impatient: WorkerPort, desk: Desk) -> None:
    """A registered worker that answers no ping is gone, and whoever waits learns why."""
    async with raw_peer(impatient.port) as peer:
        peer.register()
        stream = await desk.arrival()
        reason = await asyncio.wait_for(stream.wait_closed(), 5)
        assert "did not answer a ping" in reason
        with pytest.raises(Unavailable, match="ping"):
            stream.notify(task(1))
        assert await asyncio.wait_for(desk.departures.get(), 5) == "left"


async def test_a_worker_that_answers_pings_stays(impatient: WorkerPort, desk: Desk) -> None:
    """Pings alone keep an idle registration open for as long as it likes."""
    async with raw_peer(impatient.port) as peer:
        stream_id = peer.register()
        stream = await desk.arrival()
        await peer.read_until(lambda: peer.kinds().count("PING") >= 5)
        stream.notify(task(1))
        await peer.read_until(lambda: "DATA" in peer.stream_frames(stream_id))


async def test_a_peer_that_only_sends_is_dropped(impatient: WorkerPort, desk: Desk) -> None:
    """Who asks and pings but never reads does not pile up answers for ever."""
    desk.source = bytes(50_000_000)
    async with raw_peer(impatient.port) as peer:
        peer.h2.update_settings({4: 1 << 30})
        peer.h2.increment_flow_control_window(1 << 30)
        peer.request("GET", "/s")
        await eventually(lambda: impatient.connections == 1)
        async with asyncio.TaskGroup() as group:
            pinging = group.create_task(ping_for_ever(peer))
            await eventually(lambda: impatient.connections == 0)
            pinging.cancel()


async def ping_for_ever(peer: RawPeer) -> None:
    with suppress(ConnectionError):
        while True:
            peer.send_raw(PingFrame(0, b"12345678"))
            await asyncio.sleep(0.02)


# Garbage


@given(st.binary(min_size=1, max_size=400), st.booleans())
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_garbage_costs_only_its_sender(identity: Identity, garbage: bytes, preface: bool) -> None:
    """Random bytes, with or without a proper beginning, never disturb the port."""

    async def story() -> None:
        port = WorkerPort(Desk(), server_context(identity), host="127.0.0.1", limits=IMPATIENT)
        async with port.running():
            async with raw_peer(port.port, start=preface) as peer:
                peer.writer.write(garbage)
                await peer.writer.drain()
            async with raw_tls(port.port) as (_, writer):
                writer.write(garbage)
                await writer.drain()
            await assert_serves(port)

    asyncio.run(story())


async def test_a_damaged_frame_costs_only_its_sender(port: WorkerPort) -> None:
    """A frame that breaks HTTP/2 is answered with GOAWAY."""
    async with raw_peer(port.port) as peer:
        peer.send_raw(DataFrame(1, b"data for a stream that was never opened"))
        await peer.read_to_end()
        assert "GOAWAY" in peer.kinds()
    await assert_serves(port)


async def test_another_http_method_is_refused(port: WorkerPort) -> None:
    """Only GET and POST are offered, on both versions of HTTP."""
    async with raw_peer(port.port) as peer:
        assert (await peer.answer(peer.request("DELETE", "/s")))[0] == "405"
    async with raw_tls(port.port) as (reader, writer):
        writer.write(b"PUT /s HTTP/1.1\r\nHost: p\r\nConnection: close\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 405 ")
