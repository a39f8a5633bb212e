"""A detector made on the spot: finds the red, the green and the blue thing in a picture.

A real ONNX network of a dozen operators, without weights, in the shape of a DETR export (one query
per colour): what runs it in the demo and the tests is what runs a trained detector in production.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

COLOURS = ("red", "green", "blue")
SIDE = 320
DOMINANCE = 0.3
"""By how much a channel must exceed the others, of 1, averaged over 3x3 pixels."""
SURE = 6.0
"""A logit: 0.998 as a score."""


class TinyDetector(NamedTuple):
    """The files that a detector is."""

    file: Path
    labels: Path


def write_detector(folder: Path) -> TinyDetector:
    """Write the network and the names of what it finds into the folder."""
    made = TinyDetector(folder / "colours.onnx", folder / "colours.txt")
    made.file.write_bytes(build().SerializeToString())
    made.labels.write_text("\n".join(COLOURS) + "\n")
    return made


def build() -> onnx.ModelProto:
    """The network: `images` [1,3,S,S] of 0..1 to `pred_boxes` [1,3,4] and `logits` [1,3,3]."""
    side = SIDE
    graph = helper.make_graph(
        _nodes(),
        "colours",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, side, side])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3, 3]),
            helper.make_tensor_value_info("pred_boxes", TensorProto.FLOAT, [1, 3, 4]),
        ],
        [numpy_helper.from_array(value, name) for name, value in _constants().items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model


def _constants() -> dict[str, np.ndarray]:
    edges = np.arange(SIDE, dtype=np.float32) / SIDE
    return {
        "others": np.array([[1, 2], [0, 2], [0, 1]], np.int64),
        "dominance": np.array(DOMINANCE, np.float32),
        "lows": edges,
        "highs": edges + np.float32(1 / SIDE),
        "one": np.array(1, np.float32),
        "zero": np.array(0, np.float32),
        "half": np.array(0.5, np.float32),
        "sure": np.eye(3, dtype=np.float32)[None] * np.float32(2 * SURE),
        "unsure": np.array(SURE, np.float32),
    }


def _nodes() -> list[onnx.NodeProto]:
    node = helper.make_node
    nodes = [
        # where is a channel well above the two others?
        node("Gather", ["images", "others"], ["pairs"], axis=1),
        node("ReduceMax", ["pairs"], ["highest"], axes=[2], keepdims=0),
        node("Sub", ["images", "highest"], ["above"]),
        node("AveragePool", ["above"], ["calm"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Greater", ["calm", "dominance"], ["there"]),
        node("Cast", ["there"], ["mask"], to=TensorProto.FLOAT),
        node("ReduceMax", ["mask"], ["columns"], axes=[2], keepdims=0),
        node("ReduceMax", ["mask"], ["rows"], axes=[3], keepdims=0),
        node("ReduceMax", ["columns"], ["found"], axes=[2], keepdims=1),
        node("Mul", ["found", "sure"], ["scaled"]),
        node("Sub", ["scaled", "unsure"], ["logits"]),
    ]
    for side, line in (("x", "columns"), ("y", "rows")):
        nodes += [
            node("Cast", [line], [f"{side}_is"], to=TensorProto.BOOL),
            node("Where", [f"{side}_is", "lows", "one"], [f"{side}_lows"]),
            node("Where", [f"{side}_is", "highs", "zero"], [f"{side}_highs"]),
            node("ReduceMin", [f"{side}_lows"], [f"{side}_low"], axes=[2], keepdims=1),
            node("ReduceMax", [f"{side}_highs"], [f"{side}_high"], axes=[2], keepdims=1),
            node("Add", [f"{side}_low", f"{side}_high"], [f"{side}_sum"]),
            node("Mul", [f"{side}_sum", "half"], [f"{side}_centre"]),
            node("Sub", [f"{side}_high", f"{side}_low"], [f"{side}_size"]),
        ]
    sides = ["x_centre", "y_centre", "x_size", "y_size"]
    return [*nodes, node("Concat", sides, ["pred_boxes"], axis=2)]
