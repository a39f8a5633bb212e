"""Sentence vectors of a BERT model, run by ONNX Runtime.

Reads a model folder as its makers publish it: `config.json`, `tokenizer.json`, and weights in
`model.safetensors`. The network is put together here from the weights, so that nothing has to be
exported, and torch is not needed. Vectors are the mean over the tokens, of length one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from openpool.core.decoding import UNREADABLE
from openpool.worker.runtimes import networks
from openpool.worker.runtimes.base import ModelMissing

if TYPE_CHECKING:
    from onnx import NodeProto
    from tokenizers import Encoding

Floats = NDArray[np.float32]

BATCH_TOKENS_MAX = 4096
HEADER_BYTES_MAX = 16 << 20
OPSET = 17
IR_VERSION = 8
FUSED = "com.microsoft"
"""ONNX Runtime's own operators, which do at once what a transformer consists of."""


class Config(Struct, frozen=True):
    """The part of `config.json` that matters."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    layer_norm_eps: float
    max_position_embeddings: int
    model_type: str
    hidden_act: str = "gelu"


class Sentences(Struct, frozen=True):
    """The part of `sentence_bert_config.json` that matters."""

    max_seq_length: int


class Bert:
    """A loaded model."""

    def __init__(self, folder: Path, options: Mapping[str, str]) -> None:
        """Raises ModelMissing if the folder has no such model."""
        from tokenizers import Tokenizer

        try:
            self.config = msgspec.json.decode((folder / "config.json").read_bytes(), type=Config)
            weights = read_safetensors(folder / "model.safetensors")
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            if self.config.model_type != "bert" or self.config.hidden_act != "gelu":
                raise ValueError("it is no BERT model")
            self._session = networks.session(_Graph(self.config, weights).model(), options)
        except (OSError, ValueError, KeyError) as error:
            raise ModelMissing(f"The model in {folder} cannot be read: {error}") from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.tokens_max = _tokens_max(folder, self.config)

    def tokens(self, texts: list[str]) -> "list[Encoding]":
        """The texts in tokens."""
        return self._tokenizer.encode_batch(texts)

    def vectors(self, tokens: list[list[int]]) -> Floats:
        """A row for each text. Those of like length are computed together."""
        rows = np.empty((len(tokens), self.config.hidden_size), np.float32)
        for batch in _batches(tokens):
            rows[batch] = self._run([tokens[i] for i in batch])
        return rows

    def _run(self, tokens: list[list[int]]) -> Floats:
        longest = max(map(len, tokens))
        ids = np.zeros((len(tokens), longest), np.int32)
        mask = np.zeros((len(tokens), longest), np.int32)
        for row, each in enumerate(tokens):
            ids[row, : len(each)] = each
            mask[row, : len(each)] = 1
        sums: Floats = self._session.run(None, {"ids": ids, "mask": mask})[0]
        unit: Floats = sums / np.linalg.norm(sums, axis=1, keepdims=True)
        return unit


class _Graph:
    """The network: from `ids` and `mask` (texts x tokens) to `sums` of the tokens' vectors."""

    def __init__(self, config: Config, weights: dict[str, Floats]) -> None:
        self._config = config
        self._given = weights
        self._weights: dict[str, Floats] = {}
        self._nodes: list[NodeProto] = []

    def model(self) -> bytes:
        """The ONNX file. Raises KeyError for a weight that is not there."""
        from onnx import TensorProto, helper, numpy_helper

        hidden = self._embed()
        for layer in range(self._config.num_hidden_layers):
            hidden = self._layer(f"encoder.layer.{layer}", hidden)
        self._pool(hidden)
        table = (("ids", TensorProto.INT32), ("mask", TensorProto.INT32))
        inputs = [helper.make_tensor_value_info(n, kind, ["texts", "tokens"]) for n, kind in table]
        output = helper.make_tensor_value_info(
            "sums", TensorProto.FLOAT, ["texts", self._config.hidden_size]
        )
        constants = [numpy_helper.from_array(value, name) for name, value in self._weights.items()]
        graph = helper.make_graph(self._nodes, "bert", inputs, [output], constants)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(FUSED, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        return bytes(model.SerializeToString())

    def _embed(self) -> str:
        words, places, kinds = (
            self._weight(f"embeddings.{name}_embeddings.weight")
            for name in ("word", "position", "token_type")
        )
        normal = self._both("embeddings.LayerNorm")
        inputs = ["ids", "", words, places, kinds, *normal, "mask"]
        return self._add(
            "EmbedLayerNormalization", inputs, "embedded", 2, epsilon=self._config.layer_norm_eps
        )

    def _layer(self, name: str, hidden: str) -> str:
        joined = f"{name}.attention.self"
        parts = [f"{joined}.{part}" for part in ("query", "key", "value")]
        weight = np.concatenate([self._given[f"{part}.weight"].T for part in parts], axis=1)
        bias = np.concatenate([self._given[f"{part}.bias"] for part in parts])
        both = [self._keep(f"{joined}.weight", weight), self._keep(f"{joined}.bias", bias)]
        heads = self._config.num_attention_heads
        seen = self._add("Attention", [hidden, *both, "mask"], f"{name}.seen", num_heads=heads)
        hidden = self._joined(f"{name}.attention.output", seen, hidden)
        inner = self._product(f"{name}.intermediate.dense", hidden)
        inner = self._add(
            "BiasGelu", [inner, self._weight(f"{name}.intermediate.dense.bias")], f"{name}.inner"
        )
        return self._joined(f"{name}.output", inner, hidden)

    def _joined(self, name: str, values: str, hidden: str) -> str:
        """What a part of a layer has found, added to what was there, and normalised."""
        product = self._product(f"{name}.dense", values)
        bias = self._weight(f"{name}.dense.bias")
        inputs = [product, hidden, *self._both(f"{name}.LayerNorm"), bias]
        return self._add(
            "SkipLayerNormalization", inputs, name, epsilon=self._config.layer_norm_eps
        )

    def _product(self, name: str, values: str) -> str:
        weight = self._keep(f"{name}.weight", self._given[f"{name}.weight"].T)
        return self._add("MatMul", [values, weight], name, domain="")

    def _pool(self, hidden: str) -> None:
        """The sum over the tokens that are there: of length one it is the mean's direction."""
        from onnx import TensorProto

        axis = self._keep("axis", np.array([1]))
        there = self._add("Cast", ["mask"], "there", domain="", to=TensorProto.FLOAT)
        there = self._add("Unsqueeze", [there, axis], "row", domain="")
        total = self._add("MatMul", [there, hidden], "total", domain="")
        self._add("Squeeze", [total, axis], "sums", domain="")

    def _add(
        self,
        kind: str,
        inputs: list[str],
        output: str,
        outputs: int = 1,
        *,
        domain: str = FUSED,
        **attributes: Any,
    ) -> str:
        from onnx import helper

        names = [output, *(f"{output}.{i}" for i in range(1, outputs))]
        self._nodes.append(helper.make_node(kind, inputs, names, domain=domain, **attributes))
        return output

    def _both(self, name: str) -> tuple[str, str]:
        return self._weight(f"{name}.weight"), self._weight(f"{name}.bias")

    def _weight(self, name: str) -> str:
        return self._keep(name, self._given[name])

    def _keep(self, name: str, value: "NDArray[np.generic]") -> str:
        self._weights[name] = np.ascontiguousarray(value)
        return name


def _batches(tokens: list[list[int]]) -> list[list[int]]:
    """Numbers of texts that go together: none of a batch is padded much."""
    batches: list[list[int]] = []
    for i in sorted(range(len(tokens)), key=lambda i: len(tokens[i])):
        if not batches or (len(batches[-1]) + 1) * len(tokens[i]) > BATCH_TOKENS_MAX:
            batches.append([])
        batches[-1].append(i)
    return batches


def _tokens_max(folder: Path, config: Config) -> int:
    try:
        text = (folder / "sentence_bert_config.json").read_bytes()
        return msgspec.json.decode(text, type=Sentences).max_seq_length
    except (OSError, *UNREADABLE):
        return config.max_position_embeddings


class Tensor(Struct, frozen=True):
    """An entry in the header of a safetensors file."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def read_safetensors(path: Path) -> dict[str, Floats]:
    """The tensors of 32-bit or 16-bit floats in a file. Raises OSError and ValueError."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > HEADER_BYTES_MAX:
            raise ValueError("it is no safetensors file")
        header = msgspec.json.decode(file.read(size), type=dict[str, msgspec.Raw])
        data = file.read()
    header.pop("__metadata__", None)
    tensors = {name: msgspec.json.decode(raw, type=Tensor) for name, raw in header.items()}
    kinds = {"F32": np.float32, "F16": np.float16}
    return {
        name: np.frombuffer(data[slice(*tensor.data_offsets)], kinds[tensor.dtype])
        .reshape(tensor.shape)
        .astype(np.float32)
        for name, tensor in tensors.items()
        if tensor.dtype in kinds
    }
