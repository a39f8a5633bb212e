"""Jobs of an orchestrator's older AI interface as calls of ours, and answers as its results.

Apps have our names and bodies are OpenAI's, so that every worker understands them; an orchestrator
has names and bodies of its own. Files go by their bytes here: where they lie is the shell's
business (`pool.ai_upstream`). See docs/protocol.md.
"""

import secrets
from collections.abc import Callable, Mapping
from urllib.parse import quote

import msgspec
from msgspec import Struct

from openpool.core.calls import App
from openpool.core.decoding import UNREADABLE
from openpool.core.errors import BadMessage, BadResult
from openpool.wire.ai_messages import AiJob
from openpool.wire.ai_results import AiResult, ResultFile
from openpool.wire.forms import File, build_form, data_url

APPS = {
    "audio-to-text": "speech-to-text",
    "segment-anything-2": "segmentation",
    "text-to-speech": "text-to-speech",
    "image-to-text": "image-to-text",
    "llm": "llm",
    "text-to-image": "text-to-image",
    "image-to-image": "image-to-image",
    "upscale": "upscale",
}
"""What an orchestrator calls a pipeline, and what we do. Clips are not made here."""
PIPELINES = {ours: theirs for theirs, ours in APPS.items()} | {
    "segment-anything-2": "segment-anything-2"
}
"""The other way; stock workers keep the name of segment-anything."""
SIDE_DEFAULT = 512
"""An orchestrator bills a picture as this wide and high if nothing was asked for."""
MASK_PIXELS_MAX = 64_000_000
"""Of all masks of an answer: they are written out, pixel by pixel."""
ENDINGS = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp", "audio/wav": "wav"}


class Asked(Struct, frozen=True, kw_only=True):
    """A job as our workers understand it."""

    app: App
    path: str
    content_type: str
    body: bytes
    streaming: bool = False


def app_of(job: AiJob) -> App:
    """The app that a job is for. BadMessage if none of ours can be meant."""
    model = job.request.get("model" if job.pipeline == "llm" else "model_id")
    if not isinstance(model, str) or not model:
        raise BadMessage("the request names no model")
    if job.pipeline not in APPS:
        raise BadMessage(f"this pool does not serve {job.pipeline}")
    return App(APPS[job.pipeline], model)


def asked_of(job: AiJob, lane: App, file: bytes) -> Asked:
    """The job as a call; `file` is what was at its `input_url`. BadMessage if it cannot be one.

    `lane` is the app that was registered where the job came.
    """
    app = app_of(job)
    if (app.model, job.pipeline) == (lane.model, lane.pipeline):
        app = lane
    path, write = _WRITERS["opaque" if app.pipeline == "segment-anything-2" else job.pipeline]
    content_type, body = write(app.model, job.request, file)
    streaming = job.pipeline == "llm" and job.request.get("stream") is True
    return Asked(app=app, path=path, content_type=content_type, body=body, streaming=streaming)


def result_of(job: AiJob, answer_type: str, answer: bytes, name: Callable[[], str]) -> AiResult:
    """The result that an answer comes to; `name` gives file names that nobody can guess.

    BadResult if it is not what the pipeline answers.
    """
    try:
        if job.pipeline == "text-to-speech":
            return _speech(answer_type, answer, name())
        return _READERS[job.pipeline](job.request, answer, name)
    except UNREADABLE:
        raise BadResult("the worker's answer has not the right shape") from None
    except BadMessage as error:
        raise BadResult(str(error)) from None


# --- questions -----------------------------------------------------------------------------------

Written = tuple[str, bytes]


def _json(value: object) -> Written:
    return "application/json", msgspec.json.encode(value)


def _text(request: Mapping[str, object], name: str) -> str:
    value = request.get(name)
    if not isinstance(value, str) or not value:
        raise BadMessage(f"the request has no {name}")
    return value


def _write_chat(model: str, request: Mapping[str, object], _: bytes) -> Written:
    if not isinstance(request.get("messages"), list):
        raise BadMessage("the request has no messages")
    body = {"model": model, "messages": request["messages"]}
    for name in ("max_tokens", "temperature", "top_p"):
        if request.get(name) is not None:
            body[name] = request[name]
    top_k = request.get("top_k")
    if isinstance(top_k, int) and top_k > 0:  # -1 means all, and not every server knows it
        body["top_k"] = top_k
    if request.get("stream") is True:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return _json(body)


