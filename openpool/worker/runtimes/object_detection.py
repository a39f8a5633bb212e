"""Things in pictures, found by an ONNX detector that was fetched, or that the worker's owner names.

Its options are those of `detector`: for a file of one's own `file`, and `labels` to have names.
"""

from typing import ClassVar

from msgspec import Struct

from openpool.worker.runtimes import networks
from openpool.worker.runtimes.asking import form_of, json_answer, number_of, picture_of
from openpool.worker.runtimes.base import Runtime, RuntimeAnswer, RuntimeRequest
from openpool.worker.runtimes.detector import OPTIONS, Box, Detector
from openpool.worker.runtimes.options import KnownOptions


class Detections(Struct, frozen=True):
    """All things found in a picture, the surest first."""

    width: int
    height: int
    boxes: list[Box]


class ObjectDetection(Runtime):
    """Finds things in one picture."""

    pipeline: ClassVar[str] = "object-detection"
    paths: ClassVar[tuple[str, ...]] = ("/v1/images/detect", "/detect", "/object-detection")
    known_options: ClassVar[KnownOptions] = OPTIONS

    @classmethod
    def missing(cls) -> str:
        """What has to be installed before this can run."""
        return networks.missing("object detection")

    def load(self) -> None:
        """Load the detector."""
        self.detector = Detector(self.options, self.cache / self.model)

    def answer(self, request: RuntimeRequest) -> RuntimeAnswer:
        """Find what is in the picture of the request; `threshold` is the least score, 0 to 1."""
        form = form_of(request)
        threshold = number_of(form, "threshold", self.detector.threshold, 0, 1)
        picture = picture_of(form)
        boxes = self.detector.find(picture, threshold)
        return json_answer(Detections(picture.shape[1], picture.shape[0], boxes))
