"""Checks of answers made of text: chat, embeddings, moderation.

Shapes are OpenAI's. A worker says how many tokens there were; it is believed as far as the bytes
allow: no token is shorter than a byte.
"""

import base64
import binascii
import math
import struct
from collections.abc import Iterator, Sequence

import msgspec
from msgspec import UNSET, Struct, UnsetType, field

from openpool.core.call_requests import Transcript
from openpool.core.errors import BadMessage, BadResult
from openpool.core.usage import Measured
from openpool.pool.answers.nouns import (
    Finding,
    Opener,
    TokenCounter,
    Unmeasured,
    demand,
    is_share,
    off_loop,
    read_answer,
)
from openpool.wire.forms import data_url

BYTES_PER_TOKEN = 4
"""An estimate, where neither the worker nor a tokenizer says it."""
SPARE_TOKENS = 16
"""For marks that a model puts around a text, for each message."""
EMBEDDING_SIZE_MIN = 8
INPUTS_MAX = 4096

# --- chat ----------------------------------------------------------------------------------------


class _ChatAsked(Struct):
    model: str = ""
    messages: list[msgspec.Raw] = []
    prompt: msgspec.Raw = msgspec.Raw(b"")
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = 1


class _Words(Struct):
    """A message, or the next piece of one."""

    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: msgspec.Raw | UnsetType = UNSET

    @property
    def text(self) -> str:
        calls = (
            "" if self.tool_calls is UNSET else bytes(self.tool_calls).decode("utf-8", "replace")
        )
        return (self.reasoning_content or "") + (self.content or "") + calls.removesuffix("null")


