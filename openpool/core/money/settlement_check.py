"""Checks how rounds were divided, from what a statement says alone.

Each round-settled is computed again with `core.money.schemes`. Where a revenue rule gave other
weights that cannot be done; then what was shared must still be what there was. Part of
`core.money.statement_check`.
"""

from collections.abc import Iterator, Mapping, Sequence

from openpool.core.money import events as money
from openpool.core.money import schemes
from openpool.core.money.accounts import COMMISSION, HOLDBACK, WORKER, accrued_account
from openpool.core.money.receipts import accounts_of
from openpool.core.money.statements import Statement, Work

WINDOW_ROUNDS_MAX = 1_000
SETTLED_MAX = 100

Fault = tuple[str, str]
"""Path and sentence."""
Shares = dict[str, money.ShareCredited]
"""By address."""


def check_settlements(statement: Statement) -> Iterator[Fault]:
    """What is wrong with the rounds that were settled in this statement."""
    shares: dict[tuple[str, int], Shares] = {}
    settled: list[tuple[str, money.RoundSettled]] = []
    for number, fact in enumerate(statement.facts):
        path, data = f"facts[{number}]", fact.data
        if isinstance(data, money.ShareCredited):
            shares.setdefault((data.orchestrator, data.round), {})[data.address] = data
        elif isinstance(data, money.RoundSettled) and data.scheme != "per-job":
            settled.append((path, data))
        elif isinstance(data, money.AdjustmentMade):
            yield from _adjusted(path, data)
    if len(settled) > SETTLED_MAX:
        yield "facts", f"More than {SETTLED_MAX} rounds were settled at once."
        return
    for path, data in settled:
        given = shares.pop((data.orchestrator, data.round), {})
        yield from _settled(statement, path, data, given)
        yield from _released(statement, path, data)
    for name, round in shares:
        yield "facts", f"Shares of round {round} of {name} were credited, but it is not settled."


def _settled(
    statement: Statement, path: str, settled: money.RoundSettled, shares: Shares
) -> Iterator[Fault]:
    given = sum(int(each.share_wei) + int(each.commission_wei) for each in shares.values())
    pot_wei = int(settled.shared_wei) + int(settled.carried_wei)
    if given > int(settled.shared_wei) or pot_wei < int(settled.realised_wei):
        text = f"{given} were given of {settled.shared_wei}, and {settled.realised_wei} realised."
        yield f"{path}.data.shared_wei", text
    claims = _claims(statement, settled)
    if claims is None:
        return
    division = schemes.divide(pot_wei, *claims)
    if given + division.settled_wei != int(settled.shared_wei):
        text = (
            f"Shares and commission add up to {given}, and {division.settled_wei} were paid at "
            f"once, but {settled.shared_wei} were shared."
        )
        yield f"{path}.data.shared_wei", text
    if settled.rule == "none":  # else it may have given other weights
        yield from _parts(path, settled, shares, division.parts)


def _parts(
    path: str, settled: money.RoundSettled, shares: Shares, parts: Mapping[str, schemes.Part]
) -> Iterator[Fault]:
    for address in sorted(shares.keys() | parts.keys()):
        part = parts.get(address, schemes.Part(0, 0))
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
) -> tuple[Mapping[str, schemes.Claim], int] | None:
    """What speaks for whom; None if that cannot be known from this statement, because the round
    was settled late, or the window was made longer."""
    if settled.round < statement.round:
        return None
    by_round: dict[int, list[Work]] = {}
    for row in (*statement.earlier, *statement.work):
        if row.payer == settled.orchestrator:
            by_round.setdefault(row.round, []).append(row)
    if settled.scheme == "proportional":
        return schemes.proportional_claims(_works(by_round.get(settled.round, ())))
    known = max((len(row.window) for row in statement.revenue), default=0)
    if known < min(statement.window_rounds, statement.number - 1):
        return None
    window = next(
        (row.window for row in statement.revenue if row.orchestrator == settled.orchestrator), ()
    )
    past = [by_round.get(number, []) for number in window]
    return schemes.window_claims([_works(rows) for rows in past])


def _works(rows: Sequence[Work]) -> dict[str, schemes.Work]:
    works: dict[str, schemes.Work] = {}
    for row in rows:
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
