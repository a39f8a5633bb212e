"""Double entry in whole wei: which transfers an event causes, and what they add up to.

Theory of operation. Money moves by immutable transfers; one transfer takes an amount from its
`debit` account and gives it to its `credit` account, so the sum over all accounts is always zero.

    fees:<orchestrator>   expected value of delivered work, not yet received: minus its balance is
                          what the orchestrator owes the pool
    customer:<id>         the same for a customer of the pool's own API; only these two may go
                          negative, a customer down to its limit (`core.customers`)
    worker:<address>      owed to whoever holds that payout address
    commission            what the pool keeps

Fractions of a wei never become money: they stay in the *carry* of a worker (`core.units.fee`).
Must not do I/O or read a clock. Read next: `core.events`, `store.books`.
"""

from collections.abc import Iterable
from fractions import Fraction
from functools import lru_cache

from msgspec import Struct

from openpool.core.events import CommissionTaken, Event, FeeCredited

COMMISSION = "commission"
FEES = "fees:"
CUSTOMER = "customer:"

CarryKey = tuple[str, int]
"""Worker, and the denominator of the prices that this carry belongs to."""


def fees_account(payer: str) -> str:
    """The account that pays. A customer's name as payer (`core.customers`) is its account."""
    return payer if payer.startswith(CUSTOMER) else f"{FEES}{payer}"


def worker_account(address: str) -> str:
    """Addresses are taken as they are: enrolment writes them in one canonical form."""
    return f"worker:{address}"


def may_go_negative(account: str) -> bool:
    return account.startswith((FEES, CUSTOMER))


class Transfer(Struct, frozen=True, kw_only=True):
    """One immutable movement of money. `id` is its idempotency key."""

    id: str
    event_id: str
    time_ms: int
    debit: str
    credit: str
    amount_wei: int
    kind: str
    """`fee` or `commission`."""


def wei(text: str) -> int:
    """Whole wei from its canonical decimal text; ValueError for anything else."""
    if not (text.isascii() and text.isdigit()) or (text[0] == "0" and text != "0"):
        raise ValueError(f"not an amount in whole wei: {text[:80]!r}")
    return int(text)


def transfers_of(event: Event) -> tuple[Transfer, ...]:
    """What the event moves; nothing for a zero amount. ValueError for an amount that is none."""
    match event.data:
        case FeeCredited(orchestrator=orchestrator, address=address, worker_wei=amount):
            return _transfer(event, "fee", orchestrator, worker_account(address), amount)
        case CommissionTaken(orchestrator=orchestrator, commission_wei=amount):
            return _transfer(event, "commission", orchestrator, COMMISSION, amount)
    return ()


def _transfer(
    event: Event, kind: str, orchestrator: str, credit: str, amount: str
) -> tuple[Transfer, ...]:
    amount_wei = wei(amount)
    if amount_wei == 0:
        return ()
    transfer = Transfer(
        id=f"{event.id}/{kind}",
        event_id=event.id,
        time_ms=event.time_ms,
        debit=fees_account(orchestrator),
        credit=credit,
        amount_wei=amount_wei,
        kind=kind,
    )
    return (transfer,)


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
    """Check (account, wei) pairs: they sum to zero, and only payers are negative."""
    faults, total = [], 0
    for account, amount_wei in balances:
        total += amount_wei
        if amount_wei < 0 and not may_go_negative(account):
            faults.append(f"Account {account} holds {amount_wei} wei, less than nothing.")
    if total:
        faults.append(f"All accounts together hold {total} wei; they must hold 0.")
    return faults
