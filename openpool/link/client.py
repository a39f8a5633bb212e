"""A transcoder towards its server: the pool towards an orchestrator, a worker towards its pool.

Registers, fetches segments and posts results. When to dial again is the caller's decision. Every
connection must show the certificate of the registration before anything secret is sent.
"""

import secrets
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from openpool.core.errors import BadMessage, Timeout, Unauthorized, Unavailable
from openpool.link.http2 import Http2Limits
from openpool.link.registration import (
    CLIENT_LIMITS,
    ClientConnection,
    OnBadTask,
    Registration,
    dial,
    open_registration,
)
from openpool.link.tls import Trust
from openpool.wire.messages import Notification, RegisterRequest
from openpool.wire.results import (
    ERROR_BYTES_MAX,
    ERROR_TYPE,
    PART_BYTES_MAX,
    RESULT_PATH,
    RenditionData,
    build_result,
    upload_headers,
)

WORKER_HEADER = "openpool-worker"
"""By this request header our own workers make themselves known; its value is their version."""

ANSWER_BYTES_MAX = 4096
CHUNK_BYTES = 128 << 10


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said to an upload. 200 does not mean that the result was used."""

    status: int
    text: str


@dataclass(frozen=True, slots=True)
class Source:
    """A segment on its way: iterate over `body`; `length` is None where it was not announced."""

    length: int | None
    body: AsyncIterator[bytes]


class TranscoderClient:
    """Everything that one transcoder does towards one server. Use as `async with`."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        secret: str,
        trust: Trust,
        worker_version: str = "",
        limits: Http2Limits = CLIENT_LIMITS,
        connect_s: float = 5.0,
        connections_max: int = 64,
    ) -> None:
        self.trust = trust
        self._host, self._port = host, port
        self._secret = secret
        self._worker_version = worker_version
        self._limits = limits
        self._connect_s = connect_s
        self._connections_max = connections_max
        self._session: aiohttp.ClientSession | None = None
        self._pins: dict[str, aiohttp.Fingerprint] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections for segments and results; registrations close by themselves."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    @asynccontextmanager
    async def register(
        self,
        *,
        capacity: int,
        capabilities: int | None,
        version: str,
        on_bad_task: OnBadTask | None = None,
    ) -> AsyncIterator[Registration[Notification]]:
        """Register on a connection of its own, for as long as the block runs.

        Unavailable if the server cannot be reached, Unauthorized if it shows a wrong certificate;
        then nothing was sent. `on_bad_task` hears of tasks that cannot be read: answer them.
        """
        own = {WORKER_HEADER: self._worker_version} if self._worker_version else {}
        request = RegisterRequest(
            secret=self._secret, capacity=capacity, capabilities=capabilities, version=version
        )
        async with self._dialled() as connection:
            registration = open_registration(
                connection,
                request,
                authority=self._authority,
                headers=own | {"user-agent": "openpool"},
                on_bad_task=on_bad_task,
            )
            try:
                yield registration
            finally:
                registration.close()

    @asynccontextmanager
    async def fetch(
        self,
        url: str,
        *,
        limit: int = PART_BYTES_MAX,
        timeout_s: float = 4.0,
        via: str = "",
    ) -> AsyncIterator[Source]:
        """GET a segment of at most `limit` bytes; `via` is another `host:port` to get it from.

        An https server must show the registration's certificate, or one that a certificate
        authority vouches for (an object store). Unavailable or Timeout if it cannot be had,
        BadMessage if it is too large.
        """
        if via:
            url = urlunsplit(urlsplit(url)._replace(netloc=via))
        with _plain_errors(f"cannot fetch from {_shown(url)}"):
            response = await self._get(url, aiohttp.ClientTimeout(total=timeout_s))
        async with response:
            if response.status != 200:
                raise Unavailable(f"cannot fetch the segment: {response.status} {response.reason}")
            if (response.content_length or 0) > limit:
                raise BadMessage(f"the segment is larger than {limit} bytes")
            yield Source(response.content_length, _bounded(response, limit))

    async def post_result(
        self,
        task_id: int,
        renditions: Sequence[RenditionData],
        source_pixels: int,
        *,
        incarnation: str = "",
        timeout_s: float = 30.0,
    ) -> Answer:
        """Upload the renditions of a task, once; trying again is the caller's decision.

        `incarnation` is the fingerprint of the certificate under which the task came; with another
        one nothing is sent, since a restarted orchestrator uses the same task ids again.
        """
        body = build_result(renditions, secrets.token_hex(10))
        headers = upload_headers(
            secret=self._secret,
            task_id=task_id,
            content_type=body.content_type,
            pixels=source_pixels,
        )
        headers["Content-Length"] = str(body.length)
        return await self._post(headers, body.chunks, incarnation, timeout_s)

    async def post_error(
        self, task_id: int, text: str, *, incarnation: str = "", timeout_s: float = 5.0
    ) -> Answer:
        """Answer a task with an error instead of renditions."""
        body = text.encode()[:ERROR_BYTES_MAX]
        headers = upload_headers(
            secret=self._secret, task_id=task_id, content_type=ERROR_TYPE, pixels=0
        )
        headers["Content-Length"] = str(len(body))
        return await self._post(headers, [body], incarnation, timeout_s)

    @asynccontextmanager
    async def _dialled(self) -> AsyncIterator[ClientConnection]:
        connection = await dial(
            self._host, self._port, self.trust, limits=self._limits, timeout_s=self._connect_s
        )
        try:
            yield connection
        finally:
            connection.close("we closed it")

    async def _post(
        self,
        headers: dict[str, str],
        chunks: Iterable[bytes] | AsyncIterator[bytes],
        incarnation: str,
        timeout_s: float,
        path: str = RESULT_PATH,
    ) -> Answer:
        body = chunks if isinstance(chunks, AsyncIterator) else _sliced(chunks)
        with _plain_errors(f"cannot post a result to {self._authority}"):
            async with self._http().post(
                f"https://{self._authority}{path}",
                data=body,
                headers=headers,
                ssl=self._pin(incarnation),
                timeout=aiohttp.ClientTimeout(total=timeout_s),
                allow_redirects=False,
            ) as response:
                text = await response.content.read(ANSWER_BYTES_MAX)
                return Answer(response.status, text.decode(errors="replace").strip())

    async def _get(self, url: str, patience: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        get = self._http().get
        try:
            return await get(url, ssl=self._pin(""), timeout=patience, allow_redirects=False)
        except aiohttp.ServerFingerprintMismatch:
            return await get(url, ssl=True, timeout=patience, allow_redirects=False)

    def _pin(self, incarnation: str) -> aiohttp.Fingerprint | bool:
        """What the certificate of an HTTP/1.1 connection must be."""
        if self.trust.verify and not incarnation:
            return True
        expected = incarnation or self.trust.current
        if not expected:
            raise Unavailable("register first: no certificate of the server is known yet")
        if expected not in self._pins:
            self._pins = {expected: aiohttp.Fingerprint(bytes.fromhex(expected)), **self._pins}
            self._pins = dict(list(self._pins.items())[:8])
        return self._pins[expected]

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=self._connections_max,
                # Shorter than servers keep theirs, or a request may meet a closing connection.
                keepalive_timeout=10.0,
            )
            self._session = aiohttp.ClientSession(
                connector=connector, auto_decompress=False, read_bufsize=CHUNK_BYTES
            )
        return self._session

    @property
    def _authority(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{host}:{self._port}"


async def _sliced(chunks: Iterable[bytes]) -> AsyncIterator[memoryview]:
    """Pieces small enough for the transport's back-pressure to work, not copied."""
    for chunk in chunks:
        view = memoryview(chunk)
        for start in range(0, len(chunk), CHUNK_BYTES):
            yield view[start : start + CHUNK_BYTES]


async def _bounded(response: aiohttp.ClientResponse, limit: int) -> AsyncIterator[bytes]:
    received = 0
    with _plain_errors("cannot fetch the segment to its end"):
        async for chunk, _ in response.content.iter_chunks():  # as they came, not joined
            received += len(chunk)
            if received > limit:
                raise BadMessage(f"the segment is larger than {limit} bytes")
            yield chunk


@contextmanager
def _plain_errors(what: str) -> Iterator[None]:
    """Turns the errors of the HTTP client into ours."""
    try:
        yield
    except TimeoutError:
        raise Timeout(f"{what}: it took too long") from None
    except aiohttp.ServerFingerprintMismatch:
        raise Unauthorized(
            f"{what}: another certificate than at registration; nothing was sent"
        ) from None
    except aiohttp.ClientConnectorCertificateError:
        raise Unauthorized(f"{what}: its certificate is not trusted") from None
    except aiohttp.ClientConnectorError as error:
        raise Unavailable(f"{what}: {error.os_error}") from None
    except (aiohttp.ClientError, OSError) as error:
        raise Unavailable(f"{what}: {error or type(error).__name__}") from None


def _shown(url: str) -> str:
    """The server of a URL; its path may be secret."""
    return url.split("/")[2][:100] if url.count("/") >= 2 else "a bad URL"
