"""The pool: facts in, instructions and events out. One door, `Pool.handle`.

Theory of operation. A job is one segment that an orchestrator wants by a deadline T. Its states
(`core.jobs.JOB_MOVES` holds the moves):

    waiting      no worker is free; it stands in the line           → running, failing
    running      attempts work on it, or a result is being opened   → waiting, held, delivering,
                                                                      failing
    held         a good result, but since the pool's restart its
                 orchestrator was not seen: who would take it?      → delivering, over
    delivering   a good result was sent upstream                    → over, failing
    failing      an error text was sent upstream                    → over
    over         answered, or past T; remembered for late facts

An attempt runs, may get lost with its connection (its result stays welcome), is checked when its
result arrives, is good or over. The first good result wins and the others are not needed. At T
minus a margin an error goes back instead, because an orchestrator evicts those who stay silent. A
worker is credited only after its result was opened, was good, and was taken before T.

It must not do I/O, read a clock, or draw lots. Parts: `lifecycle` (jobs), `dispatch` (who gets
what), `roster` (workers), `orchestrators` (slot groups), `books` (money), `views` and `explain`.
"""

from collections.abc import Mapping

from openpool.core import explain, views
from openpool.core.books import Books
from openpool.core.facts import (
    AttemptErred,
    Delivered,
    Fact,
    GroupDown,
    GroupUp,
    JobRestored,
    OrchestratorLost,
    OrchestratorSeen,
    PriceKnown,
    ResultChecked,
    ResultReceived,
    SegmentReceived,
    SessionEnded,
    SourceFaulted,
    SourceLost,
    Tick,
    WorkerDown,
    WorkerKnown,
    WorkerRemoved,
    WorkerUp,
)
from openpool.core.lifecycle import Lifecycle
from openpool.core.money.fees import Fees
from openpool.core.money.ledger import CarryKey
from openpool.core.orchestrators import Orchestrators
from openpool.core.roster import Roster
from openpool.core.settings import PoolSettings
from openpool.core.step import Outbox, Step, Timers

__all__ = ["Pool", "PoolSettings", "Step"]


class Pool:
    """Decides. `orchestrators` are names with the weights by which capacity is shared among them;
    `carries` the fractions of a wei left over by all fees so far; `core.desk` shares `fees`."""

    def __init__(
        self,
        settings: PoolSettings,
        orchestrators: Mapping[str, int],
        epoch: int,
        carries: Mapping[CarryKey, int] | None = None,
    ) -> None:
        self.settings = settings
        self.out = Outbox(epoch)
        self.timers = Timers()
        self.roster = Roster(settings, self.out, self.timers)
        self.orchestrators = Orchestrators(
            orchestrators, settings, self.out, self.timers, self.roster
        )
        self.fees = Fees(carries, settings.scheme)
        self.books = Books(settings, self.out, self.fees)
        self.lifecycle = Lifecycle(
            settings, self.out, self.timers, self.roster, self.orchestrators, self.books
        )
        self.dispatch = self.lifecycle.dispatch

    def handle(self, fact: Fact, now_ms: int) -> Step:
        """What follows from a fact. `now_ms` is wall-clock time; if it steps back, it stands still.

        Anything may come twice, late, or never: what was handled once changes nothing again.
        """
        self.out.now_ms = now_ms = max(now_ms, self.out.now_ms)
        self.timers.run(now_ms)
        self._take(fact)
        self.dispatch.serve_waiting()
        self.orchestrators.follow_capacity()
        return self.out.take()

    def wake_at(self) -> int | None:
        """When a `Tick` is wanted at the latest; None if nothing is going on."""
        return self.timers.next_ms()

    @property
    def is_idle(self) -> bool:
        """Whether every job has had its answer."""
        return not any(one.jobs for one in self.orchestrators.all.values())

    def snapshot(self, now_ms: int) -> views.PoolView:
        """The state of everything, for people."""
        return views.snapshot(self, now_ms)

    def explain(self, worker: str, now_ms: int) -> list[explain.Reason]:
        """Why a worker got no (or little) work, the weightiest reason first."""
        return explain.explain(self, worker, now_ms)

    def check(self) -> None:
        """Derive what can be derived and compare; raises AssertionError. For tests."""
        self.roster.check()
        self.dispatch.check()
        self.books.check()
        self.lifecycle.check()

    def _take(self, fact: Fact) -> None:
        jobs = self.lifecycle
        match fact:
            case SegmentReceived():
                self._on_segment_received(fact)
            case ResultReceived():
                jobs.on_result_received(fact)
            case ResultChecked():
                jobs.on_result_checked(fact)
            case Delivered():
                jobs.on_delivered(fact)
            case Tick():
                pass
            case AttemptErred():
                jobs.on_attempt_erred(fact)
            case SessionEnded():
                self.roster.end_session((fact.orchestrator, fact.session))
            case WorkerUp():
                self.roster.connect(fact)
            case WorkerDown():
                self._on_worker_down(fact)
            case WorkerKnown():
                self.roster.know(fact.worker, fact.address, fact.commission_ppm)
            case WorkerRemoved():
                self._on_worker_removed(fact)
            case OrchestratorSeen():
                self._on_orchestrator_seen(fact)
            case OrchestratorLost():
                self.orchestrators.lost(fact)
            case GroupUp():
                self.orchestrators.group_up(fact)
            case GroupDown():
                self.orchestrators.group_down(fact)
            case SourceLost():
                jobs.on_source_lost(fact)
            case SourceFaulted():
                jobs.on_source_faulted(fact)
            case PriceKnown():
                self.books.learn(fact)
            case JobRestored():
                jobs.on_job_restored(fact)

    def _on_segment_received(self, fact: SegmentReceived) -> None:
        """A task shows its orchestrator's incarnation, and may be the first to show it."""
        orchestrator = self.orchestrators.get(fact.orchestrator)
        if fact.incarnation in orchestrator.retired:
            return
        if orchestrator.incarnation != fact.incarnation:
            self._on_orchestrator_seen(
                OrchestratorSeen(orchestrator=fact.orchestrator, incarnation=fact.incarnation)
            )
        self.lifecycle.on_segment_received(fact)

    def _on_worker_down(self, fact: WorkerDown) -> None:
        if self.roster.disconnect(fact) is not None:
            self.lifecycle.lose(fact.connection)

    def _on_worker_removed(self, fact: WorkerRemoved) -> None:
        """A banned worker's results are not wanted; what was already delivered stays paid."""
        worker = self.roster.workers.get(fact.worker)
        if worker is None:
            return
        worker.banned = fact.reason or "no reason was given"
        for connection in list(worker.connections):
            self._on_worker_down(WorkerDown(connection=connection, reason=worker.banned))
        self.lifecycle.disown(worker.name)

    def _on_orchestrator_seen(self, fact: OrchestratorSeen) -> None:
        previous = self.orchestrators.get(fact.orchestrator).incarnation
        if not self.orchestrators.seen(fact.orchestrator, fact.incarnation):
            return
        self.lifecycle.know_incarnation(fact.orchestrator, fact.incarnation)
        if previous:
            self.roster.end_sessions(fact.orchestrator)
