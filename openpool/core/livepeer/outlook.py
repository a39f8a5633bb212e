"""What stake would earn: the protocol's rules played forward, round by round.

Exact for what is assumed, and the assumptions are plain: cuts and fees stay as they are, every
other orchestrator calls `reward` each round, nobody else bonds or unbonds. Must not guess a price
of LPT or ETH.
"""

from fractions import Fraction

from msgspec import Struct
from msgspec.structs import replace

from openpool.core.livepeer import maths
from openpool.core.livepeer.maths import PPM, PRECISE

ROUNDS_MAX = 5_000
"""More than ten years; nothing stays as it is for so long."""
L1_BLOCK_S = 12
YEAR_S = 31_556_952
NO_REWARD = maths.Reward(treasury=0, commission=0, delegators=0)


class Outlook(Struct, frozen=True, kw_only=True):
    """What a projection starts from, and what it takes to stay the same."""

    pool_stake_lpt: int
    """Delegated to the orchestrator, the stake that is asked about with it."""
    active_stake_lpt: int
    """Of all active orchestrators, this one with it."""
    supply_lpt: int
    inflation_ppb: int
    """Of the round before the first that is projected."""
    inflation_change_ppb: int = 0
    target_bonding_ppb: int = 0
    treasury_cut: int = 0
    """Parts per 10^27."""
    reward_cut_ppm: int
    fee_share_ppm: int
    fees_wei: int = 0
    """What tickets bring the orchestrator in a round."""
    reward_calls_ppm: int = PPM
    """In how many of all rounds it calls `reward`."""


class Earned(Struct, frozen=True, kw_only=True):
    """What stake has come to after some rounds."""

    rounds: int
    stake_lpt: int
    """Rewards are stake at once, so they earn, too."""
    fees_wei: int


def project(stake_lpt: int, outlook: Outlook, rounds: int) -> list[Earned]:
    """What `stake_lpt` comes to after each of the next rounds."""
    factor, fees, now = PRECISE, 0, outlook
    table = []
    for number in range(1, min(rounds, ROUNDS_MAX) + 1):
        called = _called(number, outlook.reward_calls_ppm)
        factor, fees, now = _one_round(factor, fees, now, called)
        table.append(
            Earned(
                rounds=number,
                stake_lpt=maths.stake_with_rewards(stake_lpt, PRECISE, factor),
                fees_wei=maths.fees_earned(stake_lpt, PRECISE, 0, fees),
            )
        )
    return table


def rounds_per_year(round_l1_blocks: int) -> int:
    """How many rounds of this length a year has."""
    return YEAR_S // (round_l1_blocks * L1_BLOCK_S)


def growth(before: int, after: int) -> Fraction:
    """How much more there is, as a part of what there was."""
    return Fraction(after - before, before) if before else Fraction(0)


def with_more_stake(outlook: Outlook, stake_lpt: int) -> Outlook:
    """The outlook once `stake_lpt` from outside has been bonded to the orchestrator."""
    return replace(
        outlook,
        pool_stake_lpt=outlook.pool_stake_lpt + stake_lpt,
        active_stake_lpt=outlook.active_stake_lpt + stake_lpt,
    )


def _one_round(factor: int, fees: int, now: Outlook, called: bool) -> tuple[int, int, Outlook]:
    """Both cumulative factors after a round, and where the next one starts."""
    if not now.pool_stake_lpt or not now.supply_lpt:
        return factor, fees, now
    inflation_ppb = maths.next_inflation(
        now.inflation_ppb,
        change_ppb=now.inflation_change_ppb,
        target_ppb=now.target_bonding_ppb,
        active_stake=now.active_stake_lpt,
        supply=now.supply_lpt,
    )
    mintable = maths.mintable(now.supply_lpt, inflation_ppb)
    ours = _reward(now, mintable, now.pool_stake_lpt, now.reward_cut_ppm) if called else NO_REWARD
    others = _reward(now, mintable, now.active_stake_lpt - now.pool_stake_lpt, 0)
    delegators_wei = maths.split_fees(now.fees_wei, now.fee_share_ppm).delegators_wei
    after = replace(
        now,
        inflation_ppb=inflation_ppb,
        supply_lpt=now.supply_lpt + ours.minted + others.minted,
        pool_stake_lpt=now.pool_stake_lpt + ours.amount,
        active_stake_lpt=now.active_stake_lpt + ours.amount + others.amount,
    )
    fees = maths.fee_factor(fees, factor, delegators_wei, now.pool_stake_lpt)
    return maths.reward_factor(factor, ours.delegators, now.pool_stake_lpt), fees, after


def _reward(now: Outlook, mintable: int, stake_lpt: int, reward_cut_ppm: int) -> maths.Reward:
    return maths.reward(
        mintable=mintable,
        stake=stake_lpt,
        active_stake=now.active_stake_lpt,
        treasury_cut=now.treasury_cut,
        reward_cut_ppm=reward_cut_ppm,
    )


def _called(number: int, reward_calls_ppm: int) -> bool:
    """Whether `reward` is called in this round: missed ones are spread evenly, the first late."""
    return _calls(number, reward_calls_ppm) > _calls(number - 1, reward_calls_ppm)


def _calls(rounds: int, reward_calls_ppm: int) -> int:
    return -(-rounds * reward_calls_ppm // PPM)
