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

from openpool.core.events import (
    AnyPayload,
    AttemptFailed,
    JobDelivered,
    JobFailed,
    JobVerified,
)
from openpool.core.units import GWEI
from openpool.core.views import PoolView
from openpool.store.interface import StoredEvent
from openpool.web.interface import Deps
from openpool.web.shapes import money

SECONDS = (0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8, 12)
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

    def _counter(self, name: str, text: str, labels: list[str] | None = None) -> Counter:
        return Counter(f"openpool_{name}", text, labels or [], registry=self._registry)

    def observe(self, stored: StoredEvent) -> None:
        """Count an event."""
        data = stored.event.data
        self._events.labels(data.type).inc()
        self._observe_job(data)

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

    async def render(self, viewers: int) -> bytes:
        """The text that Prometheus scrapes."""
        self._gauges.live = self._deps.live.snapshot(self._deps.clock_ms())
        self._gauges.viewers = viewers
        return await asyncio.to_thread(generate_latest, self._registry)


class _Gauges(Collector):
    """The state of this moment."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self.live: PoolView | None = None
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
        seq, _ = self._deps.reader.head()
        yield _gauge("log_events", "Events in the log.", seq)
        for name, wei in money(self._deps.reader.balances()).items():
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


def _gauge(name: str, text: str, value: float, labels: dict[str, str] | None = None) -> Metric:
    labels = labels or {}
    family = GaugeMetricFamily(f"openpool_{name}", text, labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family
