"""Tokens are recounted with the model's own tokenizer: a real one, a whole pool, a real client."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from callers import CHAT, EVENTS, JSON, calling_pool, chat, customer, event, line_worker, offer
from test_direct_api import ask, eventually
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from openpool.core.calls import App
from openpool.core.errors import SetupError
from openpool.core.events import CallAttemptFailed, CallCompleted, FeeCredited
from openpool.link.line import Handler, LineAnswer, LineRequest
from openpool.pool.checkers import CHILD, Checkers
from openpool.pool.tokenizers import TEXT_BYTES_MAX, Tokenizers

TEXT = "Every worker that dials in is paid for what the pool has counted, and for nothing else."
ASKED = "Say hello."


def make_tokenizer(file: Path) -> Tokenizer:
    """A small tokenizer of the kind that most language models have, trained here."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|begin|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([TEXT * 3, ASKED * 3, "the model answers what it was asked"], trainer)
    made.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", 0)]
    )
    made.enable_truncation(8)
    made.save(str(file))
    return made


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return make_tokenizer(tmp_path / "tokenizer.json")


def count(tokenizer: Tokenizer, text: str, *, marks: bool = False) -> int:
    tokenizer.no_truncation()
    return len(tokenizer.encode(text, add_special_tokens=marks).ids)


SETTING = "  tokenizers: [{model: tiny/chat, file: tokenizer.json}]\n"


def told(text: str, tokens: tuple[int, int]) -> Handler:
    async def answer(_: LineRequest) -> LineAnswer:
        return chat(text, tokens)

    return answer


def streamed(text: str, tokens: tuple[int, int] | None) -> Handler:
    """A worker that sends letter by letter, and then says how many tokens that was."""

    async def answer(_: LineRequest) -> LineAnswer:
        async def pieces() -> AsyncIterator[bytes]:
            for letter in text:
                yield event(letter)
            yield event("", "stop")
            if tokens:
                usage = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}
                yield b"data: " + msgspec.json.encode({"choices": [], "usage": usage}) + b"\n\n"
            yield b"data: [DONE]\n\n"

        return LineAnswer(200, EVENTS, pieces())

    return answer


