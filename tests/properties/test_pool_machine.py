"""Any order of facts: Hypothesis plays the world and looks for an order that breaks the core.

Invariants, checked after every step:
1. No connection holds more sessions than its capacity, and every index agrees (`Pool.check`).
2. A job is answered by at most one result, and by an error only if there was no accepted result.
3. A fee is credited at most once per job, for a checked result that was delivered.
4. Fees are split to the wei, and with the carry worth exactly the pixels.
5. Saying a fact twice records nothing new (the replay twin of every rule).
"""

from collections import Counter, defaultdict
from fractions import Fraction
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from openpool.core import capabilities
from openpool.core.events import CommissionTaken, Event, FeeCredited, JobDelivered, JobFailed
from openpool.core.facts import (
    AttemptErred,
    Delivered,
    Fact,
    GroupDown,
    GroupUp,
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
    WorkerRemoved,
    WorkerUp,
)
from openpool.core.instructions import Assign, CloseGroup, Deliver, DeliverError, OpenGroup, Settle
from openpool.core.model import Profile, Rendition, Segment, Verdict
from openpool.core.pool import Pool, PoolSettings

PROFILES = (Profile(name="a", width=640, height=360, bitrate_bps=1),)
WORKERS = st.sampled_from(["w0", "w1", "w2", "w3"])
ORCHESTRATORS = st.sampled_from(["o0", "o1"])
CERTS = st.sampled_from(["x", "x", "x", "x", "y", "z"])
PICKS = st.integers(0, 1000)
"""Which one of those that there are."""
HEVC = 1 << capabilities.Capability.HEVC_DECODE
REASONS = st.sampled_from(["out of memory", "No keyframes in input", "", "\x1b[2J" * 99])


