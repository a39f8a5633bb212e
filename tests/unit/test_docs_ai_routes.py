"""The page about our routes says what the code does."""

import re
from pathlib import Path

import msgspec
import pytest

from openpool.core.call_requests import Transcript
from openpool.core.calls import App
from openpool.demo import scenes
from openpool.pool.answers import Answers
from openpool.pool.findings import Weight
from openpool.pool.weigh import weigh
from openpool.web.direct import ROUTES
from openpool.wire.framing import CONTENT_TYPE
from openpool.worker.runtimes.detector import OPTIONS
from openpool.worker.runtimes.live_video import LiveVideo
from openpool.worker.runtimes.moderation import Moderation
from openpool.worker.runtimes.object_detection import ObjectDetection
from openpool.worker.runtimes.ocr import Ocr
from openpool.worker.runtimes.segmentation import Segmentation

PAGE = (Path(__file__).parents[2] / "docs/reference/ai-routes.md").read_text()
EXAMPLES = [msgspec.json.decode(text) for text in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]


def test_every_path_is_told() -> None:
    """Each path of each runtime stands on the page, and so does the customers' route to it."""
    for runtime in (Ocr, Segmentation, ObjectDetection, Moderation, LiveVideo):
        assert runtime.pipeline in PAGE
        for path in runtime.paths:
            assert f"`{path}`" in PAGE, path
    for path, route in ROUTES.items():
        if route.pipeline in ("image-to-text", "segmentation", "object-detection", "moderation"):
            assert f"`POST {path}`" in PAGE
    assert CONTENT_TYPE in PAGE


def test_every_option_is_told() -> None:
    """Each option of a detector stands on the page."""
    for option in OPTIONS:
        assert f"`{option}`" in PAGE, option


@pytest.mark.parametrize(
    ("pipeline", "key", "size"),
    [("image-to-text", "lines", (640, 160)), ("object-detection", "boxes", (640, 360))],
)
async def test_examples_are_right_answers(pipeline: str, key: str, size: tuple[int, int]) -> None:
    """The examples on the page would be credited by the pool."""
    (example,) = [each for each in EXAMPLES if key in each and "t_ms" not in each]

    async def opened(data: bytes) -> Weight:
        return weigh(data)

    said = Transcript(
        app=App(pipeline, "m"), source="direct", path="/", unit="pixel",
        request_type="image/png", request=scenes.to_file(scenes.draw(*size)), status=200,
        answer_type="application/json", answer=msgspec.json.encode(example), whole=True, took_ms=1,
    )  # fmt: skip
    checked = await Answers(opened).check(said)
    assert checked.usage.checked, checked.usage.note
    assert checked.usage.units == size[0] * size[1]


def test_the_example_of_a_mask_adds_up() -> None:
    """Runs, area and size of the page's mask agree."""
    (example,) = [each for each in EXAMPLES if "masks" in each]
    (mask,) = example["masks"]
    assert mask["rle"]["size"] == [example["height"], example["width"]]
    assert sum(mask["rle"]["counts"]) == example["width"] * example["height"]
    assert sum(mask["rle"]["counts"][1::2]) == mask["area"]
