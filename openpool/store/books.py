"""Everything that is derived from the log, as one fold over events.

`Books.apply` takes events in log order and keeps balances, carries, minute rollups, worker rows,
counts and open jobs. It is pure, so the same code serves the live store (which writes what
changed, in the transaction of the events), the store in memory, and the proof that log and tables
agree. Must not do I/O. Read next: `core.money.ledger`, `store.tables`, `store.replay`.
"""

from collections.abc import Iterable

from msgspec import Struct, field, structs

from openpool.core import events
from openpool.core.events import Event
from openpool.core.money.accounts import CUSTOMER, LPT
from openpool.core.money.ledger import Balances, CarryKey, Transfer, carry_of, transfers_of
from openpool.store.interface import AppRow, CustomerCallsRow, RollupPoint, WorkerRow

MINUTE_MS = 60_000
BUCKETS_MAX = 100_000
POOL = ""
"""The worker name under which the rollups of the whole pool stand."""
PIPELINE = "pipeline:"
"""Before a pipeline's name: where the rollups of its calls stand among those of workers."""

AppKey = tuple[str, str]
"""Pipeline and model."""

TallyKey = tuple[str, int]
"""Worker (or POOL), and the start of a minute."""


class Tally(Struct):
    """A `RollupPoint` under construction."""

    segments: int = 0
    failed: int = 0
    refused: int = 0
    hedged: int = 0
    media_ms: int = 0
    busy_ms: int = 0
    latency_ms: int = 0
    pixels: int = 0
    fee_wei: int = 0
    worker_wei: int = 0
    calls: int = 0
    calls_failed: int = 0
    call_ms: int = 0
    call_fee_wei: int = 0
    call_worker_wei: int = 0

    def add(self, other: "Tally | RollupPoint") -> None:
        for name in TALLY_FIELDS:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def point(self, start_ms: int) -> RollupPoint:
        return RollupPoint(start_ms=start_ms, **structs.asdict(self))


TALLY_FIELDS = Tally.__struct_fields__


class WorkerTally(Struct):
    """A `WorkerRow` under construction."""

    worker: str
    address: str = ""
    name: str = ""
    group: str = ""
    state: str = "pending"
    enrolled_ms: int = 0
    last_connected_ms: int = 0
    last_disconnected_ms: int = 0
    segments: int = 0
    failed: int = 0
    refused: int = 0
    credited_wei: int = 0
    calls: int = 0
    calls_failed: int = 0
    call_worker_wei: int = 0

    def row(self) -> WorkerRow:
        return WorkerRow(**structs.asdict(self))


class AppTally(Struct):
    """An `AppRow` under construction."""

    pipeline: str
    model: str
    calls: int = 0
    failed: int = 0
    took_ms: int = 0
    first_byte_ms: int = 0
    fee_wei: int = 0

    def row(self) -> AppRow:
        return AppRow(**structs.asdict(self))


class CustomerTally(Struct):
    """A `CustomerCallsRow` under construction."""

    customer: str
    calls: int = 0
    failed: int = 0

    def row(self) -> CustomerCallsRow:
        return CustomerCallsRow(**structs.asdict(self))


class OpenJob(Struct):
    """A job that was received and neither delivered nor failed."""

    seq: int
    """Of its job-received."""
    deadline_ms: int
    busy_ms: int = 0
    """Of its verified result, as is the next."""
    pixels: int = 0


class Changes(Struct):
    """Which keys a fold has touched since these were last taken."""

    accounts: set[str] = field(default_factory=set)
    carries: set[CarryKey] = field(default_factory=set)
    tallies: set[TallyKey] = field(default_factory=set)
    workers: set[str] = field(default_factory=set)
    types: set[str] = field(default_factory=set)
    kinds: set[str] = field(default_factory=set)
    jobs: set[str] = field(default_factory=set)
    apps: set[AppKey] = field(default_factory=set)
    customers: set[str] = field(default_factory=set)
    calls: set[str] = field(default_factory=set)


class Tallies(dict[TallyKey, Tally]):
    """Rollups by worker and minute; a store may look up a missing one where it keeps them."""

    def __missing__(self, key: TallyKey) -> Tally:
        tally = self[key] = self.load(key)
        return tally

    def load(self, key: TallyKey) -> Tally:
        return Tally()

    def written(self) -> None:
        """Called when all of them are stored: those that `load` finds again may be dropped."""


