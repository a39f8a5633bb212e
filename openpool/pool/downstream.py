"""The pool towards its workers: registration, segment downloads, result uploads.

A `PortHandler` of the worker port. It knows tokens, connections and attempts; what to do with
them the core decides. Nothing that identifies the stream upstream reaches a worker: session and
manifest ids are keyed hashes, segment addresses carry a code that fits one attempt only.
"""

import asyncio
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Protocol

import structlog

from openpool.core.capabilities import DEFAULT
from openpool.core.errors import Banned, NoCapacity, OpenPoolError, Unavailable
from openpool.core.facts import (
    AttemptErred,
    Fact,
    ResultChecked,
    ResultReceived,
    SourceFaulted,
    WorkerDown,
    WorkerUp,
)
from openpool.core.instructions import (
    Assign,
    CancelAttempt,
    CheckResult,
    EndSession,
    ForgetJob,
    Outcome,
    Settle,
)
from openpool.core.jobs import INPUT_ERRORS
from openpool.core.model import Segment, Verdict, WorkerKind
from openpool.link.interface import (
    Caller,
    Download,
    Ended,
    GrpcStatus,
    RegistrationStream,
    Reply,
)
from openpool.link.line import Line
from openpool.pool.ai_downstream import INPUTS_PATH, AiDownstream
from openpool.pool.media import Media
from openpool.store.interface import Receipt
from openpool.wire.ai_results import AI_RESULT_PATH
from openpool.wire.messages import Notification, RegisterRequest
from openpool.wire.results import (
    ERROR_BYTES_MAX,
    RESULT_PATH,
    BadUpload,
    RenditionData,
    ResultHeaders,
    ResultParser,
    error_text,
    read_headers,
)

log = structlog.get_logger()

SETTLE_TIMEOUT_S = 60.0
"""Longest wait of an upload for the verdict; the core settles every attempt well before."""
STATUS = {"credited": 200, "unneeded": 200, "late": 200, "refused": 422}


class KnownWorker(Protocol):
    """Who a token belongs to."""

    @property
    def worker(self) -> str: ...
    @property
    def address(self) -> str: ...
    @property
    def token(self) -> str: ...
    @property
    def commission_ppm(self) -> int: ...


@dataclass(slots=True)
class Connection:
    """One registration stream of a worker."""

    id: str
    worker: str
    token: str
    kind: WorkerKind
    stream: RegistrationStream
    authority: str
    ended: asyncio.Future[Ended]


@dataclass(slots=True)
class Task:
    """An attempt as this side knows it."""

    job: str
    worker: str
    segment: Segment | None = None
    """Not known for attempts from before a restart."""
    outcome: asyncio.Future[tuple[Outcome, str, Receipt]] | None = None


Authenticate = Callable[[str], Awaitable[KnownWorker]]
"""Worker of a secret. Raises Unauthorized (unknown, revoked), Refusal (banned, not approved)."""
Check = Callable[[str, bytes, list[RenditionData], Segment, str], Awaitable[Verdict]]
"""Opens a result: job, source, renditions, what was asked for, worker."""


