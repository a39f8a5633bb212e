"""One attempt's ends: the worker's answer, the settlement, the blame, and what is learnt from it.

Must not decide what becomes of the job: that is `core.lifecycle`, which calls this.
"""

from openpool.core.dispatch import Dispatch
from openpool.core.events import AttemptFailed
from openpool.core.instructions import CancelAttempt, Outcome, Settle
from openpool.core.jobs import Attempt, AttemptState
from openpool.core.roster import Roster, Worker
from openpool.core.settings import PoolSettings
from openpool.core.step import Outbox

UNKNOWN = "this attempt is unknown, or was over long ago"


class Attempts:
    """What can be done to an attempt."""

    def __init__(
        self, settings: PoolSettings, out: Outbox, roster: Roster, dispatch: Dispatch
    ) -> None:
        self.settings = settings
        self.out = out
        self.roster = roster
        self.dispatch = dispatch

    def answer(self, number: int, worker: str) -> Attempt | None:
        """The attempt that a worker answers, by a result or an error; None if it is not its own.

        An attempt that is over is settled again with the same outcome: its worker asks twice, or
        was too slow. Then, at last, it gives its place free.
        """
        attempt = self.dispatch.attempts.get(number)
        if attempt is None:
            self.settle(number, "late", UNKNOWN)
            return None
        if attempt.worker != worker:
            return None
        first, attempt.answered = not attempt.answered, True
        if attempt.state is AttemptState.OVER:
            if first and attempt.holding:
                self.learn_late(attempt)
            self.dispatch.let_go(attempt)
            self.settle(number, attempt.outcome or "late", attempt.text)
        return attempt

    def settle(self, number: int, outcome: Outcome, text: str) -> None:
        """Have the worker's upload answered, if one waits."""
        self.out.do(Settle(attempt=number, outcome=outcome, text=text))

    def close(self, attempt: Attempt, outcome: Outcome, text: str) -> None:
        """End an attempt. One that still runs on a worker that cannot be told keeps its place
        until the worker is done with it."""
        running = attempt.state is AttemptState.RUNNING and not attempt.answered
        attempt.state, attempt.outcome, attempt.text = AttemptState.OVER, outcome, text
        connection = attempt.connection
        if running and connection is not None and connection.up:
            self.learn_late(attempt)
            self.out.do(CancelAttempt(attempt=attempt.id, connection=connection.id))
            if connection.kind == "openpool":
                self.dispatch.let_go(attempt)
        self.settle(attempt.id, outcome, text)

    def fail(
        self, attempt: Attempt, reason: str, *, blamed: bool, outcome: Outcome = "refused"
    ) -> None:
        """End an attempt that failed."""
        self.note_failed(attempt, reason, blamed=blamed)
        self.close(attempt, outcome, reason)

    def note_failed(self, attempt: Attempt, reason: str, *, blamed: bool) -> None:
        """Record that an attempt failed, and whether its worker is to blame."""
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
            worker = self.worker(attempt)
            worker.failed += 1
            self.roster.blame(worker, reason)

    def worker(self, attempt: Attempt) -> Worker:
        """The attempt's worker, even if it was never connected since the restart."""
        worker = self.roster.workers.get(attempt.worker)
        return worker or self.roster.know(attempt.worker, "", self.settings.commission_ppm)

    def leave_home(self, attempt: Attempt) -> None:
        """The stream should go on elsewhere."""
        if attempt.connection is not None and attempt.connection.up:
            self.roster.leave_home(attempt.job.session, attempt.connection)

    def learn(self, attempt: Attempt) -> None:
        """A good result took so long."""
        if attempt.connection is None:
            return
        units, now_ms = attempt.job.units, self.out.now_ms
        attempt.connection.estimate.observe(attempt.took_ms, units, attempt.load, now_ms)
        self.roster.usual.observe(attempt.took_ms, units, attempt.load, now_ms)

    def learn_late(self, attempt: Attempt) -> None:
        """It would have taken, or did take, at least so long."""
        if attempt.connection is not None:
            now_ms = self.out.now_ms
            elapsed_ms = now_ms - attempt.assigned_ms
            attempt.connection.estimate.observe_at_least(
                elapsed_ms, attempt.job.units, attempt.load, now_ms
            )
