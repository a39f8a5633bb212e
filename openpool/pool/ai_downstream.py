"""Stock AI workers of the older kind: they register by gRPC, are notified of jobs, post results.

To the exchange each of them is a line like any other: its models are offers, a call becomes a job
with its input under an address that nobody can guess, and what it posts is the call's answer. A
stock worker cannot be told to stop; what it posts too late is refused. Read next: `pool.ai_calls`.
"""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

import msgspec
import structlog

from openpool.core.calls import App, Offer
from openpool.core.errors import (
    BadMessage,
    Banned,
    NoCapacity,
    OpenPoolError,
    PeerError,
    Unavailable,
)
from openpool.link.interface import AiStream, Caller, Download, Ended, GrpcStatus, Reply
from openpool.link.line import BrokenOff, NotAnswered
from openpool.link.line_client import Answer, Hello
from openpool.link.line_stream import Body
from openpool.pool.ai_calls import SERVED, THEIRS, answer_of, app_of, job_of
from openpool.pool.exchange import Exchange, KnownWorker
from openpool.wire.ai_messages import AiJob, RegisterAi
from openpool.wire.ai_results import (
    AI_ERROR_TYPE,
    EVENTS_TYPE,
    AiHeaders,
    AiResult,
    AiResultParser,
    read_ai_headers,
)
from openpool.wire.results import ERROR_BYTES_MAX, BadUpload, error_text

log = structlog.get_logger()

INPUTS_PATH = "/ai-inputs/"
CAPACITY_MAX = 1_000
PIECES_MAX = 64
"""Of a streamed answer that wait for their client."""
FULL = re.compile(r"no workers|insufficient capacity", re.IGNORECASE)
RETURNED_400 = re.compile(r"returned 4\d\d:?\s*(.*)", re.IGNORECASE)
END = b""


@dataclass(slots=True, eq=False)
class Task:
    """A job that a stock worker has."""

    worker: str
    app: App
    outcome: "asyncio.Future[AiResult | str | _Pieces]"
    """A result, the text of an error, or a stream."""
    taken: bool = False
    """Whether an upload has come."""


@dataclass(slots=True, eq=False)
class _Pieces:
    """A streamed answer between its upload and its client."""

    queue: "asyncio.Queue[bytes | Exception]" = field(
        default_factory=lambda: asyncio.Queue(PIECES_MAX)
    )
    unwanted: asyncio.Event = field(default_factory=asyncio.Event)


class AiDownstream:
    """Serves stock AI workers on the worker port."""

    def __init__(
        self, exchange: Exchange, authenticate: Callable[[str], Awaitable[KnownWorker]]
    ) -> None:
        """`authenticate` tells whose a secret is, at every upload; it must be fast."""
        self._exchange = exchange
        self._authenticate = authenticate
        self.tasks: dict[int, Task] = {}
        self.inputs: dict[str, bytes] = {}

    async def register_ai(self, request: RegisterAi, stream: AiStream, caller: Caller) -> None:
        """Serve an AI worker until its stream ends."""
        offers = tuple(
            Offer(
                app=app_of(each.pipeline, each.model),
                capacity=min(each.capacity, CAPACITY_MAX),
                warm=each.warm,
                streaming=each.pipeline == "llm",
            )
            for each in request.models
            if each.pipeline in SERVED
        )
        if not offers:
            raise Ended(GrpcStatus.UNKNOWN, "zero capacity")
        try:
            known = await self._authenticate(request.secret)
            line = StockLine(self, known.worker, request.secret, offers, stream, caller.authority)
            await self._exchange.line(line, caller)
            if line.error is not None:
                raise line.error
        except Banned:
            raise Ended(GrpcStatus.UNKNOWN, "invalid secret") from None
        except PeerError as error:
            raise Ended(GrpcStatus.UNAUTHENTICATED, str(error)) from None
        except OpenPoolError as error:
            raise Ended(GrpcStatus.UNAVAILABLE, str(error)) from None

    # --- downloads and uploads -----------------------------------------------------------------

    def download(self, path: str) -> Download | Reply:
        """A worker fetches the input of its job."""
        data = self.inputs.get(path.removeprefix(INPUTS_PATH))
        if data is None:
            return Reply(404, "there is no such input, or it is not needed any more")
        return Download(_once(data), len(data))

    async def upload(self, caller: Caller, body: AsyncIterator[bytes]) -> Reply:
        """A worker posts what its job came to."""
        try:
            headers = read_ai_headers(caller.headers)
            known = await self._authenticate(headers.secret)
        except BadUpload as error:
            return Reply(error.status, str(error))
        except OpenPoolError as error:
            return Reply(401, str(error))
        task = self.tasks.get(headers.task_id)
        if task is None:
            return Reply(404, "this task is unknown, or is not needed any more")
        if task.worker != known.worker:
            return Reply(403, "this task was given to another worker")
        if task.taken:
            return Reply(409, "this task has its result already")
        task.taken = True
        return await self._take(headers, task, body)

    async def _take(self, headers: AiHeaders, task: Task, body: AsyncIterator[bytes]) -> Reply:
        try:
            if headers.kind == EVENTS_TYPE:
                return await _stream(task, body)
            if headers.kind == AI_ERROR_TYPE:
                _settle(task, await _read_error(body))
            else:
                _settle(task, await _read_result(headers.boundary, body))
        except BadUpload as error:
            _settle(task, f"the result cannot be read: {error}")
            return Reply(error.status, str(error))
        except BaseException:
            task.taken = False  # the upload broke off: the worker may try again
            raise
        return Reply(200, "OK")


