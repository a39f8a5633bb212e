"""Checks of what a worker tells during a session of live video: lines of JSON, one a frame.

A session may last for days, so its lines are checked while they pass, and none is kept. What was
shown is not kept either: a line is held against itself and the line before. Times and frames go
forward, boxes lie inside the frame, and there are no more frames than a stream can have.
"""

import msgspec
from msgspec import Struct

from openpool.core.call_requests import Transcript
from openpool.core.errors import BadResult
from openpool.core.usage import Measured
from openpool.pool.answers.nouns import Finding, Opener, demand
from openpool.pool.answers.pictures import Box, check_boxes, check_detections

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
    """Checks the lines of a session as they come (`core.call_requests.Follow`)."""

    def __init__(self) -> None:
        self._rest = b""
        """The beginning of a line."""
        self.frames = 0
        """Frames that were analysed."""
        self.pixels = 0
        """Pixels of all of them."""
        self._last = _Seen(t_ms=-1)

    def feed(self, chunk: bytes) -> None:
        """Take the next piece of the answer. Raises BadResult."""
        *lines, rest = (self._rest + chunk).split(b"\n")
        for line in filter(None, lines):
            self.line(line)
        demand(len(rest) <= LINE_BYTES_MAX, f"a line is longer than {LINE_BYTES_MAX} bytes")
        self._rest = rest

    def end(self) -> None:
        """The answer ended. Raises BadResult."""
        demand(not self._rest, "the last line is cut off")
        demand(self.frames > 0, "not one frame was analysed")

    def measured(self, took_ms: int) -> Measured | None:
        """What was analysed so far."""
        if not self.frames:
            return None
        return Measured(session_ms=took_ms, frame_pixels=self.pixels, frames=self.frames)

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
        most = seen.t_ms * FRAMES_PER_S_MAX // 1000 + FRAMES_PER_S_MAX
        demand(self.frames < most, f"{self.frames + 1} frames in {seen.t_ms} ms cannot be")
        self._last = seen
        self.frames += 1
        self.pixels += seen.width * seen.height


class OwnCheck:
    """Follows a session in a protocol of the operator's own: what is told is not known to be right,
    so that only its time is measured (`core.call_requests.Follow`)."""

    def __init__(self) -> None:
        self._answered = False

    def feed(self, chunk: bytes) -> None:
        """Take the next piece of the answer."""
        self._answered = self._answered or bool(chunk)

    def end(self) -> None:
        """The answer ended."""

    def measured(self, took_ms: int) -> Measured | None:
        """How long it has lasted, once something came."""
        return Measured(session_ms=took_ms) if self._answered else None


async def check_live(said: Transcript, opened: Opener) -> Finding:
    """What was measured while the lines passed; or a single picture, asked like any other."""
    if said.request:
        return await check_detections(said, opened)
    if said.seen is None:
        raise BadResult(said.fault or "not one frame was analysed")
    return Finding(said.seen, f"{said.seen.frames} frames analysed in {said.took_ms} ms")
