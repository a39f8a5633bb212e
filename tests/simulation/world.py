"""A small world around the real core: orchestrators, workers good and bad, a log, and bad luck.

Everything happens in virtual time and is drawn from one seed. The world keeps its own account of
what is true (who did the work, what the orchestrator took and when), and compares it with what the
core says after every single fact.
"""

import heapq
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from hashlib import sha256

from openpool.core import capabilities
from openpool.core.events import (
    Event,
    FeeCredited,
    JobAssigned,
    JobDelivered,
    JobFailed,
    JobHedged,
    JobReceived,
    JobVerified,
)
from openpool.core.facts import (
    AttemptErred,
    Delivered,
    Fact,
    GroupDown,
    GroupUp,
    JobRestored,
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
    WorkerUp,
)
from openpool.core.instructions import (
    Assign,
    CancelAttempt,
    CheckResult,
    CloseGroup,
    Deliver,
    DeliverError,
    EndSession,
    FetchSource,
    Instruction,
    OpenGroup,
    Settle,
)
from openpool.core.model import Profile, Rendition, Segment, SourceInfo, Verdict
from openpool.core.pool import Pool, PoolSettings

START_MS = 1_700_000_000_000
PROFILES = (
    Profile(name="720p", width=1280, height=720, bitrate_bps=3_000_000),
    Profile(name="360p", width=640, height=360, bitrate_bps=800_000),
)
ERRORS = ("out of memory", "Encoder not found", "No keyframes in input")
PRICES = (Fraction(1200), Fraction(1, 3), Fraction(7, 11))
HEVC = capabilities.bit_set(*range(13), 14, 15, 16, 26)


@dataclass
class SimWorker:
    """A worker's machine, with its vices."""

    name: str
    kind: str
    capacity: int
    bits: int
    speed: float
    """Time per segment as a part of its duration."""
    fails: float = 0.0
    lies: float = 0.0
    hangs: float = 0.0
    breaks: float = 0.0
    """Chance per second that its connection breaks."""
    connection: str = ""
    sessions: set[tuple[str, str]] = field(default_factory=set)
    running: dict[int, "Work"] = field(default_factory=dict)


@dataclass
class Work:
    """One attempt on a machine."""

    attempt: int
    job: str
    key: tuple[str, str]
    connection: str
    cancelled: bool = False
    since: int = 0


@dataclass
class SimOrchestrator:
    """The orchestrator's own truth."""

    name: str
    incarnation: str
    price: Fraction
    births: int = 0
    task_id: int = 0
    groups: dict[str, int] = field(default_factory=dict)
    streams: dict[str, int] = field(default_factory=dict)
    """Session, and the sequence number of its next segment."""


@dataclass
class Asked:
    """A task as the orchestrator knows it."""

    deadline_ms: int
    incarnation: str
    excused: bool = False
    """The pool was down, or the orchestrator itself restarted, while it ran."""
    answers: list[str] = field(default_factory=list)


