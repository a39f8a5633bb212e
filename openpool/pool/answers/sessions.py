"""Checks of what a worker tells during a session of live video: lines of JSON, one a frame.

A session may last for days, so its lines are checked while they pass, and none is kept. What was
shown is not kept either: a line is held against itself and the line before. Times and frames go
forward, boxes lie inside the frame, and there are no more frames than a stream can have. A picture
that comes with a line is opened in a checker process before the line counts.
"""

from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct

from openpool.core.call_requests import Transcript
from openpool.core.decoding import UNREADABLE
from openpool.core.errors import BadMessage, BadResult
from openpool.core.geometry import FRAME_PIXELS_MAX, shown_size
from openpool.core.texts import plural
from openpool.core.usage import Measured
from openpool.pool.answers.nouns import (
    Finding,
    Opener,
    Unmeasured,
    demand,
    open_result,
    read_answer,
)
from openpool.pool.answers.pictures import Box, Detections, check_boxes, check_detections
from openpool.pool.findings import Weight
from openpool.wire.framing import CONTENT_TYPE, Lines

JPEG_BYTES_MAX = 2_000_000
"""Half as much again as one of pure noise at the largest size."""
LINE_BYTES_MAX = 3_000_000
"""A picture in base64, and its boxes."""
JPEG_HEAD, JPEG_TAIL = b"\xff\xd8\xff", b"\xff\xd9"
FRAMES_PER_S_MAX = 60


class _Seen(Struct):
    """What was seen in a frame, or why something was not seen (`error`)."""

    t_ms: int = 0
    frame: int = -1
    width: int = 0
    height: int = 0
    boxes: list[Box] = []
    jpeg: bytes | None = None
    """The frame with its boxes drawn in; base64 on the wire."""
    error: str | dict[str, str] = ""


class LiveCheck:
    """Checks the lines of a session as they come (`pool.exchange.Follow`)."""

    def __init__(self, opened: Opener, *, annotated: bool = False) -> None:
        """`annotated` says that each frame was to come with its picture."""
        self.fault = ""
        self.frames = 0
        """Frames that were analysed."""
        self.pixels = 0
        """Pixels of all of them."""
        self._opened = opened
        self._annotated = annotated
        self._lines = Lines(LINE_BYTES_MAX)
        self._last_ms = self._last_frame = -1

    async def feed(self, chunk: bytes) -> bytes:
        """The lines that are whole with this piece, up to the first that is not right."""
        right = bytearray()
        try:
            for line in self._lines.feed(chunk):
                await self._take(_read(line))
                right += line + b"\n"
        except (BadMessage, BadResult) as fault:
            self.fault = str(fault)
        return bytes(right)

    def end(self) -> None:
        """The answer ended."""
        if self._lines.rest:
            self.fault = "the last line is cut off"
        elif not self.frames:
            self.fault = "not one frame was analysed"

    def measured(self, took_ms: int) -> Measured | None:
        """What was analysed so far."""
        if not self.frames:
            return None
        return Measured(session_ms=took_ms, frame_pixels=self.pixels, frames=self.frames)

    async def _take(self, seen: _Seen) -> None:
        """Count the next line if it is right. Raises BadResult."""
        if seen.error:
            demand(seen.jpeg is None, "a line about an error has no picture")
            return
        self._check(seen)
        if seen.jpeg is None:
            demand(not self._annotated, f"frame {seen.frame} has no JPEG, which was asked for")
        else:
            _check_bytes(seen.jpeg, seen.frame)
            picture = await open_result(self._opened, seen.jpeg, f"the JPEG of frame {seen.frame}")
            _check_picture(picture, seen)
        self._last_ms, self._last_frame = seen.t_ms, seen.frame
        self.frames += 1
        self.pixels += seen.width * seen.height

    def _check(self, seen: _Seen) -> None:
        """The line by itself, and after the one before. Raises BadResult."""
        forward = seen.t_ms >= self._last_ms and seen.frame > self._last_frame
        demand(forward, "times and frames of a session must go forward")
        pixels = seen.width * seen.height if min(seen.width, seen.height) > 0 else 0
        sized = 0 < pixels <= FRAME_PIXELS_MAX
        demand(sized, f"a frame of {seen.width}x{seen.height} cannot be")
        check_boxes(seen.boxes, seen.width, seen.height)
        most = seen.t_ms * FRAMES_PER_S_MAX // 1000 + FRAMES_PER_S_MAX
        demand(self.frames < most, f"{self.frames + 1} frames in {seen.t_ms} ms cannot be")


def _read(line: bytes) -> _Seen:
    """Raises BadResult."""
    try:
        return msgspec.json.decode(line, type=_Seen)
    except UNREADABLE as fault:
        raise BadResult(f"a line has not the right shape: {fault}") from None


def _check_bytes(jpeg: bytes, frame: int) -> None:
    """What can be said of a picture before it is opened. Raises BadResult."""
    size = len(jpeg)
    demand(
        size <= JPEG_BYTES_MAX, f"the JPEG of frame {frame} has {size} bytes, over {JPEG_BYTES_MAX}"
    )
    whole = jpeg.startswith(JPEG_HEAD) and jpeg.endswith(JPEG_TAIL)
    demand(whole, f"the picture of frame {frame} is no whole JPEG")


def _check_picture(picture: Weight, seen: _Seen) -> None:
    """It shows the frame in its own size, or in that at which large ones are shown. Raises
    BadResult."""
    shown = shown_size(seen.width, seen.height)
    demand(
        (picture.width, picture.height) in {shown, (seen.width, seen.height)},
        f"the JPEG of frame {seen.frame} is {picture.width}x{picture.height}, "
        f"not {shown[0]}x{shown[1]}",
    )


def wants_pictures(path: str) -> bool:
    """Whether the query of a session's path asks for a picture of each frame."""
    return dict(parse_qsl(path.partition("?")[2])).get("annotate") == "true"


class OwnCheck:
    """Follows a session in a protocol of the operator's own: what is told is not known to be right,
    so that only its time is measured (`pool.exchange.Follow`)."""

    def __init__(self) -> None:
        self.fault = ""
        self._answered = False

    async def feed(self, chunk: bytes) -> bytes:
        """All of it may be passed on."""
        self._answered = self._answered or bool(chunk)
        return chunk

    def end(self) -> None:
        """The answer ended."""

    def measured(self, took_ms: int) -> Measured | None:
        """How long it has lasted, once something came."""
        return Measured(session_ms=took_ms) if self._answered else None


async def check_live(said: Transcript, opened: Opener) -> Finding:
    """What was measured while the lines passed; or a single picture, asked like any other."""
    if said.request:
        return await check_detections(said, opened)
    if said.seen is not None:
        return Finding(
            said.seen, f"{plural(said.seen.frames, 'frame')} analysed in {said.took_ms} ms"
        )
    if said.fault or said.request_type == CONTENT_TYPE:
        raise BadResult(said.fault or "not one frame was analysed")
    return _check_single(said)


def _check_single(said: Transcript) -> Finding:
    """A picture within an orchestrator's session, of which time is paid: it was not kept."""
    if not said.whole:
        raise Unmeasured("the answer is not complete")
    found = read_answer(said.answer, Detections)
    check_boxes(found.boxes, found.width, found.height)
    return Finding(Measured(session_ms=said.took_ms), f"one picture, in {said.took_ms} ms")
