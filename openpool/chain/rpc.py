"""One Ethereum JSON-RPC endpoint: requests out, checked answers in.

An endpoint is used only after it has said that it serves the right chain, and asked that again
after each failure to reach it. Answers are bounded in size and time. Its address may hold an API
key, so only its host is ever shown. Must not decide whom to believe; that is `chain.client`.
"""

import asyncio
import itertools
import re
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec
import structlog

from openpool.chain.interface import ChainUnavailable, WrongChain
from openpool.core.decoding import UNREADABLE
from openpool.core.errors import BadMessage

log = structlog.get_logger()

BODY_BYTES_MAX = 32 << 20
BATCH_MAX = 100
REST_S_MAX = 30.0
"""The longest that an endpoint is left alone, whatever it asks for."""
TEXT_CHARS_MAX = 200
TOO_MUCH = {429, 503}
NO_ACCESS = {401, 403}
FAILURES_MAX = 16
NUMBER = re.compile(r"0x[0-9a-fA-F]{1,64}", re.ASCII)

Request = tuple[str, list[object]]


class RpcError(Exception):
    """The node understood and said no."""

    def __init__(self, code: int, message: str, data: bytes) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


class EndpointFault(ChainUnavailable):
    """An endpoint did not give a usable answer."""


class _BatchRefused(Exception):
    """The endpoint does not take so many requests at once."""


class TooLarge(EndpointFault):
    """The answer is larger than what is read; ask for less."""


