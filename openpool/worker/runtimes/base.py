"""The shape of a runtime. It lives in a child process and may crash there without harm.

A runtime is constructed from its settings (cheap, no imports of heavy libraries), loads its model
once, and answers requests one after the other in the thread that loaded it. Requests and answers
are HTTP in values: what arrives at `POST /v1/...` of the pool reaches `answer` as it was sent.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from msgspec import Struct


class RuntimeRequest(Struct, frozen=True, kw_only=True):
    """One request, whole: bodies of single requests are bounded by the pool."""

    path: str
    """Below the app, such as `/v1/chat/completions` or `/ocr`."""
    content_type: str
    body: bytes


class RuntimeAnswer(Struct, frozen=True, kw_only=True):
    """The head of an answer and its body: bytes, or chunks as they come (SSE)."""

    status: int = 200
    content_type: str = "application/json"
    body: bytes | Iterator[bytes] = b""


class BadRequest(Exception):
    """The request is at fault; the text is told to the client with status 400."""


class ModelMissing(Exception):
    """The model is not on this machine and cannot be had; one sentence for the worker's owner."""


class Runtime(ABC):
    """One model serving one pipeline."""

    pipeline: ClassVar[str]
    paths: ClassVar[tuple[str, ...]]
    """Request paths it answers."""
    streaming: ClassVar[bool] = False
    session: ClassVar[bool] = False
    """Whether it serves long sessions too: then `open` is called for a framed request body."""
    known_options: ClassVar[Mapping[str, str] | None] = None
    """The options it has, each with its meaning; None takes any without a check."""

    def __init__(self, model: str, options: Mapping[str, str], cache: Path) -> None:
        self.model = model
        self.options = options
        self.cache = cache
        """Where downloaded models are kept."""

    @classmethod
    def missing(cls) -> str:
        """What has to be installed before this can run, in one sentence; empty if nothing."""
        return ""

    @abstractmethod
    def load(self) -> None:
        """Bring the model into memory. Raises ModelMissing."""

    @abstractmethod
    def answer(self, request: RuntimeRequest) -> RuntimeAnswer:
        """Serve one request. Raises BadRequest."""

    def open(self, options: Mapping[str, str]) -> "Session":
        """Begin a session with what the client asked for (its query string). Raises BadRequest."""
        raise BadRequest(f"{self.model} serves single requests, not sessions")

    def vram_mb(self) -> int:
        """Graphics memory that the loaded model takes; 0 on a CPU."""
        return 0


class Session(ABC):
    """One client's stream of messages, in the thread that loaded the model.

    The request's body is a row of messages (`wire.framing`: four bytes of length, then as many
    bytes); the answer's body, `application/jsonl`, is what `feed` yields, sent on as it comes.
    Several sessions of one runtime take turns message by message, so a message must be short work.
    """

    @abstractmethod
    def feed(self, message: bytes) -> Iterator[bytes]:
        """Take the client's next message and yield whole lines of the answer. Raises BadRequest."""

    def close(self) -> None:  # noqa: B027 (most hold nothing)
        """The client is done or gone: let go of what this session holds. Called exactly once."""
