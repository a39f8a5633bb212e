"""Chains for the tests of this folder."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from openpool.chain.client import EthereumChain, open_chain
from openpool.demo.evm import CHAIN_ID

Open = Callable[..., Awaitable[EthereumChain]]


@pytest.fixture
async def chain_of() -> AsyncIterator[Open]:
    """Opens a chain behind these endpoints."""
    async with AsyncExitStack() as stack:

        async def opened(
            *urls: str, agree: int = 2, timeout_s: float = 5, chain_id: int = CHAIN_ID
        ) -> EthereumChain:
            made = open_chain(urls, chain_id=chain_id, agree=agree, timeout_s=timeout_s)
            return await stack.enter_async_context(made)

        yield opened
