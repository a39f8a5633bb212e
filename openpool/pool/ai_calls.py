"""Calls of ours as jobs for stock AI workers, and their results as answers: `pool.ai_jobs` turned
round. A stock worker knows few fields; what it could not heed is refused in words. Pure.
"""

import base64
import re
from collections.abc import Callable, Mapping

import msgspec
from msgspec import Struct

from openpool.core.calls import App
from openpool.core.decoding import UNREADABLE
from openpool.core.errors import BadMessage, BadResult
from openpool.wire.ai_results import AiResult, ResultFile, files_of
from openpool.wire.forms import Form, read_form, to_data_url

OURS = {"audio-to-text": "speech-to-text"}
"""Pipelines of stock workers that are offered by our name; the others keep theirs."""
SERVED = (
    "audio-to-text", "image-to-image", "image-to-text", "llm", "segment-anything-2",
    "text-to-image", "text-to-speech", "upscale",
)  # fmt: skip
THEIRS = {OURS.get(name, name): name for name in SERVED}
TOKENS_DEFAULT = 256
_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
_FLOATS = {"strength", "guidance_scale", "image_guidance_scale"}
_INTEGERS = {"num_inference_steps", "seed", "num_images_per_prompt", "width", "height"}
_BOOLEANS = {"safety_check", "multimask_output", "return_logits", "normalize_coords"}
_TEXTS = {
    "prompt", "negative_prompt", "loras", "point_coords", "point_labels", "box", "mask_input",
}  # fmt: skip

Asked = tuple[dict[str, object], bytes]
"""The request of a job, and its input file."""


def app_of(pipeline: str, model: str) -> App:
    """What a stock worker's model is called here."""
    return App(OURS.get(pipeline, pipeline), model)


def job_of(app: App, path: str, content_type: str, body: bytes) -> Asked:
    """The request and the file of a job. BadMessage if a stock worker cannot do it."""
    wanted, write = _WRITERS[THEIRS[app.pipeline]]
    if path.partition("?")[0] != wanted:
        raise BadMessage(f"this worker answers {wanted} only")
    return write(app.model, content_type, body)


def answer_of(app: App, result: AiResult, asked: bytes, asked_type: str) -> tuple[str, bytes]:
    """Content type and body of the answer. BadMessage or BadResult if a result is none."""
    try:
        return _READERS[THEIRS[app.pipeline]](result, asked, asked_type)
    except UNREADABLE:
        raise BadResult("the result has not the right shape") from None


# --- questions -----------------------------------------------------------------------------------


class _Said(Struct):
    role: str
    content: str


class _Chat(Struct):
    messages: list[_Said]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stream: bool | None = False


class _Speech(Struct):
    input: str
    instructions: str = ""


def _read(body: bytes, kind: Callable[[bytes], object]) -> object:
    try:
        return kind(body)
    except UNREADABLE as error:
        raise BadMessage(f"this worker cannot read the request: {error}") from None


def _chat(model: str, _: str, body: bytes) -> Asked:
    asked = _read(body, msgspec.json.Decoder(_Chat).decode)
    assert isinstance(asked, _Chat)
    request: dict[str, object] = {
        "model": model,
        "messages": msgspec.to_builtins(asked.messages),
        "max_tokens": asked.max_completion_tokens or asked.max_tokens or TOKENS_DEFAULT,
        "stream": bool(asked.stream),
    }
    for name in ("temperature", "top_p", "top_k"):
        if (value := getattr(asked, name)) is not None:
            request[name] = value
    return request, b""


def _speech(model: str, _: str, body: bytes) -> Asked:
    asked = _read(body, msgspec.json.Decoder(_Speech).decode)
    assert isinstance(asked, _Speech)
    return {"model_id": model, "text": asked.input, "description": asked.instructions}, b""


def _picture(model: str, content_type: str, body: bytes) -> Asked:
    form = read_form(content_type, body, "image")
    return _values(form) | {"model_id": model}, b""


def _edit(model: str, content_type: str, body: bytes) -> Asked:
    form = read_form(content_type, body, "image")
    return _values(form) | {"image": None, "model_id": model}, form.file("image")


def _looked_at(model: str, content_type: str, body: bytes) -> Asked:
    form = read_form(content_type, body, "image")
    return _values(form) | {"image": None, "model_id": model}, form.file("image", "file")


def _transcription(model: str, content_type: str, body: bytes) -> Asked:
    form = read_form(content_type, body, "file")
    if form.values.get("response_format", "json") not in ("json", "verbose_json", "text"):
        raise BadMessage("this worker answers in the formats json, verbose_json and text only")
    word = "word" in form.values.get("timestamp_granularities[]", "")
    stamps = "word" if word else "true"
    request: dict[str, object] = {"audio": None, "model_id": model, "return_timestamps": stamps}
    return request, form.file("file", "audio")


