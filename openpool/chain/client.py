"""The real chain: JSON-RPC over one or more endpoints, by the rules of `chain.interface`.

What decides money is a fact about one block, so it is asked of the endpoints for the same block:
the newest that as many of them have as must agree. Then honest endpoints say the same although one
lags, and one that lies or follows another fork is found out. Must not sign or keep anything.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeVar

import aiohttp
import structlog
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from openpool.chain import answers
from openpool.chain.agreement import Endpoints
from openpool.chain.interface import (
    At,
    Block,
    Call,
    ChainUnavailable,
    GasPrice,
    Log,
    Receipt,
    Reverted,
    SendFault,
    SendRefused,
    Tag,
    Used,
    WrongChain,
)
from openpool.chain.proof import proved
from openpool.chain.rpc import Endpoint, EndpointFault, RpcError, TooLarge, data, fields, number
from openpool.core.errors import BadMessage
from openpool.core.units import GWEI

logger = structlog.get_logger()

T = TypeVar("T")
LOGS_MAX = 200_000
"""More logs than this in one answer are not read; ask for fewer blocks."""
PENDING: Literal["pending"] = "pending"
TELLING: tuple[SendFault, ...] = (
    "known",
    "nonce-too-low",
    "insufficient-funds",
    "underpriced",
    "refused",
)
"""What is most worth knowing comes first, if endpoints refuse for different reasons."""


@asynccontextmanager
async def open_chain(
    urls: Sequence[str],
    *,
    chain_id: int,
    agree: int = 2,
    timeout_s: float = 10.0,
    priority_fee_max_wei: int = 2 * GWEI,
) -> AsyncIterator["EthereumChain"]:
    """A chain behind these endpoints; nothing is asked before it is used. Endpoints may suggest
    any priority fee; `gas_price` says at most `priority_fee_max_wei`."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        endpoints = [
            Endpoint(url, chain_id=chain_id, session=session, timeout_s=timeout_s) for url in urls
        ]
        yield EthereumChain(
            Endpoints(endpoints, agree=agree),
            chain_id=chain_id,
            priority_fee_max_wei=priority_fee_max_wei,
        )


