"""Writes one rendition file in memory: MPEG-TS or MP4, video first, audio as it came.

Times stay as they are, absolute, so that the files of consecutive segments play as one. Only the
order is mended: decoding times must rise, and no picture may be due before it is decoded.
"""

from __future__ import annotations  # PyAV's Packet is generic only to the type checker

import contextlib
import io
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
from av.audio.stream import AudioStream
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from openpool.core.model import Container
from openpool.worker.source import AudioPacket
from openpool.worker.terms import TICKS, EngineError

if TYPE_CHECKING:
    AnyPacket = Packet[Any]  # of audio or video: only its times are touched here

WRITE_BYTES = 1 << 18
MP4_OPTIONS = {"movflags": "faststart", "movie_timescale": str(TICKS)}
"""The index goes first, and the start is exact: FFmpeg's default rounds it to milliseconds."""


class RenditionFile:
    """A file in the making: add streams, `start`, write packets, `finish`."""

    def __init__(self, container: Container, signature: str) -> None:
        self._buffer = io.BytesIO()
        self._output = av.open(
            self._buffer,
            "w",
            format=container,
            container_options=MP4_OPTIONS if container == "mp4" else {},
            buffer_size=WRITE_BYTES,
            io_open=self._reopen,
        )
        if signature:
            key, text = _metadata(container, signature)
            self._output.metadata[key] = text
        self._last_dts: dict[int, int] = {}
        self.video_packets = 0

    def add_video(self, encoder: str, rate: Fraction) -> VideoStream:
        """A video stream with an encoder of its own, not yet open."""
        stream = self._output.add_stream(encoder, rate=rate)
        assert isinstance(stream, VideoStream)
        return stream

    def add_encoded_video(self, encoder: str, rate: Fraction, size: tuple[int, int]) -> Stream:
        """A video stream for packets of an encoder that lives elsewhere."""
        return self._output.add_mux_stream(encoder, rate=rate, width=size[0], height=size[1])

    def add_audio(self, template: AudioStream | None) -> Stream | None:
        """A stream for packets copied from `template`, if there is one."""
        return template and self._output.add_stream_from_template(template)

    def start(self) -> None:
        """Open the encoders and write the header."""
        self._output.start_encoding()

    def write_video(self, packet: Packet[VideoStream], stream: Stream) -> None:
        """Write a packet of the encoder."""
        self.video_packets += 1
        self._write(packet, stream)

    def copy(self, packet: AudioPacket, stream: Stream) -> None:
        """Write a packet of the source, and leave that one alone: others read it too."""
        copy = Packet(bytes(packet))
        copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
        copy.time_base, copy.is_keyframe = packet.time_base, packet.is_keyframe
        with contextlib.suppress(FFmpegError):  # damaged sound: only this packet is lost
            self._write(copy, stream)

    def finish(self) -> bytes:
        """Write the trailer and give the whole file."""
        self._output.close()
        return self._buffer.getvalue()

    def _write(self, packet: AnyPacket, stream: Stream) -> None:
        """Place a packet in the stream's own clock, after the one before it."""
        time_base = stream.time_base
        if time_base is None or packet.dts is None or packet.pts is None:
            raise EngineError("The encoder gave a picture without a time.")
        scale = packet.time_base / time_base
        dts = round(packet.dts * scale)
        if stream.index in self._last_dts:
            dts = max(dts, self._last_dts[stream.index] + 1)
        self._last_dts[stream.index] = dts
        pts, duration = round(packet.pts * scale), round((packet.duration or 0) * scale)
        packet.stream, packet.time_base = stream, time_base
        packet.dts, packet.pts, packet.duration = dts, max(pts, dts), duration
        self._output.mux_one(packet)

    def _reopen(self, url: str, flags: int, options: dict[str, str]) -> _Reader:
        """MP4 reads its own output back, to put the index in front of the pictures."""
        return _Reader(self._buffer)


class _Reader:
    """Reads a buffer that is being written, with a place of its own."""

    def __init__(self, buffer: io.BytesIO) -> None:
        self._buffer = buffer
        self._place = 0

    def read(self, size: int) -> bytes:
        with self._buffer.getbuffer() as view:
            data = bytes(view[self._place : self._place + size])
        self._place += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        self._place = offset if whence == io.SEEK_SET else self._place + offset
        return self._place

    def tell(self) -> int:
        return self._place


def _metadata(container: Container, signature: str) -> tuple[str, str]:
    if container == "mp4":
        return "comment", f"Processed by {signature}"
    return "service_provider", signature
