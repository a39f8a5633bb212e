"""A client of the pool's REST API, for the commands that ask a running pool.

Every answer is decoded into a declared type; every failure is one of our errors. Must not print.
"""

import json
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import aiohttp
import msgspec

from openpool.core.decoding import UNREADABLE
from openpool.core.errors import OpenPoolError, SetupError, Unauthorized, Unavailable
from openpool.core.texts import one_line

if TYPE_CHECKING:
    from openpool.config import Config

T = TypeVar("T")
TOKEN_VARIABLE = "OPENPOOL_OPERATOR_TOKEN"  # noqa: S105 - the name of a variable
TOKEN_FILE = "operator.token"  # noqa: S105 - the name of a file
ANSWER_BYTES_MAX = 50_000_000
TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=5)
STREAM_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=60)


class NotRunning(Unavailable):
    """The pool does not answer."""


class Api:
    """One pool's API, with one credential. Use it as `async with Api(...)`."""

    def __init__(self, url: str, token: str = "", *, tls: ssl.SSLContext | None = None) -> None:
        self.url = url.rstrip("/")
        self._token = token
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "Api":
        headers = {"Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        connector = aiohttp.TCPConnector(ssl=self._tls or True)
        self._session = aiohttp.ClientSession(connector=connector, headers=headers)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, kind: type[T], path: str, **query: str | int) -> T:
        """`GET /api/v1<path>` as a value of `kind`."""
        return await self._decoded(kind, "GET", path, query=query)

    async def post(self, kind: type[T], path: str, body: Mapping[str, str | int]) -> T:
        """`POST /api/v1<path>` as a value of `kind`."""
        return await self._decoded(kind, "POST", path, body=body)

    async def delete(self, kind: type[T], path: str, **query: str | int) -> T:
        """`DELETE /api/v1<path>` as a value of `kind`."""
        return await self._decoded(kind, "DELETE", path, query=query)

    async def download(self, path: str, **query: str | int) -> bytes:
        """`GET /api/v1<path>` as it is."""
        return await self._bytes("GET", path, query, None)

    async def send(self, method: str, path: str, body: dict[str, str] | None = None) -> None:
        """A request whose answer says nothing but yes."""
        await self._bytes(method, path, {}, body)

    async def _decoded(
        self,
        kind: type[T],
        method: str,
        path: str,
        query: dict[str, str | int] | None = None,
        body: Mapping[str, str | int] | None = None,
    ) -> T:
        content = await self._bytes(method, path, query or {}, body)
        try:
            return msgspec.json.decode(content, type=kind)
        except UNREADABLE:
            raise Unavailable(
                f"{self.url} answers in a way that this version does not understand; is it a pool?"
            ) from None

    async def _bytes(
        self,
        method: str,
        path: str,
        query: dict[str, str | int],
        body: Mapping[str, str | int] | None,
    ) -> bytes:
        wanted = {name: value for name, value in query.items() if value != ""}
        async with self._request(method, path, wanted, body, TIMEOUT) as response:
            return await _read(response)

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        query: dict[str, str | int],
        body: Mapping[str, str | int] | None,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's own kind of timeout
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        assert self._session is not None, "use `async with Api(...)`"
        address = f"{self.url}/api/v1{path}"
        try:
            async with self._session.request(
                method, address, params=query, json=body, timeout=timeout, allow_redirects=False
            ) as response:
                if response.status >= 300:
                    raise _problem(response.status, await _read(response), self.url)
                yield response
        except aiohttp.ClientConnectorCertificateError as error:
            raise SetupError(
                f"The certificate of {self.url} is not trusted: {error.certificate_error}."
            ) from None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise NotRunning(
                f"The pool does not answer at {self.url} ({_reason(error)}); "
                "is `openpool serve` running, and is the address right?"
            ) from None

    async def stream(self, path: str, **query: str | int) -> AsyncIterator[bytes]:
        """The data of server-sent events as they come. Ends when the pool ends the stream."""
        wanted = {name: value for name, value in query.items() if value != ""}
        async with self._request("GET", path, wanted, None, STREAM_TIMEOUT) as response:
            async for line in response.content:
                if line.startswith(b"data:"):
                    yield line[5:].strip()


def operator_api(config: "Config", url: str = "") -> Api:
    """The API of the operator's own pool. Raises SetupError if there is no operator's token."""
    return Api(url or config.web_url, _operator_token(config), tls=_trusted(config))


def _operator_token(config: "Config") -> str:
    if token := os.environ.get(TOKEN_VARIABLE):
        return token.strip()
    from openpool.private_files import read_private_text

    path = config.data_dir / TOKEN_FILE
    if not path.exists():
        raise SetupError(
            f"There is no operator's token at {path}; run this where the pool's data is, start the "
            f"pool once, or set {TOKEN_VARIABLE}."
        )
    return read_private_text(path, "The operator's token")


def _trusted(config: "Config") -> ssl.SSLContext | None:
    if not config.web_certificate or config.web.public_url:
        return None
    # our own certificate need not be signed by anybody else
    own = config.web_certificate == "pool"
    context = ssl.create_default_context()
    context.load_verify_locations(
        cafile=config.data_dir / "pool-cert.pem" if own else config.web.tls.cert
    )
    context.check_hostname = False
    return context


async def _read(response: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for chunk in response.content.iter_chunked(1 << 16):
        content += chunk
        if len(content) > ANSWER_BYTES_MAX:
            raise Unavailable("The pool's answer is too large; ask for less (--limit, --year).")
    return bytes(content)


def _problem(status: int, content: bytes, url: str) -> OpenPoolError:
    try:
        told = json.loads(content)
        detail, code = one_line(str(told["detail"]), 500), str(told.get("code", ""))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        code = ""
        detail = f"The web server at {url} answered with status {status}; is it a pool?"
    if status == 401:
        return Unauthorized(detail)
    if status == 400 or code == SetupError.code:
        return SetupError(detail)
    return Unavailable(detail) if status >= 500 else OpenPoolError(detail)


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        return os.strerror(error.os_error.errno).lower() if error.os_error.errno else "no address"
    return "no answer in time" if isinstance(error, TimeoutError) else "no usable answer"
