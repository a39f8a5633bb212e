"""Answers to what the API and the pages ask about calls and models.

Beside `web.views`, with the same rules: the store is read in threads, the desk's snapshot in the
loop; nothing here knows HTTP or decides who may see what. Shapes are in `web.call_shapes`.
"""

import asyncio
from collections.abc import Callable

from openpool.core.calls import App
from openpool.core.desk_views import CallView, DeskView, RunnerView
from openpool.core.events import CallAssigned, FeeCredited
from openpool.core.explain import Reason
from openpool.store.interface import EventFilter, StoredEvent
from openpool.web.call_shapes import (
    Call,
    Model,
    PipelineSeries,
    call_of,
    checkpoints_of,
    model_of,
    pipeline_series,
    without_secrets,
)
from openpool.web.interface import Deps
from openpool.web.shapes import span_of
from openpool.web.words import subject

LIVE_AGE_MS = 500
STORY_MAX = 200
"""Events of one call that are looked at: far more than it can have."""
PIPELINES_MAX = 40
ENDINGS = ("call-completed", "call-failed")


class CallViews:
    """Answers about calls; a pool that takes none has no models and no calls."""

    def __init__(self, deps: Deps) -> None:
        self._deps = deps
        self._live: DeskView | None = None

    def live(self) -> DeskView | None:
        """The desk's snapshot; one serves all who ask within half a second."""
        if self._deps.desk is None:
            return None
        now_ms = self._deps.clock_ms()
        if self._live is None or not 0 <= now_ms - self._live.now_ms < LIVE_AGE_MS:
            self._live = self._deps.desk.snapshot(now_ms)
        return self._live

    def in_flight(self) -> list[CallView]:
        """Oldest first."""
        live = self.live()
        return list(live.calls) if live else []

    def explain(self, worker: str) -> list[Reason]:
        """Why a worker gets calls or none; nothing if it has offered none since the start."""
        desk, live = self._deps.desk, self.live()
        if desk is None or live is None or all(each.worker != worker for each in live.workers):
            return []
        return list(desk.explain(worker, self._deps.clock_ms()))

    async def models(self) -> list[Model]:
        """Every app that is served now or has ever answered, by name."""
        rows = await asyncio.to_thread(self._deps.reader.apps)
        known = {App(row.pipeline, row.model): row for row in rows}
        live = self.live()
        served = {App(app.pipeline, app.model): app for app in live.apps} if live else {}
        quote = self._deps.call_price
        return [
            model_of(app, served.get(app), known.get(app), quote(app, "direct"))
            for app in sorted(served.keys() | known.keys())
        ]

    def runners(self) -> list[RunnerView]:
        """Every app at every orchestrator that is to sell it; troubles first, then by name."""
        found = self._deps.runners()
        return sorted(
            found, key=lambda each: (not each.problem, each.pipeline, each.model, each.orchestrator)
        )

    async def recent(self, limit: int) -> list[StoredEvent]:
        """The events with which the latest calls ended, newest first."""
        which = EventFilter(types=ENDINGS, newest_first=True, limit=limit)
        return await asyncio.to_thread(self._deps.reader.events, which)

    async def call(self, call: str, seen_by: Callable[[str], bool]) -> Call | None:
        """A call from its events, with the attempts of those workers that may be seen.

        None if there is none, or none of those workers had to do with it.
        """
        which = EventFilter(job=call, limit=STORY_MAX)
        story = await asyncio.to_thread(self._deps.reader.events, which)
        if not any(
            isinstance(each.event.data, CallAssigned | FeeCredited)
            and seen_by(each.event.data.worker)
            for each in story
        ) and not seen_by(""):
            return None
        found = [
            each for each in story if not (worker := subject(each.event.data)) or seen_by(worker)
        ]
        count, newest = await asyncio.to_thread(self._deps.reader.checkpoints, call)
        if newest is not None and not seen_by(subject(newest.event.data)):
            newest = None
        told = call_of(call, found, checkpoints_of(count, newest))
        return told if told is None or seen_by("") else without_secrets(told)

    async def pipelines(self, start_ms: int, end_ms: int, step_s: int) -> PipelineSeries:
        """Steps like those of `Views.series`. Raises BadMessage for a span that is none."""
        reader = self._deps.reader
        start_ms, grain_ms = span_of(start_ms, end_ms, step_s)

        def read() -> PipelineSeries:
            names = sorted({row.pipeline for row in reader.apps()})[:PIPELINES_MAX]
            found = {
                name: reader.series(
                    start_ms=start_ms, end_ms=end_ms, step_ms=grain_ms, worker=f"pipeline:{name}"
                )
                for name in names
            }
            return pipeline_series(found, start_ms, end_ms, step_s * 1000)

        return await asyncio.to_thread(read)
