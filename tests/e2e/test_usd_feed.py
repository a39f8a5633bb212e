"""A running pool that sells at a price in USD, with what an ETH costs read from a feed on chain."""

import time
from pathlib import Path

import openai
import pytest
from callers import chat, customer, line_worker
from network import pool, write_config

from openpool.core.events import CallReceived
from openpool.core.units import ETHER
from openpool.demo.evm import CHAIN_ID, Livepeer
from openpool.link.line import LineAnswer, LineRequest
from openpool.store.interface import EventFilter

SETTINGS = """
ai:
  prices: [{{pipeline: llm, unit: token, price: 0.5 USD, per: 1000000}}]
chain:
  endpoints: [{{url: "{url}"}}]
  id: {chain_id}
  controller: none
  price_feed: "{feed}"
"""


async def answer(request: LineRequest) -> LineAnswer:
    return chat()


async def ask(client: openai.AsyncOpenAI) -> None:
    await client.chat.completions.create(
        model="tiny/chat", messages=[{"role": "user", "content": "hello"}]
    )


async def test_calls_wait_for_a_rate_and_record_it(protocol: Livepeer, tmp_path: Path) -> None:
    """While the feed has no fresh price a call is refused; with one it is done, at that rate."""
    await protocol.set_usd_price(2_000 * 10**8, 1)
    extra = SETTINGS.format(
        url=protocol.evm.url, chain_id=CHAIN_ID, feed=protocol.addresses["PriceFeed"]
    )
    async with (
        pool(write_config(tmp_path, ["127.0.0.1:9"], extra)) as running,
        line_worker(running, answer),
        customer(running) as (client, _),
    ):
        with pytest.raises(openai.InternalServerError, match="is in USD, and what that is worth"):
            await ask(client)
        await protocol.set_usd_price(2_500 * 10**8, int(time.time()))
        money = running.process.money
        assert money is not None
        assert money.usd is not None
        await money.usd.refresh()
        await ask(client)
        (event,) = running.process.store.events(EventFilter(types=("call-received",)))
        said = event.event.data
        assert isinstance(said, CallReceived)
        assert said.usd == "1/2 per 1000000"
        assert said.wei_per_usd == str(ETHER // 2_500)
