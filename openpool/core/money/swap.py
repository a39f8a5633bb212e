"""Whether fees are exchanged for LPT now, and for how much at least. Pure.

LPT that the pool has to spare goes first, at the average price of 30 minutes: no market, no gas.
Else the market is asked, and believed only near that average, so that nobody can move the price
for one block and sell to us. What is accepted at least is never 0.
"""

from fractions import Fraction

from msgspec import Struct

from openpool.core.errors import BadMessage
from openpool.core.money.payout_plan import amount_text, percent_text
from openpool.core.units import PPM

AVERAGE_S = 1_800
TICK = Fraction(10_001, 10_000)
TICK_MAX = 887_272
"""No market of Uniswap V3 has a price beyond 1.0001 to the power of this, up or down."""
_BITS = 192


class SwapRules(Struct, frozen=True, kw_only=True):
    """What `lpt` of the settings says."""

    most_wei: int
    """Largest single exchange."""
    slippage_ppm: int
    deviation_ppm: int
    deadline_ms: int


class Convert(Struct, frozen=True):
    """Give LPT that the pool has, and keep the ETH."""

    amount_lpt: int


class Exchange(Struct, frozen=True):
    """Buy LPT; less than this is not accepted."""

    minimum_lpt: int


class Refuse(Struct, frozen=True):
    why: str


def tick_price(tick: int) -> Fraction:
    """1.0001^tick, to far more digits than there are wei: how much of token1 one token0 is."""
    power, result = (TICK.numerator << _BITS) // TICK.denominator, 1 << _BITS
    left = abs(tick)
    while left:
        if left & 1:
            result = result * power >> _BITS
        power = power * power >> _BITS
        left >>= 1
    price = Fraction(result, 1 << _BITS)
    return price if tick >= 0 else price**-1


def average_price(older: int, newer: int, *, lpt_is_token0: bool) -> Fraction:
    """LPT per ETH, from two sums of ticks that are AVERAGE_S apart. Raises BadMessage."""
    tick = (newer - older) // AVERAGE_S  # the pool rounds down as well
    if abs(tick) > TICK_MAX:
        raise BadMessage("The market's average is no price.")
    price = tick_price(tick)
    return price**-1 if lpt_is_token0 else price


def from_spare(amount_wei: int, average: Fraction, spare_lpt: int) -> Convert | None:
    """Whether the LPT to spare is enough for this amount."""
    wanted = int(amount_wei * average)
    return Convert(wanted) if 0 < wanted <= spare_lpt else None


def from_market(
    amount_wei: int, quote_lpt: int, average: Fraction, rules: SwapRules
) -> Exchange | Refuse:
    """Whether to take what the market offers for this amount."""
    if amount_wei > rules.most_wei:
        return Refuse(f"At most {amount_text(rules.most_wei)} is exchanged at one time.")
    fair = int(amount_wei * average)
    if fair <= 0 or quote_lpt <= 0:
        return Refuse("The market gives no price for LPT.")
    if abs(quote_lpt - fair) * PPM > rules.deviation_ppm * fair:
        quoted, usual = amount_text(quote_lpt, "LPT"), amount_text(fair, "LPT")
        return Refuse(
            f"The market offers {quoted} where the average of 30 minutes is {usual}: more than "
            f"{percent_text(rules.deviation_ppm)} apart. It is tried again later."
        )
    return Exchange(max(quote_lpt * (PPM - rules.slippage_ppm) // PPM, 1))
