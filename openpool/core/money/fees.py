"""Fees to the wei, and the fractions they leave over: one map for segments and for calls.

A worker's carry belongs to the worker and to the denominator of the price, whatever was priced;
so `core.pool` and `core.desk` must be given the same `Fees`, or a wei would be counted twice.
Must not know where a price comes from. Read next: `core.units`, `core.money.ledger`.
"""

from collections.abc import Mapping
from fractions import Fraction

from msgspec import Struct

from openpool.core import units
from openpool.core.calls import Unit
from openpool.core.events import CommissionTaken, FeeCredited
from openpool.core.money.accounts import CUSTOMER
from openpool.core.money.events import Scheme
from openpool.core.money.ledger import CarryKey
from openpool.core.step import Outbox


class Due(Struct, frozen=True, kw_only=True):
    """Work that is to be paid: how much of it, at what price, by whom, to whom."""

    job: str
    """The job or the call."""
    payer: str
    """An orchestrator, or `core.customers.payer` of a customer."""
    worker: str
    address: str
    commission_ppm: int
    units: int
    unit: Unit = "pixel"
    price_wei: Fraction
    """Wei per unit."""
    price_source: str
    pipeline: str = ""
    model: str = ""


class Paid(Struct, frozen=True, kw_only=True):
    """What a fee came to. `fee_wei` is the sum of the other two."""

    fee_wei: int
    worker_wei: int
    commission_wei: int


class Fees:
    """The carries of all workers; `carries` are those that earlier fees left over. `scheme` says
    how orchestrators' fees are paid; what customers pay is always paid job by job."""

    def __init__(
        self, carries: Mapping[CarryKey, int] | None = None, scheme: Scheme = "per-job"
    ) -> None:
        self.carries = dict(carries or {})
        self.scheme: Scheme = scheme

    def credit(self, due: Due, out: Outbox) -> Paid:
        """Record the fee and its split."""
        key = (due.worker, due.price_wei.denominator)
        fee_wei, carry = units.fee(due.units, due.price_wei, self.carries.get(key, 0))
        commission_wei, worker_wei = units.commission(fee_wei, due.commission_ppm)
        self._keep(key, carry)
        paid = Paid(fee_wei=fee_wei, worker_wei=worker_wei, commission_wei=commission_wei)
        scheme: Scheme = "per-job" if due.payer.startswith(CUSTOMER) else self.scheme
        out.note(f"{due.job}/fee-credited", _credited(due, paid, carry, scheme))
        out.note(
            f"{due.job}/commission-taken",
            CommissionTaken(
                job=due.job,
                orchestrator=due.payer,
                worker=due.worker,
                commission_wei=str(commission_wei),
                scheme=scheme,
            ),
        )
        return paid

    def _keep(self, key: CarryKey, carry: int) -> None:
        if carry:
            self.carries[key] = carry
        else:
            self.carries.pop(key, None)

    def check(self) -> None:
        """A carry is a fraction of one wei; raises AssertionError."""
        for (_, denominator), carry in self.carries.items():
            assert 0 < carry < denominator


def _credited(due: Due, paid: Paid, carry: int, scheme: Scheme) -> FeeCredited:
    return FeeCredited(
        job=due.job,
        orchestrator=due.payer,
        worker=due.worker,
        address=due.address,
        pixels=due.units,
        price_wei=units.price_text(due.price_wei),
        price_source=due.price_source,
        fee_wei=str(paid.fee_wei),
        carry=f"{carry}/{due.price_wei.denominator}",
        commission_ppm=due.commission_ppm,
        worker_wei=str(paid.worker_wei),
        unit=due.unit,
        pipeline=due.pipeline,
        model=due.model,
        scheme=scheme,
    )