def _write_speech(model: str, request: Mapping[str, object], _: bytes) -> Written:
    body = {"model": model, "input": _text(request, "text"), "response_format": "wav"}
    description = request.get("description")
    if isinstance(description, str) and description:
        body["instructions"] = description
    return _json(body)


def _write_picture(model: str, request: Mapping[str, object], _: bytes) -> Written:
    _text(request, "prompt")
    width, height = (request.get(side) or SIDE_DEFAULT for side in ("width", "height"))
    kept = {k: v for k, v in request.items() if k not in ("model_id", "width", "height")}
    count = request.get("num_images_per_prompt") or 1
    body = {"model": model, "size": f"{width}x{height}", "n": count, "response_format": "b64_json"}
    return _json(kept | body)


def _write_edit(model: str, request: Mapping[str, object], file: bytes) -> Written:
    count = str(request.get("num_images_per_prompt") or 1)
    own = {"model": model, "n": count, "response_format": "b64_json"}
    return _form(_values(request, "model_id") | own, "image", file)


def _write_upscale(_: str, request: Mapping[str, object], file: bytes) -> Written:
    return _form(_values(request), "image", file)


def _write_transcription(model: str, request: Mapping[str, object], file: bytes) -> Written:
    wanted = request.get("return_timestamps")
    values = {"model": model, "response_format": "json" if wanted == "false" else "verbose_json"}
    if wanted == "word":
        values["timestamp_granularities[]"] = "word"
    return _form(values, "file", file)


def _write_looked_at(model: str, request: Mapping[str, object], file: bytes) -> Written:
    return _form(_values(request, "model_id") | {"model": model}, "image", file)


def _values(request: Mapping[str, object], *but: str) -> dict[str, str]:
    """The values of a request as those of a form."""
    return {
        name: value if isinstance(value, str) else msgspec.json.encode(value).decode()
        for name, value in request.items()
        if value is not None and value != "" and name not in but
    }


def _form(values: Mapping[str, str], name: str, file: bytes) -> Written:
    if not file:
        raise BadMessage("the request has no file, or an empty one")
    files = {name: File("application/octet-stream", file)}
    return build_form(values, files, secrets.token_hex(16))


_WRITERS: dict[str, tuple[str, Callable[[str, Mapping[str, object], bytes], Written]]] = {
    "llm": ("/v1/chat/completions", _write_chat),
    "text-to-speech": ("/v1/audio/speech", _write_speech),
    "text-to-image": ("/v1/images/generations", _write_picture),
    "image-to-image": ("/v1/images/edits", _write_edit),
    "upscale": ("/upscale", _write_upscale),
    "audio-to-text": ("/v1/audio/transcriptions", _write_transcription),
    "image-to-text": ("/v1/images/ocr", _write_looked_at),
    "segment-anything-2": ("/v1/images/segment", _write_looked_at),
    "opaque": ("/segment-anything-2", _write_looked_at),
}

# --- answers -------------------------------------------------------------------------------------

Request = Mapping[str, object]
Named = Callable[[], str]


class _Words(Struct):
    content: str | None = None
    role: str = "assistant"


class _Choice(Struct):
    message: _Words
    finish_reason: str | None = None


