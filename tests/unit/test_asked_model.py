"""Which model a request asks for, however its body is cut."""

import pytest

from openpool.core.errors import BadMessage
from openpool.web.asked_model import FormReader, Wanted, read_json

KIND = "multipart/form-data; boundary=edge"


def part(name: str, value: bytes, file: str = "") -> bytes:
    more = f'; filename="{file}"' if file else ""
    head = f'--edge\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode() + value + b"\r\n"


def read(body: bytes, step: int) -> Wanted:
    reader = FormReader(KIND)
    for start in range(0, len(body), step):
        reader.feed(body[start : start + step])
    return reader.wanted


@pytest.mark.parametrize("step", [1, 7, 10_000])
@pytest.mark.parametrize("file_first", [True, False])
def test_a_form_is_read_in_any_pieces(step: int, file_first: bool) -> None:
    """Values are found before and behind the file, wherever the body is cut."""
    file = part("file", b'\r\n--edg name="model"' * 20, "a.wav")
    values = part("model", b"whisper") + part("language", b"en") + part("stream", b"true")
    body = (file + values if file_first else values + file) + b"--edge--\r\n"
    assert read(body, step) == Wanted("whisper", True)


def test_a_file_called_model_is_no_name() -> None:
    """Only values count; a file under that name is left alone."""
    assert read(part("model", b"x" * 5000, "model.bin") + b"--edge--\r\n", 100).model == ""


def test_a_value_as_long_as_a_file_is_no_name() -> None:
    """A name that is too long is refused, and never kept whole."""
    with pytest.raises(BadMessage, match="200 printable"):
        read(part("model", b"x" * 1_000_000) + b"--edge--\r\n", 1000)


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary="])
def test_a_form_without_an_edge_is_refused(kind: str) -> None:
    """What cannot be read is one sentence."""
    with pytest.raises(BadMessage, match="multipart form"):
        FormReader(kind).feed(b"--")


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b'{"model": null}', b'{"model": "a\\nb"}', b"\xff", b"{" * 9999]
)
def test_json_that_names_no_model_right_is_refused(body: bytes) -> None:
    """Nothing but an object with a text is taken."""
    with pytest.raises(BadMessage):
        read_json(body)


def test_the_rest_of_a_json_body_does_not_matter() -> None:
    """The pool reads two fields and leaves all others to the worker."""
    body = b'{"model": "a/b", "stream": true, "messages": [{"role": 7}], "x": null}'
    assert read_json(body) == Wanted("a/b", True)
