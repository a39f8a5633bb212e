"""What a delegator is told: projections against the protocol itself, warnings, hints, calls."""

import pytest
from livepeer_model import Protocol

from openpool.core.livepeer import delegators, transactions
from openpool.core.livepeer.bonding import NOBODY, Delegator, Orchestrator
from openpool.core.livepeer.delegators import Lock, PastRound, Situation
from openpool.core.livepeer.maths import PPM, PRECISE
from openpool.core.livepeer.outlook import (
    Outlook,
    growth,
    project,
    rounds_per_year,
    with_more_stake,
)
from openpool.core.livepeer.transactions import Contracts

LPT = 10**18
A, B, C, D = ("0x" + digit * 40 for digit in "abcd")
AT = Contracts(bonding_manager="0x" + "1" * 40, token="0x" + "2" * 40)


def network() -> Protocol:
    """Two orchestrators and a delegator D of the first, in round 2."""
    protocol = Protocol(
        inflation=220_000,
        inflation_change=500,
        target_bonding_rate=500_000_000,
        unbonding_period=7,
        pool_max=3,
        treasury_cut=PRECISE // 10,
        supply=40_000_000 * LPT,
    )
    protocol.initialize_round(1)
    protocol.fund("G", 10**6 * LPT, 0)
    protocol.bond(A, 333_333 * LPT + 7, A)
    protocol.bond(B, 1_111_111 * LPT, B)
    protocol.transcoder(A, 123_456, 654_321)
    protocol.transcoder(B, 50_000, 500_000)
    protocol.bond(D, 4_444 * LPT + 1, A)
    protocol.initialize_round(2)
    return protocol


def outlook_of(protocol: Protocol, **changes: int) -> Outlook:
    assumed = {"fees_wei": 0, "reward_calls_ppm": PPM} | changes
    return Outlook(
        pool_stake_lpt=protocol.d(A).delegated,
        active_stake_lpt=protocol.next_stake,
        supply_lpt=protocol.supply,
        inflation_ppb=protocol.inflation,
        inflation_change_ppb=protocol.inflation_change,
        target_bonding_ppb=protocol.target_bonding_rate,
        treasury_cut=protocol.treasury_cut,
        reward_cut_ppm=protocol.o(A).reward_cut_ppm,
        fee_share_ppm=protocol.o(A).fee_share_ppm,
        **assumed,
    )


@pytest.mark.parametrize("calls_ppm", [PPM, 750_000])
def test_a_projection_is_what_happens(calls_ppm: int) -> None:
    """Played through the protocol, forty rounds bring to the last digit what was projected."""
    protocol, fees, rounds = network(), 10**16 + 3, 40
    before = protocol.earnings(D)
    told = project(
        before.stake, outlook_of(protocol, fees_wei=fees, reward_calls_ppm=calls_ppm), 40
    )
    for number in range(1, rounds + 1):
        protocol.initialize_round(protocol.round.number + 1)
        protocol.redeem("G", A, fees)
        protocol.reward(B)
        if calls_ppm == PPM or number % 4:
            protocol.reward(A)
        has = protocol.earnings(D)
        dust = 2  # a projection starts from claimed stake, so its first step rounds once less
        assert abs(told[number - 1].stake_lpt - has.stake) <= dust
        assert abs(told[number - 1].fees_wei - (has.fees_wei - before.fees_wei)) <= dust
    assert told[-1].stake_lpt > before.stake
    assert told[-1].fees_wei > 0


def test_new_stake_dilutes() -> None:
    """Stake that joins is part of what rewards and fees are divided by."""
    now = outlook_of(network(), fees_wei=10**18)
    more = with_more_stake(now, 333_333 * LPT)
    assert more.pool_stake_lpt - now.pool_stake_lpt == 333_333 * LPT
    alone, crowded = (project(1_000 * LPT, each, 1)[0] for each in (now, more))
    assert crowded.fees_wei < alone.fees_wei
    assert crowded.stake_lpt < alone.stake_lpt


def test_no_reward_calls_no_rewards() -> None:
    """An orchestrator that never calls reward brings fees only."""
    after = project(LPT, outlook_of(network(), fees_wei=10**18, reward_calls_ppm=0), 10)[-1]
    assert (after.rounds, after.stake_lpt) == (10, LPT)
    assert after.fees_wei > 0


def test_where_nothing_is_staked_nothing_is_earned() -> None:
    """An empty network has an outlook, too, and no division by zero."""
    nothing = Outlook(
        pool_stake_lpt=0,
        active_stake_lpt=0,
        supply_lpt=0,
        inflation_ppb=0,
        reward_cut_ppm=0,
        fee_share_ppm=PPM,
        fees_wei=5,
    )
    assert project(0, nothing, 3)[-1].fees_wei == 0
    assert project(LPT, nothing, 3)[-1].stake_lpt == LPT


def test_a_year_in_rounds() -> None:
    """Rounds of 6377 blocks of 12 s are 412 in a year, and growth is a plain ratio."""
    assert rounds_per_year(6377) == 412
    assert growth(200, 250) * 4 == 1
    assert growth(0, 0) == 0