@dataclass(slots=True)
class Downstream:
    """Serves the worker port."""

    feed: Callable[[Fact], None]
    media: Media
    tasks: asyncio.TaskGroup
    authenticate: Authenticate
    """Whose result this is, at every upload; must be fast."""
    admit: Authenticate
    """Whether this worker may register."""
    check: Check
    prepare: Callable[[str, bytes], Awaitable[None]]
    """Measures a job's source while its workers are at it, so that checks are shorter."""
    source_fault: Callable[[str, bytes, Segment], Awaitable[str]]
    """Why nobody can transcode a source; empty if it is in order."""
    secret: bytes
    """Keys the hashes that stand for upstream ids; kept across restarts."""
    epoch: int
    workers_max: int = 100_000
    calls: Callable[[Line, Caller], Awaitable[None]] | None = None
    """Serves the lines of workers that take AI calls, until each ends; None: there are no calls."""
    ai: AiDownstream | None = None
    """Serves stock AI workers; None: there are none."""
    connections: dict[str, Connection] = field(default_factory=dict)
    attempts: dict[int, Task] = field(default_factory=dict)
    by_job: dict[str, list[int]] = field(default_factory=dict)
    _counter: int = 0

    # --- registration --------------------------------------------------------------------------

    async def register(
        self, request: RegisterRequest, stream: RegistrationStream, caller: Caller
    ) -> None:
        """Serve a worker until its stream ends."""
        known = await self._admit(request)
        connection = self._connect(known, stream, caller)
        self.feed(self._worker_up(known, connection, request, caller))
        reason = "the stream ended"
        try:
            reason = await self._serve(connection)
        finally:
            self.connections.pop(connection.id, None)
            self.feed(WorkerDown(connection=connection.id, reason=reason))

    async def _admit(self, request: RegisterRequest) -> KnownWorker:
        try:
            known = await self.admit(request.secret)
        except Banned:
            raise Ended(GrpcStatus.UNKNOWN, "invalid secret") from None
        except OpenPoolError as error:
            raise Ended(GrpcStatus.UNAUTHENTICATED, str(error)) from None
        if request.capacity <= 0:
            raise Ended(GrpcStatus.UNKNOWN, "zero capacity")
        if len(self.connections) >= self.workers_max:
            raise Ended(GrpcStatus.RESOURCE_EXHAUSTED, "the pool has as many workers as it takes")
        return known

    def _connect(
        self, known: KnownWorker, stream: RegistrationStream, caller: Caller
    ) -> Connection:
        self._counter += 1
        connection = Connection(
            id=f"{self.epoch}-{self._counter}",
            worker=known.worker,
            token=known.token,
            kind="openpool" if "openpool-worker" in caller.headers else "stock",
            stream=stream,
            authority=caller.authority,
            ended=asyncio.get_running_loop().create_future(),
        )
        self.connections[connection.id] = connection
        return connection

    def _worker_up(
        self,
        known: KnownWorker,
        connection: Connection,
        request: RegisterRequest,
        caller: Caller,
    ) -> WorkerUp:
        return WorkerUp(
            worker=known.worker,
            address=known.address,
            connection=connection.id,
            kind=connection.kind,
            capacity=min(request.capacity, 1000),
            capabilities=DEFAULT if request.capabilities is None else request.capabilities,
            version=request.version,
            commission_ppm=known.commission_ppm,
            peer=caller.peer,
        )

    async def _serve(self, connection: Connection) -> str:
        closed = asyncio.ensure_future(connection.stream.wait_closed())
        try:
            either: set[asyncio.Future[Any]] = {closed, connection.ended}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if connection.ended.done():
                raise connection.ended.result()
            return closed.result()
        finally:
            closed.cancel()

    def end_token(self, token: str, reason: str) -> None:
        """End the streams that a revoked token opened; the worker may come back with another."""
        ended = Ended(GrpcStatus.UNAUTHENTICATED, reason)
        self._end(lambda connection: connection.token == token, ended)

    def end_worker(self, worker: str) -> None:
        """End the streams of a banned worker for good."""
        ended = Ended(GrpcStatus.UNKNOWN, "invalid secret")
        self._end(lambda connection: connection.worker == worker, ended)

    def _end(self, which: Callable[[Connection], bool], ended: Ended) -> None:
        for connection in self.connections.values():
            if which(connection) and not connection.ended.done():
                connection.ended.set_result(ended)

    async def line(self, line: Line, caller: Caller) -> None:
        """Serve a worker that takes calls, if this pool makes any."""
        if self.calls is None:
            raise Unavailable("this pool makes no AI calls; ask its operator to switch them on")
        await self.calls(line, caller)

    # --- instructions --------------------------------------------------------------------------

    def assign(self, what: Assign, _receipt: Receipt) -> None:
        """Notify a worker of an attempt."""
        if what.job not in self.by_job:
            self.tasks.create_task(self._prepare(what.job), name=f"prepare {what.job}")
        self.expect(what.attempt, what.job, what.worker, what.segment)
        connection = self.connections.get(what.connection)
        if connection is None:
            self.feed(WorkerDown(connection=what.connection, reason="the stream is gone"))
            return
        self._notify(
            connection,
            Notification(
                url=f"https://{connection.authority}/segments/{self._ticket(what.attempt)}.ts",
                task_id=what.attempt,
                session=self._opaque("session", what.orchestrator, what.session),
                manifest=self._opaque("manifest", what.orchestrator, what.manifest),
                segment=what.segment,
            ),
        )

    def expect(self, attempt: int, job: str, worker: str, segment: Segment | None = None) -> None:
        """Take this worker's result for this attempt; also for attempts from before a restart."""
        self.attempts[attempt] = Task(job, worker, segment)
        self.by_job.setdefault(job, []).append(attempt)

    def end_session(self, what: EndSession, _receipt: Receipt) -> None:
        """Tell a worker to free what it keeps for a session."""
        if connection := self.connections.get(what.connection):
            session = self._opaque("session", what.orchestrator, what.session)
            self._notify(connection, Notification(session=session))

    def cancel_attempt(self, what: CancelAttempt, _receipt: Receipt) -> None:
        """Tell our own worker that an attempt is not needed any more."""
        connection = self.connections.get(what.connection)
        if connection is not None and connection.kind == "openpool":
            self._notify(connection, Notification(cancelled_task_id=what.attempt))

    def _notify(self, connection: Connection, notification: Notification) -> None:
        try:
            connection.stream.notify(notification)
        except Unavailable as error:
            self.feed(WorkerDown(connection=connection.id, reason=str(error)))

    def settle(self, what: Settle, receipt: Receipt) -> None:
        """Let the upload of an attempt be answered, once the step is on disk."""
        task = self.attempts.get(what.attempt)
        self.media.drop_result(what.attempt)
        if task is not None and task.outcome is not None and not task.outcome.done():
            task.outcome.set_result((what.outcome, what.text, receipt))

    def forget_job(self, what: ForgetJob, _receipt: Receipt) -> None:
        """Drop what is kept for a job."""
        self.media.forget(what.job)
        for attempt in self.by_job.pop(what.job, ()):
            self.media.drop_result(attempt)
            del self.attempts[attempt]

    async def _prepare(self, job: str) -> None:
        with suppress(Unavailable):
            await self.prepare(job, await self.media.source(job))

    def check_result(self, what: CheckResult, _receipt: Receipt) -> None:
        """Open a result and tell the core what it is."""
        self.tasks.create_task(self._check(what), name=f"check {what.attempt}")

    async def _check(self, what: CheckResult) -> None:
        try:
            source = await self.media.source(what.job)
            worker = self.attempts[what.attempt].worker
            renditions = self.media.result(what.attempt)
            verdict = await self.check(what.job, source, renditions, what.segment, worker)
            self.media.label(what.attempt, what.segment.profiles)
        except (OpenPoolError, KeyError) as error:
            verdict = Verdict(ok=False, reason=f"the result could not be checked: {error}")
        self.feed(ResultChecked(attempt=what.attempt, verdict=verdict))

    # --- downloads and uploads -----------------------------------------------------------------

    async def download(self, path: str, caller: Caller) -> Download | Reply:
        """A worker fetches the source of its attempt, or the input of its AI job."""
        if self.ai is not None and path.startswith(INPUTS_PATH):
            return self.ai.download(path)
        task = self._task_of(path)
        if task is None:
            return Reply(404, "there is no such segment, or it is not needed any more")
        try:
            length = await self.media.source_length(task.job)
        except Unavailable as error:
            return Reply(404, str(error))
        return Download(self.media.stream(task.job), length, "video/mp2t")

    def _task_of(self, path: str) -> Task | None:
        ticket = path.removeprefix("/segments/").removesuffix(".ts")
        number = ticket.partition("-")[0]
        if not (number.isdecimal() and len(number) < 20):
            return None
        if not hmac.compare_digest(ticket.encode(), self._ticket(int(number)).encode()):
            return None
        return self.attempts.get(int(number))

    async def upload(self, path: str, caller: Caller, body: AsyncIterator[bytes]) -> Reply:
        """A worker uploads the result, or the error, of its attempt or AI job."""
        if self.ai is not None and path == AI_RESULT_PATH:
            return await self.ai.upload(caller, body)
        if path != RESULT_PATH:
            return Reply(404, f"results belong to {RESULT_PATH}")
        try:
            headers = read_headers(caller.headers)
            known = await self.authenticate(headers.secret)
        except BadUpload as error:
            return Reply(error.status, str(error))
        except OpenPoolError as error:
            return Reply(401, str(error))
        task = self.attempts.get(headers.task_id)
        if task is None:
            return Reply(404, "this task is unknown, or was finished by another worker")
        if task.worker != known.worker:
            return Reply(403, "this task was given to another worker")
        return await self._take(headers, task, body)

    async def _take(self, headers: ResultHeaders, task: Task, body: AsyncIterator[bytes]) -> Reply:
        attempt = headers.task_id
        if task.outcome is not None:
            return Reply(409, "this task has its result already")
        task.outcome = asyncio.get_running_loop().create_future()
        try:
            if headers.is_error:
                return await self._erred(attempt, task, body)
            size = await self._keep(attempt, headers, body)
        except OpenPoolError as error:
            self.feed(AttemptErred(attempt=attempt, worker=task.worker, reason=str(error)))
            return Reply(_status(error), str(error))
        except BaseException:
            task.outcome = None  # the upload broke off: the worker may try again
            raise
        self.feed(ResultReceived(attempt=attempt, worker=task.worker, bytes=size))
        return await self._settled(task.outcome)

    async def _erred(self, attempt: int, task: Task, body: AsyncIterator[bytes]) -> Reply:
        text = b""
        async for chunk in body:
            text += chunk[: ERROR_BYTES_MAX - len(text)]
        reason = error_text(text)
        self.feed(AttemptErred(attempt=attempt, worker=task.worker, reason=reason))
        if reason in INPUT_ERRORS and task.job in self.by_job and task.segment is not None:
            doubt = self._doubt_source(task.job, task.segment)
            self.tasks.create_task(doubt, name=f"doubt {task.job}")
        return Reply(200, "OK")

    async def _doubt_source(self, job: str, segment: Segment) -> None:
        """A worker says that the input is broken: open it here, so that the gateway may be told."""
        with suppress(Unavailable):
            fault = await self.source_fault(job, await self.media.source(job), segment)
            if fault:
                self.feed(SourceFaulted(job=job, reason=fault))

    async def _keep(self, attempt: int, headers: ResultHeaders, body: AsyncIterator[bytes]) -> int:
        parser = ResultParser(headers.boundary)
        async for chunk in body:
            parser.feed(chunk)
        renditions = parser.finish()
        self.media.put_result(attempt, renditions)
        return sum(len(rendition.data) for rendition in renditions)

    async def _settled(self, outcome: asyncio.Future[tuple[Outcome, str, Receipt]]) -> Reply:
        try:
            async with asyncio.timeout(SETTLE_TIMEOUT_S):
                kind, text, receipt = await outcome
                await receipt.durable()
        except TimeoutError:
            return Reply(503, "the pool could not check this result in time")
        except Unavailable as error:
            return Reply(503, str(error))
        return Reply(STATUS[kind], text or "OK")

    # --- ids that workers see ------------------------------------------------------------------

    def _opaque(self, kind: str, orchestrator: str, value: str) -> str:
        return self._digest(f"{kind}\0{orchestrator}\0{value}")

    def _ticket(self, attempt: int) -> str:
        return f"{attempt}-{self._digest(f'segment{attempt}')}"

    def _digest(self, text: str) -> str:
        return blake2b(text.encode(), key=self.secret, digest_size=16).hexdigest()


def _status(error: OpenPoolError) -> int:
    if isinstance(error, BadUpload):
        return error.status
    return 503 if isinstance(error, NoCapacity) else 400
