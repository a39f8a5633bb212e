"""How an orchestrator reads the results that transcoders upload: leniently, and with its own words.

Kept apart from the code that *writes* results on purpose: whatever the pool sends is read here by
rules that were not made for it. See docs/protocol.md for the rules.
"""

import re
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

MAX_PART_BYTES = 300_000_000
MAX_PARTS = 100
INT64 = range(-(2**63), 2**63)
_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"


class Unreadable(Exception):
    """The upload cannot be read; the text is what the orchestrator answers and reports."""


@dataclass(slots=True)
class Part:
    """One finished rendition as it was uploaded."""

    data: bytes
    pixels: int
    perceptual_hash: bytes | None = None


@dataclass(slots=True)
class _RawPart:
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    header_name: bytes = b""
    header_value: bytes = b""


def media_type(content_type: str) -> tuple[str, str]:
    """The media type in lower case, and its boundary parameter if it has one."""
    name, options = parse_options_header(content_type)
    if not name:
        raise Unreadable("mime: no media type")
    text = name.decode("latin-1")
    if not re.match(f"{_NAME}(/|$)", text):
        raise Unreadable("mime: expected slash after first token")
    if not re.fullmatch(f"{_NAME}(/{_NAME})?", text):
        raise Unreadable("mime: expected token after slash")
    if any(name and not value for name, value in options.items()):
        raise Unreadable("mime: invalid media parameter")
    return text, options.get(b"boundary", b"").decode("latin-1")


def int64(text: str) -> int:
    """A decimal number as the wire means it: no spaces, no underscores, 64 bits."""
    if not re.fullmatch(r"[+-]?[0-9]{1,19}", text) or int(text) not in INT64:
        raise Unreadable(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    return int(text)


class ResultReader:
    """Reads a multipart result as it arrives. `feed` and `close` raise Unreadable."""

    def __init__(self, boundary: str) -> None:
        if not boundary:
            raise Unreadable("multipart: boundary is empty")
        self._raw: list[_RawPart] = []
        self._first = b"--" + boundary.encode("latin-1")
        self._preamble: bytearray | None = bytearray()
        """What came before the first boundary, which is skipped; None from there on."""
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_part_data": self._data,
                    "on_header_field": self._header_field,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_end,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise Unreadable(f"multipart: {error}") from None

    def feed(self, chunk: bytes) -> None:
        if self._preamble is not None:
            self._preamble += chunk
            start = self._preamble.find(self._first)
            if start < 0:
                del self._preamble[: -len(self._first)]
                return
            chunk, self._preamble = bytes(self._preamble[start:]), None
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise Unreadable(f"multipart: {error}") from None

    def close(self) -> list[Part]:
        """All renditions, after the last byte."""
        if not self._ended:
            raise Unreadable("unexpected EOF" if self._raw else "multipart: NextPart: EOF")
        parts: list[Part] = []
        for raw in self._raw:
            if "pixels" in raw.headers:
                parts.append(Part(bytes(raw.body), int64(raw.headers["pixels"])))
            elif raw.headers.get("content-type") == "application/octet-stream":
                if not parts:
                    raise Unreadable("Unknown perceptual hash")
                parts[-1].perceptual_hash = bytes(raw.body)
        return parts

    def _begin(self) -> None:
        if len(self._raw) == MAX_PARTS:
            raise Unreadable("multipart: too many parts")
        self._raw.append(_RawPart())

    def _data(self, data: bytes, start: int, end: int) -> None:
        body = self._raw[-1].body
        body += memoryview(data)[start:end]
        if len(body) > MAX_PART_BYTES:
            raise Unreadable("input bigger than max buffer size")

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._raw[-1].header_name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._raw[-1].header_value += data[start:end]

    def _header_end(self) -> None:
        part = self._raw[-1]
        name = part.header_name.decode("latin-1").lower()
        part.headers.setdefault(name, part.header_value.decode("latin-1").strip())
        part.header_name = part.header_value = b""

    def _end(self) -> None:
        self._ended = True