class PoolMachine(RuleBasedStateMachine):
    """The world, as arbitrary as the types allow."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 10**12
        self.pool = Pool(
            PoolSettings(queue_max=2, slots_per_group=2, cooldown_failures=2, attempts_max=3),
            {"o0": 1, "o1": 2},
            epoch=1,
        )
        self.log: dict[str, Event] = {}
        self.connections = 0
        self.answers: dict[str, list[str]] = defaultdict(list)
        self.groups: set[tuple[str, str]] = set()
        self.good: set[int] = set()
        self.pixels: dict[str, int] = {}

    def feed(self, fact: Fact) -> None:
        self._handle(fact)
        step = self.pool.handle(fact, self.now)
        fresh = [event for event in step.events if event.id not in self.log]
        assert fresh == [], "a repeated fact was recorded again"
        assert all(isinstance(each, Settle) for each in step.instructions)
        self.pool.check()

    def _handle(self, fact: Fact) -> None:
        step = self.pool.handle(fact, self.now)
        self.pool.check()
        for event in step.events:
            assert event.id not in self.log, f"{event.id} came twice"
            self.log[event.id] = event
        for what in step.instructions:
            self._obey(what)

    def _obey(self, what: Any) -> None:
        match what:
            case Assign():
                assert self.now < what.deadline_ms - 1000
                connection = self.pool.roster.connections[what.connection]
                assert connection.worker == what.worker
                assert capabilities.fits(what.segment.capabilities, connection.bits)
            case Deliver():
                assert what.attempt in self.good
                self.answers[what.job].append("result")
            case DeliverError():
                self.answers[what.job].append("error")
            case OpenGroup():
                assert (what.orchestrator, what.group) not in self.groups
                self.groups.add((what.orchestrator, what.group))
            case CloseGroup():
                self.groups.remove((what.orchestrator, what.group))
            case _:
                pass

    def attempt(self, pick: int) -> int:
        """One of the attempts that the core knows; now and then one that it does not."""
        known = [*self.pool.dispatch.attempts, 1 << 32 | 9999]
        return known[pick % len(known)]

    def job(self, pick: int) -> str:
        known = [*self.pool.lifecycle.jobs, "o0.x.unknown"]
        return known[pick % len(known)]

    # --- rules ---------------------------------------------------------------------------------

    @rule(ms=st.sampled_from([1, 50, 600, 2_100, 9_000, 80_000]))
    def time_passes(self, ms: int) -> None:
        end = self.now + ms
        while (wake := self.pool.wake_at()) is not None and wake <= end:
            self.now = max(self.now, wake)
            self._handle(Tick())
        self.now = end

    @rule(worker=WORKERS, capacity=st.integers(0, 3), hevc=st.booleans(), own=st.booleans())
    def worker_registers(self, worker: str, capacity: int, hevc: bool, own: bool) -> None:
        self.connections += 1
        self.feed(
            WorkerUp(
                worker=worker,
                address="0x",
                connection=f"c{self.connections}",
                kind="openpool" if own else "stock",
                capacity=capacity,
                capabilities=capabilities.DEFAULT | (HEVC if hevc else 0),
                version="0.9.1",
                commission_ppm=333_333,
            )
        )

    @rule(number=st.integers(1, 12))
    def stream_breaks(self, number: int) -> None:
        self.feed(WorkerDown(connection=f"c{number}", reason="reset"))

    @rule(worker=WORKERS)
    def worker_is_banned(self, worker: str) -> None:
        self.feed(WorkerRemoved(worker=worker, reason="cheated"))

    @rule(
        orchestrator=ORCHESTRATORS,
        cert=CERTS,
        task=st.integers(0, 9),
        session=st.sampled_from("abcd"),
        hevc=st.booleans(),
        duration=st.sampled_from([500, 2_000, 10_000]),
    )
    def segment_comes(
        self, orchestrator: str, cert: str, task: int, session: str, hevc: bool, duration: int
    ) -> None:
        job = f"{orchestrator}.{cert}.{task}"
        if f"{job}/received" in self.log and job not in self.pool.lifecycle.jobs:
            return  # No orchestrator uses a task id twice in one life.
        self.feed(
            SegmentReceived(
                orchestrator=orchestrator,
                incarnation=cert,
                group="g",
                task_id=task,
                session=session,
                manifest="m",
                segment=Segment(
                    seq=task,
                    duration_ms=duration,
                    profiles=PROFILES,
                    capabilities=HEVC if hevc else 3,
                ),
                source_url="u",
            )
        )

    @rule(orchestrator=ORCHESTRATORS, session=st.sampled_from("abcd"))
    def session_ends(self, orchestrator: str, session: str) -> None:
        self.feed(SessionEnded(orchestrator=orchestrator, session=session))

    @rule(pick=PICKS, worker=WORKERS, own=st.booleans())
    def result_comes(self, pick: int, worker: str, own: bool) -> None:
        attempt = self.attempt(pick)
        known = self.pool.dispatch.attempts.get(attempt)
        self.feed(
            ResultReceived(
                attempt=attempt, worker=known.worker if known and own else worker, bytes=1
            )
        )

    @rule(pick=PICKS, pixels=st.integers(1, 10**9))
    def result_is_good(self, pick: int, pixels: int) -> None:
        attempt = self.attempt(pick)
        self.good.add(attempt)
        rendition = Rendition(
            name="a", width=640, height=360, frames=1, pixels=pixels, bytes=1, sha256=""
        )
        self.feed(ResultChecked(attempt=attempt, verdict=Verdict(ok=True, renditions=(rendition,))))

    @rule(pick=PICKS, fault=st.booleans(), reason=REASONS)
    def result_is_bad(self, pick: int, fault: bool, reason: str) -> None:
        attempt = self.attempt(pick)
        if attempt in self.good:
            return
        verdict = Verdict(ok=False, reason=reason, input_fault=fault)
        self.feed(ResultChecked(attempt=attempt, verdict=verdict))

    @rule(pick=PICKS, reason=REASONS)
    def worker_errs(self, pick: int, reason: str) -> None:
        attempt = self.attempt(pick)
        known = self.pool.dispatch.attempts.get(attempt)
        worker = known.worker if known else "w0"
        self.feed(AttemptErred(attempt=attempt, worker=worker, reason=reason))

    @rule(pick=PICKS, accepted=st.booleans())
    def delivery_is_answered(self, pick: int, accepted: bool) -> None:
        # Its twin would be another fact: an answer to the error that follows a failed delivery.
        self._handle(Delivered(job=self.job(pick), accepted=accepted))

    @rule(pick=PICKS)
    def a_job_goes_well(self, pick: int) -> None:
        """The whole way, so that money is seen in most plays."""
        attempt = self.pool.dispatch.attempts.get(self.attempt(pick))
        if attempt is not None:
            self.result_comes(pick, attempt.worker, own=True)
            self.result_is_good(pick, 1_000_003)
            self.feed(Delivered(job=attempt.job.id, accepted=True))

    @rule(pick=PICKS)
    def source_is_lost(self, pick: int) -> None:
        self.feed(SourceLost(job=self.job(pick), reason="404"))

    @rule(orchestrator=ORCHESTRATORS, cert=CERTS)
    def orchestrator_shows_up(self, orchestrator: str, cert: str) -> None:
        self.feed(OrchestratorSeen(orchestrator=orchestrator, incarnation=cert))

    @rule(orchestrator=ORCHESTRATORS)
    def orchestrator_is_lost(self, orchestrator: str) -> None:
        self.feed(OrchestratorLost(orchestrator=orchestrator, reason="refused"))

    @rule(data=st.data(), up=st.booleans())
    def group_changes(self, data: st.DataObject, up: bool) -> None:
        if self.groups:
            orchestrator, group = data.draw(st.sampled_from(sorted(self.groups)))
            if up:
                self.feed(GroupUp(orchestrator=orchestrator, group=group))
            else:
                self.feed(GroupDown(orchestrator=orchestrator, group=group, reason="evicted"))

    @rule(
        orchestrator=ORCHESTRATORS,
        manifest=st.sampled_from(["", "m"]),
        price=st.sampled_from([Fraction(0), Fraction(1200), Fraction(1, 3), Fraction(7, 11)]),
    )
    def price_is_known(self, orchestrator: str, manifest: str, price: Fraction) -> None:
        self.feed(
            PriceKnown(
                orchestrator=orchestrator, manifest=manifest, price_wei=price, source="status"
            )
        )

    # --- invariants ----------------------------------------------------------------------------

    @invariant()
    def answers_are_single(self) -> None:
        """Invariant 2."""
        for job, answers in self.answers.items():
            assert answers in (["result"], ["error"], ["result", "error"]), f"{job}: {answers}"

    @invariant()
    def money_is_exact(self) -> None:
        """Invariants 3 and 4."""
        worth: dict[tuple[str, int], Fraction] = defaultdict(Fraction)
        for event in self.log.values():
            fee = event.data
            if not isinstance(fee, FeeCredited):
                continue
            assert f"{fee.job}/delivered" in self.log
            taken = self.log[f"{fee.job}/commission-taken"].data
            assert isinstance(taken, CommissionTaken)
            assert int(fee.worker_wei) + int(taken.commission_wei) == int(fee.fee_wei)
            price = Fraction(fee.price_wei)
            worth[fee.worker, price.denominator] += price * fee.pixels - int(fee.fee_wei)
        for (worker, denominator), left in worth.items():
            carry = self.pool.fees.carries.get((worker, denominator), 0)
            assert left == Fraction(carry, denominator)

    @invariant()
    def a_job_ends_once(self) -> None:
        """Delivered or failed, never both."""
        ends = Counter(
            event.data.job
            for event in self.log.values()
            if isinstance(event.data, JobDelivered | JobFailed)
        )
        assert not ends or max(ends.values()) == 1


PoolMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
test_pool_machine = PoolMachine.TestCase
