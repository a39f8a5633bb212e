"""What the core tells shells to do: the outputs of `Pool.handle`, in the imperative.

A shell that finishes puts another fact into `Pool.handle`; there is no second door.
"""

from typing import Literal

from msgspec import Struct

from openpool.core.model import Segment

Outcome = Literal["credited", "refused", "unneeded", "late"]


class OpenGroup(Struct, frozen=True, kw_only=True):
    """Register a slot group with an orchestrator, and keep it registered."""

    orchestrator: str
    group: str
    capacity: int
    capabilities: int
    version: str


class CloseGroup(Struct, frozen=True, kw_only=True):
    """Unregister a slot group. Its running tasks still get their answers."""

    orchestrator: str
    group: str


class FetchSource(Struct, frozen=True, kw_only=True):
    """Fetch a job's source segment from the orchestrator, once."""

    job: str
    orchestrator: str
    url: str
    deadline_ms: int


class Assign(Struct, frozen=True, kw_only=True):
    """Notify a worker of an attempt."""

    job: str
    attempt: int
    worker: str
    connection: str
    orchestrator: str
    session: str
    manifest: str
    segment: Segment
    deadline_ms: int


class CancelAttempt(Struct, frozen=True, kw_only=True):
    """Tell a worker that an attempt is not needed any more (only our own worker understands)."""

    attempt: int
    connection: str


class EndSession(Struct, frozen=True, kw_only=True):
    """Tell a worker to free what it keeps for a session."""

    connection: str
    orchestrator: str
    session: str


class CheckResult(Struct, frozen=True, kw_only=True):
    """Open and measure an attempt's result against what was asked for."""

    job: str
    attempt: int
    segment: Segment


class Deliver(Struct, frozen=True, kw_only=True):
    """Send a checked result upstream. `pixels` per rendition are the pool's own counts."""

    job: str
    attempt: int
    orchestrator: str
    incarnation: str
    task_id: int
    pixels: tuple[int, ...]
    source_pixels: int
    deadline_ms: int


class DeliverError(Struct, frozen=True, kw_only=True):
    """Tell the orchestrator that a task failed."""

    job: str
    orchestrator: str
    incarnation: str
    task_id: int
    text: str
    input_fault: bool = False
    """Whether the source is to blame, as the pool confirmed."""
    tried: int = 0
    """How many attempts there were."""


class Settle(Struct, frozen=True, kw_only=True):
    """Answer the worker's upload. Done only after the events of the same step are durable."""

    attempt: int
    outcome: Outcome
    text: str


class ForgetJob(Struct, frozen=True, kw_only=True):
    """Drop the bytes kept for a job."""

    job: str


Instruction = (
    OpenGroup
    | CloseGroup
    | FetchSource
    | Assign
    | CancelAttempt
    | EndSession
    | CheckResult
    | Deliver
    | DeliverError
    | Settle
    | ForgetJob
)