def _values(form: Form) -> dict[str, object]:
    """The values that stock workers know, by their names and of their types."""
    given = dict(form.values)
    if match := _SIZE.fullmatch(given.get("size", "")):
        given |= {"width": match[1], "height": match[2]}
    if "n" in given:
        given["num_images_per_prompt"] = given["n"]
    found: dict[str, object] = {}
    try:
        for name, value in given.items():
            if name in _FLOATS:
                found[name] = float(value)
            elif name in _INTEGERS:
                found[name] = int(value)
            elif name in _BOOLEANS:
                found[name] = value == "true"
            elif name in _TEXTS:
                found[name] = value
    except ValueError:
        raise BadMessage(f"{name} must be a number") from None
    return found


_WRITERS: Mapping[str, tuple[str, Callable[[str, str, bytes], Asked]]] = {
    "llm": ("/v1/chat/completions", _chat),
    "text-to-speech": ("/v1/audio/speech", _speech),
    "audio-to-text": ("/v1/audio/transcriptions", _transcription),
    "image-to-text": ("/v1/images/ocr", _looked_at),
    "text-to-image": ("/v1/images/generations", _picture),
    "image-to-image": ("/v1/images/edits", _edit),
    "upscale": ("/upscale", _looked_at),
    "segment-anything-2": ("/segment-anything-2", _looked_at),
}

# --- answers -------------------------------------------------------------------------------------


class _Chunk(Struct):
    timestamp: tuple[float, float | None]
    text: str


class _Heard(Struct):
    text: str
    chunks: list[_Chunk] = []


class _Made(Struct):
    url: str
    seed: int = 0
    nsfw: bool = False


class _Pictures(Struct):
    images: list[_Made]


class _Spoken(Struct):
    audio: _Made


class _Choices(Struct):
    choices: list[msgspec.Raw]


def _json(value: object) -> tuple[str, bytes]:
    return "application/json", msgspec.json.encode(value)


def _as_it_is(result: AiResult, _: bytes, __: str) -> tuple[str, bytes]:
    return _json(result.value)


def _completion(result: AiResult, _: bytes, __: str) -> tuple[str, bytes]:
    kind, body = _json(result.value)
    if not msgspec.json.decode(body, type=_Choices).choices:
        raise BadResult("the result holds no choice")
    return kind, body


def _transcript(result: AiResult, asked: bytes, asked_type: str) -> tuple[str, bytes]:
    heard = msgspec.convert(result.value, _Heard)
    if read_form(asked_type, asked, "file").values.get("response_format") == "text":
        return "text/plain; charset=utf-8", heard.text.encode()
    segments = [
        {"id": i, "start": each.timestamp[0], "end": each.timestamp[1] or each.timestamp[0],
         "text": each.text}
        for i, each in enumerate(heard.chunks)
    ]  # fmt: skip
    return _json({"text": heard.text, "segments": segments})


def _sound(result: AiResult, _: bytes, __: str) -> tuple[str, bytes]:
    file = _files(result, [msgspec.convert(result.value, _Spoken).audio])[0]
    return "audio/wav", file.data


def _pictures(result: AiResult, _: bytes, __: str) -> tuple[str, bytes]:
    made = msgspec.convert(result.value, _Pictures).images
    files = _files(result, made)
    return _json({"data": [{"b64_json": base64.b64encode(each.data).decode()} for each in files]})


def _upscaled(result: AiResult, _: bytes, __: str) -> tuple[str, bytes]:
    made = msgspec.convert(result.value, _Pictures).images
    urls = [to_data_url("image/png", each.data) for each in _files(result, made)]
    return _json({"images": [{"url": url} for url in urls]})


def _files(result: AiResult, made: list[_Made]) -> list[ResultFile]:
    """The files that are named, in order. BadMessage if one is missing."""
    if not made:
        raise BadResult("the result names no file")
    found = files_of(result, [each.url for each in made])
    return [found[each.url] for each in made]


_READERS: Mapping[str, Callable[[AiResult, bytes, str], tuple[str, bytes]]] = {
    "llm": _completion,
    "text-to-speech": _sound,
    "audio-to-text": _transcript,
    "image-to-text": _as_it_is,
    "text-to-image": _pictures,
    "image-to-image": _pictures,
    "upscale": _upscaled,
    "segment-anything-2": _as_it_is,
}
