"""A language model in a GGUF file, run by llama.cpp through xllamacpp.

The file is named by the option `file`, or lies in the cache under the model's name. llama.cpp's own
server runs in this process and is asked over the loopback, with a key that nobody else has: it
batches the requests that come at once, and stops those whose client has left. Only the fields of
OpenAI's request are handed on: others of llama.cpp's could touch files and slots.
"""

import importlib.util
import secrets
from collections.abc import Iterator
from contextlib import closing, suppress
from http.client import HTTPConnection
from pathlib import Path
from socket import SHUT_RDWR
from typing import ClassVar
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from openpool.worker.runtimes.asking import read_json
from openpool.worker.runtimes.base import (
    BadRequest,
    Hangup,
    ModelMissing,
    Runtime,
    RuntimeAnswer,
    RuntimeRequest,
)
from openpool.worker.runtimes.folders import missing_words
from openpool.worker.runtimes.options import KnownOptions, by_name, switch, text, whole

FILE = text("file", "the GGUF file")
CONTEXT = whole(
    "context", "tokens of prompt and answer together, of each request (4096)", 16, 1 << 24, 4096
)
GPU_LAYERS = whole(
    "gpu_layers", "layers on the graphics card; all that fit, if left out", 0, 10_000, -1
)
THREADS = whole("threads", "cores that it may use; all, if left out", 1, 1024, -1)
REUSE_PROMPTS = switch("reuse_prompts", "keep what was computed for the beginnings of prompts")
PATH = "/v1/chat/completions"
FIELDS = frozenset({
    "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "stop", "seed",
    "stream", "stream_options", "frequency_penalty", "presence_penalty", "logit_bias", "logprobs",
    "top_logprobs", "response_format", "tools", "tool_choice", "parallel_tool_calls",
})  # fmt: skip
"""What a client may say about a completion."""

BODY_BYTES_MIN = 65_536
TOKEN_BYTES_MAX = 32
"""Of a request, for each token of the context: texts have about four."""
ENTRIES_MAX = {"logit_bias": 1024, "stop": 16}
RULES_BYTES_MAX = 32_768
"""Of what the answer is to look like: llama.cpp makes a grammar of it, while all others wait."""
TOP_LOGPROBS_MAX = 20

OWN_FAULTS = frozenset({"Compute error.", "Invalid input batch."})
"""What llama.cpp says when it fails itself: its status is no guide, bad tools are a 500 as well."""

Fields = dict[str, object]


class Fault(Struct, frozen=True):
    """What is wrong, in llama.cpp's words."""

    message: str


class Refusal(Struct, frozen=True):
    """The body of an answer that is none."""

    error: Fault


class Llm(Runtime):
    """Chat completions, whole or as a stream of events."""

    pipeline: ClassVar[str] = "llm"
    paths: ClassVar[tuple[str, ...]] = (PATH,)
    streaming: ClassVar[bool] = True
    concurrent: ClassVar[bool] = True
    known_options: ClassVar[KnownOptions] = by_name(
        FILE, CONTEXT, GPU_LAYERS, THREADS, REUSE_PROMPTS
    )

    @classmethod
    def missing(cls) -> str:
        found = importlib.util.find_spec("xllamacpp")
        return "" if found else "a language model needs: pip install 'openpool[ai]'"

    def load(self) -> None:
        import xllamacpp  # type: ignore[import-untyped]  # compiled

        params = xllamacpp.CommonParams()
        params.model.path = str(self._file())
        params.model_alias = {self.model}
        params.n_parallel = self.parallel
        self._context = CONTEXT.of(self.options)
        params.n_ctx = self._context * self.parallel
        params.warmup = False
        # otherwise a customer could measure what another has asked
        params.cache_prompt = REUSE_PROMPTS.of(self.options)
        if not params.cache_prompt:
            params.cache_ram_mib = 0
        self._key = secrets.token_hex()
        params.api_keys = [self._key]
        params.ui = params.endpoint_slots = params.endpoint_props = False
        params.n_gpu_layers = GPU_LAYERS.of(self.options)
        params.cpuparams.n_threads = THREADS.of(self.options)
        self._server = xllamacpp.Server(params)

    def _file(self) -> Path:
        if file := FILE.of(self.options):
            path = Path(file).expanduser()
            if not path.is_file():
                raise ModelMissing(f"There is no file {path}.")
            return path
        folder = self.cache / self.model
        found = sorted(folder.glob("*.gguf"))
        if not found:
            raise ModelMissing(missing_words(self.model, folder))
        return found[0]

    def answer(self, request: RuntimeRequest) -> RuntimeAnswer:
        _check_bytes(request.body, self._context)
        fields = _fields(request.body)
        asked = _Asked(self._connection(), self._key, fields, request.hangup)
        if fields.get("stream"):
            return RuntimeAnswer(content_type="text/event-stream", body=_Events(asked))
        return RuntimeAnswer(body=asked.read())

    def _connection(self) -> HTTPConnection:
        return HTTPConnection(urlsplit(self._server.listening_address).netloc)


