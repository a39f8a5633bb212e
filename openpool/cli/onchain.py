"""Whether payouts that a statement claims really happened, as any JSON-RPC endpoint tells it.

Used by `openpool verify --rpc` on a worker's machine; the pool is not asked. Amounts and addresses
are compared with what the chain holds, never with what the pool says it holds.
"""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from eth_utils.crypto import keccak

from openpool.chain.abi import Event
from openpool.chain.contracts import Controller, Multicall3, Token
from openpool.config.money import CONTROLLER
from openpool.core.errors import BadMessage, Unavailable
from openpool.core.money.events import OrderConfirmed, OrderLine
from openpool.core.money.statement_check import Finding
from openpool.core.money.statements import Statement

TIMEOUT = aiohttp.ClientTimeout(total=20, sock_connect=5)
ANSWER_BYTES_MAX = 4_000_000
PAYING = ("payout", "batch-payout", "stake-payout")
ARBITRUM_ONE = 42_161
MULTICALL3 = "0xcA11bde05977b3631167028862bE2a173976CA11"
BOND_MOVED = Event(
    "TransferBond", "address indexed", "address indexed", "uint256", "uint256", "uint256"
)


class Endpoint:
    """A JSON-RPC endpoint. Use it as `async with Endpoint(...)`."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def __aenter__(self) -> "Endpoint":
        self._session = aiohttp.ClientSession(timeout=TIMEOUT)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def ask(self, method: str, *params: object) -> Any:
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
        tokens = await _tokens(endpoint) if chain_id == ARBITRUM_ONE else None
        findings, checked = [], 0
        for number, fact in enumerate(statement.facts):
            if isinstance(fact.data, OrderConfirmed) and fact.data.kind in PAYING:
                checked += 1
                path = f"facts[{number}].data"
                try:
                    findings += [f async for f in _payout(endpoint, path, fact.data, tokens)]
                except (KeyError, TypeError, ValueError, AttributeError, BadMessage):
                    text = f"The endpoint's answer about {fact.data.tx} makes no sense."
                    findings.append(Finding(path=f"{path}.tx", text=text))
        return findings, checked


async def _tokens(endpoint: Endpoint) -> set[str]:
    """The contracts whose word counts for LPT, in lower case, from the protocol's Controller."""
    found = set()
    for name in ("LivepeerToken", "BondingManager"):
        data = Controller.get_contract.encode(keccak(text=name))
        call = {"to": CONTROLLER, "data": "0x" + data.hex()}
        answer = _bytes(await endpoint.ask("eth_call", call, "latest"))
        found.add(str(Controller.get_contract.one(answer)).lower())
    return found


async def _payout(
    endpoint: Endpoint, path: str, order: OrderConfirmed, tokens: set[str] | None
) -> AsyncIterator[Finding]:
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
    if str(receipt["from"]).lower() != order.wallet.lower():
        text = f"The transaction {order.tx} was not made by the pool's wallet {order.wallet}."
        yield Finding(path=f"{path}.wallet", text=text)
    if order.asset == "ETH":
        sent = _sent(await endpoint.ask("eth_getTransactionByHash", order.tx))
    else:
        sent = _logged(receipt, tokens)
    for number, line in enumerate(order.lines):
        if not _take(sent, line):
            text = (
                f"The transaction {order.tx} did not give {line.address} the {line.send_wei} "
                f"that the statement says."
            )
            yield Finding(path=f"{path}.lines[{number}]", text=text)


def _sent(transaction: dict[str, Any]) -> list[tuple[str, int]]:
    """To whom a transaction gave how many wei. A batch counts if it goes through Multicall3,
    whose code is known, and no part of it may fail."""
    to = str(transaction["to"])
    calls = Multicall3.aggregate3_value.arguments(_bytes(transaction["input"]))
    if calls is None:
        return [(to.lower(), _number(transaction["value"]))]
    if to.lower() != MULTICALL3.lower():
        return []
    return [(str(target).lower(), value) for target, may_fail, value, _ in calls[0] if not may_fail]


def _logged(receipt: dict[str, Any], tokens: set[str] | None) -> list[tuple[str, int]]:
    """Who got how much LPT, as tokens or as stake; `tokens` are the contracts that may say so."""
    found = []
    for log in receipt["logs"]:
        topics = tuple(_bytes(topic) for topic in log["topics"])
        if tokens is not None and str(log["address"]).lower() not in tokens:
            continue
        for event in (Token.transferred, BOND_MOVED):
            if topics and topics[0] == event.topic and len(topics) == 3:
                _, to, *_, amount = event.decode(topics, _bytes(log["data"]))
                found.append((str(to).lower(), int(amount)))
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


def _bytes(text: object) -> bytes:
    return bytes.fromhex(str(text).removeprefix("0x"))
