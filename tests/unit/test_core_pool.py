"""The pool as a whole, where a scenario would not show it: views, bounds, bad facts, timers."""

from fractions import Fraction
from typing import TypeVar

import pytest

from openpool.core import capabilities
from openpool.core.events import FeeCredited, JobReceived, PriceChanged
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
from openpool.core.instructions import Assign, Deliver, DeliverError, OpenGroup, Settle
from openpool.core.jobs import JOB_MOVES, JobState, tidy_reason
from openpool.core.model import Profile, Rendition, Segment, Verdict
from openpool.core.pool import Pool, PoolSettings, Step

NOW = 1_700_000_000_000
PROFILES = (Profile(name="720p", width=1280, height=720, bitrate_bps=3_000_000),)
GOOD = Verdict(
    ok=True,
    renditions=(
        Rendition(name="a", width=1280, height=720, frames=1, pixels=921_601, bytes=9, sha256=""),
    ),
)


T = TypeVar("T")


class Bench:
    """A pool with a clock."""

    def __init__(self, settings: PoolSettings | None = None, epoch: int = 1) -> None:
        self.now = NOW
        self.pool = Pool(settings or PoolSettings(), {"main": 1}, epoch)
        self(OrchestratorSeen(orchestrator="main", incarnation="cert"))

    def __call__(self, fact: Fact, after_ms: int = 0) -> Step:
        self.now += after_ms
        step = self.pool.handle(fact, self.now)
        self.pool.check()
        return step

    def worker(self, name: str, capacity: int = 1, **more: str) -> Step:
        return self(
            WorkerUp(
                worker=name,
                address=f"0x{name}",
                connection=more.get("connection", f"c-{name}"),
                kind="stock",
                capacity=capacity,
                capabilities=capabilities.DEFAULT,
                version=more.get("version", "0.9.1"),
                commission_ppm=250_000,
            )
        )

    def segment(self, task: int, session: str = "s", manifest: str = "m") -> Step:
        return self(segment(task, session, manifest))

    def finish(self, step: Step) -> Step:
        """The assigned worker does it, and the orchestrator takes it."""
        assign = only(step, Assign)
        self(ResultReceived(attempt=assign.attempt, worker=assign.worker, bytes=1))
        self(ResultChecked(attempt=assign.attempt, verdict=GOOD))
        return self(Delivered(job=assign.job, accepted=True))


def segment(task: int, session: str = "s", manifest: str = "m") -> SegmentReceived:
    return SegmentReceived(
        orchestrator="main",
        incarnation="cert",
        group="g",
        task_id=task,
        session=session,
        manifest=manifest,
        segment=Segment(seq=task, duration_ms=2000, profiles=PROFILES, capabilities=3),
    )


def only(step: Step, kind: type[T]) -> T:
    (found,) = [each for each in step.instructions if isinstance(each, kind)]
    return found


STRAY: list[Fact] = [
    ResultReceived(attempt=1, worker="nobody", bytes=1),
    ResultChecked(attempt=1, verdict=GOOD),
    AttemptErred(attempt=1, worker="nobody", reason="x"),
    Delivered(job="main.cert.99", accepted=True),
    SourceLost(job="main.cert.99", reason="x"),
    WorkerDown(connection="c-nobody", reason="x"),
    WorkerRemoved(worker="nobody", reason="x"),
    SessionEnded(orchestrator="main", session="unknown"),
    SessionEnded(orchestrator="unknown", session="unknown"),
    GroupUp(orchestrator="main", group="unknown"),
    GroupDown(orchestrator="main", group="unknown", reason="x"),
    OrchestratorLost(orchestrator="unknown", reason="x"),
    WorkerUp(
        worker="w", address="0x", connection="c", kind="stock", capacity=0, capabilities=1,
        version="", commission_ppm=0,
    ),
    Tick(),
]  # fmt: skip


@pytest.mark.parametrize("fact", STRAY, ids=lambda fact: type(fact).__name__)
def test_a_stray_fact_changes_nothing(fact: Fact) -> None:
    """Whatever names things that do not exist is answered, if at all, and forgotten."""
    bench = Bench()
    step = bench(fact)
    assert step.events == []
    assert all(isinstance(each, Settle) for each in step.instructions)


def test_time_that_steps_back_stands_still() -> None:
    """A clock that is set back neither breaks the core nor revives what is over."""
    bench = Bench()
    bench.worker("alice")
    bench.segment(0)
    bench.now += 7_000
    assert only(bench(Tick()), DeliverError)
    bench.now -= 100_000
    assert bench(Tick()).instructions == []


