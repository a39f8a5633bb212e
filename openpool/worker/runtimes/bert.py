"""Sentence vectors of a BERT model, computed with nothing but numpy.

Reads a model folder as its makers publish it: `config.json`, `tokenizer.json`, and weights in
`model.safetensors`. Vectors are the mean over the tokens, of length one.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from openpool.worker.runtimes.base import ModelMissing

if TYPE_CHECKING:
    from tokenizers import Encoding

Floats = NDArray[np.float32]

BATCH_TOKENS_MAX = 4096
HEADER_BYTES_MAX = 16 << 20


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

    def __init__(self, folder: Path) -> None:
        """Raises ModelMissing if the folder has no such model."""
        from tokenizers import Tokenizer

        try:
            self.config = msgspec.json.decode((folder / "config.json").read_bytes(), type=Config)
            self._weights = read_safetensors(folder / "model.safetensors")
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except (OSError, ValueError) as error:
            raise ModelMissing(f"The model in {folder} cannot be read: {error}") from None
        if self.config.model_type != "bert" or self.config.hidden_act != "gelu":
            raise ModelMissing(f"The model in {folder} is no BERT model.")
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
        ids = np.zeros((len(tokens), longest), np.int64)
        mask = np.zeros((len(tokens), longest), np.float32)
        for row, each in enumerate(tokens):
            ids[row, : len(each)] = each
            mask[row, : len(each)] = 1
        hidden = self._embed(ids)
        hide = (mask[:, None, None, :] - 1) * np.float32(1e9)
        for layer in range(self.config.num_hidden_layers):
            hidden = self._layer(f"encoder.layer.{layer}", hidden, hide)
        mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
        unit: Floats = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        return unit

    def _embed(self, ids: NDArray[np.int64]) -> Floats:
        weights = self._weights
        words = weights["embeddings.word_embeddings.weight"][ids]
        places = weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
        kinds = weights["embeddings.token_type_embeddings.weight"][0]
        return self._normal("embeddings.LayerNorm", words + places + kinds)

    def _layer(self, name: str, hidden: Floats, hide: Floats) -> Floats:
        seen = self._linear(f"{name}.attention.output.dense", self._attention(name, hidden, hide))
        hidden = self._normal(f"{name}.attention.output.LayerNorm", hidden + seen)
        inner = _gelu(self._linear(f"{name}.intermediate.dense", hidden))
        return self._normal(
            f"{name}.output.LayerNorm", hidden + self._linear(f"{name}.output.dense", inner)
        )

    def _attention(self, name: str, hidden: Floats, hide: Floats) -> Floats:
        batch, length, size = hidden.shape
        heads = self.config.num_attention_heads
        query, key, value = (
            self._linear(f"{name}.attention.self.{part}", hidden)
            .reshape(batch, length, heads, size // heads)
            .transpose(0, 2, 1, 3)
            for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 1, 3, 2) / np.float32(math.sqrt(size // heads)) + hide
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        seen = scores / scores.sum(-1, keepdims=True) @ value
        joined: Floats = seen.transpose(0, 2, 1, 3).reshape(batch, length, size)
        return joined

    def _linear(self, name: str, values: Floats) -> Floats:
        result: Floats = values @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]
        return result

    def _normal(self, name: str, values: Floats) -> Floats:
        centred = values - values.mean(-1, keepdims=True)
        spread = np.sqrt((centred**2).mean(-1, keepdims=True) + self.config.layer_norm_eps)
        scale, shift = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        result: Floats = (centred / spread * scale + shift).astype(np.float32)
        return result


def _gelu(x: Floats) -> Floats:
    """x·Φ(x), with the error function of Abramowitz and Stegun 7.1.26 (to 1.5e-7)."""
    z = np.abs(x) / np.float32(math.sqrt(2))
    t = 1 / (1 + np.float32(0.3275911) * z)
    series = t * (
        0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))
    )
    erf = np.sign(x) * (1 - series * np.exp(-z * z))
    result: Floats = (x * (1 + erf) / 2).astype(np.float32)
    return result


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
    except (OSError, msgspec.MsgspecError):
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
