"""How a command reaches the chain: the settings' endpoints, or one that was named."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from openpool.core.errors import SetupError

if TYPE_CHECKING:
    from openpool.chain.client import EthereumChain
    from openpool.chain.interface import Chain, Livepeer
    from openpool.config.settings import Config
    from openpool.treasury.delegators import Delegations


@asynccontextmanager
async def opened_chain(settings: "Config", rpc: str = "") -> "AsyncIterator[EthereumChain]":
    """The chain alone. Raises SetupError if the settings name no endpoint."""
    from openpool import logs
    from openpool.chain.client import open_chain

    logs.configure("critical")  # what fails is told in one sentence; standard output is for answers
    chosen = settings.chain
    urls = [rpc] if rpc else [each.url.reveal() for each in chosen.endpoints]
    if not urls:
        raise SetupError("No chain is configured: set chain.endpoints, or give --rpc URL.")
    async with open_chain(
        urls, chain_id=chosen.id, agree=chosen.agree, timeout_s=chosen.timeout_ms / 1000
    ) as chain:
        yield chain


@asynccontextmanager
async def opened(settings: "Config", rpc: str = "") -> "AsyncIterator[tuple[Chain, Livepeer]]":
    """The chain and the protocol on it. Raises SetupError if the settings name no endpoint."""
    from openpool.chain.livepeer import open_livepeer

    async with opened_chain(settings, rpc) as chain:
        controller = settings.chain.controller
        if not controller:
            raise SetupError(
                "Set chain.controller: without it the protocol's contracts are not found."
            )
        yield chain, await open_livepeer(chain, controller)


def delegations(
    settings: "Config", chain: "Chain", livepeer: "Livepeer", orchestrator: str = ""
) -> "Delegations":
    """What is asked about delegating: of one orchestrator, or of those in the settings."""
    from openpool.cli.options import typed
    from openpool.core.enrolment import checked_address
    from openpool.treasury.delegators import Delegations

    named = {each.eth_address: each.name for each in settings.orchestrators if each.eth_address}
    if orchestrator:
        address = typed(checked_address, orchestrator)
        named = {address: named.get(address, "")}
    return Delegations(chain, livepeer, named, clock_ms=lambda: time.time_ns() // 1_000_000)
