"""What an ETH costs in USD, by a price feed on chain (the interface of Chainlink).

A price is believed if it is fresh, in a sane range, and not far from the one before. While the feed
gives nothing usable the last price holds, up to a limit; after that there is none, and whoever
needs one is told so. Must not convert anything: that is `core.prices`.
"""

import asyncio
from collections.abc import Callable

import structlog

from openpool.chain.contracts import PriceFeed
from openpool.chain.interface import Call, Chain, ChainUnavailable, Reverted
from openpool.core.errors import BadMessage, Unavailable
from openpool.core.prices import Rate, rate_of
from openpool.core.texts import plural

logger = structlog.get_logger()

SOURCE = "chainlink"
HOUR_MS = 3_600_000
STALE_MS = 25 * HOUR_MS
"""Older than this a price is not believed; the feed is to say something at least once a day."""
KEEP_MS = 48 * HOUR_MS
"""So long the last price holds when the feed gives none."""
SKEW_MS = 10 * 60_000
USD_MIN = 10
USD_MAX = 1_000_000
LEAP = 3
"""A price that is so many times the last one, or less than that part of it, is not believed."""
DECIMALS_MAX = 18
POLL_S = 60.0


class FeedFault(Unavailable):
    """The price feed gave no usable price."""

    code = "price-feed"


class PriceWatch:
    """Follows one feed. `rate` is what holds now."""

    def __init__(
        self,
        chain: Chain,
        address: str,
        *,
        clock_ms: Callable[[], int],
        keep_ms: int = KEEP_MS,
        poll_s: float = POLL_S,
    ) -> None:
        self._chain = chain
        self._address = address
        self._clock_ms = clock_ms
        self._keep_ms = keep_ms
        self._poll_s = poll_s
        self._last: Rate | None = None
        self._last_usd = 0
        self.problem = ""
        """Why there is no newer price; empty if all is well."""

    def rate(self) -> Rate:
        """The newest believable rate, with the time it is of. Raises FeedFault if there is none,
        or it is too old."""
        if self._last is None:
            raise FeedFault(
                f"What an ETH costs is not known ({self.problem or 'nothing was read yet'}); set "
                "ai.usd_per_eth, or correct chain.price_feed."
            )
        age_ms = self._clock_ms() - self._last.time_ms
        if age_ms > self._keep_ms:
            raise FeedFault(
                f"The last price of an ETH is {plural(age_ms // HOUR_MS, 'hour')} old "
                f"({self.problem or 'the feed stands still'}); set ai.usd_per_eth, or correct "
                "chain.price_feed."
            )
        return self._last

    def known(self) -> Rate | None:
        """Like `rate`, but None where there is none."""
        try:
            return self.rate()
        except FeedFault:
            return None

    async def run(self) -> None:
        """Read the feed from time to time, for ever."""
        while True:
            await self.refresh()
            await asyncio.sleep(self._poll_s)

    async def refresh(self) -> None:
        """Read the feed once. What is wrong with it is in `problem`."""
        try:
            self._last, self._last_usd = await self._read()
            self.problem = ""
        except (FeedFault, ChainUnavailable) as error:
            self._trouble(str(error))
        except (Reverted, BadMessage):
            self._trouble(f"chain.price_feed: what is at {self._address} is no price feed")

    def _trouble(self, problem: str) -> None:
        if not self.problem:
            logger.warning("price-unknown", problem=problem)
        self.problem = problem

    async def _read(self) -> tuple[Rate, int]:
        """The rate, and the price in 1/10^18 USD."""
        calls = [
            Call(to=self._address, data=PriceFeed.decimals.encode()),
            Call(to=self._address, data=PriceFeed.latest_round_data.encode()),
        ]
        decimals_data, round_data = await self._chain.calls(calls)
        for each in (decimals_data, round_data):
            if isinstance(each, Reverted):
                raise each
        assert isinstance(decimals_data, bytes)
        assert isinstance(round_data, bytes)
        decimals = PriceFeed.decimals.one(decimals_data)
        round_id, answer, _, updated_s, answered_in = PriceFeed.latest_round_data.decode(round_data)
        if decimals > DECIMALS_MAX or answered_in < round_id:
            raise FeedFault("the price feed is none, or has no answer for its round")
        return self._believed(answer * 10 ** (DECIMALS_MAX - decimals), updated_s * 1_000)

    def _believed(self, usd: int, updated_ms: int) -> tuple[Rate, int]:
        unit = 10**DECIMALS_MAX
        if not USD_MIN * unit <= usd <= USD_MAX * unit:
            raise FeedFault(f"the price feed says {usd // unit} USD for an ETH")
        age_ms = self._clock_ms() - updated_ms
        if age_ms > STALE_MS:
            raise FeedFault(f"the price feed's answer is {plural(age_ms // HOUR_MS, 'hour')} old")
        if age_ms < -SKEW_MS:
            raise FeedFault("the price feed's answer is of the future; check this machine's clock")
        last = self._last_usd if self.known() else usd
        if not last // LEAP <= usd <= last * LEAP:
            raise FeedFault(f"the price feed leapt from {last // unit} to {usd // unit} USD")
        whole, rest = divmod(usd, unit)
        text = f"{whole}.{rest:018d}".rstrip("0").rstrip(".")
        return rate_of(text, updated_ms, SOURCE), usd
