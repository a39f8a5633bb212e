"""What a gateway finds when it decodes a rendition: the count that must be exactly as claimed."""

import io
from typing import NamedTuple

import av


class Picture(NamedTuple):
    """What a video file decodes to."""

    width: int
    height: int
    frames: int
    pixels: int


def look_at(data: bytes) -> Picture:
    """Decode the whole video. CPU work: call it in a thread. What cannot be decoded counts 0."""
    width = height = frames = pixels = 0
    try:
        with av.open(io.BytesIO(data), "r") as container:
            for frame in container.decode(video=0):
                width, height = frame.width, frame.height
                frames += 1
                pixels += width * height
    except (av.FFmpegError, IndexError):
        return Picture(0, 0, 0, 0)
    return Picture(width, height, frames, pixels)