def test_it_asks_to_be_woken_only_while_something_goes_on() -> None:
    """An idle pool has no timer; a job brings one, and after everything is over none is left."""
    bench = Bench()
    assert bench.pool.wake_at() is None
    bench.worker("alice")
    bench(Tick(), after_ms=3_000)
    assert bench.pool.wake_at() is None
    bench.segment(0)
    wake = bench.pool.wake_at()
    assert wake is not None
    assert wake <= bench.now + 1_000
    for _ in range(20):
        bench.now = bench.pool.wake_at() or bench.now
        bench(Tick())
    assert bench.pool.wake_at() is None
    assert bench.pool.lifecycle.jobs == {}
    assert bench.pool.dispatch.attempts == {}
    assert bench.pool.roster.sessions == {}


def test_attempt_ids_tell_epochs_apart() -> None:
    """An attempt's number starts with the epoch, so that no pool takes another's result."""
    bench = Bench(epoch=7)
    bench.worker("alice")
    assert only(bench.segment(0), Assign).attempt == 7 << 32 | 1


def test_a_boastful_worker_is_believed_only_so_much() -> None:
    """A worker that claims a billion sessions is counted with the most that is allowed."""
    bench = Bench(PoolSettings(capacity_max=50, headroom_ppm=0))
    opened = [i for i in bench.worker("alice", 10**9).instructions if isinstance(i, OpenGroup)]
    assert sum(each.capacity for each in opened) == 50


def test_a_cut_of_ten_thousand_jobs_leaves_nothing_behind() -> None:
    """Memory is bounded: after the jobs are over, only workers are left."""
    bench = Bench()
    for number in range(5):
        bench.worker(f"w{number}", 20)
    for task in range(2_000):
        bench.now += 10
        step = bench.pool.handle(segment(task, f"s{task % 90}"), bench.now)
        assign = only(step, Assign)
        result = ResultReceived(attempt=assign.attempt, worker=assign.worker, bytes=1)
        bench.pool.handle(result, bench.now)
        bench.pool.handle(ResultChecked(attempt=assign.attempt, verdict=GOOD), bench.now)
        bench.pool.handle(Delivered(job=assign.job, accepted=True), bench.now)
    bench(Tick(), after_ms=200_000)
    assert bench.pool.lifecycle.jobs == {}
    assert bench.pool.dispatch.on_connection == {}
    assert bench.pool.timers.pending() == 0


def test_fees_and_carries_go_on_after_a_restart() -> None:
    """The fraction left over by the old pool is handed to the new one and paid by it."""
    pool = Pool(PoolSettings(), {"main": 1}, 2, {("alice", 3): 2})
    bench = Bench()
    bench.pool = pool
    bench(OrchestratorSeen(orchestrator="main", incarnation="cert"))
    bench(PriceKnown(orchestrator="main", manifest="", price_wei=Fraction(1, 3), source="status"))
    bench.worker("alice")
    events = bench.finish(bench.segment(0)).events
    (fee,) = [e.data for e in events if isinstance(e.data, FeeCredited)]
    assert int(fee.fee_wei) == (921_601 + 2) // 3
    assert fee.carry == "0/3"
    assert fee.price_source == "status"
    assert pool.fees.carries == {}


def test_the_account_of_a_restored_worker_is_used() -> None:
    """A result that comes before its worker's stream is credited to the address we were told."""
    bench = Bench()
    received = bench.segment(0).events[0].data
    assert isinstance(received, JobReceived)
    again = Bench(epoch=2)
    again(WorkerKnown(worker="alice", address="0xa11ce", commission_ppm=100_000))
    again(JobRestored(received=received, attempts=((5, "alice"),)))
    again(ResultReceived(attempt=5, worker="alice", bytes=1))
    step = again(ResultChecked(attempt=5, verdict=GOOD))
    assert only(step, Deliver).task_id == 0
    events = again(Delivered(job=received.job, accepted=True)).events
    (fee,) = [e.data for e in events if isinstance(e.data, FeeCredited)]
    assert (fee.address, fee.commission_ppm) == ("0xa11ce", 100_000)


