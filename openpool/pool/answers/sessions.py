"""Checks of what a worker told during a session of live video: lines of JSON, one a frame.

What was shown is not kept, so a line is held against itself and the line before: times and frames
go forward, boxes lie inside the frame, and there are no more frames than a stream can have.
"""

import msgspec
from msgspec import Struct

from openpool.core.call_requests import Transcript
from openpool.core.errors import BadResult
from openpool.core.usage import Measured
from openpool.pool.answers.nouns import Finding, Opener, demand
from openpool.pool.answers.pictures import Box, check_boxes

LINE_BYTES_MAX = 1_000_000
SIDE_MAX = 16_384
FRAMES_PER_S_MAX = 60


class _Seen(Struct):
    """What was seen in a frame, or why something was not seen (`error`)."""

    t_ms: int = 0
    frame: int = -1
    width: int = 0
    height: int = 0
    boxes: list[Box] = []
    error: str | dict[str, str] = ""


class LiveCheck:
    """Checks the lines of a session as they come."""

    def __init__(self) -> None:
        self.frames = 0
        """Frames that were analysed."""
        self.pixels = 0
        """Pixels of all of them."""
        self._last = _Seen(t_ms=-1)

    @property
    def shown_ms(self) -> int:
        """How far the stream had come at the last frame."""
        return max(0, self._last.t_ms)

    def line(self, line: bytes) -> None:
        """Take the next line, without its end. Raises BadResult."""
        demand(len(line) <= LINE_BYTES_MAX, f"a line is longer than {LINE_BYTES_MAX} bytes")
        try:
            seen = msgspec.json.decode(line, type=_Seen)
        except (msgspec.MsgspecError, RecursionError) as fault:
            raise BadResult(f"a line has not the right shape: {fault}") from None
        if seen.error:
            return
        forward = seen.t_ms >= self._last.t_ms and seen.frame > self._last.frame
        demand(forward, "times and frames of a session must go forward")
        sized = 0 < seen.width <= SIDE_MAX and 0 < seen.height <= SIDE_MAX
        demand(sized, f"a frame of {seen.width}x{seen.height} cannot be")
        check_boxes(seen.boxes, seen.width, seen.height)
        self._last = seen
        self.frames += 1
        self.pixels += seen.width * seen.height


async def check_live(said: Transcript, _: Opener) -> Finding:
    """All lines are right, and there are some. The last may be cut off if the session was."""
    lines = said.answer.split(b"\n")
    rest = lines.pop()
    demand(not (rest and said.whole), "the last line is cut off")
    check = LiveCheck()
    for line in lines:
        check.line(line)
    demand(check.frames > 0, "not one frame was analysed")
    most = check.shown_ms * FRAMES_PER_S_MAX // 1000 + FRAMES_PER_S_MAX
    demand(check.frames <= most, f"{check.frames} frames in {check.shown_ms} ms cannot be")
    seen = Measured(session_ms=said.took_ms, frame_pixels=check.pixels)
    return Finding(seen, f"{check.frames} frames analysed in {said.took_ms} ms")
