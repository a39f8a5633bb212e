"""How large a picture is and how long a sound, found by opening it.

Everything here looks at bytes from strangers with FFmpeg: call it only inside a checker process
(`pool.checkers`). What a file's head claims is not believed: a picture is decoded, and a sound's
length is that of its packets. What the numbers mean for a call is for `pool.answers`.
"""

import io
from contextlib import suppress
from itertools import islice

import av
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream

from openpool.pool.findings import Unreadable, Weight

PICTURES = "png_pipe,jpeg_pipe,webp_pipe,jpegxl_pipe,bmp_pipe,gif"
SOUNDS = "wav,mp3,ogg,flac,aac,mov,mp4,m4a,matroska,webm,mpegts,aiff,amr"
PIXELS_MAX = 40_000_000
PACKETS_MAX = 2_000_000
LISTENED_PACKETS = 500
"""So many packets are decoded to hear whether there is sound at all."""
LISTENED_HZ = 8_000


def weigh(data: bytes) -> Weight:
    """Open a picture or a sound. Raises Unreadable."""
    options = {"format_whitelist": f"{PICTURES},{SOUNDS}", "max_pixels": str(PIXELS_MAX)}
    try:
        with av.open(
            io.BytesIO(data), "r", options=options, metadata_errors="replace"
        ) as container:
            return _sound(container) or _picture(container)
    except (av.error.FFmpegError, ValueError, IndexError) as error:
        words = getattr(error, "strerror", None) or str(error)
        raise Unreadable(f"cannot be read ({words})") from None


def _picture(container: InputContainer) -> Weight:
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream):
        raise Unreadable("holds neither a picture nor a sound")
    codec = stream.codec_context
    if codec is None or codec.width * codec.height > PIXELS_MAX:
        raise Unreadable("is in a codec that the pool does not know, or too large")
    codec.options = {"max_pixels": str(PIXELS_MAX), "err_detect": "explode"}
    for frame in islice(container.decode(stream), 1):
        if frame.is_corrupt:
            raise Unreadable("is damaged")
        return Weight(width=frame.width, height=frame.height)
    raise Unreadable("holds no picture")


def _sound(container: InputContainer) -> Weight | None:
    stream = container.streams.best("audio")
    if not isinstance(stream, AudioStream) or stream.codec_context is None:
        return None
    resampler = AudioResampler("s16", "mono", LISTENED_HZ)
    total, peak, base = 0, 0, stream.time_base
    with suppress(av.error.EOFError):
        for number, packet in enumerate(container.demux(stream)):
            if number >= PACKETS_MAX:
                raise Unreadable(f"has more than {PACKETS_MAX} packets")
            total += packet.duration or 0
            if number < LISTENED_PACKETS:
                for frame in packet.decode():
                    peak = max([peak, *map(_peak, resampler.resample(frame))])
    if not total or base is None:
        raise Unreadable("holds no sound")
    return Weight(audio_ms=total * 1000 * base.numerator // base.denominator, peak=peak)


def _peak(frame: av.AudioFrame) -> int:
    samples = memoryview(frame.planes[0]).cast("B")[: frame.samples * 2].cast("h")
    return max(max(samples, default=0), -min(samples, default=0))