class EthereumChain:
    """Implements `Chain`."""

    def __init__(self, endpoints: Endpoints, *, chain_id: int, priority_fee_max_wei: int) -> None:
        self._ask = endpoints
        self._chain_id = chain_id
        self._priority_fee_max_wei = priority_fee_max_wei

    @property
    def chain_id(self) -> int:
        return self._chain_id

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        return self._ask.all

    @property
    def must_agree(self) -> int:
        """How many of them must say the same about what decides money."""
        return self._ask.need

    # --- blocks -----------------------------------------------------------------------------------

    async def block(self, at: At = "latest") -> Block:
        if at == "latest":
            return await self._ask.any(lambda e: _block(e, "latest"))
        if isinstance(at, int):
            wanted = at
            return await self._ask.agreed(lambda e: _block(e, wanted))
        if self._ask.need == 1:
            return await self._ask.any(lambda e: _block(e, at))
        return await self.block(await self._common(at))

    async def _common(self, tag: Tag) -> int:
        """The newest block that as many endpoints as must agree know by this name."""
        found = await self._ask.answers(lambda e: _block(e, tag))
        numbers = sorted((block.number for _, block in found), reverse=True)
        return numbers[self._ask.need - 1]

    async def _fixed(self, at: At) -> At:
        """The block to ask everybody about. One endpoint alone needs no such care."""
        if isinstance(at, int) or self._ask.need == 1:
            return at
        return await self._common(at)

    # --- reads ------------------------------------------------------------------------------------

    async def call(self, call: Call, *, at: At = "latest", sender: str = "") -> bytes:
        (answer,) = await self._calls([call], at, sender)
        if isinstance(answer, Reverted):
            raise answer
        return answer

    async def calls(self, calls: Sequence[Call], *, at: At = "latest") -> list[bytes | Reverted]:
        return await self._calls(calls, at, "")

    async def _calls(self, calls: Sequence[Call], at: At, sender: str) -> list[bytes | Reverted]:
        if not calls:
            return []
        if at == "latest":  # of the endpoint that answers
            return await self._ask.any(lambda e: _calls(e, calls, "latest", sender))
        where = await self._fixed(at)
        return await self._ask.agreed(lambda e: _calls(e, calls, where, sender), key=_said)

    async def logs(
        self,
        *,
        addresses: Sequence[str],
        topics: Sequence[Sequence[bytes] | None],
        from_block: int,
        to_block: int,
    ) -> list[Log]:
        if to_block < from_block:
            return []
        wanted = _Filter(addresses, topics)
        _, found = await self._ask.agreed(lambda e: _logs(e, wanted, from_block, to_block))
        return found

    async def balance(self, address: str, *, at: At = "latest") -> int:
        return await self._about("eth_getBalance", address, at, number)

    async def code(self, address: str, *, at: At = "latest") -> bytes:
        return await self._about("eth_getCode", address, at, data)

    async def nonce(self, address: str, *, at: At | Literal["pending"] = "latest") -> int:
        method = "eth_getTransactionCount"
        if at != PENDING:
            return await self._about(method, address, at, number)
        found = await self._ask.answers(lambda e: _value(e, number, method, address, PENDING))
        return max(count for _, count in found)

    async def _about(self, method: str, address: str, at: At, parse: Callable[[object], T]) -> T:
        where = _tag(await self._fixed(at))
        return await self._ask.agreed(lambda e: _value(e, parse, method, address, where))

    async def receipt(self, tx: str) -> Receipt | None:
        found = [
            receipt
            for _, receipt in await self._ask.answers(
                lambda e: _value(
                    e, lambda v: answers.receipt(v, tx), "eth_getTransactionReceipt", tx
                )
            )
        ]
        mined = [each for each in found if each is not None]
        for each in mined:
            if mined.count(each) >= self._ask.need:
                return each
            if any(other.block_hash == each.block_hash and other != each for other in mined):
                raise self._ask.contradiction()
        return None

    async def used_by(self, wallet: str, nonce: int, *, final_block: int) -> Used | None:
        for endpoint in self._ask.all:
            try:
                block, found = await _used_by(endpoint, wallet, nonce, final_block, self._chain_id)
                if (await self.block(block.number)).hash == block.hash:
                    return found
            except (ChainUnavailable, BadMessage, RpcError, WrongChain) as error:
                logger.debug("no-proof", endpoint=endpoint.name, why=answers.plain(error))
        return None

    # --- transactions -----------------------------------------------------------------------------

    async def estimate_gas(self, call: Call, *, sender: str) -> int:
        async def ask(endpoint: Endpoint) -> int | Reverted:
            try:
                return number(await endpoint.request("eth_estimateGas", _call(call, sender)))
            except RpcError as error:
                if refused := answers.refusal(error):
                    return refused
                raise

        answer = await self._ask.any(ask)
        if isinstance(answer, Reverted):
            raise answer
        return answer

    async def gas_price(self) -> GasPrice:
        async def ask(endpoint: Endpoint) -> GasPrice:
            block, priority = await endpoint.batch(
                [("eth_getBlockByNumber", ["latest", False]), ("eth_maxPriorityFeePerGas", [])]
            )
            if isinstance(block, RpcError):
                raise block
            # not every node has an opinion, and on Arbitrum none is needed
            wanted_wei = 0 if isinstance(priority, RpcError) else number(priority)
            return GasPrice(
                base_fee_wei=number(fields(block).get("baseFeePerGas")),
                priority_fee_wei=min(wanted_wei, self._priority_fee_max_wei),
            )

        return await self._ask.any(ask)

    async def send(self, raw: bytes) -> str:
        tx = f"0x{keccak(raw).hex()}"
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_send(each, raw, tx)) for each in self._ask.all]
        results = [task.result() for task in tasks]
        if None in results:
            return tx
        refused = {each.fault: each for each in results if isinstance(each, SendRefused)}
        for fault in TELLING:
            if fault in refused:
                raise refused[fault]
        said = " ".join(str(each) for each in results)
        raise ChainUnavailable(f"No endpoint answered whether it took the transaction. {said}")


# --- one endpoint ---------------------------------------------------------------------------------


class _Filter:
    """What logs are wanted."""

    def __init__(self, addresses: Sequence[str], topics: Sequence[Sequence[bytes] | None]) -> None:
        self._addresses = [to_checksum_address(each) for each in addresses]
        self._topics = list(topics)

    def json(self, from_block: int, to_block: int) -> dict[str, object]:
        return {
            "address": self._addresses,
            "topics": [
                None if topic is None else [f"0x{each.hex()}" for each in topic]
                for topic in self._topics
            ],
            "fromBlock": hex(from_block),
            "toBlock": hex(to_block),
        }

    def checked(self, value: object, from_block: int, to_block: int) -> list[Log]:
        """The logs, if the endpoint gave what was asked for. Raises BadMessage."""
        found = answers.logs(value)
        if len(found) > LOGS_MAX:
            raise BadMessage("it gave too many logs")
        if not all(from_block <= each.block <= to_block and self._fits(each) for each in found):
            raise BadMessage("it gave logs that were not asked for")
        return found

    def _fits(self, log: Log) -> bool:
        if log.address not in self._addresses:
            return False
        padded = [*log.topics, *[b""] * (len(self._topics) - len(log.topics))]
        return all(not t or found in t for t, found in zip(self._topics, padded, strict=False))


