"""A job's way from its receipt to its end: tries, results, the answer, and what is learnt from it.

The states are described in `core.pool` and listed in `core.jobs`. Every method that begins with
`on_` takes a fact; whatever arrives late, twice or from the wrong worker changes nothing here. It
must not choose workers: that is `core.dispatch`. Attempts end in `core.attempts`.
"""

from functools import partial

from openpool.core.attempts import Attempts
from openpool.core.books import Books
from openpool.core.dispatch import Dispatch
from openpool.core.estimate import work_units
from openpool.core.events import (
    JobDelivered,
    JobFailed,
    JobVerified,
    ResultRefused,
)
from openpool.core.explain import Recent
from openpool.core.facts import (
    AttemptErred,
    Delivered,
    JobRestored,
    ResultChecked,
    ResultReceived,
    SegmentReceived,
    SourceFaulted,
    SourceLost,
)
from openpool.core.instructions import (
    CheckResult,
    Deliver,
    DeliverError,
    ForgetJob,
    Outcome,
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
    job_received,
    segment_received,
    tidy_reason,
)
from openpool.core.model import Verdict
from openpool.core.orchestrators import Orchestrators
from openpool.core.roster import REFUSED_WEIGHT, Roster
from openpool.core.settings import PoolSettings
from openpool.core.step import Outbox, Timers
from openpool.core.texts import plural
from openpool.core.units import PPM

RESTORED_WAIT_MS = 500
"""A job from before a restart is given to nobody else this long, while workers reconnect."""
RESTARTED = "the orchestrator was restarted"
LOST = "its connection was lost"
TIME_IS_UP = "the pool could not transcode this segment in time"
NOT_NEEDED = "not needed: another worker was faster"
TOO_LATE = "too late: the orchestrator had its answer already"


