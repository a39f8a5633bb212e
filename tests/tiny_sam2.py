"""Networks with SAM 2's inputs and outputs that go by colour: what looks like the guide is cut out.

Of the three masks that the decoder proposes only the second is right, and it says so.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE, GRID = 1024, 256
FEATURES = [
    helper.make_tensor_value_info(f"image_embeddings.{i}", TensorProto.FLOAT, [1, 3, side, side])
    for i, side in enumerate((GRID, GRID // 2, GRID // 4))
]
CELLS = np.arange(GRID, dtype=np.float32) * (SIDE // GRID) + 2
NEVER = -10.0


def make_tiny_sam2(folder: Path) -> None:
    """Write both networks where a fetched model has them."""
    (folder / "onnx").mkdir(parents=True)
    for name, graph in (
        ("vision_encoder", encoder()),
        ("prompt_encoder_mask_decoder", decoder()),
    ):
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 8
        onnx.checker.check_model(model)
        (folder / "onnx" / f"{name}.onnx").write_bytes(model.SerializeToString())


def encoder() -> onnx.GraphProto:
    """The picture, smaller."""
    pixels = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    nodes = [
        helper.make_node(
            "AveragePool", ["pixel_values"], [features.name], kernel_shape=[n, n], strides=[n, n]
        )
        for features, n in zip(FEATURES, (4, 8, 16), strict=True)
    ]
    return helper.make_graph(nodes, "encoder", [pixels], FEATURES)


def decoder() -> onnx.GraphProto:
    """Where the picture has the colours of the good points and not those of the bad ones."""
    describe = helper.make_tensor_value_info
    inputs = [
        describe("input_points", TensorProto.FLOAT, [1, 1, "n", 2]),
        describe("input_labels", TensorProto.INT64, [1, 1, "n"]),
        describe("input_boxes", TensorProto.FLOAT, [1, "b", 4]),
        *FEATURES,
    ]
    outputs = [
        describe("iou_scores", TensorProto.FLOAT, [1, 1, 3]),
        describe("pred_masks", TensorProto.FLOAT, [1, 1, 3, GRID, GRID]),
        describe("object_score_logits", TensorProto.FLOAT, [1, 1, 1]),
    ]
    constants = [numpy_helper.from_array(value, name) for name, value in CONSTANTS.items()]
    return helper.make_graph(_nodes(), "decoder", inputs, outputs, constants)


CONSTANTS = {
    "four": np.array(4, np.float32),
    "half": np.array(0.5, np.float32),
    "never": np.array(NEVER, np.float32),
    "one": np.array(1, np.int64),
    "pairs": np.array([-1, 2], np.int64),
    "corners_of": np.array([-1, 2, 2], np.int64),
    "row": np.array([-1], np.int64),
    "each": np.array([-1, 1, 1], np.int64),
    "colours_of": np.array([-1, 1, 1, 3], np.int64),
    "grid_of": np.array([GRID, GRID, 3], np.int64),
    "masks_of": np.array([1, 1, 3, GRID, GRID], np.int64),
    "last": np.array([3], np.int64),
    "swapped": np.array([1, 0], np.int64),
    "from": np.array([1], np.int64),
    "to": np.array([2], np.int64),
    "x": CELLS[None, None, :],
    "y": CELLS[None, :, None],
    "everywhere": np.ones((1, GRID, GRID), np.float32),
    "scores": np.array([[[0.2, 0.9, 0.3]]], np.float32),
    "sure": np.array([[[5]]], np.float32),
}


def _nodes() -> list[onnx.NodeProto]:
    node = helper.make_node
    return [
        # the points of the guide, and the middle of its box
        node("Reshape", ["input_points", "pairs"], ["points"]),
        node("Reshape", ["input_boxes", "corners_of"], ["corners"]),
        node("ReduceMean", ["corners"], ["middles"], axes=[1], keepdims=0),
        node("Concat", ["points", "middles"], ["places"], axis=0),
        node("Shape", ["input_boxes"], ["shape_of_boxes"]),
        node("Slice", ["shape_of_boxes", "from", "to"], ["count_of_boxes"]),
        node(
            "ConstantOfShape", ["count_of_boxes"], ["box_labels"],
            value=numpy_helper.from_array(np.array([1], np.int64)),
        ),
        node("Reshape", ["input_labels", "row"], ["point_labels"]),
        node("Concat", ["point_labels", "box_labels"], ["labels"], axis=0),
        node("Reshape", ["labels", "each"], ["label_of_each"]),
        node("Equal", ["label_of_each", "one"], ["is_good"]),
        # their colours, and how alike each cell is
        node("Transpose", ["image_embeddings.0"], ["channels_last"], perm=[0, 2, 3, 1]),
        node("Reshape", ["channels_last", "grid_of"], ["grid"]),
        node("Div", ["places", "four"], ["cells"]),
        node("Cast", ["cells"], ["whole_cells"], to=TensorProto.INT64),
        node("Gather", ["whole_cells", "swapped"], ["rows_and_columns"], axis=1),
        node("GatherND", ["grid", "rows_and_columns"], ["found"]),
        node("Reshape", ["found", "colours_of"], ["colours"]),
        node("Sub", ["channels_last", "colours"], ["apart"]),
        node("Abs", ["apart"], ["far"]),
        node("ReduceSum", ["far", "last"], ["distance"], keepdims=0),
        node("Sub", ["half", "distance"], ["alike"]),
        node("Where", ["is_good", "alike", "never"], ["like_good"]),
        node("Where", ["is_good", "never", "alike"], ["like_bad"]),
        node("ReduceMax", ["like_good"], ["good"], axes=[0], keepdims=1),
        node("ReduceMax", ["like_bad"], ["bad"], axes=[0], keepdims=1),
        node("Sub", ["good", "bad"], ["better"]),
        node("Min", ["good", "better"], ["wanted"]),
        # and nothing outside of the box
        node("Split", ["input_boxes"], ["l", "t", "r", "b"], axis=2),
        *(node("Reshape", [side, "each"], [f"{side}_of"]) for side in "ltrb"),
        node("GreaterOrEqual", ["x", "l_of"], ["right_of_l"]),
        node("LessOrEqual", ["x", "r_of"], ["left_of_r"]),
        node("GreaterOrEqual", ["y", "t_of"], ["below_t"]),
        node("LessOrEqual", ["y", "b_of"], ["above_b"]),
        node("And", ["right_of_l", "left_of_r"], ["within_x"]),
        node("And", ["below_t", "above_b"], ["within_y"]),
        node("And", ["within_x", "within_y"], ["within"]),
        node("Cast", ["within"], ["within_box"], to=TensorProto.FLOAT),
        node("Concat", ["everywhere", "within_box"], ["limits"], axis=0),
        node("ReduceMin", ["limits"], ["limit"], axes=[0], keepdims=1),
        node("Cast", ["limit"], ["is_within"], to=TensorProto.BOOL),
        node("Where", ["is_within", "wanted", "never"], ["right"]),
        node("Neg", ["right"], ["wrong"]),
        node("Concat", ["wrong", "right", "wrong"], ["three"], axis=0),
        node("Reshape", ["three", "masks_of"], ["pred_masks"]),
        node("Identity", ["scores"], ["iou_scores"]),
        node("Identity", ["sure"], ["object_score_logits"]),
    ]  # fmt: skip
