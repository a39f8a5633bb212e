"""Money arithmetic: nothing is lost, nothing is a float."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openpool.core import units

AMOUNTS = st.integers(0, 10**30)


@given(AMOUNTS, st.lists(st.integers(0, 10**9), min_size=1, max_size=8).filter(any))
def test_a_split_loses_no_wei(amount: int, weights: list[int]) -> None:
    """The parts add up, and none is further than one wei from its fair part."""
    parts = units.split(amount, weights)
    assert sum(parts) == amount
    total = sum(weights)
    for part, weight in zip(parts, weights, strict=True):
        assert abs(Fraction(amount * weight, total) - part) < 1


@pytest.mark.parametrize(("amount", "weights"), [(-1, [1]), (1, []), (1, [0, 0]), (1, [2, -1])])
def test_a_senseless_split_is_refused(amount: int, weights: list[int]) -> None:
    """Negative amounts and weights, and weights of nothing, are errors."""
    with pytest.raises(ValueError, match="split needs"):
        units.split(amount, weights)


@given(AMOUNTS, st.integers(0, units.PPM))
def test_commission_and_pay_are_the_whole_fee(fee_wei: int, rate: int) -> None:
    """What the pool keeps and what the worker gets add up to the fee."""
    kept, paid = units.commission(fee_wei, rate)
    assert kept + paid == fee_wei
    assert min(kept, paid) >= 0


def test_a_quarter_is_the_pools_not_the_workers() -> None:
    """A commission of 25 % leaves the worker 75 %."""
    assert units.commission(1000, 250_000) == (250, 750)


@given(st.lists(st.integers(0, 10**9), max_size=50), st.integers(0, 10**6), st.integers(1, 10**6))
def test_fractions_are_carried(counts: list[int], numerator: int, denominator: int) -> None:
    """However work is cut into segments, the fees are worth its pixels to the last fraction."""
    price = Fraction(numerator, denominator)
    carry, paid = 0, 0
    for count in counts:
        wei, carry = units.fee(count, price, carry)
        assert 0 <= carry < price.denominator
        paid += wei
    assert paid + Fraction(carry, price.denominator) == sum(counts) * price


def test_prices_are_read_exactly() -> None:
    """A price may be a whole number, a fraction or a decimal; it is never rounded."""
    assert units.price("0.1") * 10 == 1
    assert units.price_text(units.price("2/6")) == "1/3"
    with pytest.raises(ValueError, match="negative"):
        units.price("-1")
