"""Sizes and counts that a rendition must have: the one place for the aspect rule.

The box in a profile only gives the long side; the other side follows the aspect ratio of the
source. So it is with the pictures of a session of live video. Worker and pool both compute with
these functions, so they cannot disagree.
"""

from collections.abc import Sequence
from typing import NamedTuple

from openpool.core.model import Codec, Profile, SourceInfo

MAX_RENDITIONS = 10
MAX_SEGMENT_BYTES = 300_000_000
MAX_SEGMENT_MS = 300_000
MIN_RENDITION_BYTES = 25
RUNAWAY_FACTOR = 25
"""More encoded than this many times the decoded frames is an error."""
FRAME_PIXELS_MAX = 8_900_000
"""A frame of live video that is looked at: up to 4096x2160."""
SHOWN_SIDE_MAX = 1280
"""The longer side of a picture that is shown of a frame; larger frames are scaled down."""


class Limits(NamedTuple):
    """Smallest and largest encodable size of a codec."""

    width_min: int
    height_min: int
    width_max: int
    height_max: int


LIMITS = {
    Codec.H264: Limits(146, 50, 4096, 4096),
    Codec.H265: Limits(132, 40, 8192, 8192),
}


def _even(value: int) -> int:
    return value // 2 * 2


def _follow(side: int, numerator: int, denominator: int) -> int:
    """The other side at the same aspect ratio, to the nearest even number (as FFmpeg's -2)."""
    return (side * numerator + denominator) // (2 * denominator) * 2


def rendition_size(profile: Profile, width: int, height: int) -> tuple[int, int]:
    """Width and height that a source of `width` x `height` becomes under `profile`.

    Raises ValueError where the codec cannot encode the result.
    """
    limits = LIMITS[profile.codec]
    box_width = min(max(profile.width, limits.width_min), limits.width_max)
    box_height = min(max(profile.height, limits.height_min), limits.height_max)
    long_side = max(box_width, box_height)
    if width >= height:
        if long_side * height >= limits.height_min * width:
            size = _even(long_side), _follow(_even(long_side), height, width)
        else:
            side = _even(limits.height_min)
            size = _follow(side, width, height), side
    elif long_side * width >= limits.width_min * height:
        size = _follow(_even(long_side), width, height), _even(long_side)
    else:
        side = _even(limits.width_min)
        size = side, _follow(side, height, width)
    if size[0] > limits.width_max or size[1] > limits.height_max:
        raise ValueError(f"{size[0]}x{size[1]} is larger than the codec allows")
    return size


def shown_size(width: int, height: int) -> tuple[int, int]:
    """Width and height of the picture that is shown of a frame, to the nearest pixel."""
    longer = max(width, height)
    if longer <= SHOWN_SIDE_MAX:
        return width, height
    shown = [(2 * side * SHOWN_SIDE_MAX + longer) // (2 * longer) for side in (width, height)]
    return max(1, shown[0]), max(1, shown[1])


def frames_expected(profile: Profile, source: SourceInfo) -> tuple[int, int]:
    """Fewest and most frames that an honest rendition of `source` can have.

    Without a frame rate every source frame is kept. With one, the count follows the duration;
    rounding at both ends of the segment leaves two frames of room.
    """
    if profile.fps_num == 0:
        return source.frames, source.frames
    exact = source.duration_ms * profile.fps_num // (1000 * profile.fps_den)
    return max(1, exact - 2), exact + 2


def pixels(sizes: Sequence[tuple[int, int]], frames: Sequence[int]) -> int:
    """Encoded pixels of renditions with these sizes and frame counts."""
    return sum(w * h * n for (w, h), n in zip(sizes, frames, strict=True))
