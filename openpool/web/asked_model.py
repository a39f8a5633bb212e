"""Which model a request asks for, found while its body is still on its way.

A JSON body is read whole; of a multipart form as much as it takes, which is little where values
stand before files, as they do in most clients' forms.
"""

import msgspec
from msgspec import Struct
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from openpool.core.decoding import UNREADABLE
from openpool.core.errors import BadMessage

WAITING_BYTES_MAX = 32 << 20
"""Of a request whose model is not known yet: a JSON body, or a form that has its file first."""
NAME_CHARS_MAX = 200
VALUE_BYTES_MAX = 1000


class Wanted(Struct, frozen=True):
    """The fields of a request that the pool itself looks at."""

    model: str = ""
    stream: bool | None = None


def read_json(body: bytes) -> Wanted:
    """What a JSON body asks for. Raises BadMessage."""
    try:
        wanted = msgspec.json.decode(body, type=Wanted)
    except msgspec.ValidationError as error:
        raise BadMessage(f"The request is not valid: {error}.") from None
    except UNREADABLE:
        raise BadMessage("The request is not valid JSON.") from None
    return checked(wanted)


def checked(wanted: Wanted) -> Wanted:
    """The same, if the model can be a model's name. Raises BadMessage."""
    if len(wanted.model) > NAME_CHARS_MAX or not wanted.model.isprintable():
        raise BadMessage(f"`model` is a name of up to {NAME_CHARS_MAX} printable characters.")
    return wanted


class FormReader:
    """Looks for `model` and `stream` among the values of a multipart form, chunk by chunk."""

    def __init__(self, content_type: str) -> None:
        """Raises BadMessage if the form has no boundary."""
        _, options = parse_options_header(content_type)
        self.values: dict[str, str] = {}
        self._header = self._field = b""
        self._name: str | None = None
        self._value = b""
        edge = options.get(b"boundary", b"")
        if not edge:
            raise BadMessage("The multipart form has no boundary; let a library make it.")
        self._parser = MultipartParser(
            edge,
            callbacks={
                "on_part_begin": self._begin,
                "on_header_field": self._on_field,
                "on_header_value": self._on_value,
                "on_header_end": self._on_header,
                "on_part_data": self._on_data,
                "on_part_end": self._on_part,
            },
        )

    def feed(self, chunk: bytes) -> None:
        """Take the next chunk. Raises BadMessage."""
        try:
            self._parser.write(chunk)
        except MultipartParseError:
            raise BadMessage("The multipart form cannot be read.") from None

    @property
    def wanted(self) -> Wanted:
        """What was found by now. Raises BadMessage."""
        stream = self.values.get("stream", "").lower() == "true"
        return checked(Wanted(self.values.get("model", ""), stream))

    def _begin(self) -> None:
        self._name, self._value = None, b""

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header(self) -> None:
        if self._field.lower() == b"content-disposition":
            _, options = parse_options_header(self._header)
            if b"filename" not in options:
                self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._field = self._header = b""

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._name in ("model", "stream") and len(self._value) < VALUE_BYTES_MAX:
            self._value += data[start:end]

    def _on_part(self) -> None:
        if self._name in ("model", "stream"):
            self.values[self._name] = self._value.decode("utf-8", "replace")
