"""Opens a source segment and gives its pictures and its audio packets, in the order of the file.

The bytes come from strangers: only the container formats that gateways send are tried, nothing
they name is ever opened, and damage costs the damaged frames only. Time stamps leave here in
1/90000 s, present on every frame and strictly rising. Next: `worker.engine`.
"""

from __future__ import annotations  # PyAV's Packet is generic only to the type checker

import io
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple, Protocol

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from openpool.core.geometry import MAX_SEGMENT_MS
from openpool.worker.terms import (
    INVALID_RESOLUTION,
    INVALID_VIDEO,
    NO_KEYFRAMES,
    TICKS,
    UNSUPPORTED_CODEC,
    EngineError,
    EngineSettings,
    InputError,
)

FORMATS = "mpegts,mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,flv"
TS_PACKET, TS_SYNC = 188, b"G"
FPS_MAX = 1000
DEFAULT_FPS = Fraction(30)

if TYPE_CHECKING:
    AudioPacket = Packet[AudioStream]
else:
    AudioPacket = Packet


class Colours(NamedTuple):
    """What the samples mean, in FFmpeg's numbers; it passes from the source to its renditions."""

    primaries: int
    transfer: int
    matrix: int
    pixel_aspect: Fraction | None


class Decoder(Protocol):
    """The part of a codec context that is needed here."""

    def decode(self, packet: Packet[Stream] | None = None) -> list[VideoFrame]: ...


class Source:
    """One segment, opened. `read` may be called once.

    Raises InputError where nobody could make a video of the bytes.
    """

    def __init__(self, data: bytes, settings: EngineSettings) -> None:
        self._settings = settings
        self._container = _open(data)
        self.video = _video(self._container, settings)
        self.audio = _audio(self._container)
        self.fps = _frame_rate(self.video)
        self.colours = _colours(self.video)
        self._clock = _Clock(round(TICKS / self.fps))
        self._audio_end: int | None = None
        self.frames = 0
        self.pixels = 0
        self.media_ticks = 0
        self._first_pts = 0

    def close(self) -> None:
        """Free the demuxer and its decoder."""
        self._container.close()

    def read(self, decoder: Decoder) -> Iterator[VideoFrame | AudioPacket]:
        """Frames with their time stamps mended, and packets of the audio stream.

        Raises InputError if no frame can be decoded, or if it plays for more than 300 s.
        """
        keyframes = 0
        for packet in self._demux():
            if packet.stream.index == self.video.index:
                keyframes += packet.is_keyframe
                yield from self._frames(decoder, packet)
            elif self._mend_audio(packet):
                yield packet  # type: ignore[misc]  # only the audio stream is left
        yield from self._frames(decoder, None)
        if not self.frames:
            raise InputError(INVALID_VIDEO if keyframes else NO_KEYFRAMES)

    def _demux(self) -> Iterator[Packet[Stream]]:
        """Every packet that carries something; damage to the container ends the segment."""
        wanted = [self.video, self.audio] if self.audio else [self.video]
        packets = self._container.demux(*wanted)
        while True:
            try:
                packet = next(packets, None)
            except FFmpegError:
                return
            if packet is None:
                return
            if packet.size:
                yield packet

    def _frames(self, decoder: Decoder, packet: Packet[Stream] | None) -> Iterator[VideoFrame]:
        try:
            frames = decoder.decode(packet)
        except FFmpegError:
            return  # a damaged picture: the decoder goes on with the next
        for frame in frames:
            self._count(frame)
            yield frame

    def _count(self, frame: VideoFrame) -> None:
        time_base = self.video.time_base or Fraction(1, TICKS)
        pts = None if frame.pts is None else round(frame.pts * time_base * TICKS)
        length = round(frame.duration * time_base * TICKS) or self._clock.step
        frame.pts, frame.time_base = self._clock.next(pts), Fraction(1, TICKS)
        frame.duration = length
        if not self.frames:
            self._first_pts = frame.pts
        self.frames += 1
        self.pixels += frame.width * frame.height
        self.media_ticks = frame.pts + length - self._first_pts
        self._check_size(frame)

    def _check_size(self, frame: VideoFrame) -> None:
        if self.media_ticks > MAX_SEGMENT_MS * TICKS // 1000:
            raise InputError(INVALID_VIDEO)
        if frame.width * frame.height > self._settings.frame_pixels_max:
            raise InputError(INVALID_RESOLUTION)
        if self.pixels > self._settings.decoded_pixels_max:
            limit = self._settings.decoded_pixels_max
            raise EngineError(
                f"The segment has more than {limit} pixels, too many for this worker."
            )

    def _mend_audio(self, packet: Packet[Stream]) -> bool:
        """Give the packet times if it has none; False if it cannot be placed at all."""
        if packet.pts is None:
            packet.pts = packet.dts if packet.dts is not None else self._audio_end
        if packet.pts is None:
            return False
        if packet.dts is None:
            packet.dts = packet.pts
        self._audio_end = packet.pts + (packet.duration or 0)
        return True


class _Clock:
    """Gives every frame a time after the one before it."""

    def __init__(self, step: int) -> None:
        self.step = step
        self._last: int | None = None

    def next(self, pts: int | None) -> int:
        if self._last is None:
            self._last = pts or 0
        elif pts is None:
            self._last += self.step
        else:
            self._last = max(pts, self._last + 1)
        return self._last


def _open(data: bytes) -> InputContainer:
    """A demuxer over bytes. The list of formats keeps out playlists, which open other files."""
    # FFmpeg does not recognise a transport stream of a few packets, so it is told.
    known = "mpegts" if data[:1] == data[TS_PACKET : TS_PACKET + 1] == TS_SYNC else None
    options = {"format_whitelist": FORMATS}
    try:
        return av.open(io.BytesIO(data), "r", format=known, container_options=options)
    except (FFmpegError, ValueError) as error:
        raise InputError(INVALID_VIDEO) from error


def _video(container: InputContainer, settings: EngineSettings) -> VideoStream:
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream):
        raise InputError(INVALID_VIDEO)
    if stream.codec_context is None:
        raise InputError(UNSUPPORTED_CODEC)
    if stream.width * stream.height > settings.frame_pixels_max:
        raise InputError(INVALID_RESOLUTION)
    stream.codec_context.thread_type = "AUTO"
    stream.codec_context.thread_count = settings.threads
    return stream


def _audio(container: InputContainer) -> AudioStream | None:
    stream = container.streams.best("audio")
    return stream if isinstance(stream, AudioStream) and stream.codec_context else None


def _frame_rate(stream: VideoStream) -> Fraction:
    for rate in (stream.average_rate, stream.guessed_rate):
        if rate and 1 <= rate <= FPS_MAX:
            return rate
    return DEFAULT_FPS


def _colours(stream: VideoStream) -> Colours:
    context = stream.codec_context
    return Colours(
        context.color_primaries,
        context.color_trc,
        context.colorspace,
        context.sample_aspect_ratio or None,
    )
