"""Plans of delegators: what becomes of each wish, and which wishes are refused and why."""

import pytest
from livepeer_chain import ANN, LPT, POOL, ModelChain, address, network
from msgspec.structs import replace

from openpool.core.errors import BadMessage, NotAllowed
from openpool.core.livepeer.amounts import amount, eth_text, lpt_text
from openpool.core.livepeer.delegation import Plan, Wish
from openpool.core.livepeer.delegators import Deed
from openpool.core.livepeer.transactions import call_data
from openpool.treasury.delegators import Delegations

OTHER = address(1 << 130)


def wish(deed: Deed, **more: object) -> Wish:
    return replace(Wish(deed=deed, address=ANN), **more)


def quiet() -> ModelChain:
    """The pool has called reward in this round, so nothing is lost by a claim."""
    chain = network(rounds=12, others=3)
    chain.reward(POOL)
    return chain


async def planned(chain: ModelChain, asked: Wish) -> Plan:
    known = Delegations(chain, chain, {POOL: "main"}, clock_ms=lambda: 1)
    return await known.plan(asked)


def names(plan: Plan) -> list[str]:
    return [call.name for call in plan.calls]


async def test_all_is_meant_where_no_amount_is_given() -> None:
    """Stake takes all LPT, unstake all stake with its rewards, withdraw all fees."""
    chain = quiet()
    has = chain.protocol.earnings(ANN)
    approve, _ = (await planned(chain, wish("stake"))).calls
    manager = chain.addresses["BondingManager"]
    assert approve.data == call_data("approve(address,uint256)", manager, chain.balances[ANN])
    (unbond,) = (await planned(chain, wish("unstake"))).calls
    assert unbond.data[4:36] == has.stake.to_bytes(32, "big")
    (fees,) = (await planned(chain, wish("withdraw-fees"))).calls
    assert fees.data == call_data("withdrawFees(address,uint256)", ANN, has.fees_wei)
    (to_other,) = (await planned(chain, wish("withdraw-fees", to=OTHER, amount=1))).calls
    assert to_other.data == call_data("withdrawFees(address,uint256)", OTHER, 1)


async def test_stake_is_moved_with_its_rewards() -> None:
    """Staking elsewhere moves everything, claimed or not; staking here moves nothing."""
    chain = quiet()
    (bond,) = (await planned(chain, wish("stake", amount=0, to=OTHER))).calls
    assert lpt_text(chain.protocol.earnings(ANN).stake) in bond.what
    _, here = (await planned(chain, wish("stake", amount=LPT))).calls
    assert "Moves" not in here.what


async def test_an_unbonded_delegator_stakes_its_lock_anywhere() -> None:
    """While something is staked a lock goes back to the same place; then it may go anywhere."""
    chain = quiet()
    assert names(await planned(chain, wish("restake"))) == ["rebondWithHint"]
    with pytest.raises(NotAllowed, match="go back to the same orchestrator"):
        await planned(chain, wish("restake", to=OTHER))
    chain.protocol.unbond(ANN, chain.protocol.earnings(ANN).stake)
    with pytest.raises(NotAllowed, match="has 0, 1"):
        await planned(chain, wish("restake"))
    plan = await planned(chain, wish("restake", lock=1, to=OTHER))
    assert names(plan) == ["rebondFromUnbondedWithHint"]
    assert OTHER in plan.calls[0].what


async def test_a_lock_goes_back_where_the_stake_is() -> None:
    """Whoever delegates elsewhere stakes a lock there again, not with this pool."""
    chain = quiet()
    chain.protocol.bond(ANN, 0, OTHER)
    chain.start_round()
    (back,) = (await planned(chain, wish("restake"))).calls
    assert OTHER in back.what


async def test_the_loss_is_known_after_a_round_without_reward() -> None:
    """The stake that a reward is reckoned from may have been written two rounds ago."""
    chain = network(rounds=12, others=3)
    chain.start_round()  # the round before had no reward
    (warning, _) = (await planned(chain, wish("claim"))).warnings
    hasty, patient = chain.protocol.copy(), chain.protocol.copy()
    hasty.claim_earnings(ANN)
    for protocol in (hasty, patient):
        protocol.reward(POOL)
    assert warning.loses_lpt == patient.earnings(ANN).stake - hasty.earnings(ANN).stake > 0


