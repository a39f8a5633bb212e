"""A real local Ethereum for tests, our contracts on it, and endpoints that misbehave on demand.

Its fixtures are everybody's (`tests/conftest.py`); helpers are imported from here. `evm` is a chain
that is as new for each test (one anvil serves the run, a snapshot undoes what it did), `protocol`
has all contracts on it. `faulty` is a JSON-RPC proxy before that chain; ask `make_faulty` for more:

    faulty.on("eth_sendRawTransaction", drop_answer, times=1)
    faulty.on("eth_getTransactionCount", lie(lambda answer: hex(int(answer, 16) + 5)))
    faulty.lag = 3                       # is three blocks behind
    faulty.upstream = other_anvil_url    # serves another history
    assert faulty.count("eth_sendRawTransaction") == 2
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from openpool.core.errors import SetupError
from openpool.demo.anvil import anvil
from openpool.demo.evm import Evm, Livepeer

__all__ = [
    "Faulty",
    "drop_answer",
    "drop_request",
    "hang",
    "http_status",
    "huge",
    "lie",
    "refuse",
]

Ask = Callable[[], Awaitable[dict[str, Any]]]
Fault = Callable[[Ask], Awaitable[dict[str, Any]]]
"""What to answer to one request; `Ask` forwards it and gives the chain's answer."""


@pytest.fixture(scope="session")
def anvil_url() -> Iterator[str]:
    """The address of a chain that the whole run shares."""
    yield from _anvil()


@pytest.fixture(scope="session")
def other_anvil_url() -> Iterator[str]:
    """Another chain with the same id and a history of its own."""
    yield from _anvil()


def _anvil() -> Iterator[str]:
    try:
        with anvil() as url:
            yield url
    except SetupError as error:
        pytest.skip(str(error))


@pytest.fixture
async def evm(anvil_url: str) -> AsyncIterator[Evm]:
    """A chain with nothing on it but what this test does."""
    async with aiohttp.ClientSession() as session:
        local = Evm(anvil_url, session)
        before = await local.snapshot()
        yield local
        await local.rpc("anvil_dropAllTransactions")  # no snapshot knows of what waits
        await local.automine(True)
        await local.revert(before)


@pytest.fixture
async def protocol(evm: Evm) -> Livepeer:
    """All contracts of Livepeer, freshly deployed, in an initialized round."""
    return await Livepeer.deploy(evm)


# --- endpoints that misbehave ---------------------------------------------------------------------


class _Drop(Exception):
    """The connection ends without an answer."""


class _Status(Exception):
    """The answer is no JSON-RPC but a status of HTTP."""

    def __init__(self, status: int, headers: dict[str, str]) -> None:
        self.status = status
        self.headers = headers


async def drop_request(ask: Ask) -> dict[str, Any]:
    """The request never arrives."""
    raise _Drop


async def drop_answer(ask: Ask) -> dict[str, Any]:
    """The request is carried out, and nobody is told."""
    await ask()
    raise _Drop


async def hang(ask: Ask) -> dict[str, Any]:
    """No answer until the caller gives up."""
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


async def huge(ask: Ask) -> dict[str, Any]:
    """An answer of 64 MiB."""
    return {"result": "0x" + "00" * (32 << 20)}


def lie(change: Callable[[Any], Any]) -> Fault:
    """The result of the chain, changed."""

    async def answer(ask: Ask) -> dict[str, Any]:
        told = await ask()
        return {"result": change(told["result"])} if "result" in told else told

    return answer


def refuse(message: str, code: int = -32_000) -> Fault:
    """An error of JSON-RPC; nothing is carried out."""

    async def answer(ask: Ask) -> dict[str, Any]:
        return {"error": {"code": code, "message": message}}

    return answer


def http_status(status: int, **headers: str) -> Fault:
    """A status of HTTP; a header's name is written with underscores."""

    async def answer(ask: Ask) -> dict[str, Any]:
        raise _Status(status, {k.replace("_", "-"): v for k, v in headers.items()})

    return answer


