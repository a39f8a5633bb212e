"""What a delegator wants to know: where the orchestrator stands, what may be taken out, what to
beware of before sending a transaction.

Decides from what was read; reads nothing. Amounts of LPT are base units.
"""

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from openpool.core.livepeer import bonding
from openpool.core.livepeer.bonding import NOBODY, Delegator, Orchestrator, Round
from openpool.core.livepeer.maths import PPM

Ranked = Sequence[tuple[str, int]]
"""The active set of the next round: addresses and stakes, the largest first."""
Deed = Literal["stake", "unstake", "restake", "claim", "withdraw-fees", "withdraw-stake"]
CLAIMING: frozenset[Deed] = frozenset({"stake", "unstake", "restake", "claim", "withdraw-fees"})
"""Deeds with which the contracts claim all earnings first."""
BONDING: frozenset[Deed] = frozenset({"stake", "restake"})


class Standing(Struct, frozen=True, kw_only=True):
    """A place in the active set of the next round."""

    rank: int
    """1 is the largest stake; 0: not in the set."""
    size: int
    size_max: int
    last_stake_lpt: int
    """The smallest stake in the set; more than this is needed to get in once it is full."""


class Lock(Struct, frozen=True, kw_only=True):
    """LPT that was unbonded and can be withdrawn from a round on."""

    lock: int
    amount_lpt: int
    withdraw_round: int


class Situation(Struct, frozen=True, kw_only=True):
    """The protocol at this moment, and the orchestrator that a deed is about."""

    round: Round
    initialized: bool
    locked: bool
    orchestrator: Orchestrator


class Warning(Struct, frozen=True, kw_only=True):
    """Something to know before a deed."""

    code: str
    text: str
    level: Literal["note", "loss", "refused"] = "note"
    """loss: it costs money, so it must be wanted; refused: the contracts would revert."""
    loses_lpt: int = 0


class PastRound(Struct, frozen=True, kw_only=True):
    """What a round brought an orchestrator."""

    number: int
    rewarded: bool
    reward_lpt: int
    """Without the treasury's part."""
    delegators_lpt: int
    """Of that for all stake, by the reward cut of the round."""
    fees_wei: int
    stake_lpt: int


def standing(ranked: Ranked, address: str, size_max: int) -> Standing:
    """Where an orchestrator stands."""
    addresses = [each for each, _ in ranked]
    return Standing(
        rank=addresses.index(address) + 1 if address in addresses else 0,
        size=len(ranked),
        size_max=size_max,
        last_stake_lpt=ranked[-1][1] if ranked else 0,
    )


def hints(ranked: Ranked, address: str, new_stake_lpt: int) -> tuple[str, str]:
    """The neighbours that an orchestrator will have with its new stake.

    They save the contracts a search. A wrong hint costs gas and nothing else.
    """
    others = [(each, stake) for each, stake in ranked if each != address]
    larger = [each for each, stake in others if stake > new_stake_lpt]
    rest = [each for each, stake in others if stake <= new_stake_lpt]
    return (larger[-1] if larger else NOBODY, rest[0] if rest else NOBODY)


def moved(ranked: Ranked, address: str, change_lpt: int) -> tuple[tuple[str, int], ...]:
    """The set after the stake of one of its members has changed."""
    after = [(each, stake + change_lpt if each == address else stake) for each, stake in ranked]
    return tuple(sorted(after, key=lambda pair: -pair[1]))


def reward_calls_ppm(past: Sequence[PastRound]) -> int | None:
    """In how many of these rounds `reward` was called; None if there are none."""
    if not past:
        return None
    return sum(each.rewarded for each in past) * PPM // len(past)


def withdrawable_wei(delegator: Delegator, pending_wei: int, now: int) -> int:
    """The fees that `withdrawFees` would pay in round `now`.

    A claim takes place once a round: what comes after it is pending until the next.
    """
    return delegator.fees_wei if delegator.last_claim_round == now else pending_wei


def ripe(locks: Sequence[Lock], now: int) -> list[Lock]:
    """The locks that can be withdrawn in round `now`."""
    return [lock for lock in locks if lock.withdraw_round <= now]


def forfeited_lpt(delegator: Delegator, situation: Situation, *, is_itself: bool = False) -> int:
    """What the delegator loses of this round's reward if it claims before the reward."""
    o, now = situation.orchestrator, situation.round
    if delegator.last_claim_round >= now.number or o.last_reward_round >= now.number:
        return 0
    if not o.is_active(now.number):
        return 0
    claimed, after = bonding.claim(delegator, o, now.number, is_itself=is_itself)
    patient = _with_reward(delegator, o, now, is_itself)
    hasty = _with_reward(claimed, after, now, is_itself)
    return max(patient - hasty, 0)


def _with_reward(d: Delegator, o: Orchestrator, now: Round, is_itself: bool) -> int:
    rewarded, _ = bonding.call_reward(o, now)
    return bonding.earnings(d, rewarded, now.number, is_itself=is_itself).stake


def warnings(
    deed: Deed,
    delegator: Delegator,
    present: Situation,
    target: Situation | None = None,
    *,
    is_itself: bool = False,
) -> list[Warning]:
    """What to know before the deed.

    `present` is about the orchestrator that the delegator delegates to (an empty one if to none),
    `target` about the one that is to get the stake, for `stake` and `restake`.
    """
    found = [] if present.initialized else [NOT_INITIALIZED]
    if deed in BONDING:
        found += _about_target(target or present)
    if deed in CLAIMING and delegator.delegate != NOBODY:
        found += _about_claim(delegator, present, is_itself)
    return found


NOT_INITIALIZED = Warning(
    code="round-not-initialized",
    text="The current round has not been initialized yet, so the contracts refuse this; "
    "try again when somebody has called initializeRound.",
    level="refused",
)
LEAVING = Warning(
    code="delegate-leaving",
    text="This orchestrator drops out of the active set after this round and has not called "
    "reward yet; until it has, the contracts refuse new stake.",
    level="refused",
)
INACTIVE = Warning(
    code="delegate-not-active",
    text="This orchestrator is not in the active set, so stake with it earns nothing.",
    level="loss",
)
LOCKED = Warning(
    code="round-locked",
    text="The round is in its locked last part: cuts cannot change any more before the next "
    "round, from which on new stake counts.",
)
FEES_LATER = Warning(
    code="fees-later-this-round",
    text="Your earnings are claimed with this. Fees of tickets that are redeemed later in this "
    "round will bring your stake nothing.",
)


def _about_target(target: Situation) -> list[Warning]:
    o, now = target.orchestrator, target.round.number
    found = []
    if o.is_active(now) and o.deactivation_round == now + 1 and o.last_reward_round < now:
        found.append(LEAVING)
    elif not o.is_active(now) and not o.is_active(now + 1):
        found.append(INACTIVE)
    if target.locked:
        found.append(LOCKED)
    return found


def _about_claim(delegator: Delegator, present: Situation, is_itself: bool) -> list[Warning]:
    found = []
    loses = forfeited_lpt(delegator, present, is_itself=is_itself)
    if loses:
        found.append(
            Warning(
                code="claim-before-reward",
                text="This claims your earnings before the orchestrator has called reward in "
                "this round: your part of that reward would be lost for good. Wait until it has "
                "called reward.",
                level="loss",
                loses_lpt=loses,
            )
        )
    has_claimed = delegator.last_claim_round >= present.round.number
    if present.orchestrator.fee_share_ppm and not has_claimed:
        found.append(FEES_LATER)
    return found
