"""Cutting an object out of a picture: OpenCV's GrabCut, guided by a box or by points.

It has no weights: it learns the colours of the object and of its surroundings from the guide.
Options: `side_max` (1024): larger pictures are cut out at this size and the mask is scaled back.
"""

import importlib.util
from typing import TYPE_CHECKING, ClassVar, Literal

import msgspec
from msgspec import Struct

from openpool.wire.forms import Form, to_data_url
from openpool.worker.runtimes.asking import form_of, json_answer, picture_of
from openpool.worker.runtimes.base import (
    BadRequest,
    ModelMissing,
    Runtime,
    RuntimeAnswer,
    RuntimeRequest,
)
from openpool.worker.runtimes.images import to_png
from openpool.worker.runtimes.options import KnownOptions, by_name, whole

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from openpool.worker.runtimes.images import Picture

    Mask = NDArray[np.uint8]

SIDE_MAX = whole(
    "side_max", "pixels of a side; larger pictures are cut out at this size (1024)", 16, 4096, 1024
)
ROUNDS = 5
PATHS = ("/v1/images/segment", "/segment")
POINTS_MAX = 100
POINT_RADIUS = 0.02
"""Around a point, as a share of the picture's shorter side, everything is like the point."""


class RunLengths(Struct, frozen=True):
    """A mask as lengths of runs, down the columns, the first of zeros (as COCO writes them)."""

    size: tuple[int, int]
    """Height and width."""
    counts: list[int]


class MaskFound(Struct, frozen=True):
    """The object that was cut out; x, y, w, h is the smallest box around it, in pixels."""

    x: int
    y: int
    w: int
    h: int
    area: int
    rle: RunLengths
    png: str


class Cut(Struct, frozen=True):
    """The masks found in a picture."""

    width: int
    height: int
    masks: list[MaskFound]


class Guide(Struct, frozen=True):
    """Where the object is, in pixels."""

    box: tuple[float, float, float, float] | None
    """Left, top, right, bottom."""
    inside: list[tuple[float, float]]
    outside: list[tuple[float, float]]


class Segmentation(Runtime):
    """Cuts one object out of one picture."""

    pipeline: ClassVar[str] = "segmentation"
    paths: ClassVar[tuple[str, ...]] = PATHS
    known_options: ClassVar[KnownOptions] = by_name(SIDE_MAX)

    @classmethod
    def missing(cls) -> str:
        """What has to be installed before this can run."""
        return (
            "" if importlib.util.find_spec("cv2") else "GrabCut needs: pip install 'openpool[ai]'"
        )

    def load(self) -> None:
        """Import OpenCV; there is no model."""
        try:
            import cv2
        except ImportError:
            raise ModelMissing(self.missing()) from None
        cv2.setNumThreads(1)
        self._side_max = SIDE_MAX.of(self.options)

    def answer(self, request: RuntimeRequest) -> RuntimeAnswer:
        """Cut out what the guide in the request points at."""
        form = form_of(request)
        picture = picture_of(form)
        height, width = picture.shape[:2]
        mask = cut_out(picture, read_guide(form, width, height), self._side_max)
        found = [describe(mask)] if mask.any() else []
        return json_answer(Cut(width, height, found))


def read_guide(form: Form, width: int, height: int) -> Guide:
    """The guide among the form's values: `box`, or `point_coords` with `point_labels`."""
    asked = _read(form)
    box, points = asked.box, asked.point_coords
    labels = [1] * len(points) if asked.point_labels is None else asked.point_labels
    if len(points) != len(labels) or len(points) > POINTS_MAX:
        raise BadRequest(f"each of at most {POINTS_MAX} points has one label: 1 inside, 0 outside")
    corners = [box[:2], box[2:]] if box else []
    if not all(0 <= x <= width and 0 <= y <= height for x, y in [*points, *corners]):
        raise BadRequest(f"the guide lies outside the picture of {width}x{height}")
    if box and not (box[2] - box[0] >= 1 and box[3] - box[1] >= 1):
        raise BadRequest("the box is empty: it is [left, top, right, bottom] in pixels")
    if not box and 1 not in labels:
        raise BadRequest("say where the object is: a box, or at least one point inside it")
    # on the far edge there is no pixel any more: the last one is meant
    points = [(min(x, width - 0.5), min(y, height - 0.5)) for x, y in points]
    inside = [point for point, label in zip(points, labels, strict=True) if label]
    outside = [point for point, label in zip(points, labels, strict=True) if not label]
    return Guide(box, inside, outside)


