"""Makes one rendition: scales frames, sets their rate, encodes them, and writes the file.

It keeps to the rules that gateways and players rely on (docs/protocol.md): the aspect rule, an
IDR first, constant bit rate, time stamps as in the source, audio untouched. Next: `worker.engine`,
which feeds one of these per profile.
"""

from __future__ import annotations  # PyAV's Packet is generic only to the type checker

from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from av.codec.context import Flags
from av.error import BlockingIOError as NeedsMore
from av.error import EOFError as EndOfStream
from av.filter import Graph
from av.packet import Packet
from av.stream import Stream
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from openpool.core.model import Profile
from openpool.worker.encoders import Warm, encoder_options, frame_rate
from openpool.worker.file import RenditionFile
from openpool.worker.source import AudioPacket, Source
from openpool.worker.terms import (
    RUNAWAY,
    TICKS,
    EncodedRendition,
    EngineError,
    EngineSettings,
    InputError,
)

TICK = Fraction(1, TICKS)
PIXEL_FORMAT = "yuv420p"
TV_RANGE = 1


class Plan(NamedTuple):
    """What one rendition is made of."""

    profile: Profile
    size: tuple[int, int]
    encoder: str
    """FFmpeg's name of it."""
    threads: int
    """For scaling and for encoding."""
    source: Source
    settings: EngineSettings
    warm: Warm | None
    signature: str
    """Who made it, for the metadata; empty for none."""


