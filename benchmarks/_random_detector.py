"""A network with the compute of a small trained detector (7 GFLOP), and random weights."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 640
QUERIES, CLASSES = 300, 80
LAYERS = (
    (3, 32, 2),
    (32, 64, 2),
    (64, 128, 2),
    (128, 128, 1),
    (128, 128, 1),
    (128, 128, 1),
)
"""Channels in, channels out, stride, of convolutions of 3x3."""


def write_random_detector(file: Path) -> float:
    """Write the network; how many GFLOP a picture costs."""
    generator = np.random.default_rng(0)
    nodes, weights, name, side, flop = [], [], "images", SIDE, 0.0
    for number, (before, after, stride) in enumerate(LAYERS):
        side //= stride
        kernel = generator.normal(0, 0.05, (after, before, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"w{number}"))
        inputs, outputs = [name, f"w{number}"], [f"c{number}"]
        nodes.append(
            helper.make_node("Conv", inputs, outputs, strides=[stride] * 2, pads=[1, 1, 1, 1])
        )
        nodes.append(helper.make_node("Relu", outputs, [f"r{number}"]))
        name = f"r{number}"
        flop += 2 * 9 * before * after * side * side
    nodes.append(helper.make_node("ReduceMean", [name], ["mean"], axes=[2, 3], keepdims=0))
    for output, width in (("pred_boxes", 4), ("logits", CLASSES)):
        matrix = generator.normal(0, 0.05, (128, QUERIES * width)).astype(np.float32)
        shape = np.array([1, QUERIES, width], np.int64)
        weights.append(numpy_helper.from_array(matrix, f"m_{output}"))
        weights.append(numpy_helper.from_array(shape, f"s_{output}"))
        nodes.append(helper.make_node("MatMul", ["mean", f"m_{output}"], [f"f_{output}"]))
        nodes.append(helper.make_node("Reshape", [f"f_{output}", f"s_{output}"], [output]))
    kinds = [("pred_boxes", 4), ("logits", CLASSES)]
    graph = helper.make_graph(
        nodes,
        "random",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info(o, TensorProto.FLOAT, [1, QUERIES, w]) for o, w in kinds],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, file)
    return flop / 1e9
