"""What an ETH costs: read from a feed on chain, believed only if it can be."""

import pytest
from conftest import Open
from evm import Faulty, refuse

from openpool.chain.feed import HOUR_MS, FeedFault, PriceWatch
from openpool.core.prices import Rate
from openpool.core.units import ETHER
from openpool.demo.evm import Livepeer, address

NOW_S = 1_800_000_000
USD = 10**8
"""In the feed's own unit."""


class Clock:
    def __init__(self) -> None:
        self.ms = NOW_S * 1_000

    def __call__(self) -> int:
        return self.ms


async def test_a_price_is_a_rate_with_its_time(protocol: Livepeer, chain_of: Open) -> None:
    """Whole wei per USD, the time that the feed gave, and where it is from."""
    watch = PriceWatch(
        await chain_of(protocol.evm.url), protocol.addresses["PriceFeed"], clock_ms=Clock()
    )
    with pytest.raises(FeedFault, match=r"nothing was read yet\); set ai\.usd_per_eth"):
        watch.rate()
    await protocol.set_usd_price(3_120_45 * USD // 100, NOW_S - 60)
    await watch.refresh()
    assert watch.rate() == Rate(
        wei_per_usd=ETHER * 100 // 312_045, time_ms=(NOW_S - 60) * 1_000, source="chainlink"
    )


@pytest.mark.parametrize(
    ("usd", "updated_s", "problem"),
    [
        (2_500 * USD, NOW_S - 26 * 3600, "is 26 hours old"),
        (2_500 * USD, NOW_S + 3600, "is of the future; check this machine's clock"),
        (0, NOW_S, "says 0 USD"),
        (-1, NOW_S, "says -1 USD"),
        (2_500 * 10**10 * USD, NOW_S, "says 25000000000000 USD"),
        (7_600 * USD, NOW_S, "leapt from 2500 to 7600 USD"),
        (800 * USD, NOW_S, "leapt from 2500 to 800 USD"),
    ],
)
async def test_a_price_that_cannot_be_is_not_believed(
    protocol: Livepeer, chain_of: Open, usd: int, updated_s: int, problem: str
) -> None:
    """The last good one holds, and why there is no newer one is said."""
    watch = PriceWatch(
        await chain_of(protocol.evm.url), protocol.addresses["PriceFeed"], clock_ms=Clock()
    )
    await protocol.set_usd_price(2_500 * USD, NOW_S - 1)
    await watch.refresh()
    good = watch.rate()
    await protocol.set_usd_price(usd, updated_s)
    await watch.refresh()
    assert watch.rate() == good
    assert problem in watch.problem


async def test_a_feed_that_is_gone(protocol: Livepeer, faulty: Faulty, chain_of: Open) -> None:
    """The last price holds with its age until the limit; then there is none, and it recovers."""
    clock = Clock()
    watch = PriceWatch(await chain_of(faulty.url), protocol.addresses["PriceFeed"], clock_ms=clock)
    await protocol.set_usd_price(2_500 * USD, NOW_S)
    await watch.refresh()
    faulty.on("eth_call", refuse("internal error"))
    clock.ms += 47 * HOUR_MS
    await watch.refresh()
    assert watch.rate().time_ms == NOW_S * 1_000
    clock.ms += 2 * HOUR_MS
    with pytest.raises(FeedFault, match=r"The last price of an ETH is 49 hours old \(No endpoint"):
        watch.rate()
    assert watch.known() is None
    faulty.heal()
    await protocol.set_usd_price(9_999 * USD, clock.ms // 1_000)
    await watch.refresh()
    assert watch.rate().time_ms == clock.ms
    assert watch.problem == ""


async def test_an_address_that_is_no_feed(protocol: Livepeer, chain_of: Open) -> None:
    """No contract, or another one: there is no price, and no crash."""
    chain = await chain_of(protocol.evm.url)
    for where in (address("nobody"), protocol.addresses["LivepeerToken"]):
        watch = PriceWatch(chain, where, clock_ms=Clock())
        await watch.refresh()
        with pytest.raises(FeedFault, match=r"correct chain\.price_feed"):
            watch.rate()
        assert watch.problem == f"chain.price_feed: what is at {where} is no price feed"
