"""Sound of any format as plain samples, with every limit checked while it is decoded."""

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

import av
from av.audio.frame import AudioFrame
from av.container import InputContainer
from av.error import FFmpegError

from openpool.worker.runtimes.base import BadRequest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RATE = 16_000
"""Samples per second of everything in here."""
FORMATS = (
    "wav,w64,aiff,au,caf,mp3,ogg,flac,aac,ac3,eac3,amr,mov,mp4,m4a,3gp,3g2,matroska,webm,mpegts,"
    "mpeg,avi,asf,flv"
)
"""Containers that are opened. Others of FFmpeg's are lists that open files or the network."""


def samples_of(data: bytes, seconds_max: float) -> "NDArray[np.int16]":
    """One channel of 16-bit samples, 16,000 a second. Raises BadRequest."""
    import numpy as np

    sound, bytes_max = bytearray(), int(seconds_max * RATE) * 2
    try:
        with av.open(
            io.BytesIO(data),
            "r",
            metadata_errors="ignore",
            container_options={"format_whitelist": FORMATS},
        ) as container:
            assert isinstance(container, InputContainer)
            for piece in _pieces(container, seconds_max):
                sound += piece
                if len(sound) > bytes_max:
                    raise _too_long(seconds_max)
    except (FFmpegError, ValueError, OSError):
        if not sound:
            raise BadRequest("the file is no sound that can be read") from None
    if not sound:
        raise BadRequest("the file has no sound in it")
    return np.frombuffer(sound, np.int16)


def _pieces(container: InputContainer, seconds_max: float) -> Iterator[bytes]:
    if not container.streams.audio:
        raise BadRequest("the file has no sound in it")
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    for frame in container.decode(audio=0):
        if frame.samples > seconds_max * frame.sample_rate:  # at 1 Hz, before it becomes gigabytes
            raise _too_long(seconds_max)
        yield from map(_bytes, resampler.resample(frame))
    yield from map(_bytes, resampler.resample(None))


def _too_long(seconds_max: float) -> BadRequest:
    return BadRequest(f"the sound is longer than {seconds_max / 60:g} minutes")


def _bytes(frame: AudioFrame) -> bytes:
    return bytes(frame.planes[0])[: frame.samples * 2]
