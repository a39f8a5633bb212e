"""The shape of a runtime. It lives in a child process and may crash there without harm.

A runtime is constructed from its settings (cheap, no imports of heavy libraries), loads its model
once, and answers requests one after the other in the thread that loaded it, unless it says that it
is `concurrent`. Requests and answers are HTTP in values: what arrives at `POST /v1/...` of the pool
reaches `answer` as it was sent.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from msgspec import Struct, field

from openpool.worker.runtimes.options import KnownOptions
from openpool.worker.runtimes.vram import used_vram_mb


class Hangup:
    """How a request in a thread of its own hears from another one that nobody wants it any more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._acts: list[Callable[[], object]] = []
        self._happened = False

    def then(self, act: Callable[[], object]) -> None:
        """Do this when it happens, in the thread that says so; at once if it has happened."""
        with self._lock:
            if not self._happened:
                self._acts.append(act)
                return
        act()

    def happen(self) -> None:
        """The client is gone, or its time is over."""
        with self._lock:
            self._happened = True
            acts, self._acts = self._acts, []
        for act in acts:
            act()


class RuntimeRequest(Struct, frozen=True, kw_only=True):
    """One request, whole: bodies of single requests are bounded by the pool."""

    path: str
    """Below the app, such as `/v1/chat/completions` or `/ocr`."""
    content_type: str
    body: bytes
    hangup: Hangup = field(default_factory=Hangup)
    """Of interest to concurrent runtimes: the others are between two chunks when it happens."""


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
    concurrent: ClassVar[bool] = False
    """Whether it serves several requests at once: then `answer` runs in a thread for each, and has
    to end soon after the request's `hangup`."""
    parallel: int = 1
    """How many requests at once the worker's owner wants, if it is concurrent."""
    known_options: ClassVar[KnownOptions | None] = None
    """The options it has; None takes any without a check."""

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
        """Graphics memory that the loaded model takes: by default, what this process takes."""
        return used_vram_mb()


class Session(ABC):
    """One client's stream of messages, in the thread that loaded the model.

    The request's body is a row of messages (`wire.framing`: four bytes of length, then as many
    bytes); the answer's body, `application/jsonl`, is what `feed` yields, sent on as it comes.
    Several sessions of one runtime take turns after every piece that is yielded. Whoever works for
    long on a message yields an empty piece now and then: else the others wait, and a client who
    leaves has the process killed under them.
    """

    @abstractmethod
    def feed(self, message: bytes) -> Iterator[bytes]:
        """Take the client's next message and yield whole lines of the answer, or nothing for a
        pause. Raises BadRequest."""

    def close(self) -> None:  # noqa: B027 (most hold nothing)
        """The client is done or gone: let go of what this session holds. Called exactly once."""
