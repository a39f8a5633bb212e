"""Which categories a text belongs to, by labelled examples: whatever means about the same is near.

The worker's owner writes the examples in YAML: names of categories, each with a list of texts, and
under `none` texts that are harmless although they are about the same things. A sentence scores high
in a category if one of its examples is nearer than all harmless ones. No training, no rules.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from openpool.worker.runtimes.base import ModelMissing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from openpool.worker.runtimes.bert import Bert

HARMLESS = "none"
EXAMPLES_MAX = 5_000
EXAMPLE_CHARS_MAX = 500
FAR = 0.35
"""A likeness (cosine) that any two sentences may have."""
SLOPE = 14.0
"""How fast a score rises: to 0.9 for a likeness that is 0.16 above the nearest harmless one."""
SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")
WORDS_MAX = 60
"""Longer sentences are judged in parts."""

Examples = Mapping[str, list[str]]


def read_examples(file: Path, categories: Collection[str]) -> dict[str, list[str]]:
    """The texts by category. Raises ModelMissing that says what is wrong."""
    try:
        found = yaml.safe_load(file.expanduser().read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        raise ModelMissing(f"the examples in {file} cannot be read as YAML") from None
    if not isinstance(found, dict) or not set(found) - {HARMLESS}:
        raise ModelMissing(f"{file} must hold categories, each with a list of example texts")
    for name, texts in found.items():
        if name not in {*categories, HARMLESS}:
            known = ", ".join([*categories, HARMLESS])
            raise ModelMissing(f"{file}: there is no category `{name}`; there are: {known}")
        if not isinstance(texts, list) or not texts or not all(map(_is_example, texts)):
            limit = f"texts of at most {EXAMPLE_CHARS_MAX} characters"
            raise ModelMissing(f"{file}: `{name}` must be a list of {limit}")
    if sum(map(len, found.values())) > EXAMPLES_MAX:
        raise ModelMissing(f"{file}: there may be at most {EXAMPLES_MAX} examples")
    return found


def _is_example(text: object) -> bool:
    return isinstance(text, str) and bool(text.strip()) and len(text) <= EXAMPLE_CHARS_MAX


class ByExamples:
    """Scores texts by the examples that are nearest."""

    def __init__(self, bert: "Bert", examples: Examples) -> None:
        self._bert = bert
        self._vectors = {name: self._embed(texts) for name, texts in examples.items()}

    def score(self, text: str) -> dict[str, float]:
        """The highest score of any sentence, 0 to 1, for each category that has examples."""
        import numpy as np

        parts = sentences(text)
        if not parts:
            return {name: 0.0 for name in self._vectors if name != HARMLESS}
        vectors = self._embed(parts)
        nearest = {name: (vectors @ each.T).max(axis=1) for name, each in self._vectors.items()}
        harmless = np.maximum(nearest.pop(HARMLESS, FAR), FAR)
        return {
            name: round(float((1 / (1 + np.exp(-SLOPE * (likeness - harmless)))).max()), 6)
            for name, likeness in nearest.items()
        }

    def _embed(self, texts: list[str]) -> "NDArray[np.float32]":
        tokens = [each.ids[: self._bert.tokens_max] for each in self._bert.tokens(texts)]
        return self._bert.vectors(tokens)


def sentences(text: str) -> list[str]:
    """The text in parts that each say one thing."""
    found: list[str] = []
    for sentence in SENTENCE.findall(text):
        words = sentence.split()
        found += [" ".join(words[i : i + WORDS_MAX]) for i in range(0, len(words), WORDS_MAX)]
    return found
