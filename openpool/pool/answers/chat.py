"""The check of a chat or a completion, whole or streamed. Shapes are OpenAI's.

Tokens are recounted where the model's tokenizer is known (`pool.answers.tokens`).
"""

from collections.abc import Iterable, Iterator

import msgspec
from msgspec import UNSET, Struct, UnsetType

from openpool.core.call_requests import Transcript
from openpool.core.decoding import UNREADABLE
from openpool.core.errors import BadMessage
from openpool.core.texts import plural
from openpool.core.usage import Measured
from openpool.pool.answers.nouns import (
    Finding,
    TokenCounter,
    Unmeasured,
    demand,
    off_loop,
    read_answer,
)
from openpool.pool.answers.tokens import SPARE_TOKENS, Told, believed, estimated, recounted

PROMPT_ROOM = 64
"""Tokens that a model may put before the messages, such as the day and its name."""

_Raw = msgspec.Raw


class _ChatAsked(Struct):
    messages: list[_Raw] = []
    prompt: _Raw = _Raw(b"")
    tools: _Raw = _Raw(b"")
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = 1


class _Words(Struct):
    """A message, or the next piece of one."""

    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: _Raw | UnsetType = UNSET

    @property
    def text(self) -> str:
        calls = (
            "" if self.tool_calls is UNSET else bytes(self.tool_calls).decode("utf-8", "replace")
        )
        return (self.reasoning_content or "") + (self.content or "") + calls.removesuffix("null")


class _Choice(Struct):
    index: int = 0
    message: _Words | None = None
    delta: _Words | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Tokens(Struct, frozen=True):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Chat(Struct):
    """A whole answer, or one event of a streamed one."""

    choices: list[_Choice]
    usage: _Tokens | None = None


class _Said(Struct):
    """All of an answer, however it came."""

    texts: list[str] = []
    """One for each choice that was told."""
    pieces: int = 0
    finished: int = 0
    usage: _Tokens = _Tokens()

    @property
    def size(self) -> int:
        return sum(len(text.encode("utf-8", "replace")) for text in self.texts)


async def check_chat(said: Transcript, count_tokens: TokenCounter) -> Finding:
    """A chat or a completion. One that was cut off counts as far as it went."""
    asked = _chat_asked(said.request)
    found = await off_loop(said, lambda: _read(said))
    if not said.whole and not found.texts:
        raise Unmeasured("the answer was given up before its first word")
    demand(bool(found.texts), "the answer holds no text")
    demand(bool(found.finished) or not said.whole, "no choice has a finish_reason")
    model = said.app.model
    prompt, prompt_note = await _prompt_tokens(model, asked, said.request, found, count_tokens)
    made, note = await _made_tokens(model, found, count_tokens)
    limit = max(0, asked.max_completion_tokens or asked.max_tokens or 0)
    if limit:
        made = min(made, limit * max(1, asked.n or 1))
    seen = Measured(
        max_tokens=limit, prompt_tokens=prompt, completion_tokens=made, session_ms=said.took_ms
    )
    asked_for = f"{plural(prompt, 'token')} asked ({prompt_note})"
    return Finding(seen, f"{asked_for}, {made} answered ({note})")


def _chat_asked(request: bytes) -> _ChatAsked:
    try:
        return msgspec.json.decode(request, type=_ChatAsked)
    except UNREADABLE as fault:
        raise BadMessage(f"it is no chat: {fault}") from None


# --- the answer ----------------------------------------------------------------------------------


def _read(said: Transcript) -> _Said:
    """All that was told. Raises BadResult."""
    is_stream = said.answer_type.startswith("text/event-stream")
    return _gather(_events(said) if is_stream else [read_answer(said.answer, _Chat)])


def _events(said: Transcript) -> Iterator[_Chat]:
    """The events of a stream; the last line may be cut off if the stream was."""
    lines = said.answer.replace(b"\r\n", b"\n").split(b"\n")
    if not said.whole:
        lines = lines[:-1]
    for line in lines:
        payload = line.removeprefix(b"data:").strip()
        if line.startswith(b"data:") and payload != b"[DONE]":
            yield read_answer(payload, _Chat)


def _gather(chats: Iterable[_Chat]) -> _Said:
    told: dict[int, list[str]] = {}
    found = _Said()
    for chat in chats:
        for choice in chat.choices:
            words = choice.message or choice.delta
            if piece := (words.text if words else "") + (choice.text or ""):
                told.setdefault(choice.index, []).append(piece)
                found.pieces += 1
            found.finished += choice.finish_reason is not None
        found.usage = chat.usage or found.usage
    found.texts = ["".join(pieces) for pieces in told.values()]
    return found


async def _made_tokens(model: str, found: _Said, count_tokens: TokenCounter) -> Told:
    told, size = found.usage.completion_tokens, found.size
    counted = await count_tokens(model, found.texts)
    if counted is not None:
        return recounted(told, sum(counted), found.finished)  # each ends with a mark
    if told > 0:
        return believed(told, size + SPARE_TOKENS)
    if found.pieces > len(found.texts):
        return Told(min(found.pieces, size), "one for each piece of the stream")
    return estimated(size)


# --- the question --------------------------------------------------------------------------------


async def _prompt_tokens(
    model: str, asked: _ChatAsked, request: bytes, found: _Said, count_tokens: TokenCounter
) -> Told:
    told, texts = found.usage.prompt_tokens, _texts(asked)
    room = SPARE_TOKENS * (len(asked.messages) + 1)
    counted = await count_tokens(model, texts) if texts is not None else None
    if counted is not None:
        return recounted(told, sum(counted), room + PROMPT_ROOM)
    if told > 0:
        return believed(told, len(request) + room)
    return estimated(sum(map(len, asked.messages)) + len(asked.prompt))


class _Part(Struct):
    type: str = "text"
    text: str = ""


class _Message(Struct):
    content: str | list[_Part] | None = None
    tool_calls: _Raw = _Raw(b"")


def _texts(asked: _ChatAsked) -> list[str] | None:
    """All text that is asked with; None if there is more than text, such as pictures."""
    texts = [bytes(asked.tools).decode("utf-8", "replace")]
    try:
        if asked.prompt:
            texts.append(msgspec.json.decode(asked.prompt, type=str))
        for raw in asked.messages:
            message = msgspec.json.decode(raw, type=_Message)
            content = message.content or ""
            parts = [_Part(text=content)] if isinstance(content, str) else content
            if any(part.type != "text" for part in parts):
                return None
            texts += [part.text for part in parts]
            texts.append(bytes(message.tool_calls).decode("utf-8", "replace"))
    except UNREADABLE:
        return None
    return [text for text in texts if text]