class Books:
    """The state of the fold."""

    def __init__(self, tallies: Tallies | None = None) -> None:
        self.balances = Balances()
        self.carries: dict[CarryKey, int] = {}
        self.tallies = Tallies() if tallies is None else tallies
        self.workers: dict[str, WorkerTally] = {}
        self.counts: dict[str, int] = {}
        self.turnover: dict[str, int] = {}
        """What all transfers of a kind moved; kinds of LPT stand behind `lpt/`."""
        self.open_jobs: dict[str, OpenJob] = {}
        self.apps: dict[AppKey, AppTally] = {}
        self.customers: dict[str, CustomerTally] = {}
        self.open_calls: dict[str, int] = {}
        """Number of the `call-received` of each call that has not ended."""
        self.checkpoints: dict[str, int] = {}
        """Number of the newest `call-checkpointed` of those that have one."""
        self.changes = Changes()

    def apply(self, seq: int, event: Event) -> tuple[Transfer, ...]:
        """Fold one event; what it moved. ValueError for money that is none."""
        kind = event.data.type
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.changes.types.add(kind)
        transfers = transfers_of(event)
        for transfer in transfers:
            self.balances.post(transfer)
            self.changes.accounts.update((transfer.debit, transfer.credit))
            self._turn_over(transfer)
        self._apply(seq, event)
        return transfers

    def take_changes(self) -> Changes:
        """The touched keys since the last call."""
        changes, self.changes = self.changes, Changes()
        return changes

    def _turn_over(self, transfer: Transfer) -> None:
        kind = f"{LPT}{transfer.kind}" if transfer.debit.startswith(LPT) else transfer.kind
        self.turnover[kind] = self.turnover.get(kind, 0) + transfer.amount_wei
        self.changes.kinds.add(kind)

    def _apply(self, seq: int, event: Event) -> None:
        match event.data:
            case events.JobReceived() as data:
                self._open(data.job, OpenJob(seq=seq, deadline_ms=data.deadline_ms))
            case events.JobVerified() as data:
                self._on_verified(data)
            case events.JobDelivered() as data:
                self._on_delivered(event, data)
            case events.JobFailed() as data:
                self._close(data.job)
                self._tally(POOL, event).failed += 1
            case events.FeeCredited() as data:
                self._on_credited(event, data)
            case events.JobHedged() as data:
                for name in (data.worker, POOL):
                    self._tally(name, event).hedged += 1
            case events.AttemptFailed(worker=name, blamed=True):
                self._tally(name, event).failed += 1
                self._worker(name).failed += 1
            case events.ResultRefused() as data:
                for name in (data.worker, POOL):
                    self._tally(name, event).refused += 1
                self._worker(data.worker).refused += 1
            case events.CallReceived(job=name):
                self.open_calls[name] = seq
                self.changes.calls.add(name)
            case events.CallCheckpointed(call=name) if name in self.open_calls:
                self.checkpoints[name] = seq
                self.changes.calls.add(name)
            case events.CallCompleted() as data:
                self._on_call_completed(event, data)
            case events.CallFailed() as data:
                self._on_call_failed(event, data)
            case events.CallAttemptFailed(worker=name, blamed=True):
                self._blame_call(name, event)
            case _:
                self._apply_membership(event)

    def _apply_membership(self, event: Event) -> None:
        match event.data:
            case events.PoolStarted():
                self._forget_abandoned(event.time_ms)
                for name in list(self.open_calls):
                    self._end_call(name)
            case events.WorkerEnrolled() as data:
                worker = self._worker(data.worker)
                worker.address, worker.name, worker.group = data.address, data.name, data.group
                worker.enrolled_ms = event.time_ms
            case events.WorkerApproved() as data:
                self._worker(data.worker).state = "approved"
            case events.WorkerBanned() as data:
                self._worker(data.worker).state = "banned"
            case events.WorkerConnected() | events.LineOpened() as data:
                worker = self._worker(data.worker)
                worker.last_connected_ms = event.time_ms
                if not worker.enrolled_ms:  # known from the configuration, never enrolled
                    worker.state = "approved"
            case events.WorkerDisconnected() | events.LineClosed() as data:
                self._worker(data.worker).last_disconnected_ms = event.time_ms

    def _on_verified(self, data: events.JobVerified) -> None:
        if (job := self.open_jobs.get(data.job)) is not None:
            job.busy_ms, job.pixels = data.took_ms, data.pixels
            self.changes.jobs.add(data.job)

    def _on_delivered(self, event: Event, data: events.JobDelivered) -> None:
        job = self._close(data.job)
        done = Tally(segments=1, media_ms=data.duration_ms, latency_ms=data.took_ms)
        if job is not None:
            done.busy_ms, done.pixels = job.busy_ms, job.pixels
        self._tally(data.worker, event).add(done)
        self._tally(POOL, event).add(done)
        self._worker(data.worker).segments += 1

    def _on_credited(self, event: Event, data: events.FeeCredited) -> None:
        fee_wei, worker_wei = int(data.fee_wei), int(data.worker_wei)
        for name in (data.worker, POOL):
            tally = self._tally(name, event)
            tally.fee_wei += fee_wei
            tally.worker_wei += worker_wei
        self._worker(data.worker).credited_wei += worker_wei
        if data.pipeline:
            self._on_call_credited(event, data, fee_wei, worker_wei)
        elif data.orchestrator.startswith(CUSTOMER):  # a segment of video
            self._customer(data.orchestrator.removeprefix(CUSTOMER)).calls += 1
        if (carry := carry_of(event)) is not None:
            key, numerator = carry
            self.changes.carries.add(key)
            if numerator:
                self.carries[key] = numerator
            else:
                self.carries.pop(key, None)

    def _on_call_completed(self, event: Event, data: events.CallCompleted) -> None:
        """Only answers that were found right count; a bad one counts against its worker."""
        self._end_call(data.job)
        if data.blamed:
            self._blame_call(data.worker, event)
        if not data.checked:
            return
        for name in (data.worker, POOL, PIPELINE + data.pipeline):
            self._tally(name, event).add(Tally(calls=1, call_ms=data.took_ms))
        self._worker(data.worker).calls += 1
        if data.customer:
            self._customer(data.customer).calls += 1
        app = self._app(data.pipeline, data.model)
        app.calls += 1
        app.took_ms += data.took_ms
        app.first_byte_ms += data.first_byte_ms

    def _on_call_failed(self, event: Event, data: events.CallFailed) -> None:
        """A client that hung up is nobody's failure. Names that no worker ever served are not
        kept: a client may ask for anything."""
        self._end_call(data.job)
        if data.code == "cancelled":
            return
        self._tally(POOL, event).calls_failed += 1
        if data.customer:
            self._customer(data.customer).failed += 1
        if (data.pipeline, data.model) in self.apps:
            self._app(data.pipeline, data.model).failed += 1

    def _blame_call(self, worker: str, event: Event) -> None:
        self._tally(worker, event).calls_failed += 1
        self._worker(worker).calls_failed += 1

    def _on_call_credited(
        self, event: Event, data: events.FeeCredited, fee_wei: int, worker_wei: int
    ) -> None:
        for name in (data.worker, POOL, PIPELINE + data.pipeline):
            self._tally(name, event).add(Tally(call_fee_wei=fee_wei, call_worker_wei=worker_wei))
        self._worker(data.worker).call_worker_wei += worker_wei
        self._app(data.pipeline, data.model).fee_wei += fee_wei

    def _open(self, name: str, job: OpenJob) -> None:
        self.open_jobs[name] = job
        self.changes.jobs.add(name)

    def _close(self, name: str) -> OpenJob | None:
        self.changes.jobs.add(name)
        return self.open_jobs.pop(name, None)

    def _forget_abandoned(self, now_ms: int) -> None:
        """Jobs that were open when the pool died, and cannot be delivered any more."""
        for name in [name for name, job in self.open_jobs.items() if job.deadline_ms <= now_ms]:
            self._close(name)

    def _tally(self, worker: str, event: Event) -> Tally:
        key = (worker, event.time_ms - event.time_ms % MINUTE_MS)
        self.changes.tallies.add(key)
        return self.tallies[key]

    def _app(self, pipeline: str, model: str) -> AppTally:
        key = (pipeline, model)
        self.changes.apps.add(key)
        app = self.apps.get(key)
        if app is None:
            app = self.apps[key] = AppTally(pipeline=pipeline, model=model)
        return app

    def _end_call(self, name: str) -> None:
        """No more comes of a call; saying so twice is no error."""
        if self.open_calls.pop(name, None) is not None:
            self.checkpoints.pop(name, None)
            self.changes.calls.add(name)

    def _customer(self, name: str) -> CustomerTally:
        self.changes.customers.add(name)
        return self.customers.setdefault(name, CustomerTally(customer=name))

    def _worker(self, name: str) -> WorkerTally:
        self.changes.workers.add(name)
        worker = self.workers.get(name)
        if worker is None:
            worker = self.workers[name] = WorkerTally(worker=name)
        return worker


