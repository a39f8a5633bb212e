"""What our own runtimes answer stands the pool's checks, and is counted as it should be.

The two sides never import each other: here they meet.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from openpool.core.call_requests import Transcript
from openpool.core.calls import App, Unit
from openpool.demo import scenes
from openpool.demo.tiny_detector import write_detector
from openpool.demo.tiny_llm import make_tiny_llm, make_tiny_tokenizer
from openpool.pool.answers import Answers
from openpool.pool.answers.nouns import Unmeasured
from openpool.pool.findings import Unreadable, Weight
from openpool.pool.tokens import count_tokens
from openpool.pool.weigh import weigh
from openpool.wire.forms import to_data_url
from openpool.worker.runtimes.base import Runtime, RuntimeRequest
from openpool.worker.runtimes.catalogue import default_model, runtime_class

PICTURE = scenes.to_file(scenes.draw(320, 180), "JPEG")
SENTENCE = "Hello from a worker somewhere"


async def open_here(data: bytes) -> Weight:
    """Opens a file in this process."""
    try:
        return weigh(data)
    except Unreadable as fault:
        raise Unmeasured(f"it {fault}") from None


def loaded(name: str, **options: str) -> Runtime:
    """A runtime of the catalogue."""
    runtime = runtime_class(name)(default_model(name) or name, options, Path())
    runtime.load()
    return runtime


async def units(runtime: Runtime, unit: Unit, kind: str, body: bytes) -> int:
    """Have the runtime answer and the pool check it; what it comes to."""
    checked = await Answers(open_here).check(transcript(runtime, unit, kind, body))
    assert checked.usage.checked, checked.usage.note
    return checked.usage.units


def transcript(runtime: Runtime, unit: Unit, kind: str, body: bytes) -> Transcript:
    """Have the runtime answer; what was asked and said."""
    answer = runtime.answer(RuntimeRequest(path=runtime.paths[0], content_type=kind, body=body))
    told = answer.body if isinstance(answer.body, bytes) else b"".join(answer.body)
    return Transcript(
        app=App(runtime.pipeline, runtime.model), source="direct", path=runtime.paths[0],
        unit=unit, request_type=kind, request=body, status=answer.status,
        answer_type=answer.content_type, answer=told, whole=True, took_ms=100,
    )  # fmt: skip


def in_json(**values: Any) -> bytes:
    """A request in JSON."""
    return msgspec.json.encode(values)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("ocr", {}),
        ("segmentation", {"box": [1, 5, 110, 90]}),
        ("object-detection", {}),
    ],
)
async def test_pictures(name: str, values: dict[str, Any], tmp_path: Path) -> None:
    """Text, masks and boxes of a drawn picture are found right, and its pixels are counted."""
    detector = write_detector(tmp_path)
    options = {"file": str(detector.file), "labels": str(detector.labels)}
    runtime = loaded(name, **options) if name == "object-detection" else loaded(name)
    body = in_json(image=to_data_url("image/jpeg", PICTURE), **values)
    assert await units(runtime, "pixel", "application/json", body) == 320 * 180
    if not values:
        assert await units(runtime, "pixel", "image/jpeg", PICTURE) == 320 * 180


async def test_moderation() -> None:
    """Characters of texts and pixels of pictures are counted."""
    runtime = loaded("moderation")
    texts = in_json(input=["hello", "you idiot"])
    assert await units(runtime, "character", "application/json", texts) == 14
    url = to_data_url("image/jpeg", PICTURE)
    parts = in_json(input=[{"type": "image_url", "image_url": {"url": url}}])
    assert await units(runtime, "pixel", "application/json", parts) == 320 * 180


@pytest.fixture(scope="module")
def speaker() -> Runtime:
    """Text to speech."""
    return loaded("text-to-speech")


@pytest.mark.parametrize("form", ["mp3", "opus", "aac", "flac", "wav", "pcm"])
async def test_speech(speaker: Runtime, form: str) -> None:
    """Speech in every form is found to be as long as its text."""
    body = in_json(input=SENTENCE, voice="slt", response_format=form)
    assert await units(speaker, "character", "application/json", body) == len(SENTENCE)


@pytest.mark.parametrize("text", ["a", "Stop!", "1234567890", "wonderful " * 60])
@pytest.mark.parametrize("speed", [0.25, 4])
async def test_odd_speech(speaker: Runtime, text: str, speed: float) -> None:
    """The shortest, the longest, the slowest and the fastest are no reason to blame a worker."""
    body = in_json(input=text, voice="slt", response_format="wav", speed=speed)
    assert await units(speaker, "character", "application/json", body) == len(text)


async def test_transcription(speaker: Runtime) -> None:
    """Speech that was heard is counted by its length."""
    body = in_json(input=SENTENCE, voice="slt", response_format="wav")
    answer = speaker.answer(RuntimeRequest(path="/", content_type="application/json", body=body))
    assert isinstance(answer.body, bytes)
    length_ms = weigh(answer.body).audio_ms
    listener = loaded("speech-to-text")
    assert await units(listener, "ms", "audio/wav", answer.body) == length_ms > 1000


@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_tells_the_tokens_that_its_tokenizer_counts(
    tmp_path: Path, stream: bool
) -> None:
    """What llama.cpp tells of a chat, whole or streamed, is what the pool counts again with the
    tokenizer of the same model."""
    make_tiny_llm(tmp_path / "tiny.gguf")
    make_tiny_tokenizer(tmp_path / "tokenizer.json")
    runtime = runtime_class("llm")("tiny", {"file": str(tmp_path / "tiny.gguf")}, tmp_path)
    runtime.load()

    async def count(model: str, texts: Sequence[str], *, marks: bool = False) -> Sequence[int]:
        file = str(tmp_path / "tokenizer.json")
        return count_tokens(file, msgspec.msgpack.encode(texts), marks).tokens

    messages = [{"role": "user", "content": "a word, \u00e9 and \u4e2d"}]
    more = {"stream_options": {"include_usage": True}} if stream else {}
    body = in_json(model="tiny", messages=messages, stream=stream, max_tokens=60, **more)
    said = transcript(runtime, "token", "application/json", body)
    checked = await Answers(open_here, count).check(said)
    assert checked.usage.checked
    assert checked.usage.note.count("confirms") == 2
