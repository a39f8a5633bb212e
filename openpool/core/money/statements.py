"""The statement of a round: what the pool's books did between two places of its log, for everybody.

Theory of operation. A statement covers the events after `after_seq` up to `seq`, where the one
before it ended; so statements leave nothing out and count nothing twice. It names every account
that belongs to a payout address, or is commission, with its balance before and after. What moved
in between follows from two lists alone: `work` (receipts, added up) and `facts` (events of money,
as they stand in the log). `moves_of` computes that, for whoever makes a statement and for whoever
checks one (`core.money.statement_check`).

Equal logs give equal bytes. Must not read the log, sign, or know the clock.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from openpool.core.calls import Unit
from openpool.core.events import Event, FeeCredited
from openpool.core.hashchain import Tree
from openpool.core.money import events as money
from openpool.core.money.accounts import LPT
from openpool.core.money.events import MoneyPayload, Scheme
from openpool.core.money.ledger import CarryKey
from openpool.core.money.postings import postings_of
from openpool.core.money.receipts import (
    Receipt,
    accounts_of,
    carry_number,
    encode_receipt,
    leaf_of,
    receipt_of,
)
from openpool.core.payload import Payload

BYTES_MAX = 64_000_000
"""Largest statement that is read."""
KIND = "statement"

FACTS = (
    money.RoundStarted,
    money.RoundSettled,
    money.RevenueRealised,
    money.ShareCredited,
    money.AdjustmentMade,
    money.RuleRefused,
    money.RewardShared,
    money.OrderPlanned,
    money.OrderConfirmed,
    money.OrderVoided,
    money.CorrectionMade,
)
"""Events that may stand in a statement. Orders and corrections only where they touch an account
that does."""
ALWAYS = FACTS[:7]
TYPES = ("fee-credited", *(str(each.__struct_config__.tag) for each in FACTS))
"""Names of all events that a statement is made of."""


class Work(Struct, frozen=True, kw_only=True):
    """Receipts of one kind, added up."""

    round: int
    address: str
    payer: str
    scheme: Scheme
    unit: Unit
    commission_ppm: int
    jobs: int
    units: int
    fee_wei: str
    commission_wei: str
    worker_wei: str


WorkKey = tuple[int, str, str, Scheme, Unit, int]
"""Round, address, payer, scheme, unit and commission."""


class Move(Struct, frozen=True, kw_only=True):
    """What an account got and gave in one way. `kind` is that of the transfers."""

    kind: str
    in_wei: str
    out_wei: str


class AccountRow(Struct, frozen=True, kw_only=True):
    """An account before and after. In LPT base units where its name begins with `lpt/`."""

    account: str
    opening_wei: str
    moves: tuple[Move, ...]
    closing_wei: str


class CarryRow(Struct, frozen=True, kw_only=True):
    """The remainder: a fraction of a wei that waits for the worker's next fee."""

    worker: str
    carry: str


class RevenueRow(Struct, frozen=True, kw_only=True):
    """An orchestrator's revenue in this statement."""

    orchestrator: str
    expected_wei: str
    """What its work is worth at the prices of the receipts."""
    realised_wei: str
    """By how much its claim on chain grew."""
    luck_wei: str
    """Realised minus expected; may start with a minus sign."""
    window: tuple[int, ...]
    """The rounds before this one whose work counts under the scheme `window`, newest first."""


class Fact(Struct, frozen=True, kw_only=True):
    """An event of the log, as it stands there."""

    seq: int
    id: str
    time_ms: int
    data: MoneyPayload


class Statement(Struct, frozen=True, kw_only=True):
    format: Literal["openpool-statement-1"] = "openpool-statement-1"
    pool: str
    chain_id: int
    number: int
    """1 for the pool's first statement."""
    round: int
    after_seq: int
    seq: int
    """Number of the last event that is covered."""
    chain: str
    """Chain hash of the log at that event, hex: nothing below it can change any more."""
    from_ms: int
    to_ms: int
    terms: str
    """Digest of the terms in force at its end; empty if none were published."""
    previous: str
    """Digest of the statement before; empty for the first."""
    receipts: int
    root: str
    """Merkle root over the receipts, hex."""
    window_rounds: int
    """How many rounds before it would share a round's revenue under the scheme `window`."""
    work: tuple[Work, ...]
    earlier: tuple[Work, ...]
    """Work of earlier statements that may count where this round, or a later one, is divided."""
    revenue: tuple[RevenueRow, ...]
    accounts: tuple[AccountRow, ...]
    carries: tuple[CarryRow, ...]
    facts: tuple[Fact, ...]


encode_statement = msgspec.json.Encoder().encode
decode_statement = msgspec.json.Decoder(Statement).decode

Entry = tuple[int, Event]
"""An event with its number in the log."""


class Opening(Struct, frozen=True, kw_only=True):
    """Where the statement before ended."""

    number: int = 0
    seq: int = 0
    time_ms: int = 0
    round: int = 0
    """The round that was running then; what comes before the first one belongs to it."""
    digest: str = ""
    work: tuple[Work, ...] = ()
    """All work that may still count."""
    windows: Mapping[str, tuple[int, ...]] = {}
    """The rounds so far of each orchestrator, newest first."""
    balances: Mapping[str, int] = {}
    carries: Mapping[CarryKey, int] = {}


