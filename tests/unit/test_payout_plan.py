"""Whom to pay now, and the sentence for everybody else."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from openpool.core.money.events import PayoutChosen
from openpool.core.money.payout_plan import (
    Plan,
    Rules,
    Standing,
    amount_text,
    percent_text,
    plan,
    threshold_of,
)
from openpool.core.units import ETHER

MILLI = ETHER // 1000
ANN, BEN, CAT = "0xa", "0xb", "0xc"
RULES = Rules(
    threshold_wei=5 * MILLI,
    minimum_wei=MILLI,
    gas_share_max_ppm=5_000,
    per_payout_max_wei=ETHER,
    per_day_max_wei=5 * ETHER,
)
NOW = Standing(owed={}, funds_wei=100 * ETHER, gas_wei=MILLI // 1000, gas_most_wei=MILLI // 500)


def planned(owed: dict[str, int], rules: Rules = RULES, **standing: Any) -> Plan:
    return plan("ETH", rules, replace(NOW, owed=owed, **standing))


def why(found: Plan) -> str:
    (waiting,) = found.waiting
    return waiting.why


def chosen(address: str, threshold_wei: int) -> dict[str, PayoutChosen]:
    choice = PayoutChosen(address=address, asset="ETH", threshold_wei=str(threshold_wei))
    return {address: choice}


def test_whoever_reaches_the_threshold_is_paid_everything() -> None:
    """All of it, to the wei; below it waits, and is told how much is missing."""
    found = planned({ANN: 5 * MILLI + 1, BEN: 5 * MILLI - 1, CAT: 0})
    assert [(p.address, p.amount_wei, p.send_wei) for p in found.payments] == [
        (ANN, 5 * MILLI + 1, 5 * MILLI + 1)
    ]
    assert why(found) == (
        "0.000000000000000001 ETH more, and the threshold of 0.005 ETH is reached."
    )


def test_owners_choose_their_threshold() -> None:
    """Higher or lower than the pool's, but never below its minimum; 0 is the pool's."""
    assert threshold_of(ANN, RULES, chosen(ANN, 2 * MILLI)) == 2 * MILLI
    assert threshold_of(ANN, RULES, chosen(ANN, 1)) == MILLI
    assert threshold_of(ANN, RULES, chosen(ANN, 0)) == 5 * MILLI
    assert threshold_of(BEN, RULES, chosen(ANN, 2 * MILLI)) == 5 * MILLI
    assert planned({ANN: 7 * MILLI}, choices=chosen(ANN, 8 * MILLI)).payments == ()


@pytest.mark.parametrize(
    ("standing", "words"),
    [
        ({"paused": "Moving house."}, "Payouts are paused: Moving house."),
        ({"blocked": {ANN: "It refused."}}, "Nothing is sent to this address: It refused."),
        ({"busy": {ANN: "payout-3"}}, "Order payout-3 is on its way to this address."),
        ({"elsewhere": {ANN: "In LPT."}}, "In LPT."),
        ({"gas_wei": MILLI}, "Gas would cost 0.001 ETH now, more than 0.5 % of the payout"),
        ({"funds_wei": MILLI}, "The pool's wallet holds too little"),
        ({"spent_wei": 5 * ETHER}, "The limit of 5 ETH within 24 hours is reached"),
    ],
)
def test_why_somebody_waits(standing: dict[str, Any], words: str) -> None:
    """One sentence each, and no payment."""
    found = planned({ANN: 10 * MILLI}, **standing)
    assert found.payments == ()
    assert why(found).startswith(words)


def test_large_amounts_are_paid_in_parts() -> None:
    """Not more at a time than a payout may have; the rest stays owed."""
    (payment,) = planned({ANN: 3 * ETHER}).payments
    assert payment.amount_wei == ETHER
    (payment,) = planned({ANN: 3 * ETHER}, replace(RULES, per_day_max_wei=MILLI * 9)).payments
    assert payment.amount_wei == 9 * MILLI


def test_limits_are_fair() -> None:
    """Who has waited longest for a payment comes first."""
    owed = {ANN: ETHER, BEN: ETHER, CAT: ETHER}
    found = planned(owed, spent_wei=3 * ETHER, last_paid={ANN: 900, CAT: 100})
    assert [p.address for p in found.payments] == [BEN, CAT]


def test_the_wallet_must_bear_amounts_and_gas() -> None:
    """Solvent to the wei: one wei less and the last one waits, and it is said what is missing."""
    owed = {ANN: 10 * MILLI, BEN: 10 * MILLI}
    needed = 20 * MILLI + 2 * NOW.gas_most_wei
    assert planned(owed, funds_wei=needed).missing_wei == 0
    short = planned(owed, funds_wei=needed - 1)
    assert (len(short.payments), short.missing_wei) == (1, 1)


def test_workers_may_pay_the_gas() -> None:
    """Then what gas can cost at most is kept back; what is left of it comes back later."""
    rules = replace(RULES, gas_paid_by_worker=True)
    (payment,) = planned({ANN: 10 * MILLI}, rules).payments
    assert payment.amount_wei - payment.send_wei == NOW.gas_most_wei
    assert planned({ANN: 10 * MILLI}, rules, gas_most_wei=10 * MILLI).payments == ()


def test_lpt_needs_eth_for_gas() -> None:
    """LPT is paid out of LPT, gas out of ETH."""
    standing = replace(NOW, owed={ANN: ETHER}, funds_wei=ETHER, gas_funds_wei=NOW.gas_most_wei)
    assert len(plan("LPT", RULES, standing).payments) == 1
    assert plan("LPT", RULES, replace(standing, gas_funds_wei=0)).payments == ()
    assert plan("LPT", RULES, replace(standing, funds_wei=ETHER - 1)).payments == ()


def test_amounts_are_exact() -> None:
    """Texts for people lose no digit."""
    assert amount_text(0) == "0 ETH"
    assert amount_text(12 * ETHER + 1, "LPT") == "12.000000000000000001 LPT"
    assert [percent_text(ppm) for ppm in (0, 5_000, 10_000, 1)] == [
        "0 %",
        "0.5 %",
        "1 %",
        "0.0001 %",
    ]


@given(
    owed=st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.integers(0, 3 * ETHER)),
    funds=st.integers(0, 5 * ETHER),
    spent=st.integers(0, 6 * ETHER),
)
def test_nobody_is_forgotten_and_no_limit_is_broken(
    owed: dict[str, int], funds: int, spent: int
) -> None:
    """Everybody to whom something is owed comes out once, and all limits hold together."""
    found = planned(owed, funds_wei=funds, spent_wei=spent)
    everybody = [p.address for p in found.payments] + [w.address for w in found.waiting]
    assert sorted(everybody) == sorted(a for a, amount in owed.items() if amount)
    assert sum(p.send_wei + NOW.gas_most_wei for p in found.payments) <= funds
    assert found.total_wei <= max(RULES.per_day_max_wei - spent, 0)
    assert all(0 < p.send_wei <= p.amount_wei <= owed[p.address] for p in found.payments)
    assert all(w.why for w in found.waiting)


def test_peers_16_one_threshold_for_all_workers_of_an_address() -> None:
    """Work of several workers in several places adds up in one account: the threshold counts
    once, not once per region or kind of work as in an older pool."""
    parts = {"eu": 2 * MILLI, "us": 2 * MILLI, "ai": MILLI}
    (payment,) = planned({ANN: sum(parts.values())}).payments
    assert payment.amount_wei == 5 * MILLI


def test_peers_17_amounts_above_what_a_float_holds() -> None:
    """Not a wei is lost above 2^53, where an older pool counted in floating point."""
    odd = 2**53 * 1000 + 1
    rules = replace(RULES, per_payout_max_wei=2**70, per_day_max_wei=2**70)
    (payment,) = planned({ANN: odd}, rules, funds_wei=2**71).payments
    assert payment.amount_wei == odd
    assert int(float(odd)) != odd
