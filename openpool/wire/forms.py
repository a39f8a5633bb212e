"""What a client put into a request: named values and files, however it was sent.

Three ways are understood and come out alike: `multipart/form-data` (OpenAI's audio and image
routes, Livepeer's AI routes), a JSON object (files as `data:` URLs), and a bare file as the body.
Nothing here opens a file. Every limit is checked before memory is taken.
"""

import base64
import binascii
from collections.abc import Mapping

import msgspec
from msgspec import Struct
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from openpool.core.decoding import UNREADABLE
from openpool.core.errors import BadMessage

PARTS_MAX = 64
VALUE_BYTES_MAX = 1_000_000


class File(Struct, frozen=True):
    """A file of a form."""

    content_type: str
    data: bytes


class Form(Struct, frozen=True):
    """The values and files by name. A JSON value that is no text stands as JSON text."""

    values: Mapping[str, str]
    files: Mapping[str, File]

    def file(self, *names: str) -> bytes:
        """The bytes of the file under the first of these names. Raises BadMessage."""
        for name in names:
            if name in self.files:
                return self.files[name].data
            if name in self.values:
                raise BadMessage(
                    f"{name!r} is a text and no file: send the file itself in a form (with curl, "
                    f"-F {name}=@FILE), or as a base64 data: URL in JSON; no address is fetched"
                )
        raise BadMessage(f"the request has no file {names[0]!r}: send it as a form or as the body")


def read_form(content_type: str, body: bytes, bare: str) -> Form:
    """The form in a request's body; a bare file gets the name `bare`. Raises BadMessage."""
    kind, options = parse_options_header(content_type)
    if kind == b"multipart/form-data":
        return _multipart(options.get(b"boundary", b""), body)
    if kind == b"application/json":
        return _json(body)
    return Form({}, {bare: File(kind.decode("latin-1"), body)})


def data_url(text: str) -> File:
    """The file inside a `data:` URL. Raises BadMessage."""
    head, comma, payload = text.partition(",")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        raise BadMessage("a file inside JSON must be a base64 data: URL; no address is fetched")
    try:
        return File(head[len("data:") : -len(";base64")], base64.b64decode(payload, validate=True))
    except (binascii.Error, ValueError):
        raise BadMessage("the data: URL is not valid base64") from None


def to_data_url(content_type: str, data: bytes) -> str:
    """The file as a `data:` URL."""
    return f"data:{content_type};base64,{base64.b64encode(data).decode()}"


def build_form(
    values: Mapping[str, str], files: Mapping[str, File], boundary: str
) -> tuple[str, bytes]:
    """Content type and body of a form: the opposite of `read_form`. Nobody may be able to guess the
    boundary. Raises BadMessage for a name that cannot be written."""
    parts = []
    for name, value in values.items():
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(name)}"\r\n\r\n'
        parts += [head.encode(), value.encode(), b"\r\n"]
    for name, file in files.items():
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(name)}"; '
            f'filename="{_quoted(name)}"\r\nContent-Type: {file.content_type}\r\n\r\n'
        )
        parts += [head.encode(), file.data, b"\r\n"]
    body = b"".join([*parts, f"--{boundary}--\r\n".encode()])
    return f"multipart/form-data; boundary={boundary}", body


def _quoted(name: str) -> str:
    if not name.isprintable() or '"' in name or "\\" in name:
        raise BadMessage("a name in the form contains a quote or control character")
    return name


def _json(body: bytes) -> Form:
    try:
        found = msgspec.json.decode(body, type=dict[str, object])
    except UNREADABLE:
        raise BadMessage("the body is not a JSON object") from None
    values, files = {}, {}
    for name, value in found.items():
        if isinstance(value, str) and value.startswith("data:"):
            files[name] = data_url(value)
        else:
            values[name] = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return Form(values, files)


class _Part:
    """One part of a multipart body while it is read."""

    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.data = bytearray()
        self.field = b""
        self.value = b""


class _Parts:
    """The parts of a multipart body, collected from the parser's calls."""

    def __init__(self) -> None:
        self.done: list[_Part] = []
        self.ended = False
        self._part = _Part()

    def begin(self) -> None:
        if len(self.done) == PARTS_MAX:
            raise BadMessage(f"the form has more than {PARTS_MAX} parts")
        self._part = _Part()

    def field(self, data: bytes, start: int, end: int) -> None:
        self._part.field += data[start:end]

    def value(self, data: bytes, start: int, end: int) -> None:
        self._part.value += data[start:end]

    def header(self) -> None:
        self._part.headers[self._part.field.lower()] = self._part.value
        self._part.field = self._part.value = b""

    def data(self, data: bytes, start: int, end: int) -> None:
        self._part.data += data[start:end]

    def finish(self) -> None:
        self.done.append(self._part)

    def end(self) -> None:
        self.ended = True


def _multipart(boundary: bytes, body: bytes) -> Form:
    parts = _Parts()
    try:
        parser = MultipartParser(
            boundary,
            callbacks={
                "on_part_begin": parts.begin,
                "on_header_field": parts.field,
                "on_header_value": parts.value,
                "on_header_end": parts.header,
                "on_part_data": parts.data,
                "on_part_end": parts.finish,
                "on_end": parts.end,
            },
        )
        parser.write(body)
    except MultipartParseError:
        raise BadMessage("the multipart form cannot be read") from None
    if not parts.ended:
        raise BadMessage("the multipart form is cut off")
    return _named(parts.done)


def _named(parts: list[_Part]) -> Form:
    values, files = {}, {}
    for part in parts:
        _, options = parse_options_header(part.headers.get(b"content-disposition", b""))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if b"filename" in options:
            kind = part.headers.get(b"content-type", b"").decode("latin-1")
            files[name] = File(kind, bytes(part.data))
        elif len(part.data) > VALUE_BYTES_MAX:
            raise BadMessage(f"the value {name[:40]!r} is longer than {VALUE_BYTES_MAX} bytes")
        else:
            values[name] = part.data.decode("utf-8", "replace")
    return Form(values, files)
