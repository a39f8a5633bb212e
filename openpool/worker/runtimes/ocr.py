"""Text in pictures, read by RapidOCR; its models (PP-OCR) come inside the package.

Options: `threads` (2). Nothing is downloaded.
"""

import importlib.util
from typing import TYPE_CHECKING, ClassVar

from msgspec import Struct

from openpool.worker.runtimes.asking import form_of, json_answer, picture_of
from openpool.worker.runtimes.base import ModelMissing, Runtime, RuntimeAnswer, RuntimeRequest
from openpool.worker.runtimes.options import KnownOptions, by_name, whole

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RATIO_MAX, RATIO_WANTED = 8, 4
"""A picture that is longer than it is wide by more than this gets margins, until it is so."""
THREADS = whole("threads", "threads that it computes with (2)", 1, 1024, 2)


class Line(Struct, frozen=True):
    """One line of text and the four corners of its box, clockwise from the top left."""

    text: str
    score: float
    box: list[tuple[int, int]]


class Reading(Struct, frozen=True):
    """All text of a picture, top to bottom."""

    text: str
    lines: list[Line]
    width: int
    height: int


class Ocr(Runtime):
    """Reads the text of one picture."""

    pipeline: ClassVar[str] = "image-to-text"
    paths: ClassVar[tuple[str, ...]] = ("/v1/images/ocr", "/ocr", "/image-to-text")
    known_options: ClassVar[KnownOptions] = by_name(THREADS)

    @classmethod
    def missing(cls) -> str:
        """What has to be installed before this can run."""
        found = importlib.util.find_spec("rapidocr") and importlib.util.find_spec("onnxruntime")
        return "" if found else "OCR needs: pip install 'openpool[ai]'"

    def load(self) -> None:
        """Bring the three networks (find, turn, read) into memory."""
        try:
            from rapidocr import RapidOCR
        except ImportError:
            raise ModelMissing(self.missing()) from None
        engine = "EngineConfig.onnxruntime"
        self._engine = RapidOCR(
            params={
                "Global.log_level": "critical",
                f"{engine}.intra_op_num_threads": THREADS.of(self.options),
                f"{engine}.inter_op_num_threads": 1,
            }
        )

    def answer(self, request: RuntimeRequest) -> RuntimeAnswer:
        """Read the picture of the request; a picture without text has no lines."""
        import numpy as np
        from rapidocr.utils.output import RapidOCROutput

        picture = picture_of(form_of(request))
        height, width = picture.shape[:2]
        down, across = margins(height, width)
        roomy = np.pad(picture, ((down, down), (across, across), (0, 0)), "edge")
        found = self._engine(roomy[:, :, ::-1])  # it expects the channels in OpenCV's order
        assert isinstance(found, RapidOCROutput)  # what it gives with all three networks in use
        offset = np.array((across, down))
        lines = [
            Line(text.strip(), round(float(score), 4), _corners(box - offset, width, height))
            for box, text, score in zip(
                found.boxes if found.boxes is not None else (),
                found.txts or (),
                found.scores or (),
                strict=True,
            )
            if text.strip()
        ]
        return json_answer(Reading("\n".join(line.text for line in lines), lines, width, height))


def margins(height: int, width: int) -> tuple[int, int]:
    """What to put above and below, and to the left and right of a picture that is very long: the
    engine scales pictures by their shorter side, and a line of dots would fill the memory."""
    if max(height, width) <= RATIO_MAX * min(height, width):
        return 0, 0
    least = max(height, width) // RATIO_WANTED
    return max(0, least - height) // 2, max(0, least - width) // 2


def _corners(box: "NDArray[np.generic]", width: int, height: int) -> list[tuple[int, int]]:
    """The corners, none of them outside the picture."""
    return [(min(max(round(x), 0), width), min(max(round(y), 0), height)) for x, y in box.tolist()]
