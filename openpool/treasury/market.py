"""The market of LPT and ETH, and what LPT costs there on average.

Must not decide whether a price is good enough; `core.money.swap` and `core.money.payout_plan` do.
"""

from dataclasses import dataclass
from fractions import Fraction

from openpool.chain.contracts import Swap
from openpool.chain.interface import Call, Chain
from openpool.core.errors import BadMessage
from openpool.core.money.swap import AVERAGE_S, average_price


@dataclass(frozen=True, kw_only=True)
class Market:
    """Addresses of contracts of Uniswap V3."""

    weth: str
    pool: str
    quoter: str
    router: str


async def average_lpt(chain: Chain, market: Market, token: str) -> Fraction:
    """LPT per ETH over the last 30 minutes, `token` being LPT.

    Raises Reverted or BadMessage if there is no such market, and ChainUnavailable.
    """
    first, second = [
        method.one(await chain.call(Call(to=market.pool, data=method.encode())))
        for method in (Swap.token0, Swap.token1)
    ]
    if {first, second} != {token, market.weth}:
        raise BadMessage("The contract at lpt.pool is no market of LPT and lpt.weth.")
    call = Call(to=market.pool, data=Swap.observe.encode([AVERAGE_S, 0]))
    ticks, _ = Swap.observe.decode(await chain.call(call))
    if len(ticks) != 2:
        raise BadMessage("The contract at lpt.pool does not tell its average.")
    return average_price(*ticks, lpt_is_token0=first == token)
