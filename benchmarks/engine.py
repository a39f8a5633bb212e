"""The worker's engine against plain `ffmpeg`: the same renditions, one long file, one machine.

Both sides run in turn, in pairs, with the same x264 settings and key frames at the same places;
the worker gets the video as segments, through its processes and pipes. The figure is the median
ratio of throughputs over the pairs (target: at least 0.97), with the ratio of CPU time beside it.
Pairs during which other programs took part of the machine are shown but do not count: under
contention whoever has more threads wins, which says nothing about either.
"""

import asyncio
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import psutil

from openpool.core.model import Profile, Segment
from openpool.demo.media import make_segments
from openpool.worker.sessions import SessionPool
from openpool.worker.terms import EngineSettings

PAIRS = 5
SECONDS_MAX = 60
OTHERS_MAX = 0.05
"""Part of the machine that other programs may take before a pair does not count."""
SEGMENTS, SECONDS = 4, 2
TARGET = 0.97
LADDER = (
    Profile(name="720p", width=1280, height=720, bitrate_bps=3_000_000),
    Profile(name="480p", width=854, height=480, bitrate_bps=1_600_000),
    Profile(name="360p", width=640, height=360, bitrate_bps=800_000),
    Profile(name="240p", width=426, height=240, bitrate_bps=250_000),
)
SETTINGS = EngineSettings()


class Run(NamedTuple):
    """What one run took."""

    wall_s: float
    cpu_s: float
    others: float
    """Part of the machine that other programs took meanwhile."""


class Meter:
    """Measures a run from its making to `stop`."""

    def __init__(self) -> None:
        self._busy_s = self._machine_s()
        self._started = time.perf_counter()

    def stop(self, cpu_s: float) -> Run:
        """The run, which itself took `cpu_s` of CPU time."""
        wall_s = time.perf_counter() - self._started
        busy_s = self._machine_s() - self._busy_s
        return Run(wall_s, cpu_s, max(0.0, busy_s - cpu_s) / (wall_s * (os.cpu_count() or 1)))

    def _machine_s(self) -> float:
        times = psutil.cpu_times()
        return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))


def with_ffmpeg(source: Path) -> Run:
    """All renditions of one long file, by the command line."""
    command = ["ffmpeg", "-v", "error", "-nostdin", "-y", "-copyts", "-i", str(source)]
    for profile in LADDER:
        rate = str(profile.bitrate_bps)
        command += [
            *("-map", "0:v", "-map", "0:a"),
            *("-vf", f"scale={profile.width}:{profile.height}:flags=bicubic,format=yuv420p"),
            *("-c:v", "libx264", "-preset", SETTINGS.preset, "-bf", "3", "-forced-idr", "1"),
            *("-b:v", rate, "-minrate", rate, "-maxrate", rate, "-bufsize", rate),
            *("-force_key_frames", f"expr:gte(t,n_forced*{SECONDS})", "-c:a", "copy"),
            *("-muxdelay", "0", "-muxpreload", "0", "-f", "mpegts"),
            str(source.with_name(f"{profile.name}.ts")),
        ]
    before, meter = resource.getrusage(resource.RUSAGE_CHILDREN), Meter()
    subprocess.run(command, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return meter.stop(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


async def with_worker(pool: SessionPool, segments: list[bytes]) -> Run:
    """The same renditions segment by segment, as a worker makes them."""
    process = psutil.Process(pool.processes["s"])
    before, own, meter = process.cpu_times(), time.process_time(), Meter()
    for seq, segment in enumerate(segments):
        await pool.transcode("s", segment, Segment(seq=seq, duration_ms=2000, profiles=LADDER))
    after = process.cpu_times()
    child_s = after.user + after.system - before.user - before.system
    return meter.stop(child_s + time.process_time() - own)


async def measure(folder: Path) -> list[tuple[Run, Run]]:
    """Pairs of (worker, ffmpeg), each pair in the other order than the one before."""
    segments = make_segments(1920, 1080, 30, SECONDS, SEGMENTS, seed=1)
    (source := folder / "source.ts").write_bytes(b"".join(segments))
    pool = SessionPool(1, SETTINGS, nice=0)
    pairs: list[tuple[Run, Run]] = []
    started = time.monotonic()
    try:
        await pool.transcode("s", segments[0], Segment(seq=0, duration_ms=9000, profiles=LADDER))
        while len(undisturbed(pairs)) < PAIRS and time.monotonic() - started < SECONDS_MAX:
            if len(pairs) % 2:
                theirs = with_ffmpeg(source)
                ours = await with_worker(pool, segments)
            else:
                ours = await with_worker(pool, segments)
                theirs = with_ffmpeg(source)
            pairs.append((ours, theirs))
    finally:
        await pool.close()
    return pairs


def undisturbed(pairs: list[tuple[Run, Run]]) -> list[tuple[Run, Run]]:
    """The pairs that had the machine to themselves."""
    return [pair for pair in pairs if max(run.others for run in pair) <= OTHERS_MAX]


def main() -> int:
    """Print the figures; fails if the target is missed."""
    if shutil.which("ffmpeg") is None:
        print("engine: skipped, there is no ffmpeg command to compare with")
        return 0
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        pairs = asyncio.run(measure(Path(folder)))
    print(f"1080p30, {SEGMENTS * SECONDS} s with audio, to {len(LADDER)} renditions,")
    print(f"{SETTINGS.preset}, {os.cpu_count()} cores; seconds of wall time (of CPU time)")
    for ours, theirs in pairs:
        others = max(ours.others, theirs.others)
        print(
            f"  worker {ours.wall_s:5.2f} ({ours.cpu_s:5.2f})"
            f"   ffmpeg {theirs.wall_s:5.2f} ({theirs.cpu_s:5.2f})"
            f"   throughput ratio {theirs.wall_s / ours.wall_s:.3f}"
            + (f"   not counted: others took {others:.0%}" if others > OTHERS_MAX else "")
        )
    return report(pairs)


def report(pairs: list[tuple[Run, Run]]) -> int:
    """Print the medians; 1 if the target is missed."""
    cpu = statistics.median(theirs.cpu_s / ours.cpu_s for ours, theirs in pairs)
    print(f"work done per CPU second: {cpu:.3f} x ffmpeg")
    counted = undisturbed(pairs)
    if not counted:
        print("throughput: no figure, the machine was busy with other programs all the time")
        return 0
    ratio = statistics.median(theirs.wall_s / ours.wall_s for ours, theirs in counted)
    verdict = "met" if ratio >= TARGET else "MISSED"
    print(f"throughput: {ratio:.3f} x ffmpeg, {len(counted)} pairs (target {TARGET}: {verdict})")
    return 0 if ratio >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
