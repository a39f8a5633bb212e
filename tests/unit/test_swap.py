"""When fees are exchanged for LPT: prices from ticks, what is spare, what the market may take."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openpool.core.errors import BadMessage
from openpool.core.money.swap import (
    Convert,
    Exchange,
    Refuse,
    SwapRules,
    average_price,
    from_market,
    from_spare,
    tick_price,
)
from openpool.core.units import ETHER

RULES = SwapRules(most_wei=ETHER, slippage_ppm=10_000, deviation_ppm=20_000, deadline_ms=120_000)
AVERAGE = Fraction(500)


@pytest.mark.parametrize("tick", [0, 1, -1, 10, -887, 5_000])
def test_ticks_are_powers(tick: int) -> None:
    """1.0001^tick, exact far beyond a wei in all the ETH there is."""
    exact = Fraction(10_001, 10_000) ** tick
    assert abs(tick_price(tick) - exact) / exact < Fraction(1, 10**40)


def test_an_average_of_ticks() -> None:
    """The same price whichever token is the first; sums of ticks round down like the pool does."""
    as_token0 = average_price(-62_149 * 1_800, 0 * 1_800, lpt_is_token0=False)
    assert as_token0 == tick_price(62_149)
    assert average_price(0, -62_149 * 1_800, lpt_is_token0=True) == tick_price(62_149)
    assert average_price(0, -1, lpt_is_token0=False) == tick_price(-1)


def test_an_average_that_no_market_has() -> None:
    """A contract that is none, or an endpoint that lies, costs a sentence and no time: 1.0001 to
    the power of anything would never be worked out."""
    for older, newer in ((0, 2**55), (2**55, -(2**55)), (0, 887_273 * 1_800)):
        with pytest.raises(BadMessage, match="no price"):
            average_price(older, newer, lpt_is_token0=True)
    assert average_price(0, 887_272 * 1_800, lpt_is_token0=True) > 0


def test_spare_lpt_goes_first() -> None:
    """All of an amount at the average price, or none of it; never more than there is."""
    assert from_spare(ETHER, AVERAGE, 500 * ETHER) == Convert(500 * ETHER)
    assert from_spare(ETHER, AVERAGE, 500 * ETHER - 1) is None
    assert from_spare(1, Fraction(1, 3), ETHER) is None


def test_the_market_is_believed_near_the_average() -> None:
    """Up to 2 % away in both directions, with 1 % of slippage below the quote."""
    assert from_market(ETHER, 500 * ETHER, AVERAGE, RULES) == Exchange(495 * ETHER)
    assert isinstance(from_market(ETHER, 490 * ETHER, AVERAGE, RULES), Exchange)
    for quote in (490 * ETHER - 1, 510 * ETHER + 1):
        refused = from_market(ETHER, quote, AVERAGE, RULES)
        assert isinstance(refused, Refuse)
        assert "more than 2 % apart" in refused.why


def test_what_is_never_done() -> None:
    """No exchange above the limit, without a price, or for nothing at all."""
    assert isinstance(from_market(ETHER + 1, 500 * ETHER, AVERAGE, RULES), Refuse)
    assert isinstance(from_market(ETHER, 0, AVERAGE, RULES), Refuse)
    assert isinstance(from_market(0, 0, AVERAGE, RULES), Refuse)


@given(amount=st.integers(0, ETHER), quote=st.integers(0, 2**90), per_eth=st.fractions(0, 10**6))
def test_the_least_that_is_accepted_is_never_nothing(
    amount: int, quote: int, per_eth: Fraction
) -> None:
    """Whatever the market says, at least one unit of LPT must come, near what is fair."""
    decided = from_market(amount, quote, per_eth, RULES)
    if isinstance(decided, Exchange):
        fair = int(amount * per_eth)
        assert decided.minimum_lpt >= max(1, fair * 97 // 100)
