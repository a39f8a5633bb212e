"""How a chain is doing: its endpoints one by one, whether they agree, what is on it, the wallet.

For people who ask. What cannot be known shows as a problem, and keeps nothing else from being
shown. Amounts are decimal text, as they go out as JSON. Must not decide anything.
"""

import asyncio
import time
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from openpool.chain.answers import block
from openpool.chain.client import EthereumChain
from openpool.chain.feed import PriceWatch
from openpool.chain.interface import Block, ChainUnavailable, Round, WrongChain
from openpool.chain.livepeer import LivepeerContracts, open_livepeer
from openpool.chain.rpc import Endpoint, RpcError
from openpool.core.errors import BadMessage, OpenPoolError
from openpool.core.units import ETHER


class EndpointStatus(Struct, frozen=True, kw_only=True):
    """One endpoint, named by its host only."""

    name: str
    ok: bool = False
    problem: str = ""
    latest: int = 0
    finalized: int = 0
    lag: int = 0
    """Blocks behind the endpoint that has most."""
    answered_ms: int = 0
    """How long it took to answer."""
    hash: str = ""
    """Of the newest block that all reachable endpoints have: equal, or they do not agree."""


class WalletStatus(Struct, frozen=True, kw_only=True):
    """The hot wallet as the chain has it."""

    address: str
    balance_wei: str
    lpt: str
    """In base units; empty where there is no protocol."""
    nonce: int
    """Transactions that are mined."""


class ChainStatus(Struct, frozen=True, kw_only=True):
    """All of it."""

    ok: bool
    chain_id: int
    must_agree: int
    agree: bool
    endpoints: list[EndpointStatus]
    contracts: dict[str, str] = {}
    round: Round | None = None
    usd_per_eth: str = ""
    """By the price feed, whole USD; empty if it gives none."""
    wallet: WalletStatus | None = None
    problems: list[str] = []


async def chain_status(
    chain: EthereumChain, *, controller: str = "", price_feed: str = "", wallet: str = ""
) -> ChainStatus:
    """Look at all that is named; raises nothing because of the chain."""
    endpoints = await endpoint_statuses(chain.endpoints)
    in_agreement = len({each.hash for each in endpoints if each.ok}) <= 1
    status = ChainStatus(
        ok=all(each.ok for each in endpoints) and in_agreement,
        chain_id=chain.chain_id,
        must_agree=chain.must_agree,
        agree=in_agreement,
        endpoints=endpoints,
    )
    if not any(each.ok for each in endpoints):
        return status
    problems: list[str] = []
    livepeer: LivepeerContracts | None = None
    try:
        if controller:
            livepeer = await open_livepeer(chain, controller)
            contracts = dict(livepeer.addresses)
            status = replace(status, contracts=contracts, round=await livepeer.round())
        if wallet:
            status = replace(status, wallet=await _wallet(chain, livepeer, wallet))
    except OpenPoolError as error:
        problems.append(str(error))
    if price_feed:
        usd, problem = await _price(chain, price_feed)
        problems += [problem] if problem else []
        status = replace(status, usd_per_eth=usd)
    return replace(status, problems=problems, ok=status.ok and not problems)


async def _wallet(
    chain: EthereumChain, livepeer: LivepeerContracts | None, address: str
) -> WalletStatus:
    return WalletStatus(
        address=address,
        balance_wei=str(await chain.balance(address)),
        lpt=str(await livepeer.lpt_balance(address)) if livepeer else "",
        nonce=await chain.nonce(address),
    )


async def _price(chain: EthereumChain, feed: str) -> tuple[str, str]:
    """Whole USD for an ETH, and what is wrong with the feed."""
    watch = PriceWatch(chain, feed, clock_ms=lambda: time.time_ns() // 1_000_000)
    await watch.refresh()
    rate = watch.known()
    return str(ETHER // rate.wei_per_usd) if rate else "", watch.problem


# --- endpoints ------------------------------------------------------------------------------------


async def endpoint_statuses(endpoints: Sequence[Endpoint]) -> list[EndpointStatus]:
    """Ask each of them; raises nothing because of an endpoint."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_heads(endpoint)) for endpoint in endpoints]
    found = [task.result() for task in tasks]
    heads = [each.latest for each in found if each.ok] or [0]
    async with asyncio.TaskGroup() as group:
        hashes = [group.create_task(_hash(endpoint, min(heads))) for endpoint in endpoints]
    return [
        replace(each, lag=max(heads) - each.latest, hash=hashed.result()) if each.ok else each
        for each, hashed in zip(found, hashes, strict=True)
    ]


async def _heads(endpoint: Endpoint) -> EndpointStatus:
    began = time.monotonic()
    tags = ("latest", "finalized")
    try:
        answers = await endpoint.batch([("eth_getBlockByNumber", [tag, False]) for tag in tags])
        latest, finalized = map(_read, answers)
    except (ChainUnavailable, WrongChain, BadMessage, RpcError) as error:
        return EndpointStatus(name=endpoint.name, problem=endpoint.problem or str(error))
    return EndpointStatus(
        name=endpoint.name,
        ok=True,
        latest=latest.number,
        finalized=finalized.number,
        answered_ms=round((time.monotonic() - began) * 1_000),
    )


async def _hash(endpoint: Endpoint, number: int) -> str:
    try:
        return block(await endpoint.request("eth_getBlockByNumber", hex(number), False)).hash
    except (ChainUnavailable, WrongChain, BadMessage, RpcError):
        return ""


def _read(answer: object) -> Block:
    if isinstance(answer, RpcError):
        raise answer
    return block(answer)
