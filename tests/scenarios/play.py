"""The language of the scenarios of segments, played to the pool (`scenarios.frame`).

A scenario is blocks of commands, `----`, and the story that they give. Attempts are called #1, #2
…, with the epoch before the # from the second start on; jobs by orchestrator and task id.
"""

from fractions import Fraction

from scenarios.frame import Frame

from openpool.core import capabilities, events, facts
from openpool.core.events import Event
from openpool.core.instructions import (
    Assign,
    CancelAttempt,
    CheckResult,
    CloseGroup,
    Deliver,
    DeliverError,
    EndSession,
    FetchSource,
    ForgetJob,
    Instruction,
    OpenGroup,
    Settle,
)
from openpool.core.model import Profile, Rendition, Segment, SourceInfo, Verdict
from openpool.core.pool import Pool, PoolSettings

PROFILES = (Profile(name="720p", width=1280, height=720, bitrate_bps=3_000_000),)
NEEDS = capabilities.bit_set(0, 1, 12, 26)
SOURCE = SourceInfo(width=1920, height=1080, frames=60, duration_ms=2000, bytes=10**6)


class Play(Frame):
    """Plays commands to a pool and tells what happened."""

    def __init__(self) -> None:
        super().__init__()
        self.settings = PoolSettings()
        self.weights = {"main": 1}
        self.epoch = 1
        self.pool = Pool(self.settings, self.weights, self.epoch)
        self.certs: dict[str, str] = {}
        self.workers: dict[str, facts.WorkerUp] = {}

    @property
    def core(self) -> Pool:
        return self.pool

    # --- commands ------------------------------------------------------------------------------

    def do_pool(self, **settings: str) -> None:
        """The settings, and by `weight.NAME=n` the orchestrators; first of all."""
        weights = {k[7:]: int(v) for k, v in settings.items() if k.startswith("weight.")}
        self.weights = weights or self.weights
        values = {k: int(v) for k, v in settings.items() if not k.startswith("weight.")}
        self.settings = PoolSettings(**{k: _as_type(k, v) for k, v in values.items()})
        self.pool = Pool(self.settings, self.weights, self.epoch)

    def do_orchestrator(self, name: str, cert: str) -> None:
        self.certs[name] = cert
        self.feed(facts.OrchestratorSeen(orchestrator=name, incarnation=cert))

    def do_orchestrator_lost(self, name: str, *reason: str) -> None:
        self.feed(facts.OrchestratorLost(orchestrator=name, reason=" ".join(reason)))

    def do_group_up(self, name: str, group: str) -> None:
        self.feed(facts.GroupUp(orchestrator=name, group=group))

    def do_group_down(self, name: str, group: str, *reason: str) -> None:
        self.feed(facts.GroupDown(orchestrator=name, group=group, reason=" ".join(reason)))

    def do_price(self, name: str, wei: str, manifest: str = "") -> None:
        self.feed(
            facts.PriceKnown(
                orchestrator=name, manifest=manifest, price_wei=Fraction(wei), source="config"
            )
        )

    def do_worker(self, name: str, **named: str) -> None:
        """A worker registers: `capacity`, `kind`, `can` (more capabilities), `version`, …"""
        extra = [_capability(word) for word in named.get("can", "").split(",") if word]
        fact = facts.WorkerUp(
            worker=name,
            address=f"0x{name}",
            connection=named.get("connection", name),
            kind="openpool" if named.get("kind") == "openpool" else "stock",
            capacity=int(named.get("capacity", "1")),
            capabilities=capabilities.DEFAULT | capabilities.bit_set(*extra),
            version=named.get("version", "0.9.1"),
            commission_ppm=int(named.get("commission", "250000")),
        )
        self.workers[fact.connection] = fact
        self.feed(fact)

    def do_gone(self, connection: str) -> None:
        self.feed(facts.WorkerDown(connection=connection, reason="connection reset"))

    def do_ban(self, name: str, *reason: str) -> None:
        self.feed(facts.WorkerRemoved(worker=name, reason=" ".join(reason)))

    def do_segment(self, job: str, **named: str) -> None:
        """A task: `session`, `duration`, `needs`, `min` (version), `cert`, `manifest`, `payer`."""
        name, task = job.split("/")
        needs = [_capability(word) for word in named.get("needs", "").split(",") if word]
        segment = Segment(
            seq=int(task),
            duration_ms=int(named.get("duration", "2000")),
            profiles=PROFILES,
            capabilities=NEEDS | capabilities.bit_set(*needs),
            min_version=named.get("min", ""),
        )
        self.feed(
            facts.SegmentReceived(
                orchestrator=name,
                incarnation=named.get("cert", self.certs.get(name, "cert")),
                group="g",
                task_id=int(task),
                session=named.get("session", "s"),
                manifest=named.get("manifest", "m"),
                segment=segment,
                source_url="https://o/0.ts",
                payer=named.get("payer", ""),
            )
        )

    def do_session_ended(self, name: str, session: str) -> None:
        self.feed(facts.SessionEnded(orchestrator=name, session=session))

    def do_source_lost(self, job: str, *reason: str) -> None:
        self.feed(facts.SourceLost(job=self._job(job), reason=" ".join(reason)))

    def do_result(self, attempt: str, by: str = "") -> None:
        number = self._attempt(attempt)
        self.feed(
            facts.ResultReceived(attempt=number, worker=by or self._worker(number), bytes=1000)
        )

    def do_checked(self, attempt: str, what: str, *reason: str, pixels: str = "55296000") -> None:
        """`ok`, `bad REASON`, or `input REASON`."""
        rendition = Rendition(
            name="720p", width=1280, height=720, frames=60, pixels=int(pixels), bytes=9, sha256=""
        )
        verdict = Verdict(
            ok=what == "ok",
            reason=" ".join(reason),
            input_fault=what == "input",
            source=SOURCE,
            renditions=(rendition,) if what == "ok" else (),
        )
        self.feed(facts.ResultChecked(attempt=self._attempt(attempt), verdict=verdict))

    def do_error(self, attempt: str, *reason: str) -> None:
        number = self._attempt(attempt)
        self.feed(
            facts.AttemptErred(attempt=number, worker=self._worker(number), reason=" ".join(reason))
        )

    def do_delivered(self, job: str, *reason: str) -> None:
        """Taken; with a reason: not taken."""
        text = " ".join(reason)
        self.feed(facts.Delivered(job=self._job(job), accepted=not text, reason=text))

    def do_work(self, attempt: str) -> None:
        """Result, checked and found good, delivered and taken; all at once."""
        number = self._attempt(attempt)
        job = self.pool.dispatch.attempts[number].job
        self.do_result(attempt)
        self.do_checked(attempt, "ok")
        self.do_delivered(f"{job.orchestrator}/{job.task_id}")

    def do_restart(self) -> None:
        """The pool dies, and starts again from its log; all connections are gone."""
        self.epoch += 1
        self.pool = Pool(self.settings, self.weights, self.epoch)
        over = {
            event.data.job
            for event in self.log.values()
            if isinstance(event.data, events.JobDelivered | events.JobFailed)
        }
        for event in list(self.log.values()):
            if isinstance(event.data, events.JobReceived) and event.data.job not in over:
                attempts = self._attempts_of(event.data.job)
                for _, worker in attempts:
                    self.feed(
                        facts.WorkerKnown(
                            worker=worker, address=f"0x{worker}", commission_ppm=250_000
                        )
                    )
                self.feed(facts.JobRestored(received=event.data, attempts=attempts))

    # --- names ---------------------------------------------------------------------------------

    def _job(self, name: str) -> str:
        orchestrator, task = name.split("/")
        return f"{orchestrator}.{self.certs[orchestrator]}.{task}"

    def _attempt(self, name: str) -> int:
        epoch, number = name.split("#")
        return int(epoch or self.epoch) << 32 | int(number)

    def _worker(self, attempt: int) -> str:
        for event in self.log.values():
            data = event.data
            if isinstance(data, events.JobAssigned | events.JobHedged) and data.attempt == attempt:
                return data.worker
        return "nobody"

    def _attempts_of(self, job: str) -> tuple[tuple[int, str], ...]:
        return tuple(
            (event.data.attempt, event.data.worker)
            for event in self.log.values()
            if isinstance(event.data, events.JobAssigned | events.JobHedged)
            and event.data.job == job
        )

    # --- what happened, in words ---------------------------------------------------------------

    def instruction(self, what: Instruction) -> str:
        """An instruction in words; those that only tidy up are not told."""
        match what:
            case Assign():
                return f"assign {_name(what.job)} to {what.worker} as {_number(what.attempt)}"
            case CancelAttempt():
                return f"cancel {_number(what.attempt)}"
            case EndSession():
                return f"end session {what.session} on {what.connection}"
            case CheckResult():
                return f"check {_number(what.attempt)}"
            case Deliver():
                pixels = "+".join(map(str, what.pixels))
                return f"deliver {_number(what.attempt)} for {_name(what.job)}, {pixels} pixels"
            case DeliverError():
                return f"answer {_name(what.job)} with the error {what.text!r}"
            case Settle():
                return f"settle {_number(what.attempt)}: {what.outcome}, {what.text}"
            case OpenGroup():
                return f"open {what.group} at {what.orchestrator}, {_offer(what)}"
            case CloseGroup():
                return f"close {what.group} at {what.orchestrator}"
            case FetchSource():
                return f"fetch the source of {_name(what.job)}"
            case ForgetJob():
                return f"forget {_name(what.job)}"

    def event(self, event: Event) -> str:
        """An event in words."""
        match event.data:
            case events.JobReceived() as data:
                return f"* job-received: {_name(data.job)}, until {data.deadline_ms}"
            case events.JobAssigned() as data:
                return f"* job-assigned: {data.worker}, {data.reason}"
            case events.JobHedged() as data:
                return f"* job-hedged: {data.worker} after {data.waited_ms} ms"
            case events.AttemptFailed() as data:
                fault = "its fault" if data.blamed else "not its fault"
                return f"* attempt-failed: {data.worker}, {fault}: {data.reason}"
            case events.ResultRefused() as data:
                return f"* result-refused: {data.worker}: {data.reason}"
            case events.JobVerified() as data:
                return f"* job-verified: {data.worker}, {data.pixels} pixels, {data.took_ms} ms"
            case events.JobDelivered() as data:
                return f"* job-delivered: {_name(data.job)} by {data.worker}, {data.took_ms} ms"
            case events.JobFailed() as data:
                told = "was told" if data.answered else "was not told"
                return f"* job-failed: {_name(data.job)}: {data.reason} (orchestrator {told})"
            case events.FeeCredited() as data:
                payer = "" if data.orchestrator in self.certs else f" from {data.orchestrator}"
                return (
                    f"* fee-credited: {data.worker_wei} of {data.fee_wei} wei{payer} to "
                    f"{data.address}, "
                    f"{data.pixels} pixels at {data.price_wei} ({data.price_source}), "
                    f"carry {data.carry}"
                )
            case events.CommissionTaken() as data:
                return f"* commission-taken: {data.commission_wei} wei"
            case events.WorkerCooledDown() as data:
                return f"* worker-cooled-down: {data.worker} until {data.until_ms}: {data.reason}"
            case events.OrchestratorRestarted() as data:
                return f"* orchestrator-restarted: {data.orchestrator} was {data.previous}"
            case data:
                return f"* {event.type}: {getattr(data, 'worker', '') or _subject(data)}"


def _subject(data: object) -> str:
    return str(getattr(data, "group", "") or getattr(data, "orchestrator", ""))


def _as_type(name: str, value: int) -> int | bool:
    return bool(value) if name == "hedge" else value


def _capability(word: str) -> int:
    return capabilities.Capability[word.upper().replace("-", "_")]


def _name(job: str) -> str:
    orchestrator, _, task = job.split(".")
    return f"{orchestrator}/{task}"


def _number(attempt: int) -> str:
    epoch = attempt >> 32
    return f"{epoch if epoch > 1 else ''}#{attempt & 0xFFFFFFFF}"


def _offer(what: OpenGroup) -> str:
    extra = capabilities.names(what.capabilities & ~capabilities.DEFAULT)
    more = f" and {', '.join(extra)}" if extra else ""
    return f"{what.capacity} sessions, {what.version}, defaults{more}"
