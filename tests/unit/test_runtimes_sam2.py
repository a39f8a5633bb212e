"""SAM 2's runtime with made-up networks that go by colour, behind the real shapes and names."""

import io
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image
from tiny_sam2 import make_tiny_sam2

from openpool.demo import scenes
from openpool.wire.forms import data_url, to_data_url
from openpool.worker.runtimes.base import BadRequest, ModelMissing, RuntimeRequest
from openpool.worker.runtimes.sam2 import DECODER, ENCODER, Sam2, prompts_of
from openpool.worker.runtimes.segmentation import Guide

MODEL = "sam2.1-hiera-small"
WIDTH, HEIGHT = 640, 360


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    make_tiny_sam2(folder / MODEL)
    return folder


@pytest.fixture(scope="module")
def knife(cache: Path) -> Sam2:
    runtime = Sam2(MODEL, {}, cache)
    runtime.load()
    return runtime


Mask = np.ndarray[tuple[int, int], np.dtype[np.bool_]]


def cut(knife: Sam2, picture: Image.Image, **guide: object) -> Mask:
    """The mask that is answered, empty if there is none."""
    body = {"image": to_data_url("image/png", scenes.to_file(picture)), **guide}
    request = RuntimeRequest(
        path="/segment", content_type="application/json", body=msgspec.json.encode(body)
    )
    found = msgspec.json.decode(knife.answer(request).body)
    assert (found["width"], found["height"]) == picture.size
    if not found["masks"]:
        return np.zeros((picture.height, picture.width), bool)
    (mask,) = found["masks"]
    return np.asarray(Image.open(io.BytesIO(data_url(mask["png"]).data))) > 0


def likeness(mask: Mask, colour: tuple[int, int, int]) -> float:
    """Of the mask and what was drawn in this colour: intersection over union."""
    drawn = (np.asarray(scenes.draw(WIDTH, HEIGHT)) == colour).all(axis=2)
    return float((mask & drawn).sum() / (mask | drawn).sum())


def middle(thing: scenes.Thing) -> list[float]:
    return [thing.x + thing.w / 2, thing.y + thing.h / 2]


def test_points_alone_guide_it(knife: Sam2) -> None:
    """What has the colour under the point is cut out, and nothing else."""
    ball, box = scenes.things(WIDTH, HEIGHT)
    picture = scenes.draw(WIDTH, HEIGHT)
    assert likeness(cut(knife, picture, point_coords=[middle(ball)]), scenes.RED) > 0.9
    assert likeness(cut(knife, picture, point_coords=[middle(box)]), scenes.BLUE) > 0.9


def test_a_box_alone_guides_it(knife: Sam2) -> None:
    """Nothing outside of the box is cut out."""
    ball, _ = scenes.things(WIDTH, HEIGHT)
    picture = scenes.draw(WIDTH, HEIGHT)
    whole = [ball.x, ball.y, ball.x + ball.w, ball.y + ball.h]
    assert likeness(cut(knife, picture, box=whole), scenes.RED) > 0.9
    half = cut(knife, picture, box=[ball.x, ball.y, ball.x + ball.w, ball.y + ball.h / 2])
    assert half[: ball.y + ball.h // 2].any()
    assert not half[ball.y + ball.h // 2 + 3 :].any()


def test_bad_points_take_away(knife: Sam2) -> None:
    """Good points, bad points and a box, all at once."""
    ball, box = scenes.things(WIDTH, HEIGHT)
    picture = scenes.draw(WIDTH, HEIGHT)
    points = [middle(ball), middle(box)]
    both = cut(knife, picture, point_coords=points)
    one = cut(knife, picture, point_coords=points, point_labels=[1, 0], box=[0, 0, 90, 180])
    assert both[int(middle(box)[1]), int(middle(box)[0])]
    assert likeness(one, scenes.RED) > 0.9


@pytest.mark.parametrize("size", [(64, 48), (48, 64), (1024, 1024), (1500, 300)])
def test_pictures_of_any_shape(knife: Sam2, size: tuple[int, int]) -> None:
    """Tall, wide, small and large: the mask has the picture's size, at the picture's places."""
    width, height = size
    picture = Image.new("RGB", size, "white")
    picture.paste((200, 20, 20), (width // 4, height // 4, width // 2, height // 2))
    mask = cut(knife, picture, point_coords=[[3 * width // 8, 3 * height // 8]])
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    slack = 2 + max(size) / 256
    for found, exact in (
        (rows[0], height / 4), (rows[-1] + 1, height / 2),
        (columns[0], width / 4), (columns[-1] + 1, width / 2),
    ):  # fmt: skip
        assert abs(found - exact) <= slack


def test_a_point_on_the_far_edge_means_the_last_pixel(knife: Sam2) -> None:
    """It is inside the picture, and must be so for the networks as well."""
    picture = Image.new("RGB", (60, 40), "white")
    picture.paste((200, 20, 20), (40, 20, 60, 40))
    mask = cut(knife, picture, point_coords=[[60, 40]])
    assert mask[38, 58]
    assert not mask[5, 5]


def test_the_guide_is_scaled_to_the_network() -> None:
    """Pixels of the picture become pixels of the encoder, each way by its own measure."""
    guide = Guide((10, 20, 30, 40), [(1, 2)], [(3, 4), (5, 6)])
    prompts = prompts_of(guide, 2.0, 10.0)
    assert prompts["input_points"].tolist() == [[[[2, 20], [6, 40], [10, 60]]]]
    assert prompts["input_labels"].tolist() == [[[1, 0, 0]]]
    assert prompts["input_boxes"].tolist() == [[[20, 200, 60, 400]]]
    nothing = prompts_of(Guide(None, [(0, 0)], []), 1, 1)
    assert nothing["input_boxes"].shape == (1, 0, 4)
    nothing = prompts_of(Guide((0, 0, 1, 1), [], []), 1, 1)
    assert nothing["input_points"].shape == (1, 1, 0, 2)
    assert nothing["input_labels"].shape == (1, 1, 0)


def test_nothing_found_is_no_mask(knife: Sam2) -> None:
    """A point that is good and bad at once leaves nothing."""
    spot = [[5, 5], [5, 5]]
    mask = cut(knife, scenes.draw(WIDTH, HEIGHT), point_coords=spot, point_labels=[1, 0])
    assert not mask.any()


def test_a_bad_guide_is_one_sentence(knife: Sam2) -> None:
    """As for the other runtime of this kind."""
    with pytest.raises(BadRequest, match="say where the object is"):
        cut(knife, scenes.draw(64, 64))


def test_what_is_missing_is_one_sentence(cache: Path, tmp_path: Path) -> None:
    """No model, half a model, networks of another kind, a card that is not there."""
    with pytest.raises(ModelMissing, match="models pull"):
        Sam2(MODEL, {}, tmp_path).load()
    folder = tmp_path / "half"
    make_tiny_sam2(folder)
    (folder / DECODER).unlink()
    with pytest.raises(ModelMissing, match="mask_decoder"):
        Sam2(MODEL, {"path": str(folder)}, tmp_path).load()
    (folder / DECODER).write_bytes((folder / ENCODER).read_bytes())
    with pytest.raises(ModelMissing, match="of another kind"):
        Sam2(MODEL, {"path": str(folder)}, tmp_path).load()
    with pytest.raises(ModelMissing, match="device: cuda"):
        Sam2(MODEL, {"device": "cuda"}, cache).load()
