"""Requests with values and files: three ways to send them, one way to read them."""

import base64

import aiohttp
import pytest

from openpool.core.errors import BadMessage
from openpool.wire import forms
from openpool.wire.forms import File, Form, read_form

PICTURE = bytes(range(256)) * 40


async def _multipart() -> tuple[str, bytes]:
    """A form as a real client writes it."""
    form = aiohttp.FormData()
    form.add_field("prompt", "a cat")
    form.add_field("image", PICTURE, filename="cat.png", content_type="image/png")
    payload = form()

    class Sink:
        data = b""

        async def write(self, chunk: bytes) -> None:
            self.data += chunk

    sink = Sink()
    await payload.write(sink)  # type: ignore[arg-type]  # a sink for bytes is all it needs
    return payload.content_type, sink.data


async def test_three_ways_are_one() -> None:
    """A form, a JSON object with a data URL, and a bare body give the same file."""
    wanted = File("image/png", PICTURE)
    kind, body = await _multipart()
    assert read_form(kind, body, "image") == Form({"prompt": "a cat"}, {"image": wanted})
    url = "data:image/png;base64," + base64.b64encode(PICTURE).decode()
    as_json = b'{"prompt":"a cat","image":"%s","box":[1,2,3,4]}' % url.encode()
    found = read_form("application/json; charset=utf-8", as_json, "image")
    assert found == Form({"prompt": "a cat", "box": "[1,2,3,4]"}, {"image": wanted})
    assert read_form("image/png", PICTURE, "image").files == {"image": wanted}


async def test_a_cut_form_is_refused() -> None:
    """Half a form is one clear sentence, not half a picture."""
    kind, body = await _multipart()
    with pytest.raises(BadMessage, match="cut off"):
        read_form(kind, body[: len(body) // 2], "image")


@pytest.mark.parametrize(
    ("kind", "body", "sentence"),
    [
        ("multipart/form-data", b"--x", "cannot be read"),
        ("multipart/form-data; boundary=x", b"nonsense", "cannot be read"),
        ("application/json", b"[1]", "not a JSON object"),
        ("application/json", b'{"a":' * 100_000, "not a JSON object"),
        ("application/json", b'{"a":"\xff"}', "not a JSON object"),
        ("application/json", b'{"image":"data:image/png;base64,!!!"}', "not valid base64"),
        ("application/json", b'{"image":"data:image/png,abc"}', "base64 data: URL"),
    ],
)
def test_nonsense_is_one_sentence(kind: str, body: bytes, sentence: str) -> None:
    """A body that is not what its content type says is refused in words."""
    with pytest.raises(BadMessage, match=sentence):
        read_form(kind, body, "image")


def test_too_many_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A form of a million parts costs what its first few cost."""
    monkeypatch.setattr(forms, "PARTS_MAX", 3)
    part = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n'
    with pytest.raises(BadMessage, match="more than 3 parts"):
        read_form("multipart/form-data; boundary=x", part * 9 + b"--x--\r\n", "image")


def test_a_missing_file_is_named() -> None:
    """A request without its picture is told which file is missing."""
    with pytest.raises(BadMessage, match="no file 'image'"):
        Form({}, {}).file("image", "file")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b'{"image": "https://example.org/cat.png"}'),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\ncat.png\r\n--b--\r\n',
        ),
    ],
)
def test_an_address_or_a_files_name_in_place_of_a_file(kind: str, body: bytes) -> None:
    """Who sends where a file is, instead of the file, is told how to send it."""
    with pytest.raises(BadMessage, match=r"'image' is a text and no file: .* -F image=@FILE"):
        read_form(kind, body, "image").file("image")