class Endpoint:
    """One address that speaks JSON-RPC."""

    def __init__(
        self,
        url: str,
        *,
        chain_id: int,
        session: aiohttp.ClientSession,
        timeout_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        parts = urlsplit(url)
        self.name = f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
        self.problem = ""
        """Why it cannot be used at the moment; empty if it can."""
        self.logs_span = 0
        """The most blocks that it searched at once, as far as known; 0: not known."""
        self._url = url
        self._chain_id = chain_id
        self._session = session
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._clock = clock
        self._batch_max = BATCH_MAX
        self._checked = self._is_wrong = False
        self._checking = asyncio.Lock()
        self._failures = 0
        self._rests_until = 0.0
        self._ids = itertools.count(1)

    def __repr__(self) -> str:
        return f"Endpoint({self.name})"

    @property
    def rests_s(self) -> float:
        """How long it asked to be left alone, from now."""
        return max(self._rests_until - self._clock(), 0.0)

    @property
    def failures(self) -> int:
        """Failed requests since the last good one."""
        return self._failures

    async def request(self, method: str, *parameters: object) -> Any:
        """One answer. Raises RpcError, EndpointFault or WrongChain."""
        (answer,) = await self.batch([(method, list(parameters))])
        if isinstance(answer, RpcError):
            raise answer
        return answer

    async def batch(self, requests: Sequence[Request]) -> list[Any]:
        """The answers in order, a refused one as RpcError. Raises EndpointFault or WrongChain."""
        await self._check_chain()
        answers: list[Any] = []
        while len(answers) < len(requests):
            part = requests[len(answers) : len(answers) + self._batch_max]
            try:
                answers += await self._post(part)
            except _BatchRefused:
                self._batch_max = len(part) // 2
        return answers

    async def _check_chain(self) -> None:
        async with self._checking:
            if not self._checked:
                self._checked = await self._serves_the_chain()

    async def _serves_the_chain(self) -> bool:
        (answer,) = await self._post([("eth_chainId", [])])
        if isinstance(answer, RpcError):
            raise self._failed(f"it does not name its chain ({answer.message})")
        try:
            served = number(answer)
        except BadMessage as error:
            raise self._failed(str(error)) from None
        if served != self._chain_id:
            self.problem = f"it serves chain {served}, not {self._chain_id}"
            self._failures = FAILURES_MAX  # it answers well, but is the last to be asked
            if not self._is_wrong:
                log.error("endpoint-of-another-chain", endpoint=self.name, served=served)
            self._is_wrong = True
            raise WrongChain(
                f"The endpoint {self.name} serves chain {served}, but chain.id is "
                f"{self._chain_id}; correct one of them."
            )
        self._is_wrong = False
        return True

    async def _post(self, requests: Sequence[Request]) -> list[Any]:
        if self.rests_s:
            raise EndpointFault(f"The endpoint {self.name} asked to be left alone for a while.")
        ids = [next(self._ids) for _ in requests]
        asked = [
            {"jsonrpc": "2.0", "id": id_, "method": method, "params": parameters}
            for id_, (method, parameters) in zip(ids, requests, strict=True)
        ]
        body = msgspec.json.encode(asked if len(asked) > 1 else asked[0])
        try:
            answer = await self._exchange(body)
            answers = _matched(answer, ids)
        except EndpointFault:
            raise
        except BadMessage as error:
            raise self._failed(str(error)) from None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise self._failed(_in_words(error)) from None
        self._failures, self.problem = 0, ""
        return answers

    async def _exchange(self, body: bytes) -> bytes:
        async with self._session.post(
            self._url,
            data=body,
            headers={"Content-Type": "application/json"},
            timeout=self._timeout,
            allow_redirects=False,
        ) as response:
            if response.status in TOO_MUCH:
                raise self.rest(response.headers.get("Retry-After", ""))
            if response.status in NO_ACCESS:
                raise self._failed("it refuses access; check the key in its address")
            answer = await _bounded(response)
            if answer is None:
                raise self._failed("its answer is too large", TooLarge)
            # nodes differ in the status of an answer that says no; what is no JSON-RPC fails later
            if response.status >= 300 and not answer.lstrip().startswith((b"{", b"[")):
                raise self._failed(f"it answered with status {response.status}")
            return answer

    def blame(self, why: str) -> EndpointFault:
        """Its answer was nonsense: remember that, so that others are asked first."""
        return self._failed(why)

    def rest(self, retry_after: str = "") -> EndpointFault:
        """It has had enough for now: leave it alone for as many seconds as it says, or more and
        more if it does not."""
        asked = float(retry_after) if retry_after.isdigit() else 2.0**self._failures
        self._rests_until = self._clock() + min(asked, REST_S_MAX)
        return self._failed("it asks for fewer requests")

    def _failed(self, why: str, kind: type[EndpointFault] = EndpointFault) -> EndpointFault:
        if not self.problem:
            log.warning("endpoint-failed", endpoint=self.name, problem=why)
        self._failures = min(self._failures + 1, FAILURES_MAX)
        self._checked = False
        self.problem = why
        return kind(f"The endpoint {self.name} cannot be used: {why}.")


def _in_words(error: Exception) -> str:
    """Without the error's own text, which may show the address."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ClientSSLError):
        return "its TLS certificate is not good"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "it cannot be reached"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it hung up"
    return type(error).__name__


async def _bounded(response: aiohttp.ClientResponse) -> bytes | None:
    body = bytearray()
    async for chunk in response.content.iter_chunked(1 << 16):
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            return None
    return bytes(body)


def _matched(body: bytes, ids: list[int]) -> list[Any]:
    """The answers in the order of the requests. Raises BadMessage."""
    try:
        found = msgspec.json.decode(body)
    except UNREADABLE:
        raise BadMessage("its answer is not JSON") from None
    found = found if isinstance(found, list) else [found]
    if len(ids) > 1 and len(found) == 1 and isinstance(found[0], dict) and "error" in found[0]:
        raise _BatchRefused
    by_id = {
        each["id"]: each
        for each in found
        if isinstance(each, dict) and isinstance(each.get("id"), int)
    }
    if len(found) != len(ids) or any(id_ not in by_id for id_ in ids):
        raise BadMessage("its answer does not belong to what was asked")
    return [_result(by_id[id_]) for id_ in ids]


def _result(answer: dict[str, Any]) -> Any:
    error = answer.get("error")
    if error is None:
        return answer.get("result")
    if not isinstance(error, dict):
        raise BadMessage("its error is not an error of JSON-RPC")
    code, message = error.get("code"), error.get("message")
    return RpcError(
        code if isinstance(code, int) else 0,
        str(message)[:TEXT_CHARS_MAX],
        _error_data(error.get("data")),
    )


def _error_data(value: object) -> bytes:
    try:
        return data(value)
    except BadMessage:
        return b""


# --- the values of JSON-RPC -----------------------------------------------------------------------


def number(value: object) -> int:
    """A quantity `0x…`. Raises BadMessage."""
    if not isinstance(value, str) or not NUMBER.fullmatch(value):
        raise BadMessage("its number is not 0x and up to 64 hexadecimal digits")
    return int(value, 16)


def data(value: object, size: int | None = None) -> bytes:
    """Bytes `0x…`, of exactly `size` if given. Raises BadMessage."""
    if not isinstance(value, str) or not value.startswith("0x"):
        raise BadMessage("its data is not 0x and hexadecimal digits")
    try:
        found = bytes.fromhex(value[2:])
    except ValueError:
        raise BadMessage("its data is not 0x and hexadecimal digits") from None
    if size is not None and len(found) != size:
        raise BadMessage(f"its data has {len(found)} bytes, not {size}")
    return found


def hash_text(value: object) -> str:
    """A hash `0x…` in lower case. Raises BadMessage."""
    return "0x" + data(value, 32).hex()


def fields(value: object) -> dict[str, Any]:
    """An object. Raises BadMessage."""
    if not isinstance(value, dict):
        raise BadMessage("its answer is not an object")
    return value
