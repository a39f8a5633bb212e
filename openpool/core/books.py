"""What a delivered job pays: the price that is known, and the fee split to the wei.

Only whole wei leave here. The fraction that a fee leaves over stays in the worker's carry for
that denominator, so that nothing is lost over a million segments. Read next: `core.units`.
"""

from collections.abc import Mapping
from fractions import Fraction

from openpool.core import units
from openpool.core.events import CommissionTaken, FeeCredited, PriceChanged
from openpool.core.facts import PriceKnown
from openpool.core.roster import Worker
from openpool.core.settings import PoolSettings
from openpool.core.step import Outbox

CarryKey = tuple[str, int]
"""Worker, and the denominator of a price."""


class Books:
    """Prices and carries."""

    def __init__(
        self, settings: PoolSettings, out: Outbox, carries: Mapping[CarryKey, int]
    ) -> None:
        self.settings = settings
        self.out = out
        self.carries = dict(carries)
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
        self, *, job: str, orchestrator: str, manifest: str, worker: Worker, pixels: int
    ) -> int:
        """Credit a delivered job. Returns the worker's part in wei."""
        price, source = self.price(orchestrator, manifest)
        key = (worker.name, price.denominator)
        fee_wei, carry = units.fee(pixels, price, self.carries.get(key, 0))
        commission_wei, worker_wei = units.commission(fee_wei, worker.commission_ppm)
        self._carry(key, carry)
        self.out.note(
            f"{job}/fee-credited",
            FeeCredited(
                job=job,
                orchestrator=orchestrator,
                worker=worker.name,
                address=worker.address,
                pixels=pixels,
                price_wei=units.price_text(price),
                price_source=source,
                fee_wei=str(fee_wei),
                carry=f"{carry}/{price.denominator}",
                commission_ppm=worker.commission_ppm,
                worker_wei=str(worker_wei),
            ),
        )
        self.out.note(
            f"{job}/commission-taken",
            CommissionTaken(
                job=job,
                orchestrator=orchestrator,
                worker=worker.name,
                commission_wei=str(commission_wei),
            ),
        )
        return worker_wei

    def _carry(self, key: CarryKey, carry: int) -> None:
        if carry:
            self.carries[key] = carry
        else:
            self.carries.pop(key, None)

    def check(self) -> None:
        """A carry is a fraction of one wei; raises AssertionError."""
        for (_, denominator), carry in self.carries.items():
            assert 0 < carry < denominator
        assert self._manifests == sum(1 for _, manifest in self._prices if manifest)
