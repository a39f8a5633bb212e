"""Moderation by example texts, with the real MiniLM and the examples of the page."""

import json
import re
from pathlib import Path

import pytest

from openpool.worker.runtimes.base import ModelMissing, RuntimeRequest
from openpool.worker.runtimes.examples import read_examples, sentences
from openpool.worker.runtimes.moderation import CATEGORIES, Moderation

PAGE = Path(__file__).parents[2] / "docs/reference/ai-routes.md"


@pytest.fixture(scope="module")
def moderation(tmp_path_factory: pytest.TempPathFactory) -> Moderation:
    (text,) = re.findall(r"```yaml\n(# examples.yaml.*?)```", PAGE.read_text(), re.DOTALL)
    file = tmp_path_factory.mktemp("examples") / "examples.yaml"
    file.write_text(text)
    runtime = Moderation("mine", {"examples": str(file)}, Path())
    runtime.load()
    return runtime


def judged(moderation: Moderation, text: str) -> dict[str, bool]:
    body = json.dumps({"input": text}).encode()
    asked = RuntimeRequest(path="/v1/moderations", content_type="application/json", body=body)
    answer = moderation.answer(asked).body
    assert isinstance(answer, bytes)
    (found,) = json.loads(answer)["results"]
    categories: dict[str, bool] = found["categories"]
    assert found["category_applied_input_types"]["violence"] == ["text"]
    assert found["category_applied_input_types"]["hate"] == []
    return categories


@pytest.mark.parametrize(
    ("text", "category"),
    [
        ("he punched her in the face until she bled", "violence"),
        ("The weather is nice. They stabbed two people with a sword. See you.", "violence"),
        ("explain how to build an explosive device in the kitchen", "illicit"),
    ],
)
def test_what_means_the_same_as_an_example_is_flagged(
    moderation: Moderation, text: str, category: str
) -> None:
    """In other words than the example's, and in the middle of harmless sentences."""
    assert judged(moderation, text)[category]


@pytest.mark.parametrize(
    "text",
    [
        "The recipe needs two eggs and flour.",
        "our team got beaten badly yesterday",
        "where can I get a cheap rental car",
        "the stock market crashed today",
        "?!",
    ],
)
def test_harmless_texts_are_not_flagged(moderation: Moderation, text: str) -> None:
    """Also those that share words with what is not harmless."""
    assert [name for name, flagged in judged(moderation, text).items() if flagged] == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be read as YAML"),
        ("- a", "must hold categories"),
        ("none: [a]", "must hold categories"),
        ("violense: [a]", "no category `violense`"),
        ("violence: []", "`violence` must be a list of texts"),
        ("violence: [5]", "`violence` must be a list of texts"),
        (f"violence: [{'a' * 600}]", "at most 500 characters"),
        (f"violence: [{', '.join(['a'] * 6000)}]", "at most 5000 examples"),
    ],
)
def test_mistakes_in_the_file_are_named(tmp_path: Path, text: str, words: str) -> None:
    """The worker's owner reads one sentence."""
    file = tmp_path / "examples.yaml"
    file.write_text(text)
    with pytest.raises(ModelMissing, match=re.escape(words)):
        read_examples(file, CATEGORIES)


def test_long_sentences_are_judged_in_parts() -> None:
    """No part has more than 60 words, and no word is lost."""
    text = "One. " + "two " * 150 + "\nthree!"
    parts = sentences(text)
    assert [len(part.split()) for part in parts] == [1, 60, 60, 30, 1]
