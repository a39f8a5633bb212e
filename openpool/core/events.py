"""The event catalogue: every fact the pool records, in the past tense.

An event is written once, is never changed, and may be offered twice: its `id` is made from the
fact itself, and the log keeps the first. All that people see (pages, metrics, balances, scores)
is derived from these. Wei are decimal strings, since JSON numbers lose digits above 2**53.

A field may be added with a default. A change of meaning is a new class with the next `v`.

    pool            started · stopped
    orchestrator    up · down · restarted          group     opened · closed
    worker          enrolled · approved · banned · connected · disconnected · cooled-down
    token           issued · revoked
    price           changed
    job             received · assigned · hedged · attempt-failed · refused · verified
                    · delivered · failed
    line            opened · closed
    call            received · assigned · attempt-failed · checkpointed · completed · failed
    fee             credited · commission-taken

What happens to money from there on (rounds, shares, payouts, statements) is in
`core.money.events`.
"""

import msgspec
from msgspec import Struct

from openpool.core.calls import CallFailure, CallSource, Unit
from openpool.core.model import Profile, Rendition, SourceInfo, WorkerKind
from openpool.core.money.events import MoneyPayload, Scheme
from openpool.core.payload import Payload


class PoolStarted(Payload, frozen=True, kw_only=True, tag="pool-started"):
    epoch: int
    """How many times this pool has started; part of every attempt id."""
    version: str


class PoolStopped(Payload, frozen=True, kw_only=True, tag="pool-stopped"):
    epoch: int
    reason: str


class OrchestratorUp(Payload, frozen=True, kw_only=True, tag="orchestrator-up"):
    orchestrator: str
    incarnation: str
    """Fingerprint of the certificate it made when it started."""


class OrchestratorDown(Payload, frozen=True, kw_only=True, tag="orchestrator-down"):
    orchestrator: str
    incarnation: str
    reason: str


class OrchestratorRestarted(Payload, frozen=True, kw_only=True, tag="orchestrator-restarted"):
    orchestrator: str
    incarnation: str
    previous: str


class GroupOpened(Payload, frozen=True, kw_only=True, tag="group-opened"):
    orchestrator: str
    group: str
    capacity: int
    capabilities: int


class GroupClosed(Payload, frozen=True, kw_only=True, tag="group-closed"):
    orchestrator: str
    group: str
    reason: str


class WorkerEnrolled(Payload, frozen=True, kw_only=True, tag="worker-enrolled"):
    worker: str
    address: str
    name: str
    group: str
    terms: str
    """Digest of the terms the worker accepted."""


class WorkerApproved(Payload, frozen=True, kw_only=True, tag="worker-approved"):
    worker: str


class WorkerBanned(Payload, frozen=True, kw_only=True, tag="worker-banned"):
    worker: str
    reason: str


class TokenIssued(Payload, frozen=True, kw_only=True, tag="token-issued"):
    worker: str
    token: str
    """Public id of the token, never the secret."""


class TokenRevoked(Payload, frozen=True, kw_only=True, tag="token-revoked"):
    worker: str
    token: str
    reason: str


class WorkerConnected(Payload, frozen=True, kw_only=True, tag="worker-connected"):
    worker: str
    connection: str
    kind: WorkerKind
    capacity: int
    capabilities: int
    version: str


class WorkerDisconnected(Payload, frozen=True, kw_only=True, tag="worker-disconnected"):
    worker: str
    connection: str
    reason: str


class WorkerCooledDown(Payload, frozen=True, kw_only=True, tag="worker-cooled-down"):
    worker: str
    until_ms: int
    reason: str


class PriceChanged(Payload, frozen=True, kw_only=True, tag="price-changed"):
    orchestrator: str
    manifest: str
    """Empty for the orchestrator's price to everybody."""
    price_wei: str
    """Wei per pixel, `"1200"` or `"1/3"`."""
    source: str
    """`config`, `status` or `metrics`."""


