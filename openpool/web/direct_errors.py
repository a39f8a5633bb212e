"""Errors of the customers' API in OpenAI's shape: `{"error": {"message", "type", "code"}}`.

One table says what an error of ours is to OpenAI's clients, which know some codes and try again
by themselves at 408, 409, 429 and from 500 on. What is not ours is our bug: logged, never shown.
"""

import traceback
from collections.abc import Mapping, Sequence

import msgspec
import structlog
from msgspec import Struct

from openpool.core.decoding import UNREADABLE
from openpool.core.errors import OpenPoolError

MESSAGE_CHARS_MAX = 1000
NAMES_SHOWN = 20


class _Meaning(Struct, frozen=True):
    status: int
    type: str
    code: str


INVALID = "invalid_request_error"
MEANINGS: dict[str, _Meaning] = {
    "unauthorized": _Meaning(401, INVALID, "invalid_api_key"),
    "limit-reached": _Meaning(429, "requests", "rate_limit_exceeded"),
    "spend-limit-reached": _Meaning(429, "insufficient_quota", "insufficient_quota"),
    "too-large": _Meaning(413, INVALID, "request_too_large"),
    "too-slow": _Meaning(408, INVALID, "request_too_slow"),
    "bad-message": _Meaning(400, INVALID, "invalid_request"),
    "no-such-app": _Meaning(404, INVALID, "model_not_found"),
    "insufficient-capacity": _Meaning(503, "server_error", "insufficient_capacity"),
    "timeout": _Meaning(504, "server_error", "timeout"),
    "worker-failed": _Meaning(502, "server_error", "worker_failed"),
    "pool-restarted": _Meaning(503, "server_error", "unavailable"),
    "unavailable": _Meaning(503, "server_error", "unavailable"),
}
OTHER = _Meaning(500, "server_error", "internal_error")
CODES = {400: "invalid_request", 404: "not_found", 413: "request_too_large"}


class Wrong(Exception):
    """An answer that says what is wrong."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID,
        code: str = "",
        cause: BaseException | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message[:MESSAGE_CHARS_MAX]
        self.kind = kind
        self.code = code or CODES.get(status, "invalid_request")
        self.cause = cause

    @property
    def headers(self) -> Mapping[str, str]:
        """That go with it."""
        if self.status == 401:
            return {"www-authenticate": "Bearer"}
        return {"retry-after": "1"} if self.status in (429, 503) else {}

    def shape(self) -> object:
        """As OpenAI's clients read it."""
        error = {"message": self.message, "type": self.kind, "param": None, "code": self.code}
        return {"error": error}

    @classmethod
    def from_worker(cls, status: int, body: bytes) -> "Wrong":
        """What a worker said about a bad request, as text that is safe to show."""
        try:
            said = msgspec.json.decode(body, type=_Said)
            message, code = said.error.message, said.error.code or ""
        except UNREADABLE:
            message, code = body.decode("utf-8", "replace"), ""
        message = "".join(c if c.isprintable() else " " for c in message).strip()
        return cls(
            status if status in (400, 404, 413, 415, 422) else 400,
            message or "The worker refused the request without a reason.",
            code=code[:100] if code.isprintable() else "",
        )


class NoSuchModel(Wrong):
    """Names the models that there are."""

    def __init__(self, model: str, known: Sequence[str]) -> None:
        named = f"There is no model `{model[:100]}` here" if model else "Say which `model` you want"
        names = ", ".join(list(dict.fromkeys(known))[:NAMES_SHOWN])
        there = f"there is: {names}" if names else "no worker offers one for this at the moment"
        super().__init__(404 if model else 400, f"{named}; {there}.", code="")
        self.code = "model_not_found" if model else "model_missing"


class _Error(Struct):
    message: str
    code: str | None = None


class _Said(Struct):
    error: _Error


def wrong_of(error: BaseException) -> Wrong:
    """What to tell a customer about an error."""
    if isinstance(error, Wrong):
        return error
    if isinstance(error, OpenPoolError):
        known = [error.code, *(getattr(each, "code", "") for each in type(error).__mro__)]
        meaning = next((MEANINGS[code] for code in known if code in MEANINGS), OTHER)
        return Wrong(meaning.status, str(error), kind=meaning.type, code=meaning.code, cause=error)
    trace = "".join(traceback.format_exception(error, limit=-8))
    structlog.get_logger("web").error("request-failed", trace=trace)
    return Wrong(
        OTHER.status,
        "Something went wrong inside the pool; its log says what.",
        kind=OTHER.type,
        code=OTHER.code,
        cause=error,
    )


def error_event(wrong: Wrong) -> bytes:
    """The last event of a stream that could not go on."""
    return b"data: %s\n\n" % msgspec.json.encode(wrong.shape())
