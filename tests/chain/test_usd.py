"""Prices in USD: converted at the settings' rate, or else at the feed's, which is recorded."""

import time
from fractions import Fraction
from pathlib import Path

import pytest
from conftest import Open

from openpool.app_calls import charger, pixel_price, pricer, rate
from openpool.chain.feed import PriceWatch
from openpool.config import Config, load
from openpool.core.call_requests import CallFailed
from openpool.core.calls import App
from openpool.core.errors import Unavailable
from openpool.core.units import ETHER
from openpool.demo.evm import Livepeer
from openpool.pool.usd import UsdRate

CHAT = App("text-generation", "tiny")
UNSOLD = App("object-detection", "tiny")
SETTINGS = """
ai:
  prices:
    - {pipeline: text-generation, unit: request, price: 0.5 USD}
    - {pipeline: transcode, unit: pixel, price: 1 USD, per: 1000000000000}
chain:
  endpoints: [{url: "http://127.0.0.1:8545"}]
"""


def settings(folder: Path, more: str = "") -> Config:
    file = folder / "openpool.yaml"
    file.write_text(SETTINGS.replace("ai:\n", f"ai:\n{more}"))
    return load(file).config


async def test_a_price_in_usd_follows_the_feed(
    protocol: Livepeer, chain_of: Open, tmp_path: Path
) -> None:
    """No price before the feed has one; then the feed's, with its rate in the quote; then newer."""
    config = settings(tmp_path)
    usd = UsdRate(rate(config))
    price = pricer(config, usd)
    watch = PriceWatch(
        await chain_of(protocol.evm.url),
        protocol.addresses["PriceFeed"],
        clock_ms=lambda: time.time_ns() // 1_000_000,
    )
    usd.follow(watch.known)
    assert price(CHAT, "direct") is None
    assert usd.wei_per_usd() == 0
    with pytest.raises(CallFailed, match="is not known just now; try again shortly"):
        charger(config, usd)(CHAT, "direct")
    with pytest.raises(Unavailable, match="is not known just now"):
        pixel_price(config, usd)()
    assert charger(config, usd)(UNSOLD, "direct") is None
    for usd_per_eth in (2_500, 2_000):
        await protocol.set_usd_price(usd_per_eth * 10**8, int(time.time()))
        await watch.refresh()
        quote = charger(config, usd)(CHAT, "direct")
        assert quote is not None
        assert quote.price_wei == Fraction(ETHER // usd_per_eth, 2)
        assert pixel_price(config, usd)() == (Fraction(ETHER // usd_per_eth, 10**12), "config")
        assert quote.rate is not None
        assert quote.rate.source == "chainlink"


def test_the_settings_own_rate_is_preferred(tmp_path: Path) -> None:
    """ai.usd_per_eth holds whatever a feed says."""
    config = settings(tmp_path, "  usd_per_eth: 4000\n")
    usd = UsdRate(rate(config))
    usd.follow(lambda: rate(settings(tmp_path, "  usd_per_eth: 1\n")))
    quote = pricer(config, usd)(CHAT, "direct")
    assert quote is not None
    assert quote.price_wei == Fraction(ETHER, 8_000)
