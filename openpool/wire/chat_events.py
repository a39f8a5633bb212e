"""A streamed chat made fit for an orchestrator: no event without a choice, and one that finishes.

OpenAI-compatible servers end with an event that holds only the usage; an orchestrator, and the
gateways behind it, crash on that. They also read no line of 64 KiB, and stop at the first
`finish_reason`. So events are written anew here, and the last one waits for the usage.
"""

import msgspec
from msgspec import Struct, structs

from openpool.core.decoding import UNREADABLE
from openpool.core.errors import BadResult

LINE_BYTES_MAX = 1 << 20
"""Of what a worker sends."""
PIECE_CHARS = 8_000
"""Of a text in one event; even with every character escaped the line stays below 64 KiB."""
FINISH_CHARS_MAX = 40


class _Words(Struct):
    content: str | None = None
    role: str | None = None


class _Choice(Struct):
    delta: _Words | None = None
    message: _Words | None = None
    finish_reason: str | None = None


class Usage(Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class _Event(Struct):
    choices: list[_Choice] = []
    id: str = ""
    created: int = 0
    usage: Usage | None = None
    error: object = None


class _Delta(Struct):
    role: str
    content: str


class _OutChoice(Struct):
    index: int
    finish_reason: str
    delta: _Delta


class _Out(Struct):
    id: str
    model: str
    created: int
    usage: Usage
    choices: list[_OutChoice]


class ChatEvents:
    """Takes a worker's stream piece by piece and gives the events to send on."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._rest = b""
        self._id, self._created = "", 0
        self._usage = Usage()
        self._finish = ""
        self._words = False

    def feed(self, data: bytes) -> bytes:
        """The events that these bytes complete. BadResult if they are no chat."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_BYTES_MAX or any(len(line) > LINE_BYTES_MAX for line in lines):
            raise BadResult("a line of the worker's stream is too long")
        return b"".join(self._line(line.strip()) for line in lines)

    def end(self) -> bytes:
        """What is left, and the event that finishes. BadResult if nothing was said."""
        left = self._line(self._rest.strip())
        self._rest = b""
        if not (self._words or self._finish):
            raise BadResult("the worker's stream holds no text")
        return left + self._written("", self._finish or "stop", self._usage)

    def _line(self, line: bytes) -> bytes:
        payload = line.removeprefix(b"data:").strip()
        if not line.startswith(b"data:") or payload == b"[DONE]":
            return b""
        try:
            event = msgspec.json.decode(payload, type=_Event)
        except UNREADABLE:
            raise BadResult("an event of the worker's stream cannot be read") from None
        if event.error is not None:
            raise BadResult("the worker's stream ends with an error")
        return self._take(event)

    def _take(self, event: _Event) -> bytes:
        self._id, self._created = self._id or event.id[:100], self._created or event.created
        self._usage = event.usage or self._usage
        if not event.choices:
            return b""
        choice = event.choices[0]
        words = choice.delta or choice.message
        text = (words.content if words else None) or ""
        if choice.finish_reason:
            self._finish = choice.finish_reason[:FINISH_CHARS_MAX]
        if not text:
            return b""
        self._words = True
        pieces = (text[at : at + PIECE_CHARS] for at in range(0, len(text), PIECE_CHARS))
        return b"".join(self._written(piece, "", Usage()) for piece in pieces)

    def _written(self, text: str, finish: str, usage: Usage) -> bytes:
        choice = _OutChoice(0, finish, _Delta("assistant", text))
        event = _Out(self._id, self._model, self._created, structs.replace(usage), [choice])
        return b"data: %s\n\n" % msgspec.json.encode(event)