class World:
    """Runs one seed."""

    def __init__(self, seed: int, seconds: int = 50, workers: int = 9) -> None:
        self.random = random.Random(seed)
        self.now = START_MS
        self.end = START_MS + seconds * 1000
        self.queue: list[tuple[int, int, Callable[[], None]]] = []
        self.count = 0
        self.trace = sha256()
        self.facts = 0
        self.epoch = 1
        self.up = True
        self.log: dict[str, Event] = {}
        self.unsure: list[tuple[int, Event]] = []
        """Events appended but not yet on disk, with the time when they will be."""
        self.asked: dict[str, Asked] = {}
        self.good: dict[int, bool] = {}
        """Whether the result of an attempt is what was asked for."""
        self.settled: Counter[str] = Counter()
        self.workers = [self._worker(n) for n in range(workers)]
        self.orchestrators = [self._orchestrator(n) for n in range(2)]
        self.pool = self._new_pool({})
        self._begin()

    # --- making the world -----------------------------------------------------------------------

    def _worker(self, number: int) -> SimWorker:
        roll = self.random
        worker = SimWorker(
            name=f"w{number}",
            kind=roll.choice(["stock", "openpool"]),
            capacity=roll.randint(1, 6),
            bits=roll.choice([capabilities.DEFAULT, HEVC]),
            speed=roll.uniform(0.1, 0.5),
            breaks=0.01,
        )
        match number:
            case 0:
                worker.speed = roll.uniform(1.5, 5)
            case 1:
                worker.lies = roll.uniform(0.3, 1)
            case 2:
                worker.fails = roll.uniform(0.2, 1)
            case 3:
                worker.hangs = roll.uniform(0.1, 0.5)
            case 4:
                worker.breaks = 0.3
        return worker

    def _orchestrator(self, number: int) -> SimOrchestrator:
        price = self.random.choice(PRICES)
        return SimOrchestrator(name=f"o{number}", incarnation=f"cert{number}.0", price=price)

    def _new_pool(self, carries: dict[tuple[str, int], int]) -> Pool:
        settings = PoolSettings(slots_per_group=3, queue_max=20, cooldown_ms=5_000)
        return Pool(settings, {"o0": 2, "o1": 1}, self.epoch, carries)

    def _begin(self) -> None:
        for orchestrator in self.orchestrators:
            price = PriceKnown(
                orchestrator=orchestrator.name, manifest="", price_wei=orchestrator.price,
                source="config",
            )  # fmt: skip
            self.later(0, price)
        for worker in self.workers:
            self.at(self.random.randint(0, 3_000), lambda w=worker: self.connect(w))
        for _ in range(12):
            self.at(self.random.randint(500, 20_000), self.start_stream)
        self.at(self.random.randint(15_000, 40_000), self.restart_orchestrator)
        self.at(self.random.randint(15_000, 50_000), self.crash)
        self.at(1_000, self.each_second)

    # --- time -----------------------------------------------------------------------------------

    def at(self, delay_ms: int, action: Callable[[], None]) -> None:
        """Have something happen after a while."""
        self.count += 1
        heapq.heappush(self.queue, (self.now + max(0, delay_ms), self.count, action))

    def later(self, delay_ms: int, fact: Fact) -> None:
        """Have a fact reach the pool that is up now, perhaps twice, perhaps late."""
        epoch = self.epoch
        self.at(delay_ms, lambda: self.feed(fact, epoch))
        if self.random.random() < 0.05:
            self.at(delay_ms + self.random.randint(0, 3_000), lambda: self.feed(fact, epoch))

    def run(self) -> None:
        """Until the time is up and everything under way is over."""
        while self.queue or self.pool.wake_at() is not None:
            wake = self.pool.wake_at() if self.up else None
            if wake is not None and (not self.queue or wake <= self.queue[0][0]):
                if wake > self.end + 120_000:
                    break
                self.now = max(self.now, wake)
                self.feed(Tick(), self.epoch)
                continue
            if not self.queue:
                break
            self.now, _, action = heapq.heappop(self.queue)
            action()
        self.finish()

    def feed(self, fact: Fact, epoch: int) -> None:
        """Let the core handle a fact, then check everything."""
        if not self.up or epoch != self.epoch:
            return
        self.facts += 1
        step = self.pool.handle(fact, self.now)
        self.trace.update(repr((fact, step)).encode())
        self.pool.check()
        wake = self.pool.wake_at()
        assert wake is None or wake > self.now, "a timer is due and was not run"
        durable = self.now + self.random.randint(1, 4)
        for event in step.events:
            self.unsure.append((durable, event))
        for instruction in step.instructions:
            self.perform(instruction, durable)

    # --- what the shells do ---------------------------------------------------------------------

    def perform(self, what: Instruction, durable: int) -> None:
        """Do what the core says."""
        match what:
            case Assign():
                self.assign(what)
            case CancelAttempt():
                self.cancel(what)
            case EndSession():
                self.end_session(what)
            case CheckResult():
                self.check_result(what)
            case Deliver():
                self.deliver(what)
            case DeliverError():
                self.answer(what.job, f"error {what.text}", what.incarnation)
            case FetchSource() if self.random.random() < 0.005:
                self.later(50, SourceLost(job=what.job, reason="404"))
            case OpenGroup():
                self.open_group(what)
            case CloseGroup():
                self.close_group(what)
            case Settle():
                self.settled[what.outcome] += 1
            case _:
                pass

    def by_connection(self, connection: str) -> SimWorker | None:
        return next((w for w in self.workers if w.connection == connection), None)

    def assign(self, what: Assign) -> None:
        assert what.deadline_ms > self.now
        worker = self.by_connection(what.connection)
        if worker is None:
            return
        assert worker.name == what.worker
        assert capabilities.fits(what.segment.capabilities, worker.bits), "cannot do this"
        key = (what.orchestrator, what.session)
        worker.sessions.add(key)
        assert len(worker.sessions) <= worker.capacity, f"{worker.name} is over capacity"
        work = Work(what.attempt, what.job, key, what.connection, since=self.now)
        worker.running[what.attempt] = work
        busy = {each.key for each in worker.running.values() if self.counts(each, what.connection)}
        assert len(busy) <= worker.capacity, f"{worker.name} really runs too many streams"
        roll = self.random
        if roll.random() < worker.hangs:
            return
        duration = what.segment.duration_ms * worker.speed * (1 + len(worker.running) / 4)
        self.good[what.attempt] = roll.random() >= worker.lies
        self.at(round(duration * roll.uniform(0.8, 1.4)), lambda: self.finish_work(worker, work))

    def counts(self, work: Work, connection: str) -> bool:
        """Whether a place must be kept for it: the core gives up waiting ten seconds after T."""
        return work.connection == connection and self.now - work.since < 8_000

    def finish_work(self, worker: SimWorker, work: Work) -> None:
        """The machine is done, whether or not its connection is up: results travel alone."""
        worker.running.pop(work.attempt, None)
        if work.cancelled:
            return
        if self.random.random() < worker.fails:
            reason = self.random.choice(
                ["out of memory", "Encoder not found", "No keyframes in input"]
            )
            self.post(AttemptErred(attempt=work.attempt, worker=worker.name, reason=reason))
            return
        self.post(ResultReceived(attempt=work.attempt, worker=worker.name, bytes=1000))
        if self.random.random() < 0.02:
            thief = self.random.choice(self.workers).name
            self.post(ResultReceived(attempt=work.attempt, worker=thief, bytes=1000))

    def post(self, fact: Fact) -> None:
        """An upload reaches whatever pool is up by then."""
        delay = self.random.randint(5, 60)

        def arrive() -> None:
            if self.up:
                self.later(0, fact)
            else:
                self.at(300, arrive)

        self.at(delay, arrive)

    def cancel(self, what: CancelAttempt) -> None:
        worker = self.by_connection(what.connection)
        if worker is not None and worker.kind == "openpool":
            work = worker.running.pop(what.attempt, None)
            if work is not None:
                work.cancelled = True

    def end_session(self, what: EndSession) -> None:
        worker = self.by_connection(what.connection)
        if worker is not None:
            worker.sessions.discard((what.orchestrator, what.session))

    def check_result(self, what: CheckResult) -> None:
        renditions = tuple(
            Rendition(
                name=p.name, width=p.width, height=p.height, frames=61,
                pixels=p.width * p.height * 61, bytes=9, sha256="",
            )
            for p in what.segment.profiles
        )  # fmt: skip
        source = SourceInfo(width=1920, height=1080, frames=61, duration_ms=2000, bytes=9)
        ok = self.good[what.attempt]
        verdict = Verdict(
            ok=ok,
            reason="" if ok else "wrong size",
            source=source,
            renditions=renditions if ok else (),
        )
        self.later(self.random.randint(2, 40), ResultChecked(attempt=what.attempt, verdict=verdict))

    def deliver(self, what: Deliver) -> None:
        assert self.good[what.attempt], "a bad result was delivered"
        self.answer(what.job, f"result {what.attempt}", what.incarnation)

    def answer(self, job: str, text: str, incarnation: str) -> None:
        """The orchestrator gets an answer, after a while; sometimes the answer gets lost."""
        asked = self.asked[job]
        orchestrator = self.of(job)
        assert orchestrator.incarnation == incarnation == asked.incarnation, "stale answer"
        delay, lost = self.random.randint(1, 40), self.random.random() < 0.01
        if not lost:
            asked.answers.append(f"{self.epoch} {self.now + delay} {text}")
        elif text.startswith("error"):
            asked.excused = True
        self.later(delay + 2, Delivered(job=job, accepted=not lost, reason="reset" if lost else ""))

    def of(self, job: str) -> SimOrchestrator:
        name = job.partition(".")[0]
        return next(each for each in self.orchestrators if each.name == name)

    def open_group(self, what: OpenGroup) -> None:
        orchestrator = next(o for o in self.orchestrators if o.name == what.orchestrator)
        assert what.capacity > 0
        orchestrator.groups[what.group] = what.capacity
        self.greet(orchestrator)
        self.later(8, GroupUp(orchestrator=orchestrator.name, group=what.group))

    def greet(self, orchestrator: SimOrchestrator) -> None:
        seen = OrchestratorSeen(
            orchestrator=orchestrator.name, incarnation=orchestrator.incarnation
        )
        self.later(5, seen)

    def close_group(self, what: CloseGroup) -> None:
        orchestrator = next(o for o in self.orchestrators if o.name == what.orchestrator)
        orchestrator.groups.pop(what.group)
        self.later(3, GroupDown(orchestrator=orchestrator.name, group=what.group, reason="closed"))

    # --- what happens by itself -----------------------------------------------------------------

    def each_second(self) -> None:
        if self.now >= self.end:
            return
        for worker in self.workers:
            if worker.connection and self.random.random() < worker.breaks:
                self.disconnect(worker)
                self.at(self.random.randint(100, 4_000), lambda w=worker: self.connect(w))
        self.at(1_000, self.each_second)

    def connect(self, worker: SimWorker) -> None:
        if worker.connection or not self.up:
            return
        self.count += 1
        worker.connection = f"c{self.count}"
        worker.sessions.clear()
        fact = WorkerUp(
            worker=worker.name, address=f"0x{worker.name}", connection=worker.connection,
            kind="stock" if worker.kind == "stock" else "openpool", capacity=worker.capacity,
            capabilities=worker.bits, version="0.9.1", commission_ppm=250_000,
        )  # fmt: skip
        self.feed(fact, self.epoch)
        if self.random.random() < 0.05:
            self.feed(fact, self.epoch)

    def disconnect(self, worker: SimWorker) -> None:
        connection, worker.connection = worker.connection, ""
        worker.sessions.clear()
        if self.random.random() < 0.3:
            for work in worker.running.values():
                work.cancelled = True
            worker.running.clear()
        self.later(self.random.randint(0, 50), WorkerDown(connection=connection, reason="reset"))

    def start_stream(self) -> None:
        orchestrator = self.random.choice(self.orchestrators)
        offered = sum(orchestrator.groups.values())
        if len(orchestrator.streams) < offered + (self.random.random() < 0.2):
            self.count += 1
            session = f"s{self.count}"
            orchestrator.streams[session] = 0
            self.segment(orchestrator, session, orchestrator.incarnation)
        elif self.now < self.end:
            self.at(2_000, self.start_stream)

    def segment(self, orchestrator: SimOrchestrator, session: str, incarnation: str) -> None:
        """The next segment of a stream, and in two seconds the one after."""
        if self.now >= self.end or orchestrator.incarnation != incarnation:
            return
        seq = orchestrator.streams.get(session)
        if seq is None or not orchestrator.groups or not self.up:
            orchestrator.streams.pop(session, None)
            self.at(1_000, self.start_stream)
            return
        if seq > 3 and self.random.random() < 0.05:
            del orchestrator.streams[session]
            self.later(0, SessionEnded(orchestrator=orchestrator.name, session=session))
            self.at(1_000, self.start_stream)
            return
        orchestrator.streams[session] = seq + 1
        self.ask(orchestrator, session, seq)
        self.at(2_000, lambda: self.segment(orchestrator, session, incarnation))

    def ask(self, orchestrator: SimOrchestrator, session: str, seq: int) -> None:
        job = f"{orchestrator.name}.{orchestrator.incarnation}.{orchestrator.task_id}"
        needs = capabilities.bit_set(0, 1, 12, 26)
        if self.random.random() < 0.1:
            needs |= 1 << capabilities.Capability.HEVC_DECODE
        fact = SegmentReceived(
            orchestrator=orchestrator.name, incarnation=orchestrator.incarnation, group="g",
            task_id=orchestrator.task_id, session=session, manifest=f"m{session}",
            segment=Segment(seq=seq, duration_ms=2000, profiles=PROFILES, capabilities=needs),
            source_url=f"https://o/{session}/{seq}.ts",
        )  # fmt: skip
        orchestrator.task_id += 1
        self.asked[job] = Asked(self.now + 8_000, orchestrator.incarnation)
        self.feed(fact, self.epoch)
        if self.random.random() < 0.05:
            self.later(self.random.randint(0, 9_000), fact)

    def restart_orchestrator(self) -> None:
        """A new process: new certificate, task ids from 0, no streams."""
        orchestrator = self.random.choice(self.orchestrators)
        for job, asked in self.asked.items():
            if asked.incarnation == orchestrator.incarnation and self.of(job) is orchestrator:
                asked.excused |= self.now < asked.deadline_ms
        orchestrator.births += 1
        orchestrator.incarnation = f"cert{orchestrator.name}.{orchestrator.births}"
        orchestrator.task_id = 0
        orchestrator.streams.clear()
        self.feed(
            OrchestratorSeen(orchestrator=orchestrator.name, incarnation=orchestrator.incarnation),
            self.epoch,
        )
        for _ in range(6):
            self.at(self.random.randint(0, 3_000), self.start_stream)

    def crash(self) -> None:
        """kill -9 of the pool: what was not on disk is gone, and so are all connections."""
        self.flush(self.now)
        self.unsure.clear()
        self.up = False
        for job, asked in self.asked.items():
            lost = f"{job}/received" not in self.log
            asked.excused |= self.now < asked.deadline_ms and (
                lost or self.now + 2_000 > asked.deadline_ms - 1_000
            )
        for worker in self.workers:
            worker.connection = ""
            worker.sessions.clear()
        for orchestrator in self.orchestrators:
            orchestrator.groups.clear()
        self.at(self.random.randint(100, 1_500), self.restart)

    def restart(self) -> None:
        """The pool starts again from its log."""
        self.epoch += 1
        self.up = True
        self.pool = self._new_pool(self.carries())
        known = {event.data.job for event in self.log.values() if _ends(event)}
        for event in list(self.log.values()):
            received = event.data
            if not isinstance(received, JobReceived) or received.job in known:
                continue
            if received.deadline_ms <= self.now:
                continue
            attempts = [
                (e.data.attempt, e.data.worker)
                for e in self.log.values()
                if isinstance(e.data, JobAssigned | JobHedged) and e.data.job == received.job
            ]
            for _, name in attempts:
                self.feed(
                    WorkerKnown(worker=name, address=f"0x{name}", commission_ppm=250_000),
                    self.epoch,
                )
            self.feed(JobRestored(received=received, attempts=tuple(attempts)), self.epoch)
        for orchestrator in self.orchestrators:
            self.greet(orchestrator)
            price = PriceKnown(
                orchestrator=orchestrator.name, manifest="", price_wei=orchestrator.price,
                source="config",
            )  # fmt: skip
            self.feed(price, self.epoch)
        for worker in self.workers:
            self.at(self.random.randint(50, 3_000), lambda w=worker: self.connect(w))
        for _ in range(8):
            self.at(self.random.randint(1_000, 6_000), self.start_stream)

    # --- the truth ------------------------------------------------------------------------------

    def flush(self, now_ms: int) -> None:
        """Events whose group commit is done are in the log; a known id is dropped."""
        for durable, event in self.unsure:
            if durable <= now_ms:
                kept = self.log.setdefault(event.id, event)
                if isinstance(event.data, FeeCredited):
                    assert kept is event, f"{event.id} was credited twice"
        self.unsure = [each for each in self.unsure if each[0] > now_ms]

    def carries(self) -> dict[tuple[str, int], int]:
        """The fractions left over, as the log says."""
        carries: dict[tuple[str, int], int] = {}
        for event in self.log.values():
            if isinstance(event.data, FeeCredited):
                numerator, denominator = map(int, event.data.carry.split("/"))
                carries[event.data.worker, denominator] = numerator
        return {key: carry for key, carry in carries.items() if carry}

    def finish(self) -> None:
        """Compare the books and the answers with the truth."""
        self.flush(self.now + 1_000)
        self._check_answers()
        self._check_money()

    def _check_answers(self) -> None:
        for job, asked in self.asked.items():
            by_pool = Counter(answer.split()[0] for answer in asked.answers)
            assert all(times == 1 for times in by_pool.values()), f"{job}: {asked.answers}"
            in_time = [a for a in asked.answers if int(a.split()[1]) <= asked.deadline_ms]
            assert in_time or asked.excused, f"{job} was never answered"

    def _check_money(self) -> None:
        verified = {
            (e.data.job, e.data.attempt): e.data
            for e in self.log.values()
            if isinstance(e.data, JobVerified)
        }
        delivered = {
            e.data.job: e.data for e in self.log.values() if isinstance(e.data, JobDelivered)
        }
        credited: dict[tuple[str, Fraction], tuple[int, int]] = defaultdict(lambda: (0, 0))
        for event in self.log.values():
            fee = event.data
            if not isinstance(fee, FeeCredited):
                continue
            attempt = delivered[fee.job].attempt
            proof = verified[fee.job, attempt]
            assert self.good[attempt]
            assert proof.worker == fee.worker
            assert proof.pixels == fee.pixels
            answers = [a for a in self.asked[fee.job].answers if f"result {attempt}" in a]
            assert any(int(a.split()[1]) <= self.asked[fee.job].deadline_ms for a in answers)
            taken = self.log[f"{fee.job}/commission-taken"].data
            fee_wei = int(fee.fee_wei)
            assert fee_wei == int(fee.worker_wei) + int(taken.commission_wei)  # type: ignore[union-attr]
            units, wei = credited[fee.worker, Fraction(fee.price_wei)]
            credited[fee.worker, Fraction(fee.price_wei)] = units + fee.pixels, wei + fee_wei
        carries = self.carries()
        for (worker, price), (units, wei) in credited.items():
            carry = Fraction(carries.get((worker, price.denominator), 0), price.denominator)
            assert units * price == wei + carry, f"{worker} lost a fraction"
        assert set(delivered) == {
            e.data.job for e in self.log.values() if isinstance(e.data, FeeCredited)
        }


def _ends(event: Event) -> bool:
    return isinstance(event.data, JobDelivered | JobFailed)
