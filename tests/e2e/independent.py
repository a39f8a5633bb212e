"""A transcoder made of other people's parts: grpcio, aiohttp, the standard library's TLS.

It shares no code with our links but the generated messages, so that both cannot be wrong alike.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import aiohttp
import grpc
import grpc.aio

from openpool.wire import livepeer_pb2 as pb

BOUNDARY = "0123456789abcdef0123"


class Transcoder:
    """One registration with an orchestrator, answering by hand."""

    def __init__(self, address: str, secret: str) -> None:
        self.address = address
        self.secret = secret
        self._http: aiohttp.ClientSession | None = None
        self._call: grpc.aio.UnaryStreamCall | None = None

    async def register(
        self, capacity: int = 4, bits: int | None = None, version: str = "0.9.1"
    ) -> None:
        """Ask to be registered; silence is success."""
        request = pb.RegisterRequest(secret=self.secret, capacity=capacity)
        if bits is not None:
            request.capabilities.bitstring.append(bits)
            request.capabilities.version = version
        method = self._channel.unary_stream(
            "/net.Transcoder/RegisterTranscoder",
            request_serializer=pb.RegisterRequest.SerializeToString,
            response_deserializer=pb.NotifySegment.FromString,
        )
        self._call = method(request)

    async def next(self) -> pb.NotifySegment:
        """The next message, whatever it is."""
        assert self._call is not None
        message = await asyncio.wait_for(self._call.read(), 10)
        assert message is not grpc.aio.EOF, "the stream ended"
        return message

    async def ending(self) -> tuple[grpc.StatusCode, str]:
        """Status and message of the stream's end; anything that comes before it is a failure."""
        assert self._call is not None
        with suppress(grpc.aio.AioRpcError):
            assert await asyncio.wait_for(self._call.read(), 10) is grpc.aio.EOF
        return await self._call.code(), await self._call.details()

    def hang_up(self) -> None:
        assert self._call is not None
        self._call.cancel()

    async def get(self, url: str) -> tuple[int, bytes]:
        assert self._http is not None
        async with self._http.get(url, ssl=False) as response:
            return response.status, await response.read()

    async def post(self, headers: dict[str, str], body: bytes) -> tuple[int, str]:
        """Upload with exactly these headers."""
        assert self._http is not None
        url = f"https://{self.address}/transcodeResults"
        async with self._http.post(
            url, ssl=False, headers=headers, data=body, skip_auto_headers=["Content-Type"]
        ) as response:
            return response.status, await response.text()

    def headers(self, task_id: object, **other: str | None) -> dict[str, str]:
        """Those of a good result; others replace them, None removes one."""
        headers: dict[str, str | None] = {
            "Authorization": "Livepeer-Transcoder-1.0",
            "Credentials": self.secret,
            "TaskId": str(task_id),
            "Content-Type": f"multipart/mixed; boundary={BOUNDARY}",
            "Pixels": "1000",
        }
        headers |= {name.replace("_", "-"): value for name, value in other.items()}
        return {name: value for name, value in headers.items() if value is not None}

    async def answer(self, task_id: int, *parts: tuple[bytes, int]) -> tuple[int, str]:
        """A good result with these renditions (bytes, pixels)."""
        return await self.post(self.headers(task_id), multipart(parts))

    async def fail(self, task_id: int, text: str) -> tuple[int, str]:
        """Report an error."""
        headers = self.headers(task_id, Content_Type="livepeer/transcoding-error", Pixels="0")
        return await self.post(headers, text.encode())


def multipart(parts: Sequence[tuple[bytes, int]]) -> bytes:
    body = b""
    for data, pixels in parts:
        head = f"--{BOUNDARY}\r\nContent-Type: video/mp2t\r\nPixels: {pixels}\r\n\r\n"
        body += head.encode() + data + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


async def certificate(address: str) -> str:
    """The certificate that a server shows, PEM."""
    host, _, port = address.rpartition(":")
    return await asyncio.to_thread(ssl.get_server_certificate, (host, int(port)))


@asynccontextmanager
async def transcoder(address: str, secret: str) -> AsyncIterator[Transcoder]:
    """A transcoder that has not registered yet."""
    credentials = grpc.ssl_channel_credentials((await certificate(address)).encode())
    peer = Transcoder(address, secret)
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with (
        grpc.aio.secure_channel(address, credentials, options) as peer._channel,
        aiohttp.ClientSession() as peer._http,
    ):
        yield peer
    # grpcio keeps its connection open for as long as anything refers to the channel
    del peer._call, peer._channel
