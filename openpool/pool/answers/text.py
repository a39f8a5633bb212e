"""Checks of answers made of text: embeddings and moderation.

Shapes are OpenAI's. Chat is in `pool.answers.chat`, what is believed of tokens in
`pool.answers.tokens`.
"""

import base64
import math
import struct
from collections.abc import Sequence

import msgspec
from msgspec import Struct, field

from openpool.core.call_requests import Transcript
from openpool.core.decoding import UNREADABLE
from openpool.core.errors import BadMessage, BadResult
from openpool.core.texts import plural
from openpool.core.usage import Measured
from openpool.pool.answers.nouns import (
    Finding,
    Opener,
    TokenCounter,
    demand,
    is_share,
    off_loop,
    read_answer,
)
from openpool.pool.answers.tokens import SPARE_TOKENS, Told, believed, estimated, recounted
from openpool.wire.forms import data_url

EMBEDDING_SIZE_MIN = 8
INPUTS_MAX = 4096

# --- embeddings ----------------------------------------------------------------------------------


class _Tokens(Struct, frozen=True):
    prompt_tokens: int = 0


_Input = str | int | list[int]


class _EmbeddingsAsked(Struct):
    input: str | list[_Input]
    dimensions: int | None = None


class _Embedding(Struct):
    index: int
    embedding: list[float] | str


class _Embeddings(Struct):
    data: list[_Embedding]
    usage: _Tokens = field(default_factory=_Tokens)


async def check_embeddings(said: Transcript, count_tokens: TokenCounter) -> Finding:
    """One vector for each input, all of one length, none of them empty of meaning."""
    asked = _embeddings_asked(said.request)
    given = asked.input if isinstance(asked.input, list) else [asked.input]
    found = await off_loop(said, lambda: _read_embeddings(said, asked, given))
    tokens, note = await _input_tokens(said.app.model, given, found.usage, count_tokens)
    return Finding(Measured(prompt_tokens=tokens), f"{plural(tokens, 'token')} ({note})")


def _embeddings_asked(request: bytes) -> _EmbeddingsAsked:
    try:
        return msgspec.json.decode(request, type=_EmbeddingsAsked)
    except UNREADABLE as fault:
        raise BadMessage(f"it asks for no embeddings: {fault}") from None


def _read_embeddings(
    said: Transcript, asked: _EmbeddingsAsked, given: Sequence[_Input]
) -> _Embeddings:
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
    return found


def _vector(embedding: list[float] | str) -> list[float]:
    if isinstance(embedding, list):
        return embedding
    try:
        data = base64.b64decode(embedding, validate=True)
        return list(struct.unpack(f"<{len(data) // 4}f", data))
    except (ValueError, struct.error):
        raise BadResult("a vector is not base64 of 32-bit numbers") from None


async def _input_tokens(
    model: str, given: Sequence[_Input], usage: _Tokens, count_tokens: TokenCounter
) -> Told:
    """Tokens of the inputs: numbers are tokens as they are, texts are counted or believed to be."""
    texts = [part for part in given if isinstance(part, str)]
    exact = sum(
        1 if isinstance(part, int) else len(part) for part in given if not isinstance(part, str)
    )
    if not texts:
        return Told(exact, "as sent")
    counted = await count_tokens(model, texts, marks=True)
    told = usage.prompt_tokens
    if counted is not None:
        return recounted(told, exact + sum(counted), 0)
    size = sum(len(text.encode("utf-8", "replace")) for text in texts)
    if told > 0:
        return believed(told, exact + size + SPARE_TOKENS * len(texts))
    return estimated(size, exact)


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
    except UNREADABLE as fault:
        raise BadMessage(f"it asks for no moderation: {fault}") from None
    given = asked.input if isinstance(asked.input, list) else [asked.input]
    texts = [part if isinstance(part, str) else part.text for part in given]
    addresses = [part.image_url.url for part in given if isinstance(part, _Part) and part.image_url]
    together = any(isinstance(part, _Part) for part in given)
    found = read_answer(said.answer, _Moderation).results
    count = 1 if together else len(given)
    demand(len(found) == count, f"{plural(len(found), 'judgement')} came instead of {count}")
    for judgement in found:
        _check_judgement(judgement)
    pixels = 0
    for address in addresses[:INPUTS_MAX]:
        picture = await opened(data_url(address).data)
        pixels += picture.width * picture.height
    characters = sum(map(len, texts))
    seen = Measured(characters=characters, input_pixels=pixels)
    return Finding(seen, f"{plural(characters, 'character')}, {plural(pixels, 'pixel')}")


def _check_judgement(judgement: _Judgement) -> None:
    flags, scores = judgement.categories, judgement.category_scores
    demand(bool(flags) and set(flags) == set(scores), "each category needs a flag and a score")
    demand(all(map(is_share, scores.values())), "a score is not from 0 to 1")
    demand(judgement.flagged == any(flags.values()), "flagged says other than the categories")