class Faulty:
    """A JSON-RPC proxy. Without orders it is faithful."""

    def __init__(self, upstream: str, session: aiohttp.ClientSession) -> None:
        self.upstream = upstream
        self.url = ""
        self.lag = 0
        self.batch_max = 1_000
        self.seen: list[tuple[str, list[Any]]] = []
        """Every request: its method and its parameters."""
        self._session = session
        self._faults: dict[str, tuple[Fault, int | None]] = {}

    def on(self, method: str, fault: Fault, *, times: int | None = None) -> None:
        """What to do with requests of this method (`*`: with all), so many times or always."""
        self._faults[method] = (fault, times)

    def heal(self) -> None:
        """Be faithful from now on."""
        self._faults.clear()
        self.lag = 0

    def count(self, method: str) -> int:
        """How many requests of this method there were."""
        return sum(name == method for name, _ in self.seen)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        asked = msgspec.json.decode(await request.read())
        answers: Any
        try:
            if isinstance(asked, list) and len(asked) > self.batch_max:
                answers = {"error": {"code": -32_600, "message": "batch too large"}}
            elif isinstance(asked, list):
                answers = [await self._answer(each) for each in asked]
            else:
                answers = await self._answer(asked)
        except _Drop:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        except _Status as error:
            return web.Response(status=error.status, headers=error.headers)
        return web.Response(body=msgspec.json.encode(answers), content_type="application/json")

    async def _answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        method, parameters = asked["method"], asked["params"]
        self.seen.append((method, parameters))

        async def ask() -> dict[str, Any]:
            return await self._forward(method, parameters)

        fault = self._take(method)
        told = await (fault(ask) if fault else ask())
        return {"jsonrpc": "2.0", "id": asked["id"], **told}

    def _take(self, method: str) -> Fault | None:
        for key in (method, "*"):
            fault, times = self._faults.get(key, (None, None))
            if fault is None or times == 0:
                continue
            self._faults[key] = (fault, None if times is None else times - 1)
            return fault
        return None

    async def _forward(self, method: str, parameters: list[Any]) -> dict[str, Any]:
        if not self.lag:
            return await self._ask(method, parameters)
        head = max(int((await self._ask("eth_blockNumber", []))["result"], 16) - self.lag, 0)
        if any(_block_of(each) > head for each in parameters):
            missing: dict[str, Any] = {"code": -32_000, "message": "header not found"}
            return {"result": None} if "getBlock" in method else {"error": missing}
        told = await self._ask(method, [_behind(each, head) for each in parameters])
        if method == "eth_blockNumber":
            return {"result": hex(head)}
        result = told.get("result")
        if isinstance(result, dict) and _block_of(result.get("number")) > head:  # what is final
            return await self._ask(method, [hex(head), *parameters[1:]])
        if isinstance(result, dict) and _block_of(result.get("blockNumber")) > head:
            return {"result": None}
        return told

    async def _ask(self, method: str, parameters: list[Any]) -> dict[str, Any]:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
        async with self._session.post(self.upstream, json=body) as response:
            told = await response.json()
        return {key: told[key] for key in ("result", "error") if key in told}


def _block_of(value: object) -> int:
    """The block number that a parameter may be, else 0 (hashes and data are longer)."""
    if isinstance(value, str) and value.startswith("0x") and 2 < len(value) <= 12:
        return int(value, 16)
    return 0


def _behind(value: object, head: int) -> object:
    if value in ("latest", "pending"):
        return hex(head)
    if isinstance(value, dict) and "toBlock" in value:  # nodes stop at their head and say nothing
        return value | {"toBlock": hex(min(_block_of(value["toBlock"]) or head, head))}
    return value


@pytest.fixture
async def make_faulty(anvil_url: str) -> AsyncIterator[Callable[[], Awaitable[Faulty]]]:
    """Makes one more proxy before the chain of this test."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())

        async def make() -> Faulty:
            made = Faulty(anvil_url, session)
            app = web.Application(client_max_size=1 << 26)
            app.router.add_post("/{key:.*}", made.serve)
            runner = web.AppRunner(app, shutdown_timeout=0)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            host, port = runner.addresses[0][:2]
            made.url = f"http://{host}:{port}"
            return made

        yield make


@pytest.fixture
async def faulty(make_faulty: Callable[[], Awaitable[Faulty]]) -> Faulty:
    """A proxy before the chain of this test."""
    return await make_faulty()
