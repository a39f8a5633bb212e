"""Prometheus metrics, few and of low cardinality: never a label per worker.

Counters are fed by the event feed, gauges read from the core's snapshot at each scrape. The text
is rendered in a thread. Amounts are gauges in gwei and named so: a float cannot hold exact wei;
the books are the ledger's.
"""

import asyncio
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from openpool.core.desk_views import DeskView
from openpool.core.events import (
    AnyPayload,
    AttemptFailed,
    CallCompleted,
    CallFailed,
    FeeCredited,
    JobDelivered,
    JobFailed,
    JobVerified,
)
from openpool.core.money.payout_views import PayoutsView
from openpool.core.money.revenue_views import RevenueView
from openpool.core.units import GWEI
from openpool.core.views import PoolView
from openpool.store.interface import StoredEvent
from openpool.web.interface import Deps
from openpool.web.money_metrics import payout_gauges, revenue_gauges
from openpool.web.shapes import money

SECONDS = (0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8, 12)
CALL_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
PIPELINES_MAX = 50
"""Pipelines that have a label of their own: workers may name as many as they like."""
RATIOS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 4)


class Metrics:
    """The pool's own registry."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._registry = CollectorRegistry()
        self._gauges = _Gauges(deps)
        self._registry.register(self._gauges)
        self._events = self._counter("events", "Events written to the log.", ["type"])
        self._media = self._counter("media_seconds", "Source seconds delivered.")
        self._pixels = self._counter("pixels", "Encoded pixels in checked results.")
        self._failed = self._counter("failed_jobs", "Jobs that failed.", ["fault"])
        self._blamed = self._counter("failed_attempts", "Attempts that failed.", ["blamed"])
        self._round_trip = Histogram(
            "openpool_round_trip_seconds",
            "From the orchestrator's notice to its answer.",
            buckets=SECONDS,
            registry=self._registry,
        )
        self._ratio = Histogram(
            "openpool_round_trip_ratio",
            "Round trip over segment duration; above 1 gateways leave.",
            buckets=RATIOS,
            registry=self._registry,
        )

        self._calls = self._counter(
            "calls", "Calls that ended, by how they did.", ["pipeline", "status"]
        )
        self._call_units = self._counter(
            "call_units", "What checked calls used.", ["pipeline", "unit"]
        )
        self._call_fees = self._counter(
            "call_fees_gwei", "Fees of calls, as a float in gwei.", ["pipeline"]
        )
        self._call_seconds = Histogram(
            "openpool_call_seconds",
            "From receipt to the end of the answer.",
            ["pipeline"],
            buckets=CALL_SECONDS,
            registry=self._registry,
        )
        self._pipelines: set[str] = set()

    def _counter(self, name: str, text: str, labels: list[str] | None = None) -> Counter:
        return Counter(f"openpool_{name}", text, labels or [], registry=self._registry)

    def observe(self, stored: StoredEvent) -> None:
        """Count an event."""
        data = stored.event.data
        self._events.labels(data.type).inc()
        self._observe_job(data)
        self._observe_call(data)

    def _observe_job(self, data: AnyPayload) -> None:
        match data:
            case JobDelivered(duration_ms=duration_ms, took_ms=took_ms):
                self._media.inc(duration_ms / 1000)
                self._round_trip.observe(took_ms / 1000)
                if duration_ms > 0:
                    self._ratio.observe(took_ms / duration_ms)
            case JobVerified(pixels=pixels):
                self._pixels.inc(pixels)
            case JobFailed(input_fault=input_fault):
                self._failed.labels("input" if input_fault else "pool").inc()
            case AttemptFailed(blamed=blamed):
                self._blamed.labels("yes" if blamed else "no").inc()

    def _observe_call(self, data: AnyPayload) -> None:
        match data:
            case CallCompleted(checked=checked, units=units):
                pipeline = self._pipeline(data.pipeline)
                status = "unchecked" if not checked else "cancelled" if data.cancelled else "ok"
                self._calls.labels(pipeline, status).inc()
                self._call_seconds.labels(pipeline).observe(data.took_ms / 1000)
                if checked and units > 0:
                    self._call_units.labels(pipeline, data.unit).inc(units)
            case CallFailed(code=code):
                self._calls.labels(self._pipeline(data.pipeline), code).inc()
            case FeeCredited(fee_wei=fee_wei) if data.pipeline:
                self._call_fees.labels(self._pipeline(data.pipeline)).inc(int(fee_wei) / GWEI)

    def _pipeline(self, name: str) -> str:
        """The label of a pipeline."""
        if name not in self._pipelines and len(self._pipelines) >= PIPELINES_MAX:
            return "other"
        self._pipelines.add(name)
        return name

    async def render(self, viewers: int) -> bytes:
        """The text that Prometheus scrapes."""
        self._gauges.live = self._deps.live.snapshot(self._deps.clock_ms())
        if self._deps.desk is not None:
            self._gauges.desk = self._deps.desk.snapshot(self._deps.clock_ms())
        if self._deps.revenue is not None:
            self._gauges.revenue = await self._deps.revenue.view()
        if self._deps.payouts is not None:
            self._gauges.payouts = await self._deps.payouts.view()
        self._gauges.viewers = viewers
        return await asyncio.to_thread(generate_latest, self._registry)


class _Gauges(Collector):
    """The state of this moment."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self.live: PoolView | None = None
        self.desk: DeskView | None = None
        self.revenue: RevenueView | None = None
        self.payouts: PayoutsView | None = None
        self.viewers = 0

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        live = self.live
        if live is None:
            return
        yield _gauge("info", "The version that runs.", 1, {"version": self._deps.version})
        yield _gauge(
            "workers_connected", "Workers connected.", len({w.worker for w in live.workers})
        )
        yield _gauge("worker_slots", "Sessions that the workers can run.", _sum(live, "capacity"))
        yield _gauge("worker_slots_used", "Sessions in use.", _sum(live, "sessions"))
        yield _gauge("jobs_in_flight", "Jobs received and not settled.", len(live.jobs))
        yield _gauge("jobs_waiting", "Jobs that wait for a free worker.", live.waiting)
        yield _gauge("event_viewers", "Open event streams.", self.viewers)
        yield from _orchestrators(live)
        if self.desk is not None:
            yield from _models(self.desk)
        if self.revenue is not None:
            yield from revenue_gauges(self.revenue)
        if self.payouts is not None:
            yield from payout_gauges(self.payouts)
        seq, _ = self._deps.reader.head()
        yield _gauge("log_events", "Events in the log.", seq)
        for name, wei in money(self._deps.reader.turnover()).items():
            gwei = int(wei) / GWEI
            yield _gauge(
                name.replace("_wei", "_gwei"), "From the ledger, as a float in gwei.", gwei
            )


