"""Whom to pay now, and the sentence for everybody else."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from openpool.core.money.events import Asset, PayoutChosen
from openpool.core.money.payout_plan import (
    NO_FUNDS,
    NO_PRICE,
    NO_STAKE,
    Plan,
    Rules,
    Standing,
    amount_text,
    gas_in,
    percent_text,
    plan,
    threshold_of,
)
from openpool.core.units import ETHER, PPM

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


def planned_lpt(owed: dict[str, int], rules: Rules = RULES, **standing: Any) -> Plan:
    """As `planned`, with as much LPT and ETH as anybody wants; an ETH is 500 LPT."""
    lpt = {"lpt_per_eth": Fraction(500), "gas_funds_wei": ETHER, "stake_funds_wei": 100 * ETHER}
    return plan("LPT", rules, replace(NOW, owed=owed, **(lpt | standing)))


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


def test_lpt_has_the_limits_of_eth() -> None:
    """The largest payout and the most of a day hold for LPT by the same rules."""
    (payment,) = planned_lpt({ANN: 3 * ETHER}).payments
    assert payment.amount_wei == ETHER
    found = planned_lpt({ANN: ETHER, BEN: ETHER, CAT: ETHER}, spent_wei=3 * ETHER)
    assert [p.address for p in found.payments] == [ANN, BEN]
    assert why(found).startswith("The limit of 5 LPT within 24 hours is reached")


def test_gas_is_compared_with_lpt_by_its_price() -> None:
    """At the market's price, rounded up; one unit too much is too dear. Without a price that is
    wanted everybody waits, and without a market gas is not compared."""
    gas_lpt = 500 * NOW.gas_wei
    enough = gas_lpt * 200  # 0.5 % of it is gas
    rules = replace(RULES, threshold_wei=1, minimum_wei=1)
    assert len(planned_lpt({ANN: enough}, rules).payments) == 1
    assert why(planned_lpt({ANN: enough - 1}, rules)) == (
        "Gas would cost 0.0005 LPT now, more than 0.5 % of the payout; it waits until less."
    )
    assert why(planned_lpt({ANN: ETHER}, lpt_per_eth=None, no_price=NO_PRICE)) == NO_PRICE
    assert len(planned_lpt({ANN: 1}, rules, lpt_per_eth=None).payments) == 1
    assert gas_in("LPT", 1, Fraction(1, 3)) == gas_in("LPT", 3, Fraction(1, 3)) == 1
    assert gas_in("ETH", 7, Fraction(1, 3)) == 7


def test_stake_and_tokens_share_a_day() -> None:
    """They come out of two funds and one limit, and who has waited longest is first in both."""
    owed = {ANN: ETHER, BEN: ETHER, CAT: ETHER}
    standing = {"staked": {BEN}, "spent_wei": 3 * ETHER, "last_paid": {ANN: 900, CAT: 100}}
    assert [p.address for p in planned_lpt(owed, **standing).payments] == [BEN, CAT]
    found = planned_lpt({ANN: ETHER, BEN: ETHER}, staked={BEN}, stake_funds_wei=ETHER - 1)
    assert ([p.address for p in found.payments], why(found)) == ([ANN], NO_STAKE)
    assert found.missing_wei == 1
    found = planned_lpt({ANN: ETHER, BEN: ETHER}, staked={BEN}, funds_wei=0)
    assert ([p.address for p in found.payments], why(found)) == ([BEN], NO_FUNDS)
    short = planned_lpt({BEN: ETHER}, staked={BEN}, gas_funds_wei=0)
    assert why(short) == NO_FUNDS


@pytest.mark.parametrize("limit", ["per_payout_max_wei", "per_day_max_wei"])
def test_a_limit_of_nothing_pays_nothing(limit: str) -> None:
    """Not even orders over nothing, also where gas is free or not compared."""
    rules = replace(RULES, **{limit: 0})
    assert (
        why(planned({ANN: ETHER}, rules, gas_wei=0)) == "The pool's limits allow no payouts in ETH."
    )
    assert why(planned_lpt({ANN: ETHER}, rules, lpt_per_eth=None)).endswith("no payouts in LPT.")


def test_small_payouts_do_not_overtake_a_large_one() -> None:
    """Whoever the day's limit stops is the next one that it lets through, or others could use it
    up day after day."""
    found = planned({ANN: ETHER, BEN: 9 * MILLI}, spent_wei=4 * ETHER + 1, last_paid={BEN: 1})
    assert found.payments == ()
    assert len(found.waiting) == 2


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


PEOPLE = st.text("abcdef", min_size=1, max_size=4)


@given(
    asset=st.sampled_from(("ETH", "LPT")),
    owed=st.dictionaries(PEOPLE, st.integers(0, 3 * ETHER)),
    funds=st.integers(0, 5 * ETHER),
    stake=st.integers(0, 5 * ETHER),
    staked=st.sets(PEOPLE),
    spent=st.integers(0, 6 * ETHER),
    price=st.none() | st.fractions(0, 10**6),
)
def test_nobody_is_forgotten_and_no_limit_is_broken(
    asset: Asset,
    owed: dict[str, int],
    funds: int,
    stake: int,
    staked: set[str],
    spent: int,
    price: Fraction | None,
) -> None:
    """Everybody to whom something is owed comes out once, and all limits hold together."""
    staked = staked if asset == "LPT" else set()
    standing = replace(
        NOW,
        owed=owed,
        funds_wei=funds,
        gas_funds_wei=10 * NOW.gas_most_wei,
        lpt_per_eth=price,
        staked=staked,
        stake_funds_wei=stake,
        spent_wei=spent,
    )
    found = plan(asset, RULES, standing)
    everybody = [p.address for p in found.payments] + [w.address for w in found.waiting]
    assert sorted(everybody) == sorted(a for a, amount in owed.items() if amount)
    gas_wei = NOW.gas_most_wei if asset == "ETH" else 0
    for which, most in ((False, funds), (True, stake)):
        sent = [p.send_wei for p in found.payments if (p.address in staked) is which]
        assert sum(sent) + gas_wei * len(sent) <= most
    assert asset == "ETH" or len(found.payments) <= 10
    assert found.total_wei <= max(RULES.per_day_max_wei - spent, 0)
    gas_in_asset = gas_in(asset, NOW.gas_wei, price)
    for p in found.payments:
        assert 0 < p.send_wei <= p.amount_wei <= min(owed[p.address], RULES.per_payout_max_wei)
        assert gas_in_asset * PPM <= RULES.gas_share_max_ppm * p.amount_wei
    assert all(w.why for w in found.waiting)


@given(
    asset=st.sampled_from(("ETH", "LPT")),
    owed=st.dictionaries(PEOPLE, st.integers(5 * MILLI, 3 * ETHER), min_size=1, max_size=5),
    earned=st.integers(5 * MILLI, ETHER),
    day=st.integers(ETHER // 4, 2 * ETHER),
)
def test_everybody_has_a_turn(asset: Asset, owed: dict[str, int], earned: int, day: int) -> None:
    """However much all earn day after day, and however small the limit is: each has a turn in as
    many days as there are people, and no 24 hours see more than the limit."""
    rules = replace(RULES, per_day_max_wei=day)
    held, last_paid, sent = dict(owed), dict.fromkeys(owed, 0), []
    days = 4 * len(held) + 4
    for hour in range(0, 24 * days, 6):
        spent = sum(amount for then, amount in sent if then > hour - 24)
        known = {"owed": held, "spent_wei": spent, "last_paid": last_paid}
        funds = {"funds_wei": 10**6 * ETHER, "gas_funds_wei": ETHER}
        found = plan(asset, rules, replace(NOW, **known, **funds))
        assert spent + found.total_wei <= day
        for each in found.payments:
            held[each.address] -= each.amount_wei
            last_paid[each.address] = hour
            sent.append((hour, each.amount_wei))
        held = {address: amount + earned for address, amount in held.items()}
    assert min(last_paid.values()) > 24 * (days - 2 * len(held) - 1)


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