class _Choice(Struct):
    message: _Words | None = None
    delta: _Words | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Tokens(Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Chat(Struct):
    """A whole answer, or one event of a streamed one."""

    choices: list[_Choice]
    usage: _Tokens | None = None


class _Said(Struct):
    """All of an answer, however it came."""

    text: str = ""
    pieces: int = 0
    finished: int = 0
    usage: _Tokens | None = None


async def check_chat(said: Transcript, count_tokens: TokenCounter | None) -> Finding:
    """A chat or a completion, whole or streamed. One that was cut off counts as far as it went."""
    return await off_loop(said, lambda: _check_chat(said, count_tokens))


def _check_chat(said: Transcript, count_tokens: TokenCounter | None) -> Finding:
    asked = _chat_asked(said.request)
    is_stream = said.answer_type.startswith("text/event-stream")
    chats = _events(said) if is_stream else [read_answer(said.answer, _Chat)]
    found = _gather(chats)
    if not said.whole and not found.text:
        raise Unmeasured("the answer was given up before its first word")
    demand(bool(found.text), "the answer holds no text")
    demand(bool(found.finished) or not said.whole, "no choice has a finish_reason")
    prompt, prompt_note = _prompt_tokens(asked, said.request, found.usage)
    made, note = _made_tokens(asked, found, count_tokens)
    limit = asked.max_completion_tokens or asked.max_tokens or 0
    if limit:
        made = min(made, limit * max(1, asked.n or 1))
    seen = Measured(
        max_tokens=max(0, limit), prompt_tokens=prompt, completion_tokens=made,
        session_ms=said.took_ms,
    )  # fmt: skip
    return Finding(seen, f"{prompt} tokens asked ({prompt_note}), {made} answered ({note})")


def _chat_asked(request: bytes) -> _ChatAsked:
    try:
        return msgspec.json.decode(request, type=_ChatAsked)
    except (msgspec.MsgspecError, RecursionError) as fault:
        raise BadMessage(f"it is no chat: {fault}") from None


def _events(said: Transcript) -> Iterator[_Chat]:
    """The events of a stream; the last line may be cut off if the stream was."""
    lines = said.answer.replace(b"\r\n", b"\n").split(b"\n")
    if not said.whole:
        lines = lines[:-1]
    for line in lines:
        payload = line.removeprefix(b"data:").strip()
        if line.startswith(b"data:") and payload != b"[DONE]":
            yield read_answer(payload, _Chat)


def _gather(chats: Iterator[_Chat] | list[_Chat]) -> _Said:
    pieces: list[str] = []
    found = _Said()
    for chat in chats:
        for choice in chat.choices:
            words = choice.message or choice.delta
            if piece := (words.text if words else "") + (choice.text or ""):
                pieces.append(piece)
            found.finished += choice.finish_reason is not None
        found.usage = chat.usage or found.usage
    found.text, found.pieces = "".join(pieces), len(pieces)
    return found


def _prompt_tokens(asked: _ChatAsked, request: bytes, usage: _Tokens | None) -> tuple[int, str]:
    size = sum(map(len, asked.messages)) + len(asked.prompt)
    limit = len(request) + SPARE_TOKENS * (len(asked.messages) + 1)
    if usage and usage.prompt_tokens > 0:
        return min(usage.prompt_tokens, limit), "as told, no more than its bytes"
    return -(-size // BYTES_PER_TOKEN), "estimated from its bytes"


def _made_tokens(
    asked: _ChatAsked, found: _Said, count_tokens: TokenCounter | None
) -> tuple[int, str]:
    counted = count_tokens(asked.model, found.text) if count_tokens else None
    if counted is not None:
        return counted, "counted with the model's tokenizer"
    size = len(found.text.encode("utf-8", "replace"))
    if found.usage and found.usage.completion_tokens > 0:
        told = found.usage.completion_tokens
        return min(told, size + SPARE_TOKENS), "as told, no more than its bytes"
    if found.pieces > 1:
        return min(found.pieces, size), "one for each piece of the stream"
    return -(-size // BYTES_PER_TOKEN), "estimated from its bytes"


# --- embeddings ----------------------------------------------------------------------------------


class _EmbeddingsAsked(Struct):
    input: str | list[str | int | list[int]]
    dimensions: int | None = None


class _Embedding(Struct):
    index: int
    embedding: list[float] | str


class _Embeddings(Struct):
    data: list[_Embedding]
    usage: _Tokens = field(default_factory=_Tokens)


async def check_embeddings(said: Transcript, _: Opener) -> Finding:
    """One vector for each input, all of one length, none of them empty of meaning."""
    return await off_loop(said, lambda: _check_embeddings(said))


def _check_embeddings(said: Transcript) -> Finding:
    try:
        asked = msgspec.json.decode(said.request, type=_EmbeddingsAsked)
    except (msgspec.MsgspecError, RecursionError) as fault:
        raise BadMessage(f"it asks for no embeddings: {fault}") from None
    given = asked.input if isinstance(asked.input, list) else [asked.input]
    count = 1 if given and isinstance(given[0], int) else len(given)
    found = read_answer(said.answer, _Embeddings)
    demand(
        sorted(vector.index for vector in found.data) == list(range(count)),
        f"{len(found.data)} vectors came for {count} inputs",
    )
    vectors = [_vector(vector.embedding) for vector in found.data]
    sizes = {len(vector) for vector in vectors}
    demand(len(sizes) <= 1, "the vectors differ in length")
    wanted = asked.dimensions or max(sizes, default=EMBEDDING_SIZE_MIN)
    demand(sizes <= {wanted} and wanted > 0, f"vectors of {wanted} numbers were asked for")
    for vector in vectors:
        demand(all(map(math.isfinite, vector)) and any(vector), "a vector has no direction")
    tokens, note = _input_tokens(given, found.usage.prompt_tokens)
    return Finding(Measured(prompt_tokens=tokens), f"{tokens} tokens ({note})")


def _vector(embedding: list[float] | str) -> list[float]:
    if isinstance(embedding, list):
        return embedding
    try:
        data = base64.b64decode(embedding, validate=True)
        return list(struct.unpack(f"<{len(data) // 4}f", data))
    except (binascii.Error, struct.error):
        raise BadResult("a vector is not base64 of 32-bit numbers") from None


def _input_tokens(given: Sequence[str | int | list[int]], told: int) -> tuple[int, str]:
    """Tokens of the inputs: numbers are tokens as they are, texts are believed to be."""
    texts = [part for part in given if isinstance(part, str)]
    exact = sum(
        1 if isinstance(part, int) else len(part) for part in given if not isinstance(part, str)
    )
    if not texts:
        return exact, "as sent"
    size = sum(len(text.encode("utf-8", "replace")) for text in texts)
    if told > 0:
        return min(
            told, exact + size + SPARE_TOKENS * len(texts)
        ), "as told, no more than its bytes"
    return exact - (-size // BYTES_PER_TOKEN), "estimated from its bytes"


# --- moderation ----------------------------------------------------------------------------------


class _ImageUrl(Struct):
    url: str


class _Part(Struct):
    text: str = ""
    image_url: _ImageUrl | None = None


class _ModerationAsked(Struct):
    input: str | list[str | _Part]


class _Judgement(Struct):
    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]


class _Moderation(Struct):
    results: list[_Judgement]


async def check_moderation(said: Transcript, opened: Opener) -> Finding:
    """One judgement for each input, each with categories and a score from 0 to 1 for each."""
    try:
        asked = msgspec.json.decode(said.request, type=_ModerationAsked)
    except (msgspec.MsgspecError, RecursionError) as fault:
        raise BadMessage(f"it asks for no moderation: {fault}") from None
    given = asked.input if isinstance(asked.input, list) else [asked.input]
    texts = [part if isinstance(part, str) else part.text for part in given]
    addresses = [part.image_url.url for part in given if isinstance(part, _Part) and part.image_url]
    together = any(isinstance(part, _Part) for part in given)
    found = read_answer(said.answer, _Moderation).results
    count = 1 if together else len(given)
    demand(len(found) == count, f"{len(found)} judgements came for {count} inputs")
    for judgement in found:
        _check_judgement(judgement)
    pixels = 0
    for address in addresses[:INPUTS_MAX]:
        picture = await opened(data_url(address).data)
        pixels += picture.width * picture.height
    characters = sum(map(len, texts))
    seen = Measured(characters=characters, input_pixels=pixels)
    return Finding(seen, f"{characters} characters, {pixels} pixels")


def _check_judgement(judgement: _Judgement) -> None:
    flags, scores = judgement.categories, judgement.category_scores
    demand(bool(flags) and set(flags) == set(scores), "each category needs a flag and a score")
    demand(all(map(is_share, scores.values())), "a score is not from 0 to 1")
    demand(judgement.flagged == any(flags.values()), "flagged says other than the categories")
