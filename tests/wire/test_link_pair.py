"""Our client against our port: registrations, segments and results, and what can go wrong."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvloop

from openpool.core.errors import BadMessage, Timeout, Unauthorized, Unavailable
from openpool.link.client import Answer, TranscoderClient
from openpool.link.http2 import Http2Limits
from openpool.link.interface import Caller, Ended, GrpcStatus, RegistrationStream, Reply
from openpool.link.registration import Registration
from openpool.link.server import WorkerPort
from openpool.link.tls import Identity, Trust, load_or_create_identity, server_context
from openpool.wire import livepeer_pb2 as pb
from openpool.wire.grpc import frame
from openpool.wire.messages import (
    BadTask,
    Notification,
    RegisterRequest,
    encode_notification,
)
from openpool.wire.results import RenditionData, ResultParser, read_headers
from tests.wire.kit import Desk, eventually, raw_tls, task

RENDITIONS = [
    RenditionData(data=bytes(range(256)) * 4000, pixels=13_824_000, perceptual_hash=b"\0\0\0\1x"),
    RenditionData(data=b"second", pixels=6, container="mp4"),
]


def client_of(port: WorkerPort, trust: Trust, secret: str = "token") -> TranscoderClient:
    return TranscoderClient(
        "127.0.0.1", port.port, secret=secret, trust=trust, worker_version="0.1.0"
    )


@pytest.fixture
async def client(port: WorkerPort, identity: Identity) -> AsyncIterator[TranscoderClient]:
    async with client_of(port, Trust.exact(identity.fingerprint)) as client:
        yield client


def register(client: TranscoderClient, capacity: int = 2):
    return client.register(capacity=capacity, capabilities=0b101, version="0.9.1")


async def following(registration: Registration) -> Notification:
    return await asyncio.wait_for(anext(registration), 5)


async def test_a_registration_carries_notifications_in_order(
    desk: Desk, client: TranscoderClient, identity: Identity
) -> None:
    """The port learns who registers; tasks, teardowns and cancellations arrive as sent."""
    async with register(client) as registration:
        stream = await desk.arrival()
        assert registration.fingerprint == identity.fingerprint
        sent = [task(1), Notification(session="s1"), Notification(cancelled_task_id=1), task(2)]
        for notification in sent:
            stream.notify(notification)
        assert [await following(registration) for _ in sent] == sent
    assert desk.requests == [
        RegisterRequest(secret="token", capacity=2, capabilities=0b101, version="0.9.1")
    ]
    caller = desk.callers[0]
    assert caller.headers["openpool-worker"] == "0.1.0"
    assert caller.authority == f"127.0.0.1:{caller.authority.rpartition(':')[2]}"
    assert caller.peer.startswith("127.0.0.1:")


async def test_leaving_is_noticed_by_the_port(desk: Desk, client: TranscoderClient) -> None:
    """A closed registration ends the handler's wait, and iterating it ends quietly."""
    async with register(client) as registration:
        stream = await desk.arrival()
        registration.close()
        assert [n async for n in registration] == []
    assert await asyncio.wait_for(stream.wait_closed(), 5)


@pytest.mark.parametrize(
    "ended",
    [
        Ended(GrpcStatus.OK),
        Ended(GrpcStatus.UNKNOWN, "invalid secret"),
        Ended(GrpcStatus.UNAUTHENTICATED, "the token is revoked; enrol again"),
        Ended(GrpcStatus.RESOURCE_EXHAUSTED, "prozentual: 100 % äöü"),
    ],
)
async def test_an_ending_reaches_the_client(
    desk: Desk, client: TranscoderClient, ended: Ended
) -> None:
    """What was sent before the end is delivered first, then `Ended` with status and message."""

    async def end(request: RegisterRequest, stream: RegistrationStream, caller: Caller) -> None:
        stream.notify(task(7))
        raise ended

    desk.on_register = end
    async with register(client) as registration:
        assert await following(registration) == task(7)
        with pytest.raises(Ended) as caught:
            await following(registration)
        assert (caught.value.status, caught.value.message) == (ended.status, ended.message)
        assert not registration.is_open