class Closing(Struct, frozen=True, kw_only=True):
    """Where this one ends, and what it is called."""

    pool: str
    chain_id: int
    round: int
    seq: int
    chain: str
    time_ms: int
    terms: str
    window_rounds: int = 0


def opening_after(statement: Statement, digest: str) -> Opening:
    """Where the next one begins."""
    started = [f.data.round for f in statement.facts if isinstance(f.data, money.RoundStarted)]
    carries: dict[CarryKey, int] = {}
    for row in statement.carries:
        numerator, denominator = carry_number(row.carry)
        carries[row.worker, denominator] = numerator
    return Opening(
        number=statement.number,
        seq=statement.seq,
        time_ms=statement.to_ms,
        round=started[-1] if started else statement.round,
        digest=digest,
        work=(*statement.earlier, *statement.work),
        windows=_windows_after(statement),
        balances={row.account: int(row.closing_wei) for row in statement.accounts},
        carries=carries,
    )


def _windows_after(statement: Statement) -> dict[str, tuple[int, ...]]:
    """With this round in front; only of orchestrators that were known before it ended."""
    known = {row.payer for row in statement.work if row.round <= statement.round}
    for fact in statement.facts:
        if isinstance(fact.data, money.RoundStarted) and fact.data.round > statement.round:
            break
        if isinstance(fact.data, money.RevenueRealised):
            known.add(fact.data.orchestrator)
    return {
        row.orchestrator: (statement.round, *row.window)
        for row in statement.revenue
        if row.window or row.orchestrator in known
    }


def next_round(starts: Sequence[tuple[int, int]], stated: int | None) -> tuple[int, int] | None:
    """The round whose statement is next, and the event at which it ended; None while it runs.

    `starts` are (event, round) in the order of the log, `stated` the round of the last statement.
    """
    rounds = list({number: seq for seq, number in reversed(starts)}.items())[::-1]
    after = [number for number, _ in rounds].index(stated) + 1 if stated is not None else 0
    if len(rounds) < after + 2:
        return None
    return rounds[after][0], rounds[after + 1][1]


# --- making one ----------------------------------------------------------------------------------


def make(
    opening: Opening,
    closing: Closing,
    entries: Iterable[Entry],
    keep: Callable[[bytes], object],
) -> Statement:
    """The statement over these events. `keep` is given the exact bytes of its receipts, in order;
    here they are only counted, so that there may be many."""
    facts, carries, tree = list[Fact](), dict(opening.carries), Tree()

    def receipts() -> Iterator[Receipt]:
        current = opening.round
        for seq, event in entries:
            data = event.data
            if isinstance(data, FeeCredited):
                receipt = _receipt(closing.pool, seq, event.time_ms, data, current, carries)
                encoded = encode_receipt(receipt)
                tree.add(leaf_of(encoded))
                keep(encoded)
                yield receipt
            elif isinstance(data, FACTS) and _is_public(data):
                facts.append(Fact(seq=seq, id=event.id, time_ms=event.time_ms, data=data))
                if isinstance(data, money.RoundStarted):
                    current = data.round

    work = added_up(receipts())
    windows = {name: past[: closing.window_rounds] for name, past in opening.windows.items()}
    counting = {number for past in windows.values() for number in past}
    return Statement(
        pool=closing.pool,
        chain_id=closing.chain_id,
        number=opening.number + 1,
        round=closing.round,
        after_seq=opening.seq,
        seq=closing.seq,
        chain=closing.chain,
        from_ms=opening.time_ms,
        to_ms=closing.time_ms,
        terms=closing.terms,
        previous=opening.digest,
        receipts=tree.size,
        root=tree.root().hex(),
        window_rounds=closing.window_rounds,
        work=work,
        earlier=still_counting(opening.work, closing.round, counting),
        revenue=revenue_of(work, facts, windows),
        accounts=account_rows(opening.balances, moves_of(work, facts)),
        carries=carry_rows(carries),
        facts=tuple(facts),
    )


def _receipt(
    pool: str, seq: int, time_ms: int, fee: FeeCredited, current: int, carries: dict[CarryKey, int]
) -> Receipt:
    numerator, denominator = carry_number(fee.carry)
    before = carries.pop((fee.worker, denominator), 0)
    if numerator:
        carries[fee.worker, denominator] = numerator
    return receipt_of(
        fee,
        pool=pool,
        seq=seq,
        round=current,
        time_ms=time_ms,
        carry_before=f"{before}/{denominator}",
    )


def is_public_account(account: str) -> bool:
    """Whether a statement shows it: what belongs to payout addresses, and the commission."""
    name = account.removeprefix(LPT)
    return name == "commission" or name.startswith(("worker:", "holdback:", "accrued:"))


def _is_public(data: Payload) -> bool:
    return isinstance(data, ALWAYS) or any(
        is_public_account(posting.debit) or is_public_account(posting.credit)
        for posting in postings_of(data)
    )


