"""Answers to what the API and the pages ask, gathered from the store and the live pool.

The store is read in threads, the core's snapshot in the loop. Nothing here knows HTTP or decides
who may see what: `web.api` and `web.pages` do. The shapes of the answers are in `web.shapes`.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from openpool.core.events import OrchestratorDown, OrchestratorUp, PriceChanged
from openpool.core.views import JobView, PoolView
from openpool.store.interface import EventFilter, RollupPoint, StoredEvent
from openpool.web.alerts import alerts, money_alerts, rule_alerts, worst_first
from openpool.web.call_shapes import offers_of
from openpool.web.call_views import CallViews
from openpool.web.interface import Deps
from openpool.web.shapes import (
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    Alert,
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
    first_hour_ms,
    money,
    online,
    orchestrator_view,
    reasons,
    serving,
    span_of,
    transfer_view,
    worker_view,
)

LIVE_AGE_MS = 500
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

    def __init__(self, deps: Deps, calls: CallViews) -> None:
        self._deps = deps
        self._calls = calls
        self._daily = _Daily()
        self._live: PoolView | None = None

    def now_ms(self) -> int:
        return self._deps.clock_ms()

    def live(self) -> PoolView:
        """The core's snapshot; one serves all who ask within half a second."""
        now_ms = self.now_ms()
        if self._live is None or not 0 <= now_ms - self._live.now_ms < LIVE_AGE_MS:
            self._live = self._deps.live.snapshot(now_ms)
        return self._live

    async def public(self) -> PublicTotals:
        deps, now_ms, live = self._deps, self.now_ms(), self.live()
        rows, counts, books, day = await asyncio.to_thread(
            lambda: (
                deps.reader.workers(),
                deps.reader.counts(),
                money(deps.reader.turnover()),
                _span(deps, now_ms - DAY_MS, now_ms),
            )
        )
        return PublicTotals(
            pool=deps.pool_name,
            version=deps.version,
            public=deps.enrolment.terms().public,
            commission_ppm=deps.commission_ppm,
            workers=sum(row.state == "approved" for row in rows),
            workers_online=len(online(live).keys() | serving(self._calls.live()).keys()),
            segments=counts.get("job-delivered", 0),
            day=day,
            **books,
        )

    async def status(self) -> Status:
        deps, now_ms, live, desk = self._deps, self.now_ms(), self.live(), self._calls.live()
        rows, books, (events, head), hour, day = await asyncio.to_thread(
            lambda: (
                deps.reader.workers(),
                money(deps.reader.turnover()),
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
            workers_online=len(online(live).keys() | serving(desk).keys()),
            workers_pending=sum(row.state == "pending" for row in rows),
            capacity=sum(w.capacity for w in live.workers),
            used=sum(w.sessions for w in live.workers),
            upstream_capacity=sum(g.capacity for o in live.orchestrators for g in o.groups if g.up),
            jobs_waiting=live.waiting,
            jobs_in_flight=len(live.jobs),
            models=len(desk.apps) if desk else 0,
            calls_in_flight=len(desk.calls) if desk else 0,
            calls_waiting=sum(app.waiting for app in desk.apps) if desk else 0,
            last_hour=hour,
            day=day,
            log_events=events,
            log_head=head,
            alerts=worst_first(
                [
                    *alerts(live, desk, rows, hour, deps.runners()),
                    *await self._money_alerts(),
                    *await self._rule_alerts(),
                ]
            ),
            **books,
        )

    async def _money_alerts(self) -> list[Alert]:
        revenue, payouts = self._deps.revenue, self._deps.payouts
        return money_alerts(
            await revenue.view() if revenue is not None else None,
            await payouts.view() if payouts is not None else None,
        )

    async def _rule_alerts(self) -> list[Alert]:
        kinds = ("rule-refused", "round-settled")
        which = EventFilter(types=kinds, newest_first=True, limit=50)
        newest = await asyncio.to_thread(self._deps.reader.events, which)
        return rule_alerts([stored.event for stored in newest])

    async def workers(self, only: Sequence[str] | None = None) -> list[Worker]:
        """All workers, or those named."""
        rows = await asyncio.to_thread(self._deps.reader.workers)
        chosen = [row for row in rows if only is None or row.worker in only]
        hours = await self._hours([row.worker for row in rows])
        now_ms, live, desk = self.now_ms(), online(self.live()), serving(self._calls.live())
        return [
            worker_view(
                row, live.get(row.worker), desk.get(row.worker), hours.get(row.worker, []), now_ms
            )
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
        desk = self._calls.live()
        return WorkerDetail(
            worker=worker_view(
                row, online(self.live()).get(worker), serving(desk).get(worker), hours, now_ms
            ),
            owed_wei=str(sum(b.amount_wei for b in balances if b.account == account)),
            reasons=reasons(row, deps.live.explain(worker, now_ms)),
            offers=offers_of(worker, desk),
            call_reasons=reasons(row, calls) if (calls := self._calls.explain(worker)) else [],
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
        """Steps from `start_ms` on, moved back to a whole minute (a quarter of an hour if they
        are long). Raises BadMessage if that is no span, or too many points.
        """
        start_ms, grain_ms = span_of(start_ms, end_ms, step_s)
        points = await asyncio.to_thread(
            lambda: self._deps.reader.series(
                start_ms=start_ms, end_ms=end_ms, step_ms=grain_ms, worker=worker
            )
        )
        return Series(
            start_ms=start_ms,
            end_ms=end_ms,
            step_s=step_s,
            worker=worker,
            points=filled(points, start_ms, end_ms, step_s * 1000),
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

    async def orchestrators(self) -> list[OrchestratorView]:
        """As they are now, with what the log last said about each."""
        which = EventFilter(types=_ABOUT_ORCHESTRATORS, newest_first=True, limit=300)
        since_ms: dict[str, int] = {}
        price_wei: dict[str, str] = {}
        for stored in await self.events(which):
            match stored.event.data:
                case OrchestratorUp(orchestrator=name) | OrchestratorDown(orchestrator=name):
                    since_ms.setdefault(name, stored.event.time_ms)
                case PriceChanged(orchestrator=name, manifest="", price_wei=price):
                    price_wei.setdefault(name, price)
        return [
            orchestrator_view(
                each, since_ms.get(each.orchestrator, 0), price_wei.get(each.orchestrator, "")
            )
            for each in self.live().orchestrators
        ]

    def jobs(self) -> list[JobView]:
        return list(self.live().jobs)

    async def names(self) -> dict[str, str]:
        """The names of all workers by id."""
        rows = await asyncio.to_thread(self._deps.reader.workers)
        return {row.worker: row.name for row in rows}


_ABOUT_ORCHESTRATORS = ("orchestrator-up", "orchestrator-down", "price-changed")


def _span(deps: Deps, start_ms: int, end_ms: int) -> Figures:
    """From the beginning of the minute of `start_ms` on."""
    return figures(deps.reader.series(start_ms=start_ms, end_ms=end_ms, step_ms=MINUTE_MS))


def _day_hours(deps: Deps, worker: str, now_ms: int) -> list[RollupPoint]:
    start_ms = first_hour_ms(now_ms)
    return deps.reader.series(start_ms=start_ms, end_ms=now_ms, step_ms=HOUR_MS, worker=worker)
