"""The rounds of the log: which work and which revenue belong to which round, and what is open.

A fold over events in the order of the log, and over nothing else. A round ends where the log says
that another one started; what comes after that, however late the work was, belongs to the next. So
the same log always gives the same rounds. Must not divide anything: that is
`core.money.settlement`.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from openpool.core import events as e
from openpool.core.events import Event
from openpool.core.money import events as money
from openpool.core.money.accounts import CUSTOMER, HOLDBACK
from openpool.core.money.events import Scheme
from openpool.core.money.rules import Lot
from openpool.core.money.schemes import Work, Works, scheme_of

BUSY_TYPES = ("fee-credited", "attempt-failed", "result-refused", "call-attempt-failed")
"""What there is much of, and what nothing needs to be known of once its round is long settled."""
RARE_TYPES = (
    "worker-enrolled",
    "worker-approved",
    "worker-banned",
    "round-started",
    "revenue-realised",
    "round-settled",
    "adjustment-made",
)
TYPES = (*BUSY_TYPES, *RARE_TYPES)
"""All that `Rounds.apply` looks at."""


class Closing(Struct, kw_only=True):
    """A closed round of one orchestrator: all that its settlement follows from."""

    orchestrator: str
    round: int
    start_ms: int
    end_ms: int
    scheme: Scheme
    work: Works
    window: tuple[Works, ...]
    """Work of the rounds before, newest first: of those that the log knows, also without work."""
    realised_wei: int
    failed: dict[str, int]
    """Attempts that failed by the fault of an address, for whichever orchestrator."""
    members: dict[str, bool]
    """The addresses of the pool, and whether they are banned."""
    carried_wei: int = 0
    """Realised before, not yet shared."""
    held: dict[str, tuple[Lot, ...]] = {}


class _Books:
    """What one orchestrator has open."""

    def __init__(self, window_rounds: int) -> None:
        self.work: dict[str, Work] = {}
        self.realised_wei = 0
        self.carried_wei = 0
        self.past: deque[Works] = deque(maxlen=window_rounds)
        """Newest first."""
        self.held: dict[str, deque[Lot]] = {}
        self.closed: set[int] = set()

    def scheme(self, default: Scheme) -> Scheme:
        """What the open round is settled under: its own work decides; without any, work of the
        window that is not paid off yet; then the settings."""
        own = scheme_of(self.work)
        if own in (None, "per-job") and any(scheme_of(each) == "window" for each in self.past):
            return "window"
        return own or default

    def move(self, data: money.AdjustmentMade) -> None:
        """Follow what is held back. The oldest goes first."""
        amount_wei = int(data.amount_wei)
        if data.debit.startswith(HOLDBACK):
            self._release(data.debit.removeprefix(HOLDBACK), amount_wei)
        if data.credit.startswith(HOLDBACK):
            lots = self.held.setdefault(data.credit.removeprefix(HOLDBACK), deque())
            lots.append(Lot(round=data.round, amount_wei=amount_wei))

    def _release(self, address: str, amount_wei: int) -> None:
        lots = self.held.get(address, deque())
        while amount_wei and lots:
            oldest = lots.popleft()
            taken = min(amount_wei, oldest.amount_wei)
            amount_wei -= taken
            if rest := oldest.amount_wei - taken:
                lots.appendleft(Lot(round=oldest.round, amount_wei=rest))
        if not lots:
            self.held.pop(address, None)


class Rounds:
    """All rounds of all orchestrators. `scheme` counts only for rounds without any work."""

    def __init__(self, *, scheme: Scheme, window_rounds: int) -> None:
        self.round: int | None = None
        """The open one; None before the first."""
        self.start_ms = 0
        self._default = scheme
        self._window_rounds = window_rounds
        self._books: dict[str, _Books] = {}
        self._waiting: deque[list[Closing]] = deque()
        self._workers: dict[str, tuple[str, str]] = {}
        """Worker → address and group."""
        self._banned: set[str] = set()
        self._failed: dict[str, int] = {}
        self._handlers: dict[type, Callable[[Event, Any], None]] = {
            e.FeeCredited: self._on_credited,
            e.AttemptFailed: self._on_failed,
            e.CallAttemptFailed: self._on_failed,
            e.ResultRefused: self._on_refused,
            e.WorkerEnrolled: self._on_enrolled,
            e.WorkerApproved: self._on_approved,
            e.WorkerBanned: self._on_banned,
            money.RoundStarted: self._on_started,
            money.RevenueRealised: self._on_realised,
            money.RoundSettled: self._on_settled,
            money.AdjustmentMade: self._on_adjusted,
        }

    def apply(self, event: Event) -> None:
        """Take the next event of the log. Each event comes once."""
        handler = self._handlers.get(type(event.data))
        if handler is not None:
            handler(event, event.data)

    def due(self) -> list[Closing]:
        """The oldest closed round that is not settled, by orchestrator; empty if there is none.
        Applying what `core.money.settlement` makes of it takes it off."""
        if not self._waiting:
            return []
        closings = sorted(self._waiting[0], key=lambda closing: closing.orchestrator)
        for closing in closings:
            books = self._books[closing.orchestrator]
            closing.carried_wei = books.carried_wei
            closing.held = {address: tuple(lots) for address, lots in books.held.items()}
        return closings

    def credit(
        self,
        payer: str,
        worker: str,
        address: str,
        *,
        fee_wei: int,
        worker_wei: int,
        commission_ppm: int,
        scheme: Scheme,
    ) -> None:
        """Count a fee to the open round. A customer's is not shared and has no round."""
        if payer.startswith(CUSTOMER):
            return
        books = self._of(payer)
        work = books.work.get(address)
        if work is None:
            work = books.work[address] = Work()
        work.add(fee_wei, worker_wei, commission_ppm, scheme)
        group = self._workers[worker][1] if worker in self._workers else ""
        work.groups[group] = work.groups.get(group, 0) + fee_wei

    def start(self, number: int, time_ms: int) -> None:
        """Another round begins, which ends the open one. The first ends none: work before it that
        accrued belongs to it, and what was paid by then belongs to no round."""
        if number == self.round:
            return
        if self.round is not None:
            self._close(self.round, time_ms)
        else:
            self._forget_paid()
        self.round, self.start_ms = number, time_ms

    def _forget_paid(self) -> None:
        for books in self._books.values():
            books.work = {name: work for name, work in books.work.items() if work.worth_wei}
            for work in books.work.values():
                work.paid_worth_wei = work.paid_wei = work.paid_commission_wei = 0

    def _close(self, number: int, end_ms: int) -> None:
        """A number that was settled already is not settled again: its work goes to the next."""
        members = self._members()
        closings = []
        for name, books in self._books.items():
            if number in books.closed:
                continue
            books.closed.add(number)
            closings.append(self._closing(name, books, number, end_ms, members))
            books.past.appendleft(books.work)
            books.work, books.realised_wei = {}, 0
        self._failed = {}
        if closings:
            self._waiting.append(closings)

    def _closing(
        self, name: str, books: _Books, number: int, end_ms: int, members: dict[str, bool]
    ) -> Closing:
        return Closing(
            orchestrator=name,
            round=number,
            start_ms=self.start_ms,
            end_ms=end_ms,
            scheme=books.scheme(self._default),
            work=books.work,
            window=tuple(books.past),
            realised_wei=books.realised_wei,
            failed=self._failed,
            members=members,
        )

    def _members(self) -> dict[str, bool]:
        banned: dict[str, bool] = {}
        for worker, (address, _) in self._workers.items():
            banned[address] = banned.get(address, True) and worker in self._banned
        return banned

    def _of(self, orchestrator: str) -> _Books:
        books = self._books.get(orchestrator)
        if books is None:
            books = self._books[orchestrator] = _Books(self._window_rounds)
        return books

    # --- events --------------------------------------------------------------------------------

    def _on_credited(self, _: Event, data: e.FeeCredited) -> None:
        self.credit(
            data.orchestrator,
            data.worker,
            data.address,
            fee_wei=int(data.fee_wei),
            worker_wei=int(data.worker_wei),
            commission_ppm=data.commission_ppm,
            scheme=data.scheme,
        )

    def _on_failed(self, _: Event, data: e.AttemptFailed | e.CallAttemptFailed) -> None:
        if data.blamed:
            self._blame(data.worker)

    def _on_refused(self, _: Event, data: e.ResultRefused) -> None:
        self._blame(data.worker)

    def _blame(self, worker: str) -> None:
        if worker in self._workers:
            address = self._workers[worker][0]
            self._failed[address] = self._failed.get(address, 0) + 1

    def _on_enrolled(self, _: Event, data: e.WorkerEnrolled) -> None:
        self._workers[data.worker] = data.address, data.group
        self._banned.discard(data.worker)

    def _on_approved(self, _: Event, data: e.WorkerApproved) -> None:
        self._banned.discard(data.worker)

    def _on_banned(self, _: Event, data: e.WorkerBanned) -> None:
        self._banned.add(data.worker)

    def _on_started(self, event: Event, data: money.RoundStarted) -> None:
        self.start(data.round, event.time_ms)

    def _on_realised(self, _: Event, data: money.RevenueRealised) -> None:
        self._of(data.orchestrator).realised_wei += int(data.amount_wei)

    def _on_settled(self, _: Event, data: money.RoundSettled) -> None:
        """Also of rounds whose work this fold has not seen, when it began in the middle."""
        books = self._of(data.orchestrator)
        books.carried_wei = int(data.carried_wei)
        books.closed.add(data.round)
        if self._waiting:
            done = (data.orchestrator, data.round)
            self._waiting[0] = [c for c in self._waiting[0] if (c.orchestrator, c.round) != done]
            if not self._waiting[0]:
                self._waiting.popleft()

    def _on_adjusted(self, _: Event, data: money.AdjustmentMade) -> None:
        self._of(data.orchestrator).move(data)