async def test_a_broken_connection_is_unavailable(
    port: WorkerPort, desk: Desk, client: TranscoderClient
) -> None:
    """A server that hangs up, and nobody there at all, are Unavailable."""
    async with register(client) as registration:
        await desk.arrival()
        for connection in list(port._connections):
            connection.abort("the cable was cut")
        with pytest.raises(Unavailable, match="gone"):
            await following(registration)
    await port.close()
    with pytest.raises(Unavailable, match="cannot connect"):
        async with register(client):
            pass


async def test_a_frozen_server_is_noticed(port: WorkerPort, identity: Identity, desk: Desk) -> None:
    """A server that answers no ping is given up."""
    limits = Http2Limits(ping_every_s=0.05, ping_answer_s=0.05)
    async with (
        TranscoderClient(
            "127.0.0.1",
            port.port,
            secret="token",
            trust=Trust.exact(identity.fingerprint),
            limits=limits,
        ) as client,
        register(client) as registration,
    ):
        await desk.arrival()
        for connection in list(port._connections):
            connection.transport.pause_reading()
        with pytest.raises(Unavailable, match="did not answer a ping"):
            await following(registration)
        for connection in list(port._connections):
            connection.transport.resume_reading()


async def test_a_wrong_certificate_stops_everything(port: WorkerPort, desk: Desk) -> None:
    """With another pin nothing is sent: no registration, no result, no request at all."""
    async with client_of(port, Trust.exact("ab" * 32)) as client:
        with pytest.raises(Unauthorized, match="nothing was sent"):
            async with register(client):
                pass
        with pytest.raises(Unauthorized, match="nothing was sent"):
            await client.post_result(1, RENDITIONS, 5)
        with pytest.raises((Unauthorized, Unavailable)):
            async with client.fetch(f"https://127.0.0.1:{port.port}/s"):
                pass
    assert (desk.requests, desk.uploads, desk.downloads) == ([], [], [])


async def test_authorities_are_asked_where_wanted(port: WorkerPort, desk: Desk) -> None:
    """Under `Trust.authorities` a self-signed certificate is refused before anything is sent."""
    async with client_of(port, Trust.authorities()) as client:
        with pytest.raises(Unauthorized, match="not trusted"):
            async with register(client):
                pass
        with pytest.raises(Unauthorized, match="not trusted"):
            await client.post_error(1, "x")
    assert (desk.requests, desk.uploads) == ([], [])


async def test_a_restarted_orchestrator_gets_no_stale_result(
    identity: Identity, desk: Desk, tmp_path: Path
) -> None:
    """First use remembers the certificate; after a restart old results are held back."""
    first = WorkerPort(desk, server_context(identity), host="127.0.0.1")
    second_identity = load_or_create_identity(tmp_path)
    async with first.running():
        client = client_of(first, Trust.first_use())
        async with client, register(client) as registration:
            old = registration.fingerprint
            assert (await client.post_error(1, "fine", incarnation=old)).status == 200
            await first.close()
            second = WorkerPort(
                desk, server_context(second_identity), host="127.0.0.1", port=first.port
            )
            async with second.running():
                with pytest.raises(Unauthorized, match="nothing was sent"):
                    await client.post_error(1, "stale", incarnation=old)
                async with register(client) as again:
                    assert again.fingerprint == second_identity.fingerprint != old
                    assert (await client.post_error(2, "new")).status == 200
                    with pytest.raises(Unauthorized, match="nothing was sent"):
                        await client.post_error(1, "stale", incarnation=old)
    assert [caller.headers["taskid"] for caller in desk.uploads] == ["1", "2"]


async def test_before_the_first_use_nothing_is_posted(port: WorkerPort) -> None:
    """Without a registration no certificate is known, so the secret stays here."""
    async with client_of(port, Trust.first_use()) as client:
        with pytest.raises(Unavailable, match="register first"):
            await client.post_error(1, "x")


async def test_a_segment_is_fetched(port: WorkerPort, desk: Desk, client: TranscoderClient) -> None:
    """All bytes arrive, their number is known before, and `via` names another way to them."""
    desk.source = bytes(range(256)) * 5000
    url = f"https://127.0.0.1:{port.port}/a/b?c=d"
    async with client.fetch(url) as source:
        assert source.length == len(desk.source)
        assert b"".join([chunk async for chunk in source.body]) == desk.source
    far = "https://orchestrator.example:8935/a/b?c=d"
    async with client.fetch(far, via=f"127.0.0.1:{port.port}") as source:
        assert len(b"".join([chunk async for chunk in source.body])) == len(desk.source)
    assert desk.downloads == ["/a/b?c=d"] * 2


