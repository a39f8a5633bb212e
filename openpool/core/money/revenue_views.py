"""What people and programs are shown of revenue. Plain values; amounts are decimal strings.

`RevenueView` is for the operator; `public` leaves out what is nobody else's business. Filled by
`treasury.desk`. Pages and the API only show these.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import islice
from typing import Literal

from msgspec import Struct

from openpool.core.money.events import TicketRedeemed
from openpool.core.money.luck import Wins, luck
from openpool.core.money.revenue import RewardState, Round, Standing
from openpool.core.money.rewards import Level
from openpool.core.paging import behind

ROUNDS_SHOWN = 60


class LuckView(Struct, frozen=True, kw_only=True):
    """What tickets brought, against what the work was worth on average."""

    expected_wei: str
    won_wei: str
    """Face value of the winning tickets, and what came in without tickets."""
    wins: int
    expected_wins: int | None
    """How many wins the work is worth; null while no ticket has won."""
    ratio_ppm: int | None
    """Won over expected; null if nothing was expected."""
    spread_ppm: int | None
    """One standard deviation: two spans in three are within 1000000 ± this."""
    sentence: str


class RoundView(Struct, frozen=True, kw_only=True):
    """One round of one orchestrator."""

    round: int
    start_ms: int
    end_ms: int
    """0 while it runs."""
    closed: bool
    """Whether everything of this round is known and reconciled."""
    luck: LuckView
    realised_wei: str
    """What the orchestrator's claim grew by."""
    paid_wei: str
    """What the chain moved for its tickets, with the delegators' part."""
    withdrawn_wei: str
    reward: RewardState
    reward_lpt: str
    reward_own_lpt: str
    reward_shared_lpt: str
    explanation: str
    """Why what was expected, paid and realised differ."""
    difference_wei: str
    """Claim on chain minus claim in the books."""


class TicketView(Struct, frozen=True, kw_only=True):
    """A winning ticket on chain."""

    round: int
    gateway: str
    face_value_wei: str
    paid_wei: str
    win_prob: str
    tx: str


class RewardView(Struct, frozen=True, kw_only=True):
    """Whether the reward of the running round was called."""

    round: int
    active: bool
    called: bool
    passed_ppm: int
    """How much of the round has passed."""
    level: Level
    text: str


class OrchestratorRevenue(Struct, frozen=True, kw_only=True):
    """One orchestrator."""

    orchestrator: str
    address: str
    """Empty: not followed on chain."""
    block: int
    """Everything up to this block is in the log."""
    luck: LuckView
    """Over all time, or since it is followed on chain."""
    realised_wei: str
    pending_wei: str
    """Claim on chain after that block."""
    claim_wei: str
    """Claim in the books."""
    fees_wei: str
    """Realised minus accrued: below zero, work that has not paid off yet."""
    active: bool
    reward_cut_ppm: int
    fee_share_ppm: int
    stake_lpt: str
    own_stake_lpt: str
    rank: int
    reward: RewardView | None
    rounds: list[RoundView]
    """Newest first: the first of them."""
    tickets: list[TicketView]
    """Newest first."""


class WalletView(Struct, frozen=True, kw_only=True):
    """A hot wallet, as the books have it."""

    wallet: str
    eth_wei: str
    lpt: str
    open_orders: int


class RevenueAlert(Struct, frozen=True, kw_only=True):
    """Something the operator should look at."""

    level: Literal["bad", "warn", "info"]
    title: str
    text: str


class RevenueView(Struct, frozen=True, kw_only=True):
    """Everything, for the operator."""

    source: Literal["chain", "clock"]
    """What makes rounds."""
    round: int
    round_start_ms: int
    block: int
    """How far the chain is followed; 0 without one."""
    problem: str
    """Why following stands still; empty if it does not."""
    orchestrators: list[OrchestratorRevenue]
    wallets: list[WalletView]
    alerts: list[RevenueAlert]


class PublicRound(Struct, frozen=True, kw_only=True):
    """A round, for everybody."""

    round: int
    start_ms: int
    end_ms: int
    closed: bool
    luck: LuckView
    realised_wei: str
    reward: RewardState


class PublicOrchestrator(Struct, frozen=True, kw_only=True):
    orchestrator: str
    address: str
    luck: LuckView
    realised_wei: str
    rounds: list[PublicRound]


class PublicRevenue(Struct, frozen=True, kw_only=True):
    """What everybody may know: how lucky the pool is, round by round."""

    source: Literal["chain", "clock"]
    round: int
    round_start_ms: int
    block: int
    orchestrators: list[PublicOrchestrator]


