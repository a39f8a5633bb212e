"""A language model in a GGUF file, run by llama.cpp through xllamacpp.

The file is named by the option `file`, or lies in the cache under the model's name. Only the fields
of OpenAI's request are handed on: others of llama.cpp's could touch files and slots.
"""

import importlib.util
import queue
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import msgspec

from openpool.worker.runtimes.base import (
    BadRequest,
    ModelMissing,
    Runtime,
    RuntimeAnswer,
    RuntimeRequest,
)
from openpool.worker.runtimes.folders import missing_words
from openpool.worker.runtimes.vram import used_vram_mb

CONTEXT = 4096
CHUNKS_WAITING_MAX = 64
FIELDS = frozenset({
    "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "stop", "seed",
    "stream", "stream_options", "frequency_penalty", "presence_penalty", "logit_bias", "logprobs",
    "top_logprobs", "response_format", "tools", "tool_choice", "parallel_tool_calls",
})  # fmt: skip
"""What a client may say about a completion."""

Fields = dict[str, object]


class Llm(Runtime):
    """Chat completions, whole or as a stream of events."""

    pipeline: ClassVar[str] = "llm"
    paths: ClassVar[tuple[str, ...]] = ("/v1/chat/completions",)
    streaming: ClassVar[bool] = True
    known_options: ClassVar[Mapping[str, str]] = {
        "file": "The GGUF file",
        "context": f"Tokens of prompt and answer together, {CONTEXT} if left out",
        "gpu_layers": "Layers of the model on the graphics card; all that fit, if left out",
        "threads": "Cores that it may use; as many as there are, if left out",
    }

    @classmethod
    def missing(cls) -> str:
        found = importlib.util.find_spec("xllamacpp")
        return "" if found else "a language model needs: pip install 'openpool[ai]'"

    def load(self) -> None:
        import xllamacpp  # type: ignore[import-untyped]  # compiled

        params = xllamacpp.CommonParams()
        params.model.path = str(self._file())
        params.model_alias = {self.model}
        params.n_ctx = int(self.options.get("context", CONTEXT))
        params.n_parallel = 1
        params.warmup = False
        if "gpu_layers" in self.options:
            params.n_gpu_layers = int(self.options["gpu_layers"])
        if "threads" in self.options:
            params.cpuparams.n_threads = int(self.options["threads"])
        self._server = xllamacpp.Server(params)

    def _file(self) -> Path:
        if "file" in self.options:
            path = Path(self.options["file"]).expanduser()
            if not path.is_file():
                raise ModelMissing(f"There is no file {path}.")
            return path
        folder = self.cache / self.model
        found = sorted(folder.glob("*.gguf"))
        if not found:
            raise ModelMissing(missing_words(self.model, folder))
        return found[0]

    def answer(self, request: RuntimeRequest) -> RuntimeAnswer:
        fields = _fields(request.body)
        events = _Events(self._server, fields)
        first = events.first()
        if fields.get("stream"):
            return RuntimeAnswer(content_type="text/event-stream", body=_Stream(first, events))
        return RuntimeAnswer(body=msgspec.json.encode(first))

    def vram_mb(self) -> int:
        return used_vram_mb()


class _Events:
    """What llama.cpp says, carried from its call-back to whoever iterates."""

    def __init__(self, server: object, fields: Fields) -> None:
        self._server = server
        self._fields = fields
        self._waiting: queue.Queue[Fields | Exception | None] = queue.Queue(CHUNKS_WAITING_MAX)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def first(self) -> Fields:
        """The first event. Raises BadRequest if llama.cpp refuses the request."""
        first = self._next()
        if first is None:
            raise RuntimeError("the model gave no answer")
        return first

    def __iter__(self) -> Iterator[Fields]:
        while (event := self._next()) is not None:
            yield event

    def stop(self) -> None:
        """No more of it is wanted."""
        self._stopped.set()
        while self._thread.is_alive():
            try:
                self._waiting.get(timeout=0.05)
            except queue.Empty:
                continue

    def _next(self) -> Fields | None:
        event = self._waiting.get()
        if isinstance(event, Exception):
            raise BadRequest(str(event)[:300]) from None
        if event is not None and isinstance(error := event.get("error"), dict):
            if error.get("code") == 400:
                raise BadRequest(str(error.get("message"))[:300])
            raise RuntimeError(str(error.get("message")))
        return event

    def _run(self) -> None:
        try:
            self._server.handle_chat_completions(self._fields, self._hear)  # type: ignore[attr-defined]  # compiled, untyped
        except (ValueError, RuntimeError, TypeError) as error:
            self._hear(error)
        self._hear(None)

    def _hear(self, event: Fields | Exception | None) -> bool:
        """Keep an event; tells llama.cpp whether to stop."""
        while not self._stopped.is_set():
            try:
                self._waiting.put(event, timeout=0.1)
            except queue.Full:
                continue
            return False
        return True


class _Stream(Iterator[bytes]):
    """The events as they are sent to the client; closing it, even unread, stops the model."""

    def __init__(self, first: Fields, events: _Events) -> None:
        self._events = events
        self._lines = self._written(first)

    def __next__(self) -> bytes:
        return next(self._lines)

    def close(self) -> None:
        self._events.stop()

    def _written(self, first: Fields) -> Iterator[bytes]:
        yield _event(first)
        for event in self._events:
            yield _event(event)
        yield b"data: [DONE]\n\n"


def _event(fields: Fields) -> bytes:
    return b"data: " + msgspec.json.encode(fields) + b"\n\n"


def _fields(body: bytes) -> Fields:
    """The fields of a request that are handed on. Raises BadRequest."""
    try:
        asked = msgspec.json.decode(body, type=dict[str, object])
    except (msgspec.MsgspecError, RecursionError):
        raise BadRequest("the body is not a JSON object") from None
    messages = asked.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("messages must be a list of at least one message")
    if asked.get("n", 1) != 1:
        raise BadRequest("n must be 1: one answer to a request")
    limit = asked.get("max_tokens", asked.get("max_completion_tokens"))
    if limit is not None and not (isinstance(limit, int) and limit > 0):
        raise BadRequest("max_tokens must be a whole number above 0")
    return {name: value for name, value in asked.items() if name in FIELDS and value is not None}
