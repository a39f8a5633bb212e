"""Sound of any format as plain samples, with every limit checked while it is decoded."""

import io
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


def samples_of(data: bytes, seconds_max: float) -> "NDArray[np.int16]":
    """One channel of 16-bit samples, 16,000 a second. Raises BadRequest."""
    import numpy as np

    pieces: list[NDArray[np.int16]] = []
    count, allowed = 0, int(seconds_max * RATE)
    try:
        with av.open(io.BytesIO(data), metadata_errors="ignore") as container:
            assert isinstance(container, InputContainer)
            if not container.streams.audio:
                raise BadRequest("the file has no sound in it")
            resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
            for frame in container.decode(audio=0):
                for plain in resampler.resample(frame):
                    pieces.append(_row(plain))
                    count += plain.samples
                if count > allowed:
                    raise BadRequest(f"the sound is longer than {seconds_max / 60:g} minutes")
            pieces += [_row(plain) for plain in resampler.resample(None)]
    except (FFmpegError, ValueError, OSError):
        if not pieces:
            raise BadRequest("the file is no sound that can be read") from None
    if not count:
        raise BadRequest("the file has no sound in it")
    return np.concatenate(pieces)


def _row(frame: AudioFrame) -> "NDArray[np.int16]":
    import numpy as np

    return np.frombuffer(frame.planes[0], np.int16, frame.samples).copy()
