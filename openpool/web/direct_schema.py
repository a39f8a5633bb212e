"""The customers' API in the OpenAPI document: what each route of `web.direct` takes and answers.

Requests are OpenAI's where OpenAI has the route; only the fields that every client needs are named,
since the others are the worker's business and are passed on. Routes of our own are described in
docs/reference/ai-routes.md. Must not serve anything.
"""

from collections.abc import Mapping
from http import HTTPStatus

from litestar.openapi.spec import (
    OpenAPIFormat,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    Parameter,
    PathItem,
    Reference,
    RequestBody,
    Schema,
    SecurityScheme,
)
from msgspec import Struct

from openpool.web.direct import ROUTES
from openpool.web.direct_errors import MEANINGS, OTHER

SECURITY = "customer"
SCHEME = SecurityScheme(
    type="http", scheme="bearer", description="A customer's API key, `sk-…`; for /v1 only."
)
MODELS = "/v1/models"
JSON, FORM, EVENTS = "application/json", "multipart/form-data", "text/event-stream"
PICTURES = ("image/png", "image/jpeg", "image/webp")
VIDEOS = ("video/mp2t", "video/mp4")
PARTS = "multipart/mixed"

TEXT = Schema(type=OpenAPIType.STRING)
NUMBER = Schema(type=OpenAPIType.NUMBER)
INTEGER = Schema(type=OpenAPIType.INTEGER)
BOOLEAN = Schema(type=OpenAPIType.BOOLEAN)
BYTES = Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.BINARY)
ANYTHING = Schema()
Fields = Mapping[str, Schema]


def _list(items: Schema) -> Schema:
    return Schema(type=OpenAPIType.ARRAY, items=items)


def _object(fields: Fields, *needed: str) -> Schema:
    properties: dict[str, Reference | Schema] = {**fields}
    return Schema(type=OpenAPIType.OBJECT, properties=properties, required=[*needed] or None)


class Kind(Struct, frozen=True):
    """What a route is for."""

    summary: str
    fields: Fields
    needed: tuple[str, ...] = ()
    takes: tuple[str, ...] = (JSON,)
    bare: tuple[str, ...] = ()
    """Content types of a body that is the file itself; the fields are then in the query."""
    answers: tuple[str, ...] = (JSON,)
    answer: Schema = _object({})


MODEL: Fields = {"model": TEXT}
STREAM: Fields = {**MODEL, "stream": BOOLEAN, "max_tokens": INTEGER}
PICTURE: Fields = {**MODEL, "image": BYTES}
SIZE: Fields = {"width": INTEGER, "height": INTEGER}
USAGE = _object({"prompt_tokens": INTEGER, "completion_tokens": INTEGER})
CHAT = _object({"choices": _list(ANYTHING), "usage": USAGE}, "choices")
MADE = _object({"data": _list(_object({"b64_json": TEXT, "url": TEXT}))}, "data")
FOUND = _object({"label": TEXT, "score": NUMBER, "x": INTEGER, "y": INTEGER, "w": INTEGER,
                 "h": INTEGER})  # fmt: skip
LINE = _object({"text": TEXT, "score": NUMBER, "box": _list(_list(NUMBER))})
MASK = _object({"x": INTEGER, "y": INTEGER, "w": INTEGER, "h": INTEGER, "area": INTEGER,
                "rle": ANYTHING, "png": TEXT})  # fmt: skip
RENDITION = _object({"name": TEXT, "content_type": TEXT, "width": INTEGER, "height": INTEGER,
                     "bytes": INTEGER, "data": TEXT})  # fmt: skip