def test_a_restored_job_is_checked_against_the_same_demands() -> None:
    """Clip, perceptual hash and version survive the restart: the result is measured by them."""
    bench = Bench()
    bench.worker("alice")
    asked = Segment(
        seq=3, duration_ms=2000, profiles=PROFILES, capabilities=3, min_version="0.9.0",
        perceptual_hash=True, clip_from_ms=100, clip_to_ms=900, orchestrator_address="0xabc",
    )  # fmt: skip
    fact = SegmentReceived(
        orchestrator="main", incarnation="cert", group="g", task_id=0, session="s", manifest="m",
        segment=asked,
    )  # fmt: skip
    received = bench(fact).events[0].data
    assert isinstance(received, JobReceived)
    again = Bench(epoch=2)
    again(JobRestored(received=received, attempts=((5, "alice"),)))
    restored = again.pool.lifecycle.jobs[received.job].segment
    for name in ("min_version", "perceptual_hash", "clip_from_ms", "clip_to_ms"):
        assert getattr(restored, name) == getattr(asked, name)
    assert restored.orchestrator_address == "0xabc"


def test_a_price_that_did_not_change_is_no_news() -> None:
    """The same price again gives no event; the price before it does."""
    bench = Bench()
    prices = [Fraction(1200), Fraction(1200), Fraction(1300), Fraction(1200)]
    told = [
        bench(PriceKnown(orchestrator="main", manifest="", price_wei=price, source="status"))
        for price in prices
    ]
    changed = [e.data.price_wei for s in told for e in s.events if isinstance(e.data, PriceChanged)]
    assert changed == ["1200", "1300", "1200"]


def test_prices_of_streams_are_bounded() -> None:
    """The prices of the streams that changed longest ago are forgotten, not the base price."""
    bench = Bench(PoolSettings(manifest_prices_max=3))
    bench(PriceKnown(orchestrator="main", manifest="", price_wei=Fraction(5), source="a"))
    for number in range(9):
        price = Fraction(100 + number)
        bench(PriceKnown(orchestrator="main", manifest=f"m{number}", price_wei=price, source="b"))
    books = bench.pool.books
    assert books.price("main", "m8") == (Fraction(108), "b")
    assert books.price("main", "m0") == (Fraction(5), "a")


def test_the_view_shows_what_is_going_on() -> None:
    """Orchestrators with groups, workers with state, jobs with attempts, and the waiting line."""
    bench = Bench()
    bench.worker("alice", 1)
    bench.segment(0, "a")
    bench.segment(1, "b")
    view = bench.pool.snapshot(bench.now)
    (orchestrator,) = view.orchestrators
    assert (orchestrator.up, orchestrator.offered, orchestrator.jobs) == (True, 1, 2)
    (worker,) = view.workers
    assert (worker.state, worker.sessions, worker.in_flight) == ("full", 1, 1)
    assert [job.state for job in view.jobs] == ["running", "waiting"]
    assert view.jobs[0].attempts[0].worker == "alice"
    assert (view.waiting, view.capacity) == (1, 1)


def test_a_slow_worker_is_told_the_numbers() -> None:
    """The explanation names what was expected of it and what was wanted."""
    bench = Bench()
    bench.worker("slow")
    for task in range(3):
        step = bench.segment(task)
        assign = only(step, Assign)
        bench(ResultReceived(attempt=assign.attempt, worker="slow", bytes=1), after_ms=4_000)
        bench(ResultChecked(attempt=assign.attempt, verdict=GOOD))
        bench(Delivered(job=assign.job, accepted=True))
    reasons = {each.code: each.text for each in bench.pool.explain("slow", bench.now)}
    assert "1100 ms were wanted" in reasons["too-slow"]


def test_a_peers_words_are_made_fit_for_a_line() -> None:
    """Control characters and endless texts of a worker do not reach log and pages."""
    assert tidy_reason("bad\x1b[31m\nline\x00") == "bad [31m line"
    assert len(tidy_reason("x" * 10**6)) == 200


def test_every_job_state_leads_to_the_end() -> None:
    """From each state there is a way to `over`, and from there none."""
    reach = {JobState.OVER}
    for _ in JobState:
        reach |= {state for state, moves in JOB_MOVES.items() if moves & reach}
    assert reach == set(JobState)
    assert JOB_MOVES[JobState.OVER] == frozenset()


def test_a_hostile_session_name_is_only_a_name() -> None:
    """Ids from outside are keys and nothing else; odd ones work like any other."""
    bench = Bench()
    bench.worker("alice", 4)
    for task, name in enumerate(["", "../../etc", "s" * 10_000, "\x00"]):
        bench.finish(bench.segment(task, name))
    assert bench.pool.snapshot(bench.now).sessions == 4
