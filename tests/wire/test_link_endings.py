"""How streams end, frame by frame. A wrong ending stops a stock worker for good, or for ever."""

import asyncio

import pytest
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, DataReceived
from hyperframe.frame import RstStreamFrame

from openpool.core.errors import Unauthorized, Unavailable
from openpool.link.interface import Caller, Ended, GrpcStatus, RegistrationStream
from openpool.link.server import WorkerPort
from openpool.wire.grpc import Deframer, frame
from openpool.wire.messages import RegisterRequest, decode_notification
from tests.wire.kit import REGISTER, Desk, RawPeer, Register, eventually, raw_peer, task

PROPER = ["HEADERS", "HEADERS+END"]


def raising(error: Exception) -> Register:
    async def register(
        request: RegisterRequest, stream: RegistrationStream, caller: Caller
    ) -> None:
        raise error

    return register


async def returning(request: RegisterRequest, stream: RegistrationStream, caller: Caller) -> None:
    """Serve nothing and say goodbye."""


def assert_proper(peer: RawPeer, stream_id: int) -> None:
    """Header fields first, an end only with trailers, and no reset at all."""
    frames = peer.stream_frames(stream_id)
    assert [f for f in frames if f != "DATA"] == PROPER
    assert not any(isinstance(f, RstStreamFrame) for f in peer.frames)


@pytest.mark.parametrize(
    ("register", "status", "message"),
    [
        (returning, "0", None),
        (raising(Ended(GrpcStatus.UNKNOWN, "invalid secret")), "2", "invalid secret"),
        (raising(Ended(GrpcStatus.UNKNOWN, "zero capacity")), "2", "zero capacity"),
        (raising(Ended(GrpcStatus.UNAUTHENTICATED, "revoked")), "16", "revoked"),
        (raising(Ended(GrpcStatus.RESOURCE_EXHAUSTED, "100 %")), "8", "100 %25"),
        (raising(Unauthorized("no such token")), "13", "no such token"),
    ],
)
async def test_a_registration_ends_as_its_handler_says(
    port: WorkerPort, desk: Desk, register: Register, status: str, message: str | None
) -> None:
    """Returning is OK, `Ended` is its own status, and the message arrives letter by letter."""
    desk.on_register = register
    async with raw_peer(port.port) as peer:
        stream = peer.register()
        ending = await peer.ending(stream)
        assert ending["grpc-status"] == status
        assert ending.get("grpc-message") == message
        assert_proper(peer, stream)


async def test_our_mistake_ends_a_registration_as_internal_without_a_trace(
    port: WorkerPort, desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    """A handler that fails shows its peer nothing of how, and the port goes on."""
    desk.on_register = raising(ZeroDivisionError("secret detail"))
    async with raw_peer(port.port) as peer:
        stream = peer.register()
        ending = await peer.ending(stream)
        assert ending["grpc-status"] == "13"
        assert "secret" not in ending["grpc-message"]
        assert_proper(peer, stream)
        assert "secret detail" in caplog.text
        desk.on_register = returning
        assert (await peer.ending(peer.register()))["grpc-status"] == "0"


async def test_shutting_down_ends_registrations_as_unavailable(
    port: WorkerPort, desk: Desk
) -> None:
    """Open streams get trailers first and only then goodbye, and their handlers are cancelled."""
    async with raw_peer(port.port) as peer:
        stream = peer.register()
        await desk.arrival()
        await port.close()
        await peer.read_to_end()
        (goodbye,) = [e for e in peer.events if isinstance(e, ConnectionTerminated)]
        assert goodbye.error_code == ErrorCodes.NO_ERROR
        assert (await peer.ending(stream))["grpc-status"] == "14"
        assert_proper(peer, stream)
        assert peer.kinds().index("GOAWAY") > peer.kinds().index("HEADERS")
        assert desk.departures.get_nowait() == "left"
        assert port.connections == 0


async def test_a_draining_port_sends_new_registrations_away(port: WorkerPort, desk: Desk) -> None:
    """Who is registered stays so; a new registration and a new upload are told to come back."""
    async with raw_peer(port.port) as peer:
        first = peer.register()
        await desk.arrival()
        port.drain()
        second = peer.register()
        assert (await peer.ending(second))["grpc-status"] == "14"
        upload = peer.request("POST", "/transcodeResults", {"credentials": "token"}, b"abc")
        assert (await peer.answer(upload))[0] == "503"
        assert not peer.ended(first)


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (frame(b"\xff\xff\xff\xff"), "not this protobuf"),
        (b"\1\0\0\0\0", "uncompressed"),
        (b"\0\xff\xff\xff\xff", "longer than"),
        (REGISTER[:-1], "before its request was complete"),
    ],
)
async def test_a_bad_request_ends_with_one_sentence(
    port: WorkerPort, desk: Desk, message: bytes, sentence: str
) -> None:
    """Garbage, compression, absurd lengths and half a message never reach the handler."""
    async with raw_peer(port.port) as peer:
        stream = peer.register(message)
        ending = await peer.ending(stream)
        assert ending["grpc-status"] == "2"
        assert sentence in ending["grpc-message"]
        assert_proper(peer, stream)
        assert desk.requests == []


