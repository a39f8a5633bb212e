"""Statements: they equal the ledger, and whoever checks one finds whatever was changed."""

import msgspec
import pytest
from msgspec.structs import replace
from statement_log import ANN, BOB, KEY, MoneyLog, proven, signed

from openpool.cli.checking import check_signature
from openpool.core import units
from openpool.core.errors import BadMessage, OpenPoolError
from openpool.core.hashchain import merkle_root
from openpool.core.money import events as money
from openpool.core.money.documents import opened
from openpool.core.money.fees import Fees
from openpool.core.money.receipts import (
    Receipt,
    decode_receipt,
    encode_receipt,
    faults_of,
    leaf_of,
    plain_line,
)
from openpool.core.money.statement_check import (
    Finding,
    check_previous,
    check_receipts,
    check_statement,
    limited,
    read,
)
from openpool.core.money.statements import (
    BYTES_MAX,
    Fact,
    Opening,
    Statement,
    added_up,
    is_public_account,
    opening_after,
)


def per_job(jobs: int = 40, seed: int = 1) -> MoneyLog:
    """A round under per-job, with a payout and a customer, and the start of the next."""
    log = MoneyLog(seed)
    log.round(7)
    log.work(jobs)
    log.work(3, payer="customer:abc")
    log.paid("p1", ANN, 1_000)
    log.realised(7, 5_000_000)
    log.round(8)
    return log


def shared() -> tuple[MoneyLog, int]:
    """Two rounds under proportional, the second settled while the third runs; and the seq at
    which the first one was settled."""
    log = MoneyLog(2)
    log.round(1)
    log.work(20, scheme="proportional")
    first = log.fees_since(0)
    log.round(2)
    at = log.seq
    log.work(2, scheme="proportional")
    log.realised(1, 10**10)
    log.settled(1, 10**10, first)
    done = log.seq
    log.work(30, scheme="proportional")
    second = log.fees_since(at)
    log.round(3)
    log.work(4, scheme="proportional")
    log.realised(2, 777_777_777)
    log.settled(2, 777_777_777, second)
    return log, done


def lines_of(receipts: list[bytes]) -> list[bytes]:
    return [plain_line(receipt, index) for index, receipt in enumerate(receipts)]


def faults(statement: Statement) -> list[Finding]:
    return list(check_statement(statement))


def test_a_statement_says_what_the_ledger_says() -> None:
    """Closing balances and sums equal those of the books, and nothing is found wrong."""
    log = per_job()
    statement, receipts = log.statement(7, Opening(round=7))
    balances = {name: wei for name, wei in log.balances().items() if is_public_account(name)}
    assert {row.account: int(row.closing_wei) for row in statement.accounts} == balances
    assert faults(statement) == list(check_receipts(statement, lines_of(receipts))) == []
    assert len(receipts) == statement.receipts == 43
    assert {row.payer for row in statement.work} == {"orch", "customers"}
    assert b"customer:" not in b"".join(receipts)
    assert statement.revenue[0].realised_wei == "5000000"


def test_equal_logs_give_equal_bytes() -> None:
    """The signed file is the same however often it is made."""
    assert signed(per_job().statement(7)[0]) == signed(per_job().statement(7)[0])


def test_shares_are_computed_again() -> None:
    """Under proportional the split follows from work, also work of the statement before."""
    log, done = shared()
    entries, log.entries = log.entries, log.entries[:done]
    first, first_receipts = log.statement(1, Opening(round=1), 10)
    log.entries = entries
    second, receipts = log.statement(2, opening_after(first, "d1"), 10)
    assert faults(first) == faults(second) == []
    assert list(check_receipts(first, lines_of(first_receipts))) == []
    assert list(check_receipts(second, lines_of(receipts))) == []
    assert list(check_previous(second, first, "d1")) == []
    balances = {name: wei for name, wei in log.balances().items() if is_public_account(name)}
    closing = {row.account: int(row.closing_wei) for row in second.accounts}
    assert closing == balances
    assert {row.round for row in second.earlier} == {1, 2}
    assert second.revenue[0].window == (1,)


