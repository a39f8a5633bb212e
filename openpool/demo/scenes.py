"""Drawn pictures and live video whose contents are known: what a detector finds can be compared.

A red ball and a blue box on grey, still or moving; and a line of text. Read next: `tiny_detector`,
which finds the coloured things.
"""

from __future__ import annotations  # PyAV's types are generic only to the type checker

import io
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image, ImageDraw, ImageFont

GREY = (96, 96, 96)
RED = (225, 30, 30)
BLUE = (30, 40, 225)
STEP_SHARE = 0.005
"""The ball moves by this share of the picture's width from one frame to the next."""


class Thing(NamedTuple):
    """A coloured thing, and the smallest box around it in pixels."""

    colour: str
    x: int
    y: int
    w: int
    h: int


def things(width: int, height: int, frame: int = 0) -> list[Thing]:
    """What is to be seen in a frame: the ball moves to the right and begins again."""
    side = height // 4
    room = width // 2 - side
    x = round(frame * STEP_SHARE * width) % max(1, room)
    ball = Thing("red", x, height // 8, side, side)
    return [ball, Thing("blue", width * 5 // 8, height // 2, width // 4, side)]


def draw(width: int, height: int, frame: int = 0) -> Image.Image:
    """The scene at a frame."""
    picture = Image.new("RGB", (width, height), GREY)
    pen = ImageDraw.Draw(picture)
    ball, box = things(width, height, frame)
    pen.ellipse((ball.x, ball.y, ball.x + ball.w - 1, ball.y + ball.h - 1), fill=RED)
    pen.rectangle((box.x, box.y, box.x + box.w - 1, box.y + box.h - 1), fill=BLUE)
    return picture


def write(text: str, width: int = 640, height: int = 160) -> Image.Image:
    """Lines of text in black on white."""
    picture = Image.new("RGB", (width, height), "white")
    font = ImageFont.load_default(height // 4)
    ImageDraw.Draw(picture).text((height // 8, height // 6), text, fill="black", font=font)
    return picture


def to_file(picture: Image.Image, kind: str = "PNG") -> bytes:
    """The picture as a PNG, JPEG or WebP file."""
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


def segment(width: int, height: int, fps: int, seconds: float, first_frame: int = 0) -> bytes:
    """An MPEG-TS segment of the moving scene; the next one begins where this one ends."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mpegts") as output:
        options = {"preset": "ultrafast", "tune": "zerolatency"}
        stream = output.add_stream("libx264", rate=fps, options=options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, fps)
        for number in range(first_frame, first_frame + round(seconds * fps)):
            frame = VideoFrame.from_ndarray(np.asarray(draw(width, height, number)))
            frame.pts, frame.time_base = number, Fraction(1, fps)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return buffer.getvalue()