class JobReceived(Payload, frozen=True, kw_only=True, tag="job-received"):
    job: str
    orchestrator: str
    incarnation: str
    group: str
    task_id: int
    session: str
    manifest: str
    seq: int
    duration_ms: int
    profiles: tuple[Profile, ...]
    capabilities: int
    deadline_ms: int
    """When the orchestrator gives up; wall-clock ms like every time in the log."""
    source_url: str = ""
    min_version: str = ""
    perceptual_hash: bool = False
    clip_from_ms: int = 0
    clip_to_ms: int = 0
    orchestrator_address: str = ""
    payer: str = ""
    """Empty if the orchestrator pays; `customer:<id>` for a segment of the pool's own API."""


class JobAssigned(Payload, frozen=True, kw_only=True, tag="job-assigned"):
    job: str
    attempt: int
    worker: str
    predicted_ms: int
    reason: str
    """`sticky`, `chosen`, `retry` …: why this worker."""


class JobHedged(Payload, frozen=True, kw_only=True, tag="job-hedged"):
    job: str
    attempt: int
    worker: str
    predicted_ms: int
    waited_ms: int


class AttemptFailed(Payload, frozen=True, kw_only=True, tag="attempt-failed"):
    job: str
    attempt: int
    worker: str
    reason: str
    blamed: bool
    """Whether this counts against the worker."""


class ResultRefused(Payload, frozen=True, kw_only=True, tag="result-refused"):
    """The worker's result was opened and is not what was asked for: evidence."""

    job: str
    attempt: int
    worker: str
    reason: str


class JobVerified(Payload, frozen=True, kw_only=True, tag="job-verified"):
    job: str
    attempt: int
    worker: str
    source: SourceInfo | None
    renditions: tuple[Rendition, ...]
    pixels: int
    took_ms: int
    """From assignment to the arrival of the result."""


class JobDelivered(Payload, frozen=True, kw_only=True, tag="job-delivered"):
    """The orchestrator took the result before its deadline."""

    job: str
    orchestrator: str
    attempt: int
    worker: str
    duration_ms: int
    took_ms: int
    """From the orchestrator's notice to its answer: what a gateway feels."""
    attempts: int
    hedged: bool


class JobFailed(Payload, frozen=True, kw_only=True, tag="job-failed"):
    job: str
    orchestrator: str
    reason: str
    answered: bool
    """Whether the orchestrator was told in time."""
    attempts: int
    input_fault: bool


class FeeCredited(Payload, frozen=True, kw_only=True, tag="fee-credited"):
    """A worker earned its part of what a delivered job, or a call found right, is worth."""

    job: str
    orchestrator: str
    """Who pays; `customer:<id>` for what came through the pool's own API."""
    worker: str
    address: str
    pixels: int
    """How much is paid for, counted in `unit`."""
    price_wei: str
    """Wei per unit, like every price."""
    price_source: str
    fee_wei: str
    """The whole fee, before commission."""
    carry: str
    """Fraction of a wei left over for the next fee of this worker, like `"2/3"`."""
    commission_ppm: int
    worker_wei: str
    unit: Unit = "pixel"
    pipeline: str = ""
    """Of a call, as is the next; empty for transcoding."""
    model: str = ""
    scheme: Scheme = "per-job"
    """Under every other scheme this only accrues: revenue is shared when the round is settled."""


class CommissionTaken(Payload, frozen=True, kw_only=True, tag="commission-taken"):
    job: str
    orchestrator: str
    worker: str
    commission_wei: str
    scheme: Scheme = "per-job"


class LineOpened(Payload, frozen=True, kw_only=True, tag="line-opened"):
    """A worker dialled a line for calls."""

    worker: str
    line: str


class LineClosed(Payload, frozen=True, kw_only=True, tag="line-closed"):
    worker: str
    line: str
    reason: str


