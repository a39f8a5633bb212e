"""Right answers and requests with one part of them replaced by something hostile: nothing but a
judgement comes of any of them, for whatever else is raised would stop the pool."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from said import ASKED, PICTURE, SSE, chat, open_here, said, stream, tone, vectors

from openpool.core.calls import Unit
from openpool.demo import scenes
from openpool.pool.answers import Answers
from openpool.pool.answers.sessions import LiveCheck
from openpool.wire.forms import to_data_url

UNITS_MAX = 10_000_000
"""More than any of these calls can come to."""
MARK = '"\N{BLACK HEART SUIT}"'
HOSTILE = (
    b"null", b"true", b"0", b"-1", b"1.5", b"-1e999", b"1e999", b"1" * 400, b"1" * 5000, b"NaN",
    b'""', b'"\xff"', '"é"'.encode(), b'"\\u0000"', b'"\\ud800"', b'"' + b"9" * 5000 + b'"',
    b'"data:;base64,"', b'"data:image/png;base64,\xc3\xa9"', b'"http://127.0.0.1/"',
    b"[]", b"{}", b"[[]]", b"[null]", b'[{"type":"text"}]', b"[" * 5000, b'{"a":' * 5000,
)  # fmt: skip


IMAGE = to_data_url("image/png", PICTURE)
SOUND = to_data_url("audio/wav", tone(2))
SIZE = {"width": 64, "height": 48}
TEXT_LINE = {"text": "a", "score": 0.9, "box": [[0, 0], [9, 0], [9, 9], [0, 9]]}
MASK = {
    "x": 0, "y": 0, "w": 1, "h": 48, "area": 48, "rle": {"size": [48, 64], "counts": [0, 48, 3024]},
    "png": to_data_url("image/png", scenes.to_file(scenes.draw(64, 48).convert("L"))),
}  # fmt: skip
TOOL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
WITH_TOOLS = {
    "choices": [
        {
            "index": 0,
            "message": {"content": None, "tool_calls": [TOOL]},
            "finish_reason": "tool_calls",
        }
    ],
    "usage": {"prompt_tokens": 9, "completion_tokens": 3},
}
MADE = {"b64_json": base64.b64encode(PICTURE).decode()}
JUDGED = {"flagged": False, "categories": {"hate": False}, "category_scores": {"hate": 0.1}}
RIGHT: dict[str, tuple[str, Unit, dict[str, Any], dict[str, Any]]] = {
    "chat": ("llm", "token", ASKED, chat("Hello", {"prompt_tokens": 9, "completion_tokens": 3})),
    "tools": ("llm", "token", {**ASKED, "tools": [TOOL]}, WITH_TOOLS),
    "embeddings": ("embeddings", "token", {"input": ["a"], "dimensions": 2}, vectors([1.0, 2.0])),
    "packed": ("embeddings", "token", {"input": "a"}, vectors("AACAPwAAAEA=", tokens=1)),
    "moderation": ("moderation", "character", {"input": ["nice"]}, {"results": [JUDGED]}),
    "transcription": ("speech-to-text", "ms", {"file": SOUND}, {"text": "hello"}),
    "speech": ("text-to-speech", "character", {"input": "Hello you"}, {"audio": {"url": SOUND}}),
    "boxes": (
        "object-detection", "pixel", {"image": IMAGE},
        {**SIZE, "boxes": [{"label": "cat", "score": 0.5, "x": 1, "y": 2, "w": 10, "h": 20}]},
    ),
    "reading": (
        "image-to-text", "pixel", {"image": IMAGE}, {**SIZE, "text": "a", "lines": [TEXT_LINE]},
    ),
    "masks": ("segmentation", "pixel", {"image": IMAGE}, {**SIZE, "masks": [MASK]}),
    "pictures": (
        "text-to-image", "pixel", {"prompt": "a ball", "size": "64x48", "n": 1}, {"data": [MADE]},
    ),
}  # fmt: skip


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to every part of a document, itself first."""
    yield way
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*way, key))


def with_part(document: Any, way: tuple[Any, ...], raw: bytes) -> bytes:
    """The document in JSON, with other bytes in one place."""

    def marked(value: Any, left: tuple[Any, ...]) -> Any:
        if not left:
            return json.loads(MARK)
        inner = dict(value) if isinstance(value, dict) else dict(enumerate(value))
        inner[left[0]] = marked(inner[left[0]], left[1:])
        return inner if isinstance(value, dict) else list(inner.values())

    whole = json.dumps(marked(document, way), ensure_ascii=False)
    return whole.encode().replace(MARK.encode(), raw)


async def judge(pipeline: str, unit: Unit, asked: Any, answer: Any, **rest: Any) -> bool:
    """Whether it is credited, for no more than it can be."""
    checked = await Answers(open_here).check(said(pipeline, unit, asked, answer, **rest))
    assert 0 <= checked.usage.units <= UNITS_MAX
    assert checked.usage.checked or not checked.usage.units
    return checked.usage.checked


@pytest.mark.parametrize("name", RIGHT)
async def test_a_hostile_answer_comes_to_a_judgement(name: str) -> None:
    """Every part of every worker's answer in turn."""
    pipeline, unit, asked, answer = RIGHT[name]
    assert await judge(pipeline, unit, asked, answer)
    for way in places(answer):
        for raw in HOSTILE:
            await judge(pipeline, unit, asked, with_part(answer, way, raw))


@pytest.mark.parametrize("name", RIGHT)
async def test_a_hostile_request_comes_to_a_judgement(name: str) -> None:
    """Every part of every customer's request in turn."""
    pipeline, unit, asked, answer = RIGHT[name]
    for way in places(asked):
        for raw in HOSTILE:
            await judge(pipeline, unit, with_part(asked, way, raw), answer)


async def test_hostile_lines_come_to_a_judgement() -> None:
    """Every part of a line of a session in turn: it is passed on, or a fault."""
    box = {"label": "cat", "score": 0.5, "x": 1, "y": 2, "w": 10, "h": 20}
    line = {"t_ms": 40, "frame": 1, **SIZE, "boxes": [box], "jpeg": MADE["b64_json"]}
    for way in places(line):
        for raw in HOSTILE:
            check = LiveCheck(open_here)
            passed = await check.feed(with_part(line, way, raw) + b"\n")
            assert bool(passed) != bool(check.fault), (way, raw)


async def test_hostile_events_come_to_a_judgement() -> None:
    """Every part of an event of a stream in turn, of chats and of transcriptions."""
    event = chat("Hello", {"prompt_tokens": 9, "completion_tokens": 3})
    told = {"type": "transcript.text.delta", "delta": "hel"}
    for document, pipeline, unit, asked in (
        (event, "llm", "token", ASKED),
        (told, "speech-to-text", "ms", {"file": SOUND}),
    ):
        for way in places(document):
            for raw in HOSTILE:
                bad = b"data: " + with_part(document, way, raw) + b"\n\n"
                await judge(pipeline, unit, asked, bad + stream("lo"), answer_type=SSE)  # type: ignore[arg-type]
