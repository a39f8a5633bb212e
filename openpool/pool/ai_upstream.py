"""The pool as an AI worker of its orchestrators: the older way to sell AI work, by gRPC.

Every app is registered on a connection of its own (a *lane*), with the capacity of all workers
together; another capacity is registered anew before the old lane goes. A job becomes a call of
`pool.exchange`, its answer an upload. Every job is answered well before the orchestrator's patience
ends, or it would drop the lane. Read next: `pool.ai_jobs`. See docs/protocol.md.
"""

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec
import structlog
from msgspec import Struct

from openpool.core.call_requests import CallFailed, CallRequest
from openpool.core.calls import App
from openpool.core.decoding import UNREADABLE
from openpool.core.errors import BadMessage, BadResult, OpenPoolError, Unauthorized, Unavailable
from openpool.core.units import PPM
from openpool.link.ai_client import AiWorkerClient
from openpool.link.interface import Ended, GrpcStatus
from openpool.pool.ai_jobs import PIPELINES, Asked, asked_of, result_of
from openpool.pool.exchange import CallAnswer, Exchange
from openpool.wire.ai_messages import AiJob, AiModel
from openpool.wire.ai_results import RESULT_BYTES_MAX, AiResult
from openpool.wire.chat_events import ChatEvents
from openpool.wire.messages import BadTask
from openpool.wire.results import error_text

log = structlog.get_logger()

ANSWER_S = 520.0
"""For a whole job; an orchestrator forgets its files after 600 s."""
FETCH_S = 30.0
RETRY_S = 0.3
"""Between two tries to upload a result."""
LOOK_S = 0.5
"""How often the workers' capacities are looked at."""
STEADY_S = 2.0
"""A lane whose capacity changed is not registered anew more often than this."""
UP_S = 1.0
"""How long a new lane must have lasted before its predecessor goes."""
BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
REFUSED_S = 30.0
"""Wait after a refusal that only a person can end."""
APPS_MAX = 200
JOBS_SPARE = 16
"""Beyond twice the capacity: an orchestrator that sends more is not taken seriously."""
GOODBYE_S = 3.0
"""How long an orchestrator has to take our errors when we stop."""
FULL = "insufficient capacity"
"""By these words a gateway knows that it may ask us again."""
FAILED = "the job failed; please try again"
LATE = "the job took too long"
NO_INPUT = "the input file could not be fetched"
REASON_CHARS_MAX = 300


class _WontDo(Exception):
    """The job is answered with this text."""


@dataclass(frozen=True, slots=True)
class Life:
    """One run of the orchestrator: after a restart it counts its tasks from 0 again."""

    incarnation: str
    """Of its certificate."""
    number: int
    """Goes up where it kept its certificate over a restart."""


@dataclass(slots=True)
class Lane:
    """The registration of one app."""

    app: App
    capacity: int
    made_at: float
    task: asyncio.Task[None] | None = None
    up: bool = False
    lasted: asyncio.Event = field(default_factory=asyncio.Event)


