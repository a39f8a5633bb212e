"""What settles a closed round: shares, adjustments by revenue rules, and the sum of it, as events.

A pure function of the closing, which is a fold over the log (`core.money.rounds`), and of what the
rules answer. Ids and times are made from the round itself: settling twice gives the same events,
and the log keeps the first.
"""

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from openpool.core.events import AnyPayload, Event
from openpool.core.money.accounts import COMMISSION, holdback_account, worker_account
from openpool.core.money.events import AdjustmentMade, RoundSettled, RuleRefused, ShareCredited
from openpool.core.money.rounds import Closing
from openpool.core.money.rules import (
    Adjustment,
    Funds,
    Member,
    Round,
    Rule,
    RuleFault,
    checked_adjustments,
    checked_weights,
)
from openpool.core.money.schemes import (
    Claim,
    Division,
    Part,
    Work,
    divide,
    proportional_claims,
    reweighed,
    window_claims,
)

NOTHING = Part(0, 0)
REASON_CHARS_MAX = 500


class _Refused(Exception):
    """A rule spoilt the settlement, which is then made without it."""

    def __init__(self, number: int, fault: RuleFault) -> None:
        self.number, self.reason = number, str(fault)[:REASON_CHARS_MAX]


class _Result(Struct, frozen=True, kw_only=True):
    division: Division
    adjustments: list[tuple[str, list[Adjustment]]]
    """By rule."""


def settle(
    closing: Closing, rules: Sequence[Rule] = (), balances: Mapping[str, int] | None = None
) -> list[Event]:
    """The events that settle this round, for one transaction. Never fails because of a rule: one
    that does anything wrong is left out, and that is an event, too.

    `balances` are those of the ledger. Under `per-job` workers may have been paid before the
    round ended, and what is gone cannot be adjusted.
    """
    refused: dict[int, str] = {}
    while True:
        taken = [(n, rule) for n, rule in enumerate(rules, 1) if n not in refused]
        try:
            result = _settled(closing, taken, balances)
        except _Refused as refusal:
            refused[refusal.number] = refusal.reason
            continue
        facts = [
            *_refusals(closing, rules, refused),
            *_shares(closing, result.division),
            *_adjustments(closing, result),
            ("settled", _summary(closing, [rule for _, rule in taken], result.division)),
        ]
        prefix = f"round/{closing.orchestrator}/{closing.round}"
        return [
            Event(id=f"{prefix}/{name}", time_ms=closing.end_ms, data=data) for name, data in facts
        ]


def _settled(
    closing: Closing, rules: Sequence[tuple[int, Rule]], balances: Mapping[str, int] | None
) -> _Result:
    claims, paid = _claims(closing)
    division = _division(closing, rules, claims, paid)
    funds = _funds(closing, division, balances)
    made = []
    for number, rule in rules:
        view = _view(closing, claims, division, funds)
        try:
            adjustments = checked_adjustments(rule.adjustments(view), view)
            funds = funds.moved(adjustments)
        except RuleFault as fault:
            raise _Refused(number, fault) from None
        made.append((rule.name, adjustments))
    return _Result(division=division, adjustments=made)


def _claims(closing: Closing) -> tuple[dict[str, Claim], int]:
    match closing.scheme:
        case "per-job":
            return {}, 0
        case "proportional":
            return proportional_claims(closing.work)
        case "window":
            return window_claims(closing.window)


def _division(
    closing: Closing, rules: Sequence[tuple[int, Rule]], claims: dict[str, Claim], paid: int
) -> Division:
    pot_wei = _pot(closing)
    plain = divide(pot_wei, claims, paid)
    empty = Division({}, 0, pot_wei)
    found: Division | None = None
    for number, rule in rules:
        view = _view(closing, claims, empty, Funds({}))
        try:
            weights = checked_weights(rule.weights(view), view)
            if weights is None or not claims:
                continue
            if found is not None:
                raise RuleFault("a rule before it has replaced the split already")
        except RuleFault as fault:
            raise _Refused(number, fault) from None
        own = divide(pot_wei - plain.settled_wei, reweighed(claims, weights))
        found = Division(own.parts, plain.settled_wei, own.left_wei)
    return found or plain


def _pot(closing: Closing) -> int:
    """Under `per-job` nothing is divided here; what is left of other times stays."""
    if closing.scheme == "per-job":
        return closing.carried_wei
    return closing.carried_wei + closing.realised_wei


