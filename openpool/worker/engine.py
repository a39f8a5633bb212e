"""The transcoding engine: bytes of a source segment in, bytes of its renditions out.

One decoding feeds all renditions, each scaled from the source, in a thread of its own. Everything
happens in memory, and takes as long as it takes: whoever calls this guards against crashes and
time (`worker.sessions` runs it in a process of its own). Next: `worker.source`, `worker.output`.
"""

import time

from av.error import FFmpegError
from av.video.frame import VideoFrame

from openpool.core.geometry import MAX_RENDITIONS, RUNAWAY_FACTOR, rendition_size
from openpool.core.model import Profile, Segment
from openpool.worker.encoders import Warm, encoder_name, share_threads
from openpool.worker.lane import Lane
from openpool.worker.output import Output, Plan
from openpool.worker.source import AudioPacket, Source
from openpool.worker.terms import (
    INVALID_ARGUMENT,
    INVALID_RESOLUTION,
    TICKS,
    TOO_MANY_OUTPUTS,
    EncodedRendition,
    EngineError,
    EngineSettings,
    InputError,
    TranscodeResult,
)

__all__ = [
    "EncodedRendition",
    "EngineError",
    "EngineSettings",
    "InputError",
    "TranscodeResult",
    "transcode",
]


def transcode(
    source: bytes, segment: Segment, settings: EngineSettings, warm: Warm | None = None
) -> TranscodeResult:
    """All renditions that `segment` asks for, in its order.

    `warm` is what a GPU session keeps between segments. Raises InputError where the segment or the
    request is at fault, EngineError where it is this machine.
    """
    started = time.perf_counter()
    if not segment.profiles:
        raise InputError(INVALID_ARGUMENT)
    if len(segment.profiles) > MAX_RENDITIONS:
        raise InputError(TOO_MANY_OUTPUTS)
    opened = Source(source, settings)
    try:
        renditions = _Job(opened, segment, settings, warm).run()
    except FFmpegError as error:
        raise EngineError(f"FFmpeg failed on this worker: {error.strerror or error}") from error
    finally:
        opened.close()
    return TranscodeResult(
        renditions=renditions,
        source_pixels=opened.pixels,
        source_frames=opened.frames,
        media_ms=opened.media_ticks * 1000 // TICKS,
        took_ms=round((time.perf_counter() - started) * 1000),
    )


class _Job:
    """One segment on its way through the engine."""

    def __init__(
        self, source: Source, segment: Segment, settings: EngineSettings, warm: Warm | None
    ) -> None:
        self._source = source
        self._segment = segment
        self._settings = settings
        self._warm = warm
        self._clip = _Clip(segment)
        self._lanes: list[Lane] = []
        self._early_audio: list[AudioPacket] = []

    def run(self) -> tuple[EncodedRendition, ...]:
        try:
            self._read()
            if not self._lanes:
                raise InputError(INVALID_ARGUMENT)  # a clip that no frame falls into
            for lane in self._lanes:
                lane.end(self._frames_max)
            return tuple(lane.result() for lane in self._lanes)
        finally:
            for lane in self._lanes:
                lane.stop()

    def _read(self) -> None:
        video = self._source.video
        decoder = self._warm.decoder(video) if self._warm else video.codec_context
        for item in self._source.read(decoder):
            if isinstance(item, VideoFrame):
                self._on_frame(item)
            elif self._lanes:
                self._on_audio(item)
            else:
                self._early_audio.append(item)

    @property
    def _frames_max(self) -> int:
        return RUNAWAY_FACTOR * self._source.frames

    def _on_frame(self, frame: VideoFrame) -> None:
        if not self._clip.keep(frame):
            return
        if not self._lanes:
            self._open(frame)
        for lane in self._lanes:
            lane.add_frame(frame, self._frames_max)

    def _open(self, first: VideoFrame) -> None:
        """Open the outputs: only the first frame tells how large the source really is."""
        profiles = self._segment.profiles
        encoders = [encoder_name(profile.codec, self._settings) for profile in profiles]
        sizes = [_size(profile, first) for profile in profiles]
        threads = share_threads(sizes, self._settings)
        for made in zip(profiles, sizes, encoders, threads, strict=True):
            plan = Plan(*made, self._source, self._settings, self._warm, self._signature())
            self._lanes.append(Lane(Output(plan)))
        for packet in self._early_audio:
            self._on_audio(packet)
        self._early_audio.clear()

    def _on_audio(self, packet: AudioPacket) -> None:
        if self._clip.keep_audio(packet):
            for lane in self._lanes:
                lane.add_audio(packet)

    def _signature(self) -> str:
        address = self._segment.orchestrator_address
        return f"Livepeer Transcoder {self._settings.version} ({address})" if address else ""


def _size(profile: Profile, first: VideoFrame) -> tuple[int, int]:
    """Size of the rendition; InputError if nobody can encode it."""
    try:
        return rendition_size(profile, first.width, first.height)
    except (ValueError, ZeroDivisionError) as error:
        raise InputError(INVALID_RESOLUTION) from error


class _Clip:
    """Keeps what lies in the clip that is asked for, and counts its time from zero."""

    def __init__(self, segment: Segment) -> None:
        self._wanted = segment.clip_to_ms > 0
        self._from_ticks = segment.clip_from_ms * TICKS // 1000
        self._to_ticks = segment.clip_to_ms * TICKS // 1000
        self._origin: int | None = None
        self._start: int | None = None

    def keep(self, frame: VideoFrame) -> bool:
        """Whether the frame is in the clip; shifts it if so. The times are in 1/90000 s."""
        if not self._wanted or frame.pts is None:
            return True
        if self._origin is None:
            self._origin = frame.pts
        place = frame.pts - self._origin
        if not self._from_ticks <= place <= self._to_ticks:
            return False
        if self._start is None:
            self._start = frame.pts
        frame.pts -= self._start
        return True

    def keep_audio(self, packet: AudioPacket) -> bool:
        """The same for an audio packet, which has the clock of its stream."""
        if not self._wanted:
            return True
        if self._start is None or self._origin is None or packet.pts is None:
            return False
        per_second = 1 / packet.time_base
        start, end = (
            round(ticks * per_second / TICKS)
            for ticks in (self._start, self._origin + self._to_ticks)
        )
        if not start <= packet.pts <= end:
            return False
        packet.pts -= start
        packet.dts = packet.pts
        return True
