"""The ledger: which transfers an event causes, and what they add up to."""

import msgspec
import pytest
import stories
from stories import at, credited, taken

from openpool.core.customers import payer
from openpool.core.money.ledger import (
    Balances,
    Transfer,
    balance_faults,
    carry_of,
    fees_account,
    transfers_of,
    wei,
)


def test_a_fee_pays_the_worker_what_is_left_after_commission() -> None:
    """A fee of 100 with 25 % commission gives the worker 75, not 25."""
    (transfer,) = transfers_of(at("e1", credited("j", "w", 100, 75)))
    assert transfer == Transfer(
        id="e1/fee",
        event_id="e1",
        time_ms=stories.START_MS,
        debit="fees:orch",
        credit="worker:0xw",
        amount_wei=75,
        kind="fee",
    )


def test_commission_goes_to_the_pool() -> None:
    """The pool's part moves from the same fees to the commission account."""
    (transfer,) = transfers_of(at("e2", taken("j", "w", 25)))
    assert (transfer.debit, transfer.credit, transfer.amount_wei, transfer.kind) == (
        "fees:orch",
        "commission",
        25,
        "commission",
    )


@pytest.mark.parametrize("data", [credited("j", "w", 0, 0), taken("j", "w", 0)])
def test_nothing_moves_for_zero_wei(data: stories.AnyPayload) -> None:
    """A fee or commission of zero is an event but no transfer."""
    assert transfers_of(at("e", data)) == ()


def test_other_events_move_no_money() -> None:
    """Only credited fees and commission touch the ledger."""
    story = [stories.received("j"), stories.verified("j", 1, "w"), stories.delivered("j", 1, "w")]
    assert [transfers_of(at("e", data)) for data in story] == [(), (), ()]


@pytest.mark.parametrize("text", ["", "-1", "+1", "1.5", "1e9", " 1", "1_000", "007", "٣", "0x10"])
def test_an_amount_that_is_not_whole_wei_is_refused(text: str) -> None:
    """Only the canonical decimal text of a whole number is money."""
    with pytest.raises(ValueError, match="whole wei"):
        wei(text)


def test_amounts_have_no_upper_limit() -> None:
    """Amounts far above 64 and 128 bits stay exact."""
    big = 2**200 + 1
    (transfer,) = transfers_of(at("e", credited("j", "w", big, big)))
    assert transfer.amount_wei == big


def test_every_transfer_leaves_the_sum_at_zero() -> None:
    """What one account gains another loses, and only fees go below zero."""
    balances = Balances()
    for event in (at("a", credited("j", "w", 100, 75)), at("b", taken("j", "w", 25))):
        for transfer in transfers_of(event):
            balances.post(transfer)
    assert balances.amounts == {"fees:orch": -100, "worker:0xw": 75, "commission": 25}
    assert balances.total() == 0
    assert balances.faults() == []


def test_faulty_balances_are_named() -> None:
    """A worker below zero, and a sum that is not zero, each get one sentence with the figures."""
    faults = balance_faults([("worker:0xa", -5), ("fees:o", -5), ("commission", 3)])
    assert faults == [
        "Account worker:0xa holds -5 wei, less than nothing.",
        "All accounts together hold -7 wei; they must hold 0.",
    ]


def test_a_carry_keeps_the_denominator_of_its_price() -> None:
    """A carry of 3/6 written in short as 1/2 still counts sixths, as the price does."""
    event = at("e", credited("j", "w", 1, 1, price="5/6", carry="1/2"))
    assert carry_of(event) == (("w", 6), 3)


@pytest.mark.parametrize(("price", "carry"), [("1/3", "1/2"), ("1200", "1/2"), ("1/3", "4/3")])
def test_a_carry_that_cannot_be_is_refused(price: str, carry: str) -> None:
    """A carry is less than one wei and counts parts that its price can leave over."""
    with pytest.raises(ValueError, match="does not fit"):
        carry_of(at("e", credited("j", "w", 1, 1, price=price, carry=carry)))


def test_a_customer_pays_from_an_account_of_its_own() -> None:
    """A fee whose payer is a customer leaves the fees of orchestrators alone, and may go below
    zero like those."""
    fee = msgspec.structs.replace(credited("j", "w", 100, 75), orchestrator=payer("c_abc"))
    (transfer,) = transfers_of(at("e1", fee))
    assert (transfer.debit, transfer.credit) == ("customer:c_abc", "worker:0xw")
    assert fees_account(payer("c_abc")) == "customer:c_abc"
    assert balance_faults([("customer:c_abc", -75), ("worker:0xw", 75)]) == []