class _Asked(Struct):
    """The guide as the client wrote it: JSON in each of these values."""

    box: tuple[float, float, float, float] | None = None
    point_coords: list[tuple[float, float]] = []
    point_labels: list[Literal[0, 1]] | None = None


def _read(form: Form) -> _Asked:
    try:
        names = [name for name in _Asked.__struct_fields__ if form.values.get(name)]
        return msgspec.convert(
            {name: msgspec.json.decode(form.values[name]) for name in names}, _Asked
        )
    except (ValueError, RecursionError):
        raise BadRequest(
            "box is [left, top, right, bottom], point_coords [[x, y], ...], "
            "point_labels [1, 0, ...]"
        ) from None


def cut_out(picture: "Picture", guide: Guide, side_max: int) -> "Mask":
    """A mask of 0 and 255 in the picture's size."""
    import cv2
    import numpy as np

    height, width = picture.shape[:2]
    scale = min(1.0, side_max / max(height, width))
    size = (max(2, round(width * scale)), max(2, round(height * scale)))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA) if scale < 1 else picture
    labels = _first_guess(small.shape[0], small.shape[1], guide, scale)
    if not (np.any(labels & 1) and np.any(~labels & 1)):
        return np.where(labels & 1, np.uint8(255), np.uint8(0))
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)  # the same picture gives the same mask
    area = (0, 0, *size)  # not looked at: the labels say it
    image = np.ascontiguousarray(small)
    cv2.grabCut(image, labels, area, background, foreground, ROUNDS, cv2.GC_INIT_WITH_MASK)
    mask = np.where(labels & 1, np.uint8(255), np.uint8(0))
    if scale < 1:
        mask = np.asarray(cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST))
    return mask


def _first_guess(height: int, width: int, guide: Guide, scale: float) -> "Mask":
    """What the guide says of each pixel, in GrabCut's terms: odd is object, below 2 is certain."""
    import cv2
    import numpy as np

    labels = np.full((height, width), cv2.GC_PR_BGD, np.uint8)
    if guide.box:
        labels[:] = cv2.GC_BGD
        left, top, right, bottom = (value * scale for value in guide.box)
        rows = slice(int(top), max(int(top) + 1, round(bottom)))
        labels[rows, int(left) : max(int(left) + 1, round(right))] = cv2.GC_PR_FGD
    radius = max(1, round(POINT_RADIUS * min(height, width)))
    for points, value in ((guide.inside, cv2.GC_FGD), (guide.outside, cv2.GC_BGD)):
        for x, y in points:
            cv2.circle(labels, (round(x * scale), round(y * scale)), radius, value, -1)
    return labels


def describe(mask: "Mask") -> MaskFound:
    """The mask as it is answered; it is not empty."""
    import numpy as np

    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x, y = int(columns[0]), int(rows[0])
    return MaskFound(
        x=x,
        y=y,
        w=int(columns[-1]) + 1 - x,
        h=int(rows[-1]) + 1 - y,
        area=int(np.count_nonzero(mask)),
        rle=run_lengths(mask),
        png=to_data_url("image/png", to_png(mask)),
    )


def run_lengths(mask: "Mask") -> RunLengths:
    """The mask as lengths of runs."""
    import numpy as np

    flat = (mask > 0).ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate(([0], edges, [flat.size]))).tolist()
    return RunLengths((mask.shape[0], mask.shape[1]), [0, *counts] if flat[0] else counts)