async def test_another_method_is_unimplemented(port: WorkerPort) -> None:
    """Calls that the port does not offer end as UNIMPLEMENTED."""
    async with raw_peer(port.port) as peer:
        headers = {"content-type": "application/grpc", "te": "trailers"}
        stream = peer.request("POST", "/net.Orchestrator/Ping", headers, REGISTER)
        assert (await peer.ending(stream))["grpc-status"] == "12"
        assert_proper(peer, stream)


async def test_two_registrations_share_a_connection(port: WorkerPort, desk: Desk) -> None:
    """Each has its own handler, its own notifications and its own end."""
    async with raw_peer(port.port) as peer:
        streams = [peer.register(), peer.register()]
        first, second = await desk.arrival(), await desk.arrival()
        first.notify(task(1))
        second.notify(task(2))
        await peer.read_until(lambda: all(peer.of(DataReceived, s) for s in streams))
        assert [notified(peer, s) for s in streams] == [[1], [2]]
        peer.h2.reset_stream(streams[0], ErrorCodes.CANCEL)
        peer.flush()
        assert "CANCEL" in await asyncio.wait_for(first.wait_closed(), 5)
        with pytest.raises(Unavailable):
            first.notify(task(3))
        second.notify(task(4))
        await peer.read_until(lambda: notified(peer, streams[1]) == [2, 4])


def notified(peer: RawPeer, stream_id: int) -> list[int]:
    data = b"".join(event.data for event in peer.of(DataReceived, stream_id))
    return [decode_notification(message).task_id for message in Deframer(1000).feed(data)]


async def test_hanging_up_is_noticed(port: WorkerPort, desk: Desk) -> None:
    """A worker whose connection breaks is gone at once."""
    async with raw_peer(port.port) as peer:
        peer.register()
        stream = await desk.arrival()
    assert await asyncio.wait_for(stream.wait_closed(), 5)
    await eventually(lambda: port.connections == 0)


async def test_a_refused_upload_ends_cleanly_while_it_is_being_sent(
    port: WorkerPort, desk: Desk
) -> None:
    """The answer comes before the body is complete, whole, and without a reset."""
    async with raw_peer(port.port) as peer:
        upload = peer.request(
            "POST", "/transcodeResults", {"credentials": "wrong"}, bytes(50_000), end=False
        )
        assert await peer.answer(upload) == ("401", "Unauthorized")
        assert peer.stream_frames(upload) == ["HEADERS", "DATA+END"]
        await peer.read_until(lambda: peer.h2.local_flow_control_window(upload) > 1_000_000)
        for _ in range(50):
            peer.h2.send_data(upload, bytes(16_000))
        peer.h2.end_stream(upload)
        peer.flush()
        again = peer.request("POST", "/transcodeResults", {"credentials": "token"}, b"abc")
        assert await peer.answer(again) == ("200", "OK 3")
        assert "RSTSTREAM" not in peer.kinds()


async def test_a_worker_that_does_not_read_costs_a_bounded_queue(
    port: WorkerPort, desk: Desk
) -> None:
    """Notifications without a window wait, in order; when too many wait, `notify` says so."""
    async with raw_peer(port.port) as peer:
        peer.h2.update_settings({4: 0})  # INITIAL_WINDOW_SIZE: nothing may be sent
        stream_id = peer.register()
        stream = await desk.arrival()
        sent = notify_until_refused(stream)
        assert 100 < sent < 1_000
        peer.h2.increment_flow_control_window(1_000_000, stream_id)
        peer.flush()
        await peer.read_until(lambda: notified(peer, stream_id) == list(range(sent)))
        stream.notify(task(sent))
        await peer.read_until(lambda: notified(peer, stream_id)[-1] == sent)


def notify_until_refused(stream: RegistrationStream) -> int:
    for sent in range(10_000):
        try:
            stream.notify(task(sent))
        except Unavailable as error:
            assert "does not read" in str(error)  # noqa: PT017  it must be this very refusal
            return sent
    raise AssertionError("the queue has no bound")