async def test_a_segment_that_cannot_be_had_says_why(
    port: WorkerPort, desk: Desk, client: TranscoderClient
) -> None:
    """Not found, too large, too slow and broken off each have their own error."""
    base = f"https://127.0.0.1:{port.port}"
    with pytest.raises(Unavailable, match="404"):
        await drain_source(client, f"{base}/missing")
    with pytest.raises(BadMessage, match="larger than 6 bytes"):
        await drain_source(client, f"{base}/s", limit=6)
    with pytest.raises(Unavailable):
        await drain_source(client, "https://127.0.0.1:1/s")
    with pytest.raises(Unavailable):
        await drain_source(client, "no url at all")
    desk._pieces = endless  # type: ignore[method-assign]
    desk.source = bytes(1000)
    with pytest.raises(Timeout):
        await drain_source(client, f"{base}/s", timeout_s=0.05)
    desk._pieces = failing  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await drain_source(client, f"{base}/s")


async def drain_source(client: TranscoderClient, url: str, **options: float) -> None:
    async with client.fetch(url, **options) as source:  # type: ignore[arg-type]
        async for _ in source.body:
            pass


async def endless() -> AsyncIterator[bytes]:
    yield b"x"
    await asyncio.Event().wait()


async def failing() -> AsyncIterator[bytes]:
    yield b"x"
    raise Unavailable("the orchestrator is gone")


async def test_a_result_arrives_whole(desk: Desk, client: TranscoderClient) -> None:
    """Renditions, hashes, pixels, task and secret are read from the upload as they were posted."""
    read: list[RenditionData] = []

    async def parse(body: AsyncIterator[bytes]) -> Reply:
        headers = read_headers(desk.uploads[-1].headers)
        assert (headers.secret, headers.task_id, headers.source_pixels) == ("token", 5, 99)
        parser = ResultParser(headers.boundary)
        async for chunk in body:
            parser.feed(chunk)
        read.extend(parser.finish())
        return Reply(200, "OK")

    desk.on_upload = parse
    assert await client.post_result(5, RENDITIONS, 99) == Answer(200, "OK")
    assert read == RENDITIONS


async def test_an_error_report_arrives(desk: Desk, client: TranscoderClient) -> None:
    """The text of the error is the body."""

    async def parse(body: AsyncIterator[bytes]) -> Reply:
        assert read_headers(desk.uploads[-1].headers).is_error
        return Reply(200, b"".join([chunk async for chunk in body]).decode())

    desk.on_upload = parse
    assert await client.post_error(5, "No keyframes in input") == Answer(
        200, "No keyframes in input"
    )


async def test_a_refused_result_says_why(
    port: WorkerPort, identity: Identity, desk: Desk, client: TranscoderClient
) -> None:
    """Status and sentence reach the caller, also when the body was never read."""
    stranger = client_of(port, Trust.exact(identity.fingerprint), secret="wrong")
    async with stranger:
        large = [RenditionData(data=bytes(5_000_000), pixels=1)]
        assert await stranger.post_result(5, large, 1) == Answer(401, "Unauthorized")

    async def refuse(body: AsyncIterator[bytes]) -> Reply:
        raise BadMessage("two renditions were asked for, one came")

    desk.on_upload = refuse
    answer = await client.post_result(5, RENDITIONS, 1)
    assert answer == Answer(400, "two renditions were asked for, one came")


async def test_connections_for_results_are_kept(port: WorkerPort, client: TranscoderClient) -> None:
    """Results one after the other use one connection."""
    for task_id in range(5):
        await client.post_error(task_id, "x")
    assert port.connections == 1