class Lifecycle:
    """Keeps the jobs."""

    def __init__(
        self,
        settings: PoolSettings,
        out: Outbox,
        timers: Timers,
        roster: Roster,
        orchestrators: Orchestrators,
        books: Books,
    ) -> None:
        self.settings = settings
        self.out = out
        self.timers = timers
        self.roster = roster
        self.orchestrators = orchestrators
        self.books = books
        self.dispatch = Dispatch(settings, out, roster, self._arm)
        self.attempts = Attempts(settings, out, roster, self.dispatch)
        self.recent = Recent()
        self.jobs: dict[str, Job] = {}

    # --- a job begins -----------------------------------------------------------------------------
    def on_segment_received(self, fact: SegmentReceived) -> None:
        job_id = f"{fact.orchestrator}.{fact.incarnation}.{fact.task_id}"
        if job_id in self.jobs:
            return
        now_ms = self.out.now_ms
        job = self._new_job(job_id, fact, now_ms, deadline_ms(now_ms, fact.segment.duration_ms))
        self.out.note(f"{job_id}/received", job_received(job))
        self.orchestrators.get(fact.orchestrator).received += 1
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
            payer=fact.payer,
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

    def on_job_restored(self, fact: JobRestored) -> None:
        """A job from before a restart: its workers may still bring their results."""
        was = fact.received
        if was.job in self.jobs or self.out.now_ms >= was.deadline_ms:
            return
        received_ms = was.deadline_ms - (deadline_ms(0, was.duration_ms))
        job = self._new_job(was.job, segment_received(was), received_ms, was.deadline_ms)
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
            self._drop(job, RESTARTED)
        elif self.out.now_ms >= job.hard_stop_ms:
            self._fail(job, TIME_IS_UP, late=True)
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
        if connection is None or attempt.trial:
            return attempt.job.soft_ms // 2
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
                self._fail(job, TIME_IS_UP, late=True)
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
            early = self.out.now_ms < job.received_ms + job.soft_ms
            wanted = self.settings.hedge and not _checking(job)
            if wanted and self.dispatch.hedge(job, early=early):
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
    def on_result_received(self, fact: ResultReceived) -> None:
        attempt = self._answered(fact)
        if attempt is None:
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

    def _answered(self, fact: ResultReceived | AttemptErred) -> Attempt | None:
        """The attempt that a worker answers, if the answer is still of interest."""
        attempt = self.attempts.answer(fact.attempt, fact.worker)
        if attempt is None:
            return None
        self._forget_if_quiet(attempt.job)
        wanted = attempt.state in (AttemptState.RUNNING, AttemptState.LOST)
        return attempt if wanted else None

    def on_result_checked(self, fact: ResultChecked) -> None:
        attempt = self.dispatch.attempts.get(fact.attempt)
        if attempt is None or attempt.state is not AttemptState.CHECKING:
            return
        attempt.verdict = fact.verdict
        if fact.verdict.ok:
            self._verified(attempt, fact.verdict)
        elif fact.verdict.input_fault:
            self.attempts.fail(attempt, tidy_reason(fact.verdict.reason), blamed=False)
            self._fail(attempt.job, _input_error(fact.verdict.reason), fault=True)
        else:
            self._refuse(attempt, tidy_reason(fact.verdict.reason))

    def _verified(self, attempt: Attempt, verdict: Verdict) -> None:
        job, worker = attempt.job, self.attempts.worker(attempt)
        attempt.state = AttemptState.GOOD
        job.good = attempt
        self.roster.praise(worker)
        self.attempts.learn(attempt)
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
                self.roster.blame(self.attempts.worker(other), "it said that good input is broken")
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
        worker = self.attempts.worker(attempt)
        worker.refused += 1
        self.out.note(
            f"{attempt.job.id}/{attempt.id}/refused",
            ResultRefused(
                job=attempt.job.id, attempt=attempt.id, worker=attempt.worker, reason=reason
            ),
        )
        self.attempts.leave_home(attempt)
        self.attempts.close(attempt, "refused", reason)
        self.roster.blame(worker, reason, REFUSED_WEIGHT)
        self._try_again(attempt.job, "retry")

    def on_attempt_erred(self, fact: AttemptErred) -> None:
        attempt = self._answered(fact)
        if attempt is None:
            return
        job, reason = attempt.job, tidy_reason(fact.reason) or "the worker gave no reason"
        if fact.reason in INPUT_ERRORS:
            attempt.input_error = fact.reason
        self.attempts.leave_home(attempt)
        self.dispatch.let_go(attempt)
        self.attempts.fail(attempt, reason, blamed=not attempt.input_error and not job.source_lost)
        accusers = {each.worker for each in job.attempts if each.input_error}
        if attempt.input_error and len(accusers) > 1:
            self._fail(job, attempt.input_error, fault=True)
        else:
            self._try_again(job, "retry")

    def _try_again(self, job: Job, reason: str) -> None:
        """Find another worker for a job, unless one is at it or there is no point."""
        if job.state is not JobState.RUNNING:
            return
        if job.live():
            self._arm(job)
            return
        refusal = job.source_lost
        if not refusal and len(job.attempts) >= self.settings.attempts_max:
            refusal = f"the pool tried {plural(len(job.attempts), 'worker')} in vain"
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
                input_fault=job.input_fault,
                tried=len(job.attempts),
            )
        )
        self._arm(job)

    def _give_up_late(self, job: Job) -> None:
        """The time is up: whoever had enough of it failed."""
        for attempt in job.attempts:
            if attempt.state is AttemptState.RUNNING:
                enough = self.out.now_ms - attempt.assigned_ms >= job.soft_ms
                self.attempts.note_failed(attempt, "no answer before the deadline", blamed=enough)
                self.attempts.leave_home(attempt)

    def _unanswered(self, job: Job) -> None:
        """The orchestrator did not say in time that it took what was delivered."""
        job.failure = job.failure or "the orchestrator did not take the result in time"
        self._settle_good(job, "late", TOO_LATE)
        self._failed(job, answered=False)

    def on_delivered(self, fact: Delivered) -> None:
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
        worker = self.attempts.worker(attempt)
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
            payer=job.payer,
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
    def _stop_others(self, job: Job, outcome: Outcome, text: str) -> None:
        """End all attempts but the good one; losing is no fault."""
        for attempt in job.running:
            if attempt.state is AttemptState.LOST:
                self.attempts.fail(attempt, LOST, blamed=False, outcome=outcome)
            else:
                self.attempts.close(attempt, outcome, text)

    def _settle_good(self, job: Job, outcome: Outcome, text: str) -> None:
        if job.good is not None and job.good.state is AttemptState.GOOD:
            self.attempts.close(job.good, outcome, text)

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

    # --- workers and orchestrators come and go ----------------------------------------------------
    def lose(self, connection: str) -> None:
        """Work on a lost connection moves at once; if its result comes all the same, it is good."""
        for attempt in list(self.dispatch.on_connection.pop(connection, {}).values()):
            attempt.holding = False
            if attempt.state is AttemptState.RUNNING:
                attempt.state = AttemptState.LOST
                self._try_again(attempt.job, "moved")
            else:
                self._forget_if_quiet(attempt.job)

    def disown(self, worker: str) -> None:
        """Nothing that this worker may still bring is wanted."""
        for attempt in list(self.dispatch.attempts.values()):
            if attempt.worker == worker and attempt in attempt.job.running:
                self.attempts.fail(attempt, "the worker was banned", blamed=False)
                self._try_again(attempt.job, "retry")

    def know_incarnation(self, orchestrator: str, incarnation: str) -> None:
        """Jobs of another incarnation are dead; good results for this one can be delivered."""
        for job_id in list(self.orchestrators.get(orchestrator).jobs):
            job = self.jobs[job_id]
            if job.incarnation != incarnation:
                self._drop(job, RESTARTED)
            elif job.state is JobState.HELD and job.good and job.good.verdict:
                self._deliver(job, job.good, job.good.verdict)
                self._arm(job)

    def on_source_lost(self, fact: SourceLost) -> None:
        job = self.jobs.get(fact.job)
        if job is None or job.state not in OPEN:
            return
        job.source_lost = f"the source could not be fetched: {tidy_reason(fact.reason)}"
        if not _checking(job):
            self._fail(job, job.source_lost)

    def on_source_faulted(self, fact: SourceFaulted) -> None:
        """Confirms what a worker said of its input; a result that is being opened may still win."""
        job = self.jobs.get(fact.job)
        if job is not None and job.state in OPEN and not _checking(job):
            self._fail(job, _input_error(fact.reason), fault=True)

    # --- invariants -------------------------------------------------------------------------------
    def check(self) -> None:
        """Raises AssertionError if a job is in a state that it cannot be in."""
        now_ms = self.out.now_ms
        for job in self.jobs.values():
            over = job.state is JobState.OVER
            assert over != (job.id in self.orchestrators.get(job.orchestrator).jobs)
            assert (job.state is JobState.WAITING) == (job in self.dispatch.waiting)
            assert job.timer is not None
            assert over or now_ms <= job.deadline_ms
            assert job.forgotten <= over
            if job.state in OPEN:
                assert now_ms < job.hard_stop_ms
            if job.state is JobState.RUNNING:
                assert job.running, f"{job.id} runs nowhere"
            if job.state in (JobState.HELD, JobState.DELIVERING):
                assert job.good is not None
                assert job.good.state is AttemptState.GOOD


def _input_error(text: str) -> str:
    """One of the texts at which gateways give up on the segment and not on the orchestrator."""
    return text if text in INPUT_ERRORS else DEFAULT_INPUT_ERROR


def _checking(job: Job) -> bool:
    return any(attempt.state is AttemptState.CHECKING for attempt in job.attempts)