def changed(statement: Statement, kind: type, **fields: object) -> Statement:
    """The statement with the first fact of this kind changed."""
    facts = list(statement.facts)
    place = next(n for n, fact in enumerate(facts) if isinstance(fact.data, kind))
    facts[place] = replace(facts[place], data=replace(facts[place].data, **fields))
    return replace(statement, facts=tuple(facts))


def test_a_share_that_is_not_the_works_part_is_found() -> None:
    """Moving a wei from one worker's share to the commission is noticed, though it adds up."""
    log, done = shared()
    log.entries = log.entries[:done]
    place, (seq, event) = next(
        (n, e) for n, e in enumerate(log.entries) if isinstance(e[1].data, money.ShareCredited)
    )
    share = event.data
    assert isinstance(share, money.ShareCredited)
    moved = replace(
        share,
        share_wei=str(int(share.share_wei) - 1),
        commission_wei=str(int(share.commission_wei) + 1),
    )
    log.entries[place] = (seq, replace(event, data=moved))
    statement, _ = log.statement(1, Opening(round=1))
    (finding,) = faults(statement)
    assert share.address in finding.text
    assert finding.path == f"facts[{len(statement.facts) - 1}]"


def test_an_accrual_that_is_not_given_back_whole_is_found() -> None:
    """What a round accrued must be released to the wei."""
    log, done = shared()
    log.entries = log.entries[:done]
    place, (seq, event) = next(
        (n, e) for n, e in enumerate(log.entries) if isinstance(e[1].data, money.ShareCredited)
    )
    share = event.data
    assert isinstance(share, money.ShareCredited)
    kept = replace(share, accrued_wei=str(int(share.accrued_wei) - 1))
    log.entries[place] = (seq, replace(event, data=kept))
    statement, _ = log.statement(1, Opening(round=1))
    assert any("accrued:orch:" in finding.text for finding in faults(statement))


TAMPERED: list[tuple[str, object]] = [
    ("accounts", lambda s: (replace(s.accounts[0], closing_wei="1"), *s.accounts[1:])),
    ("accounts", lambda s: s.accounts[1:]),
    ("accounts", lambda s: (*s.accounts, s.accounts[0])),
    ("accounts", lambda s: (replace(s.accounts[0], moves=()), *s.accounts[1:])),
    ("work", lambda s: (replace(s.work[0], worker_wei="1"), *s.work[1:])),
    ("work", lambda s: s.work[1:]),
    ("revenue", lambda s: (replace(s.revenue[0], luck_wei="0"),)),
    ("facts", lambda s: s.facts[1:] + s.facts[:1]),
    ("facts", lambda s: (*s.facts, s.facts[-1])),
    ("facts", lambda s: tuple(f for f in s.facts if not isinstance(f.data, money.OrderPlanned))),
    ("window_rounds", lambda s: 10**18),
    ("seq", lambda s: 0),
    ("accounts", lambda s: (replace(s.accounts[0], opening_wei="x"), *s.accounts[1:])),
    ("accounts", lambda s: (replace(s.accounts[0], opening_wei="9" * 5000), *s.accounts[1:])),
]


@pytest.mark.parametrize("number", range(len(TAMPERED)))
def test_whatever_is_changed_no_longer_adds_up(number: int) -> None:
    """A changed row, or one that is missing, doubled or moved, is found."""
    field, change = TAMPERED[number]
    statement, _ = per_job().statement(7)
    assert faults(replace(statement, **{field: change(statement)}))  # type: ignore[operator]


def test_a_payout_that_sends_more_than_was_set_aside_is_found() -> None:
    """Confirmed lines are held against the planned ones."""
    statement, _ = per_job().statement(7)
    (_, confirmed) = [f.data for f in statement.facts if hasattr(f.data, "lines")]
    assert isinstance(confirmed, money.OrderConfirmed)
    line = replace(confirmed.lines[0], send_wei="2000")
    paths = [f.path for f in faults(changed(statement, money.OrderConfirmed, lines=(line,)))]
    assert any(path.endswith(".data.lines[0]") for path in paths)
    other = replace(confirmed.lines[0], address=BOB)
    found = faults(changed(statement, money.OrderConfirmed, lines=(other,)))
    assert any("planned for other" in finding.text for finding in found)