class AiUpstream:
    """One orchestrator. `run` it; it looks at what there is by itself."""

    def __init__(
        self,
        *,
        orchestrator: str,
        client: AiWorkerClient,
        exchange: Exchange,
        capacities: Callable[[], Mapping[App, int]],
        share_ppm: int = PPM,
        source_host: str = "",
        input_bytes_max: int = 100_000_000,
        answer_s: float = ANSWER_S,
    ) -> None:
        """`capacities` are those of all workers, of which this orchestrator is offered a share."""
        self.orchestrator = orchestrator
        self.problem = ""
        """Why nothing is sold, in one sentence; empty if all is well."""
        self.jobs: dict[tuple[Life, int], AiJob] = {}
        """Those not answered yet."""
        self._client = client
        self._exchange = exchange
        self._capacities = capacities
        self._share_ppm = share_ppm
        self._source_host = source_host
        self._input_bytes_max = input_bytes_max
        self._answer_s = answer_s
        self._lanes: dict[App, Lane] = {}
        self._life = Life("", 0)
        self._highest = -1
        self._silent = True
        """Whether no lane was up since the last task came."""
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    # --- lanes ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the apps registered until cancelled; then answer what is open."""
        async with self._client:
            try:
                async with asyncio.TaskGroup() as self._tasks:
                    while True:
                        self._look()
                        await asyncio.sleep(LOOK_S)
            finally:
                await self.give_up()

    def drain(self) -> None:
        """Take no more jobs; those under way go on."""
        self._draining = True
        for app in list(self._lanes):
            self._close(self._lanes.pop(app))

    async def wait_idle(self) -> None:
        """Wait until every job is answered."""
        await self._idle.wait()

    def lanes(self) -> dict[App, int]:
        """Capacities that are registered now."""
        return {lane.app: lane.capacity for lane in self._lanes.values() if lane.up}

    def _look(self) -> None:
        if self._draining:
            return
        wanted = self._wanted()
        for app in [app for app in self._lanes if app not in wanted]:
            self._close(self._lanes.pop(app))
        now = self._exchange.now()
        for app, capacity in wanted.items():
            lane = self._lanes.get(app)
            if lane is None or (lane.capacity != capacity and now - lane.made_at >= STEADY_S):
                self._open(Lane(app, capacity, now), lane)

    def _wanted(self) -> dict[App, int]:
        found = {
            app: max(1, capacity * self._share_ppm // PPM)
            for app, capacity in sorted(self._capacities().items())
            if app.pipeline in PIPELINES and capacity > 0
        }
        return dict(list(found.items())[:APPS_MAX])

    def _open(self, lane: Lane, before: Lane | None) -> None:
        """Make before break: jobs of the old lane are not touched by its end."""
        self._lanes[lane.app] = lane
        lane.task = self._tasks.create_task(self._keep(lane), name=f"lane {lane.app}")
        if before is not None:
            self._tasks.create_task(self._replace(lane, before), name=f"replace {lane.app}")

    async def _replace(self, lane: Lane, before: Lane) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(STEADY_S):
                await lane.lasted.wait()
        self._close(before)

    def _close(self, lane: Lane) -> None:
        if lane.task is not None:
            lane.task.cancel()

    async def _keep(self, lane: Lane) -> None:
        failures = 0
        while True:
            wait_s, began = BACKOFF_S[min(failures, len(BACKOFF_S) - 1)], self._exchange.now()
            failures += 1
            try:
                await self._register(lane)
            except Ended as ended:
                wait_s = self._refused(ended, self._exchange.now() - began) or wait_s
            except OpenPoolError as error:
                self.problem = str(error)
            finally:
                lane.up = False
                self._silent = not any(each.up for each in self._lanes.values())
            if self._exchange.now() - began > REFUSED_S:
                failures = 0
            await asyncio.sleep(wait_s * random.uniform(0.75, 1.25))  # noqa: S311 - only jitter

    def _refused(self, ended: Ended, lasted_s: float) -> float:
        """What the end of a lane means; how long to wait, 0 if as usual."""
        said = ended.message or ended.status.name
        if ended.message == "invalid secret":
            self.problem = (
                "the orchestrator says our secret is wrong; set orchestrators[].secret to the "
                "value of its -orchSecret"
            )
        elif ended.status is GrpcStatus.UNIMPLEMENTED:
            self.problem = "the orchestrator has no AI interface of this kind; set ai.grpc to false"
        elif ended.status is GrpcStatus.OK and lasted_s < UP_S:
            self.problem = "the orchestrator sends us away: it wants workers of another version"
        else:
            self.problem = f"the orchestrator ended the registration: {said}"
            return 0.0
        log.error("ai-worker-refused", orchestrator=self.orchestrator, problem=self.problem)
        return REFUSED_S

    async def _register(self, lane: Lane) -> None:
        model = AiModel(
            pipeline=PIPELINES[lane.app.pipeline], model=lane.app.model, capacity=lane.capacity
        )
        async with self._client.register_models(
            (model,), on_bad_task=self._bad_task
        ) as registration:
            lane.up = True
            timer = asyncio.get_running_loop().call_later(UP_S, self._lasted, lane)
            try:
                async for job in registration:
                    self._received(job, registration.fingerprint, lane.app)
            finally:
                timer.cancel()

    def _lasted(self, lane: Lane) -> None:
        lane.lasted.set()
        self.problem = ""

    # --- jobs ----------------------------------------------------------------------------------

    def _received(self, job: AiJob, incarnation: str, lane: App) -> None:
        life = self._life_of(job.task_id, incarnation)
        if (life, job.task_id) in self.jobs:
            return  # said twice
        if len(self.jobs) >= JOBS_SPARE + 2 * sum(self.lanes().values()):
            self._tasks.create_task(self._deliver_error(job, life, FULL), name="one too many")
            return
        self.jobs[life, job.task_id] = job
        self._idle.clear()
        self._tasks.create_task(self._serve(job, life, lane), name=f"job {job.task_id}")

    def _life_of(self, task_id: int, incarnation: str) -> Life:
        """Whose task this is. Lanes are read side by side, so ids need not come in order; but after
        all lanes had ended, an id that was seen before is another task."""
        again = self._silent and task_id <= self._highest
        if incarnation != self._life.incarnation or again:
            self._life = Life(incarnation, self._life.number + 1)
            self._highest = -1
        self._silent = False
        self._highest = max(self._highest, task_id)
        return self._life

    def _bad_task(self, task: BadTask) -> None:
        """A job that cannot be read is answered as well."""
        log.warning("ai-job-unreadable", orchestrator=self.orchestrator, reason=str(task))
        self._tasks.create_task(self._refuse(task), name=f"refuse {task.task_id}")

    async def _refuse(self, task: BadTask) -> None:
        with suppress(OpenPoolError):
            await self._client.post_ai_error(task.task_id, "", FAILED)

    async def _serve(self, job: AiJob, life: Life, lane: App) -> None:
        try:
            async with asyncio.timeout(self._answer_s):
                await self._answer(job, life, lane)
        except _WontDo as why:
            stopped = self._draining and str(why) == FAILED  # rather our end than its own
            await self._deliver_error(job, life, FULL if stopped else str(why))
        except TimeoutError:
            await self._deliver_error(job, life, LATE)
        except Exception as error:
            log.error("ai-job-failed", orchestrator=self.orchestrator, exc_info=error)
            await self._deliver_error(job, life, FAILED)
        self.jobs.pop((life, job.task_id), None)
        if not self.jobs:
            self._idle.set()

    async def _answer(self, job: AiJob, life: Life, lane: App) -> None:
        asked = await self._asked(job, lane)
        request = CallRequest(
            app=asked.app,
            source="ai-worker",
            orchestrator=self.orchestrator,
            path=asked.path,
            headers={"content-type": asked.content_type},
            streaming=asked.streaming,
        )
        try:
            async with self._exchange.call(request, asked.body) as answer:
                if not 200 <= answer.status < 300:
                    raise await self._said_no(job, answer)
                kind = answer.headers.get("content-type", "")
                if asked.streaming:
                    await self._stream(job, life, _as_events(kind, answer.body))
                    return
                body = await _whole(answer.body)
        except CallFailed as failure:
            raise _WontDo(_words_of(failure)) from None
        except BadMessage as error:
            raise _WontDo(_their_mistake(job, str(error))) from None
        result = await asyncio.to_thread(_result, job, kind, body)
        await self._deliver(job, life, result)

    async def _asked(self, job: AiJob, lane: App) -> Asked:
        file = await self._fetch(job.input_url) if job.input_url else b""
        try:
            return asked_of(job, lane, file)
        except BadMessage as error:
            raise _WontDo(_their_mistake(job, str(error))) from None

    async def _fetch(self, url: str) -> bytes:
        try:
            async with self._client.fetch(
                url, limit=self._input_bytes_max, timeout_s=FETCH_S, via=self._source_host
            ) as source:
                return b"".join([chunk async for chunk in source.body])
        except OpenPoolError as error:
            log.warning("ai-input-lost", orchestrator=self.orchestrator, reason=str(error))
            raise _WontDo(NO_INPUT) from None

    async def _said_no(self, job: AiJob, answer: CallAnswer) -> _WontDo:
        """A worker's refusal: the customer's mistake, or nothing to tell."""
        said = await _whole(answer.body)
        if answer.status == 429:
            return _WontDo(FULL)
        if 400 <= answer.status < 500:
            return _WontDo(_their_mistake(job, _sentence(said)))
        return _WontDo(FAILED)

    # --- results -------------------------------------------------------------------------------

    async def _stream(self, job: AiJob, life: Life, body: AsyncIterator[bytes]) -> None:
        """Upload while the worker speaks. Until the first word, what fails is told as an error;
        after it the upload breaks off, which is all that an orchestrator understands."""
        events = _events(ChatEvents(str(job.request.get("model", ""))), body)
        try:
            first = await anext(events)
        except BadResult as error:
            log.warning("ai-answer-wrong", orchestrator=self.orchestrator, reason=str(error))
            raise _WontDo(FAILED) from None
        if life != self._life:
            return
        with suppress(OpenPoolError):
            await self._client.post_ai_events(
                job, _joined(first, events), incarnation=life.incarnation
            )

    async def _deliver(self, job: AiJob, life: Life, result: AiResult) -> None:
        """Upload a result; whoever has restarted meanwhile knows nothing of it and gets nothing."""
        while life == self._life:
            try:
                answer = await self._client.post_ai_result(
                    job, result, incarnation=life.incarnation
                )
            except Unavailable as error:
                log.info("ai-result-again", orchestrator=self.orchestrator, reason=str(error))
                await asyncio.sleep(RETRY_S)
                continue
            except Unauthorized:
                return  # another certificate: it has restarted
            if answer.status != 200:
                log.warning("ai-result-refused", orchestrator=self.orchestrator, answer=str(answer))
            return

    async def _deliver_error(self, job: AiJob, life: Life, text: str) -> None:
        for _ in range(3):
            if life != self._life:
                return
            try:
                await self._client.post_ai_error(
                    job.task_id, job.pipeline, text, incarnation=life.incarnation
                )
            except Unavailable:
                await asyncio.sleep(RETRY_S)
                continue
            except Unauthorized:
                pass
            return

    async def give_up(self) -> None:
        """We stop: what is open is answered, so that gateways ask elsewhere at once."""
        open_jobs = dict(self.jobs)
        with suppress(TimeoutError, ExceptionGroup):
            async with asyncio.timeout(GOODBYE_S), asyncio.TaskGroup() as group:
                for (life, _), job in open_jobs.items():
                    group.create_task(self._deliver_error(job, life, FULL))
        self._life = Life("", -1)  # nothing more is sent


class AiUpstreams:
    """All orchestrators."""

    def __init__(self, upstreams: Sequence[AiUpstream]) -> None:
        self.upstreams = upstreams

    async def run(self) -> None:
        """Serve them all until cancelled."""
        async with asyncio.TaskGroup() as group:
            for upstream in self.upstreams:
                group.create_task(upstream.run(), name=f"ai worker of {upstream.orchestrator}")

    def drain(self) -> None:
        """Take no more jobs."""
        for upstream in self.upstreams:
            upstream.drain()

    async def wait_idle(self) -> None:
        """Wait until every job is answered."""
        for upstream in self.upstreams:
            await upstream.wait_idle()

    async def give_up(self) -> None:
        """Answer what could not be done in time."""
        async with asyncio.TaskGroup() as group:
            for upstream in self.upstreams:
                group.create_task(upstream.give_up())


def _result(job: AiJob, kind: str, body: bytes) -> AiResult:
    try:
        return result_of(job, kind, body, lambda: secrets.token_hex(12))
    except BadResult as error:
        log.warning("ai-answer-wrong", pipeline=job.pipeline, reason=str(error))
        raise _WontDo(FAILED) from None


def _words_of(failure: CallFailed) -> str:
    if failure.failure in ("insufficient-capacity", "no-such-app"):
        return FULL
    return LATE if failure.failure == "timeout" else FAILED


def _their_mistake(job: AiJob, what: str) -> str:
    """In the form by which a gateway knows that the request itself is wrong."""
    return f"{job.pipeline} container returned 400: {what[:REASON_CHARS_MAX]}"


class _Message(Struct):
    message: str = ""


class _Wrong(Struct):
    error: str | _Message = ""


def _sentence(said: bytes) -> str:
    """What a worker says about a bad request, on one printable line."""
    try:
        wrong = msgspec.json.decode(said, type=_Wrong).error
        text = wrong if isinstance(wrong, str) else wrong.message
    except UNREADABLE:
        text = ""
    return error_text(text.encode()) or "the request is not right"


async def _as_events(kind: str, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The body of a streamed chat; an answer that came whole becomes its only event."""
    if kind.startswith("text/event-stream"):
        async for chunk in body:
            yield chunk
    else:
        yield b"data: " + (await _whole(body)).replace(b"\n", b" ") + b"\n\n"


async def _whole(body: AsyncIterator[bytes]) -> bytes:
    chunks, size = [], 0
    async for chunk in body:
        size += len(chunk)
        if size > RESULT_BYTES_MAX:
            raise _WontDo(FAILED)
        chunks.append(chunk)
    return b"".join(chunks)


async def _events(chat: ChatEvents, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for chunk in body:
        if events := chat.feed(chunk):
            yield events
    yield chat.end()


async def _joined(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for events in rest:
        yield events
