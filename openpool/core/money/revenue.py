"""What the log says about revenue: rounds, orchestrators, wallets. A fold over events, no more.

Apply the events of `TYPES` in the order of the log. A round of work is what lies between two
`round-started` in the log. Pure: `treasury.books` feeds this, `treasury.follow` asks it where to
go on, `treasury.closing` what a round came to.
"""

from collections import deque
from typing import Any, Literal

from msgspec import Struct, field

from openpool.core.events import Event, FeeCredited
from openpool.core.money import events as money
from openpool.core.money.accounts import CUSTOMER
from openpool.core.money.ledger import wei
from openpool.core.money.luck import Wins

ROUNDS_MAX = 1_000
"""Rounds of an orchestrator that are remembered one by one."""
TICKETS_MAX = 100
"""Likewise tickets."""

MONEY_TYPES = (
    "round-started",
    "orchestrator-observed",
    "reward-called",
    "reward-missed",
    "reward-shared",
    "ticket-redeemed",
    "claim-opened",
    "revenue-realised",
    "fees-withdrawn",
    "revenue-reconciled",
    "order-planned",
    "order-confirmed",
    "order-voided",
    "wallet-reconciled",
)
TYPES = (*MONEY_TYPES, "fee-credited")


RewardState = Literal["called", "missed", ""]


class Mark(Struct, kw_only=True):
    """Where a round began, and ended."""

    number: int
    source: Literal["chain", "clock"]
    block: int
    start_ms: int
    end_ms: int = 0
    """0 while it runs."""


class Round(Struct, kw_only=True):
    """One round of one orchestrator. Changes until it is closed."""

    number: int
    start_ms: int
    end_ms: int = 0
    """0 while it runs."""
    expected_wei: int = 0
    realised_wei: int = 0
    paid_wei: int = 0
    recorded_wei: int = 0
    """The part of the last two that the operator recorded by hand."""
    withdrawn_wei: int = 0
    wins: Wins = Wins()
    work_wei: dict[str, int] = field(default_factory=dict)
    """Credited for verified work, by payout address; forgotten when the round is closed."""
    reward: RewardState = ""
    """`called`, `missed`, or empty: not yet, or not active."""
    reward_lpt: int = 0
    reward_own_lpt: int = 0
    reward_shared_lpt: int = 0
    closed: money.RevenueReconciled | None = None

    @property
    def won_wei(self) -> int:
        """Face value of tickets, and what came without tickets."""
        return self.wins.face_wei + self.recorded_wei


class Standing(Struct, kw_only=True):
    """One orchestrator."""

    orchestrator: str
    address: str = ""
    """Empty: not followed on chain."""
    block: int = 0
    """Everything up to this block is in the log."""
    pending_wei: int = 0
    """Claim on chain after that block."""
    observed: money.OrchestratorObserved | None = None
    rounds: dict[int, Round] = field(default_factory=dict)
    tickets: deque[money.TicketRedeemed] = field(default_factory=lambda: deque(maxlen=TICKETS_MAX))
    wins: Wins = Wins()
    recorded_wei: int = 0
    realised_wei: int = 0
    closed_expected_wei: int = 0
    """Of the rounds that are closed. This and the sums above are over all time, or since the
    orchestrator is followed on chain."""

    @property
    def expected_wei(self) -> int:
        open_wei = sum(r.expected_wei for r in self.rounds.values() if r.closed is None)
        return self.closed_expected_wei + open_wei

    @property
    def won_wei(self) -> int:
        return self.wins.face_wei + self.recorded_wei

    def unclosed(self, running: int) -> list[Round]:
        """Rounds that are over and not closed, in order."""
        return [r for n, r in self.rounds.items() if n != running and r.closed is None]


class WalletOrders(Struct, kw_only=True):
    """What a wallet was told to do."""

    open: set[str] = field(default_factory=set)
    ended: int = 0
    """How many orders have come to their end."""
    last_block: int = 0
    """The latest block of an order that was confirmed."""
    reconciled: dict[str, int] = field(default_factory=dict)
    """The round in which it was last compared and found to differ, by asset."""


