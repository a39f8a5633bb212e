"""What the BondingManager remembers of an orchestrator and a delegator, and how it changes.

Values in, new values out, by the formulas of `core.livepeer.maths`. An orchestrator comes with
the earnings pools of the rounds that matter; one that is left out counts as empty, as on chain.
For a delegator's earnings four are enough: of its last claim, of the current round, of the last
reward and of the last fees (`rounds_needed`). Must not know how any of it was read.
"""

from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from openpool.core.livepeer import maths
from openpool.core.livepeer.maths import Code

FOR_EVER = 2**256 - 1
"""The deactivation round of an orchestrator that is not to be deactivated."""
NOBODY = "0x" + "0" * 40
"""The delegate of somebody who delegates to nobody."""

Status = Literal["pending", "bonded", "unbonded"]


class Round(Struct, frozen=True, kw_only=True):
    """The state of the protocol in one round."""

    number: int
    active_stake: int
    """Stake of all active orchestrators in this round."""
    mintable: int
    minted: int = 0
    treasury_cut: int = 0
    """Parts per 10^27."""


class Pool(Struct, frozen=True, kw_only=True):
    """An orchestrator's earnings pool of one round. A factor of 0 says that none was written."""

    stake: int = 0
    reward_cut_ppm: int = 0
    """What the orchestrator keeps of rewards."""
    fee_share_ppm: int = 0
    """What delegators get of fees."""
    reward_factor: int = 0
    fee_factor: int = 0


class Orchestrator(Struct, frozen=True, kw_only=True):
    """What `getTranscoder` says, and the earnings pools that are known, by round."""

    last_reward_round: int = 0
    reward_cut_ppm: int = 0
    """As the next round's pool will have it; likewise `fee_share_ppm`."""
    fee_share_ppm: int = 0
    last_stake_round: int = 0
    """`lastActiveStakeUpdateRound`: the round of the latest pool whose stake was written."""
    activation_round: int = 0
    deactivation_round: int = 0
    active_rewards: int = 0
    """`activeCumulativeRewards`: `unclaimed_rewards` before this round's reward."""
    unclaimed_rewards: int = 0
    """`cumulativeRewards`: commission and its earnings since the orchestrator's last claim."""
    unclaimed_fees_wei: int = 0
    last_fee_round: int = 0
    pools: dict[int, Pool] = {}

    def pool(self, round_number: int) -> Pool:
        return self.pools.get(round_number, Pool())

    def is_active(self, round_number: int) -> bool:
        return self.activation_round <= round_number < self.deactivation_round


class Delegator(Struct, frozen=True, kw_only=True):
    """What `getDelegator` says; `bonded` and `fees_wei` are as of its last claim."""

    bonded: int = 0
    fees_wei: int = 0
    delegate: str = NOBODY
    delegated: int = 0
    """Stake that others and itself delegate to it."""
    start_round: int = 0
    last_claim_round: int = 0
    next_lock_id: int = 0

    def status(self, round_number: int) -> Status:
        if not self.bonded:
            return "unbonded"
        return "pending" if self.start_round > round_number else "bonded"


class Earnings(Struct, frozen=True, kw_only=True):
    """All that a delegator has, claimed or not."""

    stake: int
    fees_wei: int


def rounds_needed(delegator: Delegator, orchestrator: Orchestrator, now: int) -> frozenset[int]:
    """The rounds whose pools decide the delegator's earnings in round `now`."""
    return frozenset(
        {
            delegator.last_claim_round,
            now,
            orchestrator.last_reward_round,
            orchestrator.last_fee_round,
        }
    )


def latest_factors(orchestrator: Orchestrator, round_number: int) -> tuple[int, int]:
    """The reward and the fee factor in force in a round, if need be those of an earlier one."""
    pool = orchestrator.pool(round_number)
    reward, fee = pool.reward_factor, pool.fee_factor
    if not reward and orchestrator.last_reward_round < round_number:
        reward = orchestrator.pool(orchestrator.last_reward_round).reward_factor
    if not fee and orchestrator.last_fee_round < round_number:
        fee = orchestrator.pool(orchestrator.last_fee_round).fee_factor
    return reward, fee


def earnings(
    delegator: Delegator, orchestrator: Orchestrator, now: int, *, is_itself: bool = False
) -> Earnings:
    """`pendingStake` and `pendingFees` in round `now`, of a delegator of this orchestrator.

    `is_itself`: the delegator is the orchestrator.
    """
    stake, fees_wei = delegator.bonded, delegator.fees_wei
    if delegator.last_claim_round < now:
        start = orchestrator.pool(delegator.last_claim_round)
        reward, fee = latest_factors(orchestrator, now)
        stake = maths.stake_with_rewards(delegator.bonded, start.reward_factor, reward)
        fees_wei += maths.fees_earned(delegator.bonded, start.reward_factor, start.fee_factor, fee)
    if is_itself:
        stake += orchestrator.unclaimed_rewards
        fees_wei += orchestrator.unclaimed_fees_wei
    return Earnings(stake=stake, fees_wei=fees_wei)