class _Usage(Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class _Chat(Struct):
    choices: list[_Choice]
    id: str = ""
    model: str = ""
    created: int = 0
    usage: _Usage | None = None


def _read_chat(request: Request, answer: bytes, _: Named) -> AiResult:
    """Only what an orchestrator knows, and never without a choice: it would crash."""
    chat = msgspec.json.decode(answer, type=_Chat)
    if not chat.choices or chat.choices[0].message.content is None:
        raise BadResult("the worker's answer holds no choice")
    words = chat.choices[0]
    return AiResult(
        value={
            "id": chat.id,
            "model": str(request["model"]),
            "created": chat.created,
            "usage": chat.usage or _Usage(),
            "choices": [
                {
                    "index": 0,
                    "finish_reason": words.finish_reason or "stop",
                    "message": words.message,
                }
            ],
        }
    )


class _Heard(Struct):
    start: float = 0.0
    end: float = 0.0
    text: str = ""
    word: str = ""


class _Transcription(Struct):
    text: str
    segments: list[_Heard] = []
    words: list[_Heard] = []


def _read_transcription(_: Request, answer: bytes, __: Named) -> AiResult:
    heard = msgspec.json.decode(answer, type=_Transcription)
    chunks = [
        {"timestamp": [each.start, each.end], "text": each.text or each.word}
        for each in heard.words or heard.segments
    ]
    return AiResult(value={"text": heard.text, "chunks": chunks})


class _Read(Struct):
    text: str


def _read_reading(_: Request, answer: bytes, __: Named) -> AiResult:
    return AiResult(value={"text": msgspec.json.decode(answer, type=_Read).text})


class _Made(Struct):
    b64_json: str = ""
    url: str = ""
    seed: int = 0
    nsfw: bool = False


class _Pictures(Struct):
    data: list[_Made] = []
    images: list[_Made] = []


def _read_pictures(_: Request, answer: bytes, name: Named) -> AiResult:
    found = msgspec.json.decode(answer, type=_Pictures)
    made, files = found.data or found.images, list[ResultFile]()
    if not made:
        raise BadResult("the worker's answer holds no picture")
    for each in made:
        file = data_url(each.url or f"data:image/png;base64,{each.b64_json}")
        files.append(_file(file, name(), "image/png"))
    images = [
        {"url": file.name, "seed": each.seed, "nsfw": each.nsfw}
        for file, each in zip(files, made, strict=True)
    ]
    return AiResult(value={"images": images}, files=tuple(files))


def _speech(answer_type: str, answer: bytes, name: str) -> AiResult:
    sound = File("audio/wav", answer)
    if answer_type.startswith("application/json"):
        sound = data_url(msgspec.json.decode(answer, type=_SpeechInJson).audio.url)
    file = _file(sound, name, "audio/wav")
    return AiResult(value={"audio": {"url": file.name}}, files=(file,))


class _Audio(Struct):
    url: str


class _SpeechInJson(Struct):
    audio: _Audio


def _file(file: File, name: str, usual: str) -> ResultFile:
    if not file.data:
        raise BadResult("a file of the worker's answer is empty")
    kind = file.content_type if file.content_type in ENDINGS else usual
    return ResultFile(name=f"{quote(name)}.{ENDINGS[kind]}", content_type=kind, data=file.data)


class _RunLengths(Struct):
    size: tuple[int, int]
    counts: list[int]


class _Mask(Struct):
    rle: _RunLengths


class _Cut(Struct):
    masks: list[_Mask] | str
    scores: str = ""
    logits: str = ""


def _read_masks(_: Request, answer: bytes, __: Named) -> AiResult:
    """Each mask as rows of 0 and 1. GrabCut knows no scores; what it found it is sure of."""
    cut = msgspec.json.decode(answer, type=_Cut)
    if isinstance(cut.masks, str):
        return AiResult(value=cut)  # already as an orchestrator wants it
    masks = [each.rle for each in cut.masks]
    if sum(mask.size[0] * mask.size[1] for mask in masks) > MASK_PIXELS_MAX:
        raise BadResult("the masks of the worker's answer are too large")
    written = f"[{','.join(_rows(mask) for mask in masks)}]"
    scores = msgspec.json.encode([1.0] * len(masks)).decode()
    return AiResult(value={"masks": written, "scores": scores, "logits": "[]"})


def _rows(mask: _RunLengths) -> str:
    height, width = mask.size
    if min(height, width, *mask.counts) < 0 or sum(mask.counts) != height * width:
        raise BadResult("a mask of the worker's answer is not of its size")
    columns = "".join("01"[i % 2] * count for i, count in enumerate(mask.counts))
    rows = (",".join(columns[row::height]) for row in range(height))
    return f"[{','.join(f'[{row}]' for row in rows)}]"


_READERS: dict[str, Callable[[Request, bytes, Named], AiResult]] = {
    "llm": _read_chat,
    "audio-to-text": _read_transcription,
    "image-to-text": _read_reading,
    "text-to-image": _read_pictures,
    "image-to-image": _read_pictures,
    "upscale": _read_pictures,
    "segment-anything-2": _read_masks,
}
