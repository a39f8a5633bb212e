"""Money and rates: whole wei in `int`, rates in parts per million, prices as rationals.

Nothing here rounds silently. A fee that is not a whole number of wei leaves its fraction in a
*carry*, so that a million segments at 1/3 wei per pixel pay exactly what the pixels are worth.
"""

from collections.abc import Sequence
from fractions import Fraction

PPM = 1_000_000
"""Parts per million in one: `250_000` is 25 %."""

GWEI = 10**9
ETHER = 10**18


def decimal_text(amount: int) -> str:
    """Wei, or LPT base units, as whole ETH or LPT with every digit: `12.5`. None below zero."""
    whole, rest = divmod(amount, ETHER)
    return f"{whole}.{rest:018d}".rstrip("0").rstrip(".")


def split(amount_wei: int, weights: Sequence[int]) -> list[int]:
    """Divide `amount_wei` in proportion to `weights`, losing nothing (largest remainder).

    Ties go to the earlier weight, so the result depends on nothing but the arguments.
    Raises ValueError for a negative amount or weight, or if all weights are zero.
    """
    total = sum(weights)
    if amount_wei < 0 or min(weights, default=0) < 0 or total <= 0:
        raise ValueError("split needs an amount >= 0 and weights >= 0 that are not all zero")
    shares = [amount_wei * weight // total for weight in weights]
    by_remainder = sorted(
        range(len(weights)), key=lambda i: (-(amount_wei * weights[i] % total), i)
    )
    for i in by_remainder[: amount_wei - sum(shares)]:
        shares[i] += 1
    return shares


def commission(fee_wei: int, commission_ppm: int) -> tuple[int, int]:
    """What the pool keeps of a fee, and what the worker gets; together always `fee_wei`.

    As `split` would do it, ten times as fast. ValueError for a negative fee or a rate above one.
    """
    if fee_wei < 0 or not 0 <= commission_ppm <= PPM:
        raise ValueError("commission needs a fee >= 0 and a rate from 0 to 1")
    kept = (fee_wei * commission_ppm + PPM // 2) // PPM
    return kept, fee_wei - kept


def price(text: str) -> Fraction:
    """A price in wei per pixel from `"1200"`, `"1/3"` or `"0.25"`; ValueError if it is none."""
    value = Fraction(text)
    if value < 0:
        raise ValueError(f"a price cannot be negative: {text!r}")
    return value


def price_text(value: Fraction) -> str:
    """The shortest exact text of a price: `"1200"` or `"1/3"`."""
    return str(value)


def fee(units: int, price_wei: Fraction, carry: int) -> tuple[int, int]:
    """The whole wei that `units` are worth, and the new carry.

    `carry` counts what earlier fees at a price of the same denominator left over, in
    1/denominator wei: `0 <= carry < price_wei.denominator`.
    """
    return divmod(units * price_wei.numerator + carry, price_wei.denominator)
