"""Revenue rules: what one is shown, what it may answer, and how the answer is applied.

A rule never touches the books. It answers with weights, which replace the split, or with a list
of adjustments, which move money of this round between workers, commission and holdback. This
file checks every bit of the answer and keeps account by account what there is to move, so that
nothing is made or lost. One wrong entry refuses the whole answer.

Pure: rules run elsewhere (`openpool.rules`), because one may hang or crash. Ready-made rules and
the way to write one: docs/how-to/write-a-revenue-hook.md.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

from openpool.core.errors import OpenPoolError
from openpool.core.money.accounts import (
    COMMISSION,
    HOLDBACK,
    WORKER,
    holdback_account,
    worker_account,
)
from openpool.core.money.events import Scheme
from openpool.core.texts import plural

ENTRIES_PER_MEMBER = 4
ENTRIES_MIN = 100
"""A rule may always make so many adjustments, or a few for each member if that is more."""
NUMBER_MAX = 2**256
REASON_CHARS_MAX = 200


class RuleFault(OpenPoolError):
    """A revenue rule failed, or its answer cannot be applied."""


class Lot(Struct, frozen=True, kw_only=True):
    """Money held back in an earlier round, as far as it is still there."""

    round: int
    amount_wei: int


class Member(Struct, frozen=True, kw_only=True):
    """A payout address of the pool, and what it did in the round."""

    address: str
    share_wei: int = 0
    """What it gets of this round, with what rules before this one have moved. 0 for `weights`."""
    commission_wei: int = 0
    """What the pool keeps of its part, before any rule."""
    weight: int = 0
    """Its part of the pot, against the sum of all weights, if no rule says otherwise."""
    worth_wei: int = 0
    """The round's work at expected value, before commission."""
    groups: dict[str, int] = {}
    """The same by the group of the worker that did it."""
    jobs: int = 0
    failed: int = 0
    """Attempts that failed by its fault."""
    banned: bool = False
    """Every worker of this address is banned."""
    held: tuple[Lot, ...] = ()
    """Oldest first."""


class Round(Struct, frozen=True, kw_only=True):
    """A closed round of one orchestrator, as a rule sees it."""

    orchestrator: str
    round: int
    scheme: Scheme
    start_ms: int
    end_ms: int
    expected_wei: int
    realised_wei: int
    pot_wei: int
    """What is divided: realised, and carried from the round before. 0 under `per-job`."""
    commission_wei: int
    """What there is of the round's commission, after the rules before this one."""
    members: tuple[Member, ...]
    """All addresses of the pool, sorted; also those that did nothing in this round."""


class Adjustment(Struct, frozen=True, kw_only=True):
    """Move an amount of this round from one account to another."""

    debit: str
    """`worker:<address>`, `holdback:<address>` or `commission`, as is the next."""
    credit: str
    amount_wei: int
    reason: str
    """For the people concerned: one short sentence."""


class Rule(Protocol):
    """A rule that can be asked, with what identifies it. Both questions may raise RuleFault;
    None is the answer of a rule that has nothing to say."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def hash(self) -> str: ...
    @property
    def options_text(self) -> str: ...
    def weights(self, round: Round) -> object: ...
    def adjustments(self, round: Round) -> object: ...


class Funds:
    """What there is of a round, account by account."""

    def __init__(self, amounts: dict[str, int]) -> None:
        self.amounts = amounts

    def moved(self, adjustments: Sequence[Adjustment]) -> "Funds":
        """What there is afterwards. RuleFault if an account has not got enough at its turn."""
        after = dict(self.amounts)
        for number, each in enumerate(adjustments, 1):
            there = after.get(each.debit, 0)
            if each.amount_wei > there:
                raise RuleFault(
                    f"adjustment {number} takes {each.amount_wei} wei from {each.debit}, "
                    f"where this round has {there}"
                )
            after[each.debit] = there - each.amount_wei
            after[each.credit] = after.get(each.credit, 0) + each.amount_wei
        return Funds(after)


def checked_weights(answer: object, round: Round) -> dict[str, int] | None:
    """The weights in a rule's answer, None if it has none. Raises RuleFault."""
    if answer is None:
        return None
    if round.scheme == "per-job":
        raise RuleFault("it replaces the split, and under per-job there is none")
    if not isinstance(answer, Mapping):
        raise RuleFault(f"its weights are no mapping of addresses to numbers but {_kind(answer)}")
    claims = {member.address for member in round.members if member.weight}
    if len(answer) > len(claims):
        raise RuleFault(
            f"it gives {plural(len(answer), 'weight')}; the round has {len(claims)} to give"
        )
    for address, weight in answer.items():
        if address not in claims:
            raise RuleFault(f"it gives a weight to {_shown(address)}, which has no work to weigh")
        _check_number(weight, f"the weight of {address}")
    if claims and not any(answer.values()):
        raise RuleFault("all its weights are zero")
    return {address: answer[address] for address in sorted(answer)}


