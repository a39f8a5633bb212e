"""The upload of a result: its headers, its multipart body, and the report of an error instead.

A success is `multipart/mixed` with one part per rendition in the order of the job's profiles, each
optionally followed by its perceptual hash. Pixels and containers read here are the sender's claims.
No I/O, no randomness; see docs/protocol.md.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from openpool.core.errors import BadMessage
from openpool.core.model import Container

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

RESULT_PATH = "/transcodeResults"
AUTHORIZATION = "Livepeer-Transcoder-1.0"
ERROR_TYPE = "livepeer/transcoding-error"
RENDITIONS_MAX = 10
PART_BYTES_MAX = 300_000_000
BODY_BYTES_MAX = 301_000_000
ERROR_BYTES_MAX = 4096

# The parser logs every broken body; peers send them at will, and `BadUpload` says it all.
logging.getLogger("python_multipart").setLevel(logging.CRITICAL)

_HASH_TYPE = "application/octet-stream"
_MEDIA_TYPES: dict[Container, str] = {"mpegts": "video/mp2t", "mp4": "video/mp4"}
_CONTAINERS: dict[str, Container] = {"video/mp4": "mp4"}
_BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]{1,70}")
_WHOLE_NUMBER = re.compile(r"[0-9]{1,19}")
_INT64_MAX = (1 << 63) - 1


class BadUpload(BadMessage):
    """The upload cannot be read; `status` is the HTTP status to answer it with."""

    code = "bad-upload"

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ResultHeaders(Struct, frozen=True, kw_only=True):
    """What the headers of an upload say, before anything is believed."""

    secret: str
    task_id: int
    source_pixels: int
    boundary: bytes
    """Of the multipart body; empty where the body is the text of an error."""

    @property
    def is_error(self) -> bool:
        return not self.boundary


class RenditionData(Struct, frozen=True, kw_only=True):
    """One rendition with its bytes. `pixels` are frames x width x height, as encoded."""

    data: bytes
    pixels: int
    container: Container = "mpegts"
    perceptual_hash: bytes = b""


class Multipart(Struct, frozen=True, kw_only=True):
    """A body ready to be sent: chunks of `length` bytes altogether."""

    content_type: str
    length: int
    chunks: list[bytes]


def upload_headers(*, secret: str, task_id: int, content_type: str, pixels: int) -> dict[str, str]:
    """The headers of an upload, except its length."""
    return {
        "Authorization": AUTHORIZATION,
        "Credentials": secret,
        "TaskId": str(task_id),
        "Content-Type": content_type,
        "Pixels": str(pixels),
    }


def read_headers(headers: Mapping[str, str]) -> ResultHeaders:
    """Read an upload's headers (names in lower case); BadUpload says how to refuse it."""
    if headers.get("authorization") != AUTHORIZATION:
        raise BadUpload(401, f"Unauthorized: send `Authorization: {AUTHORIZATION}`")
    if not headers.get("credentials"):
        raise BadUpload(401, "Unauthorized: send your secret in the Credentials header")
    boundary = _boundary(headers.get("content-type", ""))
    task_id = _number(headers.get("taskid", ""), "Invalid Task ID: TaskId must be a whole number")
    pixels = headers.get("pixels", "0") if boundary else "0"
    return ResultHeaders(
        secret=headers["credentials"],
        task_id=task_id,
        source_pixels=_number(pixels, "Invalid Pixels: Pixels must be a whole number"),
        boundary=boundary,
    )


def build_result(renditions: Sequence[RenditionData], boundary: str) -> Multipart:
    """The body for these renditions; their bytes are not copied."""
    chunks: list[bytes] = []
    for rendition in renditions:
        media_type = _MEDIA_TYPES[rendition.container]
        pixels = f"Pixels: {rendition.pixels}\r\n"
        chunks += _part(boundary, rendition.data, media_type, pixels)
        if rendition.perceptual_hash:
            chunks += _part(boundary, rendition.perceptual_hash, _HASH_TYPE, "")
    chunks.append(f"--{boundary}--\r\n".encode())
    return Multipart(
        content_type=f"multipart/mixed; boundary={boundary}",
        length=sum(map(len, chunks)),
        chunks=chunks,
    )


def error_text(body: bytes) -> str:
    """The text of an error report: at most 4 KiB, one printable line."""
    text = body[:ERROR_BYTES_MAX].decode(errors="replace")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


