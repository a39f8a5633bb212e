"""What a dishonest pool, operator or rule may try with money, and is found out or refused.

Each test is a hole that was there once.
"""

import pytest
from msgspec.structs import replace
from statement_log import ANN, BOB, HOT, MoneyLog

from openpool.core.errors import NotAllowed
from openpool.core.events import AnyPayload
from openpool.core.money import events as money
from openpool.core.money.corrections import check_correction
from openpool.core.money.events import OrderLine
from openpool.core.money.receipts import plain_line
from openpool.core.money.statement_check import check_previous, check_receipts, check_statement
from openpool.core.money.statements import opening_after


def texts(log: MoneyLog) -> str:
    """What is wrong with the statement over a log, as a checker says it."""
    statement, _ = log.statement(7)
    return " ".join(finding.text for finding in check_statement(statement))


def order(kind: type[AnyPayload], name: str, *lines: OrderLine, **others: str) -> AnyPayload:
    """An order's event about these lines."""
    common = {"order": name, "wallet": HOT, "kind": "payout", "asset": "ETH", "lines": lines}
    if kind is money.OrderPlanned:
        common |= {"chain_id": 42161, "to": BOB, "value_wei": "1000", "data": "0x"}
    if kind is money.OrderConfirmed:
        common |= {"block": 7, "block_hash": "0x", "fee_wei": "0", "tx": "0x" + "ab" * 32}
    return kind(**(common | others))


def line(amount_wei: str = "1000", address: str = ANN) -> OrderLine:
    return OrderLine(
        account=f"worker:{ANN}", address=address, amount_wei=amount_wei, send_wei=amount_wei
    )


@pytest.fixture
def log() -> MoneyLog:
    """A round in which ANN and BOB earned something."""
    log = MoneyLog()
    log.round(7)
    log.work(40)
    return log


def test_what_ann_earned_cannot_be_sent_to_bob(log: MoneyLog) -> None:
    """The account that is debited is that of the address that is paid."""
    log.add("order/p1/planned", order(money.OrderPlanned, "p1", line(address=BOB)))
    log.add("order/p1/ended", order(money.OrderConfirmed, "p1", line(address=BOB)))
    assert f"What worker:{ANN} had is sent to {BOB}." in texts(log)
    in_lpt = replace(line(address=BOB), account=f"lpt/worker:{ANN}")
    log.add("order/p2/planned", order(money.OrderPlanned, "p2", in_lpt, asset="LPT"))
    assert f"What lpt/worker:{ANN} had is sent to {BOB}." in texts(log)


def test_a_payout_that_was_given_up_returns_all_that_was_set_aside(log: MoneyLog) -> None:
    """An order is voided for what it was planned for."""
    log.add("order/p1/planned", order(money.OrderPlanned, "p1", line("1000")))
    log.add("order/p1/ended", order(money.OrderVoided, "p1", line("1"), reason="x"))
    assert "p1 was planned for other accounts, addresses or amounts" in texts(log)


def test_one_transaction_proves_one_payout(log: MoneyLog) -> None:
    """A second payout cannot point at the transaction of the first."""
    log.paid("p1", ANN, 1_000)
    assert texts(log) == ""
    log.paid("p2", ANN, 1_000)
    assert "The transaction 0xabab" in texts(log)


def test_a_transaction_of_the_round_before_proves_nothing_again(log: MoneyLog) -> None:
    """Neither does one that the statement before named."""
    log.paid("p1", ANN, 1_000)
    log.round(8)
    before, _ = log.statement(7)
    log.paid("p2", ANN, 1_000)
    log.round(9)
    after, _ = log.statement(8, opening_after(before, "d"))
    found = " ".join(finding.text for finding in check_previous(after, before, "d"))
    assert "The statement before names the transaction 0xabab" in found


def test_an_order_ends_once(log: MoneyLog) -> None:
    """What was paid is not given back as well."""
    log.paid("p1", ANN, 1_000)
    log.add("other/name", order(money.OrderVoided, "p1", line(), reason="x"))
    assert "The end of order p1 is in it twice." in texts(log)


def test_a_correction_of_less_than_nothing_takes_nothing(log: MoneyLog) -> None:
    """A movement cannot be turned round by a minus sign."""
    correction = money.CorrectionMade(
        correction="c",
        corrects="x",
        debit="commission",
        credit=f"worker:{ANN}",
        amount_wei="-5",
        reason="a gift",
    )
    log.add("correction/c", correction)
    assert "'-5' is not an amount of whole wei." in texts(log)


def test_a_job_is_paid_once(log: MoneyLog) -> None:
    """A friend's job does not count twice, even under another number in the log."""
    (_, fee) = next(e for e in log.entries if e[1].type == "fee-credited")
    log.add("again", replace(fee.data, carry=fee.data.carry))  # type: ignore[type-var]
    statement, receipts = log.statement(7)
    lines = [plain_line(receipt, index) for index, receipt in enumerate(receipts)]
    found = " ".join(finding.text for finding in check_receipts(statement, lines))
    assert "was paid before" in found


@pytest.mark.parametrize("bound", ["in-flight", f"accrued:orch:{ANN}", f"holdback:{ANN}"])
def test_a_correction_cannot_take_what_something_else_will_take(bound: str) -> None:
    """What is set aside, accrued or held back leaves whole later: without it that would end below
    zero, and all books with it."""
    balances = {bound: 100, f"worker:{ANN}": 100, "operator": 0}
    for debit, credit in ((bound, "operator"), (f"worker:{ANN}", bound)):
        correction = money.CorrectionMade(
            correction="c", corrects="x", debit=debit, credit=credit, amount_wei="1", reason="x"
        )
        with pytest.raises(NotAllowed, match="is bound"):
            check_correction(correction, balances=balances, event_known=True)
