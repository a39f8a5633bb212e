"""Corrections: a new entry that mends an old one, which stays as it is.

Only an operator makes them, and everybody concerned sees them in the next statement. Pure: the
balances and the event that was wrong are handed in. Must not append.
"""

from collections.abc import Mapping

from msgspec import Struct

from openpool.core.errors import NotAllowed
from openpool.core.money.accounts import ACCRUED, HOLDBACK, IN_FLIGHT, LPT, may_go_negative
from openpool.core.money.events import CorrectionMade
from openpool.core.money.ledger import wei

REASON_CHARS_MAX = 500
BOUND = (IN_FLIGHT, ACCRUED, HOLDBACK)
"""Accounts that somebody empties by what the log says was put in, whatever they hold."""


class Mending(Struct, frozen=True, kw_only=True):
    """What is to be moved, to mend an event."""

    corrects: str
    """The event's id, or its number in the log."""
    debit: str
    credit: str
    amount_wei: str


def correction_id(correction: str) -> str:
    """Id of its event: made twice under one name, it counts once."""
    return f"correction/{correction}"


def check_correction(
    correction: CorrectionMade, *, balances: Mapping[str, int], event_known: bool
) -> None:
    """Whether it may be made. Raises NotAllowed with the reason."""
    if not event_known:
        raise NotAllowed(
            f"There is no event `{correction.corrects[:80]}` in the log; `openpool events` shows "
            "the ids."
        )
    amount_wei = _amount(correction.amount_wei)
    if not 0 < len(correction.reason) <= REASON_CHARS_MAX:
        raise NotAllowed(f"Give a reason of up to {REASON_CHARS_MAX} characters.")
    for account in (correction.debit, correction.credit):
        if account not in balances:
            raise NotAllowed(
                f"There is no account `{account[:80]}` in the books; `openpool ledger` shows all."
            )
        if account.removeprefix(LPT).startswith(BOUND):
            raise NotAllowed(
                f"What `{account[:80]}` holds is bound: an order or a settlement takes out exactly "
                "what was put in. Correct the account that it comes to, like `worker:…`."
            )
    if correction.debit == correction.credit:
        raise NotAllowed("Debit and credit are the same account, so nothing would move.")
    if correction.debit.startswith(LPT) != correction.credit.startswith(LPT):
        raise NotAllowed("One account is in LPT and the other in ETH; each has its own correction.")
    there = balances[correction.debit]
    if there < amount_wei and not may_go_negative(correction.debit):
        raise NotAllowed(
            f"{correction.debit} holds {there}, so {amount_wei} cannot be taken from it."
        )


def _amount(text: str) -> int:
    try:
        amount_wei = wei(text)
    except ValueError:
        amount_wei = 0
    if not amount_wei:
        raise NotAllowed("The amount is a whole number of wei above 0, in decimal digits.")
    return amount_wei