# --- the signed file -----------------------------------------------------------------------------


def accepted(data: bytes) -> bool:
    try:
        parts = opened(data, bytes_max=BYTES_MAX)
        check_signature(parts, "statement")
        return not list(check_statement(read(parts)))
    except OpenPoolError:
        return False


def test_a_statement_with_one_changed_byte_is_refused() -> None:
    """At every place, whatever the byte becomes: another bit, another case, or nothing."""
    log = MoneyLog()
    log.round(1)
    log.work(1)
    data = signed(log.statement(1)[0])
    assert accepted(data)
    assert accepted(data + b"\n")
    for place in range(len(data)):
        for byte in (data[place] ^ 1, data[place] ^ 0x20):
            assert not accepted(data[:place] + bytes([byte]) + data[place + 1 :]), place
        assert not accepted(data[:place] + data[place + 1 :]), place


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[" * 100_000,
        b'{"document":' + b"[" * 900 + b"]" * 900 + b"}",
        b"\xff\xfe",
        b'{"document":{},"signer":"0x","signature":"0x"}',
        b'{"document":1e999,"signer":"0x","signature":"0x"}',
        b" " + signed(per_job(1).statement(7)[0]),
        signed(per_job(1).statement(7)[0]).replace(b'"round":', b'"round":0,"round":', 1),
    ],
)
def test_what_is_no_statement_is_one_sentence(data: bytes) -> None:
    """Hostile bytes end in an error of ours, never in a trace or without an end."""
    with pytest.raises(BadMessage, match=r"\.$"):
        opened(data, bytes_max=BYTES_MAX)


def test_a_signature_of_another_kind_of_document_does_not_count() -> None:
    """Who signed terms did not sign a statement."""
    parts = opened(signed(per_job(1).statement(7)[0]), bytes_max=BYTES_MAX)
    assert parts.signer == KEY.address
    check_signature(parts, "statement")
    with pytest.raises(OpenPoolError, match="not that of"):
        check_signature(parts, "terms")


# --- receipts ------------------------------------------------------------------------------------


def test_an_owner_checks_its_own_receipts_with_proofs_only() -> None:
    """The lines of one address suffice to check what the statement says of it."""
    statement, receipts = per_job().statement(7)
    mine = [n for n, data in enumerate(receipts) if decode_receipt(data).address == ANN]
    lines = proven(receipts, mine)
    assert 0 < len(lines) < statement.receipts
    assert list(check_receipts(statement, lines, address=ANN)) == []
    (finding,) = check_receipts(statement, lines[1:], address=ANN)
    assert finding.text.startswith(f"The statement has {len(mine)} receipts of {ANN}")
    assert list(check_receipts(statement, lines[1:])) == []
    other = proven(receipts[:-1], mine[:2])
    assert all("not in this statement" in f.text for f in check_receipts(statement, other))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("units", 1),
        ("price_wei", "1200000"),
        ("fee_wei", "1"),
        ("carry_before", "0/5"),
        ("carry", "1/7"),
        ("commission_ppm", 1),
        ("commission_wei", "0"),
        ("worker_wei", "999"),
        ("units", 10**30),
        ("commission_ppm", -5),
        ("price_wei", "2/4"),
        ("price_wei", "1e999999999"),
        ("price_wei", "1/0"),
        ("fee_wei", "9" * 4000),
        ("fee_wei", "-1"),
        ("carry_before", "x"),
    ],
)
def test_a_receipt_is_computed_again(field: str, value: object) -> None:
    """A receipt with anything changed that pays says so in one sentence."""
    _, receipts = per_job().statement(7)
    receipt = decode_receipt(receipts[5])
    assert faults_of(receipt) == []
    found = faults_of(replace(receipt, **{field: value}))
    assert 1 <= len(found) <= 3
    assert all(text.endswith(".") and len(text) < 400 for text in found)


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[:-1],
        lambda lines: [lines[1], lines[0], *lines[2:]],
        lambda lines: [lines[0].replace(b'"units":', b'"units":1'), *lines[1:]],
        lambda lines: [lines[0] + b" ", *lines[1:]],
        lambda lines: [b"{}", *lines[1:]],
        lambda lines: [b"[" * 50_000, *lines[1:]],
        lambda lines: [*lines, lines[-1]],
        lambda lines: [lines[0].replace(b'"pool":"N', b'"pool":"M'), *lines[1:]],
    ],
)
def test_a_changed_file_of_receipts_is_found(change: object) -> None:
    """Missing, exchanged, altered, doubled or hostile lines all show."""
    statement, receipts = per_job().statement(7)
    lines = change(lines_of(receipts))  # type: ignore[operator]
    trailing = lines[0].endswith(b" ")
    assert trailing or list(check_receipts(statement, lines))


