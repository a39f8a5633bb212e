"""The gateway's part of the demo: live streams of real segments, and what came back of them.

A stream sends its next segment when the former has returned, or at the pace of a live stream.
Sources are made by `demo.media`; `demo.orchestrator` takes them. Nothing here knows the pool.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct

from openpool.core.model import Profile
from openpool.demo.media import make_segments
from openpool.demo.orchestrator import FILE_ENDING, Outcome, Output, StandIn
from openpool.demo.pixels import Picture, look_at

FPS = 30


class StreamPlan(Struct, frozen=True, kw_only=True):
    """One live stream to be."""

    manifest: str
    width: int
    height: int
    segment_ms: int
    count: int
    profiles: tuple[Profile, ...]
    seed: int = 0


class Finished(Struct, frozen=True, kw_only=True):
    """One rendition that came back, as the gateway found it by decoding."""

    manifest: str
    seq: int
    profile: str
    picture: Picture
    bytes: int
    path: str
    """Where it was written; empty if it was not."""


class Tally(Struct, kw_only=True):
    """Segments so far."""

    sent: int = 0
    returned: int = 0
    errors: list[str] = []

    @property
    def lost(self) -> int:
        """Sent, and answered with an error."""
        return len(self.errors)


P720 = Profile(name="720p", width=1280, height=720, bitrate_bps=2_000_000)
P360 = Profile(name="360p", width=640, height=360, bitrate_bps=700_000)
P240 = Profile(name="240p", width=426, height=240, bitrate_bps=300_000)


def ladder(streams: int, segments: int, segment_ms: int = 2000) -> list[StreamPlan]:
    """Every third stream 1080p, the others 720p; `segments` in all, shared out evenly."""
    plans = []
    for number in range(streams):
        high = number % 3 == 0
        plans.append(
            StreamPlan(
                manifest=f"{'stadium' if high else 'studio'}-{number}",
                width=1920 if high else 1280,
                height=1080 if high else 720,
                segment_ms=segment_ms,
                count=segments // streams + (number < segments % streams),
                profiles=(P720, P360) if high else (P360, P240),
                seed=number,
            )
        )
    return plans


class Gateway:
    """Feeds streams to an orchestrator and keeps what comes back."""

    def __init__(
        self,
        orchestrator: StandIn,
        *,
        folder: Path | None = None,
        live_pace: bool = False,
        on_outcome: Callable[[Outcome], None] = lambda outcome: None,
    ) -> None:
        """Renditions are written to `folder`, if there is one.

        `live_pace` sends each segment when a live stream would have it; `on_outcome` is told of
        every segment.
        """
        self.tally = Tally()
        self.finished: list[Finished] = []
        self._orchestrator = orchestrator
        self._folder = folder
        self._live_pace = live_pace
        self._on_outcome = on_outcome

    async def run(self, plans: Sequence[StreamPlan], sources: dict[str, list[bytes]]) -> None:
        """Send all streams side by side, until the last segment is answered."""
        async with asyncio.TaskGroup() as group:
            for plan in plans:
                group.create_task(self._stream(plan, sources[plan.manifest]))

    async def _stream(self, plan: StreamPlan, segments: Sequence[bytes]) -> None:
        started = time.monotonic()
        for seq, data in enumerate(segments):
            if self._live_pace:
                due = started + seq * plan.segment_ms / 1000
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            self.tally.sent += 1
            outcome = await self._orchestrator.submit(
                plan.manifest, seq, data, plan.segment_ms, plan.profiles
            )
            await self._keep(outcome)
            self._on_outcome(outcome)
        self._orchestrator.end_session(plan.manifest)

    async def _keep(self, outcome: Outcome) -> None:
        pictures = [await asyncio.to_thread(look_at, each.data) for each in outcome.renditions]
        exact = all(
            picture.pixels == output.pixels > 0
            for picture, output in zip(pictures, outcome.renditions, strict=True)
        )
        if not (outcome.ok and exact):
            error = outcome.error or "PixelMismatch"
            self.tally.errors.append(f"{outcome.manifest} {outcome.seq}: {error}")
            return
        self.tally.returned += 1
        for picture, output in zip(pictures, outcome.renditions, strict=True):
            self.finished.append(
                Finished(
                    manifest=outcome.manifest,
                    seq=outcome.seq,
                    profile=output.profile.name,
                    picture=picture,
                    bytes=len(output.data),
                    path=await self._save(outcome, output),
                )
            )

    async def _save(self, outcome: Outcome, output: Output) -> str:
        if self._folder is None:
            return ""
        ending = FILE_ENDING[output.profile.container]
        file = self._folder / outcome.manifest / output.profile.name / f"{outcome.seq}.{ending}"
        await asyncio.to_thread(_write, file, output.data)
        return str(file)


def make_sources(plan: StreamPlan) -> list[bytes]:
    """The stream's segments with sound. CPU work: call it in a thread."""
    return make_segments(
        plan.width, plan.height, FPS, plan.segment_ms / 1000, plan.count, seed=plan.seed
    )


def _write(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
