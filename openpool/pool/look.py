"""What a video looks like: every frame as a thumbnail, and whether two videos show the same.

The deeper check of `pool.verify`, for a sample of results: black, frozen or replayed pictures have
the right size and count, and cost a cheat nothing. Runs only inside a checker process.
"""

from collections.abc import Sequence
from statistics import median

import av
from av.video.reformatter import Interpolation, VideoReformatter

from openpool.pool.findings import Look, Unreadable
from openpool.pool.probe import decoded, shown_us

WIDTH, HEIGHT = 32, 18
FRAMES_MAX = 3_000
PIXELS_MAX = 4_000_000_000
"""Decoding stops here (2,000 frames of 1080p): what follows is not looked at."""
MEDIAN_MAX = 4.0
FRAME_MAX = 12.0
"""Largest honest mean difference of luma, of 255: of the median frame, and of any frame."""
MOVES = 1.0
"""A source that changes by more than this from one frame to the next is moving."""
STALE_SHARE = 4
"""A rendition may miss at most 1/4 of the source's moves."""


def look(data: bytes, *, strict: bool = False) -> Look:
    """Decode a file into thumbnails. Raises Unreadable, if `strict` for any damage."""
    shrink = VideoReformatter()
    times: list[int] = []
    thumbnails: list[bytes] = []
    pixels = 0
    for frame in decoded(data, strict=strict):
        times.append(shown_us(frame) or 0)
        thumbnails.append(_thumbnail(shrink, frame))
        pixels += frame.width * frame.height
        if len(times) >= FRAMES_MAX or pixels > PIXELS_MAX:
            break
    if not times:
        raise Unreadable("has no frame that can be decoded")
    return Look(tuple(time - times[0] for time in times), tuple(thumbnails))


def clipped(whole: Look, from_ms: int, to_ms: int) -> Look:
    """The part of a look that a clip shows; all of it when `to_ms` is 0."""
    if not to_ms:
        return whole
    wanted = [i for i, time in enumerate(whole.times_us) if from_ms <= time / 1000 <= to_ms]
    if not wanted:
        raise Unreadable("has no frame in the clip that is asked for")
    first = whole.times_us[wanted[0]]
    return Look(
        tuple(whole.times_us[i] - first for i in wanted),
        tuple(whole.thumbnails[i] for i in wanted),
    )


def _thumbnail(shrink: VideoReformatter, frame: av.VideoFrame) -> bytes:
    # Keeping the colour range as it is makes luma comparable without converting it.
    small = shrink.reformat(
        frame,
        width=WIDTH,
        height=HEIGHT,
        format="yuv420p",
        interpolation=Interpolation.AREA,
        src_color_range=frame.color_range,
        dst_color_range=frame.color_range,
    )
    plane = small.planes[0]
    luma, stride = bytes(plane), plane.line_size
    return b"".join(luma[row * stride : row * stride + WIDTH] for row in range(HEIGHT))


def differs(source: Look, rendition: Look, slack: float) -> str:
    """Why the rendition does not show what the source shows; empty if it does.

    `slack` above 1 allows for pictures that have too few bits to be good.
    """
    nearest = _nearest(source, rendition)
    differences = [
        min(_difference(shown, each) for each in source.thumbnails[max(0, i - 1) : i + 2])
        for shown, i in zip(rendition.thumbnails, nearest, strict=True)
    ]
    if median(differences) > MEDIAN_MAX * slack:
        return "does not show what the source shows"
    if max(differences) > FRAME_MAX * slack:
        at_ms = rendition.times_us[differences.index(max(differences))] // 1000
        return f"shows something else than the source at {at_ms} ms"
    if _is_frozen(source, rendition, nearest):
        return "stands still where the source moves"
    return ""


def _nearest(source: Look, rendition: Look) -> list[int]:
    """For each frame of the rendition, the source frame shown at that time."""
    if len(source.times_us) == len(rendition.times_us):
        return list(range(len(source.times_us)))
    nearest: list[int] = []
    at = 0
    for time in rendition.times_us:
        while at + 1 < len(source.times_us) and (
            abs(source.times_us[at + 1] - time) <= abs(source.times_us[at] - time)
        ):
            at += 1
        nearest.append(at)
    return nearest


def _is_frozen(source: Look, rendition: Look, nearest: Sequence[int]) -> bool:
    """Whether the rendition misses too many of the moves that the source makes meanwhile."""
    # Two source frames apart, so that showing one of them a frame too late is no standstill.
    apart = 2 * max(1, -(-len(rendition.times_us) // len(source.times_us)))
    moves = missed = 0
    for i in range(apart, len(nearest)):
        before, now = nearest[i - apart], nearest[i]
        expected = _difference(source.thumbnails[before], source.thumbnails[now])
        if expected > MOVES:
            moves += 1
            seen = _difference(rendition.thumbnails[i - apart], rendition.thumbnails[i])
            missed += seen < expected / 4
    return moves >= STALE_SHARE and missed * STALE_SHARE > moves


def _difference(one: bytes, other: bytes) -> float:
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / len(one)