class StockLine:
    """A stock AI worker as a line, see `link.anyline`."""

    def __init__(
        self,
        place: AiDownstream,
        worker: str,
        token: str,
        offers: tuple[Offer, ...],
        stream: AiStream,
        authority: str,
    ) -> None:
        self.place, self.worker, self.stream = place, worker, stream
        self.authority = authority
        self.error: OpenPoolError | None = None
        """Why the pool hung up, if it did."""
        self._token, self._offers = token, offers
        self._over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.calls: set[StockCall] = set()

    @property
    def open(self) -> bool:
        """Whether calls can be made."""
        return not self._over.done()

    async def hello(self) -> Hello:
        """Who it is was said at registration."""
        return Hello(self._token, self._all_offers())

    async def _all_offers(self) -> AsyncIterator[list[Offer]]:
        yield list(self._offers)
        watching = asyncio.ensure_future(self.stream.wait_closed())
        try:
            await asyncio.wait({watching, self._over}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                self._end(watching.result())
        finally:
            watching.cancel()
            self._end("the pool is shutting down")

    def call(
        self, method: str, path: str, headers: Mapping[str, str], body: Body = b""
    ) -> "StockCall":
        """A call is a job."""
        return StockCall(self, path, headers, body)

    async def wait_closed(self) -> str:
        """Wait until the stream is gone."""
        return await asyncio.shield(self._over)

    def close(self, error: OpenPoolError | None = None) -> None:
        """Hang up: the stream ends in a way that a stock worker understands."""
        self.error = error
        self._end(str(error) if error else "the pool closed it")

    def _end(self, reason: str) -> None:
        if not self._over.done():
            self._over.set_result(reason)
        for call in list(self.calls):
            call.fail(NotAnswered(f"the worker is gone: {reason}"))


class StockCall:
    """One call as a job, see `link.anyline`."""

    def __init__(self, line: StockLine, path: str, headers: Mapping[str, str], body: Body) -> None:
        self._line, self._path, self._body = line, path, body
        self._type = headers.get("content-type", "")
        self._asked = b""
        self._id = secrets.randbits(62)
        self._input = ""
        self._task: Task | None = None
        self._pieces: _Pieces | None = None

    async def __aenter__(self) -> Answer:
        try:
            if not self._line.open:
                raise NotAnswered("the worker is gone")
            self._asked = await _whole(self._body)
            return await self._answer()
        except BaseException:
            await self.leave()
            raise

    async def _answer(self) -> Answer:
        pipeline, model, rest = self._path.removeprefix("/call/").split("/", 2)
        app = App(unquote(pipeline), unquote(model))
        try:
            request, file = job_of(app, f"/{rest}", self._type, self._asked)
        except BadMessage as error:
            return _wrong(400, str(error))
        task = self._notify(app, request, file)
        outcome = await task.outcome
        if isinstance(outcome, _Pieces):
            self._pieces = outcome
            return Answer(200, {"content-type": EVENTS_TYPE}, _flow(outcome))
        if isinstance(outcome, str):
            return _failed(outcome)
        try:
            kind, body = answer_of(app, outcome, self._asked, self._type)
        except PeerError as error:
            return _wrong(502, str(error))
        return Answer(200, {"content-type": kind}, _once(body))

    def _notify(self, app: App, request: dict[str, object], file: bytes) -> Task:
        line, url = self._line, ""
        task = self._task = Task(line.worker, app, asyncio.get_running_loop().create_future())
        line.place.tasks[self._id] = task
        line.calls.add(self)
        if file:
            self._input = secrets.token_urlsafe(24)
            line.place.inputs[self._input] = file
            url = f"https://{line.authority}{INPUTS_PATH}{self._input}"
        job = AiJob(task_id=self._id, pipeline=THEIRS[app.pipeline], request=request, input_url=url)
        try:
            line.stream.notify_ai(job)
        except Unavailable as error:
            raise NotAnswered(str(error)) from None
        return task

    def fail(self, error: Exception) -> None:
        """Break off: whoever waits is told this error."""
        if self._task is not None and not self._task.outcome.done():
            self._task.outcome.set_exception(error)
        if self._pieces is not None:
            broken = BrokenOff(str(error)) if isinstance(error, NotAnswered) else error
            _force(self._pieces.queue, broken)

    async def leave(self) -> None:
        """End the call. The worker goes on; what it posts is not wanted any more."""
        self._line.calls.discard(self)
        self._line.place.tasks.pop(self._id, None)
        self._line.place.inputs.pop(self._input, None)
        if self._pieces is not None:
            self._pieces.unwanted.set()
        if self._task is not None and not self._task.outcome.cancel():
            self._task.outcome.exception()  # it may have failed with nobody waiting


def _settle(task: Task, outcome: AiResult | str | _Pieces) -> None:
    if not task.outcome.done():
        task.outcome.set_result(outcome)


def _failed(text: str) -> Answer:
    """What a worker's error text means."""
    if FULL.search(text):
        raise NotAnswered(text, NoCapacity.code)
    if found := RETURNED_400.search(text):
        return _wrong(400, found[1] or "the request is not right")
    return _wrong(500, text)


def _wrong(status: int, sentence: str) -> Answer:
    body = msgspec.json.encode({"error": {"message": sentence}})
    return Answer(status, {"content-type": "application/json"}, _once(body))


async def _stream(task: Task, body: AsyncIterator[bytes]) -> Reply:
    """Pass events on as they come, as fast as the client takes them."""
    pieces = _Pieces()
    _settle(task, pieces)
    try:
        async for chunk in body:
            if not await _put(pieces, chunk):
                return Reply(200, "OK")
        await _put(pieces, END)
    except BaseException as error:
        sentence = str(error) if isinstance(error, OpenPoolError) else "its upload broke off"
        _force(pieces.queue, BrokenOff(sentence))
        raise
    return Reply(200, "OK")


async def _put(pieces: _Pieces, chunk: bytes) -> bool:
    """Whether the piece is still wanted."""
    putting = asyncio.ensure_future(pieces.queue.put(chunk))
    leaving = asyncio.ensure_future(pieces.unwanted.wait())
    try:
        await asyncio.wait({putting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return not leaving.done()
    finally:
        putting.cancel()
        leaving.cancel()


def _force(queue: "asyncio.Queue[bytes | Exception]", error: Exception) -> None:
    """Say it even to somebody who does not read: the last piece gives way."""
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(error)


async def _flow(pieces: _Pieces) -> AsyncIterator[bytes]:
    while chunk := await pieces.queue.get():
        if isinstance(chunk, Exception):
            raise chunk
        yield chunk


async def _read_error(body: AsyncIterator[bytes]) -> str:
    text = b""
    async for chunk in body:
        text += chunk[: ERROR_BYTES_MAX - len(text)]
    return error_text(text)


async def _read_result(boundary: bytes, body: AsyncIterator[bytes]) -> AiResult:
    parser = AiResultParser(boundary)
    async for chunk in body:
        parser.feed(chunk)
    return parser.finish()


async def _whole(body: Body) -> bytes:
    return body if isinstance(body, bytes) else b"".join([chunk async for chunk in body])


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
