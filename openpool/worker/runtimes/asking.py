"""What runtimes have in common: a request in JSON or as a form, its picture, an answer in JSON."""

from typing import TYPE_CHECKING, TypeVar

import msgspec

from openpool.core.decoding import UNREADABLE
from openpool.core.errors import BadMessage
from openpool.wire.forms import Form, read_form
from openpool.worker.runtimes.base import BadRequest, RuntimeAnswer, RuntimeRequest
from openpool.worker.runtimes.images import open_picture

if TYPE_CHECKING:
    from openpool.worker.runtimes.images import Picture


Asked = TypeVar("Asked")


def read_json(body: bytes | bytearray, kind: type[Asked], what: str) -> Asked:
    """The body as a value of this kind, which is called `what`. Raises BadRequest."""
    try:
        return msgspec.json.decode(body, type=kind)
    except UNREADABLE as fault:
        raise BadRequest(f"the body is not {what} in JSON: {fault}") from None


def form_of(request: RuntimeRequest, bare: str = "image") -> Form:
    """The values and files of the request. Raises BadRequest."""
    try:
        return read_form(request.content_type, request.body, bare)
    except BadMessage as fault:
        raise BadRequest(str(fault)) from None


def picture_of(form: Form) -> "Picture":
    """The form's picture. Raises BadRequest."""
    try:
        return open_picture(form.file("image", "file"))
    except BadMessage as fault:
        raise BadRequest(str(fault)) from None


def number_of(form: Form, name: str, default: float, low: float, high: float) -> float:
    """A number among the form's values. Raises BadRequest."""
    text = form.values.get(name, "")
    return number(name, text, low, high) if text else default


def number(name: str, text: str, low: float, high: float) -> float:
    """The text as a number from low to high. Raises BadRequest."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise BadRequest(f"{name} must be a number from {low:g} to {high:g}, not {text[:40]!r}")
    return value


def json_answer(body: object) -> RuntimeAnswer:
    """The body as JSON, status 200."""
    return RuntimeAnswer(body=msgspec.json.encode(body))
