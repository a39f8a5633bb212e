"""An independent gRPC implementation on either end of the registration stream."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from openpool.core.errors import Unavailable
from openpool.link.client import TranscoderClient
from openpool.link.interface import Caller, Ended, GrpcStatus, RegistrationStream
from openpool.link.server import WorkerPort
from openpool.link.tls import Identity, Trust
from openpool.wire import livepeer_pb2 as pb
from openpool.wire.grpc import REGISTER_PATH
from openpool.wire.messages import RegisterRequest, decode_notification, encode_notification
from tests.wire.kit import Desk, task

Call = grpc.aio.UnaryStreamCall  # type: ignore[type-arg]


@pytest.fixture
async def channel(port: WorkerPort, identity: Identity) -> AsyncIterator[grpc.aio.Channel]:
    """A channel of grpcio to our port, its certificate pinned."""
    credentials = grpc.ssl_channel_credentials(identity.cert_path.read_bytes())
    options = [("grpc.use_local_subchannel_pool", 1)]
    address = f"127.0.0.1:{port.port}"
    async with grpc.aio.secure_channel(address, credentials, options) as channel:
        yield channel


def call(channel: grpc.aio.Channel, path: str = REGISTER_PATH) -> Call:
    method = channel.unary_stream(
        path,
        request_serializer=pb.RegisterRequest.SerializeToString,
        response_deserializer=pb.NotifySegment.FromString,
    )
    return method(pb.RegisterRequest(secret="token", capacity=3))


async def test_grpcio_registers_at_our_port(desk: Desk, channel: grpc.aio.Channel) -> None:
    """It receives tasks, and its cancellation is noticed."""
    registration = call(channel)
    stream = await desk.arrival()
    assert desk.requests[0] == RegisterRequest(secret="token", capacity=3, capabilities=None)
    for number in range(100):
        stream.notify(task(number))
    for number in range(100):
        message = await asyncio.wait_for(registration.read(), 5)
        assert decode_notification(message.SerializeToString()) == task(number)
    registration.cancel()
    assert await asyncio.wait_for(stream.wait_closed(), 5)


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        (Ended(GrpcStatus.UNKNOWN, "invalid secret"), grpc.StatusCode.UNKNOWN),
        (Ended(GrpcStatus.UNAUTHENTICATED, "revoked: 100 %"), grpc.StatusCode.UNAUTHENTICATED),
        (Ended(GrpcStatus.RESOURCE_EXHAUSTED, "später"), grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
async def test_grpcio_understands_our_endings(
    desk: Desk, channel: grpc.aio.Channel, ended: Ended, code: grpc.StatusCode
) -> None:
    """Status and text arrive as they were given."""

    async def end(request: RegisterRequest, stream: RegistrationStream, caller: Caller) -> None:
        raise ended

    desk.on_register = end
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel).read()
    assert (caught.value.code(), caught.value.details()) == (code, ended.message)


async def test_grpcio_sees_a_clean_end(desk: Desk, channel: grpc.aio.Channel) -> None:
    """A handler that returns is the end of the stream, with OK."""

    async def end(request: RegisterRequest, stream: RegistrationStream, caller: Caller) -> None:
        stream.notify(task(1))

    desk.on_register = end
    registration = call(channel)
    assert (await registration.read()).taskId == 1
    assert await registration.read() == grpc.aio.EOF
    assert await registration.code() == grpc.StatusCode.OK


async def test_grpcio_sees_shutdown_and_unknown_methods(
    port: WorkerPort, desk: Desk, channel: grpc.aio.Channel
) -> None:
    """UNIMPLEMENTED for another method, UNAVAILABLE when the port closes: both mean try again."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel, "/net.AIWorker/RegisterAIWorker").read()
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    registration = call(channel)
    await desk.arrival()
    await port.close()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await registration.read()
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


class Orchestrator(grpc.GenericRpcHandler):
    """The serving side of the call, made of grpcio; acts by the secret."""

    def __init__(self) -> None:
        self.requests: list[pb.RegisterRequest] = []
        self.metadata: dict[str, str | bytes] = {}
        self.cancelled = asyncio.Event()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        assert details.method == REGISTER_PATH
        return grpc.unary_stream_rpc_method_handler(
            self.register, pb.RegisterRequest.FromString, lambda message: message
        )

    async def register(
        self, request: pb.RegisterRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[bytes]:
        self.requests.append(request)
        self.metadata = dict(context.invocation_metadata() or ())
        if request.secret == "wrong":
            await context.abort(grpc.StatusCode.UNKNOWN, "invalid secret")
        yield encode_notification(task(0))
        if request.secret == "odd":
            await context.abort(grpc.StatusCode.DATA_LOSS, "50 % lost")
        if request.secret == "stay":
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled.set()


Serving = tuple[Orchestrator, grpc.aio.Server, int]


@pytest.fixture
async def orchestrator(identity: Identity) -> AsyncIterator[Serving]:
    handler = Orchestrator()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handler,))
    pair = (identity.key_path.read_bytes(), identity.cert_path.read_bytes())
    number = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    await server.start()
    yield handler, server, number
    await server.stop(None)


def client_at(number: int, secret: str) -> TranscoderClient:
    return TranscoderClient(
        "127.0.0.1", number, secret=secret, trust=Trust.first_use(), worker_version="0.1.0"
    )


@pytest.mark.parametrize(
    ("secret", "status", "message"),
    [
        ("fine", GrpcStatus.OK, ""),
        ("wrong", GrpcStatus.UNKNOWN, "invalid secret"),
        ("odd", GrpcStatus.UNKNOWN, "gRPC status 15: 50 % lost"),
    ],
)
async def test_we_register_at_grpcio(
    orchestrator: Serving,
    identity: Identity,
    secret: str,
    status: GrpcStatus,
    message: str,
) -> None:
    """Our request, its tasks and its ending are understood on both sides."""
    handler, _, number = orchestrator
    async with client_at(number, secret).register(
        capacity=2, capabilities=0b11, version="0.9.1"
    ) as registration:
        assert registration.fingerprint == identity.fingerprint
        if secret != "wrong":
            assert await anext(registration) == task(0)
        with pytest.raises(Ended) as caught:
            await anext(registration)
    assert (caught.value.status, caught.value.message) == (status, message)
    assert handler.requests[0].capacity == 2
    assert list(handler.requests[0].capabilities.bitstring) == [0b11]
    assert handler.metadata["openpool-worker"] == "0.1.0"


async def test_leaving_grpcio_and_its_shutdown(
    orchestrator: Serving,
) -> None:
    """A closed registration is cancelled over there; a server that stops is a reason to redial."""
    handler, server, number = orchestrator
    client = client_at(number, "stay")
    async with client.register(capacity=1, capabilities=None, version="") as registration:
        assert await asyncio.wait_for(anext(registration), 5) == task(0)
    await asyncio.wait_for(handler.cancelled.wait(), 5)
    async with client.register(capacity=1, capabilities=None, version="") as registration:
        assert await asyncio.wait_for(anext(registration), 5) == task(0)
        async with asyncio.TaskGroup() as group:
            group.create_task(server.stop(None))
            with pytest.raises((Unavailable, Ended)) as caught:
                await asyncio.wait_for(anext(registration), 5)
    if isinstance(caught.value, Ended):
        assert caught.value.status == GrpcStatus.UNAVAILABLE
