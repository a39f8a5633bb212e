"""Checks a statement without trusting whoever made it: everything is computed again.

Takes files from strangers; sizes are bounded before anything is computed. Signatures and the chain
are checked by whoever calls (`cli.verify`). Each finding is one sentence with the path of what is
wrong. Read next: `core.money.statements`, `core.money.settlement_check`.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
from msgspec import Struct

from openpool.core.decoding import UNREADABLE
from openpool.core.errors import BadMessage
from openpool.core.hashchain import merkle_root
from openpool.core.money import events as money
from openpool.core.money.accounts import LPT, WORKER, worker_account
from openpool.core.money.documents import Signed, check_canonical
from openpool.core.money.ledger import wei
from openpool.core.money.postings import postings_of
from openpool.core.money.receipts import (
    LINE_BYTES_MAX,
    Proven,
    Receipt,
    decode_proven,
    decode_receipt,
    faults_of,
    leaf_of,
    root_proven,
)
from openpool.core.money.settlement_check import WINDOW_ROUNDS_MAX, check_settlements
from openpool.core.money.statements import (
    AccountRow,
    Fact,
    Opening,
    Statement,
    Work,
    account_rows,
    added_up,
    decode_statement,
    moves_of,
    opening_after,
    revenue_of,
    still_counting,
)
from openpool.core.money.terms import Terms
from openpool.core.texts import plural

RECEIPTS_MAX = 2_000_000
FINDINGS_MAX = 20
Ordered = money.OrderPlanned | money.OrderConfirmed | money.OrderVoided


class Finding(Struct, frozen=True, kw_only=True):
    """Something that is wrong."""

    path: str
    """Where, like `accounts[3].closing_wei`."""
    text: str


def read(signed: Signed) -> Statement:
    """The statement in a signed file. Raises BadMessage."""
    try:
        return decode_statement(bytes(signed.document))
    except msgspec.ValidationError as error:
        raise BadMessage(
            f"The document is no statement that this version knows: {error}."
        ) from None


def limited(findings: Iterable[Finding]) -> list[Finding]:
    """The first findings, and how many more there are."""
    found = list(findings)
    more = len(found) - FINDINGS_MAX
    if more <= 0:
        return found
    return [*found[:FINDINGS_MAX], Finding(path="", text=f"There are {more} more faults.")]


# --- the statement by itself ---------------------------------------------------------------------


def check_statement(statement: Statement) -> Iterator[Finding]:
    """Everything that can be checked without another file."""
    try:
        yield from _window(statement)
        yield from _work(statement.work)
        yield from _facts(statement)
        yield from _revenue(statement)
        yield from _accounts(statement)
        yield from (Finding(path=path, text=text) for path, text in check_settlements(statement))
    except (ValueError, TypeError):
        # amounts are text, and a stranger may have written anything there
        yield Finding(path="", text="An amount is not a whole number in decimal digits.")


def _window(statement: Statement) -> Iterator[Finding]:
    if not 0 <= statement.after_seq < statement.seq:
        text = f"It covers no events: after {statement.after_seq} up to {statement.seq}."
        yield Finding(path="seq", text=text)
    if not 0 <= statement.window_rounds <= WINDOW_ROUNDS_MAX:
        text = f"A window has at most {WINDOW_ROUNDS_MAX} rounds."
        yield Finding(path="window_rounds", text=text)
    if statement.from_ms > statement.to_ms:
        yield Finding(path="to_ms", text="It ends before it begins.")


def _work(work: Sequence[Work]) -> Iterator[Finding]:
    for number, row in enumerate(work):
        if int(row.fee_wei) != int(row.commission_wei) + int(row.worker_wei):
            text = f"A fee of {row.fee_wei} is not commission plus what the worker gets."
            yield Finding(path=f"work[{number}].fee_wei", text=text)
        if min(row.jobs, row.units, int(row.commission_wei), int(row.worker_wei)) < 0:
            yield Finding(path=f"work[{number}]", text="It holds a number below zero.")


def _facts(statement: Statement) -> Iterator[Finding]:
    last = statement.after_seq
    planned: dict[str, money.OrderPlanned] = {}
    for number, fact in enumerate(statement.facts):
        path = f"facts[{number}]"
        if not last < fact.seq <= statement.seq:
            text = f"Event {fact.seq} is out of order, or outside of this statement."
            yield Finding(path=f"{path}.seq", text=text)
        last = fact.seq
        if isinstance(fact.data, money.OrderPlanned):
            planned[fact.data.order] = fact.data
        if isinstance(fact.data, money.OrderConfirmed):
            yield from _confirmed(path, fact.data)
        if isinstance(fact.data, Ordered):
            yield from _lines(path, fact.data, planned.get(fact.data.order))
        yield from _amounts(path, fact)
    yield from _twice(statement)


def _amounts(path: str, fact: Fact) -> Iterator[Finding]:
    """Less than nothing would turn a movement round."""
    for posting in postings_of(fact.data):
        try:
            wei(posting.amount_wei)
        except ValueError:
            text = f"{posting.amount_wei[:40]!r} is not an amount of whole wei."
            yield Finding(path=f"{path}.data", text=text)


def _twice(statement: Statement) -> Iterator[Finding]:
    """One event, one end of an order, one transaction for it: each proves one thing."""
    counts = Counter(f"Event {fact.id}" for fact in statement.facts)
    for fact in statement.facts:
        if isinstance(fact.data, money.OrderConfirmed | money.OrderVoided):
            counts[f"The end of order {fact.data.order}"] += 1
            counts[f"The transaction {fact.data.tx}"] += bool(fact.data.tx)
    for name, count in sorted(counts.items()):
        if count > 1:
            yield Finding(path="facts", text=f"{name} is in it twice."[:200])


def _confirmed(path: str, order: money.OrderConfirmed) -> Iterator[Finding]:
    for number, line in enumerate(order.lines):
        amount, sent, gas = int(line.amount_wei), int(line.send_wei), int(line.gas_wei)
        if min(amount, sent, gas) < 0 or sent + gas > amount:
            text = f"More than the {amount} that were set aside was used."
            yield Finding(path=f"{path}.data.lines[{number}]", text=text)


def _lines(path: str, order: Ordered, planned: money.OrderPlanned | None) -> Iterator[Finding]:
    """Whoever is debited is whoever is paid, from the plan to the end."""
    for number, line in enumerate(order.lines):
        account = line.account.removeprefix(LPT)
        if account.startswith(WORKER) and account != worker_account(line.address):
            text = f"What {line.account} had is sent to {line.address}."
            yield Finding(path=f"{path}.data.lines[{number}]", text=text)
    if planned is not None:
        before = [(each.account, each.address, each.amount_wei) for each in planned.lines]
        after = [(each.account, each.address, each.amount_wei) for each in order.lines]
        if before != after:
            text = f"Order {order.order} was planned for other accounts, addresses or amounts."
            yield Finding(path=f"{path}.data.lines", text=text)


def _revenue(statement: Statement) -> Iterator[Finding]:
    windows = {row.orchestrator: row.window for row in statement.revenue if row.window}
    if revenue_of(statement.work, statement.facts, windows) != statement.revenue:
        text = "Expected or realised revenue is not what work and facts add up to."
        yield Finding(path="revenue", text=text)


def _accounts(statement: Statement) -> Iterator[Finding]:
    opening = {row.account: int(row.opening_wei) for row in statement.accounts}
    expected = account_rows(opening, moves_of(statement.work, statement.facts))
    stated = {row.account: (number, row) for number, row in enumerate(statement.accounts)}
    if len(stated) < len(statement.accounts):
        yield Finding(path="accounts", text="An account is in it twice.")
    for row in expected:
        number, found = stated.pop(row.account, (-1, None))
        if found is None:
            text = f"{row.account} is missing, though it moved."
            yield Finding(path="accounts", text=text)
        elif found != row:
            yield _account_finding(number, found, row)
        if int(row.closing_wei) < 0:
            path = f"accounts[{number}].closing_wei"
            yield Finding(path=path, text=f"{row.account} ends below zero.")
    for number, row in stated.values():
        yield Finding(path=f"accounts[{number}]", text=f"{row.account} neither held nor moved.")


def _account_finding(number: int, found: AccountRow, expected: AccountRow) -> Finding:
    if found.moves != expected.moves:
        path = f"accounts[{number}].moves"
        text = f"What {found.account} got and gave is not what work and facts say."
        for index, (one, other) in enumerate(zip(found.moves, expected.moves, strict=False)):
            if one != other:
                path = f"{path}[{index}]"
                text = (
                    f"{found.account} has {one.kind} in {one.in_wei} and out {one.out_wei}, but "
                    f"work and facts say {other.kind} in {other.in_wei} and out {other.out_wei}."
                )
                break
        return Finding(path=path, text=text)
    text = (
        f"{found.account} ends at {found.closing_wei}, but opening and moves add up to "
        f"{expected.closing_wei}."
    )
    return Finding(path=f"accounts[{number}].closing_wei", text=text)


# --- against the statement before ----------------------------------------------------------------


def check_previous(statement: Statement, previous: Statement, digest: str) -> Iterator[Finding]:
    """Whether this statement goes on where that one ended."""
    if statement.previous != digest:
        text = f"The statement before has digest {digest}, but this one names another."
        yield Finding(path="previous", text=text)
        return
    try:
        opening = opening_after(previous, digest)
        stated = {row.account: int(row.opening_wei) for row in statement.accounts}
    except ValueError:
        yield Finding(path="previous", text="An amount is not a whole number in decimal digits.")
        return
    if (statement.after_seq, statement.from_ms) != (opening.seq, opening.time_ms):
        yield Finding(path="after_seq", text=f"The one before ended at event {opening.seq}.")
    if statement.number != opening.number + 1:
        yield Finding(path="number", text=f"The one before has number {opening.number}.")
    for tx in sorted(_transactions(statement) & _transactions(previous)):
        text = f"The statement before names the transaction {tx[:80]} already."
        yield Finding(path="facts", text=text)
    yield from _history(statement, opening)
    yield from _carried(statement, previous)
    for account in sorted(stated.keys() | opening.balances.keys()):
        before, now = opening.balances.get(account, 0), stated.get(account, 0)
        if before != now:
            text = f"{account} begins at {now}, but the statement before ended at {before}."
            yield Finding(path="accounts", text=text)


def _transactions(statement: Statement) -> set[str]:
    """Those that paid somebody."""
    return {f.data.tx for f in statement.facts if isinstance(f.data, money.OrderConfirmed)}


def _history(statement: Statement, opening: Opening) -> Iterator[Finding]:
    """Work of earlier rounds is passed on as it was."""
    windows = {name: past[: statement.window_rounds] for name, past in opening.windows.items()}
    if {row.orchestrator: row.window for row in statement.revenue if row.window} != {
        name: past for name, past in windows.items() if past
    }:
        text = "The rounds of a window are not those that the statement before leads to."
        yield Finding(path="revenue", text=text)
    counting = {number for past in windows.values() for number in past}
    if still_counting(opening.work, statement.round, counting) != statement.earlier:
        text = "The work of earlier rounds is not what the statement before says."
        yield Finding(path="earlier", text=text)


def _carried(statement: Statement, previous: Statement) -> Iterator[Finding]:
    """What a round carries over is what the next one begins with."""
    carried = {
        fact.data.orchestrator: int(fact.data.carried_wei)
        for fact in previous.facts
        if isinstance(fact.data, money.RoundSettled)
    }
    for number, fact in enumerate(statement.facts):
        if not isinstance(fact.data, money.RoundSettled) or fact.data.scheme == "per-job":
            continue
        data = fact.data
        brought = int(data.shared_wei) + int(data.carried_wei) - int(data.realised_wei)
        before = carried.pop(data.orchestrator, None)
        if before is not None and before != brought:
            text = f"{brought} were brought forward, but the round before carried {before} over."
            yield Finding(path=f"facts[{number}].data.carried_wei", text=text)


# --- against the terms ---------------------------------------------------------------------------


def check_terms(statement: Statement, signer: str, signed: Signed) -> Iterator[Finding]:
    """Whether work was paid as the terms say. The signature of the terms is checked already."""
    if signed.digest != statement.terms:
        text = "The statement names other terms as those in force at its end."
        yield Finding(path="terms", text=text)
        return
    try:
        terms = msgspec.json.decode(signed.document, type=Terms)
    except UNREADABLE as error:
        yield Finding(path="terms", text=f"These terms cannot be read: {error}.")
        return
    if signed.signer != signer or terms.pool != statement.pool:
        yield Finding(path="terms", text="The terms are of another pool, or signed by another key.")
    if terms.previous and terms.applies_ms > statement.from_ms:
        return  # they began to apply in this statement: work before may be paid as it was before
    promise = terms.promise
    rates = {promise.commission_ppm, *(group.commission_ppm for group in promise.groups)}
    for number, row in enumerate(statement.work):
        if row.commission_ppm not in rates:
            text = f"A commission of {row.commission_ppm} ppm is none that the terms have."
            yield Finding(path=f"work[{number}].commission_ppm", text=text)
        if row.payer != "customers" and row.scheme != promise.scheme:
            text = f"Work was paid {row.scheme}, but the terms say {promise.scheme}."
            yield Finding(path=f"work[{number}].scheme", text=text)


# --- receipts ------------------------------------------------------------------------------------


class Line(NamedTuple):
    """A line of a file of receipts, read."""

    number: int
    proven: Proven
    receipt: Receipt


def check_receipts(
    statement: Statement, lines: Sequence[bytes], *, address: str = ""
) -> Iterator[Finding]:
    """Every receipt, the root over them, and what they add up to.

    A file of all receipts is checked as a whole. Otherwise every line must prove that it is in the
    statement; what an address earned is compared where all of its receipts are there, and that
    must be so for `address`."""
    if len(lines) > RECEIPTS_MAX:
        yield Finding(path="receipts", text=f"There are more than {RECEIPTS_MAX} receipts.")
        return
    read: list[Line] = []
    for number, data in enumerate(lines):
        line = _line(number, data)
        if isinstance(line, Finding):
            yield line
        else:
            read.append(line)
    if len(read) < len(lines):
        return
    whole = len(lines) == statement.receipts
    if not whole and not any(line.proven.path for line in read):
        text = (
            f"The file has {plural(len(read), 'receipt')} without proofs, but the statement has "
            f"{statement.receipts}."
        )
        yield Finding(path="receipts", text=text)
        return
    yield from _root(statement, read) if whole else _proofs(statement, read)
    yield from _each(statement, read)
    yield from _sums(statement, read, address)


def _line(number: int, data: bytes) -> Line | Finding:
    path = f"receipts[{number}]"
    if len(data) > LINE_BYTES_MAX:
        return Finding(path=path, text=f"The line is longer than {LINE_BYTES_MAX} bytes.")
    try:
        proven = decode_proven(data)
        check_canonical(bytes(proven.receipt), "The receipt")
        return Line(number, proven, decode_receipt(proven.receipt))
    except UNREADABLE as error:
        return Finding(path=path, text=f"The line is no receipt: {error}.")
    except BadMessage as error:
        return Finding(path=path, text=str(error))


def _root(statement: Statement, lines: Sequence[Line]) -> Iterator[Finding]:
    if any(line.proven.index != line.number for line in lines):
        yield Finding(path="receipts", text="The receipts are not in their order.")
    root = merkle_root([leaf_of(bytes(line.proven.receipt)) for line in lines]).hex()
    if root != statement.root:
        text = f"The receipts have root {root}, but the statement says {statement.root}."
        yield Finding(path="root", text=text)


def _proofs(statement: Statement, lines: Sequence[Line]) -> Iterator[Finding]:
    for line in lines:
        path = f"receipts[{line.number}]"
        try:
            root = root_proven(line.proven, statement.receipts).hex()
        except ValueError as error:
            yield Finding(path=path, text=f"It does not prove to be in the statement: {error}.")
            continue
        if root != statement.root:
            text = f"Its proof leads to {root}, so it is not in this statement."
            yield Finding(path=path, text=text)


def _each(statement: Statement, lines: Sequence[Line]) -> Iterator[Finding]:
    round_at = _rounds(statement.facts)
    last = statement.after_seq
    jobs: set[str] = set()
    for number, _, receipt in lines:
        path = f"receipts[{number}]"
        if receipt.job in jobs:
            yield Finding(path=path, text=f"Job {receipt.job[:80]} was paid before.")
        jobs.add(receipt.job)
        if receipt.pool != statement.pool:
            yield Finding(path=f"{path}.pool", text=f"It is of the pool {receipt.pool[:40]}.")
        if not last < receipt.seq <= statement.seq:
            text = f"Event {receipt.seq} is out of order, or outside of this statement."
            yield Finding(path=f"{path}.seq", text=text)
        last = receipt.seq
        known = round_at(receipt.seq)
        if known is not None and known != receipt.round:
            text = f"It says round {receipt.round}, but round {known} was running."
            yield Finding(path=f"{path}.round", text=text)
        for fault in faults_of(receipt):
            yield Finding(path=path, text=f"Job {receipt.job[:80]}: {fault}")


def _rounds(facts: Sequence[Fact]) -> Callable[[int], int | None]:
    """Which round was running at an event, as far as the facts say."""
    starts = [(f.seq, f.data.round) for f in facts if isinstance(f.data, money.RoundStarted)]
    starts.sort()

    def round_at(seq: int) -> int | None:
        before = bisect_left(starts, (seq, -1))
        return starts[before - 1][1] if before else None

    return round_at


def _sums(statement: Statement, lines: Sequence[Line], address: str) -> Iterator[Finding]:
    receipts = [line.receipt for line in lines]
    jobs: dict[str, int] = {}
    for row in statement.work:
        jobs[row.address] = jobs.get(row.address, 0) + row.jobs
    given: dict[str, int] = {}
    for receipt in receipts:
        given[receipt.address] = given.get(receipt.address, 0) + 1
    whole = len(receipts) == statement.receipts
    complete = {each for each in given.keys() | jobs.keys() if given.get(each) == jobs.get(each)}
    if address and address not in complete and (given.keys() | jobs.keys()) & {address}:
        text = (
            f"The statement has {plural(jobs.get(address, 0), 'receipt')} of {address}; here "
            f"{'is' if given.get(address) == 1 else 'are'} {given.get(address, 0)}."
        )
        yield Finding(path="receipts", text=text)
    try:
        added = added_up(receipts)
    except ValueError:
        return  # each of them was found to be wrong already
    stated = [row for row in statement.work if whole or row.address in complete]
    if stated != [row for row in added if whole or row.address in complete]:
        text = "What the receipts add up to is not what the statement says."
        yield Finding(path=_first_difference(statement.work, added, complete, whole), text=text)
    yield from _carries(statement, [r for r in receipts if whole or r.address in complete])


def _first_difference(
    stated: Sequence[Work], added: Sequence[Work], complete: set[str], whole: bool
) -> str:
    known = set(added)
    for number, row in enumerate(stated):
        if (whole or row.address in complete) and row not in known:
            return f"work[{number}]"
    return "work"


def _carries(statement: Statement, receipts: Sequence[Receipt]) -> Iterator[Finding]:
    """The fraction that one fee leaves is what the next one of that worker begins with."""
    last: dict[tuple[str, str], str] = {}
    for receipt in receipts:
        key = (receipt.worker, receipt.carry.partition("/")[2])
        before = last.get(key, receipt.carry_before)
        if receipt.carry_before != before:
            text = (
                f"Job {receipt.job[:80]} begins with a carry of {receipt.carry_before}, but the "
                f"fee before left {before}."
            )
            yield Finding(path="receipts", text=text)
        last[key] = receipt.carry
    stated = _stated_carries(statement)
    for (worker, denominator), carry in last.items():
        if stated.get((worker, denominator), f"0/{denominator}") != carry:
            text = f"The last fee of {worker[:40]} left {carry}, which is not what it says."
            yield Finding(path="carries", text=text)


def _stated_carries(statement: Statement) -> Mapping[tuple[str, str], str]:
    return {(row.worker, row.carry.partition("/")[2]): row.carry for row in statement.carries}
