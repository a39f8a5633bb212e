"""Giving jobs to workers: the first try, further tries, second opinions, and the waiting line.

A stream's segments go to its *home*, the worker that did the last one, while that is quick enough;
else `core.scheduler` chooses. Nothing is ever given to a worker that had the job already while
somebody else is there. Whether and when a further try is wanted is `core.pool`'s decision.
"""

from bisect import insort
from collections.abc import Callable, Collection

from openpool.core.estimate import load_level
from openpool.core.events import JobAssigned, JobHedged
from openpool.core.instructions import Assign, FetchSource
from openpool.core.jobs import OPEN, TARGET_MIN_MS, Attempt, AttemptState, Job, JobState
from openpool.core.roster import Connection, Roster
from openpool.core.scheduler import Ask, Lane, choose, fastest
from openpool.core.settings import PoolSettings
from openpool.core.step import Outbox
from openpool.core.units import PPM

HEDGE_BURST = 10
"""Early hedges that may follow each other after a quiet time."""
WAITING_SCAN = 64
"""Waiting jobs looked at for a place that came free."""


class Dispatch:
    """Keeps the attempts and the waiting line."""

    def __init__(
        self,
        settings: PoolSettings,
        out: Outbox,
        roster: Roster,
        begun: Callable[[Job], None],
    ) -> None:
        self.settings = settings
        self.out = out
        self.roster = roster
        self.begun = begun
        """Called when a job was given to a worker or put in the line."""
        self.attempts: dict[int, Attempt] = {}
        self.on_connection: dict[str, dict[int, Attempt]] = {}
        """Attempts that occupy a place of a connection."""
        self.waiting: list[Job] = []
        """Oldest first."""
        self._count = 0
        self._hedges = HEDGE_BURST * PPM

    # --- where to ---------------------------------------------------------------------------------
    def place(self, job: Job, reason: str) -> str:
        """Give a job to a worker, or have it wait for one. Returns why not, if neither can be."""
        connection = self._home(job)
        if connection is not None:
            self.assign(job, connection, "sticky")
            return ""
        lanes = self._lanes(job)
        without = self._without(job, lanes)
        ask = self._ask(job, without)
        found = choose(lanes, ask) if not job.attempts else fastest(lanes, ask)
        segment = job.segment
        found = found or self.roster.reclaim(segment.capabilities, segment.min_version, without)
        if isinstance(found, Connection):
            self.assign(job, found, reason)
            return ""
        return self._wait(job, lanes)

    def hedge(self, job: Job, *, early: bool) -> bool:
        """Give a running job to a second worker as well, if one is free that may still make it.

        Hedges before the soft deadline are `early`; every job received pays for a part of one.
        """
        if early and self._hedges < PPM:
            return False
        now_ms = self.out.now_ms
        lanes = self._lanes(job)
        found = fastest(lanes, self._ask(job, job.tried()))
        if not isinstance(found, Connection):
            return False
        if now_ms + found.estimate.predict_ms(job.units, found.load) >= job.hard_stop_ms:
            return False
        self._hedges -= PPM if early else 0
        self.assign(job, found, "hedge", hedge=True)
        return True

    def earn_hedge(self) -> None:
        """A job was received: it pays for a part of an early hedge."""
        self._hedges = min(self._hedges + self.settings.hedge_ppm, HEDGE_BURST * PPM)

    def _home(self, job: Job) -> Connection | None:
        """The home of the stream, if this is a first try and nothing speaks against it."""
        home = job.session.home
        if home is None or job.attempts or not home.usable:
            return None
        segment = job.segment
        if not home.can(segment.capabilities, segment.min_version):
            return None
        in_time = home.estimate.late(home.load, self.out.now_ms) * job.units <= self._target_ms(job)
        if in_time or not home.estimate.samples:
            return home
        better = choose(self._lanes(job), self._ask(job, (home.worker,)))
        if better is None or not self._in_time(job, better.estimate.p95_ms(job.units, better.load)):
            return home
        return None

    def _in_time(self, job: Job, took_ms: int) -> bool:
        return took_ms <= self._target_ms(job)

    def _target_ms(self, job: Job) -> int:
        """In how much time, from now, a gateway wants the result at the latest."""
        whole = max(TARGET_MIN_MS, job.segment.duration_ms) * self.settings.target_ppm // PPM
        return whole - (self.out.now_ms - job.received_ms)

    def _ask(self, job: Job, without: Collection[str]) -> Ask:
        return Ask(job.units, self._target_ms(job), self.out.now_ms, self._count + 1, without)

    def _lanes(self, job: Job) -> list[Lane]:
        return self.roster.lanes.fitting(job.segment.capabilities, job.segment.min_version)

    def _without(self, job: Job, lanes: list[Lane]) -> Collection[str]:
        """Workers that must not get this job (again).

        Those that had it. If nobody else is there, only those that work on it, that failed it in
        a way that would repeat itself, or that were lost only just now.
        """
        if not job.attempts:
            return ()
        tried = job.tried()
        if sum(lane.members for lane in lanes) > self._usable(job, tried):
            return tried
        return {each.worker for each in job.attempts if self._hopeless(job, each)}

    def _usable(self, job: Job, names: Collection[str]) -> int:
        segment = job.segment
        return sum(
            connection.usable and connection.can(segment.capabilities, segment.min_version)
            for name in names
            if name in self.roster.workers
            for connection in self.roster.workers[name].connections.values()
        )

    def _hopeless(self, job: Job, attempt: Attempt) -> bool:
        if attempt.state is AttemptState.LOST:
            return self.out.now_ms - attempt.assigned_ms < job.soft_ms
        if attempt.state is not AttemptState.OVER:
            return True
        return bool(attempt.input_error) or attempt.verdict is not None

    # --- attempts ---------------------------------------------------------------------------------
    def assign(self, job: Job, connection: Connection, reason: str, *, hedge: bool = False) -> None:
        """Begin an attempt of a job on a connection."""
        self.need_source(job)
        job.session = self.roster.current(job.session)
        if job.state is JobState.WAITING:
            self.stop_waiting(job)
            job.move(JobState.RUNNING)
        attempt = self._attempt(job, connection, hedge)
        worker = connection.owner
        worker.assigned += 1
        worker.last_assigned_ms = self.out.now_ms
        self.roster.hold(connection, job.session)
        self.roster.lanes.charge(connection, job.units)
        if job.session.home is None:
            job.session.home = connection
        self._say(attempt, connection, reason)
        self.begun(job)

    def _attempt(self, job: Job, connection: Connection, hedge: bool) -> Attempt:
        self._count += 1
        attempt = Attempt(
            id=self.out.epoch << 32 | self._count,
            job=job,
            worker=connection.worker,
            connection=connection,
            session=job.session.key,
            assigned_ms=self.out.now_ms,
            predicted_ms=connection.estimate.predict_ms(job.units, connection.load),
            load=connection.load,
            hedge=hedge,
            trial=connection.estimate.begin(self.out.now_ms),
            holding=True,
        )
        job.attempts.append(attempt)
        job.hedge_at_ms = 0
        self.attempts[attempt.id] = attempt
        self.on_connection.setdefault(connection.id, {})[attempt.id] = attempt
        return attempt

    def _say(self, attempt: Attempt, connection: Connection, reason: str) -> None:
        job = attempt.job
        self.out.do(
            Assign(
                job=job.id,
                attempt=attempt.id,
                worker=attempt.worker,
                connection=connection.id,
                orchestrator=job.orchestrator,
                session=attempt.session[1],
                manifest=job.manifest,
                segment=job.segment,
                deadline_ms=job.deadline_ms,
            )
        )
        if attempt.hedge:
            self.out.note(
                f"{job.id}/{attempt.id}/hedged",
                JobHedged(
                    job=job.id,
                    attempt=attempt.id,
                    worker=attempt.worker,
                    predicted_ms=attempt.predicted_ms,
                    waited_ms=self.out.now_ms - job.received_ms,
                ),
            )
            return
        self.out.note(
            f"{job.id}/{attempt.id}/assigned",
            JobAssigned(
                job=job.id,
                attempt=attempt.id,
                worker=attempt.worker,
                predicted_ms=attempt.predicted_ms,
                reason=reason,
            ),
        )

    def let_go(self, attempt: Attempt) -> None:
        """The attempt does not occupy a place any more; saying so twice is no error."""
        connection = attempt.connection
        if not attempt.holding or connection is None:
            return
        attempt.holding = False
        on_it = self.on_connection[connection.id]
        del on_it[attempt.id]
        if not on_it:
            del self.on_connection[connection.id]
        self.roster.release(connection, attempt.session)

    def need_source(self, job: Job) -> None:
        """Have the source fetched, once."""
        if job.source_url and not job.fetched:
            job.fetched = True
            self.out.do(
                FetchSource(
                    job=job.id,
                    orchestrator=job.orchestrator,
                    url=job.source_url,
                    deadline_ms=job.hard_stop_ms,
                )
            )

    # --- the waiting line -------------------------------------------------------------------------
    def _wait(self, job: Job, lanes: list[Lane]) -> str:
        """Put a job in the line. A new one is refused if there is no hope or no room."""
        if not job.attempts:
            if not any(lane.members for lane in lanes):
                return "no worker is connected that can do this; try again later"
            if len(self.waiting) >= self.settings.queue_max:
                return "the pool is full at the moment; try again shortly"
        if self.out.now_ms >= min(job.wait_until_ms, job.hard_stop_ms):
            return "no worker came free in time; try again shortly"
        if job.state is JobState.RUNNING:
            job.move(JobState.WAITING)
        self.line_up(job)
        return ""

    def line_up(self, job: Job) -> None:
        """Put a job in the line, by its age."""
        self.need_source(job)
        insort(self.waiting, job, key=lambda each: each.received_ms)
        self.begun(job)

    def stop_waiting(self, job: Job) -> None:
        """Take a job out of the line, if it stands there."""
        if job in self.waiting:
            self.waiting.remove(job)

    def serve_waiting(self) -> None:
        """Give places that came free to waiting jobs, oldest first."""
        freed = self.roster.freed
        while freed and self.waiting:
            connection = freed.popleft()
            while connection.usable and (job := self._first_for(connection)) is not None:
                if not self._make_room(connection, job):
                    break
                self.assign(job, connection, "retry" if job.attempts else "waited")
        freed.clear()

    def _first_for(self, connection: Connection) -> Job | None:
        for job in self.waiting[:WAITING_SCAN]:
            segment = job.segment
            if not connection.can(segment.capabilities, segment.min_version):
                continue
            if connection.worker not in self._without(job, self._lanes(job)):
                return job
        return None

    def _make_room(self, connection: Connection, job: Job) -> bool:
        if job.session.key in connection.holds or len(connection.holds) < connection.capacity:
            return True
        return self.roster.give_place(connection)

    # --- invariants -------------------------------------------------------------------------------
    def check(self) -> None:
        """Raises AssertionError if attempts, places and the line do not agree."""
        holding = {each.id for each in self.attempts.values() if each.holding}
        assert holding == {number for on_it in self.on_connection.values() for number in on_it}
        for connection in self.roster.connections.values():
            on_it = self.on_connection.get(connection.id, {})
            assert connection.in_flight == len(on_it)
            assert connection.load == load_level(connection.in_flight, connection.capacity)
        assert all(job.state is JobState.WAITING for job in self.waiting)
        assert len(set(map(id, self.waiting))) == len(self.waiting)
        for attempt in self.attempts.values():
            assert attempt in attempt.job.attempts
            if attempt.job.state not in OPEN:
                assert attempt.state in (AttemptState.OVER, AttemptState.GOOD)
