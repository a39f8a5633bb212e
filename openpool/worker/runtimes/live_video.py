"""Things seen in live video, told while it runs.

A session takes MPEG-TS segments or single pictures (JPEG, PNG, WebP) as messages and answers each
frame that it looks at with one line of JSON: when, which frame, what and where. It looks at `fps`
frames a second (query: `fps`, `threshold`). With `annotate=true` each line also carries the frame
as a picture with the boxes drawn in. A segment that cannot be decoded costs itself only.
Its options are those of `detector`, and `fps_max` (30).
"""

import base64
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from openpool.core.geometry import FRAME_PIXELS_MAX, shown_size
from openpool.worker.runtimes import networks, video
from openpool.worker.runtimes.annotate import annotated
from openpool.worker.runtimes.asking import number
from openpool.worker.runtimes.base import (
    BadRequest,
    Runtime,
    RuntimeAnswer,
    RuntimeRequest,
    Session,
)
from openpool.worker.runtimes.detector import OPTIONS, Box, Detector
from openpool.worker.runtimes.images import open_picture
from openpool.worker.runtimes.object_detection import ObjectDetection
from openpool.worker.runtimes.options import KnownOptions, by_name
from openpool.worker.runtimes.options import number as option

if TYPE_CHECKING:
    from openpool.worker.runtimes.images import Picture

FPS = "5"
FPS_MAX = option("fps_max", "frames a second that a client may ask for (30)", 0.1, 1000, 30)
BROKEN_MAX = 10
"""Messages in a row that cannot be read before the session ends."""
PICTURE_HEADS = (b"\xff\xd8", b"\x89PNG", b"RIFF")


class Seen(Struct, frozen=True):
    """What was seen in one frame."""

    t_ms: int
    """Since the stream's first frame."""
    frame: int
    """Its number in the stream, from 0; frames that were not looked at count too."""
    width: int
    height: int
    boxes: list[Box]
    jpeg: str | UnsetType = UNSET
    """The frame with its boxes drawn in, as base64, if the client wants it."""


class Lost(Struct, frozen=True):
    """A message that could not be read, and why."""

    t_ms: int
    error: str


class LiveVideo(Runtime):
    """Looks at streams."""

    pipeline: ClassVar[str] = "live-video-analysis"
    paths: ClassVar[tuple[str, ...]] = ("/v1/live/detect", "/live", "/detect")
    streaming: ClassVar[bool] = True
    session: ClassVar[bool] = True
    known_options: ClassVar[KnownOptions] = {**OPTIONS, **by_name(FPS_MAX)}

    @classmethod
    def missing(cls) -> str:
        """What has to be installed before this can run."""
        return networks.missing("live video analysis")

    def load(self) -> None:
        """Load the detector."""
        self._stills = ObjectDetection(self.model, self.options, self.cache)
        self._stills.load()
        self._detector = self._stills.detector
        self._fps_max = FPS_MAX.of(self.options)

    def answer(self, request: RuntimeRequest) -> RuntimeAnswer:
        """A single picture, as object detection answers it."""
        return self._stills.answer(request)

    def open(self, options: Mapping[str, str]) -> Session:
        """Begin a session."""
        fps = number("fps", options.get("fps", FPS), 0.1, self._fps_max)
        threshold = number(
            "threshold", options.get("threshold", str(self._detector.threshold)), 0, 1
        )
        annotate = options.get("annotate", "false")
        if annotate not in ("true", "false"):
            raise BadRequest("annotate must be true or false")
        return Watching(self._detector, fps, threshold, annotate=annotate == "true")


class Watching(Session):
    """One stream that is being watched."""

    def __init__(
        self,
        detector: Detector,
        fps: float,
        threshold: float,
        now_ms: Callable[[], int] = lambda: time.monotonic_ns() // 1_000_000,
        *,
        annotate: bool = False,
    ) -> None:
        self._detector = detector
        self._threshold = threshold
        self._now_ms = now_ms
        self._annotate = annotate
        self._began_ms: int | None = None
        self._clock = video.Clock(fps)
        self._broken = 0

    def feed(self, message: bytes) -> Iterator[bytes]:
        """Look at a segment or a picture; one line for each frame that was looked at, and nothing
        for each of the others, which took their time as well."""
        try:
            if message.startswith(PICTURE_HEADS):
                yield from self._picture(message)
            else:
                yield from self._segment(message)
            self._broken = 0
        except BadRequest as fault:
            self._broken += 1
            if self._broken >= BROKEN_MAX:
                raise BadRequest(
                    f"{BROKEN_MAX} messages in a row cannot be read: {fault}"
                ) from None
            yield _line(Lost(self._clock.t_ms, str(fault)))

    def _picture(self, message: bytes) -> Iterator[bytes]:
        """A picture has no time of its own: it was taken when it came."""
        now_ms = self._now_ms()
        self._began_ms = now_ms if self._began_ms is None else self._began_ms
        if self._clock.wants(now_ms - self._began_ms):
            picture = open_picture(message, FRAME_PIXELS_MAX)
            size = (picture.shape[1], picture.shape[0])
            yield self._look(lambda wanted: networks.resize(picture, wanted), *size)

    def _segment(self, message: bytes) -> Iterator[bytes]:
        for frame in video.frames(message):
            if self._clock.wants_pts(frame.t_ms):
                yield self._look(frame.picture, frame.width, frame.height)
            else:
                yield b""

    def _look(
        self, scaled: "Callable[[tuple[int, int]], Picture]", width: int, height: int
    ) -> bytes:
        """The line about a frame of width x height, which `scaled` gives in any size."""
        boxes = self._detector.look(scaled(self._detector.size), width, height, self._threshold)
        jpeg: str | UnsetType = UNSET
        if self._annotate:
            file = annotated(scaled(shown_size(width, height)), boxes, width)
            jpeg = base64.b64encode(file).decode()
        return _line(Seen(self._clock.t_ms, self._clock.frame, width, height, boxes, jpeg))


def _line(value: Seen | Lost) -> bytes:
    return msgspec.json.encode(value) + b"\n"
