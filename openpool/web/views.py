"""Answers to what the API and the pages ask, gathered from the store and the live pool.

The store is read in threads, the core's snapshot in the loop. Nothing here knows HTTP or decides
who may see what: `web.api` and `web.pages` do. The shapes of the answers are in `web.shapes`.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from openpool.core.errors import BadMessage
from openpool.store.interface import EventFilter, RollupPoint, StoredEvent
from openpool.web.alerts import alerts
from openpool.web.interface import Deps, Live, LiveJob
from openpool.web.shapes import (
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    Balances,
    BalanceView,
    Earning,
    Figures,
    OrchestratorView,
    PublicTotals,
    Series,
    Status,
    TransferView,
    Worker,
    WorkerDetail,
    earning,
    figures,
    filled,
    live_by_worker,
    money,
    transfer_view,
    worker_view,
)

POINTS_MAX = 2000
DAILY_AGE_MS = 15_000
"""How old the workers' 24-hour figures may be."""


@dataclass(slots=True)
class _Daily:
    """Hourly buckets of every worker, refreshed when somebody looks and they are old."""

    read_ms: int = 0
    hours: dict[str, list[RollupPoint]] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Views:
    """Answers to the questions that the API and the pages ask."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._daily = _Daily()

    def now_ms(self) -> int:
        return self._deps.clock_ms()

    def live(self) -> Live:
        return self._deps.live.snapshot(self.now_ms())

    async def public(self) -> PublicTotals:
        deps, now_ms, live = self._deps, self.now_ms(), self.live()
        rows, counts, books, day = await asyncio.to_thread(
            lambda: (
                deps.reader.workers(),
                deps.reader.counts(),
                money(deps.reader.balances()),
                _span(deps, now_ms - DAY_MS, now_ms),
            )
        )
        return PublicTotals(
            pool=deps.pool_name,
            version=deps.version,
            public=deps.enrolment.terms().public,
            commission_ppm=deps.commission_ppm,
            workers=sum(row.state == "approved" for row in rows),
            workers_online=len({w.worker for w in live.workers}),
            segments=counts.get("job-delivered", 0),
            day=day,
            **books,
        )

    async def status(self) -> Status:
        deps, now_ms, live = self._deps, self.now_ms(), self.live()
        rows, books, (events, head), hour, day = await asyncio.to_thread(
            lambda: (
                deps.reader.workers(),
                money(deps.reader.balances()),
                deps.reader.head(),
                _span(deps, now_ms - HOUR_MS, now_ms),
                _span(deps, now_ms - DAY_MS, now_ms),
            )
        )
        return Status(
            pool=deps.pool_name,
            version=deps.version,
            now_ms=now_ms,
            orchestrators=len(live.orchestrators),
            orchestrators_up=sum(o.up for o in live.orchestrators),
            workers=len(rows),
            workers_online=len({w.worker for w in live.workers}),
            workers_pending=sum(row.state == "pending" for row in rows),
            capacity=sum(w.capacity for w in live.workers),
            used=sum(w.used for w in live.workers),
            upstream_capacity=sum(g.capacity for o in live.orchestrators for g in o.groups if g.up),
            jobs_in_flight=len(live.jobs),
            last_hour=hour,
            day=day,
            log_events=events,
            log_head=head,
            alerts=alerts(live, rows, hour, now_ms),
            **books,
        )

    async def workers(self, only: Sequence[str] | None = None) -> list[Worker]:
        """All workers, or those named."""
        rows = await asyncio.to_thread(self._deps.reader.workers)
        chosen = [row for row in rows if only is None or row.worker in only]
        hours = await self._hours([row.worker for row in rows])
        now_ms, live = self.now_ms(), live_by_worker(self.live())
        return [
            worker_view(row, live.get(row.worker, []), hours.get(row.worker, []), now_ms)
            for row in chosen
        ]

    async def worker(self, worker: str) -> WorkerDetail | None:
        """One worker, or None if there is none of that id."""
        deps, now_ms = self._deps, self.now_ms()
        row = await asyncio.to_thread(deps.reader.worker, worker)
        if row is None:
            return None
        account = f"worker:{row.address}"
        hours, balances = await asyncio.to_thread(
            lambda: (_day_hours(deps, worker, now_ms), deps.reader.balances(account))
        )
        connections = live_by_worker(self.live()).get(worker, [])
        return WorkerDetail(
            worker=worker_view(row, connections, hours, now_ms),
            owed_wei=str(sum(b.amount_wei for b in balances if b.account == account)),
            reasons=list(deps.live.explain(worker, now_ms)),
        )

    async def _hours(self, workers: Sequence[str]) -> dict[str, list[RollupPoint]]:
        daily, now_ms = self._daily, self.now_ms()
        async with daily.lock:
            if now_ms - daily.read_ms >= DAILY_AGE_MS or not daily.read_ms:
                daily.hours = await asyncio.to_thread(
                    lambda: {w: _day_hours(self._deps, w, now_ms) for w in workers}
                )
                daily.read_ms = now_ms
        return daily.hours

    async def series(self, start_ms: int, end_ms: int, step_s: int, worker: str) -> Series:
        """Raises BadMessage if that is no span, or too many points."""
        step_ms = step_s * 1000
        if step_s < 60 or step_s % 60:
            raise BadMessage("step must be a whole number of minutes, in seconds: 60, 120, 300 …")
        start_ms -= start_ms % step_ms
        if not 0 < end_ms - start_ms <= POINTS_MAX * step_ms:
            raise BadMessage(
                f"the span must hold 1 to {POINTS_MAX} steps: "
                "choose a later start, an earlier end or a longer step"
            )
        points = await asyncio.to_thread(
            lambda: self._deps.reader.series(
                start_ms=start_ms, end_ms=end_ms, step_ms=step_ms, worker=worker
            )
        )
        return Series(
            start_ms=start_ms,
            end_ms=end_ms,
            step_s=step_s,
            worker=worker,
            points=filled(points, start_ms, end_ms, step_ms),
        )

    async def events(self, which: EventFilter) -> list[StoredEvent]:
        return await asyncio.to_thread(self._deps.reader.events, which)

    async def earnings(self, worker: str, before_seq: int, limit: int) -> list[Earning]:
        """Newest first."""
        which = EventFilter(
            types=("fee-credited",),
            worker=worker,
            before_seq=before_seq,
            newest_first=True,
            limit=limit,
        )
        return [earning(stored) for stored in await self.events(which)]

    async def balances(self) -> Balances:
        found = await asyncio.to_thread(self._deps.reader.balances)
        return Balances(
            balances=[
                BalanceView(account=b.account, amount_wei=str(b.amount_wei))
                for b in sorted(found, key=lambda b: (-abs(b.amount_wei), b.account))
            ],
            sum_wei=str(sum(b.amount_wei for b in found)),
        )

    async def transfers(self, account: str, before: str, limit: int) -> list[TransferView]:
        """Newest first."""
        found = await asyncio.to_thread(
            lambda: self._deps.reader.transfers(account=account, before=before, limit=limit)
        )
        return [transfer_view(entry) for entry in found]

    def orchestrators(self) -> list[OrchestratorView]:
        return [
            OrchestratorView(
                orchestrator=o.orchestrator,
                up=o.up,
                incarnation=o.incarnation,
                since_ms=o.since_ms,
                price_wei=o.price_wei,
                capacity=sum(group.capacity for group in o.groups if group.up),
                used=sum(group.used for group in o.groups),
                groups=list(o.groups),
            )
            for o in self.live().orchestrators
        ]

    def jobs(self) -> list[LiveJob]:
        return list(self.live().jobs)


def _span(deps: Deps, start_ms: int, end_ms: int) -> Figures:
    start_ms -= start_ms % MINUTE_MS
    step_ms = end_ms - start_ms + MINUTE_MS
    step_ms += -step_ms % MINUTE_MS
    return figures(deps.reader.series(start_ms=start_ms, end_ms=end_ms, step_ms=step_ms))


def _day_hours(deps: Deps, worker: str, now_ms: int) -> list[RollupPoint]:
    first_ms = now_ms - now_ms % HOUR_MS - 23 * HOUR_MS
    return deps.reader.series(start_ms=first_ms, end_ms=now_ms, step_ms=HOUR_MS, worker=worker)
