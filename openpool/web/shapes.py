"""The values that are shown: JSON of the API, and what pages are filled with. Pure.

Wei are decimal strings. Conversions from what the store and the core hold stand below the shapes.
Read `web.views` next, which gathers them.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from openpool.core import explain
from openpool.core.desk_views import DeskView, ServerView
from openpool.core.errors import BadMessage
from openpool.core.events import Event
from openpool.core.money.ledger import Transfer
from openpool.core.views import GroupView, PoolView, WorkerView
from openpool.core.views import OrchestratorView as LiveOrchestrator
from openpool.store.interface import RollupPoint, StoredEvent, WorkerRow
from openpool.web.call_shapes import Server

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
POINTS_MAX = 2000
GRAIN_MS = 15 * MINUTE_MS
"""Long steps are put together from buckets of this length, so that they may start anywhere."""
GRAINS_MAX = 100_000


class Figures(Struct, frozen=True, kw_only=True):
    """What happened in some span of time."""

    segments: int = 0
    failed: int = 0
    refused: int = 0
    hedged: int = 0
    media_ms: int = 0
    """Source time of the delivered segments."""
    busy_ms: int = 0
    """Processing time of the delivered segments; busy/media is the real-time factor."""
    latency_ms: int = 0
    """Sum over the segments of the round trip that the orchestrator saw."""
    pixels: int = 0
    fee_wei: str = "0"
    """Of segments and of calls, as is the next."""
    worker_wei: str = "0"
    calls: int = 0
    """Answered, and found right."""
    calls_failed: int = 0
    call_ms: int = 0
    """Sum over the calls, from receipt to the end of the answer."""
    call_fee_wei: str = "0"
    call_worker_wei: str = "0"


class Point(Figures, frozen=True, kw_only=True):
    start_ms: int


class Series(Struct, frozen=True, kw_only=True):
    """Equal steps of time without gaps."""

    start_ms: int
    end_ms: int
    step_s: int
    worker: str
    points: list[Point]


class PublicTotals(Struct, frozen=True, kw_only=True):
    """All that everybody may know."""

    pool: str
    version: str
    public: bool
    commission_ppm: int
    workers: int
    workers_online: int
    segments: int
    fees_wei: str
    commission_wei: str
    credited_wei: str
    day: Figures


class Status(Struct, frozen=True, kw_only=True):
    """The pool at this moment, for its operator."""

    pool: str
    version: str
    now_ms: int
    orchestrators: int
    orchestrators_up: int
    workers: int
    workers_online: int
    workers_pending: int
    capacity: int
    used: int
    upstream_capacity: int
    jobs_in_flight: int
    jobs_waiting: int
    """Jobs that wait for a free worker."""
    models: int
    """Apps that workers serve now."""
    calls_in_flight: int
    """Calls under way; sessions of live video count too."""
    calls_waiting: int
    last_hour: Figures
    day: Figures
    fees_wei: str
    commission_wei: str
    credited_wei: str
    log_events: int
    log_head: str
    alerts: list["Alert"]


class Alert(Struct, frozen=True, kw_only=True):
    """Something the operator should look at."""

    level: str
    """`bad`, `warn` or `info`."""
    title: str
    text: str
    link: str = ""


class Worker(Struct, frozen=True, kw_only=True):
    """A worker: what is on record, what is true now, and its last 24 hours."""

    worker: str
    name: str
    address: str
    group: str
    state: str
    """`pending`, `approved` or `banned`: what the operator decided."""
    status: str
    """`working`, `full`, `ready`, `cooling`, `offline`, `pending` or `banned`: what it does now."""
    kind: str
    version: str
    capacity: int
    used: int
    """Sessions that it can run, and those it runs."""
    jobs: int
    """Segments it works on."""
    rtf_ppm: int
    """Real-time factor of its last 24 hours, in ppm; 0 if it did nothing."""
    typical_ms: int
    """Expected time for 2 s of one 720p rendition; 0 is not measured yet."""
    enrolled_ms: int
    connected_ms: int
    last_seen_ms: int
    cooled_until_ms: int
    segments: int
    failed: int
    refused: int
    credited_wei: str
    calls: int
    """Answered and found right, over all time."""
    calls_failed: int
    call_worker_wei: str
    """The part of what was credited that calls earned."""
    calls_running: int
    day: Figures
    hours: list[int]
    """Segments and calls in each of the last 24 hours, oldest first."""


class Reason(Struct, frozen=True, kw_only=True):
    """Something that decides how much work a worker gets, in words."""

    code: str
    text: str
    holds: bool
    """False where it is a reason for getting no work."""


class WorkerDetail(Struct, frozen=True, kw_only=True):
    worker: Worker
    owed_wei: str
    """The balance of its payout address."""
    reasons: list[Reason]
    """Why it gets work, or gets none."""
    offers: list[Server]
    """The models that it serves now."""
    call_reasons: list[Reason]
    """Why it gets calls, or gets none; empty if it never offered to take any."""


class Earning(Struct, frozen=True, kw_only=True):
    """What one job paid to a worker."""

    seq: int
    time_ms: int
    job: str
    orchestrator: str
    pixels: int
    price_wei: str
    price_source: str
    fee_wei: str
    commission_ppm: int
    worker_wei: str
    carry: str
    unit: str = "pixel"
    """What `pixels` counts."""
    pipeline: str = ""
    """Of a call, as is the next; empty for transcoding."""
    model: str = ""


class EventView(Struct, frozen=True, kw_only=True):
    """An event of the log."""

    seq: int
    id: str
    time_ms: int
    type: str
    v: int
    chain: str
    data: dict[str, object]


class BalanceView(Struct, frozen=True, kw_only=True):
    account: str
    amount_wei: str


class Balances(Struct, frozen=True, kw_only=True):
    balances: list[BalanceView]
    sum_wei: str
    """Zero, or the books are broken."""


class TransferView(Struct, frozen=True, kw_only=True):
    id: str
    event_id: str
    time_ms: int
    debit: str
    credit: str
    amount_wei: str
    kind: str


class OrchestratorView(Struct, frozen=True, kw_only=True):
    """An orchestrator that the pool works for."""

    orchestrator: str
    up: bool
    state: Literal["up", "down", "idle"]
    """idle: it is not dialled before there is a worker whose work can be offered to it."""
    problem: str
    """Why it is not reached."""
    incarnation: str
    since_ms: int
    """Since when it is up or down; 0 is not known."""
    price_wei: str
    """What it pays for a pixel, as last recorded; "" is not known."""
    capacity: int
    """Slots offered to it."""
    used: int
    """Jobs of it under way."""
    received: int
    delivered: int
    failed: int
    """Jobs since the pool was started."""
    groups: list[GroupView]


def figures(points: Iterable[RollupPoint]) -> Figures:
    """The sum of some buckets."""
    sums: dict[str, int] = dict.fromkeys(_COUNTED, 0)
    for point in points:
        for name in _COUNTED:
            sums[name] += getattr(point, name)
    wei = {name: str(total) for name, total in sums.items() if name.endswith("_wei")}
    return msgspec.convert({**sums, **wei}, type=Figures)


_COUNTED = tuple(name for name in RollupPoint.__struct_fields__ if name != "start_ms")


def span_of(start_ms: int, end_ms: int, step_s: int) -> tuple[int, int]:
    """Where the first step starts, and the length of the buckets to put it together from (ms).

    Raises BadMessage if that is no span, or too many steps.
    """
    step_ms = step_s * 1000
    if step_ms < MINUTE_MS or step_ms % MINUTE_MS:
        raise BadMessage("step must be a whole number of minutes, in seconds: 60, 120, 300 …")
    grain_ms = MINUTE_MS if step_ms % GRAIN_MS else GRAIN_MS
    if not 0 < end_ms - start_ms <= POINTS_MAX * step_ms:
        raise BadMessage(
            f"the span must hold 1 to {POINTS_MAX} steps: "
            "choose a later start, an earlier end or a longer step"
        )
    if (end_ms - start_ms) // grain_ms > GRAINS_MAX:
        raise BadMessage("for so long a span, step must be a multiple of 900 seconds")
    return start_ms - start_ms % grain_ms, grain_ms


def filled(points: Sequence[RollupPoint], start_ms: int, end_ms: int, step_ms: int) -> list[Point]:
    """One point for every step, empty ones included."""
    known: dict[int, list[RollupPoint]] = {}
    for point in points:
        known.setdefault((point.start_ms - start_ms) // step_ms, []).append(point)
    steps = -(-(end_ms - start_ms) // step_ms)
    return [
        Point(start_ms=start_ms + i * step_ms, **msgspec.structs.asdict(figures(known.get(i, []))))
        for i in range(steps)
    ]


def event_view(stored: StoredEvent) -> EventView:
    event = stored.event
    return EventView(
        seq=stored.seq,
        id=event.id,
        time_ms=event.time_ms,
        type=event.type,
        v=event.data.v,
        chain=stored.chain,
        data=_plain(event),
    )


def _plain(event: Event) -> dict[str, object]:
    data: dict[str, object] = msgspec.to_builtins(event.data)
    return data


def earning(stored: StoredEvent) -> Earning:
    """Only for events of type `fee-credited`."""
    data = _plain(stored.event)
    names = [n for n in Earning.__struct_fields__ if n not in ("seq", "time_ms")]
    wanted = {name: data[name] for name in names}
    return msgspec.convert(
        {"seq": stored.seq, "time_ms": stored.event.time_ms, **wanted}, type=Earning
    )


def transfer_view(entry: Transfer) -> TransferView:
    return msgspec.convert(
        {**msgspec.structs.asdict(entry), "amount_wei": str(entry.amount_wei)}, type=TransferView
    )


def money(turnover: Mapping[str, int]) -> dict[str, str]:
    """What work was worth, what the pool kept of that, and what workers earned, over all time:
    paying it out changes none of it. What was accrued at expected value counts until a share of
    what was realised takes its place."""
    moved = defaultdict(int, turnover)
    credited_wei = moved["fee"] - moved["release"] + moved["share"]
    commission_wei = moved["commission"] - moved["release-commission"]
    return {
        "fees_wei": str(credited_wei + commission_wei),
        "commission_wei": str(commission_wei),
        "credited_wei": str(credited_wei),
    }


def worker_view(
    row: WorkerRow,
    live: WorkerView | None,
    serving: ServerView | None,
    hours: Sequence[RollupPoint],
    now_ms: int,
) -> Worker:
    """`live` is what it does with segments, `serving` with calls."""
    day = figures(hours)
    connections = live.connections if live else ()
    latest = max(connections, key=lambda c: c.since_ms, default=None)
    return Worker(
        worker=row.worker,
        name=row.name,
        address=row.address,
        group=row.group,
        state=row.state,
        status=_status(row, live, serving),
        kind=latest.kind if latest else "",
        version=latest.version if latest else "",
        capacity=live.capacity if live else 0,
        used=live.sessions if live else 0,
        jobs=live.in_flight if live else 0,
        rtf_ppm=day.busy_ms * 1_000_000 // day.media_ms if day.media_ms else 0,
        typical_ms=live.typical_ms if live and live.measured else 0,
        enrolled_ms=row.enrolled_ms,
        connected_ms=latest.since_ms if latest else 0,
        last_seen_ms=now_ms
        if latest or serving
        else max(row.last_connected_ms, row.last_disconnected_ms),
        cooled_until_ms=live.cooling_until_ms if live else 0,
        segments=row.segments,
        failed=row.failed,
        refused=row.refused,
        credited_wei=str(row.credited_wei),
        calls=row.calls,
        calls_failed=row.calls_failed,
        call_worker_wei=str(row.call_worker_wei),
        calls_running=serving.calls if serving else 0,
        day=day,
        hours=_by_hour(hours, now_ms),
    )


def first_hour_ms(now_ms: int) -> int:
    """The start of the first of the last 24 hours, of which the last is not over."""
    return now_ms - now_ms % HOUR_MS - 23 * HOUR_MS


def _by_hour(points: Sequence[RollupPoint], now_ms: int) -> list[int]:
    counts = [0] * 24
    for point in points:
        hour = (point.start_ms - first_hour_ms(now_ms)) // HOUR_MS
        if 0 <= hour < 24:
            counts[hour] += point.segments + point.calls
    return counts


def _status(row: WorkerRow, live: WorkerView | None, serving: ServerView | None) -> str:
    """Segments come first: a worker that does both shows its state for calls where it has one
    for segments that says nothing."""
    if row.state != "approved":
        return row.state
    states = [each.state for each in (live, serving) if each is not None]
    if not states:
        return "offline"
    if "cooling" in states or "full" in states:
        return next(state for state in states if state in ("cooling", "full"))
    if (live and live.in_flight) or (serving and serving.calls):
        return "working"
    return "ready" if "ready" in states else states[0]


NEUTRAL = {"share", "no-jobs", "cold"}
"""Codes of reasons that are no fault of the worker's."""


