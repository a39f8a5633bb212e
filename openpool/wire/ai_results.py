"""The upload of an AI job: its headers, its multipart body of JSON and files, its events.

Unlike `wire.results`, a result is one JSON value and the files that it names; an answer that is
told piece by piece is a stream of events instead. No I/O, no randomness; see docs/protocol.md.
"""

import re
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from openpool.core.decoding import UNREADABLE
from openpool.core.errors import BadMessage
from openpool.wire.results import BadUpload, Multipart

AI_RESULT_PATH = "/aiResults"
AI_AUTHORIZATION = "Livepeer-AI-Worker-1.0"
AI_ERROR_TYPE = "livepeer/ai-worker-error"
EVENTS_TYPE = "text/event-stream"
FILES_MAX = 64
RESULT_BYTES_MAX = 301_000_000
_NUMBER = re.compile(r"[0-9]{1,19}")
_INT64_MAX = (1 << 63) - 1


class ResultFile(Struct, frozen=True, kw_only=True):
    """A file of a result, by the name under which the JSON speaks of it."""

    name: str
    content_type: str
    data: bytes


class AiResult(Struct, frozen=True, kw_only=True):
    """What a job came to."""

    value: object
    """JSON."""
    files: tuple[ResultFile, ...] = ()


class AiHeaders(Struct, frozen=True, kw_only=True):
    """What the headers of an upload say, before anything is believed."""

    secret: str
    task_id: int
    pipeline: str
    kind: str
    """Media type of the body: multipart/mixed, text/event-stream or that of errors."""
    boundary: bytes


def ai_headers(*, secret: str, task_id: int, pipeline: str, content_type: str) -> dict[str, str]:
    """The headers of an upload, except its length."""
    headers = {
        "Authorization": AI_AUTHORIZATION,
        "Credentials": secret,
        "TaskId": str(task_id),
        "Pipeline": pipeline,
        "Content-Type": content_type,
    }
    if content_type == EVENTS_TYPE:
        headers["Cache-Control"] = "no-cache"
    return headers


def read_ai_headers(headers: Mapping[str, str]) -> AiHeaders:
    """Read an upload's headers (names in lower case); BadUpload says how to refuse it."""
    if headers.get("authorization") != AI_AUTHORIZATION:
        raise BadUpload(401, f"Unauthorized: send `Authorization: {AI_AUTHORIZATION}`")
    if not headers.get("credentials"):
        raise BadUpload(401, "Unauthorized: send your secret in the Credentials header")
    number = headers.get("taskid", "")
    if not _NUMBER.fullmatch(number) or int(number) > _INT64_MAX:
        raise BadUpload(400, "Invalid Task ID: TaskId must be a whole number")
    name, options = parse_options_header(headers.get("content-type", ""))
    kind, boundary = name.decode("latin-1"), options.get(b"boundary", b"")
    if kind not in ("multipart/mixed", EVENTS_TYPE, AI_ERROR_TYPE):
        raise BadUpload(415, f"send multipart/mixed, {EVENTS_TYPE} or {AI_ERROR_TYPE}")
    if kind == "multipart/mixed" and not 0 < len(boundary) <= 70:
        raise BadUpload(415, "the multipart Content-Type needs a boundary of 1 to 70 characters")
    return AiHeaders(
        secret=headers["credentials"],
        task_id=int(number),
        pipeline=headers.get("pipeline", "")[:100],
        kind=kind,
        boundary=boundary,
    )


def build_ai_result(result: AiResult, boundary: str) -> Multipart:
    """The body for a result; the files' bytes are not copied."""
    chunks: list[bytes] = []
    for file in result.files:
        named = f"Content-Disposition: attachment; filename={file.name}\r\n"
        chunks += _part(boundary, file.data, file.content_type, named)
    chunks += _part(boundary, msgspec.json.encode(result.value), "application/json", "")
    chunks.append(f"--{boundary}--\r\n".encode())
    return Multipart(
        content_type=f"multipart/mixed; boundary={boundary}",
        length=sum(map(len, chunks)),
        chunks=chunks,
    )


def _part(boundary: str, body: bytes, media_type: str, extra: str) -> list[bytes]:
    head = (
        f"--{boundary}\r\nContent-Type: {media_type}\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
    )
    return [head.encode(), body, b"\r\n"]


class _Part:
    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.data = bytearray()
        self.field = self.value = b""


class AiResultParser:
    """Reads a result's body chunk by chunk; every problem is a `BadUpload`."""

    def __init__(self, boundary: bytes) -> None:
        self._parts: list[_Part] = []
        self._bytes = 0
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._on_field,
                    "on_header_value": self._on_value,
                    "on_header_end": self._end_header,
                    "on_part_data": self._on_data,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise BadUpload(415, f"the multipart boundary is broken: {error}") from None

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body."""
        self._bytes += len(data)
        if self._bytes > RESULT_BYTES_MAX:
            raise BadUpload(413, f"the result is larger than {RESULT_BYTES_MAX} bytes")
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise BadUpload(400, f"the multipart body is broken: {error}") from None

    def finish(self) -> AiResult:
        """The result, once the whole body was fed: one JSON value and its files."""
        if not self._ended:
            raise BadUpload(400, "the multipart body ends before its closing boundary")
        values = [part for part in self._parts if _type(part) == "application/json"]
        if len(values) != 1:
            raise BadUpload(400, "a result needs exactly one part of application/json")
        files = [_file(part) for part in self._parts if part is not values[0]]
        try:
            value: object = msgspec.json.decode(bytes(values[0].data))
        except UNREADABLE:
            raise BadUpload(400, "the JSON of the result cannot be read") from None
        return AiResult(value=value, files=tuple(files))

    def _begin(self) -> None:
        if len(self._parts) > FILES_MAX:
            raise BadUpload(413, f"the result has more than {FILES_MAX} files")
        self._parts.append(_Part())

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._parts[-1].field += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._parts[-1].value += data[start:end]

    def _end_header(self) -> None:
        part = self._parts[-1]
        part.headers[part.field.lower()] = part.value.strip()
        part.field = part.value = b""

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self._parts[-1].data += memoryview(data)[start:end]

    def _end(self) -> None:
        self._ended = True


def _type(part: _Part) -> str:
    return part.headers.get(b"content-type", b"").partition(b";")[0].decode("latin-1").lower()


def _file(part: _Part) -> ResultFile:
    _, options = parse_options_header(part.headers.get(b"content-disposition", b""))
    name = options.get(b"filename", b"").decode("utf-8", "replace")
    if not name:
        raise BadUpload(400, "a file of the result has no name")
    return ResultFile(name=name, content_type=_type(part), data=bytes(part.data))


def files_of(result: AiResult, names: Sequence[str]) -> dict[str, ResultFile]:
    """The files by name. Raises BadMessage unless every one that is named is there, not empty."""
    found = {file.name: file for file in result.files}
    for name in names:
        if name not in found or not found[name].data:
            raise BadMessage(f"the file {name[:100]!r} of the result is missing")
    return found