def checked_adjustments(answer: object, round: Round) -> list[Adjustment]:
    """The adjustments in a rule's answer, without those of nothing. Raises RuleFault."""
    if answer is None:
        return []
    if not isinstance(answer, list | tuple):
        raise RuleFault(f"its adjustments are no list but {_kind(answer)}")
    most = max(ENTRIES_MIN, ENTRIES_PER_MEMBER * len(round.members))
    if len(answer) > most:
        raise RuleFault(f"it makes {len(answer)} adjustments; at most {most} are taken")
    known = {member.address for member in round.members}
    made = [_adjustment(entry, number, known) for number, entry in enumerate(answer, 1)]
    return [each for each in made if each.amount_wei]


def _adjustment(entry: object, number: int, known: set[str]) -> Adjustment:
    where = f"adjustment {number}"
    if not isinstance(entry, Adjustment):
        entry = _from_mapping(entry, where)
    _check_account(entry.debit, known, where)
    _check_account(entry.credit, known, where)
    if entry.debit == entry.credit:
        raise RuleFault(f"{where} moves from {entry.debit} to itself")
    _check_number(entry.amount_wei, f"the amount of {where}")
    reason = entry.reason
    if type(reason) is not str or not 0 < len(reason) <= REASON_CHARS_MAX:
        raise RuleFault(f"the reason of {where} is no text of up to {REASON_CHARS_MAX} characters")
    if not reason.isprintable():
        raise RuleFault(f"the reason of {where} has characters that cannot be printed")
    return entry


def _from_mapping(entry: object, where: str) -> Adjustment:
    fields: Any = entry
    if not isinstance(entry, Mapping) or set(entry) != set(Adjustment.__struct_fields__):
        raise RuleFault(f"{where} has not exactly debit, credit, amount_wei and reason")
    return Adjustment(**fields)


def _check_account(account: object, known: set[str], where: str) -> None:
    if account == COMMISSION:
        return
    if type(account) is not str or not account.startswith((WORKER, HOLDBACK)):
        raise RuleFault(f"{where} names {_shown(account)}, which no rule may touch")
    if account.partition(":")[2] not in known:
        raise RuleFault(f"{where} names {_shown(account)}, whose address the pool does not know")


def _check_number(value: object, what: str) -> None:
    """A whole number, and nothing that only looks like one (bool, float, NaN, text)."""
    if type(value) is not int:
        raise RuleFault(f"{what} is no whole number but {_kind(value)}")
    if value < 0:
        raise RuleFault(f"{what} is negative")
    if value > NUMBER_MAX:
        raise RuleFault(f"{what} is larger than 2**256")


def _kind(value: object) -> str:
    names = {"float": "a float", "bool": "true or false", "str": "a text", "NoneType": "nothing"}
    return names.get(type(value).__name__, f"a {type(value).__name__}")


def _shown(value: object) -> str:
    return "".join(c if c.isprintable() else "\ufffd" for c in str(value)[:80])


# --- for rules ------------------------------------------------------------------------------------


def pay(address: str, amount_wei: int, reason: str) -> Adjustment:
    """Give a worker something out of commission."""
    return Adjustment(
        debit=COMMISSION, credit=worker_account(address), amount_wei=amount_wei, reason=reason
    )


def charge(address: str, amount_wei: int, reason: str) -> Adjustment:
    """Take something from a worker's share into commission."""
    return Adjustment(
        debit=worker_account(address), credit=COMMISSION, amount_wei=amount_wei, reason=reason
    )


def hold(address: str, amount_wei: int, reason: str) -> Adjustment:
    """Keep a part of a worker's share back."""
    return Adjustment(
        debit=worker_account(address),
        credit=holdback_account(address),
        amount_wei=amount_wei,
        reason=reason,
    )


def release(address: str, amount_wei: int, reason: str) -> Adjustment:
    """Give a worker what was held back."""
    return Adjustment(
        debit=holdback_account(address),
        credit=worker_account(address),
        amount_wei=amount_wei,
        reason=reason,
    )


def forfeit(address: str, amount_wei: int, reason: str) -> Adjustment:
    """Take what was held back into commission."""
    return Adjustment(
        debit=holdback_account(address),
        credit=COMMISSION,
        amount_wei=amount_wei,
        reason=reason,
    )
