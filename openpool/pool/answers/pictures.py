"""Checks of what was found in a picture, and of pictures that were made.

Every answer about a picture says its size; the pool opens the picture itself, and whatever was
found must lie inside it.
"""

import re
from itertools import islice

import msgspec
from msgspec import Struct

from openpool.core.call_requests import Transcript
from openpool.core.errors import BadMessage, BadResult
from openpool.core.texts import plural
from openpool.core.usage import Measured
from openpool.pool.answers.nouns import Finding, Opener, demand, is_share, open_result, read_answer
from openpool.pool.findings import Weight
from openpool.wire.forms import Form, data_url, read_form

BOXES_MAX = 1_000
LINES_MAX = 10_000
MASKS_MAX = 100
PICTURES_MAX = 16
_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")


class _Size(Struct):
    width: int
    height: int


async def _picture_asked(said: Transcript, opened: Opener) -> Weight:
    form = read_form(said.request_type, said.request, "image")
    picture = await opened(form.file("image", "file"))
    if not picture.width:
        raise BadMessage("the file holds no picture")
    return picture


def _check_size(answer: _Size, picture: Weight) -> None:
    """The size must be the picture's; a photo may have been turned upright."""
    sizes = {(picture.width, picture.height), (picture.height, picture.width)}
    demand(
        (answer.width, answer.height) in sizes,
        f"the answer is about {answer.width}x{answer.height}, "
        f"the picture is {picture.width}x{picture.height}",
    )


def _found(picture: Weight, what: str) -> Finding:
    pixels = picture.width * picture.height
    return Finding(
        Measured(input_pixels=pixels), f"a picture of {picture.width}x{picture.height}, {what}"
    )


# --- things and text -----------------------------------------------------------------------------


class Box(Struct):
    """One thing found, in whole pixels."""

    label: str
    score: float
    x: int
    y: int
    w: int
    h: int


class Detections(_Size):
    """What was found in a picture."""

    boxes: list[Box]


def check_boxes(boxes: list[Box], width: int, height: int) -> None:
    """Every box lies inside the picture and has a name and a score. Raises BadResult."""
    demand(len(boxes) <= BOXES_MAX, f"more than {BOXES_MAX} boxes in one picture")
    for box in boxes:
        inside = box.x >= 0 and box.y >= 0 and box.x + box.w <= width and box.y + box.h <= height
        demand(inside and box.w > 0 and box.h > 0, f"a box lies outside the {width}x{height}")
        demand(is_share(box.score) and bool(box.label), "a box needs a label and a score of 0 to 1")


async def check_detections(said: Transcript, opened: Opener) -> Finding:
    """Boxes inside the picture."""
    picture = await _picture_asked(said, opened)
    found = read_answer(said.answer, Detections)
    _check_size(found, picture)
    check_boxes(found.boxes, found.width, found.height)
    return _found(picture, f"{len(found.boxes)} boxes")


class _Line(Struct):
    text: str
    score: float
    box: list[tuple[float, float]]


class _Reading(Struct):
    text: str
    lines: list[_Line] | None = None
    width: int = 0
    height: int = 0


async def check_reading(said: Transcript, opened: Opener) -> Finding:
    """Lines of text inside the picture; or a description in words, which is never empty."""
    picture = await _picture_asked(said, opened)
    found = read_answer(said.answer, _Reading)
    if found.lines is None:
        demand(bool(found.text.strip()), "the description is empty")
        return _found(picture, "described")
    _check_size(_Size(found.width, found.height), picture)
    demand(len(found.lines) <= LINES_MAX, f"more than {LINES_MAX} lines in one picture")
    for line in found.lines:
        inside = all(0 <= x <= found.width and 0 <= y <= found.height for x, y in line.box)
        demand(inside and len(line.box) == 4, "a line's box has four corners inside the picture")
        demand(is_share(line.score) and bool(line.text), "a line needs text and a score of 0 to 1")
    texts = "\n".join(line.text for line in found.lines)
    demand(found.text == texts, "the text is not that of its lines")
    return _found(picture, plural(len(found.lines), "line"))


# --- masks ---------------------------------------------------------------------------------------


class _RunLengths(Struct):
    size: tuple[int, int]
    counts: list[int]