def recomputed(receipt: Receipt, before: int) -> Receipt:
    """A receipt that is right by itself, begun with another carry."""
    price = units.price(receipt.price_wei)
    fee_wei, carry = units.fee(receipt.units, price, before)
    commission_wei, worker_wei = units.commission(fee_wei, receipt.commission_ppm)
    return replace(
        receipt,
        carry_before=f"{before}/{price.denominator}",
        carry=f"{carry}/{price.denominator}",
        fee_wei=str(fee_wei),
        commission_wei=str(commission_wei),
        worker_wei=str(worker_wei),
    )


def test_a_carry_that_is_lost_on_the_way_is_found() -> None:
    """A fee that drops what the one before left over does not pass, though it is right by itself,
    and the sums of the statement are the forged ones."""
    statement, receipts = per_job().statement(7)
    place = next(
        n for n, data in enumerate(receipts) if decode_receipt(data).carry_before[0] != "0"
    )
    forged = recomputed(decode_receipt(receipts[place]), 0)
    assert faults_of(forged) == []
    receipts[place] = encode_receipt(forged)
    stated = replace(
        statement,
        work=added_up(map(decode_receipt, receipts)),
        root=merkle_root([leaf_of(data) for data in receipts]).hex(),
    )
    found = list(check_receipts(stated, lines_of(receipts)))
    assert any("begins with a carry of 0/" in finding.text for finding in found)


def test_a_pool_that_forgets_carries_is_found() -> None:
    """Fees computed as if nothing had been left over contradict the fees before them."""
    log = per_job()
    log.fees = Fees()
    log.work(40)
    statement, receipts = log.statement(7)
    assert list(check_receipts(statement, lines_of(receipts)))


# --- one after the other -------------------------------------------------------------------------


def test_statements_are_a_chain() -> None:
    """Each goes on where the one before ended, and one of another chain does not."""
    log = per_job()
    first, _ = log.statement(7, Opening(round=7))
    log.work(5)
    log.round(9)
    opening = opening_after(first, "d1")
    second, receipts = log.statement(8, opening)
    assert {decode_receipt(data).round for data in receipts} == {8}
    assert list(check_previous(second, first, "d1")) == []
    assert second.after_seq == first.seq
    assert [f.path for f in check_previous(second, first, "d2")] == ["previous"]
    richer = tuple(replace(row, closing_wei=row.closing_wei + "0") for row in first.accounts)
    found = list(check_previous(second, replace(first, accounts=richer), "d1"))
    assert {finding.path for finding in found} == {"accounts"}
    broken = replace(first, accounts=(replace(first.accounts[0], closing_wei="x"),))
    assert [f.path for f in check_previous(second, broken, "d1")] == ["previous"]


def test_findings_are_limited() -> None:
    """A file that is wrong everywhere does not flood the screen."""
    many = [Finding(path=str(n), text="Wrong.") for n in range(100)]
    assert len(limited(many)) == 21
    assert "80 more" in limited(many)[-1].text


def test_a_statement_of_many_hostile_facts_is_checked_quickly() -> None:
    """Tens of thousands of equal or unsettled facts cost no quadratic time."""
    statement, _ = per_job(1).statement(7)
    start = statement.facts[0]
    facts = tuple(Fact(seq=n, id=start.id, time_ms=0, data=start.data) for n in range(1, 30_001))
    found = limited(check_statement(replace(statement, facts=facts, seq=30_001)))
    assert any("twice" in finding.text for finding in found)
    assert msgspec.json.encode(found)
