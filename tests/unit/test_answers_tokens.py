"""Tokens recounted with a model's own tokenizer, instead of what the worker tells."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from said import ASKED, PICTURE, SSE, chat, open_here, said, stream, vectors

from openpool.core.call_requests import Checked
from openpool.core.calls import App
from openpool.pool.answers import Answers
from openpool.wire.forms import to_data_url


async def count_words(model: str, texts: Sequence[str], *, marks: bool = False) -> list[int] | None:
    """A tokenizer for the model `m`: each word is a token, and marks are two more."""
    return [len(text.split()) + 2 * marks for text in texts] if model == "m" else None


async def recount(*args: Any, **rest: Any) -> Checked:
    """What the pool makes of it where it knows the model's tokenizer."""
    return await Answers(open_here, count_words).check(said(*args, **rest))


@pytest.mark.parametrize(
    ("told", "units", "words"),
    [
        ((9, 3), 12, "confirms"),
        ((82, 3), 85, "82 tokens asked"),
        ((2, 2), 4, "confirms"),
        (None, 2 + 2, "counted with the model's tokenizer"),
        ((9, 40), 9 + 3, "3 answered (counted with the model's tokenizer; 40 were told)"),
        ((150, 3), 2 + 96 + 3, "98 tokens asked (counted with the model's tokenizer; 150 were"),
    ],
)
async def test_a_known_tokenizer_decides(
    told: tuple[int, int] | None, units: int, words: str
) -> None:
    """A worker that tells more tokens than the tokenizer counts is credited the count, and a note
    says so; one that tells less is credited what it told. An answer's end is a token as well, and
    a question has room for what a model puts around it."""
    usage = dict(zip(("prompt_tokens", "completion_tokens"), told, strict=True)) if told else None
    checked = await recount("llm", "token", ASKED, chat("Hello there", usage))
    assert (checked.usage.units, checked.usage.checked, checked.blamed) == (units, True, False)
    assert words in checked.usage.note


@pytest.mark.parametrize("usage", [(9, 71), (261, 3)])
async def test_a_grossly_false_number_is_the_workers_fault(usage: tuple[int, int]) -> None:
    """More than twice the count and 64 is no matter of rounding: nothing is credited."""
    told = dict(zip(("prompt_tokens", "completion_tokens"), usage, strict=True))
    checked = await recount("llm", "token", {**ASKED, "max_tokens": None}, chat("Hi there", told))
    assert (checked.usage.units, checked.usage.checked, checked.blamed) == (0, False, True)
    assert "where the model's tokenizer counts 2" in checked.usage.note
    stream_told = stream("Hi ", "there", usage=told)
    checked = await recount("llm", "token", ASKED, stream_told, answer_type=SSE)
    assert checked.blamed


async def test_what_a_tokenizer_cannot_see_is_believed_as_before() -> None:
    """Pictures in a question are no text; another model has another tokenizer."""
    usage = {"prompt_tokens": 900, "completion_tokens": 3}
    shown = [{"type": "image_url", "image_url": {"url": to_data_url("image/png", PICTURE)}}]
    asked = {"messages": [{"role": "user", "content": shown}]}
    checked = await recount("llm", "token", asked, chat("Hello there", usage))
    assert "as told, no more than its bytes" in checked.usage.note
    assert checked.usage.units > 100
    liar = {"prompt_tokens": 9, "completion_tokens": 4000}
    other = await recount("llm", "token", ASKED, chat("Hello there", liar), app=App("llm", "n"))
    assert other.usage.units == 9 + 11 + 16


async def test_choices_and_tools_and_parts_are_counted_apart() -> None:
    """Pieces of several choices that come in turns are joined for each; tools and the parts of a
    message are text as well."""
    piece = {"finish_reason": None, "delta": {"content": "a"}}
    told = [{"choices": [{**piece, "index": index}]} for index in (0, 1, 0, 1)]
    ends = {"choices": [{"index": i, "delta": {}, "finish_reason": "stop"} for i in (0, 1)]}
    events = b"".join(b"data: " + msgspec.json.encode(each) + b"\n\n" for each in (*told, ends))
    asked = {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "one two three"}]}],
        "tools": [{"name": "four"}],
        "n": 2,
    }
    checked = await recount("llm", "token", asked, events, answer_type=SSE)
    assert checked.usage.units == 3 + 1 + 2


async def test_inputs_of_embeddings_are_recounted() -> None:
    """Texts are counted with their marks, numbers are tokens; a gross lie is the worker's fault."""
    asked = {"input": ["one two", [1, 2, 3]]}
    found = ([1.0] * 8, [2.0] * 8)
    assert (await recount("embeddings", "token", asked, vectors(*found))).usage.units == 4 + 3
    told = vectors(*found, tokens=70)
    assert (await recount("embeddings", "token", asked, told)).usage.units == 7
    assert (await recount("embeddings", "token", asked, vectors(*found, tokens=5))).usage.units == 5
    assert (await recount("embeddings", "token", asked, vectors(*found, tokens=79))).blamed
