"""The transcoding engine beside the `ffmpeg` command, told to do the same."""

import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import pytest
from reading import Reading, read
from renditions import drop_packets

from openpool.core.model import Profile, Segment
from openpool.demo.media import make_segments
from openpool.worker.engine import EngineSettings, transcode

FFMPEG = shutil.which("ffmpeg")
pytestmark = pytest.mark.skipif(FFMPEG is None, reason="there is no ffmpeg command to compare with")

BITRATE_BPS = 300_000
SOURCES = {
    "plain": make_segments(320, 180, 30, 2, 1, seed=4)[0],
    "b-frames": make_segments(320, 180, 30, 2, 1, seed=4, b_frames=2)[0],
    "ntsc": make_segments(320, 180, Fraction(30_000, 1001), 2, 1)[0],
    "25 fps": make_segments(320, 180, 25, 2, 1, audio=False)[0],
    "portrait": make_segments(180, 320, 30, 1, 1)[0],
    "late": make_segments(320, 180, 30, 1, 1, start_s=90_000)[0],
}
SOURCES["uneven"] = drop_packets(SOURCES["plain"], lambda rank: rank % 7 == 3 or 20 <= rank < 26)
SOURCES["cut off"] = SOURCES["b-frames"][: len(SOURCES["b-frames"]) // 2]


def by_ffmpeg(source: Path, size: str, fps: int) -> Reading:
    """The same rendition by the command line."""
    target = source.with_suffix(".out.ts")
    rate = f"fps={fps}," if fps else ""
    timing = ["-vsync", "passthrough", "-enc_time_base", "-1"] if not fps else []
    command = [
        *("ffmpeg", "-v", "error", "-copyts", "-i", str(source), "-map", "0:v", "-map", "0:a?"),
        *("-vf", f"scale={size}:flags=bicubic,{rate}format=yuv420p", *timing),
        *("-c:v", "libx264", "-preset", "veryfast", "-bf", "3", "-forced-idr", "1"),
        *("-b:v", f"{BITRATE_BPS}", "-maxrate", f"{BITRATE_BPS}", "-bufsize", f"{BITRATE_BPS}"),
        *("-c:a", "copy", "-muxdelay", "0", "-muxpreload", "0", "-f", "mpegts", str(target)),
    ]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=60)
    return read(target.read_bytes())


@pytest.mark.parametrize("fps", [0, 60, 15])
@pytest.mark.parametrize("name", SOURCES)
def test_frames_and_times_are_those_of_ffmpeg(name: str, fps: int, tmp_path: Path) -> None:
    """Count, size and times of the pictures, and the audio, equal what `ffmpeg` makes."""
    (path := tmp_path / "source.ts").write_bytes(SOURCES[name])
    profile = Profile(name="p", width=256, height=144, bitrate_bps=BITRATE_BPS, fps_num=fps)
    segment = Segment(seq=1, duration_ms=2000, profiles=(profile,))
    rendition = transcode(SOURCES[name], segment, EngineSettings()).renditions[0]
    ours, theirs = (
        read(rendition.data),
        by_ffmpeg(path, f"{rendition.width}:{rendition.height}", fps),
    )
    assert len(ours.pts) == len(theirs.pts)
    assert ours.sizes == theirs.sizes
    assert ours.pts == theirs.pts
    assert ours.audio == theirs.audio
    assert len(rendition.data) == pytest.approx(path.with_suffix(".out.ts").stat().st_size, rel=0.1)