# ---- warnings ------------------------------------------------------------------------------------


def situation(protocol: Protocol, who: str, **changes: object) -> Situation:
    return Situation(
        **{
            "round": protocol.round,
            "initialized": True,
            "locked": False,
            "orchestrator": protocol.o(who),
        }
        | changes  # type: ignore[arg-type]
    )


def codes(found: list[delegators.Warning]) -> list[str]:
    return [each.code for each in found]


def test_a_claim_before_the_reward_is_a_loss() -> None:
    """Whoever claims before the reward is told what it loses, to the last digit."""
    protocol = network()
    found = delegators.warnings("claim", protocol.d(D), situation(protocol, A))
    assert codes(found) == ["claim-before-reward", "fees-later-this-round"]
    hasty, patient = protocol, protocol.copy()
    hasty.claim_earnings(D)
    hasty.reward(A)
    patient.reward(A)
    assert found[0].level == "loss"
    assert found[0].loses_lpt == patient.earnings(D).stake - hasty.earnings(D).stake > 0


@pytest.mark.parametrize("deed", ["stake", "unstake", "restake", "claim", "withdraw-fees"])
def test_every_deed_that_claims_warns(deed: delegators.Deed) -> None:
    """All deeds that claim on the way have the trap; withdrawing stake has not."""
    protocol = network()
    here = situation(protocol, A)
    assert "claim-before-reward" in codes(delegators.warnings(deed, protocol.d(D), here))
    assert delegators.warnings("withdraw-stake", protocol.d(D), here) == []


def test_after_the_reward_there_is_nothing_to_lose() -> None:
    """Once reward was called, or after the round's first claim, a claim forfeits no reward."""
    rewarded, claimed = network(), network()
    rewarded.reward(A)
    claimed.claim_earnings(D)
    for protocol in (rewarded, claimed):
        found = delegators.warnings("claim", protocol.d(D), situation(protocol, A))
        assert codes(found) == (["fees-later-this-round"] if protocol is rewarded else [])


def test_a_newcomer_loses_nothing() -> None:
    """First stake has no earnings that could be forfeited."""
    protocol = network()
    here = situation(protocol, A)
    assert delegators.warnings("stake", Delegator(), here, here) == []


def test_an_orchestrator_loses_no_commission() -> None:
    """What an orchestrator's early claim costs is its part as a delegator, commission excepted."""
    protocol = network()
    protocol.reward(A)
    protocol.initialize_round(3)
    here = situation(protocol, A)
    found = delegators.warnings("claim", protocol.d(A), here, is_itself=True)
    hasty, patient = protocol.copy(), protocol.copy()
    hasty.claim_earnings(A)
    won = hasty.reward(A)
    patient.reward(A)
    lost = patient.earnings(A).stake - hasty.earnings(A).stake
    assert found[0].loses_lpt == lost
    assert 0 < lost < won.delegators


def test_what_the_contracts_would_refuse_is_told_before() -> None:
    """A round without a start, and an orchestrator on its way out, are refusals by name."""
    protocol = network()
    unstarted = situation(protocol, A, initialized=False)
    assert codes(delegators.warnings("withdraw-stake", protocol.d(D), unstarted)) == [
        "round-not-initialized"
    ]
    leaving = Orchestrator(activation_round=1, deactivation_round=3)
    here = situation(protocol, A, orchestrator=leaving)
    found = delegators.warnings("stake", Delegator(), here, here)
    assert codes(found) == ["delegate-leaving"]
    assert found[0].level == "refused"


def test_stake_with_somebody_inactive_is_a_loss() -> None:
    """An orchestrator outside the active set earns nothing; a locked round is worth a note."""
    here = situation(network(), A, orchestrator=Orchestrator(), locked=True)
    assert codes(delegators.warnings("stake", Delegator(), here, here)) == [
        "delegate-not-active",
        "round-locked",
    ]


# ---- what may be taken out -----------------------------------------------------------------------


def test_fees_that_came_after_the_claim_wait_for_the_next_round() -> None:
    """Within the round of a claim only the claimed fees can be withdrawn."""
    claimed = Delegator(fees_wei=5, last_claim_round=9)
    assert delegators.withdrawable_wei(claimed, 8, 9) == 5
    assert delegators.withdrawable_wei(claimed, 8, 10) == 8


def test_locks_ripen() -> None:
    """A lock can be withdrawn from its round on."""
    early, late = (Lock(lock=i, amount_lpt=1, withdraw_round=at) for i, at in ((0, 7), (1, 9)))
    assert delegators.ripe([early, late], 8) == [early]


def test_the_reward_call_ratio() -> None:
    """The part of the rounds in which reward was called."""

    def past(rewarded: bool) -> PastRound:
        return PastRound(
            number=1, rewarded=rewarded, reward_lpt=0, delegators_lpt=0, fees_wei=0, stake_lpt=0
        )

    assert delegators.reward_calls_ppm([]) is None
    assert delegators.reward_calls_ppm([past(True), past(False), past(True), past(True)]) == 750_000


