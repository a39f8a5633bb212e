"""What a delivered job pays: the price that is known, times what was made.

Must not compute a fee itself: that is `core.money.fees`, which calls share. Read next:
`core.units`.
"""

from fractions import Fraction

from openpool.core import units
from openpool.core.events import PriceChanged
from openpool.core.facts import PriceKnown
from openpool.core.money.fees import Due, Fees
from openpool.core.roster import Worker
from openpool.core.settings import PoolSettings
from openpool.core.step import Outbox


class Books:
    """Prices, and the fees made of them."""

    def __init__(self, settings: PoolSettings, out: Outbox, fees: Fees) -> None:
        self.settings = settings
        self.out = out
        self.fees = fees
        self._prices: dict[tuple[str, str], PriceKnown] = {}
        """By orchestrator and manifest; the manifest changed longest ago comes first."""
        self._manifests = 0

    def learn(self, fact: PriceKnown) -> None:
        """A price; the same one again is no news."""
        key = (fact.orchestrator, fact.manifest)
        known = self._prices.pop(key, None)
        self._prices[key] = fact
        if known == fact:
            return
        if known is None and fact.manifest:
            self._manifests += 1
            self._forget_oldest()
        self.out.note(
            f"{fact.orchestrator}/price/{self.out.serial()}",
            PriceChanged(
                orchestrator=fact.orchestrator,
                manifest=fact.manifest,
                price_wei=units.price_text(fact.price_wei),
                source=fact.source,
            ),
        )

    def _forget_oldest(self) -> None:
        if self._manifests > self.settings.manifest_prices_max:
            del self._prices[next(key for key in self._prices if key[1])]
            self._manifests -= 1

    def price(self, orchestrator: str, manifest: str) -> tuple[Fraction, str]:
        """The price of a pixel and where it is known from; (0, "none") if nobody said."""
        known = self._prices.get((orchestrator, manifest)) or self._prices.get((orchestrator, ""))
        return (known.price_wei, known.source) if known else (Fraction(0), "none")

    def credit(
        self,
        *,
        job: str,
        orchestrator: str,
        manifest: str,
        worker: Worker,
        pixels: int,
        payer: str = "",
    ) -> int:
        """Credit a delivered job, which the orchestrator pays unless another payer is named.
        Returns the worker's part in wei."""
        price, source = self.price(orchestrator, manifest)
        due = Due(
            job=job,
            payer=payer or orchestrator,
            worker=worker.name,
            address=worker.address,
            commission_ppm=worker.commission_ppm,
            units=pixels,
            price_wei=price,
            price_source=source,
        )
        return self.fees.credit(due, self.out).worker_wei

    def check(self) -> None:
        """A carry is a fraction of one wei, and prices are counted; raises AssertionError."""
        self.fees.check()
        assert self._manifests == sum(1 for _, manifest in self._prices if manifest)
