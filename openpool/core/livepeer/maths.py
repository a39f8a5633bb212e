"""The formulas of the protocol's contracts: whole numbers, and every division rounds down.

Rates come in three sizes: cuts and shares are parts per million (`_ppm`), inflation and bonding
rates parts per 10^9 (`_ppb`), cumulative factors and the treasury's cut parts per 10^27. Must not
know who holds which state; that is `core.livepeer.bonding`.
"""

from typing import Literal

from msgspec import Struct

PPM = 10**6
PPB = 10**9
PRECISE = 10**27

Code = Literal["v9", "2026"]
"""Which code stands behind the BondingManager; "2026" is live since February 2026."""


def frac(amount: int, part: int, whole: int, parts: int) -> int:
    """`amount × part / whole` as the contracts do it: the ratio is rounded down first."""
    return amount * (part * parts // whole) // parts


def pct(amount: int, rate_ppm: int) -> int:
    """A rate of an amount."""
    return amount * rate_ppm // PPM


# ---- the start of a round ------------------------------------------------------------------------


def next_inflation(
    inflation_ppb: int, *, change_ppb: int, target_ppb: int, active_stake: int, supply: int
) -> int:
    """The inflation of a round, from the one before: one step towards the target bonding rate."""
    bonding_ppb = active_stake * PPB // supply
    if bonding_ppb < target_ppb:
        return inflation_ppb + change_ppb
    if bonding_ppb > target_ppb:
        return max(inflation_ppb - change_ppb, 0)
    return inflation_ppb


def mintable(supply: int, inflation_ppb: int) -> int:
    """The LPT that all rewards of a round come to if every orchestrator calls `reward`."""
    return supply * inflation_ppb // PPB


# ---- reward() ------------------------------------------------------------------------------------


class Reward(Struct, frozen=True, kw_only=True):
    """What one `reward` call mints, and for whom."""

    treasury: int
    commission: int
    """The orchestrator's, by its reward cut."""
    delegators: int
    """For all stake of the orchestrator, its own too."""

    @property
    def amount(self) -> int:
        """What event `Reward` says: without the treasury's."""
        return self.commission + self.delegators

    @property
    def minted(self) -> int:
        return self.treasury + self.amount


def reward(
    *, mintable: int, stake: int, active_stake: int, treasury_cut: int, reward_cut_ppm: int
) -> Reward:
    """The reward of an orchestrator whose stake in this round is `stake`."""
    minted = frac(mintable, stake, active_stake, PPB)
    treasury = minted * treasury_cut // PRECISE
    commission = pct(minted - treasury, reward_cut_ppm)
    return Reward(
        treasury=treasury, commission=commission, delegators=minted - treasury - commission
    )


def reward_factor(previous: int, delegators: int, stake: int) -> int:
    """The cumulative reward factor after a reward; `previous` is that of the reward before."""
    base = previous or PRECISE
    return base + frac(base, delegators, stake, PRECISE)


# ---- fees ----------------------------------------------------------------------------------------


class Fees(Struct, frozen=True, kw_only=True):
    """How the ETH of a redeemed ticket is split."""

    commission_wei: int
    """The orchestrator's."""
    delegators_wei: int
    """For all stake of the orchestrator, its own too."""


def split_fees(fees_wei: int, fee_share_ppm: int) -> Fees:
    """The fee share is what delegators get."""
    delegators_wei = pct(fees_wei, fee_share_ppm)
    return Fees(commission_wei=fees_wei - delegators_wei, delegators_wei=delegators_wei)


def fee_factor(previous: int, reward_factor: int, delegators_wei: int, stake: int) -> int:
    """The cumulative fee factor after a ticket.

    `previous` is this round's, or if it has none yet the last one; `reward_factor` is that of the
    round before, for stake has grown by it.
    """
    return previous + frac(reward_factor or PRECISE, delegators_wei, stake, PRECISE)


def retroactive_factor(
    factor: int,
    *,
    mintable: int,
    minted: int,
    stake: int,
    active_stake: int,
    treasury_cut: int,
    reward_cut_ppm: int,
    contracts: Code = "2026",
) -> int:
    """The reward factor before this round's reward, reckoned back from `factor`, the one after.

    Needed for a ticket that comes after a reward whose predecessor was missed, so that no factor
    of the round before is known. The two versions differ in what they take for mintable.
    """
    base = mintable + (minted if contracts == "v9" else 0)
    rewards = frac(base, stake, active_stake, PRECISE)
    rewards -= rewards * treasury_cut // PRECISE
    delegators = rewards - pct(rewards, reward_cut_ppm)
    return frac(factor, stake, delegators + stake, PRECISE)


# ---- who gets how much ---------------------------------------------------------------------------


def own_part(delegators: int, commission: int, unclaimed: int, stake: int) -> int:
    """What an orchestrator's unclaimed rewards (or fees) grow by, its bonded stake left out.

    That is its commission, and what its unclaimed rewards earn as stake: they are in `stake`, but
    in nobody's bonded amount yet.
    """
    return frac(delegators, unclaimed, stake, PRECISE) + commission


def stake_with_rewards(bonded: int, start_factor: int, end_factor: int) -> int:
    """Stake bonded when the reward factor was `start_factor`; 0 stands for no factor yet."""
    return frac(bonded, end_factor or PRECISE, start_factor or PRECISE, PRECISE)


def fees_earned(bonded: int, start_reward_factor: int, start_fees: int, end_fees: int) -> int:
    """Wei earned by stake while the fee factor went from `start_fees` to `end_fees`."""
    return frac(bonded, end_fees - start_fees, start_reward_factor or PRECISE, PRECISE)