KINDS: Mapping[str, Kind] = {
    "/v1/chat/completions": Kind(
        "A chat, whole or streamed", {**STREAM, "messages": _list(ANYTHING)},
        ("model", "messages"), answers=(JSON, EVENTS), answer=CHAT,
    ),
    "/v1/completions": Kind(
        "A completion, whole or streamed", {**STREAM, "prompt": ANYTHING}, ("model", "prompt"),
        answers=(JSON, EVENTS), answer=CHAT,
    ),
    "/v1/embeddings": Kind(
        "Vectors of texts", {**MODEL, "input": ANYTHING}, ("model", "input"),
        answer=_object({"data": _list(ANYTHING), "usage": USAGE}, "data"),
    ),
    "/v1/audio/transcriptions": Kind(
        "Speech to text", {**MODEL, "file": BYTES, "response_format": TEXT, "stream": BOOLEAN},
        ("model", "file"), takes=(FORM,), answers=(JSON, "text/plain", "text/vtt", EVENTS),
        answer=_object({"text": TEXT}, "text"),
    ),
    "/v1/audio/speech": Kind(
        "Text to speech", {**MODEL, "input": TEXT, "voice": TEXT, "response_format": TEXT},
        ("model", "input"), answers=("audio/*",), answer=BYTES,
    ),
    "/v1/images/generations": Kind(
        "Pictures from words", {**MODEL, "prompt": TEXT, "n": INTEGER, "size": TEXT},
        ("model", "prompt"), answer=MADE,
    ),
    "/v1/images/edits": Kind(
        "Pictures from a picture", {**PICTURE, "prompt": TEXT, "n": INTEGER, "size": TEXT},
        ("model", "image"), takes=(FORM,), answer=MADE,
    ),
    "/v1/moderations": Kind(
        "Judges texts and pictures", {**MODEL, "input": ANYTHING}, ("input",),
        answer=_object({"results": _list(ANYTHING)}, "results"),
    ),
    "/v1/ocr": Kind(
        "Text in a picture", PICTURE, ("image",), takes=(FORM, JSON), bare=PICTURES,
        answer=_object({"text": TEXT, "lines": _list(LINE), **SIZE}, "text"),
    ),
    "/v1/segment": Kind(
        "Cuts an object out",
        {**PICTURE, "box": ANYTHING, "point_coords": ANYTHING, "point_labels": ANYTHING},
        ("image",), takes=(FORM, JSON), answer=_object({"masks": _list(MASK), **SIZE}, "masks"),
    ),
    "/v1/detect": Kind(
        "Objects in a picture", {**PICTURE, "threshold": NUMBER}, ("image",), takes=(FORM, JSON),
        bare=PICTURES, answer=_object({"boxes": _list(FOUND), **SIZE}, "boxes"),
    ),
    "/v1/transcode": Kind(
        "Renditions of a segment of video", {"file": BYTES, "profiles": TEXT, "session": TEXT},
        ("file", "profiles"), takes=(FORM,), bare=VIDEOS, answers=(PARTS, JSON),
        answer=_object({"data": _list(RENDITION)}, "data"),
    ),
}  # fmt: skip
"""By path, as in `web.direct.ROUTES`."""

QUERY = ("model", "profiles", "session")
"""Fields that the query may hold where the body is the file itself."""
DATA_URL = Schema(type=OpenAPIType.STRING, description="A `data:` URL; no address is fetched.")
ENTRY = _object({"id": TEXT, "object": TEXT, "created": INTEGER, "owned_by": TEXT,
                 "pipeline": TEXT, "capacity": INTEGER, "warm": BOOLEAN}, "id")  # fmt: skip
LISTED = _object({"object": TEXT, "data": _list(ENTRY)}, "data")
ERROR = _object(
    {
        "error": _object(
            {"message": TEXT, "type": TEXT, "param": ANYTHING, "code": TEXT}, "message", "type"
        )
    },
    "error",
)
STATUSES = sorted({meaning.status for meaning in (*MEANINGS.values(), OTHER)})


def paths() -> dict[str, PathItem]:
    """The routes of `web.direct`, for the OpenAPI document."""
    found = {path: PathItem(post=_operation(path, kind)) for path, kind in KINDS.items()}
    found[MODELS] = PathItem(get=_models("What workers offer now", LISTED))
    found[f"{MODELS}/{{model}}"] = PathItem(get=_models("One of the models", ENTRY, "model"))
    return found


def _operation(path: str, kind: Kind) -> Operation:
    content = {each: OpenAPIMediaType(schema=_request(kind, each)) for each in kind.takes}
    content |= {each: OpenAPIMediaType(schema=BYTES) for each in kind.bare}
    return Operation(
        tags=[SECURITY],
        summary=kind.summary,
        description=f"Served by workers that offer `{ROUTES[path].pipeline}`. Further fields are "
        "passed on to them.",
        operation_id=path.strip("/").replace("/", "_"),
        parameters=[
            Parameter(name=name, param_in="query", schema=TEXT, required=False)
            for name in QUERY
            if kind.bare and name in kind.fields
        ],
        request_body=RequestBody(content=content, required=True),
        responses=_responses({each: _answer(kind, each) for each in kind.answers}),
        security=[{SECURITY: []}],
    )


def _models(summary: str, answer: Schema, *names: str) -> Operation:
    return Operation(
        tags=[SECURITY],
        summary=summary,
        operation_id="_".join(("v1_models", *names)),
        parameters=[
            Parameter(name=name, param_in="path", schema=TEXT, required=True) for name in names
        ],
        responses=_responses({JSON: answer}),
        security=[{SECURITY: []}],
    )


def _request(kind: Kind, media: str) -> Schema:
    """The fields; files are bytes in a form, and text in JSON."""
    in_json = media == JSON
    fields = {
        name: DATA_URL if in_json and each is BYTES else each for name, each in kind.fields.items()
    }
    return _object(fields, *kind.needed)


def _answer(kind: Kind, media: str) -> Schema:
    return kind.answer if media == JSON else BYTES if "/*" in media or media == PARTS else TEXT


def _responses(good: Mapping[str, Schema]) -> dict[str, OpenAPIResponse | Reference]:
    content = {media: OpenAPIMediaType(schema=schema) for media, schema in good.items()}
    error = {JSON: OpenAPIMediaType(schema=ERROR)}
    return {
        "200": OpenAPIResponse(description=HTTPStatus.OK.phrase, content=content),
        **{
            str(status): OpenAPIResponse(description=HTTPStatus(status).phrase, content=error)
            for status in STATUSES
        },
    }
