"""The picture runtimes as a worker runs them: real models, drawn pictures."""

import io
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from openpool.demo import scenes
from openpool.demo.tiny_detector import TinyDetector, write_detector
from openpool.wire.forms import data_url, to_data_url
from openpool.worker.runtimes.base import BadRequest, ModelMissing, RuntimeRequest
from openpool.worker.runtimes.moderation import CATEGORIES, Moderation
from openpool.worker.runtimes.object_detection import ObjectDetection
from openpool.worker.runtimes.ocr import Ocr
from openpool.worker.runtimes.segmentation import Segmentation

WIDTH, HEIGHT = 640, 360
NOWHERE = Path()


def asked(picture: bytes, **values: object) -> RuntimeRequest:
    """A request in JSON."""
    body = {"image": to_data_url("image/png", picture), **values}
    return RuntimeRequest(path="/", content_type="application/json", body=msgspec.json.encode(body))


def judged(what: object) -> RuntimeRequest:
    """A request for moderation."""
    body = msgspec.json.encode({"input": what})
    return RuntimeRequest(path="/", content_type="application/json", body=body)


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> TinyDetector:
    """The detector of coloured things, made on the spot."""
    return write_detector(tmp_path_factory.mktemp("detector"))


@pytest.fixture(scope="module")
def detection(detector: TinyDetector) -> ObjectDetection:
    """Object detection with that detector."""
    options = {"file": str(detector.file), "labels": str(detector.labels)}
    runtime = ObjectDetection("colours", options, NOWHERE)
    runtime.load()
    return runtime


@pytest.fixture(scope="module")
def segmentation() -> Segmentation:
    """GrabCut."""
    runtime = Segmentation("grabcut", {}, NOWHERE)
    runtime.load()
    return runtime


@pytest.fixture(scope="module")
def moderation() -> Moderation:
    """Both built-in models."""
    runtime = Moderation("openpool", {}, NOWHERE)
    runtime.load()
    return runtime


# --- text in pictures ----------------------------------------------------------------------------


def test_text_is_read() -> None:
    """Drawn lines are read word for word, with boxes inside; a blank picture has no lines."""
    runtime = Ocr("rapidocr", {"threads": "1"}, NOWHERE)
    assert runtime.missing() == ""
    runtime.load()
    picture = scenes.to_file(scenes.write("Hello Open Pool\nSegment 42"))
    request = RuntimeRequest(path="/ocr", content_type="image/png", body=picture)
    found = msgspec.json.decode(runtime.answer(request).body)
    assert found["text"] == "Hello Open Pool\nSegment 42"
    assert (found["width"], found["height"]) == (640, 160)
    assert len(found["lines"]) == 2
    for line in found["lines"]:
        assert line["score"] > 0.9
        assert all(0 <= x <= 640 and 0 <= y <= 160 for x, y in line["box"])
    blank = scenes.to_file(Image.new("RGB", (200, 200), "white"))
    found = msgspec.json.decode(runtime.answer(asked(blank)).body)
    assert (found["text"], found["lines"]) == ("", [])


# --- segmentation --------------------------------------------------------------------------------


def test_a_thing_is_cut_out(segmentation: Segmentation) -> None:
    """The mask inside a loose box is the drawn ball, and its three forms say the same."""
    ball = scenes.things(WIDTH, HEIGHT)[0]
    picture = scenes.to_file(scenes.draw(WIDTH, HEIGHT))
    around = [0, ball.y - 20, ball.x + ball.w + 20, ball.y + ball.h + 20]
    found = msgspec.json.decode(segmentation.answer(asked(picture, box=around)).body)
    assert (found["width"], found["height"]) == (WIDTH, HEIGHT)
    (cut,) = found["masks"]
    mask = np.asarray(Image.open(io.BytesIO(data_url(cut["png"]).data)))
    drawn = (np.asarray(scenes.draw(WIDTH, HEIGHT)) == scenes.RED).all(axis=2)
    overlap = (mask > 0) & drawn
    assert overlap.sum() / ((mask > 0) | drawn).sum() > 0.97
    assert cut["area"] == np.count_nonzero(mask)
    runs = cut["rle"]["counts"]
    unrolled = np.repeat(np.arange(len(runs)) % 2, runs).reshape((WIDTH, HEIGHT)).T
    assert cut["rle"]["size"] == [HEIGHT, WIDTH]
    assert ((mask > 0) == unrolled).all()
    assert abs(cut["x"] - ball.x) <= 2
    assert abs(cut["w"] - ball.w) <= 4


def test_a_large_picture_is_cut_out_small() -> None:
    """A picture beyond `side_max` costs what a small one costs, and is only a little less exact."""
    runtime = Segmentation("grabcut", {"side_max": "160"}, NOWHERE)
    runtime.load()
    ball = scenes.things(WIDTH, HEIGHT)[0]
    around = [0, ball.y - 20, ball.x + ball.w + 20, ball.y + ball.h + 20]
    request = asked(scenes.to_file(scenes.draw(WIDTH, HEIGHT)), box=around)
    found = msgspec.json.decode(runtime.answer(request).body)
    (cut,) = found["masks"]
    assert cut["rle"]["size"] == [HEIGHT, WIDTH]
    assert abs(cut["w"] - ball.w) <= 12
    assert abs(cut["h"] - ball.h) <= 12


