"""Frames of a stranger's video segments, and which of them to look at.

Bounded in every direction: pixels of a frame, frames of a segment. FFmpeg runs in this process,
which is the runtime's own: a crash costs the runtime's calls and nothing else.
"""

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from openpool.core.geometry import FRAME_PIXELS_MAX
from openpool.worker.runtimes.base import BadRequest

if TYPE_CHECKING:
    from av import VideoFrame

    from openpool.worker.runtimes.images import Picture

FRAMES_MAX = 3_600
"""Of a segment: a minute at 60 frames a second."""
ROUNDING_MS = 1
JUMP_MS_MAX = 10_000
"""A step of the timestamps beyond this is a new beginning, not a pause."""


class Frame(NamedTuple):
    """A decoded frame whose pixels are not converted yet."""

    t_ms: int
    """By the segment's own clock."""
    width: int
    height: int
    decoded: "VideoFrame"

    def picture(self, size: tuple[int, int]) -> "Picture":
        """Its pixels as RGB, scaled to this width and height."""
        import numpy as np

        width, height = size
        scaled = self.decoded.reformat(width, height, "rgb24", interpolation="FAST_BILINEAR")
        return np.asarray(scaled.to_ndarray(), np.uint8)


def frames(segment: bytes) -> Iterator[Frame]:
    """The segment's frames in the order they are shown. Raises BadRequest."""
    import av

    count = 0
    kind = container_of(segment)
    try:
        with av.open(io.BytesIO(segment), "r", kind, metadata_errors="replace") as container:
            if not container.streams.video:
                raise BadRequest("the segment has no video")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise BadRequest("the segment's video is in a format that is not known")
            stream.codec_context.options = {"max_pixels": str(FRAME_PIXELS_MAX)}
            for decoded in container.decode(stream):
                count += 1
                if count > FRAMES_MAX:
                    raise BadRequest(f"the segment has more than {FRAMES_MAX} frames")
                yield _frame(decoded, count)
    except (av.FFmpegError, ValueError, MemoryError):
        raise BadRequest("the segment cannot be decoded") from None
    if not count:
        raise BadRequest("the segment has no frame")


def container_of(segment: bytes) -> str:
    """FFmpeg's name of the container. It must not guess: some kinds open files and addresses."""
    if segment[:1] == b"G":
        return "mpegts"
    if segment[4:8] in (b"ftyp", b"styp", b"moov"):
        return "mp4"
    raise BadRequest("send MPEG-TS or MP4 segments, or JPEG, PNG or WebP pictures")


def _frame(decoded: "VideoFrame", count: int) -> Frame:
    if decoded.width * decoded.height > FRAME_PIXELS_MAX:
        raise BadRequest(f"frames of {decoded.width}x{decoded.height} are too large")
    time_s = decoded.time if decoded.time is not None else count / 30
    return Frame(round(time_s * 1000), decoded.width, decoded.height, decoded)


class Clock:
    """Counts the frames of a stream, and picks those that are to be looked at."""

    def __init__(self, fps: float) -> None:
        self.t_ms = 0
        """When the last frame was shown, since the stream's beginning."""
        self.frame = -1
        """The number of the last frame, from 0."""
        self._step_ms = 1000 / fps
        self._next_ms = 0.0
        self._last_pts_ms: int | None = None

    def wants_pts(self, pts_ms: int) -> bool:
        """Count a frame with a timestamp of the stream's own clock, which may jump."""
        last = pts_ms if self._last_pts_ms is None else self._last_pts_ms
        step = pts_ms - last
        self._last_pts_ms = pts_ms
        return self.wants(self.t_ms + (step if 0 <= step <= JUMP_MS_MAX else 0))

    def wants(self, t_ms: int) -> bool:
        """Count a frame at this time since the beginning; whether it is to be looked at."""
        self.frame += 1
        self.t_ms = max(t_ms, self.t_ms)
        if self.t_ms < self._next_ms - ROUNDING_MS:
            return False
        self._next_ms += self._step_ms  # not from t_ms: of 24 frames a second, 5 shall be 5
        if self._next_ms <= self.t_ms:
            self._next_ms = self.t_ms + self._step_ms  # a gap is not made up for
        return True
