"""Whether payouts that a statement claims really happened, as any JSON-RPC endpoint tells it.

Used by `openpool verify --rpc` on a worker's machine; the pool is not asked. Amounts and addresses
are compared with what the chain holds, never with what the pool says it holds.
"""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from openpool.core.errors import Unavailable
from openpool.core.money_events import OrderConfirmed, OrderLine
from openpool.core.statement_check import Finding
from openpool.core.statements import Statement

TIMEOUT = aiohttp.ClientTimeout(total=20, sock_connect=5)
ANSWER_BYTES_MAX = 4_000_000
PAYING = ("payout", "batch-payout", "stake-payout")
BATCH = "174dea71"
"""Selector of aggregate3Value((address,bool,uint256,bytes)[])."""


class Endpoint:
    """A JSON-RPC endpoint. Use it as `async with Endpoint(...)`."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def __aenter__(self) -> "Endpoint":
        self._session = aiohttp.ClientSession(timeout=TIMEOUT)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def ask(self, method: str, *params: str) -> Any:
        """The result of a call. Raises Unavailable; the address may hold a key and is not shown."""
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        try:
            async with self._session.post(self._url, json=body) as response:
                content = await response.content.read(ANSWER_BYTES_MAX + 1)
                while len(content) <= ANSWER_BYTES_MAX and (
                    more := await response.content.read(ANSWER_BYTES_MAX)
                ):
                    content += more
            return _result(content, method)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            raise Unavailable(
                f"The endpoint of --rpc gives no usable answer to {method}; is the address right?"
            ) from None


def _result(content: bytes, method: str) -> Any:
    import json

    if len(content) > ANSWER_BYTES_MAX:
        raise ValueError("too large")
    answer = json.loads(content)
    if not isinstance(answer, dict) or "result" not in answer:
        raise ValueError(method)
    return answer["result"]


async def check_payouts(statement: Statement, url: str) -> tuple[list[Finding], int]:
    """What is wrong with the payouts, and how many were checked. Raises Unavailable."""
    async with Endpoint(url) as endpoint:
        chain_id = _number(await endpoint.ask("eth_chainId"))
        if chain_id != statement.chain_id:
            raise Unavailable(
                f"The endpoint of --rpc serves chain {chain_id}, but the statement is about chain "
                f"{statement.chain_id}."
            )
        findings, checked = [], 0
        for number, fact in enumerate(statement.facts):
            if isinstance(fact.data, OrderConfirmed) and fact.data.kind in PAYING:
                checked += 1
                path = f"facts[{number}].data"
                try:
                    findings += [f async for f in _payout(endpoint, path, fact.data)]
                except (KeyError, TypeError, ValueError, AttributeError):
                    text = f"The endpoint's answer about {fact.data.tx} makes no sense."
                    findings.append(Finding(path=f"{path}.tx", text=text))
        return findings, checked


async def _payout(endpoint: Endpoint, path: str, order: OrderConfirmed) -> AsyncIterator[Finding]:
    receipt = await endpoint.ask("eth_getTransactionReceipt", order.tx)
    if receipt is None:
        yield Finding(path=f"{path}.tx", text=f"The chain knows no transaction {order.tx}.")
        return
    if _number(receipt["status"]) != 1:
        yield Finding(path=f"{path}.tx", text=f"The transaction {order.tx} failed on chain.")
        return
    if str(receipt["blockHash"]).lower() != order.block_hash.lower():
        text = f"The transaction {order.tx} is in another block than the statement says."
        yield Finding(path=f"{path}.block_hash", text=text)
    if order.asset == "ETH":
        sent = _sent(await endpoint.ask("eth_getTransactionByHash", order.tx))
    else:
        sent = _logged(receipt)
    for number, line in enumerate(order.lines):
        if not _take(sent, line):
            text = (
                f"The transaction {order.tx} did not give {line.address} the {line.send_wei} "
                f"that the statement says."
            )
            yield Finding(path=f"{path}.lines[{number}]", text=text)


def _sent(transaction: dict[str, Any]) -> list[tuple[str, int]]:
    """To whom a transaction gave how many wei. A batch counts if no part of it may fail."""
    data = str(transaction["input"]).removeprefix("0x")
    if data.startswith(BATCH):
        from eth_abi.abi import decode

        (calls,) = decode(["(address,bool,uint256,bytes)[]"], bytes.fromhex(data[8:]))
        return [(str(to).lower(), value) for to, may_fail, value, _ in calls if not may_fail]
    return [(str(transaction["to"]).lower(), _number(transaction["value"]))]


def _logged(receipt: dict[str, Any]) -> list[tuple[str, int]]:
    """Who is named in the logs of a transaction, with each amount beside the name."""
    found = []
    for log in receipt["logs"]:
        data = str(log["data"]).removeprefix("0x")
        words = [int(data[at : at + 64], 16) for at in range(0, len(data), 64)]
        for topic in log["topics"][1:]:
            found += [("0x" + str(topic)[-40:].lower(), word) for word in words]
    return found


def _take(sent: list[tuple[str, int]], line: OrderLine) -> bool:
    """Whether this was among what was sent, which is used up by it."""
    wanted = (line.address.lower(), int(line.send_wei))
    if wanted not in sent:
        return False
    sent.remove(wanted)
    return True


def _number(text: object) -> int:
    return int(str(text), 16)