def test_points_guide_as_well(segmentation: Segmentation) -> None:
    """A point inside and one outside are enough for a thing of one colour."""
    ball, box = scenes.things(WIDTH, HEIGHT)
    picture = scenes.to_file(scenes.draw(WIDTH, HEIGHT))
    points = [[box.x + box.w / 2, box.y + box.h / 2], [ball.x + ball.w / 2, ball.y + ball.h / 2]]
    request = asked(picture, point_coords=[*points, [5, 350]], point_labels=[1, 0, 0])
    (cut,) = msgspec.json.decode(segmentation.answer(request).body)["masks"]
    assert abs(cut["area"] - box.w * box.h) < 0.05 * box.w * box.h


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, "say where the object is"),
        ({"box": [1, 2, 3]}, "box is"),
        ({"box": "nonsense"}, "box is"),
        ({"box": "[" * 100_000}, "box is"),
        ({"box": [10, 10, 9999, 20]}, "outside the picture"),
        ({"box": [10, 10, 10, 20]}, "is empty"),
        ({"point_coords": [[1, 1]], "point_labels": [0]}, "at least one point inside"),
        ({"point_coords": [[1, 1]], "point_labels": [1, 1]}, "one label"),
        ({"point_coords": [[1, 1]] * 101}, "at most 100 points"),
    ],
)
def test_a_bad_guide_is_one_sentence(
    segmentation: Segmentation, values: dict[str, object], sentence: str
) -> None:
    """What the guide lacks is told to whoever sent it."""
    picture = scenes.to_file(scenes.draw(64, 64))
    with pytest.raises(BadRequest, match=sentence):
        segmentation.answer(asked(picture, **values))


# --- object detection ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_boxes_are_right(detection: ObjectDetection, kind: str) -> None:
    """The drawn ball and box are found where they were drawn, in every kind of file."""
    picture = scenes.to_file(scenes.draw(WIDTH, HEIGHT, 30), kind)
    found = msgspec.json.decode(detection.answer(asked(picture)).body)
    boxes = {box["label"]: box for box in found["boxes"]}
    drawn = scenes.things(WIDTH, HEIGHT, 30)
    assert set(boxes) == {"red", "blue"}
    for thing in drawn:
        box = boxes[thing.colour]
        for side in ("x", "y", "w", "h"):
            assert abs(box[side] - getattr(thing, side)) <= 8, (kind, thing, box)


def test_a_threshold_is_heeded(detection: ObjectDetection) -> None:
    """Nothing less sure than the client's threshold is told."""
    picture = scenes.to_file(scenes.draw(WIDTH, HEIGHT))
    found = msgspec.json.decode(detection.answer(asked(picture, threshold=1)).body)
    assert found["boxes"] == []
    with pytest.raises(BadRequest, match="threshold must be a number from 0 to 1"):
        detection.answer(asked(picture, threshold=-1))


def test_a_fetched_detector_needs_no_options(detector: TinyDetector, tmp_path: Path) -> None:
    """The files beside the network name its classes and say how it wants its pictures."""
    folder = tmp_path / "dfine-s-coco"
    (folder / "onnx").mkdir(parents=True)
    (folder / "onnx" / "model.onnx").write_bytes(detector.file.read_bytes())
    runtime = ObjectDetection("dfine-s-coco", {}, tmp_path)
    with pytest.raises(ModelMissing, match=r"preprocessor_config\.json cannot be read"):
        runtime.load()
    (folder / "preprocessor_config.json").write_text('{"do_normalize": false, "resample": 2}')
    (folder / "config.json").write_text('{"id2label": {"0": "person", "2": "kite"}}')
    runtime.load()
    picture = scenes.to_file(scenes.draw(WIDTH, HEIGHT, 30))
    found = msgspec.json.decode(runtime.answer(asked(picture)).body)
    assert {box["label"] for box in found["boxes"]} == {"person", "kite"}
    with pytest.raises(ModelMissing, match="or fetch one"):
        ObjectDetection("dfine-m-coco", {}, tmp_path).load()


