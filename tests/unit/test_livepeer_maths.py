"""The protocol's arithmetic against a run of the real contracts: every digit of every number."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from livepeer_model import Protocol, pool_of

from openpool.core.livepeer import bonding, maths
from openpool.core.livepeer.bonding import NOBODY, Delegator, Orchestrator, Pool

VECTORS = Path(__file__).parent.parent / "vectors"
CASES = json.loads((VECTORS / "cases_2026.json").read_text())
GOLDEN = json.loads(gzip.decompress((VECTORS / "golden_2026.json.gz").read_bytes()))
COMPARED = 24_047
"""Numbers in the states of the run that the replay computes: all of them."""


def test_earnings_of_every_case() -> None:
    """What a delegator has is what the contract says, in each of the 241 cases."""
    assert len(CASES["earnings"]) == 241
    for case in CASES["earnings"]:
        now = int(case["currentRound"])
        delegator = Delegator(
            bonded=int(case["bondedAmount"]),
            fees_wei=int(case["fees"]),
            last_claim_round=int(case["lastClaimRound"]),
        )
        orchestrator = Orchestrator(
            last_reward_round=int(case["lastRewardRound"]),
            last_fee_round=int(case["lastFeeRound"]),
            unclaimed_rewards=int(case["cumulativeRewards"]),
            unclaimed_fees_wei=int(case["cumulativeFees"]),
            pools={
                int(case["lastClaimRound"]): pool_of(case["poolAtLastClaim"]),
                now: pool_of(case["poolAtCurrent"]),
                int(case["lastRewardRound"]): pool_of(case["poolAtLastReward"]),
                int(case["lastFeeRound"]): pool_of(case["poolAtLastFee"]),
            },
        )
        assert bonding.rounds_needed(delegator, orchestrator, now) == set(orchestrator.pools)
        has = bonding.earnings(delegator, orchestrator, now, is_itself=case["isOrchestrator"])
        assert has.stake == int(case["expect"]["pendingStake"])
        assert has.fees_wei == int(case["expect"]["pendingFees"])


def test_rewards_of_every_case() -> None:
    """A reward mints, splits and accumulates as on chain, in each of the 26 cases."""
    assert len(CASES["rewards"]) == 26
    for case in CASES["rewards"]:
        stake = int(case["poolTotalStake"])
        before = int(case["cumulativeRewardsBefore"])
        won = maths.reward(
            mintable=int(case["currentMintableTokens"]),
            stake=stake,
            active_stake=int(case["currentRoundTotalActiveStake"]),
            treasury_cut=int(case["treasuryRewardCutRate"]),
            reward_cut_ppm=int(case["rewardCut"]),
        )
        factor = maths.reward_factor(
            int(case["previousCumulativeRewardFactor"]), won.delegators, stake
        )
        unclaimed = before + maths.own_part(won.delegators, won.commission, before, stake)
        assert {
            "minted": won.minted,
            "treasury": won.treasury,
            "Reward.amount": won.amount,
            "cumulativeRewards": unclaimed,
            "cumulativeRewardFactor": factor,
        } == numbers(case["expect"])


def test_rounds_of_every_case() -> None:
    """Inflation and the mintable LPT of a round are as on chain, in each of the 16 cases."""
    assert len(CASES["rounds"]) == 16
    for case in CASES["rounds"]:
        supply = int(case["totalSupply"])
        inflation = maths.next_inflation(
            int(case["inflationBefore"]),
            change_ppb=int(GOLDEN["params"]["inflationChange"]),
            target_ppb=int(GOLDEN["params"]["targetBondingRate"]),
            active_stake=int(case["totalActiveStake"]),
            supply=supply,
        )
        assert {
            "inflation": inflation,
            "currentMintableTokens": maths.mintable(supply, inflation),
        } == numbers(case["expect"])


def test_fees_of_every_case() -> None:
    """A redeemed ticket is split as on chain, in each of the 19 cases.

    The cases leave out the state of the orchestrator, so it is that of the replay.
    """
    cases = iter(CASES["fees"])
    compared = 0
    for step, was, protocol in replay():
        if step["action"] != "redeemWinningTicket":
            continue
        who, now = step["inputs"]["recipient"], was.round.number
        case = next(cases)
        before, after = was.o(who), protocol.o(who)
        pool = after.pool(now)
        assert (before.last_reward_round == now) == case["rewardedThisRound"]
        assert protocol.paid == int(case["paid"])
        assert pool.stake == int(case["poolTotalStake"])
        assert pool.fee_share_ppm == int(case["feeShare"])
        assert {
            "cumulativeFeesDelta": after.unclaimed_fees_wei - before.unclaimed_fees_wei,
            "cumulativeFeeFactor": pool.fee_factor,
            "orchestratorPendingFeesDelta": protocol.earnings(who).fees_wei
            - was.earnings(who).fees_wei,
        } == numbers(case["expect"])
        compared += 1
    assert compared == 19


def test_the_golden_run_is_replayed_from_its_inputs() -> None:
    """All 104 transactions, from inputs alone, leave the state that the real contracts had."""
    compared = steps = 0
    for step, _, protocol in replay():
        expected = dict(flat(step["state"]))
        state = dict(flat(state_of(protocol)))
        wrong = {k: (v, expected.get(k)) for k, v in state.items() if v != expected.get(k)}
        assert not wrong, (step["i"], step["action"])
        assert set(expected) - set(state) == {"block"}, step["i"]
        compared += sum(value.isdigit() for value in state.values())
        steps += 1
    assert steps == 104
    assert compared == COMPARED


def test_a_claim_before_the_reward_forfeits() -> None:
    """Golden step 90: the orchestrator had claimed and got 4.9 LPT; the patient would get 38.9."""
    steps = {step["i"]: (was, after) for step, was, after in replay()}
    (claimed, rewarded), (unclaimed, _) = steps[90], steps[89]
    patient, _ = bonding.call_reward(unclaimed.o("O1"), unclaimed.round)
    d, now = unclaimed.d("O1"), unclaimed.round.number
    had = unclaimed.earnings("O1").stake
    tenth = 10**17
    assert claimed.earnings("O1").stake == had
    assert (rewarded.earnings("O1").stake - had) // tenth == 49
    assert (bonding.earnings(d, patient, now, is_itself=True).stake - had) // tenth == 389


def test_the_older_contracts_reckon_back_from_more() -> None:
    """Before 2026 the retroactive factor took what was minted for mintable, too."""
    case = {"mintable": 900, "minted": 100, "stake": 10**6, "active_stake": 10**6}
    new, old = (
        maths.retroactive_factor(
            maths.PRECISE, **case, treasury_cut=0, reward_cut_ppm=0, contracts=contracts
        )
        for contracts in ("2026", "v9")
    )
    assert new == maths.frac(maths.PRECISE, 10**6, 10**6 + 900, maths.PRECISE)
    assert old == maths.frac(maths.PRECISE, 10**6, 10**6 + 1000, maths.PRECISE)


def test_inflation_moves_towards_the_target_and_not_below_zero() -> None:
    """Less is bonded than aimed at: one step up; more: one down, to zero at least; equal: none."""

    def after(inflation: int, stake: int) -> int:
        return maths.next_inflation(
            inflation, change_ppb=500, target_ppb=500_000_000, active_stake=stake, supply=100
        )

    assert [after(1_000, stake) for stake in (49, 50, 51)] == [1_500, 1_000, 500]
    assert after(300, 51) == 0


def test_the_contracts_claim_once_a_round() -> None:
    """A second claim changes nothing, not even after a reward in between."""
    steps = {step["i"]: after for step, _, after in replay()}
    protocol = steps[90]  # O1 claimed in step 89 and got its reward in step 90
    before = protocol.d("O1"), protocol.o("O1")
    now = protocol.round.number
    assert bonding.claim(*before, now, is_itself=True) == before


# ---- the golden run ------------------------------------------------------------------------------


def replay() -> Iterator[tuple[dict[str, Any], Protocol, Protocol]]:
    """Each step, with the protocol before and after it."""
    params = numbers(GOLDEN["params"])
    protocol = Protocol(
        inflation=params["inflation"],
        inflation_change=params["inflationChange"],
        target_bonding_rate=params["targetBondingRate"],
        unbonding_period=params["unbondingPeriod"],
        pool_max=params["numActiveTranscoders"],
        treasury_cut=params["treasuryRewardCutRate"],
        supply=params["initialMint"],
    )
    for step in GOLDEN["steps"]:
        before, protocol = protocol, protocol.copy()
        act(protocol, step)
        yield step, before, protocol


def act(protocol: Protocol, step: dict[str, Any]) -> None:
    """Carry out one step, from its inputs."""
    who, given = step["by"], step["inputs"]
    match step["action"]:
        case "initializeRound":
            started = next(each for each in step["events"] if each["event"] == "NewRound")
            protocol.initialize_round(int(started["args"]["round"]))
        case "fundDepositAndReserve":
            protocol.fund(who, int(given["deposit"]), int(given["reserve"]))
        case "bond":
            protocol.bond(who, int(given["amount"]), given["to"])
        case "unbond":
            protocol.unbond(who, int(given["amount"]))
        case "rebond":
            protocol.rebond(who, int(given["unbondingLockId"]))
        case "withdrawStake":
            protocol.withdraw_stake(who, int(given["unbondingLockId"]))
        case "withdrawFees":
            protocol.withdraw_fees(who, int(given["amount"]))
        case "claimEarnings":
            protocol.claim_earnings(who)
        case "transcoder":
            protocol.transcoder(who, int(given["rewardCut"]), int(given["feeShare"]))
        case "reward" | "rewardForTranscoder":
            protocol.reward(given.get("transcoder", who))
        case "redeemWinningTicket":
            protocol.redeem(given["sender"], given["recipient"], int(given["faceValue"]))
        case "batchRedeemWinningTickets":
            for i in given["redeemed"]:
                value = int(given["faceValues"][int(i)])
                protocol.redeem(given["sender"], given["recipient"], value)
        case "setRewardCaller":
            pass
        case unknown:
            raise AssertionError(unknown)


def state_of(protocol: Protocol) -> dict[str, object]:
    """The state as the vectors write it."""
    # the vectors look at all accounts from the second step on
    named = protocol.senders
    return {
        "round": protocol.round.number,
        "roundInitialized": True,
        "currentRoundTotalActiveStake": protocol.round.active_stake,
        "nextRoundTotalActiveStake": protocol.next_stake,
        "treasuryRewardCutRate": protocol.round.treasury_cut,
        "inflation": protocol.inflation,
        "currentMintableTokens": protocol.round.mintable,
        "currentMintedTokens": protocol.round.minted,
        "totalSupply": protocol.supply,
        "minterEth": protocol.minter_eth,
        "minterLpt": protocol.minter_lpt,
        "treasuryLpt": protocol.treasury_lpt,
        "transcoderPoolSize": len(protocol.pool),
        "transcoderPool": protocol.pool,
        "transcoders": {w: transcoder_of(protocol, w) for w in ORCHESTRATORS if named},
        "delegators": {w: delegator_of(protocol, w) for w in DELEGATORS if named},
    }


ORCHESTRATORS = ("O1", "O2", "O3", "O4")
DELEGATORS = (*ORCHESTRATORS, "D1", "D2", "D3", "D4")


def transcoder_of(protocol: Protocol, who: str) -> dict[str, object]:
    o = protocol.o(who)
    return {
        "lastRewardRound": o.last_reward_round,
        "rewardCut": o.reward_cut_ppm,
        "feeShare": o.fee_share_ppm,
        "lastActiveStakeUpdateRound": o.last_stake_round,
        "activationRound": o.activation_round,
        "deactivationRound": o.deactivation_round,
        "activeCumulativeRewards": o.active_rewards,
        "cumulativeRewards": o.unclaimed_rewards,
        "cumulativeFees": o.unclaimed_fees_wei,
        "lastFeeRound": o.last_fee_round,
        "totalStake": protocol.d(who).delegated,
        "active": o.is_active(protocol.round.number),
        "registered": protocol.is_registered(who),
        "pools": {
            number: {
                "totalStake": pool.stake,
                "transcoderRewardCut": pool.reward_cut_ppm,
                "transcoderFeeShare": pool.fee_share_ppm,
                "cumulativeRewardFactor": pool.reward_factor,
                "cumulativeFeeFactor": pool.fee_factor,
            }
            for number, pool in o.pools.items()
            if pool != Pool()
        },
    }


def delegator_of(protocol: Protocol, who: str) -> dict[str, object]:
    d, has = protocol.d(who), protocol.earnings(who)
    return {
        "bondedAmount": d.bonded,
        "fees": d.fees_wei,
        "delegatedAmount": d.delegated,
        "startRound": d.start_round,
        "lastClaimRound": d.last_claim_round,
        "nextUnbondingLockId": d.next_lock_id,
        "delegate": None if d.delegate == NOBODY else d.delegate,
        "pendingStake": has.stake,
        "pendingFees": has.fees_wei,
        "status": d.status(protocol.round.number).capitalize(),
        "locks": {
            lock: {"amount": amount, "withdrawRound": at}
            for lock, (amount, at) in protocol.locks.get(who, {}).items()
        },
    }


def flat(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Every leaf of a document as text, with where it stands."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from flat(each, f"{path}/{name}" if path else str(name))
    elif isinstance(value, list):
        for i, each in enumerate(value):
            yield from flat(each, f"{path}/{i}")
    else:
        yield path, str(value)


def numbers(texts: dict[str, str]) -> dict[str, int]:
    return {name: int(text) for name, text in texts.items()}
