"""The worker's engine against plain `ffmpeg`: the same renditions, one long file, one machine.

Both sides run in turn, in pairs, with the same x264 settings and key frames at the same places;
the worker gets the video as segments, through its processes and pipes. The figure is the median
ratio of throughputs over the pairs (target: at least 0.97), with the ratio of CPU time beside it.
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
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True)
    wall_s = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Run(wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


async def with_worker(pool: SessionPool, segments: list[bytes]) -> Run:
    """The same renditions segment by segment, as a worker makes them."""
    process = psutil.Process(pool.processes["s"])
    before, started = process.cpu_times(), time.perf_counter()
    own = time.process_time()
    for seq, segment in enumerate(segments):
        await pool.transcode("s", segment, Segment(seq=seq, duration_ms=2000, profiles=LADDER))
    wall_s = time.perf_counter() - started
    after = process.cpu_times()
    child_s = after.user + after.system - before.user - before.system
    return Run(wall_s, child_s + time.process_time() - own)


async def measure(folder: Path) -> list[tuple[Run, Run]]:
    """Pairs of (worker, ffmpeg), each pair in the other order than the one before."""
    segments = make_segments(1920, 1080, 30, SECONDS, SEGMENTS, seed=1)
    (source := folder / "source.ts").write_bytes(b"".join(segments))
    pool = SessionPool(1, SETTINGS, nice=0)
    pairs = []
    try:
        await pool.transcode("s", segments[0], Segment(seq=0, duration_ms=9000, profiles=LADDER))
        for number in range(PAIRS):
            if number % 2:
                theirs = with_ffmpeg(source)
                ours = await with_worker(pool, segments)
            else:
                ours = await with_worker(pool, segments)
                theirs = with_ffmpeg(source)
            pairs.append((ours, theirs))
    finally:
        await pool.close()
    return pairs


def main() -> int:
    """Print the figures; fails if the target is missed."""
    if shutil.which("ffmpeg") is None:
        print("engine: skipped, there is no ffmpeg command to compare with")
        return 0
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        pairs = asyncio.run(measure(Path(folder)))
    media_s = SEGMENTS * SECONDS
    print(f"1080p30, {media_s} s with audio, to {len(LADDER)} renditions, {SETTINGS.preset}")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; seconds of wall time (of CPU)")
    for ours, theirs in pairs:
        print(
            f"  worker {ours.wall_s:5.2f} ({ours.cpu_s:5.2f})"
            f"   ffmpeg {theirs.wall_s:5.2f} ({theirs.cpu_s:5.2f})"
            f"   throughput ratio {theirs.wall_s / ours.wall_s:.3f}"
        )
    ratio = statistics.median(theirs.wall_s / ours.wall_s for ours, theirs in pairs)
    cpu = statistics.median(theirs.cpu_s / ours.cpu_s for ours, theirs in pairs)
    verdict = "met" if ratio >= TARGET else "MISSED"
    print(
        f"throughput {ratio:.3f} x ffmpeg (target {TARGET}: {verdict}), per CPU second {cpu:.3f} x"
    )
    return 0 if ratio >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