def _ready_made(folder: Path) -> Path:
    """A network in the other shape: labels, boxes and scores are ready, sizes are an input."""
    made = {
        "labels": np.array([[1, 0, 0]], np.int64),
        "boxes": np.array([[[-50, 10, 40, 30], [0, 0, 9, 9], [0, 0, np.nan, 9]]], np.float32),
        "scores": np.array([[0.9, 0.2, 0.8]], np.float32),
    }
    kinds = {"labels": TensorProto.INT64, "boxes": TensorProto.FLOAT, "scores": TensorProto.FLOAT}
    graph = helper.make_graph(
        [helper.make_node("Identity", [f"c_{name}"], [name]) for name in made],
        "ready",
        [
            helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 64, 64]),
            helper.make_tensor_value_info("orig_target_sizes", TensorProto.INT64, [1, 2]),
        ],
        [
            helper.make_tensor_value_info(name, kinds[name], list(value.shape))
            for name, value in made.items()
        ],
        [numpy_helper.from_array(value, f"c_{name}") for name, value in made.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    file = folder / "ready.onnx"
    onnx.save(model, file)
    return file


def test_the_other_shape_of_export(tmp_path: Path) -> None:
    """A model whose boxes are ready made is understood; boxes are cut to the picture, NaN left."""
    runtime = ObjectDetection("ready", {"file": str(_ready_made(tmp_path))}, NOWHERE)
    runtime.load()
    found = msgspec.json.decode(runtime.answer(asked(scenes.to_file(scenes.draw(64, 64)))).body)
    assert found["boxes"] == [{"label": "class 1", "score": 0.9, "x": 0, "y": 10, "w": 40, "h": 20}]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "does not exist: put a detector"),
        (b"not a network", "cannot be loaded"),
        (b"", "cannot be loaded"),
    ],
)
def test_a_missing_model_is_one_sentence(
    tmp_path: Path, content: bytes | None, sentence: str
) -> None:
    """Whoever owns the worker reads what to do."""
    file = tmp_path / "model.onnx"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ModelMissing, match=sentence):
        ObjectDetection("d", {"file": str(file)}, NOWHERE).load()
    with pytest.raises(ModelMissing, match="option `file`"):
        ObjectDetection("d", {}, NOWHERE).load()


# --- moderation ----------------------------------------------------------------------------------


def test_texts_are_judged(moderation: Moderation) -> None:
    """An insult is flagged, a kindness is not, each for itself; what was measured is said."""
    request = judged(["have a nice day", "you stupid fucking idiot"])
    found = msgspec.json.decode(moderation.answer(request).body)
    kind, rude = found["results"]
    assert [kind["flagged"], rude["flagged"]] == [False, True]
    assert rude["categories"]["harassment"]
    assert set(rude["category_scores"]) == set(CATEGORIES)
    assert rude["category_applied_input_types"]["harassment"] == ["text"]
    assert rude["category_applied_input_types"]["violence"] == []


def test_a_picture_is_judged_with_its_text(moderation: Moderation) -> None:
    """Parts make one judgement; a drawn scene is fit for work."""
    picture = to_data_url("image/png", scenes.to_file(scenes.draw(WIDTH, HEIGHT)))
    parts = [
        {"type": "text", "text": "a red ball"},
        {"type": "image_url", "image_url": {"url": picture}},
    ]
    (result,) = msgspec.json.decode(moderation.answer(judged(parts)).body)["results"]
    assert not result["flagged"]
    assert result["category_applied_input_types"]["sexual"] == ["image"]
    assert 0 < result["category_scores"]["sexual"] < 0.5


def test_a_classifier_of_ones_own(tmp_path: Path) -> None:
    """An owner's ONNX file and its labels decide about pictures; logits become chances."""
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["x"], ["mean"], axes=[2, 3], keepdims=0),
            helper.make_node("MatMul", ["mean", "weights"], ["logits"]),
        ],
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 2])],
        [numpy_helper.from_array(np.array([[0, 9], [5, 0], [5, 0]], np.float32), "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, tmp_path / "c.onnx")
    (tmp_path / "labels").write_text("fine\nviolence\n")
    options = {
        "file": str(tmp_path / "c.onnx"),
        "labels": str(tmp_path / "labels"),
        "normalise": "none",
    }
    runtime = Moderation("own", options, NOWHERE)
    runtime.load()
    flagged = []
    for colour in ("red", "grey"):
        url = to_data_url("image/png", scenes.to_file(Image.new("RGB", (40, 40), colour)))
        request = judged([{"type": "image_url", "image_url": {"url": url}}])
        (result,) = msgspec.json.decode(runtime.answer(request).body)["results"]
        flagged.append(result["categories"]["violence"])
    assert flagged == [True, False]
    (tmp_path / "labels").write_text("cat\ndog\n")
    with pytest.raises(ModelMissing, match="at least one must be of"):
        Moderation("own", options, NOWHERE).load()


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        (None, "not a moderation request"),
        ([], "1 to 64"),
        (["a"] * 65, "1 to 64"),
        ("a" * 200_001, "at most 200000 characters"),
        ([{"type": "video"}], "not a moderation request"),
        ([{"type": "image_url", "image_url": {"url": "http://inside/a.png"}}], "no address is"),
        ([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}], "no PNG"),
    ],
)
def test_a_bad_moderation_request(moderation: Moderation, what: object, sentence: str) -> None:
    """Each way to ask wrongly has its sentence."""
    with pytest.raises(BadRequest, match=sentence):
        moderation.answer(judged(what))