class _Asked:
    """One request to the server in this process, and its answer."""

    def __init__(self, server: HTTPConnection, key: str, fields: Fields, hangup: Hangup) -> None:
        """Wait until the answer begins. Raises BadRequest if llama.cpp refuses the request."""
        server.connect()
        self._server = server
        self._socket = server.sock
        hangup.then(self._stop)
        headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
        try:
            server.request("POST", PATH, msgspec.json.encode(fields), headers)
            self._answer = server.getresponse()
            if self._answer.status != 200:
                raise _error(self._answer.read())
        except BaseException:
            server.close()
            raise

    def read(self) -> bytes:
        """All of the answer."""
        with closing(self):
            return self._answer.read()

    def line(self) -> bytes:
        """The answer's next line; empty at its end."""
        return self._answer.readline()

    def close(self) -> None:
        """No more of it is wanted."""
        self._stop()
        self._answer.close()
        self._server.close()

    def _stop(self) -> None:
        """From any thread: llama.cpp stops when it notices that nobody listens."""
        with suppress(OSError):  # it is over
            self._socket.shutdown(SHUT_RDWR)


class _Events(Iterator[bytes]):
    """The events of a stream; closing it, even unread, stops the model."""

    def __init__(self, asked: _Asked) -> None:
        self._asked = asked

    def __next__(self) -> bytes:
        event = b""
        while not event.endswith(b"\n\n") and (line := self._asked.line()):
            event += line
        if event.startswith((b"error:", b'data: {"error"')):
            raise _error(event.partition(b":")[2])
        if not event:
            self.close()
            raise StopIteration
        return event

    def close(self) -> None:
        self._asked.close()


def _error(body: bytes) -> Exception:
    """What llama.cpp says is wrong: with the request, unless it is known to be its own fault."""
    try:
        words = msgspec.json.decode(body, type=Refusal).error.message
    except ValueError:
        return RuntimeError("the model gave no usable answer")
    return RuntimeError(words) if words in OWN_FAULTS else BadRequest(words[:300])


def _check_bytes(body: bytes, context: int) -> None:
    """What cannot fit into the context is refused before llama.cpp counts tokens for minutes."""
    most = max(BODY_BYTES_MIN, context * TOKEN_BYTES_MAX)
    if len(body) > most:
        raise BadRequest(
            f"the request has {len(body)} bytes; a context of {context} tokens takes at most {most}"
        )


def _check_sizes(asked: Fields) -> None:
    """Lists at which llama.cpp would work for minutes, while the process's other requests wait."""
    for name, most in ENTRIES_MAX.items():
        value = asked.get(name)
        if isinstance(value, list | dict) and len(value) > most:
            raise BadRequest(f"{name} has {len(value)} entries; at most {most} are taken")
    rules = msgspec.json.encode([asked.get("response_format"), asked.get("tools")])
    if len(rules) > RULES_BYTES_MAX:
        raise BadRequest(
            f"response_format and tools have {len(rules)} bytes; at most {RULES_BYTES_MAX} "
            "are taken"
        )
    likeliest = asked.get("top_logprobs")
    if likeliest is not None and likeliest not in range(TOP_LOGPROBS_MAX + 1):
        raise BadRequest(f"top_logprobs must be a whole number from 0 to {TOP_LOGPROBS_MAX}")


def _fields(body: bytes) -> Fields:
    """The fields of a request that are handed on. Raises BadRequest."""
    asked = read_json(body, dict[str, object], "a chat request")
    messages = asked.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("messages must be a list of at least one message")
    if asked.get("n", 1) != 1:
        raise BadRequest("n must be 1: one answer to a request")
    _check_sizes(asked)
    limit = asked.get("max_tokens", asked.get("max_completion_tokens"))
    if limit is not None and not (isinstance(limit, int) and limit > 0):
        raise BadRequest("max_tokens must be a whole number above 0")
    return {name: value for name, value in asked.items() if name in FIELDS and value is not None}
