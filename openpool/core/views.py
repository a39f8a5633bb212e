"""The state of the core as plain values, for pages, metrics and the terminal."""

from typing import TYPE_CHECKING

from msgspec import Struct

from openpool.core.jobs import Job
from openpool.core.model import WorkerKind
from openpool.core.orchestrators import Group, Orchestrator
from openpool.core.roster import Connection, Worker

if TYPE_CHECKING:
    from openpool.core.pool import Pool

TYPICAL_UNITS = 2000 * 1280 * 720
"""The work by which workers are compared: 2 s of one 720p rendition."""


class GroupView(Struct, frozen=True, kw_only=True):
    group: str
    capacity: int
    capabilities: int
    version: str
    up: bool


class OrchestratorView(Struct, frozen=True, kw_only=True):
    orchestrator: str
    weight: int
    up: bool
    incarnation: str
    problem: str
    """Why it cannot be reached; empty while it can."""
    groups: tuple[GroupView, ...]
    offered: int
    """Sessions offered to it."""
    jobs: int
    """Jobs under way."""
    received: int
    delivered: int
    failed: int


class ConnectionView(Struct, frozen=True, kw_only=True):
    connection: str
    kind: WorkerKind
    capacity: int
    capabilities: int
    version: str
    peer: str
    since_ms: int
    sessions: int
    in_flight: int


class WorkerView(Struct, frozen=True, kw_only=True):
    """A worker that was connected at some time since the pool's start."""

    worker: str
    address: str
    state: str
    """`ready`, `full`, `cooling`, `banned` or `away`."""
    commission_ppm: int
    connections: tuple[ConnectionView, ...]
    capacity: int
    sessions: int
    in_flight: int
    cooling_until_ms: int
    typical_ms: int
    """Expected time for 2 s of one 720p rendition."""
    measured: int
    """Results that this expectation stands on."""
    assigned: int
    delivered: int
    failed: int
    refused: int
    last_assigned_ms: int
    last_reason: str
    """Why its latest failure happened; empty if none did."""


class AttemptView(Struct, frozen=True, kw_only=True):
    attempt: int
    worker: str
    state: str
    since_ms: int
    predicted_ms: int
    hedge: bool


class JobView(Struct, frozen=True, kw_only=True):
    job: str
    orchestrator: str
    manifest: str
    session: str
    seq: int
    state: str
    duration_ms: int
    received_ms: int
    deadline_ms: int
    attempts: tuple[AttemptView, ...]


class PoolView(Struct, frozen=True, kw_only=True):
    """Everything at one moment."""

    now_ms: int
    epoch: int
    orchestrators: tuple[OrchestratorView, ...]
    workers: tuple[WorkerView, ...]
    jobs: tuple[JobView, ...]
    """Those not over, oldest first."""
    waiting: int
    """Jobs that wait for a free worker."""
    waiting_max: int
    sessions: int
    capacity: int
    """Sessions of all workers that may get work now."""


def snapshot(pool: "Pool", now_ms: int) -> PoolView:
    """Copy what is to be shown."""
    jobs = [
        pool.lifecycle.jobs[job_id]
        for one in pool.orchestrators.all.values()
        for job_id in one.jobs
    ]
    return PoolView(
        now_ms=now_ms,
        epoch=pool.out.epoch,
        orchestrators=tuple(map(_orchestrator, pool.orchestrators.all.values())),
        workers=tuple(map(_worker, pool.roster.workers.values())),
        jobs=tuple(map(_job, sorted(jobs, key=lambda job: job.received_ms))),
        waiting=len(pool.dispatch.waiting),
        waiting_max=pool.settings.queue_max,
        sessions=len(pool.roster.sessions),
        capacity=sum(lane.capacity for lane in pool.roster.lanes.all.values()),
    )


def state_of(worker: Worker) -> str:
    """What a worker is doing, in one word."""
    if worker.banned:
        return "banned"
    if not worker.connections:
        return "away"
    if worker.cooling:
        return "cooling"
    free = any(len(each.holds) < each.capacity for each in worker.connections.values())
    return "ready" if free else "full"


def _orchestrator(one: Orchestrator) -> OrchestratorView:
    groups = tuple(map(_group, one.groups.values()))
    return OrchestratorView(
        orchestrator=one.name,
        weight=one.weight,
        up=one.up,
        incarnation=one.incarnation,
        problem=one.problem,
        groups=groups,
        offered=sum(group.capacity for group in groups),
        jobs=len(one.jobs),
        received=one.received,
        delivered=one.delivered,
        failed=one.failed,
    )


def _group(group: Group) -> GroupView:
    offer = group.live.offer
    return GroupView(
        group=group.live.name,
        capacity=offer.capacity,
        capabilities=offer.bits,
        version=offer.version,
        up=group.up,
    )


def _worker(worker: Worker) -> WorkerView:
    connections = tuple(map(_connection, worker.connections.values()))
    return WorkerView(
        worker=worker.name,
        address=worker.address,
        state=state_of(worker),
        commission_ppm=worker.commission_ppm,
        connections=connections,
        capacity=sum(each.capacity for each in connections),
        sessions=sum(each.sessions for each in connections),
        in_flight=sum(each.in_flight for each in connections),
        cooling_until_ms=worker.cooling_until_ms,
        typical_ms=worker.estimate.predict_ms(TYPICAL_UNITS, 0),
        measured=worker.estimate.samples,
        assigned=worker.assigned,
        delivered=worker.delivered,
        failed=worker.failed,
        refused=worker.refused,
        last_assigned_ms=worker.last_assigned_ms,
        last_reason=worker.last_reason,
    )


def _connection(connection: Connection) -> ConnectionView:
    return ConnectionView(
        connection=connection.id,
        kind=connection.kind,
        capacity=connection.capacity,
        capabilities=connection.bits,
        version=connection.version,
        peer=connection.peer,
        since_ms=connection.since_ms,
        sessions=len(connection.holds),
        in_flight=connection.in_flight,
    )


def _job(job: Job) -> JobView:
    return JobView(
        job=job.id,
        orchestrator=job.orchestrator,
        manifest=job.manifest,
        session=job.session.key[1],
        seq=job.segment.seq,
        state=job.state.value,
        duration_ms=job.segment.duration_ms,
        received_ms=job.received_ms,
        deadline_ms=job.deadline_ms,
        attempts=tuple(
            AttemptView(
                attempt=each.id,
                worker=each.worker,
                state=each.state.value,
                since_ms=each.assigned_ms,
                predicted_ms=each.predicted_ms,
                hedge=each.hedge,
            )
            for each in job.attempts
        ),
    )