def call_reward(orchestrator: Orchestrator, now: Round) -> tuple[Orchestrator, maths.Reward]:
    """The orchestrator after its `reward`, and what that minted.

    The caller adds `amount` to the stake delegated to it, which counts from the next round.
    """
    pool = _locked_in(orchestrator, now.number)
    won = maths.reward(
        mintable=now.mintable,
        stake=pool.stake,
        active_stake=now.active_stake,
        treasury_cut=now.treasury_cut,
        reward_cut_ppm=pool.reward_cut_ppm,
    )
    unclaimed = orchestrator.unclaimed_rewards
    before = orchestrator.pool(orchestrator.last_reward_round).reward_factor
    factor = maths.reward_factor(before, won.delegators, pool.stake)
    after = replace(
        orchestrator,
        last_reward_round=now.number,
        active_rewards=unclaimed,
        unclaimed_rewards=unclaimed
        + maths.own_part(won.delegators, won.commission, unclaimed, pool.stake),
        pools=orchestrator.pools | {now.number: replace(pool, reward_factor=factor)},
    )
    return after, won


def receive_fees(
    orchestrator: Orchestrator, fees_wei: int, now: Round, contracts: Code = "2026"
) -> Orchestrator:
    """The orchestrator after a ticket brought `fees_wei`."""
    reward_before, fee_before = latest_factors(orchestrator, now.number - 1)
    has_rewarded = orchestrator.last_reward_round >= now.number
    pool = orchestrator.pool(now.number) if has_rewarded else _locked_in(orchestrator, now.number)
    unclaimed = orchestrator.active_rewards if has_rewarded else orchestrator.unclaimed_rewards
    if not reward_before and orchestrator.last_reward_round == now.number:
        reward_before = _retroactive(pool, now, contracts)
    split = maths.split_fees(fees_wei, pool.fee_share_ppm)
    factor = maths.fee_factor(
        pool.fee_factor or fee_before, reward_before, split.delegators_wei, pool.stake
    )
    return replace(
        orchestrator,
        last_fee_round=now.number,
        unclaimed_fees_wei=orchestrator.unclaimed_fees_wei
        + maths.own_part(split.delegators_wei, split.commission_wei, unclaimed, pool.stake),
        pools=orchestrator.pools | {now.number: replace(pool, fee_factor=factor)},
    )


def claim(
    delegator: Delegator, orchestrator: Orchestrator, now: int, *, is_itself: bool = False
) -> tuple[Delegator, Orchestrator]:
    """Both after the delegator's claim, which every change of its stake brings with it.

    Whatever reaches the orchestrator later in this round is lost to it, for the next claim starts
    from this round's factors as they stand at its end.
    """
    if delegator.last_claim_round >= now:
        return delegator, orchestrator
    has = earnings(delegator, orchestrator, now, is_itself=is_itself)
    claimed = replace(delegator, bonded=has.stake, fees_wei=has.fees_wei, last_claim_round=now)
    after = with_factors(orchestrator, now)
    if is_itself:
        after = replace(after, unclaimed_rewards=0, unclaimed_fees_wei=0)
    return claimed, after


def with_factors(orchestrator: Orchestrator, now: int) -> Orchestrator:
    """The orchestrator with the factors in force written into this round's pool, if it has none:
    what a claim and a new bond start from."""
    reward, fee = latest_factors(orchestrator, now)
    pool = replace(orchestrator.pool(now), reward_factor=reward, fee_factor=fee)
    return replace(orchestrator, pools=orchestrator.pools | {now: pool})


def _locked_in(orchestrator: Orchestrator, now: int) -> Pool:
    """This round's pool with the cuts that hold from now to its end."""
    stake_round = min(orchestrator.last_stake_round, now)
    return replace(
        orchestrator.pool(now),
        stake=orchestrator.pool(stake_round).stake,
        reward_cut_ppm=orchestrator.reward_cut_ppm,
        fee_share_ppm=orchestrator.fee_share_ppm,
    )


def _retroactive(pool: Pool, now: Round, contracts: Code) -> int:
    return maths.retroactive_factor(
        pool.reward_factor,
        mintable=now.mintable,
        minted=now.minted,
        stake=pool.stake,
        active_stake=now.active_stake,
        treasury_cut=now.treasury_cut,
        reward_cut_ppm=pool.reward_cut_ppm,
        contracts=contracts,
    )