class _Mask(Struct):
    x: int
    y: int
    w: int
    h: int
    area: int
    rle: _RunLengths
    png: str


class _Cut(_Size):
    masks: list[_Mask]


async def check_cut(said: Transcript, opened: Opener) -> Finding:
    """Masks of the picture's size whose three forms agree."""
    picture = await _picture_asked(said, opened)
    found = read_answer(said.answer, _Cut)
    _check_size(found, picture)
    demand(len(found.masks) <= MASKS_MAX, f"more than {MASKS_MAX} masks in one picture")
    for mask in found.masks:
        await _check_mask(mask, found, opened)
    return _found(picture, f"{len(found.masks)} masks")


async def _check_mask(mask: _Mask, size: _Size, opened: Opener) -> None:
    counts = mask.rle.counts
    whole = mask.rle.size == (size.height, size.width)
    demand(whole and sum(counts) == size.width * size.height, "a mask is not of the picture's size")
    demand(min(counts) >= 0, "a run of a mask is shorter than nothing")
    demand(mask.area == sum(islice(counts, 1, None, 2)) > 0, "the area is not that of the mask")
    inside = mask.x >= 0 and mask.y >= 0
    inside = inside and mask.x + mask.w <= size.width and mask.y + mask.h <= size.height
    demand(inside and mask.area <= mask.w * mask.h, "a mask's box does not hold it")
    png = await open_result(opened, _data_of(mask.png), "a mask")
    demand(
        (png.width, png.height) == (size.width, size.height), "a mask's picture is of other size"
    )


class _Masks(Struct):
    """What segment-anything models answer: JSON inside of JSON."""

    masks: str
    scores: str
    logits: str = ""


async def check_masks(said: Transcript, opened: Opener) -> Finding:
    """A score for each mask, of a model whose masks are opaque to the pool."""
    picture = await _picture_asked(said, opened)
    found = read_answer(said.answer, _Masks)
    scores = read_answer(found.scores.encode(), list[float])
    masks = read_answer(found.masks.encode(), list[msgspec.Raw])
    demand(0 < len(masks) == len(scores), "each mask needs a score")
    return _found(picture, f"{len(masks)} masks")


def _data_of(url: str) -> bytes:
    try:
        return data_url(url).data
    except BadMessage as fault:
        raise BadResult(str(fault)) from None


# --- pictures that were made ---------------------------------------------------------------------


class _Made(Struct):
    b64_json: str = ""
    url: str = ""


class _Pictures(Struct):
    data: list[_Made] = []
    images: list[_Made] = []


async def check_made(said: Transcript, opened: Opener) -> Finding:
    """As many pictures as were asked for, each of the size that was asked for."""
    form = read_form(said.request_type, said.request, "image")
    wanted, count = _wanted(form)
    found = read_answer(said.answer, _Pictures)
    made = found.data or found.images
    demand(len(made) == count, f"{plural(len(made), 'picture')} came instead of {count}")
    sizes = set()
    for one in made:
        data = _data_of(one.url or f"data:image/png;base64,{one.b64_json}")
        picture = await open_result(opened, data, "a picture")
        demand(picture.width > 0, "an answer is no picture")
        sizes.add((picture.width, picture.height))
    demand(len(sizes) == 1 and (not wanted or sizes == {wanted}), "a picture is of the wrong size")
    width, height = sizes.pop()
    source = await opened(form.file("image")) if "image" in form.files else Weight()
    seen = Measured(
        width=width, height=height, images=count, input_pixels=source.width * source.height
    )
    return Finding(seen, f"{count} pictures of {width}x{height}")


def _wanted(form: Form) -> tuple[tuple[int, int] | None, int]:
    """The size and number of pictures that were asked for. Raises BadMessage."""
    values = form.values
    try:
        count = int(values.get("n") or values.get("num_images_per_prompt") or 1)
        if match := _SIZE.fullmatch(values.get("size", "")):
            size = (int(match[1]), int(match[2]))
        elif values.get("width") and values.get("height"):
            size = (int(values["width"]), int(values["height"]))
        else:
            size = None
    except ValueError:
        raise BadMessage("the number or size of pictures is no number") from None
    if not 1 <= count <= PICTURES_MAX:
        raise BadMessage(f"1 to {PICTURES_MAX} pictures can be made at once")
    return size, count