def reasons(row: WorkerRow, found: Sequence[explain.Reason]) -> list[Reason]:
    """Why a worker gets work or none, the weightiest first."""
    if row.state == "pending":
        text = "The operator has not approved it yet; it gets no work until then."
        return [Reason(code="pending", text=text, holds=False)]
    if row.state == "banned":
        text = "The operator has banned it. What it has earned stays its own."
        return [Reason(code="banned", text=text, holds=False)]
    return [Reason(code=r.code, text=r.text, holds=r.code in NEUTRAL) for r in found]


def state_of(live: LiveOrchestrator) -> Literal["up", "down", "idle"]:
    """Whether an orchestrator is reached, not reached, or was not dialled yet."""
    if live.up:
        return "up"
    return "down" if live.groups or live.problem else "idle"


def orchestrator_view(live: LiveOrchestrator, since_ms: int, price_wei: str) -> OrchestratorView:
    return OrchestratorView(
        orchestrator=live.orchestrator,
        up=live.up,
        state=state_of(live),
        problem=live.problem,
        incarnation=live.incarnation,
        since_ms=since_ms,
        price_wei=price_wei,
        capacity=sum(group.capacity for group in live.groups if group.up),
        used=live.jobs,
        received=live.received,
        delivered=live.delivered,
        failed=live.failed,
        groups=list(live.groups),
    )


def serving(desk: DeskView | None) -> dict[str, ServerView]:
    """The workers that have a line for calls, by id."""
    return {each.worker: each for each in desk.workers if each.lines} if desk else {}


def online(live: PoolView) -> dict[str, WorkerView]:
    """The workers that are connected, by id."""
    return {worker.worker: worker for worker in live.workers if worker.connections}