class Revenue:
    """The fold."""

    def __init__(self) -> None:
        self.round: Mark | None = None
        self.marks: dict[int, Mark] = {}
        """The latest rounds by number."""
        self.chain_round = 0
        """The latest that the chain began; the clock may have begun others since."""
        self.standings: dict[str, Standing] = {}
        self.wallets: dict[str, WalletOrders] = {}

    def standing(self, orchestrator: str) -> Standing:
        """That of a new orchestrator is empty."""
        return self.standings.get(orchestrator) or Standing(orchestrator=orchestrator)

    def apply(self, event: Event) -> None:
        """Take an event into account."""
        match event.data:
            case FeeCredited() as fee:
                self._credit(fee)
            case money.RoundStarted() as started:
                self._start(started, event.time_ms)
            case money.OrderPlanned() | money.OrderConfirmed() | money.OrderVoided():
                self._order(event.data)
            case money.WalletReconciled(wallet=wallet, asset=asset) if self.round:
                orders = self.wallets.setdefault(wallet, WalletOrders())
                orders.reconciled[asset] = self.round.number
            case money.OrchestratorObserved(orchestrator=name) as seen:
                self._of(name).observed = seen
            case money.ClaimOpened() as opened:
                self._open(opened)
            case _:
                self._chain(event.data)

    def _of(self, orchestrator: str) -> Standing:
        return self.standings.setdefault(orchestrator, Standing(orchestrator=orchestrator))

    def _round(self, orchestrator: str, number: int) -> Round:
        rounds = self._of(orchestrator).rounds
        if number not in rounds:
            mark = self.marks.get(number)
            rounds[number] = Round(
                number=number,
                start_ms=mark.start_ms if mark else 0,
                end_ms=mark.end_ms if mark else 0,
            )
            _forget_oldest(rounds)
        return rounds[number]

    def _start(self, started: money.RoundStarted, time_ms: int) -> None:
        if self.round is not None:
            self.round.end_ms = time_ms
        for standing in self.standings.values():
            for row in standing.rounds.values():
                row.end_ms = row.end_ms or time_ms
        self.round = self.marks[started.round] = Mark(
            number=started.round, source=started.source, block=started.block, start_ms=time_ms
        )
        _forget_oldest(self.marks)
        if started.source == "chain":
            self.chain_round = started.round
        for name in self.standings:
            self._round(name, started.round)

    def _credit(self, fee: FeeCredited) -> None:
        """Work before the first round belongs to none."""
        if self.round is None or fee.orchestrator.startswith(CUSTOMER):
            return
        row = self._round(fee.orchestrator, self.round.number)
        row.expected_wei += wei(fee.fee_wei)
        row.work_wei[fee.address] = row.work_wei.get(fee.address, 0) + wei(fee.worker_wei)

    def _open(self, opened: money.ClaimOpened) -> None:
        """What is compared with the chain counts from here on."""
        standing = self._of(opened.orchestrator)
        standing.address, standing.block = opened.address, opened.block
        standing.pending_wei = wei(opened.pending_wei)
        standing.wins, standing.recorded_wei = Wins(), 0
        standing.realised_wei = standing.closed_expected_wei = 0
        self._round(opened.orchestrator, opened.round)

    def _chain(self, data: object) -> None:
        match data:
            case money.TicketRedeemed() as ticket:
                self._ticket(ticket)
            case money.RevenueRealised() as realised:
                self._realise(realised)
            case money.FeesWithdrawn(orchestrator=name, amount_wei=amount) if self.round:
                self._round(name, self.round.number).withdrawn_wei += wei(amount)
            case money.RewardCalled() as reward:
                row = self._round(reward.orchestrator, reward.round)
                row.reward = "called"
                row.reward_lpt, row.reward_own_lpt = wei(reward.amount_lpt), wei(reward.own_lpt)
            case money.RewardMissed(orchestrator=name, round=number):
                self._round(name, number).reward = "missed"
            case money.RewardShared() as shared:
                row = self._round(shared.orchestrator, shared.round)
                row.reward_shared_lpt += wei(shared.amount_lpt)
            case money.RevenueReconciled() as closed:
                self._close(closed)

    def _ticket(self, ticket: money.TicketRedeemed) -> None:
        standing, row = (
            self._of(ticket.orchestrator),
            self._round(ticket.orchestrator, ticket.round),
        )
        win = Wins().add(wei(ticket.face_value_wei), wei(ticket.win_prob))
        standing.wins += win
        standing.tickets.append(ticket)
        row.wins += win

    def _realise(self, realised: money.RevenueRealised) -> None:
        standing = self._of(realised.orchestrator)
        row = self._round(realised.orchestrator, realised.round)
        amount_wei = wei(realised.amount_wei)
        row.realised_wei += amount_wei
        row.paid_wei += wei(realised.paid_wei)
        standing.realised_wei += amount_wei
        if not realised.to_block:
            row.recorded_wei += amount_wei
            standing.recorded_wei += amount_wei
        else:
            standing.block = realised.to_block
            standing.pending_wei = wei(realised.pending_wei)

    def _close(self, closed: money.RevenueReconciled) -> None:
        standing = self._of(closed.orchestrator)
        row = self._round(closed.orchestrator, closed.round)
        row.closed, row.work_wei = closed, {}
        row.expected_wei = wei(closed.expected_wei)
        standing.closed_expected_wei += row.expected_wei

    def _order(self, data: money.OrderPlanned | money.OrderConfirmed | money.OrderVoided) -> None:
        orders = self.wallets.setdefault(data.wallet, WalletOrders())
        if isinstance(data, money.OrderPlanned):
            orders.open.add(data.order)
            return
        orders.open.discard(data.order)
        orders.ended += 1
        if isinstance(data, money.OrderConfirmed):
            orders.last_block = max(orders.last_block, data.block)


def _forget_oldest(rounds: dict[int, Any]) -> None:
    while len(rounds) > ROUNDS_MAX:
        del rounds[next(iter(rounds))]


def realised(before_wei: int, after_wei: int, withdrawn_wei: int) -> int:
    """By how much a claim grew between two blocks, from what was pending before and after and what
    was withdrawn in between.

    A claim by the orchestrator changes what `pendingFees` is made of, not how much it is; nothing
    but a withdrawal makes it less. Never below zero: what is missing then shows as a difference
    when the round is reconciled.
    """
    return max(after_wei - before_wei + withdrawn_wei, 0)


def is_round_due(last_ms: int, now_ms: int, round_ms: int) -> bool:
    """Whether a round by the clock has ended. Rounds begin at multiples of their length since
    1970, so those of a day begin at midnight UTC; downtime makes one long round, not many."""
    return now_ms // round_ms > last_ms // round_ms


def has_changed(before: money.OrchestratorObserved | None, now: money.OrchestratorObserved) -> bool:
    """Whether an orchestrator stands differently. What grows by itself is no change, and the stake
    that counts stays the same through a round."""
    return before is None or _steady(before) != _steady(now)


def _steady(seen: money.OrchestratorObserved) -> tuple[object, ...]:
    return (
        seen.address,
        seen.round,
        seen.active,
        seen.reward_cut_ppm,
        seen.fee_share_ppm,
        seen.last_reward_round,
    )
