"""Canned days in the life of a pool, to look at every page without running one.

`Story` makes believable events from a seed: workers of different speed, one that cheats, one that
leaves, failures, hedges, fees with exact carries. Used by tests and by whoever changes the pages;
never by a pool. Must not be taken for measurements.
"""

from collections.abc import Iterator
from fractions import Fraction
from hashlib import sha256
from math import pi, sin
from random import Random

from msgspec import Struct

from openpool.core import events as e
from openpool.core.enrolment import checked_address, worker_id
from openpool.core.events import AnyPayload, Event
from openpool.core.explain import Reason
from openpool.core.model import Profile, Rendition
from openpool.core.units import commission, fee, price_text
from openpool.core.views import (
    AttemptView,
    ConnectionView,
    GroupView,
    JobView,
    OrchestratorView,
    PoolView,
    WorkerView,
)

PRICE = Fraction(3600, 7)
COMMISSION_PPM = 250_000
ORCHESTRATORS = ("orch-frankfurt", "orch-chicago")
PROFILES = tuple(
    Profile(name=f"{height}p", width=height * 16 // 9, height=height, bitrate_bps=height * 4000)
    for height in (720, 480, 360)
)
PIXELS = sum(p.width * p.height for p in PROFILES) * 60
MINUTE_MS = 60_000


class Character(Struct, frozen=True, kw_only=True):
    """A worker of the story."""

    name: str
    speed: float
    """Typical processing time over media time."""
    share: int
    """How often it is chosen."""
    capacity: int
    cheats: float = 0.0
    fails: float = 0.002
    stock: bool = False
    state: str = "approved"
    leaves: bool = False

    @property
    def address(self) -> str:
        return checked_address("0x" + sha256(self.name.split("-")[0].encode()).hexdigest()[:40])

    @property
    def id(self) -> str:
        return worker_id(self.address, self.name)


CAST = (
    Character(name="aurora-4090", speed=0.16, share=9, capacity=12),
    Character(name="aurora-3080", speed=0.27, share=6, capacity=8),
    Character(name="basalt-a4000", speed=0.31, share=5, capacity=8, stock=True),
    Character(name="cobalt-t4", speed=0.42, share=4, capacity=6, stock=True),
    Character(name="delta-1660", speed=0.55, share=2, capacity=3, fails=0.02),
    Character(name="ember-cpu", speed=0.86, share=1, capacity=1, fails=0.05),
    Character(name="fjord-3060", speed=0.36, share=3, capacity=6, leaves=True),
    Character(name="gneiss-2070", speed=0.21, share=1, capacity=4, cheats=0.35, state="banned"),
    Character(name="harbor-4070", speed=0.3, share=0, capacity=8, state="pending"),
)


class Telling:
    """What the stories of segments and of calls share: a span, chance from a seed, a serial."""

    def __init__(self, start_ms: int, end_ms: int, per_minute: float, seed: int) -> None:
        self._start_ms, self._end_ms = start_ms, end_ms
        self._per_minute = per_minute
        self._random = Random(seed)  # noqa: S311 - a story, not a secret
        self._serial = 0

    def events(self) -> list[Event]:
        """All of it, in the order of time."""
        told = [*self._opening(), *self._work()]
        return sorted(told, key=lambda event: event.time_ms)

    def _opening(self) -> Iterator[Event]:
        raise NotImplementedError

    def _work(self) -> Iterator[Event]:
        raise NotImplementedError

    def _at(self, time_ms: int, data: AnyPayload) -> Event:
        self._serial += 1
        name = f"story/{data.type}/{self._serial}"
        # these as the pool names them: pages find the job by it
        if isinstance(data, e.FeeCredited | e.CommissionTaken):
            name = f"{data.job}/{data.type}"
        if isinstance(data, e.CallCheckpointed):
            name = f"{data.call}/{data.attempt}/checkpointed/{data.units}"
        return Event(id=name, time_ms=time_ms, data=data)

    def _arrivals(self, first_ms: int, *, low: float, phase: float) -> Iterator[int]:
        """When something comes, in tides of a day that ebb to `low` of what is usual."""
        t = first_ms
        while True:
            day = (t % 86_400_000) / 86_400_000
            tide = (1 + low) / 2 + (1 - low) / 2 * sin(2 * pi * (day - phase))
            t += max(1, round(self._random.expovariate(self._per_minute * tide) * MINUTE_MS))
            if t > self._end_ms - 3_000:
                return
            yield t


class Story(Telling):
    """Events from `start_ms` to `end_ms`, about `per_minute` segments a minute."""

    def __init__(
        self, *, start_ms: int, end_ms: int, per_minute: float = 12, seed: int = 7
    ) -> None:
        super().__init__(start_ms, end_ms, per_minute, seed)
        self._carry: dict[str, int] = {}

    def _opening(self) -> Iterator[Event]:
        t = self._start_ms
        yield self._at(t, e.PoolStarted(epoch=1, version="0.1.0"))
        for name in ORCHESTRATORS:
            yield self._at(t + 400, e.OrchestratorUp(orchestrator=name, incarnation="c0ffee11"))
            yield self._at(
                t + 500,
                e.PriceChanged(
                    orchestrator=name, manifest="", price_wei=price_text(PRICE), source="status"
                ),
            )
            for number in (1, 2, 3):
                group = e.GroupOpened(
                    orchestrator=name, group=f"slots-{number}", capacity=8, capabilities=0x7FFF
                )
                yield self._at(t + 600, group)
        for who in CAST:
            yield from self._introduce(who, t + 2_000)
        yield self._at(
            self._end_ms - 95_000,
            e.OrchestratorDown(
                orchestrator=ORCHESTRATORS[1], incarnation="c0ffee11", reason="connection refused"
            ),
        )

    def _introduce(self, who: Character, t: int) -> Iterator[Event]:
        if who.state == "pending":
            t = self._end_ms - 11 * MINUTE_MS
        yield self._at(
            t,
            e.WorkerEnrolled(
                worker=who.id,
                address=who.address,
                name=who.name,
                group="default",
                terms=sha256(b"terms").hexdigest(),
            ),
        )
        token = sha256(who.id.encode()).hexdigest()[:12]
        yield self._at(t + 1, e.TokenIssued(worker=who.id, token=token))
        if who.state == "pending":
            return
        yield self._at(t + 2, e.WorkerApproved(worker=who.id))
        yield self._at(
            t + 900,
            e.WorkerConnected(
                worker=who.id,
                connection=f"{who.id}/1",
                kind="stock" if who.stock else "openpool",
                capacity=who.capacity,
                capabilities=0x7FFF,
                version="0.8.9" if who.stock else "0.1.0",
            ),
        )
        yield from self._farewell(who)

    def _farewell(self, who: Character) -> Iterator[Event]:
        if who.leaves:
            data = e.WorkerDisconnected(
                worker=who.id, connection=f"{who.id}/1", reason="the connection broke"
            )
            yield self._at(self._gone_ms(who), data)
        if who.state == "banned":
            reason = "returned frames that it had not transcoded"
            yield self._at(self._gone_ms(who), e.WorkerBanned(worker=who.id, reason=reason))

    def _gone_ms(self, who: Character) -> int:
        back = {"banned": 5, "approved": 2}[who.state]
        return self._end_ms - (self._end_ms - self._start_ms) * back // 12

    def _present(self, t: int) -> list[Character]:
        return [
            who
            for who in CAST
            if who.share and not ((who.leaves or who.state == "banned") and t >= self._gone_ms(who))
        ]

    def _work(self) -> Iterator[Event]:
        for t in self._arrivals(self._start_ms + 5_000, low=0.3, phase=0.3):
            yield from self.segment(t)

    def segment(self, t: int) -> Iterator[Event]:
        """One segment that arrives at time `t`."""
        self._serial += 1
        stream = self._random.randrange(4)
        down = t > self._end_ms - 95_000
        orchestrator = ORCHESTRATORS[0 if down else stream % 2]
        job = f"{orchestrator}.c0ffee11.{self._serial}"
        yield self._at(
            t,
            e.JobReceived(
                job=job,
                orchestrator=orchestrator,
                incarnation="c0ffee11",
                group=f"slots-{1 + self._serial % 3}",
                task_id=self._serial,
                session=f"session-{stream}",
                manifest=f"stream-{stream}",
                seq=self._serial,
                duration_ms=2_000,
                profiles=PROFILES,
                capabilities=0x3,
                deadline_ms=t + 8_000,
            ),
        )
        yield from self._attempts(t, job, orchestrator)

    def _attempts(self, t: int, job: str, orchestrator: str) -> Iterator[Event]:
        dice = self._random
        if dice.random() < 0.002:
            yield self._at(t + 700, _broken(job, orchestrator))
            return
        began, tries, hedged = t, 0, False
        while tries < 3:
            tries += 1
            present = [who for who in self._present(t) if who.share]
            who = dice.choices(present, [each.share for each in present])[0]
            attempt = self._serial * 8 + tries
            took = round(2_000 * who.speed * dice.lognormvariate(0, 0.22))
            yield self._chosen(t + 2, job, attempt, who, tries)
            trouble = self._trouble(t + took, job, attempt, who)
            if trouble is None:
                yield from self._finish(t + took, began, job, orchestrator, attempt, who, took)
                delivered = e.JobDelivered(
                    job=job,
                    orchestrator=orchestrator,
                    attempt=attempt,
                    worker=who.id,
                    duration_ms=2_000,
                    took_ms=t + took + 30 - began,
                    attempts=tries,
                    hedged=hedged,
                )
                yield self._at(t + took + 30, delivered)
                return
            yield trouble
            t += min(took, 900)
        reason = "three workers failed"
        yield self._at(
            t,
            e.JobFailed(
                job=job,
                orchestrator=orchestrator,
                reason=reason,
                answered=True,
                attempts=tries,
                input_fault=False,
            ),
        )

    def _chosen(self, t: int, job: str, attempt: int, who: Character, tries: int) -> Event:
        predicted_ms = round(2_000 * who.speed)
        if tries > 1 and self._random.random() < 0.5:
            hedge = e.JobHedged(
                job=job,
                attempt=attempt,
                worker=who.id,
                predicted_ms=predicted_ms,
                waited_ms=900,
            )
            return self._at(t, hedge)
        reason = self._random.choice(("sticky", "sticky", "chosen")) if tries == 1 else "retry"
        assigned = e.JobAssigned(
            job=job, attempt=attempt, worker=who.id, predicted_ms=predicted_ms, reason=reason
        )
        return self._at(t, assigned)

    def _trouble(self, t: int, job: str, attempt: int, who: Character) -> Event | None:
        if self._random.random() < who.cheats:
            reason = "rendition 720p has 58 frames; the source has 60"
            return self._at(
                t, e.ResultRefused(job=job, attempt=attempt, worker=who.id, reason=reason)
            )
        if self._random.random() < who.fails:
            reason = self._random.choice(("no answer in time", "the encoder ran out of memory"))
            failed = e.AttemptFailed(
                job=job, attempt=attempt, worker=who.id, reason=reason, blamed=True
            )
            return self._at(t, failed)
        return None

    def _finish(
        self,
        t: int,
        began: int,
        job: str,
        orchestrator: str,
        attempt: int,
        who: Character,
        took: int,
    ) -> Iterator[Event]:
        renditions = tuple(
            Rendition(
                name=p.name,
                width=p.width,
                height=p.height,
                frames=60,
                pixels=p.width * p.height * 60,
                bytes=p.bitrate_bps // 4,
                sha256=sha256(f"{job}{p.name}".encode()).hexdigest(),
            )
            for p in PROFILES
        )
        verified = e.JobVerified(
            job=job,
            attempt=attempt,
            worker=who.id,
            source=None,
            renditions=renditions,
            pixels=PIXELS,
            took_ms=took,
        )
        yield self._at(t, verified)
        carry = self._carry.get(who.id, 0)
        fee_wei, carry = fee(PIXELS, PRICE, carry)
        self._carry[who.id] = carry
        kept, paid = commission(fee_wei, COMMISSION_PPM)
        credited = e.FeeCredited(
            job=job,
            orchestrator=orchestrator,
            worker=who.id,
            address=who.address,
            pixels=PIXELS,
            price_wei=price_text(PRICE),
            price_source="status",
            fee_wei=str(fee_wei),
            carry=price_text(Fraction(carry, PRICE.denominator)),
            commission_ppm=COMMISSION_PPM,
            worker_wei=str(paid),
        )
        yield self._at(t + 31, credited)
        taken = e.CommissionTaken(
            job=job, orchestrator=orchestrator, worker=who.id, commission_wei=str(kept)
        )
        yield self._at(t + 31, taken)


def _broken(job: str, orchestrator: str) -> e.JobFailed:
    return e.JobFailed(
        job=job,
        orchestrator=orchestrator,
        reason="the source segment cannot be decoded",
        answered=True,
        attempts=1,
        input_fault=True,
    )


class StoryPool:
    """The live side of the story: implements `web.interface.LivePool`."""

    def __init__(self) -> None:
        self._orchestrators: tuple[OrchestratorView, ...] = ()
        self._workers: tuple[WorkerView, ...] = ()
        self._jobs: tuple[JobView, ...] = ()
        self._reasons: dict[str, list[Reason]] = {}

    def snapshot(self, now_ms: int) -> PoolView:
        return PoolView(
            now_ms=now_ms,
            epoch=1,
            orchestrators=self._orchestrators,
            workers=self._workers,
            jobs=self._jobs,
            waiting=0,
            waiting_max=1000,
            sessions=sum(worker.sessions for worker in self._workers),
            capacity=sum(worker.capacity for worker in self._workers),
        )

    def explain(self, worker: str, now_ms: int) -> list[Reason]:
        return self._reasons.get(worker, [Reason(code="away", text="It is not connected.")])

    def tell(self, now_ms: int) -> None:
        """The story's end: who is connected and what is under way."""
        present = [w for w in CAST if w.share and not w.leaves and w.state == "approved"]
        self._workers = tuple(_connected(who, n, now_ms) for n, who in enumerate(present))
        self._orchestrators = (
            _orchestrator(ORCHESTRATORS[0], up=True),
            _orchestrator(ORCHESTRATORS[1], up=False),
        )
        self._jobs = tuple(_job(n, present[n], now_ms) for n in range(3))
        self._reasons = {who.id: [_reason(who)] for who in present}


def _connected(who: Character, number: int, now_ms: int) -> WorkerView:
    cooling = who.fails >= 0.05
    busy = 0 if cooling else min(who.share // 2, who.capacity)
    connection = ConnectionView(
        connection=f"{who.id}/1",
        kind="stock" if who.stock else "openpool",
        capacity=who.capacity,
        capabilities=0x7FFF,
        version="0.8.9" if who.stock else "0.1.0",
        peer=f"203.0.113.{number + 10}:40000",
        since_ms=now_ms - (number + 1) * 5_400_000,
        sessions=busy,
        in_flight=busy,
    )
    return WorkerView(
        worker=who.id,
        address=who.address,
        state="cooling" if cooling else "ready",
        commission_ppm=COMMISSION_PPM,
        connections=(connection,),
        capacity=who.capacity,
        sessions=busy,
        in_flight=busy,
        cooling_until_ms=now_ms + 40_000 if cooling else 0,
        typical_ms=round(700 * who.speed),
        measured=400,
        assigned=400,
        delivered=390,
        failed=6,
        refused=0,
        last_assigned_ms=now_ms - 900,
        last_reason="no answer in time" if cooling else "",
    )


def _orchestrator(name: str, *, up: bool) -> OrchestratorView:
    groups = tuple(
        GroupView(group=f"slots-{n}", capacity=8, capabilities=0x7FFF, version="0.9.1", up=up)
        for n in (1, 2, 3)
    )
    return OrchestratorView(
        orchestrator=name,
        weight=1,
        up=up,
        incarnation="c0ffee11",
        problem="" if up else "connection refused",
        groups=groups,
        offered=24,
        jobs=3 if up else 0,
        received=6_000,
        delivered=5_990,
        failed=4,
    )


def _job(number: int, who: Character, now_ms: int) -> JobView:
    began_ms = now_ms - 200 * number
    attempt = AttemptView(
        attempt=number,
        worker=who.id,
        state="running",
        since_ms=began_ms + 2,
        predicted_ms=round(2_000 * who.speed),
        hedge=False,
    )
    return JobView(
        job=f"{ORCHESTRATORS[0]}.c0ffee11.{9_000 + number}",
        orchestrator=ORCHESTRATORS[0],
        manifest=f"stream-{number}",
        session=f"session-{number}",
        seq=100 + number,
        state="running",
        duration_ms=2_000,
        received_ms=began_ms,
        deadline_ms=began_ms + 8_000,
        attempts=(attempt,),
    )


def _reason(who: Character) -> Reason:
    if who.fails >= 0.05:
        text = "It is cooling down for another 40 s after repeated failures; the last one: "
        return Reason(code="cooling", text=text + "no answer in time.")
    text = (
        f"It got {who.share * 7} of the last 217 jobs, which went to 6 workers. Among workers that "
        "are quick enough, work goes by turns, in proportion to their sessions."
    )
    return Reason(code="share", text=text)