def added_up(receipts: Iterable[Receipt]) -> tuple[Work, ...]:
    """Receipts added up, in one order."""
    sums: dict[WorkKey, list[int]] = {}
    for r in receipts:
        total = sums.setdefault(_key(r), [0, 0, 0, 0, 0])
        total[0] += 1
        total[1] += r.units
        total[2] += int(r.fee_wei)
        total[3] += int(r.commission_wei)
        total[4] += int(r.worker_wei)
    return tuple(_work(*key, *sums[key]) for key in sorted(sums))


def still_counting(
    work: Iterable[Work], since_round: int, rounds: Collection[int]
) -> tuple[Work, ...]:
    """The rows of these rounds, those of one kind made one. Customers' work shares nothing."""
    sums: dict[WorkKey, list[int]] = {}
    for row in work:
        if row.payer != "customers" and (row.round >= since_round or row.round in rounds):
            total = sums.setdefault(_key(row), [0, 0, 0, 0, 0])
            total[0] += row.jobs
            total[1] += row.units
            total[2] += int(row.fee_wei)
            total[3] += int(row.commission_wei)
            total[4] += int(row.worker_wei)
    return tuple(_work(*key, *sums[key]) for key in sorted(sums))


def _key(row: Work | Receipt) -> WorkKey:
    return (row.round, row.address, row.payer, row.scheme, row.unit, row.commission_ppm)


def _work(
    round: int,
    address: str,
    payer: str,
    scheme: Scheme,
    unit: Unit,
    commission_ppm: int,
    jobs: int,
    units: int,
    fee_wei: int,
    commission_wei: int,
    worker_wei: int,
) -> Work:
    return Work(
        round=round,
        address=address,
        payer=payer,
        scheme=scheme,
        unit=unit,
        commission_ppm=commission_ppm,
        jobs=jobs,
        units=units,
        fee_wei=str(fee_wei),
        commission_wei=str(commission_wei),
        worker_wei=str(worker_wei),
    )


def revenue_of(
    work: Sequence[Work], facts: Sequence[Fact], windows: Mapping[str, tuple[int, ...]]
) -> tuple[RevenueRow, ...]:
    """Expected and realised, for each orchestrator that is known."""
    expected: dict[str, int] = {}
    realised: dict[str, int] = {}
    for row in work:
        if row.payer != "customers":
            expected[row.payer] = expected.get(row.payer, 0) + int(row.fee_wei)
    for fact in facts:
        if isinstance(fact.data, money.RevenueRealised):
            name = fact.data.orchestrator
            realised[name] = realised.get(name, 0) + int(fact.data.amount_wei)
    return tuple(
        RevenueRow(
            orchestrator=name,
            expected_wei=str(expected.get(name, 0)),
            realised_wei=str(realised.get(name, 0)),
            luck_wei=str(realised.get(name, 0) - expected.get(name, 0)),
            window=windows.get(name, ()),
        )
        for name in sorted(expected.keys() | realised.keys() | windows.keys())
    )


# --- what moved ----------------------------------------------------------------------------------

Moves = dict[tuple[str, str], tuple[int, int]]
"""Account and kind -> what came in, and what went out."""


def moves_of(work: Iterable[Work], facts: Iterable[Fact]) -> Moves:
    """What all that moved in the accounts that a statement shows. ValueError for bad amounts."""
    moves: Moves = {}
    for row in work:
        worker, kept = accounts_of(row.payer, row.address, row.scheme)
        _move(moves, worker, "fee", int(row.worker_wei), 0)
        _move(moves, kept, "commission", int(row.commission_wei), 0)
    for fact in facts:
        for posting in postings_of(fact.data):
            amount_wei = int(posting.amount_wei)
            _move(moves, posting.credit, posting.kind, amount_wei, 0)
            _move(moves, posting.debit, posting.kind, 0, amount_wei)
    return moves


def _move(moves: Moves, account: str, kind: str, in_wei: int, out_wei: int) -> None:
    if is_public_account(account) and (in_wei or out_wei):
        before = moves.get((account, kind), (0, 0))
        moves[account, kind] = (before[0] + in_wei, before[1] + out_wei)


def account_rows(opening: Mapping[str, int], moves: Moves) -> tuple[AccountRow, ...]:
    """Every account that held something or moved, by name."""
    by_account: dict[str, list[Move]] = {name: [] for name, wei in opening.items() if wei}
    closing = dict(opening)
    for (account, kind), (in_wei, out_wei) in sorted(moves.items()):
        move = Move(kind=kind, in_wei=str(in_wei), out_wei=str(out_wei))
        by_account.setdefault(account, []).append(move)
        closing[account] = closing.get(account, 0) + in_wei - out_wei
    return tuple(
        AccountRow(
            account=name,
            opening_wei=str(opening.get(name, 0)),
            moves=tuple(by_account[name]),
            closing_wei=str(closing[name]),
        )
        for name in sorted(by_account)
    )


def carry_rows(carries: Mapping[CarryKey, int]) -> tuple[CarryRow, ...]:
    return tuple(
        CarryRow(worker=worker, carry=f"{carries[worker, denominator]}/{denominator}")
        for worker, denominator in sorted(carries)
    )