async def test_ripe_locks_are_withdrawn_together() -> None:
    """Without a number all locks whose time has come are withdrawn, the others wait."""
    chain = quiet()
    chain.protocol.locks[ANN] = {0: (LPT, 5), 1: (2 * LPT, 6), 2: (LPT, 99)}
    assert names(await planned(chain, wish("withdraw-stake"))) == ["withdrawStake"] * 2
    assert len((await planned(chain, wish("withdraw-stake", lock=1))).calls) == 1
    with pytest.raises(NotAllowed, match="before round 99"):
        await planned(chain, wish("withdraw-stake", lock=2))
    with pytest.raises(NotAllowed, match="no such lock"):
        await planned(chain, wish("withdraw-stake", lock=7))


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (wish("stake", amount=9_999 * LPT), "holds 1234"),
        (wish("unstake", amount=10**9 * LPT), "has staked"),
        (wish("unstake", amount=0), "has staked"),
        (wish("withdraw-fees", amount=10**30), "can be withdrawn now"),
        (wish("withdraw-fees", amount=0), "the rest in the next round"),
        (wish("restake", lock=9), "no such lock"),
        (Wish(deed="restake", address=POOL), "no locks"),
        (Wish(deed="stake", address=OTHER, amount=0, to=POOL), "cannot move its own stake"),
        (Wish(deed="stake", address=address(77)), "nothing to stake"),
        (Wish(deed="claim", address=address(77)), "delegates to nobody"),
    ],
)
async def test_a_wish_that_would_fail_is_refused(asked: Wish, reason: str) -> None:
    """The reason is a sentence, and there is no transaction."""
    with pytest.raises(NotAllowed, match=reason):
        await planned(quiet(), asked)


async def test_a_second_claim_in_a_round_is_refused() -> None:
    """The contracts claim once a round."""
    chain = quiet()
    assert names(await planned(chain, wish("claim"))) == ["claimEarnings"]
    chain.protocol.claim_earnings(ANN)
    with pytest.raises(NotAllowed, match="already"):
        await planned(chain, wish("claim"))


async def test_new_stake_cannot_be_unbonded_at_once() -> None:
    """Stake counts from the next round, and can go from then on."""
    chain = quiet()
    chain.protocol.bond(address(77), LPT, POOL)
    now = chain.protocol.round.number
    with pytest.raises(NotAllowed, match=f"from round {now + 1}"):
        await planned(chain, Wish(deed="unstake", address=address(77)))


async def test_a_contract_as_recipient_is_warned_about() -> None:
    """The contracts pass little gas, so a contract may be unable to take fees."""
    chain = quiet()
    to = chain.addresses["LivepeerToken"]
    plan = await planned(chain, wish("withdraw-fees", to=to))
    assert [each.code for each in plan.warnings] == [
        "fees-later-this-round",
        "recipient-has-code",
    ]


async def test_without_an_orchestrator_one_must_be_named() -> None:
    """A pool whose settings name no orchestrator on chain cannot guess."""
    chain = quiet()
    known = Delegations(chain, chain, {}, clock_ms=lambda: 1)
    with pytest.raises(NotAllowed, match="Say to which orchestrator"):
        await known.plan(wish("stake", amount=1))
    assert (await known.plan(wish("stake", amount=1, to=POOL))).calls


async def test_cuts_in_force_are_those_of_the_round() -> None:
    """After a change both are known: what counts in this round, and what comes."""
    chain = network(rounds=3, others=2)
    chain.redeem("gateway", POOL, 10**15)
    chain.protocol.transcoder(POOL, 900_000, 10_000)
    known = Delegations(chain, chain, {POOL: "main"}, clock_ms=lambda: 1)
    await known.refresh()
    (profile,) = known.profiles()
    assert (profile.reward_cut_ppm, profile.fee_share_ppm) == (200_000, 300_000)
    assert (profile.next_reward_cut_ppm, profile.next_fee_share_ppm) == (900_000, 10_000)


async def test_outside_the_set_nothing_is_promised() -> None:
    """An orchestrator that is not in the active set has no rank, and its outlook no income."""
    chain = network(rounds=3, others=2)
    chain.protocol.pool.remove(POOL)
    known = Delegations(chain, chain, {POOL: "main"}, clock_ms=lambda: 1)
    await known.refresh()
    (profile,) = known.profiles()
    assert profile.standing.rank == 0
    assert (profile.outlook.reward_calls_ppm, profile.outlook.fees_wei) == (0, 0)
    assert profile.outlook.active_stake_lpt > profile.outlook.pool_stake_lpt


def test_amounts_are_exact() -> None:
    """Text and base units turn into each other without loss; anything else is refused."""
    assert amount("12.000000000000000001 LPT") == 12 * LPT + 1
    assert amount(" 0.5 ETH") == LPT // 2
    assert (lpt_text(12 * LPT + 1), eth_text(10**17)) == ("12.000000000000000001 LPT", "0.1 ETH")
    assert (lpt_text(0), lpt_text(100 * LPT)) == ("0 LPT", "100 LPT")
    for wrong in ("", ".5", "1.", "-1", "1e3", "0.1234567890123456789", "5 USD", "١"):
        with pytest.raises(BadMessage):
            amount(wrong)