def attempts_of(story: Iterable[Event]) -> list[tuple[int, str]]:
    """The attempts of one job that may still deliver, from its events: (attempt, worker)."""
    running: dict[int, str] = {}
    for event in story:
        match event.data:
            case events.JobAssigned(attempt=attempt, worker=worker):
                running[attempt] = worker
            case events.JobHedged(attempt=attempt, worker=worker):
                running[attempt] = worker
            case events.AttemptFailed(attempt=attempt) | events.ResultRefused(attempt=attempt):
                running.pop(attempt, None)
    return list(running.items())


def empty_buckets(start_ms: int, end_ms: int, step_ms: int) -> tuple[int, list[Tally]]:
    """Where the first bucket of a series starts, and one tally per bucket.

    ValueError for a step that is no multiple of a minute, or for more than BUCKETS_MAX buckets.
    """
    if step_ms <= 0 or step_ms % MINUTE_MS:
        raise ValueError(f"step_ms must be a multiple of {MINUTE_MS}, not {step_ms}")
    first = start_ms - start_ms % step_ms
    count = max(0, -(-(end_ms - first) // step_ms))
    if count > BUCKETS_MAX:
        raise ValueError(f"this series has more than {BUCKETS_MAX} points; use a longer step")
    return first, [Tally() for _ in range(count)]