class CallReceived(Payload, frozen=True, kw_only=True, tag="call-received"):
    """Somebody wants an HTTP exchange with an app. Its price is fixed from here on."""

    job: str
    source: CallSource
    customer: str
    orchestrator: str
    pipeline: str
    model: str
    session: str
    streaming: bool
    deadline_ms: int
    """0 has none."""
    unit: Unit
    price_wei: str
    """Wei per unit; empty if nothing is paid for this call."""
    price_source: str
    usd: str = ""
    """The price in the list if it is in USD, such as `"0.50 per 1000000"`."""
    wei_per_usd: str = ""
    """The rate it was converted at, when it was taken, and from where."""
    rate_ms: int = 0
    rate_source: str = ""
    payer: str = ""
    """The gateway that sent tickets with this request, where the orchestrator took them."""
    tickets: int = 0
    tickets_wei: str = ""
    """What these tickets are worth on average, rounded down: to be compared with fees."""


class CallAssigned(Payload, frozen=True, kw_only=True, tag="call-assigned"):
    job: str
    attempt: int
    """1, 2, … within the call."""
    worker: str
    predicted_ms: int
    """To the first byte if the answer is streamed, else to its end; 0 if nothing is known."""
    warm: bool
    """Whether the model was in memory already."""
    reason: str
    """`chosen`, `session`, `waited` or `retry`: why this worker."""


class CallAttemptFailed(Payload, frozen=True, kw_only=True, tag="call-attempt-failed"):
    job: str
    attempt: int
    worker: str
    reason: str
    blamed: bool
    """Whether this counts against the worker."""


class CallCheckpointed(Payload, frozen=True, kw_only=True, tag="call-checkpointed"):
    """So much of a session was used by now, and found right. Nothing moves: a session is paid once,
    at its end, or by the last of these if the pool dies before."""

    call: str
    """The job. It is not filed under it: the story of a job is read whole, and a session may have
    thousands of these."""
    attempt: int
    worker: str
    address: str
    """Who is to be paid, and less how much, as things stand."""
    commission_ppm: int
    unit: Unit
    units: int
    """From the beginning of the session."""
    note: str
    first_byte_ms: int


class CallCompleted(Payload, frozen=True, kw_only=True, tag="call-completed"):
    """The answer went to the client. A fee follows only if it was checked and has a price."""

    job: str
    source: CallSource
    customer: str
    orchestrator: str
    worker: str
    attempt: int
    pipeline: str
    model: str
    unit: Unit
    units: int
    checked: bool
    blamed: bool
    """Whether the worker is to blame for what the check found."""
    note: str
    """How it was counted, or why it was not accepted."""
    took_ms: int
    """From receipt to the end of the answer."""
    first_byte_ms: int
    """From receipt to the first byte of the answer."""
    cancelled: bool = False
    """The client hung up in the middle; what it had got counts."""


class CallFailed(Payload, frozen=True, kw_only=True, tag="call-failed"):
    job: str
    source: CallSource
    customer: str
    orchestrator: str
    pipeline: str
    model: str
    code: CallFailure
    reason: str
    started: bool
    """Whether a part of an answer had gone out."""
    attempts: int
    took_ms: int


AnyPayload = (
    PoolStarted
    | PoolStopped
    | OrchestratorUp
    | OrchestratorDown
    | OrchestratorRestarted
    | GroupOpened
    | GroupClosed
    | WorkerEnrolled
    | WorkerApproved
    | WorkerBanned
    | TokenIssued
    | TokenRevoked
    | WorkerConnected
    | WorkerDisconnected
    | WorkerCooledDown
    | PriceChanged
    | JobReceived
    | JobAssigned
    | JobHedged
    | AttemptFailed
    | ResultRefused
    | JobVerified
    | JobDelivered
    | JobFailed
    | FeeCredited
    | CommissionTaken
    | LineOpened
    | LineClosed
    | CallReceived
    | CallAssigned
    | CallAttemptFailed
    | CallCheckpointed
    | CallCompleted
    | CallFailed
    | MoneyPayload
)


class Event(Struct, frozen=True, kw_only=True):
    """A fact with its identity and its time (wall clock, ms since 1970)."""

    id: str
    time_ms: int
    data: AnyPayload

    @property
    def type(self) -> str:
        return self.data.type


encode_payload = msgspec.json.Encoder().encode
decode_payload = msgspec.json.Decoder(AnyPayload).decode
"""Payload from JSON bytes. Unknown fields are ignored, so that an older reader reads newer logs."""
