"""Checks how rounds were divided, from what a statement says alone.

Each round-settled is computed again with `core.schemes`. Where a revenue rule gave other weights
that cannot be done; then what was shared must still be what there was. Part of
`core.statement_check`.
"""

from collections.abc import Iterator, Sequence

from openpool.core import money_events as money
from openpool.core import schemes
from openpool.core.accounts import COMMISSION, HOLDBACK, WORKER, accrued_account
from openpool.core.receipts import accounts_of
from openpool.core.statements import Fact, Statement, Work

Fault = tuple[str, str]
"""Path and sentence."""
Shares = dict[str, money.ShareCredited]
"""By address."""


def check_settlements(statement: Statement) -> Iterator[Fault]:
    """What is wrong with the rounds that were settled in this statement."""
    for number, fact in enumerate(statement.facts):
        path = f"facts[{number}]"
        if isinstance(fact.data, money.RoundSettled) and fact.data.scheme != "per-job":
            shares = _shares(statement.facts, fact.data)
            yield from _settled(statement, path, fact.data, shares)
            yield from _released(statement, path, fact.data)
        if isinstance(fact.data, money.AdjustmentMade):
            yield from _adjusted(path, fact.data)


def _shares(facts: Sequence[Fact], settled: money.RoundSettled) -> Shares:
    return {
        fact.data.address: fact.data
        for fact in facts
        if isinstance(fact.data, money.ShareCredited)
        and (fact.data.orchestrator, fact.data.round) == (settled.orchestrator, settled.round)
    }


def _settled(
    statement: Statement, path: str, settled: money.RoundSettled, shares: Shares
) -> Iterator[Fault]:
    given = sum(int(each.share_wei) + int(each.commission_wei) for each in shares.values())
    if given != int(settled.shared_wei):
        text = f"Shares and commission add up to {given}, but {settled.shared_wei} were shared."
        yield f"{path}.data.shared_wei", text
    claims, paid = _claims(statement, settled)
    pot_wei = int(settled.shared_wei) + int(settled.carried_wei)
    division = schemes.divide(pot_wei, claims, paid)
    if settled.rule != "none":
        return
    for address in sorted(shares.keys() | division.parts.keys()):
        part = division.parts.get(address, schemes.Part(0, 0))
        share = shares.get(address)
        stated = (int(share.share_wei), int(share.commission_wei)) if share else (0, 0)
        if stated != part:
            text = (
                f"Round {settled.round} gave {address} {stated[0]} and kept {stated[1]}, but its "
                f"work has a part of {part.share_wei} and {part.commission_wei}."
            )
            yield path, text


def _claims(
    statement: Statement, settled: money.RoundSettled
) -> tuple[dict[str, schemes.Claim], int]:
    work = [
        row for row in (*statement.earlier, *statement.work) if row.payer == settled.orchestrator
    ]
    if settled.scheme == "proportional":
        return schemes.proportional_claims(_works(work, settled.round))
    rounds = range(settled.round - 1, settled.round - 1 - statement.window_rounds, -1)
    return schemes.window_claims([_works(work, each) for each in rounds])


def _works(rows: Sequence[Work], round: int) -> dict[str, schemes.Work]:
    works: dict[str, schemes.Work] = {}
    for row in rows:
        if row.round == round:
            work = works.setdefault(row.address, schemes.Work())
            work.add(int(row.fee_wei), int(row.worker_wei), row.commission_ppm, row.scheme)
    return works


def _released(statement: Statement, path: str, settled: money.RoundSettled) -> Iterator[Fault]:
    """What accrued for the round is given back whole, so that only later work is left."""
    if not any(
        isinstance(fact.data, money.RoundStarted) and fact.data.round > settled.round
        for fact in statement.facts
    ):
        return  # later work may stand in an earlier statement
    expected = _accrued_after(statement.work, settled)
    prefix = accrued_account(settled.orchestrator, "")
    for row in statement.accounts:
        later = expected.get(row.account, 0)
        if row.account.startswith(prefix) and int(row.closing_wei) != later:
            text = f"{row.account} holds {row.closing_wei}, but work after the round is {later}."
            yield path, text


def _accrued_after(work: Sequence[Work], settled: money.RoundSettled) -> dict[str, int]:
    """What later rounds' work accrued, by account."""
    accrued: dict[str, int] = {}
    for row in work:
        if row.payer != settled.orchestrator or row.round <= settled.round:
            continue
        if row.scheme != "per-job":
            for name, wei in zip(
                accounts_of(row.payer, row.address, row.scheme),
                (row.worker_wei, row.commission_wei),
                strict=True,
            ):
                accrued[name] = accrued.get(name, 0) + int(wei)
    return accrued


def _adjusted(path: str, data: money.AdjustmentMade) -> Iterator[Fault]:
    for name in (data.debit, data.credit):
        if name != COMMISSION and not name.startswith((WORKER, HOLDBACK)):
            yield path, f"The rule {data.rule} touches {name}, which no rule may do."
    if int(data.amount_wei) < 0:
        yield path, f"The rule {data.rule} moves less than nothing."