async def _value(
    endpoint: Endpoint, parse: Callable[[object], T], method: str, *parameters: object
) -> T:
    return parse(await endpoint.request(method, *parameters))


async def _block(endpoint: Endpoint, at: At) -> Block:
    answer = await endpoint.request("eth_getBlockByNumber", _tag(at), False)
    if answer is None:
        raise EndpointFault(f"The endpoint {endpoint.name} does not have block {at} yet.")
    found = answers.block(answer)
    if isinstance(at, int) and found.number != at:
        raise BadMessage("it gave another block than was asked for")
    return found


async def _used_by(
    endpoint: Endpoint, wallet: str, nonce: int, final_block: int, chain_id: int
) -> tuple[Block, Used]:
    """The first block after which the wallet had sent more than `nonce` transactions, and the one
    in it that has this nonce. Raises BadMessage if there is none."""
    low, high = 0, final_block
    while low < high:
        middle = (low + high) // 2
        count = await _value(endpoint, number, "eth_getTransactionCount", wallet, _tag(middle))
        low, high = (low, middle) if count > nonce else (middle + 1, high)
    answer = fields(await endpoint.request("eth_getBlockByNumber", _tag(low), True))
    block, shown = answers.block(answer), answer.get("transactions")
    if block.number != low or not isinstance(shown, list):
        raise BadMessage("it gave no transactions of the block that was asked for")
    for each in map(fields, shown):
        sender = str(each.get("from")).lower()
        if sender == wallet.lower() and number(each.get("nonce")) == nonce:
            return block, proved(each, wallet=wallet, nonce=nonce, chain_id=chain_id)
    raise BadMessage("the block in which the nonce was used does not show by what")


async def _calls(
    endpoint: Endpoint, calls: Sequence[Call], at: At, sender: str
) -> list[bytes | Reverted]:
    where = at
    if len(calls) > 1 and not isinstance(at, int):
        where = (await _block(endpoint, at)).number
    asked: list[tuple[str, list[object]]] = [
        ("eth_call", [_call(call, sender), _tag(where)]) for call in calls
    ]
    return [_returned(answer) for answer in await endpoint.batch(asked)]


def _returned(answer: Any) -> bytes | Reverted:
    if not isinstance(answer, RpcError):
        return data(answer)
    if refused := answers.refusal(answer):
        return refused
    raise answer


def _said(results: list[bytes | Reverted]) -> object:
    """What is compared: nodes refuse in different words."""
    return [each if isinstance(each, bytes) else None for each in results]


async def _logs(
    endpoint: Endpoint, wanted: _Filter, from_block: int, to_block: int
) -> tuple[str, list[Log]]:
    """The hash of the last block and all logs up to it, in as many parts as the endpoint wants."""
    last = await _block(endpoint, to_block)  # a node that lags would just leave logs out
    found: list[Log] = []
    start = from_block
    while start <= to_block:
        end = min(to_block, start + endpoint.logs_span - 1) if endpoint.logs_span else to_block
        part = await _logs_part(endpoint, wanted, start, end)
        if part is None:
            endpoint.logs_span = (end - start + 1) // 2
            continue
        found += part
        start = end + 1
    return last.hash, found


async def _logs_part(endpoint: Endpoint, wanted: _Filter, start: int, end: int) -> list[Log] | None:
    """None: the endpoint wants to be asked for fewer blocks."""
    try:
        answer = await endpoint.request("eth_getLogs", wanted.json(start, end))
    except TooLarge:
        if start == end:
            raise
        return None
    except RpcError as error:
        if start == end or not answers.is_too_wide(error):
            raise
        return None
    return wanted.checked(answer, start, end)


async def _send(endpoint: Endpoint, raw: bytes, tx: str) -> Exception | None:
    """None if it took the transaction."""
    try:
        told = await endpoint.request("eth_sendRawTransaction", f"0x{raw.hex()}")
    except RpcError as error:
        text = f"The endpoint {endpoint.name} did not take it: {answers.plain(error.message)}."
        return SendRefused(answers.send_fault(error.message), text)
    except (ChainUnavailable, WrongChain) as error:
        return error
    if told != tx:
        return endpoint.blame("it gave a transaction another hash than it has")
    return None


def _call(call: Call, sender: str) -> dict[str, str]:
    asked = {"from": sender, "to": call.to, "data": f"0x{call.data.hex()}"}
    if call.value_wei:
        asked["value"] = hex(call.value_wei)
    return {name: value for name, value in asked.items() if value}


def _tag(at: At) -> str:
    return hex(at) if isinstance(at, int) else at