async def test_an_honest_worker_is_credited_what_it_told(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    """Numbers that the tokenizer confirms are credited as they are, the end of the answer too."""
    made = count(tokenizer, TEXT) + 1
    async with (
        calling_pool(tmp_path, SETTING) as running,
        line_worker(running, told(TEXT, (9, made))),
        customer(running) as (client, _),
    ):
        assert (await ask(client)).choices[0].message.content == TEXT
        (fee,) = await eventually(running, FeeCredited)
        assert isinstance(fee, FeeCredited)
        assert fee.pixels == 9 + made
        (done,) = await eventually(running, CallCompleted)
        assert isinstance(done, CallCompleted)
        assert "confirms" in done.note


@pytest.mark.parametrize("stream", [False, True])
async def test_a_worker_that_tells_more_is_credited_the_recount(
    tmp_path: Path, tokenizer: Tokenizer, stream: bool
) -> None:
    """A few tokens too many, whole or streamed: the count of the tokenizer is paid, and the note
    says what was told."""
    made = count(tokenizer, TEXT)
    tokens = (9, made + 30)
    handler = streamed(TEXT, tokens) if stream else told(TEXT, tokens)
    async with (
        calling_pool(tmp_path, SETTING) as running,
        line_worker(running, handler),
        customer(running) as (client, _),
    ):
        answer = await ask(client, stream=stream)
        if stream:
            assert "".join([e.choices[0].delta.content async for e in answer if e.choices]) == TEXT
        (done,) = await eventually(running, CallCompleted)
        assert isinstance(done, CallCompleted)
        assert (done.checked, done.blamed, done.units) == (True, False, 9 + made + 1)
        assert f"{made + 30} were told" in done.note


async def test_a_stream_without_numbers_is_counted(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Letter by letter is not token by token: what is paid are the tokens of the whole text."""
    async with (
        calling_pool(tmp_path, SETTING) as running,
        line_worker(running, streamed(TEXT, None)),
        customer(running) as (client, _),
    ):
        async for _ in await ask(client, stream=True):
            pass
        (done,) = await eventually(running, CallCompleted)
        assert isinstance(done, CallCompleted)
        assert done.units == count(tokenizer, ASKED) + count(tokenizer, TEXT)


async def test_a_gross_lie_is_redone_elsewhere_and_blamed(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    """A worker that tells thousands of tokens for a sentence is not paid; another one answers."""
    made = count(tokenizer, TEXT)
    async with calling_pool(tmp_path, SETTING) as running, customer(running) as (client, _):
        liar, honest = told(TEXT, (9, 5000)), told(TEXT, (9, made))
        async with line_worker(running, liar, name="liar"):
            first = asyncio.ensure_future(ask(client))  # type: ignore[arg-type]
            (failed,) = await eventually(running, CallAttemptFailed)
            assert isinstance(failed, CallAttemptFailed)
            assert failed.blamed
            assert f"the model's tokenizer counts {made}" in failed.reason
            await asyncio.wait({first})
            async with line_worker(running, honest, name="honest"):
                assert await ask(client)
        (fee,) = await eventually(running, FeeCredited)
        assert isinstance(fee, FeeCredited)
        assert fee.pixels == 9 + made


async def test_embeddings_are_counted_with_their_marks(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    """What a model is asked to embed counts as the tokenizer has it, whatever it truncates to."""

    async def answer(_: LineRequest) -> LineAnswer:
        body = {"data": [{"index": 0, "embedding": [0.5] * 8}], "usage": {"prompt_tokens": 100}}
        return LineAnswer(200, JSON, msgspec.json.encode(body))

    setting = "  tokenizers: [{file: tokenizer.json}]\n"
    app = App("embeddings", "minilm")
    async with (
        calling_pool(tmp_path, setting) as running,
        line_worker(running, answer, offer(app)),
        customer(running) as (client, _),
    ):
        await client.embeddings.create(model="minilm", input=TEXT, encoding_format="float")
        (done,) = await eventually(running, CallCompleted)
        assert isinstance(done, CallCompleted)
        assert done.units == count(tokenizer, TEXT, marks=True) > 8


# --- what can be wrong at the start --------------------------------------------------------------


@pytest.fixture
async def checkers() -> AsyncIterator[Checkers]:
    made = Checkers(1)
    await made.start()
    yield made
    await made.close()


@pytest.mark.parametrize("content", [None, "", "{}", '{"model": {"type": "Unknown"}}'])
async def test_a_file_that_is_no_tokenizer_is_one_sentence(
    tmp_path: Path, checkers: Checkers, content: str | None
) -> None:
    """A missing or odd file stops the pool before it begins, with the file's name."""
    file = tmp_path / "t.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SetupError, match=r"ai.tokenizers: .*t.json, the tokenizer of m, cannot"):
        await Tokenizers(checkers, {"m": file}, 5).start()


async def test_a_missing_library_says_what_to_install(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """A pool without the library says how to get it, only if a tokenizer is named."""
    without = (
        "import sys; sys.modules['tokenizers'] = None; from openpool.pool.checking import main"
    )
    checkers = Checkers(1, [CHILD[0], "-c", f"{without}; main()"])
    await checkers.start()
    try:
        await Tokenizers(checkers, {}, 5).start()
        with pytest.raises(SetupError, match=r"pip install 'openpool\[ai\]'"):
            await Tokenizers(checkers, {"m": tmp_path / "tokenizer.json"}, 5).start()
    finally:
        await checkers.close()


async def test_what_cannot_be_counted_is_not(
    tmp_path: Path, tokenizer: Tokenizer, checkers: Checkers
) -> None:
    """Another model, and a text that is too long, are not counted; the longest takes seconds in a
    child, and odd text none at all."""
    count_tokens = Tokenizers(checkers, {CHAT.model: tmp_path / "tokenizer.json"}, 30)
    assert await count_tokens("other", [TEXT]) is None
    assert await count_tokens(CHAT.model, ["x" * TEXT_BYTES_MAX]) is None
    odd = ["", "\0\ud7ff\U0010ffff", "a" * (TEXT_BYTES_MAX - 100)]
    found = await count_tokens(CHAT.model, odd)
    assert found is not None
    assert found[0] == 0
    assert found[2] > 10_000
    assert checkers.lost == 0
