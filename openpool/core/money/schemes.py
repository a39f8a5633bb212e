"""How a round's revenue is divided, in whole wei. Three schemes:

    per-job        each job is paid at once, at expected value; the operator carries the luck
    proportional   what a round realised, by the work of that round
    window         what a round realised, by the work of the rounds before it, newer work first

Work is valued at its expected value (units × price), whatever the luck was. Parts are rounded
down; what that leaves over is carried to the next round, so that no wei is lost or made.

`window` looks only back: revenue is shared by work that was done before the round in which it
was realised. So who comes after a win was seen has no part in it, and a unit of work earns the
same whenever it is done (docs/payout-schemes.md says under which conditions).

Pure. Which work belongs to which round is decided in `core.money.settlement`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from msgspec import Struct

from openpool.core.money.accounts import ACCRUED, COMMISSION, CUSTOMER, FEES, fees_account
from openpool.core.money.events import Scheme
from openpool.core.units import PPM


class Work(Struct, kw_only=True):
    """What one address did for one orchestrator in one round, valued at expected value."""

    worth_wei: int = 0
    """All fees before commission, of work that is paid by sharing revenue."""
    net: int = 0
    """The worker's part of it, exactly: the sum of fee × (PPM - commission_ppm)."""
    accrued_wei: int = 0
    """What the books hold for it until it is shared, as whole wei; the next is the pool's part."""
    accrued_commission_wei: int = 0
    paid_worth_wei: int = 0
    """Fees before commission of work that was paid at once, as are the next two."""
    paid_wei: int = 0
    paid_commission_wei: int = 0
    scheme: Scheme = "per-job"
    """The one that settles it; `window` before `proportional` before `per-job`."""
    jobs: int = 0
    groups: dict[str, int] = {}
    """Fees before commission, of both kinds, by the worker's group."""

    def add(self, fee_wei: int, worker_wei: int, commission_ppm: int, scheme: Scheme) -> None:
        """Count one fee."""
        self.jobs += 1
        if scheme == "per-job":
            self.paid_worth_wei += fee_wei
            self.paid_wei += worker_wei
            self.paid_commission_wei += fee_wei - worker_wei
        else:
            if self.scheme != "window":
                self.scheme = scheme
            self.worth_wei += fee_wei
            self.net += fee_wei * (PPM - commission_ppm)
            self.accrued_wei += worker_wei
            self.accrued_commission_wei += fee_wei - worker_wei


Works = Mapping[str, Work]
"""By payout address."""


def scheme_of(works: Works) -> Scheme | None:
    """What settles a round with this work; None if there is none. Where the scheme was changed
    within the round, the one that shares most widely counts."""
    found = {work.scheme for work in works.values()}
    schemes: tuple[Scheme, ...] = ("window", "proportional", "per-job")
    return next((scheme for scheme in schemes if scheme in found), None)


class Claim(NamedTuple):
    """What speaks for an address when a pot is divided."""

    weight: int
    """Its part of the pot, against the sum of all weights."""
    worth: int
    """Work, weighted by age; `net` is the worker's part of it, times PPM."""
    net: int


class Part(NamedTuple):
    """What an address gets of a pot."""

    share_wei: int
    commission_wei: int


class Division(NamedTuple):
    """A pot, divided. Parts, `settled_wei` and `left_wei` together are the pot."""

    parts: dict[str, Part]
    settled_wei: int
    """The part that belongs to work which was paid at once already: it stays where it is."""
    left_wei: int
    """Carried to the next round."""


def proportional_claims(work: Works) -> tuple[dict[str, Claim], int]:
    """Claims of a round's own work, and the weight of what was paid at once."""
    return _claims([(1, work)])


def window_claims(newest_first: Sequence[Works]) -> tuple[dict[str, Claim], int]:
    """Claims of the work of the rounds before, also empty ones: the newest counts most, and the
    one after the last would count nothing. Work that a round of its own has paid off has no
    claim. Also the weight of what was paid at once."""
    return _claims(
        (factor, works)
        for factor, works in zip(range(len(newest_first), 0, -1), newest_first, strict=True)
        if scheme_of(works) != "proportional"
    )


def _claims(rounds: Iterable[tuple[int, Works]]) -> tuple[dict[str, Claim], int]:
    worth: dict[str, int] = {}
    net: dict[str, int] = {}
    paid = 0
    for factor, works in rounds:
        for address, work in works.items():
            paid += factor * work.paid_worth_wei
            if work.worth_wei:
                worth[address] = worth.get(address, 0) + factor * work.worth_wei
                net[address] = net.get(address, 0) + factor * work.net
    claims = {address: Claim(worth[address], worth[address], net[address]) for address in worth}
    return claims, paid


def divide(pot_wei: int, claims: Mapping[str, Claim], paid: int = 0) -> Division:
    """Divide a pot by weight. Each part is rounded down and then divided into the worker's share
    and commission. Where nothing has any weight, all is left."""
    total = paid + sum(claim.weight for claim in claims.values())
    if not total:
        return Division({}, 0, pot_wei)
    settled_wei = pot_wei * paid // total
    left_wei = pot_wei - settled_wei
    parts = {}
    for address, (weight, worth, net) in claims.items():
        part_wei = pot_wei * weight // total
        share_wei = part_wei * net // (worth * PPM)
        parts[address] = Part(share_wei, part_wei - share_wei)
        left_wei -= part_wei
    return Division(parts, settled_wei, left_wei)


def reweighed(claims: Mapping[str, Claim], weights: Mapping[str, int]) -> dict[str, Claim]:
    """The same claims under other weights; an address that is not named has none."""
    return {
        address: claim._replace(weight=weights.get(address, 0)) for address, claim in claims.items()
    }


class Reserve(Struct, frozen=True, kw_only=True):
    """How much of the commission is free to be taken out, under `per-job`."""

    commission_wei: int
    unrealised_wei: int
    """Paid to workers and commission, and not yet realised or paid by customers."""
    reserve_wei: int
    free_wei: int


def reserve(balances: Iterable[tuple[str, int]], reserve_ppm: int) -> Reserve:
    """The reserve rule: commission first covers `reserve_ppm` of what is not realised yet.

    `balances` are (account, amount) of the ledger. What only accrued was not paid to anybody, so
    it needs no reserve. The reserve is rounded up.
    """
    commission_wei, payers = 0, dict[str, int]()
    for account, amount_wei in balances:
        if account == COMMISSION:
            commission_wei = amount_wei
        elif account.startswith((FEES, CUSTOMER)):
            payers[account] = payers.get(account, 0) + amount_wei
        elif account.startswith(ACCRUED):
            payer = fees_account(account.split(":")[1])
            payers[payer] = payers.get(payer, 0) + amount_wei
    unrealised_wei = sum(-amount_wei for amount_wei in payers.values() if amount_wei < 0)
    reserve_wei = -(-unrealised_wei * reserve_ppm // PPM)
    return Reserve(
        commission_wei=commission_wei,
        unrealised_wei=unrealised_wei,
        reserve_wei=reserve_wei,
        free_wei=max(commission_wei - reserve_wei, 0),
    )
