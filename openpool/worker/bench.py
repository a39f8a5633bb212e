"""`openpool worker --bench`: how many sessions at once this machine transcodes in time.

It measures the real path (processes, pipes, encoders) on a clip that the caller makes, sessions
side by side, each sending its next segment as soon as the last is back. A number of sessions is
sustained if 95 % of the segments return within 0.8 of their duration, which leaves the rest for
the network. The number is doubled until it is not sustained, then narrowed down.
"""

import asyncio
import math
import time
from collections.abc import Callable, Sequence

import psutil
from msgspec import Struct
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from openpool.core.model import Profile, Segment
from openpool.core.texts import plural
from openpool.worker.gpu import Machine
from openpool.worker.sessions import SessionPool, time_limit_ms
from openpool.worker.terms import EngineError, EngineSettings

SOURCE_WIDTH, SOURCE_HEIGHT, SOURCE_FPS, SOURCE_SECONDS = 1920, 1080, 30, 2
"""The usual source; make about four segments of it."""
LADDER = (
    Profile(name="720p", width=1280, height=720, bitrate_bps=3_000_000),
    Profile(name="480p", width=854, height=480, bitrate_bps=1_600_000),
    Profile(name="360p", width=640, height=360, bitrate_bps=800_000),
    Profile(name="240p", width=426, height=240, bitrate_bps=250_000),
)
SECONDS = 30
LATENCY_SHARE = 0.8
"""Part of a segment's duration that transcoding it may take."""
MEMORY_SHARE = 0.8
SEGMENTS_EACH = 3
SESSIONS_MAX = 256


class Level(Struct, frozen=True, kw_only=True):
    """What happened with this many sessions at once."""

    sessions: int
    segments: int
    failures: int
    rtf: float
    """Wall time of a segment over its duration, on average; below 1 is faster than real time."""
    p50_ms: int
    p95_ms: int
    memory_bytes: int
    sustained: bool


class BenchReport(Struct, frozen=True, kw_only=True):
    """The sweep, and what to advertise."""

    cores: int
    gpu: str
    device: str
    """`cpu`, or `gpu` and its number."""
    preset: str
    renditions: tuple[str, ...]
    segment_ms: int
    levels: tuple[Level, ...]
    suggested_sessions: int
    """0 where this machine cannot keep up with even one session."""
    limited_by: str
    """`latency`, `nvenc`, `memory`, `sessions` (the most that were asked for), or `time`, if the
    sweep ended before it found the limit."""


OnProgress = Callable[[int, float], None]
"""Called with the sessions tried and the part of the time that is used up."""


