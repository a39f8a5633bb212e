"""What a unit of an app costs: price lists in USD or wei, exact, converted at a recorded rate.

Money is never a float here: prices are `Fraction`s of a wei, and a rate is whole wei per USD, so
that prices keep few different denominators (`core.money.fees` keeps a carry for each). Read next:
`core.usage`.
"""

import re
from collections.abc import Iterable
from fractions import Fraction
from typing import Literal

from msgspec import Struct

from openpool.core.calls import App, Unit
from openpool.core.units import ETHER, price_text

Currency = Literal["usd", "wei"]
RunnerUnit = Literal["fixed", "hour"]

ANY = "*"
AMOUNT = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?")
HOUR_S = 3600
USD_DECIMALS = 12
"""Decimals of a price in USD that is told to an orchestrator."""


class Rate(Struct, frozen=True, kw_only=True):
    """What a USD was worth, when, and who said so."""

    wei_per_usd: int
    time_ms: int
    source: str


class PriceRow(Struct, frozen=True, kw_only=True):
    """`amount` of `currency` for `per` units of an app; `*` stands for any pipeline or model."""

    pipeline: str
    model: str
    unit: Unit
    amount: Fraction
    currency: Currency
    per: int


class Quote(Struct, frozen=True, kw_only=True):
    """The price of a unit, and how it came about."""

    unit: Unit
    price_wei: Fraction
    source: str
    usd: str = ""
    """As the list has it, such as `1/2 per 1000000`; empty if the list says wei."""
    rate: Rate | None = None


class RunnerPrice(Struct, frozen=True, kw_only=True):
    """A price as an orchestrator is told it at registration."""

    usd: str
    """Decimal text."""
    unit: RunnerUnit


def rate_of(usd_per_eth: str, time_ms: int, source: str) -> Rate:
    """The rate from what an ETH costs, such as `"3120.45"`. ValueError if that is no price."""
    price = Fraction(usd_per_eth) if AMOUNT.fullmatch(usd_per_eth) else Fraction(0)
    if price == 0 or ETHER // price == 0:
        raise ValueError(f"an ETH cannot cost {usd_per_eth!r} USD")
    return Rate(wei_per_usd=ETHER // price, time_ms=time_ms, source=source)


def runner_unit(*, session: bool) -> Unit:
    """What an orchestrator sells an app by: sessions by time, requests each at a fixed price."""
    return "second" if session else "request"


class PriceList:
    """Rows in the order they were written, found by app: the most specific first."""

    def __init__(self, rows: Iterable[PriceRow], source: str = "config") -> None:
        """ValueError if two rows say different things about the same, or one makes no sense."""
        self.source = source
        self._rows: dict[tuple[str, str], dict[Unit, PriceRow]] = {}
        for row in rows:
            if row.amount < 0 or row.per < 1:
                raise ValueError(f"{row.pipeline}/{row.model} has a price that is none")
            by_unit = self._rows.setdefault((row.pipeline, row.model), {})
            if row.unit in by_unit:
                raise ValueError(f"{row.pipeline}/{row.model} has two prices per {row.unit}")
            by_unit[row.unit] = row

    def find(self, app: App, *units: Unit) -> PriceRow | None:
        """The row for an app, of one of these units if any are named. Of several that are equally
        specific, the first."""
        pipeline, model = app.pipeline, app.model
        for key in ((pipeline, model), (pipeline, ANY), (ANY, model), (ANY, ANY)):
            for unit, row in self._rows.get(key, {}).items():
                if not units or unit in units:
                    return row
        return None

    def quote(self, app: App, rate: Rate | None, *units: Unit) -> Quote | None:
        """What a unit of this app pays now; None if the list does not say, or it says USD and no
        rate is known."""
        row = self.find(app, *units)
        if row is None:
            return None
        if row.currency == "wei":
            return Quote(unit=row.unit, price_wei=row.amount / row.per, source=self.source)
        if rate is None:
            return None
        return Quote(
            unit=row.unit,
            price_wei=row.amount * rate.wei_per_usd / row.per,
            source=self.source,
            usd=f"{price_text(row.amount)} per {row.per}",
            rate=rate,
        )

    def runner_price(self, app: App, *, session: bool, rate: Rate | None) -> RunnerPrice | None:
        """The price to register an app with: by the hour for sessions, else one for each request.

        None if the list has no row per second, or per request, or it says wei and there is no
        rate, or it comes to nothing.
        """
        row = self.find(app, runner_unit(session=session))
        if row is None:
            return None
        usd = row.amount / row.per * (HOUR_S if session else 1)
        if row.currency == "wei":
            if rate is None:
                return None
            usd /= rate.wei_per_usd
        text = _decimal(usd)
        return RunnerPrice(usd=text, unit="hour" if session else "fixed") if text != "0" else None


def _decimal(value: Fraction) -> str:
    """Decimal text, rounded to `USD_DECIMALS`: the orchestrator knows no fractions."""
    scaled = round(value * 10**USD_DECIMALS)
    whole, rest = divmod(scaled, 10**USD_DECIMALS)
    return f"{whole}.{rest:0{USD_DECIMALS}}".rstrip("0").rstrip(".")
