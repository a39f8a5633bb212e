"""Jobs and their attempts, and the states they go through. Plain records: `core.pool` acts."""

from dataclasses import dataclass, field
from enum import Enum

from openpool.core.events import JobReceived
from openpool.core.facts import SegmentReceived
from openpool.core.instructions import Outcome
from openpool.core.model import Segment, Verdict
from openpool.core.roster import Connection, Session, SessionKey
from openpool.core.step import Timer
from openpool.core.texts import one_line

DEADLINE_MIN_MS = 8_000
"""An orchestrator waits max(8 s, 4 x duration) for a result."""
TARGET_MIN_MS = 1_500
"""Gateways forgive round trips up to this, however short the segment."""
REASON_LENGTH = 200

INPUT_ERRORS = frozenset(
    {
        "Unsupported input pixel format",
        "Error initializing filtergraph",
        "Too many outputs",
        "Unsupported input codec",
        "No keyframes in input",
        "Encoded frames runaway",
        "Invalid argument",
        "TranscoderInvalidResolution",
        "TranscoderInvalidVideo",
        "TranscoderUnrecognizedFormat",
        "TranscoderUnrecognizedProfile",
        "TranscoderInvalidGOP",
    }
)
"""Texts for which a gateway blames the segment and keeps the orchestrator.

Only those that can be about the input. A gateway is as lenient about some that are about the
machine ("Encoder not found"); from a worker these are its own trouble and retried elsewhere.
"""

DEFAULT_INPUT_ERROR = "TranscoderInvalidVideo"


class JobState(Enum):
    """Where a job stands."""

    WAITING = "waiting"
    RUNNING = "running"
    HELD = "held"
    DELIVERING = "delivering"
    FAILING = "failing"
    OVER = "over"


JOB_MOVES: dict[JobState, frozenset[JobState]] = {
    JobState.WAITING: frozenset({JobState.RUNNING, JobState.FAILING, JobState.OVER}),
    JobState.RUNNING: frozenset(
        {
            JobState.WAITING,
            JobState.HELD,
            JobState.DELIVERING,
            JobState.FAILING,
            JobState.OVER,
        }
    ),
    JobState.HELD: frozenset({JobState.DELIVERING, JobState.OVER}),
    JobState.DELIVERING: frozenset({JobState.FAILING, JobState.OVER}),
    JobState.FAILING: frozenset({JobState.OVER}),
    JobState.OVER: frozenset(),
}
"""Every way a job can go; the words are in `core.pool`."""

OPEN = frozenset({JobState.WAITING, JobState.RUNNING})
"""States in which a good result is still wanted."""


class AttemptState(Enum):
    """Where an attempt stands."""

    RUNNING = "running"
    LOST = "lost"
    """Its connection broke; its result is welcome all the same."""
    CHECKING = "checking"
    GOOD = "good"
    OVER = "over"


@dataclass(slots=True, eq=False)
class Attempt:
    """One try of a job on one worker."""

    id: int
    job: "Job"
    worker: str
    connection: Connection | None
    """None for one from before a restart."""
    session: SessionKey
    assigned_ms: int
    predicted_ms: int = 0
    load: int = 0
    hedge: bool = False
    trial: bool = False
    """Nobody knows how fast the worker is now; a second one is asked sooner."""
    state: AttemptState = AttemptState.RUNNING
    holding: bool = False
    """Whether it occupies a place of its connection."""
    answered: bool = False
    """Whether the worker sent a result or an error."""
    took_ms: int = 0
    verdict: Verdict | None = None
    outcome: Outcome | None = None
    text: str = ""
    input_error: str = ""
    """Set when the worker says that the input is broken."""


@dataclass(slots=True, eq=False)
class Job:
    """One segment to be transcoded."""

    id: str
    orchestrator: str
    incarnation: str
    group: str
    task_id: int
    session: Session
    manifest: str
    segment: Segment
    source_url: str
    payer: str
    """Who pays; empty for the orchestrator."""
    units: int
    received_ms: int
    deadline_ms: int
    hard_stop_ms: int
    """When an error goes back if there is nothing better."""
    soft_ms: int
    """When a first try counts as slow."""
    wait_until_ms: int
    """How long it may wait for a free worker."""
    state: JobState = JobState.WAITING
    attempts: list[Attempt] = field(default_factory=list)
    hedge_at_ms: int = 0
    """When to think of a further try; 0 is never."""
    hedged: bool = False
    fetched: bool = False
    forgotten: bool = False
    source_lost: str = ""
    good: Attempt | None = None
    failure: str = ""
    input_fault: bool = False
    timer: Timer | None = None

    @property
    def running(self) -> list[Attempt]:
        """Attempts that may still bring a result."""
        return [each for each in self.attempts if each.state in _MAY_BRING]

    def live(self) -> bool:
        """Whether an attempt works for it right now, or its result is being opened."""
        return any(each.state in _LIVE for each in self.attempts)

    def tried(self) -> frozenset[str]:
        """Workers that had it."""
        return frozenset(each.worker for each in self.attempts)

    def move(self, state: JobState) -> None:
        """Go to another state; an impossible move is a bug."""
        assert state in JOB_MOVES[self.state], f"{self.id}: {self.state} -> {state}"
        self.state = state


_LIVE = frozenset({AttemptState.RUNNING, AttemptState.CHECKING})
_MAY_BRING = _LIVE | {AttemptState.LOST}


def deadline_ms(received_ms: int, duration_ms: int) -> int:
    """When the orchestrator gives up on a segment that it notified us of at `received_ms`."""
    return received_ms + max(DEADLINE_MIN_MS, 4 * duration_ms)


def tidy_reason(text: str) -> str:
    """A peer's words, fit for one line of a log or a page."""
    return one_line(text, REASON_LENGTH)


def job_received(job: Job) -> JobReceived:
    """The event that a job begins with: enough to take it up again after a restart."""
    segment = job.segment
    return JobReceived(
        job=job.id,
        orchestrator=job.orchestrator,
        incarnation=job.incarnation,
        group=job.group,
        task_id=job.task_id,
        session=job.session.key[1],
        manifest=job.manifest,
        seq=segment.seq,
        duration_ms=segment.duration_ms,
        profiles=segment.profiles,
        capabilities=segment.capabilities,
        deadline_ms=job.deadline_ms,
        source_url=job.source_url,
        min_version=segment.min_version,
        perceptual_hash=segment.perceptual_hash,
        clip_from_ms=segment.clip_from_ms,
        clip_to_ms=segment.clip_to_ms,
        orchestrator_address=segment.orchestrator_address,
        payer=job.payer,
    )


def segment_received(was: JobReceived) -> SegmentReceived:
    """The fact from which an event came."""
    segment = Segment(
        seq=was.seq,
        duration_ms=was.duration_ms,
        profiles=was.profiles,
        capabilities=was.capabilities,
        min_version=was.min_version,
        perceptual_hash=was.perceptual_hash,
        clip_from_ms=was.clip_from_ms,
        clip_to_ms=was.clip_to_ms,
        reinit=True,
        orchestrator_address=was.orchestrator_address,
    )
    return SegmentReceived(
        orchestrator=was.orchestrator,
        incarnation=was.incarnation,
        group=was.group,
        task_id=was.task_id,
        session=was.session,
        manifest=was.manifest,
        segment=segment,
        source_url=was.source_url,
        payer=was.payer,
    )