class Output:
    """One rendition in the making. Feed frames and audio packets, then `finish`."""

    def __init__(self, plan: Plan) -> None:
        self._profile = plan.profile
        self._size = plan.size
        self._scaler = _Scaler(plan.size, plan.threads)
        rate = frame_rate(plan.profile)
        self._retimer = _retimer(self._size, rate) if rate else None
        self._file = RenditionFile(plan.profile.container, plan.signature)
        self._encoder, self._video = _open_encoder(plan, self._file)
        self._audio = self._file.add_audio(plan.source.audio)
        self._file.start()
        self._gop_ticks = 0 if rate else max(0, plan.profile.gop_ms) * TICKS // 1000
        self._key_due = 0
        self.frames = 0

    def add_frame(self, frame: VideoFrame, frames_max: int) -> None:
        """Encode one source frame; InputError if that makes more than `frames_max` in all."""
        scaled = self._scaler.scale(frame)
        if self._retimer is None:
            self._encode(scaled, frames_max)
            return
        self._retimer.vpush(scaled)
        for timed in _pull(self._retimer):
            self._encode(timed, frames_max)

    def add_audio(self, packet: AudioPacket) -> None:
        """Copy an audio packet, which other outputs may be reading at the same time."""
        if self._audio:
            self._file.copy(packet, self._audio)

    def finish(self, frames_max: int) -> EncodedRendition:
        """The finished file."""
        if self._retimer:
            self._retimer.vpush(None)
            for timed in _pull(self._retimer):
                self._encode(timed, frames_max)
        self._write(self._encoder.encode(None))
        data = self._file.finish()
        if self._file.video_packets != self.frames:
            made = self._file.video_packets
            raise EngineError(f"The encoder made {made} pictures of {self.frames}.")
        width, height = self._size
        return EncodedRendition(
            name=self._profile.name,
            container=self._profile.container,
            data=data,
            width=width,
            height=height,
            frames=self.frames,
            pixels=width * height * self.frames,
        )

    def _encode(self, frame: VideoFrame, frames_max: int) -> None:
        self.frames += 1
        if self.frames > frames_max:
            raise InputError(RUNAWAY)
        # Decoded frames carry the type they had in the source; the encoder would copy it.
        frame.pict_type = PictureType.I if self._is_key_due(frame.pts or 0) else PictureType.NONE
        self._write(self._encoder.encode(frame))

    def _is_key_due(self, pts: int) -> bool:
        """True for the first frame and, without a frame rate, once in every GOP time."""
        if self.frames == 1:
            self._key_due = pts + self._gop_ticks
            return True
        if not self._gop_ticks or pts < self._key_due:
            return False
        self._key_due += ((pts - self._key_due) // self._gop_ticks + 1) * self._gop_ticks
        return True

    def _write(self, packets: list[Packet[VideoStream]]) -> None:
        for packet in packets:
            self._file.write_video(packet, self._video)


class _Scaler:
    """Scales frames of any size to one size; a later shape of picture gets black bars."""

    def __init__(self, size: tuple[int, int], threads: int) -> None:
        self._size = size
        self._threads = threads
        self._first: tuple[int, int] | None = None
        self._input: tuple[object, ...] = ()
        self._graph = Graph()

    def scale(self, frame: VideoFrame) -> VideoFrame:
        kind = (frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range)
        if kind != self._input:
            self._input = kind
            self._first = self._first or (frame.width, frame.height)
            self._graph = self._build(frame, self._first)
        self._graph.vpush(frame)
        return self._graph.vpull()

    def _build(self, frame: VideoFrame, first: tuple[int, int]) -> Graph:
        width, height = self._size
        fit, bars = "", "null"
        if frame.width * first[1] != frame.height * first[0]:
            fit = ":force_original_aspect_ratio=decrease:force_divisible_by=2"
            bars = f"pad={width}:{height}:-1:-1"
        graph = Graph()
        graph.threads = self._threads
        name, _, arguments = bars.partition("=")
        graph.link_nodes(
            graph.add(
                "buffer",
                video_size=f"{frame.width}x{frame.height}",
                pix_fmt=frame.format.name,
                time_base=str(TICK),
                colorspace=str(int(frame.colorspace)),
                range=str(int(frame.color_range)),
            ),
            graph.add("scale", f"{width}:{height}:flags=bicubic:out_range=tv{fit}"),
            graph.add("format", PIXEL_FORMAT),
            graph.add(name, arguments or None),
            graph.add("buffersink"),
        ).configure()
        return graph


def _retimer(size: tuple[int, int], rate: Fraction) -> Graph:
    """Repeats and drops frames until they lie on the grid of `rate`, counted from time zero."""
    graph = Graph()
    graph.link_nodes(
        graph.add(
            "buffer",
            video_size=f"{size[0]}x{size[1]}",
            pix_fmt=PIXEL_FORMAT,
            time_base=str(TICK),
        ),
        graph.add("fps", f"fps={rate}"),
        graph.add("buffersink"),
    ).configure()
    return graph


def _pull(graph: Graph) -> Iterator[VideoFrame]:
    while True:
        try:
            frame = graph.vpull()
        except (NeedsMore, EndOfStream):
            return
        yield frame


def _open_encoder(plan: Plan, file: RenditionFile) -> tuple[VideoCodecContext, Stream]:
    """An encoder and the stream for its packets: the stream's own, or one that a session keeps."""
    rate = frame_rate(plan.profile) or plan.source.fps
    if plan.warm is None:
        own = file.add_video(plan.encoder, rate)
        _configure(own.codec_context, plan, rate)
        return own.codec_context, own

    def make() -> VideoCodecContext:
        context = VideoCodecContext.create(plan.encoder, "w")
        assert isinstance(context, VideoCodecContext)
        context.framerate = rate
        _configure(context, plan, rate)
        return context

    key = f"{plan.encoder} {plan.size} {rate} {plan.profile} {plan.source.colours}"
    return plan.warm.encoder(key, make), file.add_encoded_video(plan.encoder, rate, plan.size)


def _configure(context: VideoCodecContext, plan: Plan, rate: Fraction) -> None:
    context.width, context.height = plan.size
    context.pix_fmt = PIXEL_FORMAT
    context.time_base = 1 / rate if plan.profile.fps_num else TICK
    context.options = encoder_options(plan.profile, plan.settings)
    context.thread_count = plan.threads
    context.thread_type = "AUTO"  # PyAV's default would slice every picture, at a loss of quality
    context.flags |= Flags.frame_duration
    colours = plan.source.colours
    context.color_range = TV_RANGE
    context.color_primaries, context.color_trc = colours.primaries, colours.transfer
    context.colorspace = colours.matrix
    if colours.pixel_aspect:
        context.sample_aspect_ratio = colours.pixel_aspect