def luck_of(standing: Standing) -> LuckView:
    """The luck of an orchestrator over all time."""
    return _luck(standing.expected_wei, standing.won_wei, standing.wins.tickets, standing.wins)


def round_view(standing: Standing, row: Round) -> RoundView:
    """A round as it is shown; how large tickets are is told by all of the orchestrator's."""
    closed = row.closed
    return RoundView(
        round=row.number,
        start_ms=row.start_ms,
        end_ms=row.end_ms,
        closed=closed is not None,
        luck=_luck(row.expected_wei, row.won_wei, row.wins.tickets, standing.wins),
        realised_wei=str(row.realised_wei),
        paid_wei=str(row.paid_wei),
        withdrawn_wei=str(row.withdrawn_wei),
        reward=row.reward,
        reward_lpt=str(row.reward_lpt),
        reward_own_lpt=str(row.reward_own_lpt),
        reward_shared_lpt=str(row.reward_shared_lpt),
        explanation=closed.explanation if closed else "",
        difference_wei=closed.difference_wei if closed else "0",
    )


def round_views(
    standing: Standing, before: int | None = None, limit: int = ROUNDS_SHOWN
) -> list[RoundView]:
    """The latest, newest first; with `before` those that come after that round in this list, none
    if it is not there."""
    rows = sorted(standing.rounds.values(), key=lambda r: (r.start_ms, r.number), reverse=True)
    listed = iter(rows)
    if before is not None:
        listed = behind(rows, lambda row: row.number == before)
    return [round_view(standing, row) for row in islice(listed, limit)]


def ticket_view(ticket: TicketRedeemed) -> TicketView:
    return TicketView(
        round=ticket.round,
        gateway=ticket.gateway,
        face_value_wei=ticket.face_value_wei,
        paid_wei=ticket.paid_wei,
        win_prob=ticket.win_prob,
        tx=ticket.tx,
    )


def public(view: RevenueView) -> PublicRevenue:
    """What everybody may see of it."""
    return PublicRevenue(
        source=view.source,
        round=view.round,
        round_start_ms=view.round_start_ms,
        block=view.block,
        orchestrators=[
            PublicOrchestrator(
                orchestrator=each.orchestrator,
                address=each.address,
                luck=each.luck,
                realised_wei=each.realised_wei,
                rounds=_public_rounds(each.rounds),
            )
            for each in view.orchestrators
        ],
    )


def _public_rounds(rounds: Sequence[RoundView]) -> list[PublicRound]:
    return [
        PublicRound(
            round=row.round,
            start_ms=row.start_ms,
            end_ms=row.end_ms,
            closed=row.closed,
            luck=row.luck,
            realised_wei=row.realised_wei,
            reward=row.reward,
        )
        for row in rounds
    ]


def alerts(view: RevenueView) -> list[RevenueAlert]:
    """What the operator should look at, worst first."""
    found = []
    if view.problem:
        title = "The chain is not followed."
        found.append(RevenueAlert(level="bad", title=title, text=view.problem))
    for each in view.orchestrators:
        found += _alerts_of(each)
    return sorted(found, key=lambda alert: ("bad", "warn", "info").index(alert.level))


def _alerts_of(each: OrchestratorRevenue) -> list[RevenueAlert]:
    found = []
    name, reward = each.orchestrator, each.reward
    if reward is not None and reward.level != "ok":
        title = f"Reward of {name} is not called."
        found.append(RevenueAlert(level=reward.level, title=title, text=reward.text))
    ended = [row for row in each.rounds if row.end_ms]
    if ended and ended[0].reward == "missed":
        text = "Its share of the inflation is lost for good. Check what calls reward."
        title = f"Reward of {name} was missed in round {ended[0].round}."
        found.append(RevenueAlert(level="bad", title=title, text=text))
    closed = [row for row in each.rounds if row.closed]
    if closed and closed[0].difference_wei != "0":
        title = f"Books and chain differ for {name}."
        found.append(RevenueAlert(level="bad", title=title, text=closed[0].explanation))
    return found


@lru_cache(maxsize=4_096)
def _luck(expected_wei: int, won_wei: int, wins: int, known: Wins) -> LuckView:
    """Kept, since of all rounds that are shown only the running one is another each time."""
    found = luck(expected_wei, won_wei, wins, known)
    return LuckView(
        expected_wei=str(found.expected_wei),
        won_wei=str(found.won_wei),
        wins=found.wins,
        expected_wins=found.expected_wins,
        ratio_ppm=found.ratio_ppm,
        spread_ppm=found.spread_ppm,
        sentence=found.sentence,
    )
