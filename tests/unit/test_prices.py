"""Price lists: exact, most specific first, converted at a rate that is written down."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openpool.core.calls import App, Unit
from openpool.core.prices import Currency, PriceList, PriceRow, Rate, rate_of
from openpool.core.units import ETHER

RATE = Rate(wei_per_usd=ETHER // 3000, time_ms=1_700_000_000_000, source="feed")
TINY, LARGE = App("llm", "tiny"), App("llm", "org/large")


def row(
    pipeline: str,
    model: str,
    unit: Unit,
    amount: str,
    per: int = 1,
    currency: Currency = "usd",
) -> PriceRow:
    return PriceRow(
        pipeline=pipeline,
        model=model,
        unit=unit,
        amount=Fraction(amount),
        currency=currency,
        per=per,
    )


def listed(*rows: PriceRow) -> PriceList:
    return PriceList(rows)


def test_the_most_specific_row_counts_wherever_it_stands() -> None:
    """A row for the model beats one for its pipeline, that one for any pipeline, that for all."""
    prices = listed(
        row("*", "*", "request", "9"),
        row("llm", "*", "token", "1"),
        row("*", "org/large", "token", "3"),
        row("llm", "tiny", "token", "2"),
    )
    found = [
        prices.find(app) for app in (TINY, LARGE, App("embeddings", "org/large"), App("ocr", "any"))
    ]
    assert [each and each.amount for each in found] == [2, 1, 3, 9]


def test_an_app_without_a_row_has_no_price() -> None:
    """Nothing is made up for what the list does not name."""
    prices = listed(row("llm", "tiny", "token", "1"))
    assert prices.find(LARGE) is None
    assert prices.quote(LARGE, RATE) is None
    assert prices.runner_price(LARGE, session=False, rate=RATE) is None


def test_a_price_in_usd_is_converted_exactly_and_says_how() -> None:
    """Half a dollar per million tokens becomes a fraction of a wei per token, and the quote keeps
    the price, the rate, its time and its source."""
    prices = listed(row("llm", "*", "token", "0.50", per=1_000_000))
    quote = prices.quote(TINY, RATE)
    assert quote is not None
    assert quote.price_wei == Fraction(RATE.wei_per_usd, 2_000_000)
    assert (quote.unit, quote.usd, quote.rate) == ("token", "1/2 per 1000000", RATE)


def test_a_price_in_wei_needs_no_rate() -> None:
    """A third of a wei per pixel stays exactly that."""
    prices = listed(row("image-to-text", "*", "pixel", "1", per=3, currency="wei"))
    quote = prices.quote(App("image-to-text", "x"), None)
    assert quote is not None
    assert (quote.price_wei, quote.usd, quote.rate) == (Fraction(1, 3), "", None)


def test_without_a_rate_there_is_no_price_in_usd() -> None:
    """Nobody is charged by a rate that is not known."""
    assert listed(row("llm", "*", "token", "1")).quote(TINY, None) is None


def test_an_app_may_have_prices_in_several_units() -> None:
    """The buyer's unit picks the row; without one, the first counts. A general row in the right
    unit serves where the specific one is in another."""
    prices = listed(
        row("llm", "tiny", "token", "1", per=1000),
        row("llm", "tiny", "request", "0.01"),
        row("*", "*", "second", "0.002"),
    )
    units = [quote and quote.unit for quote in (
        prices.quote(TINY, RATE),
        prices.quote(TINY, RATE, "request"),
        prices.quote(TINY, RATE, "second"),
        prices.quote(TINY, RATE, "pixel"),
    )]  # fmt: skip
    assert units == ["token", "request", "second", None]


def test_a_runner_is_registered_with_a_fixed_or_an_hourly_price() -> None:
    """Single requests sell at a fixed price, sessions by the hour, both in USD."""
    prices = listed(
        row("*", "*", "request", "0.002"),
        row("*", "*", "second", "0.36", per=3600),
    )
    fixed = prices.runner_price(TINY, session=False, rate=None)
    hour = prices.runner_price(TINY, session=True, rate=None)
    assert fixed is not None
    assert hour is not None
    assert (fixed.usd, fixed.unit) == ("0.002", "fixed")
    assert (hour.usd, hour.unit) == ("0.36", "hour")


def test_a_runner_price_in_wei_is_told_in_usd() -> None:
    """An orchestrator only understands USD, so a price in wei goes through the rate."""
    prices = listed(row("*", "*", "request", str(RATE.wei_per_usd), per=4, currency="wei"))
    told = prices.runner_price(TINY, session=False, rate=RATE)
    assert told is not None
    assert told.usd == "0.25"
    assert prices.runner_price(TINY, session=False, rate=None) is None


def test_a_runner_price_of_nothing_is_none() -> None:
    """An orchestrator refuses a price of zero, also one that is zero after rounding."""
    for amount in ("0", "0.0000000000001"):
        prices = listed(row("*", "*", "request", amount))
        assert prices.runner_price(TINY, session=False, rate=None) is None


@pytest.mark.parametrize("change", [{"amount": "-1"}, {"per": 0}])
def test_a_price_that_is_none_is_refused(change: dict[str, Any]) -> None:
    """A negative price, and a price for no units, never reach a fee."""
    with pytest.raises(ValueError, match=r"llm/\* has a price that is none"):
        listed(row(**{"pipeline": "llm", "model": "*", "unit": "token", "amount": "1", **change}))


def test_two_prices_for_the_same_are_refused() -> None:
    """A list that says two things about one app in one unit is not guessed at."""
    with pytest.raises(ValueError, match=r"llm/tiny has two prices per token"):
        listed(row("llm", "tiny", "token", "1"), row("llm", "tiny", "token", "2"))


@pytest.mark.parametrize("text", ["0", "0.0", "-1", "free", "1e40", "1" + "0" * 19, "9" * 99])
def test_a_rate_is_a_price_above_zero(text: str) -> None:
    """An ETH has a price; one so high that a USD is worth no wei is none."""
    with pytest.raises(ValueError, match=r"an ETH cannot cost"):
        rate_of(text, 0, "config")


@given(st.decimals("0.01", "1000000", places=2), st.integers(1, 10**7), st.integers(0, 10**12))
def test_denominators_stay_few_whatever_the_rate(usd: Any, per: int, tokens: int) -> None:
    """The rate is whole wei, so a price's denominator divides what the list says: carries do not
    multiply with every move of the market."""
    rate = rate_of(str(usd), 0, "feed")
    quote = listed(row("llm", "*", "token", "0.25", per=per)).quote(TINY, rate)
    assert quote is not None
    assert (4 * per) % quote.price_wei.denominator == 0
    assert quote.price_wei * tokens == Fraction(rate.wei_per_usd * tokens, 4 * per)
