"""An object detector as ONNX Runtime runs it; used for pictures and for live video.

It takes exports of the DETR family under permissive licences: RF-DETR (N to L) and D-FINE, in
either of two shapes: `pred_boxes`/`dets` with `logits`/`labels` for each query, or `boxes`,
`labels` and `scores` made ready inside. Never give it a model under AGPL (Ultralytics).
Options, also of the runtimes that use it: `file` (the ONNX file; without it, the model that was
fetched under the name, with the labels and sizes that its own files tell), `labels` (a text file,
a name a line), `threshold` (0.5), `normalise` (`imagenet` or `none`; by default what the export
expects), `size` (640, where the file leaves it open), `threads` (1), `device` (`cpu` or `cuda`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from openpool.worker.runtimes import networks
from openpool.worker.runtimes.base import ModelMissing
from openpool.worker.runtimes.options import by_name, number

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from openpool.worker.runtimes.images import Picture

    Numbers = NDArray[np.float32]

THRESHOLD = number("threshold", "the least score that is told (0.5)", 0, 1, 0.5)
OPTIONS = {**networks.OPTIONS, **by_name(THRESHOLD)}
BOXES_MAX = 300


class Box(Struct, frozen=True):
    """One thing found: its name, 0..1 of certainty, left, top, width and height in pixels."""

    label: str
    score: float
    x: int
    y: int
    w: int
    h: int


class Detector:
    """A loaded detector."""

    def __init__(self, options: Mapping[str, str], folder: Path) -> None:
        """Load the file that the options name, or what was fetched into the folder.

        Raises ModelMissing.
        """
        own, names = ({}, {}) if networks.FILE.of(options) else networks.fetched(folder)
        options = {**own, **options}
        self._net = networks.load(options, "a detector (RF-DETR or D-FINE, exported to ONNX)")
        self._labels = dict(enumerate(networks.read_labels(networks.LABELS.of(options)))) or names
        self.threshold = THRESHOLD.of(options)
        outputs = set(self._net.outputs)
        self._is_ready_made = {"boxes", "labels", "scores"} <= outputs
        self._boxes = _first(outputs, "pred_boxes", "dets")
        self._logits = _first(outputs, "logits", "labels")
        if not self._is_ready_made and not (self._boxes and self._logits):
            raise ModelMissing(
                f"{Path(options['file']).name} gives {sorted(outputs)}: not a DETR-like detector"
            )
        by_default = "imagenet" if self._boxes == "dets" else "none"
        self._normalise = networks.normaliser(
            networks.NORMALISE.of({"normalise": by_default, **options})
        )

    @property
    def size(self) -> tuple[int, int]:
        """Width and height that pictures are scaled to, whatever their shape."""
        return self._net.size

    def find(self, picture: "Picture", threshold: float | None = None) -> list[Box]:
        """What is in the picture."""
        scaled = networks.resize(picture, self.size)
        return self.look(scaled, picture.shape[1], picture.shape[0], threshold)

    def look(
        self, scaled: "Picture", width: int, height: int, threshold: float | None = None
    ) -> list[Box]:
        """What is in a picture of width x height that was scaled to `size` already."""
        import numpy as np

        sizes = np.array([[width, height]], np.int64)
        found = self._net.run(self._normalise(scaled), sizes)
        limit = self.threshold if threshold is None else threshold
        if self._is_ready_made:
            corners, scores, classes = found["boxes"][0], found["scores"][0], found["labels"][0]
        else:
            scores, classes = _best(found[self._logits][0])
            corners = _corners(found[self._boxes][0], width, height)
        chosen = np.flatnonzero(np.isfinite(corners).all(axis=1) & (scores >= limit))
        best_first = chosen[np.argsort(-scores[chosen], kind="stable")][:BOXES_MAX]
        return [
            _box(self._label(int(classes[i])), float(scores[i]), corners[i].tolist(), width, height)
            for i in best_first
        ]

    def _label(self, number: int) -> str:
        return self._labels.get(number, f"class {number}")


def _first(outputs: set[str], *names: str) -> str:
    return next((name for name in names if name in outputs), "")


def _best(logits: "Numbers") -> "tuple[Numbers, NDArray[np.int64]]":
    """The score and number of each query's likeliest class."""
    import numpy as np

    classes = logits.argmax(axis=1)
    highest = np.clip(logits.max(axis=1), -50, 50)
    return (1 / (1 + np.exp(-highest))).astype(np.float32), classes


def _corners(boxes: "Numbers", width: int, height: int) -> "Numbers":
    """Centre and size as shares of the picture, to left, top, right, bottom in pixels."""
    import numpy as np

    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    corners = np.concatenate((centre - half, centre + half), axis=1)
    scale: Numbers = np.array([width, height, width, height], np.float32)
    return np.multiply(corners, scale, dtype=np.float32)


def _box(label: str, score: float, corners: list[float], width: int, height: int) -> Box:
    """The box in whole pixels, inside the picture and never empty."""
    left = min(max(round(corners[0]), 0), width - 1)
    top = min(max(round(corners[1]), 0), height - 1)
    right = min(max(round(corners[2]), left + 1), width)
    bottom = min(max(round(corners[3]), top + 1), height)
    return Box(label, round(score, 4), left, top, right - left, bottom - top)
