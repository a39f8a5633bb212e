"""What shells tell the core: the inputs of `Pool.handle`, in the past tense.

Facts are fleeting; what deserves remembering becomes an event (`core.events`). Ids:

- `orchestrator`, `worker`   names from the configuration and from enrolment
- `connection`               one registration stream of a worker, unique for ever
- `session`                  the orchestrator's own id of a stream, never shown to workers
- `job`                      made by the core: `<orchestrator>.<incarnation>.<task id>`
- `attempt`                  made by the core: one try of a job on one worker; the task id on the
                             worker's side, `epoch << 32 | counter`
"""

from fractions import Fraction

from msgspec import Struct

from openpool.core.events import JobReceived
from openpool.core.model import Segment, Verdict, WorkerKind


class OrchestratorSeen(Struct, frozen=True, kw_only=True):
    """A registration stream to this orchestrator opened, showing this certificate."""

    orchestrator: str
    incarnation: str


class OrchestratorLost(Struct, frozen=True, kw_only=True):
    """No stream to this orchestrator is open any more, and it cannot be dialled."""

    orchestrator: str
    reason: str


class GroupUp(Struct, frozen=True, kw_only=True):
    """A slot group is registered (silence after the request counts as success)."""

    orchestrator: str
    group: str


class GroupDown(Struct, frozen=True, kw_only=True):
    """A group's stream ended; the shell dials again by itself while the group is wanted."""

    orchestrator: str
    group: str
    reason: str


class WorkerUp(Struct, frozen=True, kw_only=True):
    """A worker registered."""

    worker: str
    address: str
    connection: str
    kind: WorkerKind
    capacity: int
    """Sessions it can run at once."""
    capabilities: int
    version: str
    commission_ppm: int
    peer: str = ""


class WorkerKnown(Struct, frozen=True, kw_only=True):
    """The account of an enrolled worker. Told at start for the workers of restored jobs: their
    results may arrive, and must be credited rightly, before their streams are back. And told when
    other terms begin to apply."""

    worker: str
    address: str
    commission_ppm: int


class WorkerDown(Struct, frozen=True, kw_only=True):
    """A worker's stream ended. Its running attempts may still deliver."""

    connection: str
    reason: str


class WorkerRemoved(Struct, frozen=True, kw_only=True):
    """A worker was banned: its results are not wanted any more."""

    worker: str
    reason: str


class SegmentReceived(Struct, frozen=True, kw_only=True):
    """An orchestrator notified a group of a task."""

    orchestrator: str
    incarnation: str
    group: str
    task_id: int
    session: str
    manifest: str
    segment: Segment
    source_url: str = ""
    payer: str = ""
    """Who pays if it is not the orchestrator: `core.customers.payer` of a customer."""


class SessionEnded(Struct, frozen=True, kw_only=True):
    """The orchestrator says that a stream has ended."""

    orchestrator: str
    session: str


class SourceLost(Struct, frozen=True, kw_only=True):
    """The source segment cannot be fetched from the orchestrator."""

    job: str
    reason: str


class SourceFaulted(Struct, frozen=True, kw_only=True):
    """The pool opened the source itself and nobody can transcode it; `reason` says why."""

    job: str
    reason: str


class ResultReceived(Struct, frozen=True, kw_only=True):
    """A worker uploaded renditions for an attempt; the shell holds the bytes."""

    attempt: int
    worker: str
    bytes: int


class ResultChecked(Struct, frozen=True, kw_only=True):
    """A result was opened and measured."""

    attempt: int
    verdict: Verdict


class AttemptErred(Struct, frozen=True, kw_only=True):
    """A worker reported an error, or its upload was unusable."""

    attempt: int
    worker: str
    reason: str


class Delivered(Struct, frozen=True, kw_only=True):
    """The orchestrator answered (or not) to what the pool delivered for a job.

    Follows every `Deliver` and every `DeliverError`, once, by the deadline at the latest.
    """

    job: str
    accepted: bool
    reason: str = ""


class PriceKnown(Struct, frozen=True, kw_only=True):
    """What a pixel pays, for the orchestrator (`manifest=""`) or for one stream."""

    orchestrator: str
    manifest: str
    price_wei: Fraction
    source: str


class JobRestored(Struct, frozen=True, kw_only=True):
    """After a restart: a job that was open when the pool died, and its attempts (id, worker)."""

    received: JobReceived
    attempts: tuple[tuple[int, str], ...]


class Tick(Struct, frozen=True, kw_only=True):
    """Time has passed; sent when `Pool.wake_at()` is reached."""


Fact = (
    OrchestratorSeen
    | OrchestratorLost
    | GroupUp
    | GroupDown
    | WorkerUp
    | WorkerKnown
    | WorkerDown
    | WorkerRemoved
    | SegmentReceived
    | SessionEnded
    | SourceLost
    | SourceFaulted
    | ResultReceived
    | ResultChecked
    | AttemptErred
    | Delivered
    | PriceKnown
    | JobRestored
    | Tick
)
