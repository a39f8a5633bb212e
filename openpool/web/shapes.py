"""The values that are shown: JSON of the API, and what pages are filled with. Pure.

Wei are decimal strings. Conversions from what the store and the core hold stand below the shapes.
Read `web.views` next, which gathers them.
"""

from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Struct

from openpool.core.events import Event
from openpool.core.ledger import Transfer
from openpool.store.interface import Balance, RollupPoint, StoredEvent, WorkerRow
from openpool.web.interface import Live, LiveGroup, LiveWorker, Reason

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


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
    worker_wei: str = "0"


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
    """`working`, `ready`, `cooling`, `offline`, `pending` or `banned`: what it does now."""
    kind: str
    version: str
    capacity: int
    used: int
    sessions: int
    rtf_ppm: int
    """Moving real-time factor in ppm; 0 is not known yet."""
    enrolled_ms: int
    connected_ms: int
    last_seen_ms: int
    cooled_until_ms: int
    segments: int
    failed: int
    refused: int
    credited_wei: str
    day: Figures
    hours: list[int]
    """Segments in each of the last 24 hours, oldest first."""


class WorkerDetail(Struct, frozen=True, kw_only=True):
    worker: Worker
    owed_wei: str
    """The balance of its payout address."""
    reasons: list[Reason]
    """Why it gets work, or gets none."""


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
    orchestrator: str
    up: bool
    incarnation: str
    since_ms: int
    price_wei: str
    capacity: int
    used: int
    groups: list[LiveGroup]


def figures(points: Iterable[RollupPoint]) -> Figures:
    """The sum of some buckets."""
    sums: dict[str, int] = dict.fromkeys(_COUNTED, 0)
    for point in points:
        for name in _COUNTED:
            sums[name] += getattr(point, name)
    wei = {"fee_wei": str(sums["fee_wei"]), "worker_wei": str(sums["worker_wei"])}
    return msgspec.convert({**sums, **wei}, type=Figures)


_COUNTED = tuple(name for name in RollupPoint.__struct_fields__ if name != "start_ms")


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


def money(balances: Iterable[Balance]) -> dict[str, str]:
    """What came in, what the pool keeps, and what workers earned, out of the balances."""
    sums = {"fees": 0, "commission": 0, "worker": 0}
    for balance in balances:
        kind = balance.account.partition(":")[0]
        if kind in sums:
            sums[kind] += balance.amount_wei
    return {
        "fees_wei": str(-sums["fees"]),
        "commission_wei": str(sums["commission"]),
        "credited_wei": str(sums["worker"]),
    }


def live_by_worker(live: Live) -> dict[str, list[LiveWorker]]:
    """A worker may be connected more than once, for a moment or for good."""
    found: dict[str, list[LiveWorker]] = {}
    for worker in live.workers:
        found.setdefault(worker.worker, []).append(worker)
    return found


def worker_view(
    row: WorkerRow, connections: Sequence[LiveWorker], hours: Sequence[RollupPoint], now_ms: int
) -> Worker:
    first_ms = now_ms - now_ms % HOUR_MS - 23 * HOUR_MS
    by_hour = [0] * 24
    for point in hours:
        hour = (point.start_ms - first_ms) // HOUR_MS
        if 0 <= hour < 24:
            by_hour[hour] += point.segments
    latest = max(connections, key=lambda c: c.connected_ms, default=None)
    return Worker(
        worker=row.worker,
        name=row.name,
        address=row.address,
        group=row.group,
        state=row.state,
        status=_status(row, connections, now_ms),
        kind=latest.kind if latest else "",
        version=latest.version if latest else "",
        capacity=sum(c.capacity for c in connections),
        used=sum(c.used for c in connections),
        sessions=sum(c.sessions for c in connections),
        rtf_ppm=max((c.latency_ppm for c in connections), default=0),
        enrolled_ms=row.enrolled_ms,
        connected_ms=latest.connected_ms if latest else 0,
        last_seen_ms=now_ms if latest else max(row.last_connected_ms, row.last_disconnected_ms),
        cooled_until_ms=max((c.cooled_until_ms for c in connections), default=0),
        segments=row.segments,
        failed=row.failed,
        refused=row.refused,
        credited_wei=str(row.credited_wei),
        day=figures(hours),
        hours=by_hour,
    )


def _status(row: WorkerRow, connections: Sequence[LiveWorker], now_ms: int) -> str:
    if row.state != "approved":
        return row.state
    if not connections:
        return "offline"
    if all(c.cooled_until_ms > now_ms for c in connections):
        return "cooling"
    return "working" if any(c.used for c in connections) else "ready"
