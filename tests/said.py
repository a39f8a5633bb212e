"""Calls that have ended, with answers of workers: for tests of what the pool makes of them."""

import io
import math
import struct
import wave
from typing import Any

import msgspec

from openpool.core.call_requests import Transcript
from openpool.core.calls import App, Unit
from openpool.demo import scenes
from openpool.pool.answers.nouns import Unmeasured
from openpool.pool.findings import Unreadable, Weight
from openpool.pool.weigh import weigh

PICTURE = scenes.to_file(scenes.draw(64, 48))
JSON = "application/json"
SSE = "text/event-stream"
ASKED = {"messages": [{"role": "user", "content": "Say hello"}], "max_tokens": 50}


async def open_here(data: bytes) -> Weight:
    """Opens a file in this process."""
    try:
        return weigh(data)
    except Unreadable as fault:
        raise Unmeasured(f"it {fault}") from None


def said(
    pipeline: str,
    unit: Unit,
    request: bytes | dict[str, Any],
    answer: bytes | dict[str, Any],
    **rest: Any,
) -> Transcript:
    """A call that went well, unless `rest` says other."""
    fields: dict[str, Any] = {
        "app": App(pipeline, "m"),
        "source": "direct",
        "path": "/",
        "unit": unit,
        "request_type": JSON,
        "request": request if isinstance(request, bytes) else msgspec.json.encode(request),
        "status": 200,
        "answer_type": JSON,
        "answer": answer if isinstance(answer, bytes) else msgspec.json.encode(answer),
        "whole": True,
        "took_ms": 1000,
        **rest,
    }
    return Transcript(**fields)


def chat(text: str, usage: dict[str, int] | None = None, finish: str | None = "stop") -> Any:
    """A chat's answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}}
    return {"choices": [{**choice, "finish_reason": finish}], "usage": usage}


def stream(*texts: str, end: bool = True, usage: dict[str, int] | None = None) -> bytes:
    """A streamed chat."""
    events: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}
        for text in texts
    ]
    if end:
        events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if usage:
        events.append({"choices": [], "usage": usage})
    lines = [b"data: " + msgspec.json.encode(event) + b"\n\n" for event in events]
    return b"".join(lines) + (b"data: [DONE]\n\n" if end else b"")


def vectors(*found: Any, tokens: int = 0) -> dict[str, Any]:
    """An answer with these vectors."""
    data = [{"index": index, "embedding": vector} for index, vector in enumerate(found)]
    return {"data": data, "usage": {"prompt_tokens": tokens}}


def tone(seconds: float, loudness: int = 9000) -> bytes:
    """A WAV file."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        samples = (int(loudness * math.sin(i / 5)) for i in range(round(8000 * seconds)))
        file.writeframes(b"".join(struct.pack("<h", sample) for sample in samples))
    return buffer.getvalue()