async def test_a_bad_task_costs_nobody_but_itself(
    port: WorkerPort, desk: Desk, client: TranscoderClient
) -> None:
    """A task that cannot be read is reported with its id; the next one is delivered."""
    bad = pb.NotifySegment.FromString(encode_notification(task(8)))
    bad.segData.duration = -5
    heard: list[BadTask] = []
    async with client.register(
        capacity=1, capabilities=None, version="", on_bad_task=heard.append
    ) as registration:
        stream = await desk.arrival()
        for message in (bad.SerializeToString(), b"\xff\xff"):
            stream.send_now(frame(message))  # type: ignore[attr-defined]
        stream.notify(task(9))
        assert await following(registration) == task(9)
    assert [bad.task_id for bad in heard] == [8]


async def test_unread_notifications_hold_the_server_back(
    port: WorkerPort, identity: Identity, desk: Desk
) -> None:
    """A client that does not read keeps a bounded backlog, and loses nothing of it."""
    limits = Http2Limits(stream_window_bytes=2_000, connection_window_bytes=65_535)
    client = TranscoderClient(
        "127.0.0.1",
        port.port,
        secret="token",
        trust=Trust.exact(identity.fingerprint),
        limits=limits,
    )
    async with client, register(client) as registration:
        stream = await desk.arrival()
        for number in range(200):
            stream.notify(task(number))
        await eventually(lambda: len(registration._call._messages) > 5)
        assert len(registration._call._messages) < 20
        received = [(await following(registration)).task_id for _ in range(200)]
        assert received == list(range(200))


async def test_a_server_that_speaks_no_grpc_is_unavailable(identity: Identity) -> None:
    """Something else on that port is named as such."""
    async with raw_server(identity, "h2", b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        client = TranscoderClient("127.0.0.1", port, secret="s", trust=Trust.first_use())
        async with register(client) as registration:
            with pytest.raises(Unavailable):
                await following(registration)
    async with raw_server(identity, "http/1.1", b"") as port:
        client = TranscoderClient("127.0.0.1", port, secret="s", trust=Trust.first_use())
        with pytest.raises(BadMessage, match="does not speak HTTP/2"):
            async with register(client):
                pass


class raw_server:
    """A TLS server that says one thing and hangs up."""

    def __init__(self, identity: Identity, alpn: str, words: bytes) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(identity.cert_path, identity.key_path)
        self._context.set_alpn_protocols([alpn])
        self._words = words

    async def __aenter__(self) -> int:
        async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(self._words)
            writer.close()

        self._server = await asyncio.start_server(speak, "127.0.0.1", 0, ssl=self._context)
        return int(self._server.sockets[0].getsockname()[1])

    async def __aexit__(self, *_: object) -> None:
        self._server.close()


async def test_http1_without_alpn_is_served(port: WorkerPort, desk: Desk) -> None:
    """A stock transcoder fetches segments over TLS without ALPN."""
    async with raw_tls(port.port) as (reader, writer):
        writer.write(b"GET /s/17 HTTP/1.1\r\nHost: pool:9000\r\nConnection: close\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 5)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert b"Content-Length: 7" in head
    assert body == b"segment"
    assert desk.callers[0].authority == "pool:9000"


async def test_an_expectation_is_met(port: WorkerPort) -> None:
    """A client that asks first whether it may upload is told to go on."""
    async with raw_tls(port.port) as (reader, writer):
        writer.write(
            b"POST /transcodeResults HTTP/1.1\r\nHost: p\r\nCredentials: token\r\n"
            b"Content-Length: 3\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
        )
        assert b"100 Continue" in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        writer.write(b"abc")
        answer = await asyncio.wait_for(reader.read(), 5)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith(b"OK 3")


def test_everything_works_on_uvloop(identity: Identity) -> None:
    """The same link carries a registration, a segment and a result on the faster event loop."""

    async def story() -> Answer:
        desk = Desk(source=bytes(1_000_000))
        port = WorkerPort(desk, server_context(identity), host="127.0.0.1")
        async with (
            port.running(),
            client_of(port, Trust.exact(identity.fingerprint)) as client,
            register(client) as registration,
        ):
            (await desk.arrival()).notify(task(1, f"https://127.0.0.1:{port.port}/s"))
            async with client.fetch((await following(registration)).url) as source:
                data = b"".join([chunk async for chunk in source.body])
            return await client.post_result(1, [RenditionData(data=data, pixels=1)], 1)

    answer = uvloop.run(story())
    assert answer.status == 200
    assert int(answer.text.removeprefix("OK ")) > 1_000_000
