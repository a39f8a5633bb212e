"""Embeddings by the real MiniLM model, which setup installs."""

import base64
import json
import struct
from pathlib import Path

import pytest

from openpool.worker.runtimes.base import BadRequest, ModelMissing, RuntimeRequest
from openpool.worker.runtimes.embeddings import MINILM, Embeddings

REFERENCE = [0.12872470915, -0.03267293423, -0.02291571535, 0.04023053497]
LONG = (
    "the pool is where many small rivers meet each worker brings what it has cat dog stock market"
)
LONG_REFERENCE = [0.03657858073711395, -0.010531270876526833, 0.02284375950694084, 0.04135395586]


@pytest.fixture(scope="module")
def embeddings() -> Embeddings:
    runtime = Embeddings(MINILM, {}, Path("/nowhere"))
    runtime.load()
    return runtime


def ask(embeddings: Embeddings, **fields: object) -> dict[str, object]:
    request = RuntimeRequest(
        path="/v1/embeddings",
        content_type="application/json",
        body=json.dumps({"model": MINILM, **fields}).encode(),
    )
    answer = embeddings.answer(request).body
    assert isinstance(answer, bytes)
    found: dict[str, object] = json.loads(answer)
    return found


def vectors(embeddings: Embeddings, texts: list[str]) -> list[list[float]]:
    data = ask(embeddings, input=texts)["data"]
    assert isinstance(data, list)
    return [each["embedding"] for each in data]


def likeness(one: list[float], two: list[float]) -> float:
    return sum(a * b for a, b in zip(one, two, strict=True))


def test_like_meanings_are_near(embeddings: Embeddings) -> None:
    """Two sentences that mean the same are nearer than two that do not."""
    cat, kitten, stocks = vectors(
        embeddings,
        ["a cat sits on the mat", "a kitten rests on a rug", "the stock market crashed"],
    )
    assert likeness(cat, kitten) > 0.6
    assert likeness(cat, stocks) < 0.2


def test_the_numbers_are_those_of_the_models_makers(embeddings: Embeddings) -> None:
    """The first numbers of a sentence, as sentence-transformers computes them."""
    (vector,) = vectors(embeddings, ["a cat sits on the mat"])
    assert len(vector) == 384
    assert likeness(vector, vector) == pytest.approx(1, abs=1e-5)
    assert vector[:4] == pytest.approx(REFERENCE, abs=2e-6)


def test_a_long_text_is_computed_as_by_hand(embeddings: Embeddings) -> None:
    """Beyond the first words: the numbers of the same network written out in numpy."""
    (vector,) = vectors(embeddings, [LONG])
    assert vector[:4] == pytest.approx(LONG_REFERENCE, abs=1e-4)


def test_company_does_not_change_a_vector(embeddings: Embeddings) -> None:
    """A text gives the same vector alone and padded beside a long one."""
    (alone,) = vectors(embeddings, ["short"])
    together = vectors(embeddings, ["a much longer text " * 10, "short", "other"])
    assert together[1] == pytest.approx(alone, abs=1e-5)


def test_base64_is_the_same_vector(embeddings: Embeddings) -> None:
    """OpenAI's client asks for base64: little-endian floats."""
    (plain,) = vectors(embeddings, ["hello"])
    data = ask(embeddings, input="hello", encoding_format="base64")["data"]
    packed = base64.b64decode(data[0]["embedding"])  # type: ignore[index]
    assert struct.unpack("<384f", packed) == pytest.approx(plain, abs=1e-6)


def test_tokens_are_counted(embeddings: Embeddings) -> None:
    """Usage counts what the model read, with its two marks for each text."""
    usage = {"prompt_tokens": 7, "total_tokens": 7}
    assert ask(embeddings, input=["hello world", "hello"])["usage"] == usage


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"input": ""}, "empty"),
        ({"input": ["a", "  "]}, "empty"),
        ({"input": []}, "1 to 2048"),
        ({"input": ["a"] * 3000}, "1 to 2048"),
        ({"input": 5}, "input"),
        ({"input": "word " * 1000}, "at most 256"),
        ({"input": "a", "dimensions": 5}, "384 dimensions"),
        ({"input": "a", "encoding_format": "xml"}, "xml"),
        ({}, "input"),
    ],
)
def test_bad_requests_are_refused(
    embeddings: Embeddings, fields: dict[str, object], words: str
) -> None:
    """Nothing is cut off silently; what is wrong is named."""
    with pytest.raises(BadRequest, match=words):
        ask(embeddings, **fields)


def test_a_missing_model_is_one_sentence(tmp_path: Path) -> None:
    """Another model has to be fetched first."""
    with pytest.raises(ModelMissing, match="models pull"):
        Embeddings("other", {}, tmp_path).load()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"\xff" * 100)
    (tmp_path / "broken" / "config.json").write_text("{}")
    with pytest.raises(ModelMissing, match="cannot be read"):
        Embeddings("broken", {}, tmp_path).load()


def test_texts_of_megabytes_are_refused_unread(embeddings: Embeddings) -> None:
    """Nobody counts a million tokens to say that they are too many, in whichever text."""
    for texts, sentence in (
        (
            "a b " * 1_000_000,
            "input 0 has 4000000 characters; all-minilm-l6-v2 takes at most 25600",
        ),
        (["a"] * 100 + [" " * 1_000_000 + "a"], "input 100 has 1000001 characters"),
        (["a"] * 40 + ["a " * 300], "input 40 has 302 tokens; all-minilm-l6-v2 takes at most 256"),
    ):
        with pytest.raises(BadRequest, match=sentence):
            ask(embeddings, input=texts)
