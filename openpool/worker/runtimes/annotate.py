"""Boxes drawn into a picture, for whoever wants to watch instead of read."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from openpool.worker.runtimes.detector import Box

if TYPE_CHECKING:
    from openpool.worker.runtimes.images import Picture

QUALITY = 80
PALETTE = ("#46d3a4", "#8db4ff", "#f0b35a", "#d19bea", "#ff8a80", "#7fd8ff", "#e8e05a")
INK = "#0e1317"


def annotated(picture: "Picture", boxes: Sequence[Box], frame_width: int) -> bytes:
    """The picture with its boxes, as a JPEG file; `frame_width` is what the boxes refer to."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.fromarray(picture)
    pen, scale = ImageDraw.Draw(image), image.width / frame_width
    line = max(2, image.width // 320)
    font = ImageFont.load_default(max(10, image.width // 60))
    for box in boxes:
        left, top, right, bottom = (
            round(value * scale) for value in (box.x, box.y, box.x + box.w, box.y + box.h)
        )
        colour, text = _colour(box.label), f" {box.label} {box.score:.0%} "
        pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), None, colour, line)
        room = pen.textbbox((left, top), text, font)
        pen.rectangle(room, colour)
        pen.text((left, top), text, INK, font)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def _colour(label: str) -> str:
    """Always the same for a label."""
    return PALETTE[sum(label.encode()) % len(PALETTE)]
