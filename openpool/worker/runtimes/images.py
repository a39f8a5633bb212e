"""Pictures that strangers send: opened safely, and written.

Only PNG, JPEG and WebP are opened. The size stands in the file's head and is judged before a
pixel is decoded, so an image bomb costs nothing. Pillow is imported when it is used first.
"""

import io
import warnings
from typing import TYPE_CHECKING

from openpool.worker.runtimes.base import BadRequest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    Picture = NDArray[np.uint8]
    """Rows of RGB pixels."""

FORMATS = ("PNG", "JPEG", "WEBP")
PIXELS_MAX = 40_000_000
ORIENTATION = 0x0112
"""The tag of EXIF."""
SIDE_MIN = 2
SIDE_MAX = 16_384


def open_picture(data: bytes, pixels_max: int = PIXELS_MAX) -> "Picture":
    """The picture as people see it: upright, what is transparent on white, as RGB.

    Raises BadRequest with one sentence for its sender.
    """
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # Pillow's own limit is below ours or above: ours counts
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                _judge_size(picture.width, picture.height, pixels_max)
                return np.asarray(_in_rgb(_upright(picture)))
    except Image.DecompressionBombError:
        limit = pixels_max // 1_000_000
        raise BadRequest(f"the picture is huge; at most {limit} megapixels are taken") from None
    except UnidentifiedImageError:
        raise BadRequest("the picture is no PNG, JPEG or WebP file") from None
    except (OSError, SyntaxError, ValueError, EOFError):
        raise BadRequest("the picture is damaged or cut off") from None


def _judge_size(width: int, height: int, pixels_max: int) -> None:
    if min(width, height) < SIDE_MIN or max(width, height) > SIDE_MAX:
        raise BadRequest(
            f"the picture is {width}x{height}; sides of {SIDE_MIN} to {SIDE_MAX} pixels are taken"
        )
    if width * height > pixels_max:
        limit = pixels_max // 1_000_000
        raise BadRequest(f"the picture is {width}x{height}; at most {limit} megapixels are taken")


def _upright(picture: "Image") -> "Image":
    """Turned as its EXIF says. (Pillow's own `exif_transpose` also writes the rest of EXIF anew,
    and fails on what some cameras put there.)"""
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE, 6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }  # fmt: skip
    turn = turns.get(picture.getexif().get(ORIENTATION, 1))
    return picture if turn is None else picture.transpose(turn)


def _in_rgb(picture: "Image") -> "Image":
    """Its pixels in three bytes each."""
    import numpy as np
    from PIL import Image

    if picture.mode.startswith("I"):  # 16 bits: Pillow would make white of all above 255
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    seen, on_white = picture.convert("RGBA"), Image.new("RGB", picture.size, "white")
    on_white.paste(seen, mask=seen)
    return on_white


def to_png(picture: "NDArray[np.uint8]") -> bytes:
    """The picture, or a mask of one value per pixel, as a PNG file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
