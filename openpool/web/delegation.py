"""What the pages for delegators need from the rest of the pool, and the shapes in which it is told.

LPT and wei are decimal strings of base units, as all amounts. The chain is read by whoever
implements `Delegation`; the web asks no node of its own.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, Protocol

from msgspec import Meta, Struct

from openpool.core.errors import BadMessage
from openpool.core.livepeer.bonding import NOBODY, Status
from openpool.core.livepeer.delegation import Account, Plan, Profile, Wish
from openpool.core.livepeer.delegators import Deed, reward_calls_ppm
from openpool.core.livepeer.maths import PPM
from openpool.core.livepeer.outlook import (
    Earned,
    growth,
    project,
    rounds_per_year,
    with_more_stake,
)
from openpool.core.units import ETHER

MONTH_DAYS = 30
YEAR_DAYS = 365
STAKE_LPT_MAX = 10**9 * ETHER
"""More LPT than there will be."""


class Delegation(Protocol):
    """What is known of the pool's orchestrators on chain."""

    @property
    def problem(self) -> str:
        """Why it is not current; empty if it is."""

    def profiles(self) -> Sequence[Profile]:
        """The latest of each orchestrator; those not read yet are missing."""

    async def account(self, address: str) -> Account: ...
    async def plan(self, wish: Wish) -> Plan: ...


class RoundPoint(Struct, frozen=True, kw_only=True):
    """A past round."""

    round: int
    rewarded: bool
    reward_lpt: str
    delegators_lpt: str
    fees_wei: str
    stake_lpt: str


class OrchestratorProfile(Struct, frozen=True, kw_only=True):
    """An orchestrator as delegators see it."""

    name: str
    address: str
    read_ms: int
    round: int
    is_active: bool
    has_rewarded: bool
    reward_cut_ppm: int
    """What it keeps of rewards."""
    fee_share_ppm: int
    """What delegators get of fees; the fee cut is the rest."""
    next_reward_cut_ppm: int
    next_fee_share_ppm: int
    stake_lpt: str
    rank: int
    """By the stake of the next round; 0: not in the active set."""
    active_set_size: int
    active_set_max: int
    reward_calls_ppm: int | None
    """In how many of the past rounds `reward` was called; null: no round is over yet."""
    past: list[RoundPoint]


class Estimate(Struct, frozen=True, kw_only=True):
    """What stake would have earned after some rounds."""

    rounds: int
    rewards_lpt: str
    fees_wei: str
    growth_ppm: int
    """Rewards by the stake."""


class Estimates(Struct, frozen=True, kw_only=True):
    stake_lpt: str
    rounds_per_year: int
    estimates: list[Estimate]


class LockView(Struct, frozen=True, kw_only=True):
    lock: int
    amount_lpt: str
    withdraw_round: int


class AccountView(Struct, frozen=True, kw_only=True):
    """A delegator."""

    address: str
    round: int
    status: Status
    delegate: str
    """Empty if there is none."""
    stake_lpt: str
    rewards_lpt: str
    """Of the stake, what has come since the last claim."""
    fees_wei: str
    withdrawable_wei: str
    balance_lpt: str
    locks: list[LockView]


class WishRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a delegator wants to do."""

    deed: Deed
    address: Annotated[str, Meta(max_length=42)]
    amount: Annotated[str, Meta(max_length=40)] = ""
    """In LPT or ETH, like 12.5; empty: all there is."""
    to: Annotated[str, Meta(max_length=42)] = ""
    lock: Annotated[int, Meta(ge=0, lt=2**62)] | None = None


class WarningView(Struct, frozen=True, kw_only=True):
    code: str
    text: str
    level: Literal["note", "loss", "refused"]
    loses_lpt: str


class CallView(Struct, frozen=True, kw_only=True):
    """A transaction to be signed by the delegator's own wallet."""

    name: str
    what: str
    to: str
    data: str
    value: str


class PlanView(Struct, frozen=True, kw_only=True):
    """The transactions of a wish, in their order; nothing has been sent."""

    chain_id: int
    address: str
    calls: list[CallView]
    warnings: list[WarningView]


def profile_view(profile: Profile) -> OrchestratorProfile:
    return OrchestratorProfile(
        name=profile.name,
        address=profile.address,
        read_ms=profile.read_ms,
        round=profile.round,
        is_active=profile.is_active,
        has_rewarded=profile.has_rewarded,
        reward_cut_ppm=profile.reward_cut_ppm,
        fee_share_ppm=profile.fee_share_ppm,
        next_reward_cut_ppm=profile.next_reward_cut_ppm,
        next_fee_share_ppm=profile.next_fee_share_ppm,
        stake_lpt=str(profile.stake_lpt),
        rank=profile.standing.rank,
        active_set_size=profile.standing.size,
        active_set_max=profile.standing.size_max,
        reward_calls_ppm=reward_calls_ppm(profile.past),
        past=[
            RoundPoint(
                round=each.number,
                rewarded=each.rewarded,
                reward_lpt=str(each.reward_lpt),
                delegators_lpt=str(each.delegators_lpt),
                fees_wei=str(each.fees_wei),
                stake_lpt=str(each.stake_lpt),
            )
            for each in profile.past
        ],
    )


def estimates(profile: Profile, stake_lpt: int, rounds: Sequence[int] = ()) -> Estimates:
    """What new stake would earn: in one round, a month, a year, and the rounds asked for.

    Raises BadMessage for more LPT than there can be.
    """
    if not 0 < stake_lpt <= STAKE_LPT_MAX:
        raise BadMessage("Ask about more than 0 and at most 1000000000 LPT.")
    year = max(rounds_per_year(profile.round_l1_blocks), 1)
    wanted = sorted({1, max(year * MONTH_DAYS // YEAR_DAYS, 1), year, *rounds})
    table = project(stake_lpt, with_more_stake(profile.outlook, stake_lpt), wanted[-1])
    return Estimates(
        stake_lpt=str(stake_lpt),
        rounds_per_year=year,
        estimates=[_estimate(stake_lpt, table[n - 1]) for n in wanted if n <= len(table)],
    )


def _estimate(stake_lpt: int, earned: Earned) -> Estimate:
    return Estimate(
        rounds=earned.rounds,
        rewards_lpt=str(earned.stake_lpt - stake_lpt),
        fees_wei=str(earned.fees_wei),
        growth_ppm=int(growth(stake_lpt, earned.stake_lpt) * PPM),
    )


def account_view(account: Account) -> AccountView:
    return AccountView(
        address=account.address,
        round=account.round,
        status=account.status,
        delegate="" if account.delegate == NOBODY else account.delegate,
        stake_lpt=str(account.stake_lpt),
        rewards_lpt=str(account.stake_lpt - account.bonded_lpt),
        fees_wei=str(account.fees_wei),
        withdrawable_wei=str(account.withdrawable_wei),
        balance_lpt=str(account.balance_lpt),
        locks=[
            LockView(
                lock=each.lock,
                amount_lpt=str(each.amount_lpt),
                withdraw_round=each.withdraw_round,
            )
            for each in account.locks
        ],
    )


def plan_view(plan: Plan) -> PlanView:
    return PlanView(
        chain_id=plan.chain_id,
        address=plan.address,
        calls=[
            CallView(
                name=each.name,
                what=each.what,
                to=each.to,
                data=f"0x{each.data.hex()}",
                value=str(each.value_wei),
            )
            for each in plan.calls
        ],
        warnings=[
            WarningView(
                code=each.code,
                text=each.text,
                level=each.level,
                loses_lpt=str(each.loses_lpt),
            )
            for each in plan.warnings
        ],
    )