# ---- ranks, hints, calls -------------------------------------------------------------------------

RANKED = ((A, 300), (B, 200), (C, 100))


def test_the_place_in_the_active_set() -> None:
    """Rank 1 is the largest stake; who is not in the set has rank 0 and sees what it takes."""
    assert delegators.standing(RANKED, B, 3).rank == 2
    outside = delegators.standing(RANKED, D, 3)
    assert (outside.rank, outside.size, outside.last_stake_lpt) == (0, 3, 100)
    assert delegators.standing((), D, 3).last_stake_lpt == 0


@pytest.mark.parametrize(
    ("who", "stake", "neighbours"),
    [
        (D, 400, (NOBODY, A)),
        (D, 250, (A, B)),
        (D, 200, (A, B)),
        (D, 50, (C, NOBODY)),
        (B, 350, (NOBODY, A)),
        (B, 210, (A, C)),
        (B, 10, (C, NOBODY)),
    ],
)
def test_hints_are_the_new_neighbours(who: str, stake: int, neighbours: tuple[str, str]) -> None:
    """The hints are between whom the stake will stand, itself left out."""
    assert delegators.hints(RANKED, who, stake) == neighbours


def test_an_empty_set_has_no_neighbours() -> None:
    """The first orchestrator stands alone."""
    assert delegators.hints((), D, 1) == (NOBODY, NOBODY)


def test_selectors_are_those_of_the_contracts() -> None:
    """The first bytes of each call, against the contracts' own ABI."""
    known = {
        "bondWithHint(uint256,address,address,address,address,address)": "6bd9add4",
        "unbondWithHint(uint256,address,address)": "9500ed9b",
        "rebondWithHint(uint256,address,address)": "7fc4606f",
        "rebondFromUnbondedWithHint(address,uint256,address,address)": "0584a373",
        "claimEarnings(uint256)": "24b1babf",
        "withdrawFees(address,uint256)": "ad3b1b47",
        "withdrawStake(uint256)": "25d5971f",
        "approve(address,uint256)": "095ea7b3",
    }
    assert {each: transactions.selector(each).hex() for each in known} == known


def test_staking_approves_what_is_missing_and_moves_the_rest() -> None:
    """An approval comes first unless there is one; moving stake says so and hints at both."""
    first, second = transactions.stake(
        AT, RANKED, amount_lpt=20, to=B, to_stake_lpt=200, moves_from=A, moves_lpt=150
    )
    assert (first.name, first.to) == ("approve", AT.token)
    assert first.data == transactions.call_data("approve(address,uint256)", AT.bonding_manager, 20)
    assert (second.name, second.to) == ("bondWithHint", AT.bonding_manager)
    assert second.data == transactions.call_data(
        "bondWithHint(uint256,address,address,address,address,address)", 20, B, B, C, NOBODY, A
    )
    assert "0.00000000000000015 LPT" in second.what
    (moved,) = transactions.stake(
        AT, RANKED, amount_lpt=0, to=C, to_stake_lpt=100, moves_from=A, moves_lpt=150
    )
    assert moved.data == transactions.call_data(
        "bondWithHint(uint256,address,address,address,address,address)", 0, C, B, C, NOBODY, B
    )
    alone = transactions.stake(AT, RANKED, amount_lpt=20, to=B, to_stake_lpt=200, allowance_lpt=20)
    assert [each.name for each in alone] == ["bondWithHint"]


def test_the_other_calls() -> None:
    """Each says what it does, and carries its numbers."""
    lock = Lock(lock=4, amount_lpt=3 * LPT, withdraw_round=9)
    out = transactions.unstake(
        AT, RANKED, amount_lpt=150, delegate=B, delegate_stake_lpt=200, withdraw_round=17
    )
    assert out.data == transactions.call_data(
        "unbondWithHint(uint256,address,address)", 150, C, NOBODY
    )
    assert "from round 17 on" in out.what
    calls = {
        "rebondWithHint": transactions.restake(
            AT, RANKED, lock=lock, to=B, to_stake_lpt=200, is_unbonded=False
        ),
        "rebondFromUnbondedWithHint": transactions.restake(
            AT, RANKED, lock=lock, to=B, to_stake_lpt=200, is_unbonded=True
        ),
        "claimEarnings": transactions.claim(AT, 12),
        "withdrawFees": transactions.withdraw_fees(AT, D, LPT // 4),
        "withdrawStake": transactions.withdraw_stake(AT, lock),
    }
    assert {name: call.name for name, call in calls.items()} == {name: name for name in calls}
    assert "0.25 ETH" in calls["withdrawFees"].what
    assert "3 LPT" in calls["withdrawStake"].what
    assert all(call.value_wei == 0 and call.to == AT.bonding_manager for call in calls.values())


def test_arguments_that_do_not_fit_are_refused() -> None:
    """A call is built whole or not at all."""
    for arguments in ((), (1, 2), (A,), (-1,)):
        with pytest.raises((ValueError, OverflowError)):
            transactions.call_data("claimEarnings(uint256)", *arguments)