def _sum(live: PoolView, name: str) -> int:
    return sum(getattr(worker, name) for worker in live.workers)


def _orchestrators(live: PoolView) -> Iterator[Metric]:
    up = GaugeMetricFamily(
        "openpool_orchestrator_up", "Whether it is reached.", labels=["orchestrator"]
    )
    slots = GaugeMetricFamily(
        "openpool_registered_slots", "Slots registered with it.", labels=["orchestrator"]
    )
    for each in live.orchestrators:
        up.add_metric([each.orchestrator], float(each.up))
        slots.add_metric([each.orchestrator], sum(g.capacity for g in each.groups if g.up))
    yield up
    yield slots


def _models(desk: DeskView) -> Iterator[Metric]:
    yield _gauge("models", "Apps that workers serve.", len(desk.apps))
    yield _gauge("call_sessions", "Sessions of calls, such as live video.", desk.sessions)
    counted: dict[str, list[int]] = {}
    for app in desk.apps:
        known = app.pipeline in counted or len(counted) < PIPELINES_MAX
        sums = counted.setdefault(app.pipeline if known else "other", [0, 0, 0])
        for i, value in enumerate((app.capacity, app.taken, app.waiting)):
            sums[i] += value
    names = ("call_places", "call_places_taken", "calls_waiting")
    texts = ("Calls that workers can take.", "Places taken.", "Calls that wait for a place.")
    for i, (name, text) in enumerate(zip(names, texts, strict=True)):
        family = GaugeMetricFamily(f"openpool_{name}", text, labels=["pipeline"])
        for pipeline, sums in counted.items():
            family.add_metric([pipeline], sums[i])
        yield family


def _gauge(name: str, text: str, value: float, labels: dict[str, str] | None = None) -> Metric:
    labels = labels or {}
    family = GaugeMetricFamily(f"openpool_{name}", text, labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family