def _funds(closing: Closing, division: Division, balances: Mapping[str, int] | None) -> Funds:
    """What rules may move: this round's earnings, as far as they are still there."""

    def there(account: str, earned_wei: int) -> int:
        return earned_wei if balances is None else min(earned_wei, balances.get(account, 0))

    amounts = {}
    for address, work in closing.work.items():
        if work.paid_wei:
            account = worker_account(address)
            amounts[account] = there(account, work.paid_wei)
    paid = sum(work.paid_commission_wei for work in closing.work.values())
    amounts[COMMISSION] = there(COMMISSION, paid)
    for address, part in division.parts.items():
        account = worker_account(address)
        amounts[account] = amounts.get(account, 0) + part.share_wei
        amounts[COMMISSION] += part.commission_wei
    for address, lots in closing.held.items():
        amounts[holdback_account(address)] = sum(lot.amount_wei for lot in lots)
    return Funds(amounts)


def _view(closing: Closing, claims: dict[str, Claim], division: Division, funds: Funds) -> Round:
    addresses = {*closing.members, *closing.work, *claims, *closing.held}
    return Round(
        orchestrator=closing.orchestrator,
        round=closing.round,
        scheme=closing.scheme,
        start_ms=closing.start_ms,
        end_ms=closing.end_ms,
        expected_wei=_expected(closing),
        realised_wei=closing.realised_wei,
        pot_wei=0 if closing.scheme == "per-job" else _pot(closing),
        commission_wei=funds.amounts.get(COMMISSION, 0),
        members=tuple(
            _member(closing, address, claims.get(address), division, funds)
            for address in sorted(addresses)
        ),
    )


def _member(
    closing: Closing, address: str, claim: Claim | None, division: Division, funds: Funds
) -> Member:
    work = closing.work.get(address) or Work()
    part = division.parts.get(address, NOTHING)
    return Member(
        address=address,
        share_wei=funds.amounts.get(worker_account(address), 0),
        commission_wei=part.commission_wei + work.paid_commission_wei,
        weight=claim.weight if claim else 0,
        worth_wei=work.worth_wei + work.paid_worth_wei,
        groups=work.groups,
        jobs=work.jobs,
        failed=closing.failed.get(address, 0),
        banned=closing.members.get(address, False),
        held=closing.held.get(address, ()),
    )


def _expected(closing: Closing) -> int:
    return sum(work.worth_wei + work.paid_worth_wei for work in closing.work.values())


# --- events ---------------------------------------------------------------------------------------


def _refusals(
    closing: Closing, rules: Sequence[Rule], refused: Mapping[int, str]
) -> Iterator[tuple[str, AnyPayload]]:
    for number, reason in sorted(refused.items()):
        yield (
            f"refused/{number}",
            RuleRefused(
                orchestrator=closing.orchestrator,
                round=closing.round,
                rule=rules[number - 1].name,
                reason=reason,
            ),
        )


def _shares(closing: Closing, division: Division) -> Iterator[tuple[str, AnyPayload]]:
    """Also for those who get nothing, if something was accrued for them."""
    for address in sorted({*closing.work, *division.parts}):
        work = closing.work.get(address) or Work()
        part = division.parts.get(address, NOTHING)
        if not (work.worth_wei or any(part)):
            continue
        yield (
            f"share/{address}",
            ShareCredited(
                orchestrator=closing.orchestrator,
                round=closing.round,
                address=address,
                scheme=closing.scheme,
                accrued_wei=str(work.accrued_wei),
                accrued_commission_wei=str(work.accrued_commission_wei),
                share_wei=str(part.share_wei),
                commission_wei=str(part.commission_wei),
            ),
        )


def _adjustments(closing: Closing, result: _Result) -> Iterator[tuple[str, AnyPayload]]:
    number = 0
    for rule, adjustments in result.adjustments:
        for each in adjustments:
            number += 1
            yield (
                f"adjustment/{number}",
                AdjustmentMade(
                    orchestrator=closing.orchestrator,
                    round=closing.round,
                    rule=rule,
                    debit=each.debit,
                    credit=each.credit,
                    amount_wei=str(each.amount_wei),
                    reason=each.reason,
                ),
            )


def _summary(closing: Closing, rules: Sequence[Rule], division: Division) -> RoundSettled:
    expected_wei, left_wei = _expected(closing), division.left_wei
    shared_wei = expected_wei if closing.scheme == "per-job" else _pot(closing) - left_wei
    return RoundSettled(
        orchestrator=closing.orchestrator,
        round=closing.round,
        scheme=closing.scheme,
        rule="+".join(rule.name for rule in rules) or "none",
        rule_version="+".join(rule.version for rule in rules),
        rule_hash="+".join(rule.hash for rule in rules),
        rule_options="; ".join(rule.options_text for rule in rules),
        start_ms=closing.start_ms,
        end_ms=closing.end_ms,
        expected_wei=str(expected_wei),
        realised_wei=str(closing.realised_wei),
        shared_wei=str(shared_wei),
        carried_wei=str(left_wei),
    )