class ResultParser:
    """Reads a result's body chunk by chunk; every problem is a `BadUpload`."""

    def __init__(self, boundary: bytes) -> None:
        self._renditions: list[RenditionData] = []
        self._parts = 0
        self._bytes = 0
        self._ended = False
        self._begin_part()
        self._parser = MultipartParser(boundary, self._callbacks())

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body."""
        self._bytes += len(data)
        if self._bytes > BODY_BYTES_MAX:
            raise BadUpload(413, f"the result is larger than {BODY_BYTES_MAX} bytes")
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise BadUpload(400, f"the multipart body is broken: {error}") from None

    def finish(self) -> list[RenditionData]:
        """All renditions in order, once the whole body was fed."""
        if not self._ended:
            raise BadUpload(400, "the multipart body ends before its closing boundary")
        return self._renditions

    def _callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin_part,
            "on_header_field": self._on_field,
            "on_header_value": self._on_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._check_headers,
            "on_part_data": self._on_data,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }

    def _begin_part(self) -> None:
        self._headers: dict[str, str] = {}
        self._field = self._value = b""
        self._pieces: list[memoryview] = []
        self._size = 0

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        name = self._field.decode("latin-1").lower()
        self._headers[name] = self._value.decode("latin-1").strip()
        self._field = self._value = b""

    def _check_headers(self) -> None:
        self._parts += 1
        if self._parts > 2 * RENDITIONS_MAX:
            raise BadUpload(413, f"the result has more than {2 * RENDITIONS_MAX} parts")
        if self._is_rendition:
            _number(self._headers["pixels"], "Invalid Pixels: a part's Pixels is no whole number")
            if len(self._renditions) == RENDITIONS_MAX:
                raise BadUpload(413, f"the result has more than {RENDITIONS_MAX} renditions")
        elif self._is_hash and not self._renditions:
            raise BadUpload(400, "Unknown perceptual hash: send it after its rendition")

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._size > PART_BYTES_MAX:
            raise BadUpload(413, f"a part is larger than {PART_BYTES_MAX} bytes")
        self._pieces.append(memoryview(data)[start:end])  # copied once, when joined

    def _end_part(self) -> None:
        body = b"".join(self._pieces)
        if self._is_rendition:
            media_type = self._headers.get("content-type", "")
            rendition = RenditionData(
                data=body,
                pixels=int(self._headers["pixels"]),
                container=_CONTAINERS.get(media_type.lower(), "mpegts"),
            )
            self._renditions.append(rendition)
        elif self._is_hash:
            last = self._renditions[-1]
            self._renditions[-1] = RenditionData(
                data=last.data, pixels=last.pixels, container=last.container, perceptual_hash=body
            )

    def _end(self) -> None:
        self._ended = True

    @property
    def _is_rendition(self) -> bool:
        return "pixels" in self._headers

    @property
    def _is_hash(self) -> bool:
        return not self._is_rendition and self._headers.get("content-type") == _HASH_TYPE


def parse_result(body: bytes, boundary: bytes) -> list[RenditionData]:
    """All renditions of a complete body; BadUpload if it is not one."""
    parser = ResultParser(boundary)
    parser.feed(body)
    return parser.finish()


def _part(boundary: str, body: bytes, media_type: str, extra: str) -> list[bytes]:
    head = (
        f"--{boundary}\r\nContent-Length: {len(body)}\r\nContent-Type: {media_type}\r\n{extra}\r\n"
    )
    return [head.encode(), body, b"\r\n"]


def _boundary(content_type: str) -> bytes:
    """The boundary of a multipart type; empty for the type of error reports."""
    media_type, options = parse_options_header(content_type)
    if media_type == ERROR_TYPE.encode():
        return b""
    if media_type != b"multipart/mixed":
        raise BadUpload(415, f"send multipart/mixed or {ERROR_TYPE}, with that Content-Type")
    boundary = options.get(b"boundary", b"")
    if not _BOUNDARY.fullmatch(boundary):
        raise BadUpload(415, "the multipart Content-Type needs a boundary of 1 to 70 characters")
    return boundary


def _number(text: str, wrong: str) -> int:
    if not _WHOLE_NUMBER.fullmatch(text) or int(text) > _INT64_MAX:
        raise BadUpload(400, wrong)
    return int(text)
