"""A network with Kokoro's inputs and outputs that speaks numbers: each token is 50 ms of one level.

The level is the token's number divided by 256, made quieter by the first number of the voice's
style: whoever has the sound can read which tokens were spoken, by which voice, and how fast.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

RATE = 24_000
SAMPLES = 1200
TOKENS_MAX = 510


def make_tiny_kokoro(folder: Path, **loudness: float) -> None:
    """Write the network, and for each voice a file with its loudness, where a fetched model has
    them."""
    (folder / "onnx").mkdir(parents=True)
    model = helper.make_model(_graph(), opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    (folder / "onnx" / "model.onnx").write_bytes(model.SerializeToString())
    (folder / "voices").mkdir()
    for voice, level in loudness.items():
        style = np.full((TOKENS_MAX, 1, 256), level, "<f4")
        (folder / "voices" / f"{voice}.bin").write_bytes(style.tobytes())


def spoken(pcm: bytes, loudness: float = 1.0, speed: float = 1.0) -> list[int]:
    """The tokens that this sound is made of, as signed 16-bit samples at 24 kHz."""
    levels = np.frombuffer(pcm, "<i2").astype(float) / 32768
    each = round(SAMPLES / speed)
    return [round(level / loudness * 256) for level in levels[each // 2 :: each]]


def _graph() -> onnx.GraphProto:
    node, describe = helper.make_node, helper.make_tensor_value_info
    constants = {
        "samples": np.array([SAMPLES], np.float32),
        "most": np.array([256], np.float32),
        "column": np.array([-1, 1], np.int64),
        "row": np.array([1, -1], np.int64),
        "zero": np.array([0], np.int64),
        "one": np.array([1], np.int64),
    }
    nodes = [
        node("Cast", ["input_ids"], ["numbers"], to=TensorProto.FLOAT),
        node("Div", ["numbers", "most"], ["levels"]),
        node("Slice", ["style", "zero", "one", "one"], ["loudness"]),
        node("Mul", ["levels", "loudness"], ["heard"]),
        node("Reshape", ["heard", "column"], ["each"]),
        node("Div", ["samples", "speed"], ["exactly"]),
        node("Round", ["exactly"], ["whole"]),
        node("Cast", ["whole"], ["length"], to=TensorProto.INT64),
        node("Concat", ["one", "length"], ["shape"], axis=0),
        node("Expand", ["each", "shape"], ["held"]),
        node("Reshape", ["held", "row"], ["waveform"]),
    ]
    return helper.make_graph(
        nodes,
        "numbers",
        [
            describe("input_ids", TensorProto.INT64, [1, "tokens"]),
            describe("style", TensorProto.FLOAT, [1, 256]),
            describe("speed", TensorProto.FLOAT, [1]),
        ],
        [describe("waveform", TensorProto.FLOAT, [1, "samples"])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
