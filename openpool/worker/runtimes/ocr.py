"""Text in pictures, read by RapidOCR; its models (PP-OCR) come inside the package.

Options: `threads` (2). Nothing is downloaded.
"""

import importlib.util
from typing import ClassVar

from msgspec import Struct

from openpool.worker.runtimes.asking import form_of, json_answer, picture_of
from openpool.worker.runtimes.base import ModelMissing, Runtime, RuntimeAnswer, RuntimeRequest
from openpool.worker.runtimes.options import KnownOptions, by_name, whole

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
        from rapidocr.utils.output import RapidOCROutput

        picture = picture_of(form_of(request))
        height, width = picture.shape[:2]
        found = self._engine(picture[:, :, ::-1])  # it expects the channels in OpenCV's order
        assert isinstance(found, RapidOCROutput)  # what it gives with all three networks in use
        lines = [
            Line(text.strip(), round(float(score), 4), _corners(box, width, height))
            for box, text, score in zip(
                found.boxes if found.boxes is not None else (),
                found.txts or (),
                found.scores or (),
                strict=True,
            )
            if text.strip()
        ]
        return json_answer(Reading("\n".join(line.text for line in lines), lines, width, height))


def _corners(box: list[list[float]], width: int, height: int) -> list[tuple[int, int]]:
    """The corners, none of them outside the picture."""
    return [
        (min(max(round(float(x)), 0), width), min(max(round(float(y)), 0), height)) for x, y in box
    ]
