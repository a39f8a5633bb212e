"""What a video file really is: size, frames, times and sound, read without decoding.

Everything here looks at bytes from strangers with FFmpeg, which may crash or hang on them: call it
only inside a checker process (`pool.checkers`). Whether the numbers are right for a job is decided
in `pool.judge`; how the picture looks is for `pool.look`.
"""

import hashlib
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain

import av
import msgspec
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from openpool.pool.findings import Probe, Unreadable

PACKETS_MAX = 200_000
TS_PACKET_BYTES = 188
STUMBLES_MAX = 100
CONTAINERS = "mpegts,mov,mp4,matroska,webm,flv"
"""What may be opened: no playlists, which could make FFmpeg read other files or addresses."""
DEMUX_ONLY = {"codec_whitelist": "none"}
"""Keeps FFmpeg from decoding to guess stream parameters; its parsers still find the size."""
MICROSECONDS = 1_000_000


def probe(data: bytes) -> Probe:
    """Measure a file by its packets. Raises Unreadable."""
    with _opened(data, DEMUX_ONLY) as container:
        stream = _video(container)
        reader = _Reader(stream)
        for packet in _packets(container, *container.streams):
            reader.take(packet)
        container_name = _container_name(container)
        if not reader.frames:
            raise Unreadable("holds no video frames")
        width, height = stream.codec_context.width, stream.codec_context.height
    if container_name != "mpegts" or not width or not height:
        # Such a header is only a claim; the first picture is the truth.
        width, height = _first_picture_size(data)
    return reader.probe(data, container_name, stream.codec_context.name, width, height)


def recount(data: bytes, measured: Probe) -> Probe:
    """The same file with frames and times as a decoder sees them. Raises Unreadable.

    A damaged source has packets that no decoder can show: nobody is to blame for missing them.
    """
    times: list[int] = []
    frames = 0
    for frame in decoded(data):
        frames += 1
        if (time_us := shown_us(frame)) is not None:
            times.append(time_us)
    if not frames:
        raise Unreadable("has no frame that can be decoded")
    if frames == measured.frames:
        return measured
    return msgspec.structs.replace(
        measured,
        frames=frames,
        times_us=tuple(sorted(times)),
        tidy=False,
        packets=measured.frames,
    )


def shown_us(frame: av.VideoFrame) -> int | None:
    """When a frame is shown; None for one without a time or without a time base, as damaged files
    have them."""
    if frame.pts is None or not frame.time_base:
        return None
    return frame.pts * MICROSECONDS * frame.time_base.numerator // frame.time_base.denominator


def decoded(data: bytes, *, strict: bool = False) -> Iterator[av.VideoFrame]:
    """The frames a decoder shows. Raises Unreadable.

    What is damaged is left out or patched up, which no two decoders do in the same way; `strict`
    raises Unreadable instead.
    """
    # Without the deblocking filter, pictures are good enough to look at, and a third cheaper.
    options = {"skip_loop_filter": "all"} | ({"err_detect": "explode"} if strict else {})
    with _opened(data, {}) as container:
        stream = _video(container)
        stream.codec_context.options = options
        stream.codec_context.thread_count = 1  # with more, `explode` finds nothing
        flush: Packet[av.stream.Stream] = Packet()
        flush.time_base = stream.time_base or Fraction(1, 90_000)
        filled = (packet for packet in _packets(container, stream) if packet.size)
        for packet in chain(filled, (flush,)):
            if strict and packet.is_corrupt:
                raise Unreadable("has damaged packets")
            try:
                yield from stream.codec_context.decode(packet)
            except av.error.InvalidDataError:
                if strict:
                    raise


class _Reader:
    """Collects what the packets tell."""

    def __init__(self, stream: VideoStream) -> None:
        self._video = stream
        self._audio: dict[int, list[int]] = {}
        self._times: list[int] = []
        self._last_dts = -(1 << 63)
        self._packets = 0
        self._tidy = True
        self._bytes = 0
        self._starts_with_key = False
        self.frames = 0

    def take(self, packet: "Packet[av.stream.Stream]") -> None:
        self._packets += 1
        if self._packets > PACKETS_MAX:
            raise Unreadable("holds more packets than a segment can have")
        if not packet.size:
            return
        if packet.stream.index == self._video.index:
            self._take_video(packet)
        elif packet.stream.type == "audio":
            checksums = self._audio.setdefault(packet.stream.index, [])
            checksums.append(zlib.crc32(_without_adts_header(bytes(packet))))

    def _take_video(self, packet: "Packet[av.stream.Stream]") -> None:
        if not self.frames:
            self._starts_with_key = packet.is_keyframe
        self.frames += 1
        self._bytes += packet.size
        if packet.pts is None or packet.dts is None or packet.dts <= self._last_dts:
            self._tidy = False
        if packet.dts is not None:
            self._last_dts = packet.dts
        if packet.pts is not None:
            base = self._video.time_base or packet.time_base
            self._times.append(packet.pts * MICROSECONDS * base.numerator // base.denominator)

    def probe(self, data: bytes, container: str, codec: str, width: int, height: int) -> Probe:
        return Probe(
            container=container,
            codec=codec,
            width=width,
            height=height,
            frames=self.frames,
            starts_with_key=self._starts_with_key,
            times_us=tuple(sorted(self._times)),
            tidy=self._tidy,
            whole=container != "mpegts" or len(data) % TS_PACKET_BYTES == 0,
            bytes=len(data),
            video_bytes=self._bytes,
            audio=tuple(tuple(checksums) for checksums in self._audio.values()),
            sha256=hashlib.sha256(data).hexdigest(),
        )


@contextmanager
def _opened(data: bytes, options: dict[str, str]) -> Iterator[InputContainer]:
    options = {"format_whitelist": CONTAINERS, **options}
    try:
        with av.open(
            io.BytesIO(data), "r", options=options, metadata_errors="replace"
        ) as container:
            yield container
    except (av.error.FFmpegError, ValueError) as error:
        raise Unreadable(f"cannot be read ({_in_words(error)})") from None


def _packets(
    container: InputContainer, *streams: av.stream.Stream
) -> "Iterator[Packet[av.stream.Stream]]":
    """The packets of these streams. A stream that only begins in the middle makes PyAV stumble."""
    for _ in range(STUMBLES_MAX):
        try:
            yield from container.demux(*streams)
            return
        except IndexError:
            continue  # it goes on where it stopped, and knows the new stream by now
        except av.error.EOFError:
            return


def _in_words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _video(container: InputContainer) -> VideoStream:
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream):
        raise Unreadable("holds no video")
    if stream.codec_context is None:
        raise Unreadable("is in a codec that the pool does not know")
    return stream


def _container_name(container: InputContainer) -> str:
    names = container.format.name.split(",")
    return "mp4" if "mp4" in names else names[0]


def _first_picture_size(data: bytes) -> tuple[int, int]:
    for frame in decoded(data):
        return frame.width, frame.height
    raise Unreadable("has no frame that can be decoded")


def _without_adts_header(packet: bytes) -> bytes:
    """AAC in MPEG-TS carries a header that MP4 does not: without it, copies are equal."""
    if len(packet) < 7 or packet[0] != 0xFF or packet[1] & 0xF6 != 0xF0:
        return packet
    return packet[7:] if packet[1] & 1 else packet[9:]
