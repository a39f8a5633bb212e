"""Cutting an object out of a picture by SAM 2, which has seen what things look like.

Two networks in the model's folder: `onnx/vision_encoder.onnx` looks at the picture, and
`onnx/prompt_encoder_mask_decoder.onnx` at the guide; `openpool worker models pull
sam2.1-hiera-small` fetches them. Inputs and outputs are those of transformers' exports.
"""

from typing import TYPE_CHECKING, ClassVar

from openpool.worker.runtimes import networks
from openpool.worker.runtimes.asking import form_of, json_answer, picture_of
from openpool.worker.runtimes.base import Runtime, RuntimeAnswer, RuntimeRequest
from openpool.worker.runtimes.folders import PATH, model_folder
from openpool.worker.runtimes.options import KnownOptions, by_name
from openpool.worker.runtimes.segmentation import PATHS, Cut, Guide, describe, read_guide

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from openpool.worker.runtimes.images import Picture
    from openpool.worker.runtimes.networks import Numbers
    from openpool.worker.runtimes.segmentation import Mask

ENCODER, DECODER = "onnx/vision_encoder.onnx", "onnx/prompt_encoder_mask_decoder.onnx"
PIXELS = "pixel_values"
FEATURES = ("image_embeddings.0", "image_embeddings.1", "image_embeddings.2")
PROMPTS = ("input_points", "input_labels", "input_boxes")
RESULTS = ("iou_scores", "pred_masks")
SIDE = 1024
"""Of the encoder's input, where its file leaves that open."""


class Sam2(Runtime):
    """Cuts one object out of one picture."""

    pipeline: ClassVar[str] = "segmentation"
    paths: ClassVar[tuple[str, ...]] = PATHS
    known_options: ClassVar[KnownOptions] = by_name(PATH, networks.THREADS, networks.DEVICE)

    @classmethod
    def missing(cls) -> str:
        return networks.missing("SAM 2")

    def load(self) -> None:
        folder = model_folder(self.options, self.cache, self.model, ENCODER)
        self._encoder = networks.open_file(folder / ENCODER, self.options, {PIXELS})
        self._decoder = networks.open_file(folder / DECODER, self.options, {*PROMPTS, *FEATURES})
        self._normalise = networks.normaliser("imagenet")
        side = self._encoder.get_inputs()[0].shape[2]
        self._side = side if isinstance(side, int) else SIDE

    def answer(self, request: RuntimeRequest) -> RuntimeAnswer:
        form = form_of(request)
        picture = picture_of(form)
        height, width = picture.shape[:2]
        mask = self.cut_out(picture, read_guide(form, width, height))
        return json_answer(Cut(width, height, [describe(mask)] if mask.any() else []))

    def cut_out(self, picture: "Picture", guide: Guide) -> "Mask":
        """A mask of 0 and 255 in the picture's size: the surest of those that are proposed."""
        import cv2
        import numpy as np

        height, width = picture.shape[:2]
        small = networks.resize(picture, (self._side, self._side))
        features = self._encoder.run(FEATURES, {PIXELS: self._normalise(small)})
        prompts = prompts_of(guide, self._side / width, self._side / height)
        feed = {**dict(zip(FEATURES, features, strict=True)), **prompts}
        scores, masks = self._decoder.run(RESULTS, feed)
        surest = masks[0, 0, int(scores[0, 0].argmax())]
        large = cv2.resize(surest, (width, height), interpolation=cv2.INTER_LINEAR)
        return np.where(large > 0, np.uint8(255), np.uint8(0))


def prompts_of(guide: Guide, across: float, down: float) -> "dict[str, NDArray[np.generic]]":
    """The guide as the decoder takes it, in the encoder's pixels: any number of points, a box."""
    import numpy as np

    points = [*guide.inside, *guide.outside]
    labels = [1] * len(guide.inside) + [0] * len(guide.outside)
    scale: Numbers = np.array([across, down], np.float32)
    boxes: Numbers = np.array(guide.box or (), np.float32).reshape(1, -1, 2) * scale
    return {
        "input_points": np.array(points, np.float32).reshape(1, 1, -1, 2) * scale,
        "input_labels": np.array(labels, np.int64).reshape(1, 1, -1),
        "input_boxes": boxes.reshape(1, -1, 4),
    }
