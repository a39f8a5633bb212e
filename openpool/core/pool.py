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

It must not do I/O, read a clock, or draw lots. Parts: `roster` (workers), `dispatch` (who gets
what), `orchestrators` (slot groups), `books` (money), `views` and `explain` (for people).
"""

from collections.abc import Mapping
from functools import partial

from openpool.core import explain, views
from openpool.core.books import Books, CarryKey
from openpool.core.dispatch import Dispatch
from openpool.core.estimate import work_units
from openpool.core.events import (
    AttemptFailed,
    JobDelivered,
    JobFailed,
    JobReceived,
    JobVerified,
    ResultRefused,
)
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
    SourceLost,
    Tick,
    WorkerDown,
    WorkerKnown,
    WorkerRemoved,
    WorkerUp,
)
from openpool.core.instructions import (
    CancelAttempt,
    CheckResult,
    Deliver,
    DeliverError,
    ForgetJob,
    Outcome,
    Settle,
)
from openpool.core.jobs import (
    DEFAULT_INPUT_ERROR,
    INPUT_ERRORS,
    OPEN,
    Attempt,
    AttemptState,
    Job,
    JobState,
    deadline_ms,
    tidy_reason,
)
from openpool.core.model import Segment, Verdict
from openpool.core.orchestrators import Orchestrators
from openpool.core.roster import REFUSED_WEIGHT, Roster, Worker
from openpool.core.settings import PoolSettings
from openpool.core.step import Outbox, Step, Timers
from openpool.core.units import PPM

__all__ = ["Pool", "PoolSettings", "Step"]

RESTORED_WAIT_MS = 500
"""A job from before a restart is given to nobody else this long, while workers reconnect."""
LOST = "its connection was lost"
NOT_NEEDED = "not needed: another worker was faster"
TOO_LATE = "too late: the orchestrator had its answer already"


class Pool:
    """Decides. `orchestrators` are names with the weights by which capacity is shared among them;
    `carries` the fractions of a wei left over by all fees so far."""

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
        self.dispatch = Dispatch(settings, self.out, self.roster, self._arm)
        self.books = Books(settings, self.out, carries or {})
        self.recent = explain.Recent()
        self.jobs: dict[str, Job] = {}

    def handle(self, fact: Fact, now_ms: int) -> Step:
        """What follows from a fact. `now_ms` is wall-clock time; if it steps back, it stands still."""
        self.out.now_ms = now_ms = max(now_ms, self.out.now_ms)
        self.timers.run(now_ms)
        self._take(fact)
        self.dispatch.serve_waiting()
        self.orchestrators.follow_capacity()
        return self.out.take()

    def wake_at(self) -> int | None:
        """When a `Tick` is wanted at the latest; None if nothing is going on."""
        return self.timers.next_ms()

    def snapshot(self, now_ms: int) -> views.PoolView:
        """The state of everything, for people."""
        return views.snapshot(self, now_ms)

    def explain(self, worker: str, now_ms: int) -> list[explain.Reason]:
        """Why a worker got no (or little) work, the weightiest reason first."""
        return explain.explain(self, worker, now_ms)

    def _take(self, fact: Fact) -> None:
        match fact:
            case SegmentReceived():
                self._on_segment_received(fact)
            case ResultReceived():
                self._on_result_received(fact)
            case ResultChecked():
                self._on_result_checked(fact)
            case Delivered():
                self._on_delivered(fact)
            case Tick():
                pass
            case AttemptErred():
                self._on_attempt_erred(fact)
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
                self._on_source_lost(fact)
            case PriceKnown():
                self.books.learn(fact)
            case JobRestored():
                self._on_job_restored(fact)

    # --- a job begins -----------------------------------------------------------------------------
    def _on_segment_received(self, fact: SegmentReceived) -> None:
        job_id = f"{fact.orchestrator}.{fact.incarnation}.{fact.task_id}"
        orchestrator = self.orchestrators.get(fact.orchestrator)
        if job_id in self.jobs or fact.incarnation in orchestrator.retired:
            return
        if orchestrator.incarnation != fact.incarnation:
            self._on_orchestrator_seen(
                OrchestratorSeen(orchestrator=fact.orchestrator, incarnation=fact.incarnation)
            )
        now_ms = self.out.now_ms
        job = self._new_job(job_id, fact, now_ms, deadline_ms(now_ms, fact.segment.duration_ms))
        self.out.note(f"{job_id}/received", _received(job))
        orchestrator.received += 1
        self.dispatch.earn_hedge()
        refusal = self.dispatch.place(job, "chosen")
        self.recent.add(job)
        if refusal:
            self._fail(job, refusal)

    def _new_job(self, job_id: str, fact: SegmentReceived, received_ms: int, end_ms: int) -> Job:
        settings, duration_ms = self.settings, fact.segment.duration_ms
        time_ms = end_ms - received_ms
        job = Job(
            id=job_id,
            orchestrator=fact.orchestrator,
            incarnation=fact.incarnation,
            group=fact.group,
            task_id=fact.task_id,
            session=self.roster.session((fact.orchestrator, fact.session)),
            manifest=fact.manifest,
            segment=fact.segment,
            source_url=fact.source_url,
            units=work_units(fact.segment),
            received_ms=received_ms,
            deadline_ms=end_ms,
            hard_stop_ms=end_ms - settings.answer_margin_ms,
            soft_ms=max(1, min(time_ms // 2, duration_ms)),
            wait_until_ms=received_ms + time_ms * settings.queue_share_ppm // PPM,
        )
        self.jobs[job_id] = job
        self.orchestrators.get(job.orchestrator).jobs[job_id] = None
        return job

    def _on_job_restored(self, fact: JobRestored) -> None:
        """A job from before a restart: its workers may still bring their results."""
        was = fact.received
        if was.job in self.jobs or self.out.now_ms >= was.deadline_ms:
            return
        received_ms = was.deadline_ms - (deadline_ms(0, was.duration_ms))
        job = self._new_job(was.job, _segment_received(was), received_ms, was.deadline_ms)
        job.wait_until_ms = job.hard_stop_ms
        for number, worker in fact.attempts:
            attempt = Attempt(
                id=number,
                job=job,
                worker=worker,
                connection=None,
                session=job.session.key,
                assigned_ms=received_ms,
                state=AttemptState.LOST,
            )
            job.attempts.append(attempt)
            self.dispatch.attempts[number] = attempt
        current = self.orchestrators.get(job.orchestrator).incarnation
        if current and current != job.incarnation:
            self._drop(job, "the orchestrator was restarted")
        elif job.attempts:
            job.move(JobState.RUNNING)
            self.dispatch.need_source(job)
            job.hedge_at_ms = max(self.out.now_ms + RESTORED_WAIT_MS, received_ms + job.soft_ms)
            self._arm(job)
        else:
            self.dispatch.line_up(job)

    # --- time passes ------------------------------------------------------------------------------
    def _arm(self, job: Job) -> None:
        """Set the job's one timer for what comes next."""
        self.timers.cancel(job.timer)
        job.timer = self.timers.at(
            max(self._next_ms(job), self.out.now_ms + 1), partial(self._on_time, job)
        )

    def _next_ms(self, job: Job) -> int:
        match job.state:
            case JobState.WAITING:
                return min(job.wait_until_ms, job.hard_stop_ms)
            case JobState.RUNNING:
                self._plan_hedge(job)
                return min(job.hedge_at_ms, job.hard_stop_ms)
            case JobState.HELD:
                return job.hard_stop_ms
            case JobState.OVER:
                return job.deadline_ms + self.settings.linger_ms
        return job.deadline_ms + 1

    def _plan_hedge(self, job: Job) -> None:
        """When the running attempts will look slow: not before a quarter of the soft time."""
        if job.hedge_at_ms > self.out.now_ms or not job.attempts:
            return
        last = job.attempts[-1]
        patience_ms = max(job.soft_ms // 4, 1)
        early_ms = last.assigned_ms + max(patience_ms, self._p95_ms(last))
        soft_ms = job.received_ms + job.soft_ms
        job.hedge_at_ms = min(early_ms, soft_ms) if last.assigned_ms < soft_ms else early_ms
        if job.hedge_at_ms <= self.out.now_ms:
            job.hedge_at_ms = self.out.now_ms + max(patience_ms, job.soft_ms // 2)

    def _p95_ms(self, attempt: Attempt) -> int:
        connection = attempt.connection
        if connection is None or not connection.estimate.samples:
            return attempt.job.soft_ms
        return connection.estimate.p95_ms(attempt.job.units, attempt.load)

    def _on_time(self, job: Job) -> None:
        now_ms = self.out.now_ms
        match job.state:
            case JobState.OVER:
                self._purge(job)
                return
            case JobState.HELD | JobState.DELIVERING | JobState.FAILING:
                self._unanswered(job)
            case _ if now_ms >= job.hard_stop_ms:
                self._fail(job, "the pool could not transcode this segment in time", late=True)
            case JobState.WAITING:
                self._waited_enough(job)
            case _:
                self._on_slow(job)

    def _on_slow(self, job: Job) -> None:
        """The attempts take long: try a second worker, or, if none works on it, simply another."""
        if len(job.attempts) < self.settings.attempts_max:
            if not job.live():
                self._try_again(job, "moved")
                return
            soft = self.out.now_ms >= job.received_ms + job.soft_ms
            wanted = self.settings.hedge and not _checking(job)
            if wanted and (soft or self.dispatch.may_hedge_early()) and self.dispatch.hedge(job):
                job.hedged = True
                return
        self._arm(job)

    def _waited_enough(self, job: Job) -> None:
        self.dispatch.stop_waiting(job)
        if job.running:
            job.move(JobState.RUNNING)
            self._arm(job)
        else:
            self._fail(job, "no worker came free in time; try again shortly")

    # --- results ----------------------------------------------------------------------------------
    def _on_result_received(self, fact: ResultReceived) -> None:
        attempt = self._answer(fact.attempt, fact.worker)
        if attempt is None or attempt.state not in (AttemptState.RUNNING, AttemptState.LOST):
            return
        job, connection = attempt.job, attempt.connection
        if connection is not None and connection.usable and attempt.holding:
            self.roster.move_home(job.session, connection)
        self.dispatch.let_go(attempt)
        attempt.state = AttemptState.CHECKING
        attempt.took_ms = self.out.now_ms - attempt.assigned_ms
        if job.state is JobState.WAITING:
            self.dispatch.stop_waiting(job)
            job.move(JobState.RUNNING)
            self._arm(job)
        self.out.do(CheckResult(job=job.id, attempt=attempt.id, segment=job.segment))

    def _answer(self, number: int, worker: str) -> Attempt | None:
        """The attempt that a worker answers; None if it is not this worker's, or is over."""
        attempt = self.dispatch.attempts.get(number)
        if attempt is None:
            self._settle(number, "late", "this attempt is unknown, or was over long ago")
            return None
        if attempt.worker != worker:
            return None
        first, attempt.answered = not attempt.answered, True
        if attempt.state is AttemptState.OVER:
            if first and attempt.holding:
                self._learn_late(attempt)
            self.dispatch.let_go(attempt)
            self._settle(number, attempt.outcome or "late", attempt.text)
            self._forget_if_quiet(attempt.job)
            return None
        return attempt

    def _on_result_checked(self, fact: ResultChecked) -> None:
        attempt = self.dispatch.attempts.get(fact.attempt)
        if attempt is None or attempt.state is not AttemptState.CHECKING:
            return
        attempt.verdict = fact.verdict
        if fact.verdict.ok:
            self._verified(attempt, fact.verdict)
        elif fact.verdict.input_fault:
            self._attempt_failed(attempt, fact.verdict.reason, blamed=False)
            text = fact.verdict.reason
            self._fail(
                attempt.job, text if text in INPUT_ERRORS else DEFAULT_INPUT_ERROR, fault=True
            )
        else:
            self._refuse(attempt, tidy_reason(fact.verdict.reason))

    def _verified(self, attempt: Attempt, verdict: Verdict) -> None:
        job, worker = attempt.job, self._worker(attempt)
        attempt.state = AttemptState.GOOD
        job.good = attempt
        self.roster.praise(worker)
        self._learn(attempt)
        self.out.note(
            f"{job.id}/{attempt.id}/verified",
            JobVerified(
                job=job.id,
                attempt=attempt.id,
                worker=attempt.worker,
                source=verdict.source,
                renditions=verdict.renditions,
                pixels=verdict.pixels,
                took_ms=attempt.took_ms,
            ),
        )
        for other in job.attempts:
            if other.input_error:
                self.roster.blame(self._worker(other), "it said that good input is broken")
        self._stop_others(job, "unneeded", NOT_NEEDED)
        if self.orchestrators.takes(job.orchestrator, job.incarnation):
            self._deliver(job, attempt, verdict)
        else:
            job.move(JobState.HELD)
        self._arm(job)

    def _deliver(self, job: Job, attempt: Attempt, verdict: Verdict) -> None:
        job.move(JobState.DELIVERING)
        source = verdict.source
        self.out.do(
            Deliver(
                job=job.id,
                attempt=attempt.id,
                orchestrator=job.orchestrator,
                incarnation=job.incarnation,
                task_id=job.task_id,
                pixels=tuple(rendition.pixels for rendition in verdict.renditions),
                source_pixels=source.width * source.height * source.frames if source else 0,
                deadline_ms=job.deadline_ms,
            )
        )

    def _refuse(self, attempt: Attempt, reason: str) -> None:
        """Not what was asked for: evidence against the worker, nothing credited, done elsewhere."""
        worker = self._worker(attempt)
        worker.refused += 1
        self.out.note(
            f"{attempt.job.id}/{attempt.id}/refused",
            ResultRefused(
                job=attempt.job.id, attempt=attempt.id, worker=attempt.worker, reason=reason
            ),
        )
        attempt.failed = True
        self._leave_home(attempt)
        self._close(attempt, "refused", reason)
        self.roster.blame(worker, reason, REFUSED_WEIGHT)
        self._try_again(attempt.job, "retry")

    def _on_attempt_erred(self, fact: AttemptErred) -> None:
        attempt = self._answer(fact.attempt, fact.worker)
        if attempt is None or attempt.state not in (AttemptState.RUNNING, AttemptState.LOST):
            return
        job, reason = attempt.job, tidy_reason(fact.reason) or "the worker gave no reason"
        if fact.reason in INPUT_ERRORS:
            attempt.input_error = fact.reason
        self._leave_home(attempt)
        self.dispatch.let_go(attempt)
        self._attempt_failed(
            attempt, reason, blamed=not attempt.input_error and not job.source_lost
        )
        accusers = {each.worker for each in job.attempts if each.input_error}
        if attempt.input_error and len(accusers) > 1:
            self._fail(job, attempt.input_error, fault=True)
        else:
            self._try_again(job, "retry")

    def _attempt_failed(
        self, attempt: Attempt, reason: str, *, blamed: bool, outcome: Outcome = "refused"
    ) -> None:
        self._note_failed(attempt, reason, blamed=blamed)
        self._close(attempt, outcome, reason)

    def _note_failed(self, attempt: Attempt, reason: str, *, blamed: bool) -> None:
        attempt.failed = True
        self.out.note(
            f"{attempt.job.id}/{attempt.id}/failed",
            AttemptFailed(
                job=attempt.job.id,
                attempt=attempt.id,
                worker=attempt.worker,
                reason=reason,
                blamed=blamed,
            ),
        )
        if blamed:
            worker = self._worker(attempt)
            worker.failed += 1
            self.roster.blame(worker, reason)

    def _try_again(self, job: Job, reason: str) -> None:
        """Find another worker for a job, unless one is at it or there is no point."""
        if job.state is not JobState.RUNNING:
            return
        if job.live():
            self._arm(job)
            return
        refusal = job.source_lost
        if not refusal and len(job.attempts) >= self.settings.attempts_max:
            refusal = f"the pool tried {len(job.attempts)} workers in vain"
        if not refusal:
            refusal = self.dispatch.place(job, reason)
        if refusal and job.running and not job.source_lost:
            self._arm(job)
        elif refusal:
            self._fail(job, refusal)

    # --- the answer -------------------------------------------------------------------------------
    def _fail(self, job: Job, text: str, *, fault: bool = False, late: bool = False) -> None:
        """Answer with an error. Only an input error that was confirmed goes up word for word."""
        self.dispatch.stop_waiting(job)
        job.failure, job.input_fault = text, fault
        if late:
            self._give_up_late(job)
        self._stop_others(job, "late" if late else "unneeded", TOO_LATE if late else text)
        if not self.orchestrators.takes(job.orchestrator, job.incarnation):
            self._failed(job, answered=False)
            return
        self._say_error(job)

    def _say_error(self, job: Job) -> None:
        job.move(JobState.FAILING)
        self.out.do(
            DeliverError(
                job=job.id,
                orchestrator=job.orchestrator,
                incarnation=job.incarnation,
                task_id=job.task_id,
                text=job.failure if job.input_fault else f"Open Pool: {job.failure}",
            )
        )
        self._arm(job)

    def _give_up_late(self, job: Job) -> None:
        """The time is up: whoever had enough of it failed."""
        for attempt in job.attempts:
            if attempt.state is AttemptState.RUNNING:
                enough = self.out.now_ms - attempt.assigned_ms >= job.soft_ms
                self._note_failed(attempt, "no answer before the deadline", blamed=enough)
                self._leave_home(attempt)

    def _unanswered(self, job: Job) -> None:
        """The orchestrator did not say in time that it took what was delivered."""
        job.failure = job.failure or "the orchestrator did not take the result in time"
        self._settle_good(job, "late", TOO_LATE)
        self._failed(job, answered=False)

    def _on_delivered(self, fact: Delivered) -> None:
        job = self.jobs.get(fact.job)
        if job is None:
            return
        in_time = self.out.now_ms <= job.deadline_ms
        if job.state is JobState.FAILING:
            self._failed(job, answered=fact.accepted and in_time)
        elif job.state is JobState.DELIVERING and fact.accepted and in_time:
            self._delivered(job)
        elif job.state is JobState.DELIVERING:
            reason = tidy_reason(fact.reason) or "the orchestrator did not take the result"
            job.failure = reason
            self._settle_good(job, "late", reason)
            if in_time and self.orchestrators.takes(job.orchestrator, job.incarnation):
                self._say_error(job)
            else:
                self._failed(job, answered=False)

    def _delivered(self, job: Job) -> None:
        attempt = job.good
        assert attempt is not None
        assert attempt.verdict is not None
        worker = self._worker(attempt)
        worker.delivered += 1
        self.orchestrators.get(job.orchestrator).delivered += 1
        self.out.note(
            f"{job.id}/delivered",
            JobDelivered(
                job=job.id,
                orchestrator=job.orchestrator,
                attempt=attempt.id,
                worker=attempt.worker,
                duration_ms=job.segment.duration_ms,
                took_ms=self.out.now_ms - job.received_ms,
                attempts=len(job.attempts),
                hedged=job.hedged,
            ),
        )
        worker_wei = self.books.credit(
            job=job.id,
            orchestrator=job.orchestrator,
            manifest=job.manifest,
            worker=worker,
            pixels=attempt.verdict.pixels,
        )
        self._settle_good(job, "credited", f"credited {worker_wei} wei")
        self._over(job)

    def _failed(self, job: Job, *, answered: bool) -> None:
        self.orchestrators.get(job.orchestrator).failed += 1
        self.out.note(
            f"{job.id}/failed",
            JobFailed(
                job=job.id,
                orchestrator=job.orchestrator,
                reason=job.failure,
                answered=answered,
                attempts=len(job.attempts),
                input_fault=job.input_fault,
            ),
        )
        self._over(job)

    def _over(self, job: Job) -> None:
        job.move(JobState.OVER)
        del self.orchestrators.get(job.orchestrator).jobs[job.id]
        self._forget_if_quiet(job)
        self._arm(job)

    # --- endings ----------------------------------------------------------------------------------
    def _settle(self, number: int, outcome: Outcome, text: str) -> None:
        self.out.do(Settle(attempt=number, outcome=outcome, text=text))

    def _close(self, attempt: Attempt, outcome: Outcome, text: str) -> None:
        """End an attempt. One that still runs on a worker that cannot be told keeps its place
        until the worker is done with it."""
        running = attempt.state is AttemptState.RUNNING and not attempt.answered
        attempt.state, attempt.outcome, attempt.text = AttemptState.OVER, outcome, text
        connection = attempt.connection
        if running and connection is not None and connection.up:
            self._learn_late(attempt)
            self.out.do(CancelAttempt(attempt=attempt.id, connection=connection.id))
            if connection.kind == "openpool":
                self.dispatch.let_go(attempt)
        self._settle(attempt.id, outcome, text)

    def _stop_others(self, job: Job, outcome: Outcome, text: str) -> None:
        """End all attempts but the good one; losing is no fault."""
        for attempt in job.running:
            if attempt.state is AttemptState.LOST:
                self._attempt_failed(attempt, LOST, blamed=False, outcome=outcome)
            else:
                self._close(attempt, outcome, text)

    def _leave_home(self, attempt: Attempt) -> None:
        """The stream should go on elsewhere."""
        if attempt.connection is not None and attempt.connection.up:
            self.roster.leave_home(attempt.job.session, attempt.connection)

    def _settle_good(self, job: Job, outcome: Outcome, text: str) -> None:
        if job.good is not None and job.good.state is AttemptState.GOOD:
            self._close(job.good, outcome, text)

    def _forget_if_quiet(self, job: Job) -> None:
        """Drop the bytes of a job that is over, once no worker can bring anything for it."""
        if job.state is not JobState.OVER or job.forgotten:
            return
        if not any(attempt.holding for attempt in job.attempts):
            job.forgotten = True
            self.out.do(ForgetJob(job=job.id))

    def _purge(self, job: Job) -> None:
        for attempt in job.attempts:
            self.dispatch.let_go(attempt)
            del self.dispatch.attempts[attempt.id]
        self._forget_if_quiet(job)
        del self.jobs[job.id]

    def _drop(self, job: Job, reason: str) -> None:
        """The one that asked is gone: nothing is delivered, nobody is to blame."""
        self.dispatch.stop_waiting(job)
        job.failure = job.failure or reason
        self._stop_others(job, "late", reason)
        self._settle_good(job, "late", reason)
        self._failed(job, answered=False)

    # --- what was learnt --------------------------------------------------------------------------
    def _worker(self, attempt: Attempt) -> Worker:
        worker = self.roster.workers.get(attempt.worker)
        return worker or self.roster.know(attempt.worker, "", self.settings.commission_ppm)

    def _learn(self, attempt: Attempt) -> None:
        if attempt.connection is None:
            return
        units, now_ms = attempt.job.units, self.out.now_ms
        attempt.connection.estimate.observe(attempt.took_ms, units, attempt.load, now_ms)
        self.roster.usual.observe(attempt.took_ms, units, attempt.load, now_ms)

    def _learn_late(self, attempt: Attempt) -> None:
        """It would have taken, or did take, at least so long."""
        if attempt.connection is not None:
            now_ms = self.out.now_ms
            elapsed_ms = now_ms - attempt.assigned_ms
            attempt.connection.estimate.observe_at_least(
                elapsed_ms, attempt.job.units, attempt.load, now_ms
            )

    # --- workers and orchestrators come and go ----------------------------------------------------
    def _on_worker_down(self, fact: WorkerDown) -> None:
        """Work that ran there moves at once; if its result comes all the same, it is welcome."""
        if self.roster.disconnect(fact) is None:
            return
        for attempt in list(self.dispatch.on_connection.pop(fact.connection, {}).values()):
            attempt.holding = False
            if attempt.state is AttemptState.RUNNING:
                attempt.state = AttemptState.LOST
                self._try_again(attempt.job, "moved")
            else:
                self._forget_if_quiet(attempt.job)

    def _on_worker_removed(self, fact: WorkerRemoved) -> None:
        """A banned worker's results are not wanted; what was already delivered stays paid."""
        worker = self.roster.workers.get(fact.worker)
        if worker is None:
            return
        for connection in list(worker.connections):
            self._on_worker_down(WorkerDown(connection=connection, reason=fact.reason))
        for attempt in list(self.dispatch.attempts.values()):
            if attempt.worker != fact.worker or attempt not in attempt.job.running:
                continue
            self._attempt_failed(attempt, "the worker was banned", blamed=False)
            self._try_again(attempt.job, "retry")
        worker.banned = fact.reason

    def _on_orchestrator_seen(self, fact: OrchestratorSeen) -> None:
        previous = self.orchestrators.get(fact.orchestrator).incarnation
        if not self.orchestrators.seen(fact.orchestrator, fact.incarnation):
            return
        for job_id in list(self.orchestrators.get(fact.orchestrator).jobs):
            job = self.jobs[job_id]
            if job.incarnation != fact.incarnation:
                self._drop(job, "the orchestrator was restarted")
            elif job.state is JobState.HELD and job.good and job.good.verdict:
                self._deliver(job, job.good, job.good.verdict)
                self._arm(job)
        if previous:
            for key in [key for key in self.roster.sessions if key[0] == fact.orchestrator]:
                self.roster.end_session(key)

    def _on_source_lost(self, fact: SourceLost) -> None:
        job = self.jobs.get(fact.job)
        if job is None or job.state not in OPEN:
            return
        job.source_lost = f"the source could not be fetched: {tidy_reason(fact.reason)}"
        if not _checking(job):
            self._fail(job, job.source_lost)

    # --- invariants -------------------------------------------------------------------------------
    def check(self) -> None:
        """Derive what can be derived and compare; raises AssertionError. For tests."""
        self.roster.check()
        self.dispatch.check()
        self.books.check()
        for job in self.jobs.values():
            over = job.state is JobState.OVER
            assert over != (job.id in self.orchestrators.get(job.orchestrator).jobs)
            assert (job.state is JobState.WAITING) == (job in self.dispatch.waiting)
            assert over or job.timer is not None
            assert over or self.out.now_ms <= job.deadline_ms + 1
            assert job.forgotten <= over
            if job.state is JobState.RUNNING:
                assert job.running, f"{job.id} runs nowhere"
                assert self.out.now_ms <= job.hard_stop_ms
            if job.state in (JobState.HELD, JobState.DELIVERING):
                assert job.good is not None
                assert job.good.state is AttemptState.GOOD


def _checking(job: Job) -> bool:
    return any(attempt.state is AttemptState.CHECKING for attempt in job.attempts)


def _received(job: Job) -> JobReceived:
    segment = job.segment
    return JobReceived(
        job=job.id,
        orchestrator=job.orchestrator,
        incarnation=job.incarnation,
        group=job.group,
        task_id=job.task_id,
        session=job.session.key[1],
        manifest=job.manifest,
        seq=segment.seq,
        duration_ms=segment.duration_ms,
        profiles=segment.profiles,
        capabilities=segment.capabilities,
        deadline_ms=job.deadline_ms,
        source_url=job.source_url,
        min_version=segment.min_version,
        perceptual_hash=segment.perceptual_hash,
        clip_from_ms=segment.clip_from_ms,
        clip_to_ms=segment.clip_to_ms,
        orchestrator_address=segment.orchestrator_address,
    )


def _segment_received(was: JobReceived) -> SegmentReceived:
    """The fact from which an event came."""
    segment = Segment(
        seq=was.seq,
        duration_ms=was.duration_ms,
        profiles=was.profiles,
        capabilities=was.capabilities,
        min_version=was.min_version,
        perceptual_hash=was.perceptual_hash,
        clip_from_ms=was.clip_from_ms,
        clip_to_ms=was.clip_to_ms,
        reinit=True,
        orchestrator_address=was.orchestrator_address,
    )
    return SegmentReceived(
        orchestrator=was.orchestrator,
        incarnation=was.incarnation,
        group=was.group,
        task_id=was.task_id,
        session=was.session,
        manifest=was.manifest,
        segment=segment,
        source_url=was.source_url,
    )