async def bench(
    clip: Sequence[bytes],
    segment_ms: int,
    machine: Machine,
    settings: EngineSettings,
    *,
    profiles: Sequence[Profile] = LADDER,
    seconds: float = SECONDS,
    sessions_max: int = SESSIONS_MAX,
    on_progress: OnProgress = lambda sessions, share: None,
) -> BenchReport:
    """Measure with the segments of `clip`, each `segment_ms` long, in about `seconds`."""
    sweep = _Sweep(clip, segment_ms, settings, profiles, seconds, on_progress)
    most, limited_by = most_sessions(machine, settings, len(profiles), sessions_max)
    good, bad = 0, most + 1
    while bad - good > 1 and sweep.has_time:
        searching_up = bad > most
        level = await sweep.measure(min(good * 2 or 1, most) if searching_up else (good + bad) // 2)
        if not level.sustained:
            bad, limited_by = level.sessions, "latency"
            continue
        good = level.sessions
        if (fit := max(good, _memory_limit(level))) < bad - 1:
            most, bad, limited_by = fit, fit + 1, "memory"
    return BenchReport(
        cores=machine.cores,
        gpu=machine.gpu,
        device="cpu" if settings.device is None else f"gpu {settings.device}",
        preset=settings.preset,
        renditions=tuple(profile.name for profile in profiles),
        segment_ms=segment_ms,
        levels=tuple(sorted(sweep.levels, key=lambda level: level.sessions)),
        suggested_sessions=good,
        limited_by="time" if bad - good > 1 else limited_by,
    )


def most_sessions(
    machine: Machine, settings: EngineSettings, renditions: int, sessions_max: int
) -> tuple[int, str]:
    """Sessions that are never exceeded, and why; every rendition takes one of the encoders."""
    if settings.device is not None and machine.gpu_sessions_max:
        sessions = machine.gpu_sessions_max // renditions
        if sessions < sessions_max:
            return sessions, "nvenc"
    return sessions_max, "sessions"


def _memory_limit(level: Level) -> int:
    """Sessions that fit into the memory that was free before these."""
    each = max(1, level.memory_bytes // level.sessions)
    free = psutil.virtual_memory().available + level.memory_bytes
    return max(1, int(free * MEMORY_SHARE) // each)


class _Sweep:
    """Levels measured one after another until the time is up."""

    def __init__(
        self,
        clip: Sequence[bytes],
        segment_ms: int,
        settings: EngineSettings,
        profiles: Sequence[Profile],
        seconds: float,
        on_progress: OnProgress,
    ) -> None:
        self._clip = clip
        self._segment_ms = segment_ms
        self._settings = settings
        self._profiles = tuple(profiles)
        self._seconds = seconds
        self._on_progress = on_progress
        self._started = time.monotonic()
        self.levels: list[Level] = []

    @property
    def has_time(self) -> bool:
        """Whether another level fits in, as long as the last one took on its slowest segment."""
        last_s = self.levels[-1].p95_ms * SEGMENTS_EACH / 1000 if self.levels else 0
        return self._used_s() + last_s < self._seconds

    async def measure(self, sessions: int) -> Level:
        """Run `sessions` at once for a few segments each."""
        self._on_progress(sessions, self._used_s() / self._seconds)
        pool = SessionPool(sessions, self._settings)
        try:
            async with asyncio.TaskGroup() as group:
                names = [f"bench-{number}" for number in range(sessions)]
                tasks = [group.create_task(self._session(pool, name)) for name in names]
            memory_bytes = pool.memory_bytes
        finally:
            await pool.close()
        latencies = sorted(latency for task in tasks for latency in task.result())
        level = self._level(sessions, latencies, memory_bytes)
        self.levels.append(level)
        self._on_progress(sessions, self._used_s() / self._seconds)
        return level

    async def _session(self, pool: SessionPool, name: str) -> list[float]:
        """Latency of each segment in ms; a failure counts as infinitely late."""
        latencies = []
        on_gpu = self._settings.device is not None
        for seq in range(SEGMENTS_EACH + on_gpu):
            segment = Segment(seq=seq, duration_ms=self._segment_ms, profiles=self._profiles)
            started = time.monotonic()
            try:
                await pool.transcode(name, self._clip[seq % len(self._clip)], segment)
                latencies.append((time.monotonic() - started) * 1000)
            except EngineError:
                latencies.append(math.inf)
        return latencies[on_gpu:]  # the first opens the GPU, which later segments need not

    def _level(self, sessions: int, latencies: list[float], memory_bytes: int) -> Level:
        """The figures of sorted latencies."""
        slowest = time_limit_ms(self._segment_ms)
        capped = [min(latency, slowest) for latency in latencies]
        p95_ms = _quantile(capped, 0.95)
        return Level(
            sessions=sessions,
            segments=len(capped),
            failures=latencies.count(math.inf),
            rtf=round(sum(capped) / len(capped) / self._segment_ms, 3),
            p50_ms=_quantile(capped, 0.5),
            p95_ms=p95_ms,
            memory_bytes=memory_bytes,
            sustained=math.inf not in latencies and p95_ms <= LATENCY_SHARE * self._segment_ms,
        )

    def _used_s(self) -> float:
        return time.monotonic() - self._started


def _quantile(ordered: Sequence[float], share: float) -> int:
    return round(ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)])


async def bench_with_progress(
    console: Console,
    clip: Sequence[bytes],
    segment_ms: int,
    machine: Machine,
    settings: EngineSettings,
    *,
    profiles: Sequence[Profile] = LADDER,
    seconds: float = SECONDS,
) -> BenchReport:
    """The same as `bench`, with a progress bar."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("warming up", total=1.0)

        def on_progress(sessions: int, share: float) -> None:
            text = f"{plural(sessions, 'session')} at once"
            progress.update(task, description=text, completed=min(share, 1.0))

        return await bench(
            clip,
            segment_ms,
            machine,
            settings,
            profiles=profiles,
            seconds=seconds,
            on_progress=on_progress,
        )


def show(report: BenchReport, console: Console) -> None:
    """Print a report as a table and a sentence."""
    title = f"{report.device}, {plural(report.cores, 'core')}, preset {report.preset}: "
    table = Table("sessions", "real-time factor", "p50", "p95", "memory", "in time")
    for level in report.levels:
        table.add_row(
            str(level.sessions),
            f"{level.rtf:.2f}",
            f"{level.p50_ms} ms",
            f"{level.p95_ms} ms",
            f"{level.memory_bytes >> 20} MB",
            "yes" if level.sustained else "no",
        )
    console.print(title + " ".join(report.renditions))
    console.print(table)
    if report.suggested_sessions:
        console.print(
            f"Suggested session limit: {report.suggested_sessions} (limit: {report.limited_by})"
        )
    else:
        console.print(
            "This machine cannot keep up with one such session: ask for fewer renditions."
        )
