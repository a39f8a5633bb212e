"""Real video made on the spot: H.264 and AAC segments of a moving picture with sound.

Consecutive segments continue each other's timestamps to the tick, as those of a live stream do,
and every segment can be decoded on its own. The same arguments give the same content. This module
makes *sources*; what a worker makes of them is in `worker.engine`.
"""

from __future__ import annotations  # PyAV's Packet is generic only to the type checker

import io
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.filter import Graph
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from openpool.core.model import Container

SAMPLE_RATE = 48_000
SAMPLES_PER_PACKET = 1024
AUDIO_BPS = 96_000
NO_PICTURE_TYPE = 0


class Clip(NamedTuple):
    """What a stream of segments looks like."""

    width: int
    height: int
    fps: Fraction
    seconds_each: Fraction
    seed: int
    container: Container
    start_s: Fraction
    b_frames: int

    @property
    def frames_each(self) -> int:
        """Frames of one segment."""
        return max(1, round(self.seconds_each * self.fps))

    def first_frame(self, number: int) -> int:
        """The number of the first frame of segment `number`, counted from time zero."""
        return round(self.start_s * self.fps) + number * self.frames_each


def make_segments(
    width: int,
    height: int,
    fps: int | Fraction,
    seconds_each: float | Fraction,
    count: int,
    audio: bool = True,
    seed: int = 0,
    *,
    container: Container = "mpegts",
    start_s: int | Fraction = 10,
    b_frames: int = 0,
) -> list[bytes]:
    """`count` consecutive segments of moving video, the first shown at about `start_s` seconds.

    Width and height must be even; a width below the height gives a portrait stream.
    """
    seconds = Fraction(seconds_each).limit_denominator(90_000)
    clip = Clip(width, height, Fraction(fps), seconds, seed, container, Fraction(start_s), b_frames)
    pictures = _pictures(clip)
    sound = _Sound(clip) if audio else None
    return [_segment(clip, number, pictures, sound) for number in range(count)]


def _segment(
    clip: Clip, number: int, pictures: Iterator[VideoFrame], sound: _Sound | None
) -> bytes:
    buffer = io.BytesIO()
    options = {"movie_timescale": "90000"} if clip.container == "mp4" else {}
    with av.open(buffer, "w", format=clip.container, container_options=options) as output:
        video = _video_stream(output, clip)
        audio = _audio_stream(output) if sound else None
        output.start_encoding()
        first = clip.first_frame(number)
        for index in range(first, first + clip.frames_each):
            frame = next(pictures)
            frame.pts, frame.time_base = index, 1 / clip.fps
            frame.pict_type = NO_PICTURE_TYPE
            output.mux(video.encode(frame))
            if sound and audio:
                _mux_sound(output, audio, sound.until((index + 1) / clip.fps))
        output.mux(video.encode(None))
    return buffer.getvalue()


def _mux_sound(
    output: OutputContainer, stream: AudioStream, packets: list[Packet[AudioStream]]
) -> None:
    for packet in packets:
        packet.stream = stream
        output.mux_one(packet)


def _video_stream(output: OutputContainer, clip: Clip) -> VideoStream:
    stream = output.add_stream("libx264", rate=clip.fps)
    stream.width, stream.height, stream.pix_fmt = clip.width, clip.height, "yuv420p"
    stream.codec_context.time_base = 1 / clip.fps
    stream.codec_context.gop_size = round(clip.fps * 2)
    stream.codec_context.options = {
        "preset": "ultrafast",
        "crf": "28",
        "bf": str(clip.b_frames),
    }
    return stream


def _audio_stream(output: OutputContainer) -> AudioStream:
    """A stream for packets that `_Sound` encodes: its own encoder only gives the header."""
    stream = output.add_stream("aac", rate=SAMPLE_RATE)
    stream.bit_rate = AUDIO_BPS
    stream.layout = "stereo"
    return stream


def _pictures(clip: Clip) -> Iterator[VideoFrame]:
    """An endless test card: moving shapes, a running clock, and grain, coloured by the seed."""
    graph = Graph()
    graph.link_nodes(
        graph.add("testsrc2", f"size={clip.width}x{clip.height}:rate={clip.fps}"),
        graph.add("hue", f"h={clip.seed * 47 % 360}"),
        graph.add("noise", f"alls=5:allf=t:all_seed={clip.seed + 1}"),
        graph.add("format", "yuv420p"),
        graph.add("buffersink"),
    ).configure()
    while True:
        yield graph.vpull()


class _Sound:
    """One AAC encoder for the whole stream, so that no gap is heard between segments."""

    def __init__(self, clip: Clip) -> None:
        self._graph = Graph()
        tone_hz = 220 + clip.seed * 37 % 660
        self._graph.link_nodes(
            self._graph.add("sine", f"frequency={tone_hz}:beep_factor=4:sample_rate={SAMPLE_RATE}"),
            self._graph.add("aformat", "sample_fmts=fltp:channel_layouts=stereo"),
            self._graph.add("asetnsamples", f"{SAMPLES_PER_PACKET}"),
            self._graph.add("abuffersink"),
        ).configure()
        encoder = av.CodecContext.create("aac", "w")
        assert isinstance(encoder, AudioCodecContext)
        encoder.sample_rate, encoder.layout, encoder.format = SAMPLE_RATE, "stereo", "fltp"
        encoder.bit_rate, encoder.time_base = AUDIO_BPS, Fraction(1, SAMPLE_RATE)
        self._encoder = encoder
        self._next_pts = round(clip.first_frame(0) / clip.fps * SAMPLE_RATE)
        self._ready: deque[Packet[AudioStream]] = deque()

    def until(self, time_s: Fraction) -> list[Packet[AudioStream]]:
        """The packets not yet given out that are heard before `time_s`."""
        while self._next_pts - SAMPLES_PER_PACKET < time_s * SAMPLE_RATE:
            frame = self._graph.pull()
            assert isinstance(frame, AudioFrame)
            frame.pts, frame.time_base = self._next_pts, Fraction(1, SAMPLE_RATE)
            self._next_pts += frame.samples
            self._ready.extend(self._encoder.encode(frame))
        packets: list[Packet[AudioStream]] = []
        while self._ready and (self._ready[0].pts or 0) < time_s * SAMPLE_RATE:
            packets.append(self._ready.popleft())
        return packets
