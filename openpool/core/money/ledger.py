"""Double entry in whole wei: which transfers an event causes, and what they add up to.

Theory of operation. Money moves by immutable transfers; one transfer takes an amount from its
`debit` account and gives it to its `credit` account, so the sum over all accounts is always zero.
What the pool owes stands in accounts above zero; what it has, or is owed, in accounts below.

    worker:<address>         owed to whoever holds that payout address
    commission               what the pool keeps
    holdback:<address>       earned, kept back for a while by a revenue rule
    accrued:<orchestrator>:… expected value of work, under schemes that share what is realised
    in-flight                taken from its owners for orders that are not final yet
    fees:<orchestrator>      realised minus expected: below zero, work that has not paid off yet;
                             above, luck, or revenue that is not shared yet
    customer:<id>            the same for a customer of the pool's own API, down to its limit
                             (`core.customers`)
    claim:<orchestrator>     minus what can be withdrawn from the protocol
    wallet:<address>         minus what a hot wallet of ours holds
    gas                      minus what was spent on gas
    operator                 what the operator put in, or (minus) holds for the pool

Accounts in LPT have the same names behind `lpt/`; a transfer stays within one asset.
Fractions of a wei never become money: they stay in the *carry* of a worker (`core.units.fee`).
Must not do I/O or read a clock. What money events move is in `core.money.postings`.
Read next: `core.events`, `store.books`.
"""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import lru_cache

from msgspec import Struct

from openpool.core.events import CommissionTaken, Event, FeeCredited
from openpool.core.money.accounts import (
    COMMISSION,
    LPT,
    accrued_account,
    fees_account,
    may_go_negative,
    worker_account,
)
from openpool.core.money.postings import Posting, postings_of

__all__ = [
    "COMMISSION",
    "Balances",
    "CarryKey",
    "Transfer",
    "balance_faults",
    "carry_of",
    "fees_account",
    "may_go_negative",
    "transfers_of",
    "wei",
    "worker_account",
]

CarryKey = tuple[str, int]
"""Worker, and the denominator of the prices that this carry belongs to."""


class Transfer(Struct, frozen=True, kw_only=True):
    """One immutable movement of money. `id` is its idempotency key."""

    id: str
    event_id: str
    time_ms: int
    debit: str
    credit: str
    amount_wei: int
    kind: str
    """`fee`, `commission`, `payout` …: `core.money.postings` has the others."""


def wei(text: str) -> int:
    """Whole wei from its canonical decimal text; ValueError for anything else."""
    if not (text.isascii() and text.isdigit()) or (text[0] == "0" and text != "0"):
        raise ValueError(f"not an amount in whole wei: {text[:80]!r}")
    return int(text)


def transfers_of(event: Event) -> tuple[Transfer, ...]:
    """What the event moves; nothing for a zero amount. ValueError for an amount that is none."""
    return tuple(
        Transfer(
            id=f"{event.id}/{posting.kind}{posting.part}",
            event_id=event.id,
            time_ms=event.time_ms,
            debit=posting.debit,
            credit=posting.credit,
            amount_wei=amount_wei,
            kind=posting.kind,
        )
        for posting in _postings(event)
        if (amount_wei := wei(posting.amount_wei))
    )


def _postings(event: Event) -> Iterator[Posting]:
    match event.data:
        case FeeCredited(orchestrator=payer, address=address, scheme="per-job") as fee:
            yield Posting("fee", fees_account(payer), worker_account(address), fee.worker_wei)
        case FeeCredited(orchestrator=payer, address=address) as fee:
            yield Posting(
                "fee", fees_account(payer), accrued_account(payer, address), fee.worker_wei
            )
        case CommissionTaken(orchestrator=payer, scheme="per-job") as taken:
            yield Posting("commission", fees_account(payer), COMMISSION, taken.commission_wei)
        case CommissionTaken(orchestrator=payer) as taken:
            yield Posting(
                "commission",
                fees_account(payer),
                accrued_account(payer, COMMISSION),
                taken.commission_wei,
            )
        case _:
            yield from postings_of(event.data)


def carry_of(event: Event) -> tuple[CarryKey, int] | None:
    """The carry an event leaves behind, as (worker, denominator) and numerator; None if none.

    The denominator is the price's own, because the text of a fraction is shortened.
    ValueError if the carry is not a fraction of one wei with that denominator.
    """
    if not isinstance(event.data, FeeCredited):
        return None
    denominator = _fraction(event.data.price_wei).denominator
    numerator = _fraction(event.data.carry) * denominator
    if numerator.denominator != 1 or not 0 <= numerator < denominator:
        raise ValueError(f"carry {event.data.carry} does not fit price {event.data.price_wei}")
    return (event.data.worker, denominator), numerator.numerator


@lru_cache(maxsize=4096)
def _fraction(text: str) -> Fraction:
    return Fraction(text)


class Balances:
    """What transfers add up to, account by account."""

    def __init__(self, amounts: dict[str, int] | None = None) -> None:
        self.amounts: dict[str, int] = amounts if amounts is not None else {}

    def post(self, transfer: Transfer) -> None:
        self._add(transfer.debit, -transfer.amount_wei)
        self._add(transfer.credit, transfer.amount_wei)

    def _add(self, account: str, amount_wei: int) -> None:
        self.amounts[account] = self.amounts.get(account, 0) + amount_wei

    def total(self) -> int:
        """Zero, unless something is wrong."""
        return sum(self.amounts.values())

    def faults(self) -> list[str]:
        """What is wrong with these balances, one sentence each; empty if they are sound."""
        return balance_faults(self.amounts.items())


def balance_faults(balances: Iterable[tuple[str, int]]) -> list[str]:
    """Check (account, amount) pairs: each asset sums to zero, and only what the pool has, or is
    owed, stands below zero."""
    faults, totals = [], {"wei": 0, "LPT base units": 0}
    for account, amount in balances:
        unit = "LPT base units" if account.startswith(LPT) else "wei"
        totals[unit] += amount
        if amount < 0 and not may_go_negative(account):
            faults.append(f"Account {account} holds {amount} {unit}, less than nothing.")
    for unit, total in totals.items():
        if total:
            faults.append(f"All accounts together hold {total} {unit}; they must hold 0.")
    return faults
